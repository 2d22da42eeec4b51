"""Passkeys at the two doors: alone, and after a password."""

import json
import logging
from typing import Any

import pytest

from auth.io.account_events import AccountEvents
from auth.login.answers import PASSKEY_SCRIPT_PATH
from auth.login.messages import LoginAnswer
from auth.login.service import LoginService
from auth.revocation import EVENTS_KEY
from config.model import Login, UserService
from tests.auth.login.authenticator import Authenticator
from tests.auth.login.conftest import (
    OWN,
    PASSWORD,
    PUBLIC,
    SECRET,
    Browser,
    Site,
    app_of,
    configured,
    cookies_of,
    field,
    new_passkey,
    record_of,
    use_passkey,
)
from tests.auth.login.page_reader import PageReader

LOGIN, SECOND = "/.doorward/login", "/.doorward/second-factor"
ACCOUNT, PASSKEYS = "/.doorward/account", "/.doorward/account/passkeys"
FORM = {"username": "ada", "password": PASSWORD, "return_to": "/notes/1"}
POLICY = "content-security-policy"


def shows(answer: LoginAnswer) -> str:
    return PageReader(answer.body).text


async def enrolled(
    site: Site, *, login: str = "ada", id_: bytes = b"i" * 32, synced: bool = False
) -> Authenticator:
    """An authenticator with a passkey of *login*'s account."""
    browser, authenticator = site.browser(), Authenticator(PUBLIC, id_=id_, synced=synced)
    await browser.sign_in(username=login)
    await new_passkey(browser, authenticator)
    return authenticator


async def first_half(site: Site) -> Browser:
    browser = site.browser()
    answer = await browser.post(LOGIN, FORM)
    assert (answer.status, field(answer, "location")) == (303, SECOND)
    return browser


# Alone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("synced", [False, True])
async def test_a_passkey_alone_signs_in_with_two_factors(site: Site, *, synced: bool) -> None:
    authenticator = await enrolled(site, synced=synced)
    browser = site.browser()
    answer = await use_passkey(browser, LOGIN, authenticator, return_to="/notes/1")
    assert (answer.status, field(answer, "location")) == (303, "/notes/1")
    record = await record_of(site, browser)
    assert record.subject == site.accounts.find("ada").subject
    assert record.amr == ("swk" if synced else "hwk", "user", "mfa")
    assert record.acr == "phr"


async def test_nobody_is_told_who_has_a_passkey(site: Site) -> None:
    """The same options and the same page, whether anybody has one."""
    stranger = site.browser()
    before = shows(await stranger.get(LOGIN))
    asked = [json.loads((await stranger.post(LOGIN, {"challenge": "1"})).body)]
    await enrolled(site)
    asked.append(json.loads((await stranger.post(LOGIN, {"challenge": "1", **FORM})).body))
    assert shows(await stranger.get(LOGIN)) == before
    for options in asked:
        assert not options.pop("allowCredentials", [])
        assert len(options.pop("challenge")) >= 22
    assert asked[0] == asked[1]


async def test_a_passkey_that_nobody_has_and_a_wrong_one_get_the_same_answer(site: Site) -> None:
    known = await enrolled(site)
    unknown = Authenticator(PUBLIC, id_=b"u" * 32)
    unknown.handle = known.handle
    known.key = unknown.key
    answers = [await use_passkey(site.browser(), LOGIN, each) for each in (known, unknown)]
    assert [(each.status, each.error) for each in answers] == [(401, "passkey_failed")] * 2
    assert shows(answers[0]) == shows(answers[1])


async def test_whoever_is_there_must_be_verified(site: Site) -> None:
    authenticator = await enrolled(site)
    authenticator.verifies = False
    browser = site.browser()
    answer = await use_passkey(browser, LOGIN, authenticator)
    assert (answer.status, browser.session) == (401, "")


async def test_a_phishing_site_gets_nothing_that_is_good_here(site: Site) -> None:
    authenticator = await enrolled(site)
    authenticator.origin = "https://app.example.com.evil.example"
    browser = site.browser()
    answer = await use_passkey(browser, LOGIN, authenticator)
    assert (answer.status, browser.session) == (401, "")


async def test_what_was_signed_is_good_once_and_in_one_browser(site: Site) -> None:
    authenticator = await enrolled(site, synced=True)  # whose counter does not help
    browser, other = site.browser(), site.browser()
    options = json.loads((await browser.post(LOGIN, {"challenge": "1"})).body)
    await other.post(LOGIN, {"challenge": "1"})
    signed = authenticator.get(options)
    assert (await other.post(LOGIN, {"credential": signed})).status == 401
    assert (await browser.post(LOGIN, {"credential": signed})).status == 303
    assert (await browser.post(LOGIN, {"credential": signed})).status == 401
    assert not other.session


async def test_the_cookie_of_a_challenge_is_for_our_own_forms(site: Site) -> None:
    (cookie,) = (
        each
        for each in cookies_of(await site.browser().post(LOGIN, {"challenge": "1"}))
        if "passkey" in each
    )
    name, *attributes = cookie.split("; ")
    assert name.startswith("__Host-doorward-sign-in-passkey=")
    assert {"Max-Age=300", "Path=/", "HttpOnly", "SameSite=Strict", "Secure"} == set(attributes)


async def test_a_form_of_another_site_signs_nobody_in(site: Site) -> None:
    authenticator = await enrolled(site)
    browser = site.browser()
    options = json.loads((await browser.post(LOGIN, {"challenge": "1"})).body)
    form = {"credential": authenticator.get(options)}
    answer = await browser.post(LOGIN, form, {"origin": "https://evil.example"})
    assert (answer.status, answer.error, browser.session) == (403, "foreign_form", "")


async def test_a_disabled_account_is_let_in_by_no_passkey(site: Site) -> None:
    authenticator = await enrolled(site)
    site.accounts.set_disabled("ada", disabled=True)
    browser = site.browser()
    answer = await use_passkey(browser, LOGIN, authenticator)
    assert (answer.status, answer.error, browser.session) == (401, "passkey_failed", "")


async def test_the_session_that_was_there_ends(site: Site) -> None:
    authenticator = await enrolled(site)
    browser = site.browser()
    await browser.sign_in(username="bob")
    old = browser.session
    await use_passkey(browser, LOGIN, authenticator)
    assert browser.session not in ("", old)
    assert not await site.is_alive(old)


async def test_a_counter_that_went_back_is_refused_and_told(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.service = LoginService(
        configured(),
        site.store,
        site.accounts,
        SECRET,
        second_factors=site.service._second_factors,
        events=AccountEvents(site.store.commands),
    )
    authenticator = await enrolled(site)
    for _ in range(3):
        assert (await use_passkey(site.browser(), LOGIN, authenticator)).status == 303
    authenticator.sign_count = 1
    browser = site.browser()
    with caplog.at_level(logging.WARNING, "doorward.login"):
        answer = await use_passkey(browser, LOGIN, authenticator)
    assert (answer.status, browser.session) == (401, "")
    subject = site.accounts.find("ada").subject
    assert subject in caplog.text
    raw: Any = await site.store.commands.xrevrange(EVENTS_KEY, count=1)
    told = {name.decode(): value.decode() for name, value in raw[0][1].items()}
    assert told.pop("at")
    assert told == {"event": "account.passkey_refused", "subject": subject, "reason": "counter"}


@pytest.mark.parametrize("response", ["", "{", "[]", "x" * 5000, '{"id":"a\\nb"}'])
async def test_what_makes_no_sense_is_refused(site: Site, response: str) -> None:
    browser = site.browser()
    await browser.post(LOGIN, {"challenge": "1"})
    answer = await browser.post(LOGIN, {"credential": response})
    assert (answer.status, answer.error) == (401, "passkey_failed")


async def test_a_program_may_use_it_too(site: Site) -> None:
    authenticator = await enrolled(site)
    program = site.browser()
    program.fields["accept"] = "application/json"
    answer = await use_passkey(program, LOGIN, authenticator)
    assert answer.status == 200
    assert json.loads(answer.body)["subject"] == site.accounts.find("ada").subject


# After a password ---------------------------------------------------------------------------------


async def test_after_a_password_the_passkey_completes_it(site: Site) -> None:
    authenticator = await enrolled(site)
    browser = await first_half(site)
    assert not browser.session
    page = await browser.get(SECOND)
    assert "Use your passkey" in shows(page)
    assert "authenticator app" not in shows(page)
    authenticator.verifies = False  # its owner has shown the password
    answer = await use_passkey(browser, SECOND, authenticator)
    assert (answer.status, field(answer, "location")) == (303, "/notes/1")
    record = await record_of(site, browser)
    assert (record.amr, record.acr) == (("pwd", "hwk", "user", "mfa"), "phr")


async def test_a_passkey_of_somebody_else_completes_nothing(site: Site) -> None:
    await enrolled(site)
    bobs = await enrolled(site, login="bob", id_=b"b" * 32)
    browser = await first_half(site)
    answer = await use_passkey(browser, SECOND, bobs)
    assert (answer.status, answer.error, browser.session) == (401, "passkey_failed", "")


async def test_a_challenge_of_one_door_opens_no_other(site: Site) -> None:
    authenticator = await enrolled(site)
    browser = await first_half(site)
    options = json.loads((await browser.post(LOGIN, {"challenge": "1"})).body)
    answer = await browser.post(SECOND, {"credential": authenticator.get(options)})
    assert (answer.status, browser.session) == (401, "")
    options = json.loads((await browser.post(SECOND, {"challenge": "1"})).body)
    answer = await browser.post(LOGIN, {"credential": authenticator.get(options)})
    assert (answer.status, browser.session) == (401, "")


async def test_who_has_both_may_choose(site: Site) -> None:
    authenticator = await enrolled(site)
    app = app_of(site, "ada")
    browser = await first_half(site)
    text = shows(await browser.get(SECOND))
    assert "Use your passkey" in text
    assert "Code from your authenticator app" in text
    assert (await browser.post(SECOND, {"code": app.code()})).status == 303
    assert (await record_of(site, browser)).acr == "mfa"
    browser = await first_half(site)
    assert (await use_passkey(browser, SECOND, authenticator)).status == 303
    assert (await record_of(site, browser)).acr == "phr"


# Step-up ------------------------------------------------------------------------------------------

WANTED = {"return_to": f"{PUBLIC}/vault", "acr_values": "phr"}


async def test_a_route_that_rules_phishing_out_takes_no_code(site: Site) -> None:
    authenticator = await enrolled(site)
    app = app_of(site, "ada")
    browser = await first_half(site)
    await browser.post(SECOND, {"code": app.code()})
    assert field(await browser.get(LOGIN, WANTED), "location") == SECOND
    assert "authenticator app" not in shows(await browser.get(SECOND))
    answer = await browser.post(SECOND, {"code": app.code()})
    assert (answer.status, answer.error) == (401, "second_factor_failed")
    answer = await use_passkey(browser, SECOND, authenticator)
    assert (answer.status, field(answer, "location")) == (303, f"{PUBLIC}/vault")
    assert (await record_of(site, browser)).acr == "phr"


async def test_who_has_no_passkey_is_sent_to_add_one_and_back(site: Site) -> None:
    browser = site.browser()
    await browser.sign_in()
    answer = await browser.get(LOGIN, WANTED)
    path, _, query = field(answer, "location").partition("?")
    assert (path, "vault" in query) == (PASSKEYS, True)
    page = PageReader((await browser.get(PASSKEYS, {"return_to": WANTED["return_to"]})).body)
    (back,) = {each.attributes["value"] for each in page.all("input", name="return_to")}
    assert back == WANTED["return_to"]
    options = json.loads((await browser.post(PASSKEYS, {"challenge": "1"})).body)
    made = Authenticator(PUBLIC).create(options)
    answer = await browser.post(PASSKEYS, {"credential": made, "return_to": back})
    assert f'href="{back}"' in answer.body.decode()
    assert (await record_of(site, browser)).acr == "phr"


async def test_a_passkey_serves_where_two_factors_are_asked_for(site: Site) -> None:
    authenticator = await enrolled(site)
    browser = site.browser()
    await use_passkey(browser, LOGIN, authenticator)
    identity = (await site.caller(browser.session)).identity  # type: ignore[union-attr]
    from auth.decision import StepUp  # noqa: PLC0415 - for this test alone

    assert StepUp(("mfa",)).is_strong_enough(identity.acr, identity.amr)
    assert StepUp(("phr",)).is_strong_enough(identity.acr, identity.amr)
    assert not StepUp(("phrh",)).is_strong_enough(identity.acr, identity.amr)


# Where there are any ------------------------------------------------------------------------------


async def test_only_pages_with_passkeys_run_our_script_and_nothing_else(site: Site) -> None:
    browser = site.browser()
    policy = field(await browser.get(LOGIN), POLICY)
    assert f"script-src {PUBLIC}{PASSKEY_SCRIPT_PATH};" in policy
    assert policy.endswith(f"connect-src {PUBLIC}/.doorward/")
    assert "unsafe" not in policy
    await browser.sign_in()
    assert "script-src" in field(await browser.get(PASSKEYS), POLICY)
    for path in (ACCOUNT, "/.doorward/sessions", "/.doorward/logout", f"{ACCOUNT}/password"):
        assert "script-src" not in field(await browser.get(path), POLICY)


async def test_the_script_is_served_as_one(site: Site) -> None:
    answer = await site.browser().get(PASSKEY_SCRIPT_PATH)
    assert answer.status == 200
    assert field(answer, "content-type") == "text/javascript; charset=utf-8"
    assert field(answer, "x-content-type-options") == "nosniff"
    assert b"navigator.credentials" in answer.body


@pytest.mark.parametrize(
    ("public_url", "login_url"),
    [
        ("http://app.example.com", "/.doorward/login"),
        ("https://192.0.2.7", "/.doorward/login"),
        (PUBLIC, "https://login.example.com/.doorward/login"),
    ],
)
async def test_where_browsers_have_none_nothing_is_offered(
    site: Site, public_url: str, login_url: str
) -> None:
    settings = configured(public_url=public_url, login=Login(url=login_url))
    site.service = site.service.reconfigured(settings)
    browser = site.browser()
    browser.fields["host"] = public_url.partition("//")[2]
    origin = {"origin": public_url}
    page = await browser.get(LOGIN)
    assert "passkey" not in shows(page).lower()
    assert "script-src" not in field(page, POLICY)
    answer = await browser.post(LOGIN, {"challenge": "1"}, origin)
    assert (answer.status, answer.error) == (404, "not_offered")
    assert (await browser.post(LOGIN, {"credential": "{}"}, origin)).status == 401


async def test_people_of_elsewhere_sign_in_with_no_passkey_alone(site: Site) -> None:
    """Whether they may is not known here: they could have been disabled there."""
    authenticator = await enrolled(site)
    login = Login(user_service=UserService("http://127.0.0.1:9/", None, 1.0))
    site.service = site.service.reconfigured(configured(login=login))
    browser = site.browser()
    assert "Sign in with a passkey" not in shows(await browser.get(LOGIN))
    fields = {**OWN, "accept": "application/json"}
    assert (await browser.post(LOGIN, {"challenge": "1"}, fields)).status == 401
    assert authenticator.handle
