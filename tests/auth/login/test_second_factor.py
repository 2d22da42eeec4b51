"""The second half of a sign-in, and a session that becomes a stronger one."""

import asyncio
import json

import pytest

from auth.login.messages import LoginAnswer
from auth.login.service import LoginService
from auth.login.throttle import CODES, StoreThrottle
from auth.session import SessionRecord, digest
from tests.auth.login.authenticator import Authenticator, encoded
from tests.auth.login.conftest import (
    OWN,
    PASSWORD,
    PUBLIC,
    SECRET,
    App,
    Browser,
    Site,
    app_of,
    configured,
    field,
    use_passkey,
)
from tests.auth.login.page_reader import PageReader

LOGIN, SECOND = "/.doorward/login", "/.doorward/second-factor"
FORM = {"username": "ada", "password": PASSWORD, "return_to": "/notes/1"}
COOKIE = "__Host-doorward-sign-in-second-factor"


async def first_half(site: Site) -> Browser:
    """A browser that has shown ada's password."""
    browser = site.browser()
    answer = await browser.post(LOGIN, FORM)
    assert (answer.status, field(answer, "location")) == (303, SECOND)
    return browser


async def record_of(site: Site, browser: Browser) -> SessionRecord:
    found = await site.store.find(digest(browser.session))
    assert isinstance(found, SessionRecord)
    return found


def shows(answer: LoginAnswer) -> str:
    return PageReader(answer.body).text


async def test_a_password_alone_makes_no_session_of_an_account_with_an_app(site: Site) -> None:
    app_of(site, "ada")
    browser = await first_half(site)
    assert not browser.session
    assert await site.store.sessions_of(site.accounts.find("ada").subject) == []
    # Straight to where the sign-in would have led.
    answer = await browser.get("/.doorward/sessions")
    assert field(answer, "location").startswith(LOGIN)
    assert await browser.get("/.doorward/account") is not None
    assert not browser.session


async def test_the_code_completes_it(site: Site) -> None:
    app = app_of(site, "ada")
    browser = await first_half(site)
    page = await browser.get(SECOND)
    assert (page.status, "authenticator app" in shows(page)) == (200, True)
    answer = await browser.post(SECOND, {"code": app.code()})
    assert (answer.status, field(answer, "location")) == (303, "/notes/1")
    assert COOKIE not in browser.cookies
    record = await record_of(site, browser)
    assert (record.amr, record.acr) == (("pwd", "otp", "mfa"), "mfa")
    assert record.subject == site.accounts.find("ada").subject


async def test_who_has_no_second_factor_is_not_asked_for_one(site: Site) -> None:
    app_of(site, "bob")
    browser = site.browser()
    await browser.sign_in()
    assert (await record_of(site, browser)).acr == ""


async def test_a_code_that_was_seen_is_of_no_use(site: Site) -> None:
    app = app_of(site, "ada")
    code = app.code()
    first, second = await first_half(site), await first_half(site)
    assert (await first.post(SECOND, {"code": code})).status == 303
    answer = await second.post(SECOND, {"code": code})
    assert (answer.status, answer.error) == (401, "second_factor_failed")
    assert not second.session
    assert 'aria-invalid="true"' in answer.body.decode()


async def test_a_first_half_makes_one_session_and_no_more(site: Site) -> None:
    app = app_of(site, "ada")
    browser = await first_half(site)
    copy = site.browser()
    copy.cookies = dict(browser.cookies)
    assert (await browser.post(SECOND, {"code": app.code()})).status == 303
    answer = await copy.post(SECOND, {"code": app.code()})
    assert (answer.status, answer.error) == (400, "sign_in_expired")
    assert not copy.session


async def test_a_first_half_is_its_browsers_own(site: Site) -> None:
    app = app_of(site, "ada")
    await first_half(site)
    stranger = site.browser()
    assert field(await stranger.get(SECOND), "location") == LOGIN
    for value in ("", "x", "0" * 43):
        stranger.cookies[COOKIE] = value
        answer = await stranger.post(SECOND, {"code": app.code()})
        assert (answer.status, stranger.session) == (400, "")


async def test_codes_cannot_be_tried_out(site: Site) -> None:
    """Ten tries for an account, from wherever and however often the password is shown again."""
    throttle = StoreThrottle(site.store.commands)
    subject = site.accounts.find("ada").subject
    app = app_of(site, "ada")
    at_hand = site.service._second_factors
    site.service = LoginService(
        configured(),
        site.store,
        site.accounts,
        SECRET,
        throttle=throttle,
        second_factors=at_hand,
    )
    browsers = [await first_half(site) for _ in range(2)]
    for number in range(CODES.size):
        answer = await browsers[number % 2].post(SECOND, {"code": "000000"})
        assert answer.status == 401
    for browser in browsers:
        answer = await browser.post(SECOND, {"code": app.code()})
        assert (answer.status, answer.error) == (429, "too_many_attempts")
        assert int(field(answer, "retry-after")) <= 60
        assert not browser.session
    assert await throttle.take_code(subject) > 0
    assert await throttle.take_code("somebody else") == 0


async def test_a_right_code_costs_no_try(site: Site) -> None:
    throttle = StoreThrottle(site.store.commands)
    app = app_of(site, "ada")
    at_hand = site.service._second_factors
    site.service = LoginService(
        configured(), site.store, site.accounts, SECRET, throttle=throttle, second_factors=at_hand
    )
    for _ in range(CODES.size + 2):
        browser = await first_half(site)
        assert (await browser.post(SECOND, {"code": app.code()})).status == 303


async def test_a_recovery_code_lets_in_once(site: Site) -> None:
    app_of(site, "ada")
    code = site.factors.renew_recovery_codes(site.accounts.find("ada").subject)[0]
    browser = await first_half(site)
    assert "recovery code" in shows(await browser.get(SECOND))
    assert (await browser.post(SECOND, {"recovery_code": code})).status == 303
    assert (await record_of(site, browser)).acr == "mfa"
    again = await first_half(site)
    answer = await again.post(SECOND, {"recovery_code": code})
    assert (answer.status, again.session) == (401, "")


async def test_a_form_of_another_site_completes_nothing(site: Site) -> None:
    app = app_of(site, "ada")
    browser = await first_half(site)
    for fields in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = await browser.post(SECOND, {"code": app.code()}, fields)
        assert (answer.status, answer.error) == (403, "foreign_form")
        assert not browser.session


@pytest.mark.parametrize("change", ["password", "disabled"])
async def test_what_changes_the_account_ends_the_first_half(site: Site, change: str) -> None:
    app = app_of(site, "ada")
    browser = await first_half(site)
    if change == "password":
        site.accounts.set_password("ada", "another long password")
    else:
        site.accounts.set_disabled("ada", disabled=True)
    answer = await browser.post(SECOND, {"code": app.code()})
    assert (answer.error, browser.session) == ("sign_in_expired", "")


async def test_the_session_that_was_there_ends_with_the_second_half(site: Site) -> None:
    """Session fixation, ASVS 7.2.4."""
    browser = site.browser()
    await browser.sign_in(username="bob")
    old = browser.session
    app = app_of(site, "ada")
    await browser.post(LOGIN, FORM)
    assert await site.is_alive(old), "nothing has happened yet"
    await browser.post(SECOND, {"code": app.code()})
    assert browser.session not in ("", old)
    assert not await site.is_alive(old)


async def test_a_program_is_told_what_is_missing(site: Site) -> None:
    app = app_of(site, "ada")
    program = site.browser()
    program.fields["accept"] = "application/json"
    answer = await program.post(LOGIN, FORM, {})
    assert (answer.status, answer.error) == (401, "second_factor_needed")
    assert field(answer, "www-authenticate")
    wrong = await program.post(SECOND, {"code": "1"}, {})
    assert json.loads(wrong.body)["code"] == "second_factor_failed"
    answer = await program.post(SECOND, {"code": app.code()}, {})
    assert json.loads(answer.body)["return_to"] == "/notes/1"
    assert program.session


async def test_the_return_url_is_ours_after_the_second_half_too(site: Site) -> None:
    app = app_of(site, "ada")
    browser = site.browser()
    await browser.post(LOGIN, FORM | {"return_to": "https://evil.example/"})
    answer = await browser.post(SECOND, {"code": app.code()})
    assert field(answer, "location") == "/"


# Step-up ---------------------------------------------------------------------------------------

WANTED = {"return_to": f"{PUBLIC}/vault", "acr_values": "mfa"}


async def weak_session(site: Site) -> tuple[Browser, App]:
    """A session by password alone, from before the app was set up."""
    browser = site.browser()
    await browser.sign_in()
    return browser, app_of(site, "ada")


async def test_a_session_becomes_a_stronger_one_under_a_new_id(site: Site) -> None:
    browser, app = await weak_session(site)
    weak, before = browser.session, await record_of(site, browser)
    answer = await browser.get(LOGIN, WANTED)
    assert field(answer, "location") == SECOND
    answer = await browser.post(SECOND, {"code": app.code()})
    assert field(answer, "location") == f"{PUBLIC}/vault"
    record = await record_of(site, browser)
    assert (record.amr, record.acr) == (("pwd", "otp", "mfa"), "mfa")
    assert record.auth_time == int(before.auth_time), "the password was shown no later"
    assert browser.session != weak
    assert not await site.is_alive(weak)


async def test_only_the_session_that_asked_becomes_stronger(site: Site) -> None:
    browser, app = await weak_session(site)
    await browser.get(LOGIN, WANTED)
    ended = browser.session
    await site.store.end(digest(ended), reason="signed_out")
    answer = await browser.post(SECOND, {"code": app.code()})
    assert (answer.error, browser.session) == ("sign_in_expired", ended)
    other = site.browser()
    await other.sign_in(username="bob")
    other.cookies[COOKIE] = browser.cookies[COOKIE]
    assert (await other.post(SECOND, {"code": app.code()})).error == "sign_in_expired"


async def test_who_has_none_is_sent_to_set_one_up_and_back(site: Site) -> None:
    browser = site.browser()
    await browser.sign_in()
    answer = await browser.get(LOGIN, WANTED)
    path, _, query = field(answer, "location").partition("?")
    assert path == "/.doorward/account/authenticator"
    assert "vault" in query


async def test_a_session_that_is_strong_enough_but_too_old_signs_in_anew(site: Site) -> None:
    app = app_of(site, "ada")
    browser = await first_half(site)
    await browser.post(SECOND, {"code": app.code()})
    answer = await browser.get(LOGIN, WANTED | {"max_age": "60"})
    assert answer.status == 200
    assert "once more" in shows(answer)


async def test_what_nobody_here_can_prove_is_said_and_not_asked_in_circles(site: Site) -> None:
    browser = site.browser()
    await browser.sign_in()
    answer = await browser.get(LOGIN, WANTED | {"acr_values": "gold"})
    assert (answer.status, answer.error) == (403, "cannot_step_up")


# Who must have one ------------------------------------------------------------------------------


async def test_who_must_have_one_sets_it_up_before_there_is_a_session(site: Site) -> None:
    site.factors.require("role", "editor", required=True)
    browser = await first_half(site)
    page = PageReader((await browser.get(SECOND)).body)
    assert "must have a second factor" in page.text
    assert not browser.session
    subject = site.accounts.find("ada").subject
    hidden = next(
        each.attributes["value"]
        for each in page.elements
        if each.attributes.get("name") == "secret"
    )
    from auth.login.app_secret import sealed_in  # noqa: PLC0415 - for this test alone

    secret = site.factors.opened_secret(subject, sealed_in(hidden))
    assert secret is not None
    wrong = await browser.post(SECOND, {"code": "000000", "secret": hidden})
    assert (wrong.status, browser.session) == (401, "")
    assert hidden[:8] in wrong.body.decode() or "secret" in wrong.body.decode()
    code = App(site, secret).code()
    answer = await browser.post(SECOND, {"code": code, "secret": hidden})
    assert answer.status == 200
    codes = [text for tag, text in PageReader(answer.body).texts if tag == "code"]
    assert len(codes) == 10
    assert (await record_of(site, browser)).acr == "mfa"
    again = await first_half(site)
    assert (await again.post(SECOND, {"recovery_code": codes[0]})).status == 303


async def test_who_must_have_one_may_make_a_passkey(site: Site) -> None:
    site.factors.require("role", "editor", required=True)
    browser, authenticator = await first_half(site), Authenticator(PUBLIC)
    page = await browser.get(SECOND)
    assert 'data-passkey="create"' in page.body.decode()
    assert "script-src https://app.example.com/.doorward/" in field(page, "content-security-policy")
    answer = await made_at(browser, Authenticator("https://evil.example"))
    assert (answer.status, answer.error, browser.session) == (400, "passkey_failed", "")
    answer = await made_at(browser, authenticator)
    assert answer.status == 200
    codes = [text for tag, text in PageReader(answer.body).texts if tag == "code"]
    assert len(codes) == 10
    record = await record_of(site, browser)
    assert (record.amr, record.acr) == (("pwd", "hwk", "user", "mfa"), "phr")
    assert COOKIE not in browser.cookies
    (passkey,) = site.factors.passkeys.of(site.accounts.find("ada").subject)
    assert passkey.name == "Passkey"
    # From now on it is asked for, and no other one is made on the way in.
    again = await first_half(site)
    answer = await made_at(again, Authenticator(PUBLIC, id_=b"j" * 32), authenticator)
    assert (answer.status, answer.error, again.session) == (401, "passkey_failed", "")
    assert field(await use_passkey(again, SECOND, authenticator), "location") == "/notes/1"
    assert len(site.factors.passkeys.of(passkey.subject)) == 1


async def made_at(
    browser: Browser, authenticator: Authenticator, asked_for: Authenticator | None = None
) -> LoginAnswer:
    """Send a passkey that *authenticator* makes, though the page may want *asked_for* shown."""
    asked = await browser.post(SECOND, {"challenge": "1"}, {**OWN, "accept": "application/json"})
    options = json.loads(asked.body)
    if asked_for:
        assert options["allowCredentials"]
        options |= {"rp": {"id": options["rpId"]}, "user": {"id": encoded(b"x")}}
    made = authenticator.create(options)
    return await browser.post(SECOND, {"credential": made})


async def test_no_passkey_is_offered_where_browsers_have_none(site: Site) -> None:
    site.factors.require("role", "editor", required=True)
    at_hand = site.service._second_factors
    plain = configured(public_url="http://127.0.0.1:8080")
    site.service = LoginService(plain, site.store, site.accounts, SECRET, second_factors=at_hand)
    browser = site.browser()
    browser.fields["host"] = "127.0.0.1:8080"
    await browser.post(LOGIN, FORM, {"origin": "http://127.0.0.1:8080"})
    page = await browser.get(SECOND)
    assert "Code from the app" in shows(page)
    assert "data-passkey" not in page.body.decode()
    answer = await browser.post(SECOND, {"challenge": "1"}, {"origin": "http://127.0.0.1:8080"})
    assert (answer.status, answer.error) == (404, "not_offered")


async def test_a_required_factor_is_not_replaced_by_a_secret_of_the_form(site: Site) -> None:
    """Whoever knows the password only cannot set up an app of their own."""
    app_of(site, "ada")
    subject = site.accounts.find("ada").subject
    secret = b"m" * 20
    sealed = site.factors.sealed_secret(subject, secret)
    from base64 import urlsafe_b64encode  # noqa: PLC0415 - for this test alone

    browser = await first_half(site)
    form = {"secret": urlsafe_b64encode(sealed).decode(), "code": App(site, secret).code()}
    answer = await browser.post(SECOND, form)
    assert (answer.status, answer.error, browser.session) == (409, "factors_changed", "")
    assert "authenticator app" in shows(answer), "the page that asks for the one there is"


async def test_two_answers_at_once_make_one_session(site: Site) -> None:
    app_of(site, "ada")
    codes = site.factors.renew_recovery_codes(site.accounts.find("ada").subject)
    browser = await first_half(site)
    copies = [site.browser() for _ in range(4)]
    for copy in copies:
        copy.cookies = dict(browser.cookies)
    await asyncio.gather(
        *(
            copy.post(SECOND, {"recovery_code": code})
            for copy, code in zip(copies, codes, strict=False)
        )
    )
    assert sum(bool(copy.session) for copy in copies) == 1


async def test_a_wrong_recovery_code_is_told_where_it_was_typed(site: Site) -> None:
    app_of(site, "ada")
    site.factors.renew_recovery_codes(site.accounts.find("ada").subject)
    browser = await first_half(site)
    answer = await browser.post(SECOND, {"recovery_code": "abcd-efgh-ijkl-mnop"})
    assert (answer.status, answer.error) == (401, "second_factor_failed")
    page = PageReader(answer.body)
    assert "That recovery code is not right." in page.text
    assert "clock" not in page.text, "advice for an app is none here"
    faulty = [each for each in page.elements if each.attributes.get("aria-invalid") == "true"]
    assert [each.attributes["name"] for each in faulty] == ["recovery_code"]
    assert "open" in page.one("details").attributes, "and it is not folded away"
