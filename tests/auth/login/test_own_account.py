"""A person's own account: who may change what, and what that ends."""

import json
import time
from collections.abc import Mapping

import pytest

from auth.login.messages import LoginAnswer
from auth.login.second_factor import sealed_in
from auth.login.service import LoginService
from auth.login.throttle import PAIR, StoreThrottle
from auth.session import SessionRecord, digest
from tests.auth.login.conftest import (
    PASSWORD,
    PUBLIC,
    SECRET,
    App,
    Browser,
    Site,
    app_of,
    configured,
    field,
)
from tests.auth.login.page_reader import PageReader

ACCOUNT = "/.doorward/account"
CHANGE, APP = f"{ACCOUNT}/password", f"{ACCOUNT}/authenticator"
CODES = f"{ACCOUNT}/recovery-codes"
NEW = "a wholly new password"
FORM = {"password": PASSWORD, "new_password": NEW, "new_password_again": NEW}
FOREIGN = {"origin": "https://evil.example"}


def shows(answer: LoginAnswer) -> str:
    return PageReader(answer.body).text


async def signed_in(site: Site, login: str = "ada") -> Browser:
    browser = site.browser()
    await browser.sign_in(username=login)
    return browser


async def holding(site: Site, *, auth_time: float, acr: str = "") -> Browser:
    """A browser with a session of ada's that began with a sign-in at *auth_time*."""
    now = round(time.time(), 3)
    subject = site.accounts.find("ada").subject
    record = SessionRecord(
        1, subject, now, now + 3600, name="Ada", auth_time=auth_time, amr=("pwd",), acr=acr
    )
    browser = site.browser()
    browser.cookies["__Host-doorward"] = await site.store.create(record)
    return browser


async def set_up(
    site: Site, browser: Browser, query: Mapping[str, str] | None = None
) -> LoginAnswer:
    """Set an app up as a person does."""
    page = PageReader((await browser.get(APP, query)).body)
    hidden = {
        each.attributes["name"]: each.attributes.get("value", "")
        for each in page.elements
        if each.attributes.get("type") == "hidden"
    }
    subject = site.accounts.find("ada").subject
    secret = site.factors.opened_secret(subject, sealed_in(hidden["secret"]))
    assert secret is not None
    return await browser.post(APP, hidden | {"code": App(site, secret).code()})


async def test_the_account_shows_what_there_is(site: Site) -> None:
    browser = await signed_in(site)
    assert "Not set up" in shows(await browser.get(ACCOUNT))
    app_of(site, "ada")
    site.factors.renew_recovery_codes(site.accounts.find("ada").subject)
    answer = await browser.get(ACCOUNT)
    assert "10 are left" in shows(answer)
    browser.fields["accept"] = "application/json"
    told = json.loads((await browser.get(ACCOUNT)).body)
    assert (told["login"], told["recovery_codes"]) == ("ada", 10)


@pytest.mark.parametrize("path", [ACCOUNT, CHANGE, APP])
async def test_nobody_sees_an_account_without_a_session(site: Site, path: str) -> None:
    stranger = site.browser()
    answer = await stranger.get(path)
    assert answer.status == 303
    assert field(answer, "location").startswith("/.doorward/login?return_to=")
    stranger.fields["accept"] = "application/json"
    assert (await stranger.get(path)).status == 401


async def test_whose_account_is_elsewhere_is_told_so(site: Site) -> None:
    now = round(time.time(), 3)
    record = SessionRecord(1, "corp:u1", now, now + 60, auth_time=now)
    browser = site.browser()
    browser.cookies["__Host-doorward"] = await site.store.create(record)
    answer = await browser.get(ACCOUNT)
    assert (answer.status, answer.error) == (404, "no_account_here")


# Password ---------------------------------------------------------------------------------------


async def test_a_new_password_ends_every_other_session_and_renews_this_one(site: Site) -> None:
    browser, other = await signed_in(site), await signed_in(site)
    before = browser.session
    answer = await browser.post(CHANGE, FORM)
    assert answer.status == 200
    assert "Your password is changed" in shows(answer)
    assert not await site.is_alive(other.session)
    assert not await site.is_alive(before)
    assert await site.is_alive(browser.session)
    assert await site.accounts.sign_in("ada", NEW)
    assert not await site.accounts.sign_in("ada", PASSWORD)


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"password": "wrong password"}, "wrong_password"),
        ({"password": ""}, "form_incomplete"),
        ({"new_password": ""}, "form_incomplete"),
        ({"new_password_again": "another"}, "passwords_differ"),
        ({"new_password": "short", "new_password_again": "short"}, "unsuitable_password"),
    ],
)
async def test_a_password_is_not_changed_by_half(
    site: Site, form: dict[str, str], error: str
) -> None:
    browser = await signed_in(site)
    answer = await browser.post(CHANGE, FORM | form)
    assert answer.error == error
    assert await site.accounts.sign_in("ada", PASSWORD)
    assert await site.is_alive(browser.session)


async def test_the_current_password_cannot_be_tried_out(site: Site) -> None:
    """The same buckets as a sign-in: a stolen session is no oracle."""
    throttle = StoreThrottle(site.store.commands)
    site.service = LoginService(
        configured(),
        site.store,
        site.accounts,
        SECRET,
        throttle=throttle,
        second_factors=site.service._second_factors,
    )
    browser = await signed_in(site)
    for _ in range(PAIR.size):
        answer = await browser.post(CHANGE, FORM | {"password": "wrong password"})
        assert answer.error == "wrong_password"
    answer = await browser.post(CHANGE, FORM)
    assert (answer.status, answer.error) == (429, "too_many_attempts")
    assert await site.accounts.sign_in("ada", PASSWORD)


# Forms of other sites ---------------------------------------------------------------------------


async def test_a_form_of_another_site_changes_nothing(site: Site) -> None:
    browser = await signed_in(site)
    app = await set_up(site, browser)
    assert app.status == 200
    before = site.factors.of(site.accounts.find("ada"))
    for path, form in (
        (CHANGE, FORM),
        (APP, {"remove": "1"}),
        (APP, {"secret": "x", "code": "000000"}),
        (CODES, {"any": "1"}),
    ):
        answer = await browser.post(path, form, FOREIGN)
        assert (path, answer.status, answer.error) == (path, 403, "foreign_form")
    assert site.factors.of(site.accounts.find("ada")) == before
    assert await site.accounts.sign_in("ada", PASSWORD)


# Authenticator app ------------------------------------------------------------------------------


async def test_an_app_is_set_up_and_the_session_is_a_stronger_one_with_a_new_id(
    site: Site,
) -> None:
    browser = await signed_in(site)
    before = browser.session
    answer = await set_up(site, browser, {"return_to": f"{PUBLIC}/vault"})
    page = PageReader(answer.body)
    codes = [text for tag, text in page.texts if tag == "code"]
    assert len(codes) == 10
    assert any(each.attributes.get("href") == f"{PUBLIC}/vault" for each in page.elements)
    assert not await site.is_alive(before)
    record = await site.store.find(digest(browser.session))
    assert isinstance(record, SessionRecord)
    assert (record.amr, record.acr) == (("pwd", "otp", "mfa"), "mfa")
    assert codes[0] not in shows(await browser.get(ACCOUNT))


async def test_a_wrong_code_shows_the_same_secret_again(site: Site) -> None:
    browser = await signed_in(site)
    page = PageReader((await browser.get(APP)).body)
    (sealed,) = (
        each.attributes["value"]
        for each in page.elements
        if each.attributes.get("name") == "secret"
    )
    answer = await browser.post(APP, {"secret": sealed, "code": "000000"})
    assert (answer.status, answer.error) == (400, "second_factor_failed")
    key = [text for tag, text in page.texts if tag == "code"]
    assert [text for tag, text in PageReader(answer.body).texts if tag == "code"] == key


@pytest.mark.parametrize("path", [APP, CODES])
async def test_a_stolen_session_changes_no_factor(site: Site, path: str) -> None:
    """Whoever has the cookie of an hour ago does not know the password."""
    secret = b"t" * 20
    subject = site.accounts.find("ada").subject
    from base64 import urlsafe_b64encode  # noqa: PLC0415 - for this test alone

    sealed = urlsafe_b64encode(site.factors.sealed_secret(subject, secret)).decode()
    thief = await holding(site, auth_time=time.time() - 601)
    form = {"secret": sealed, "code": App(site, secret).code()}
    answer = await thief.post(path, form)
    assert answer.status == 303
    location = field(answer, "location")
    assert location.startswith("/.doorward/login?")
    assert "max_age=600" in location
    assert not site.factors.of(site.accounts.find("ada")).are_there
    assert field(await thief.get(APP), "location").startswith("/.doorward/login?")
    thief.fields["accept"] = "application/json"
    answer = await thief.post(path, form)
    assert (answer.status, answer.error) == (403, "recent_sign_in_needed")


async def test_a_session_by_password_alone_does_not_remove_the_second_factor(site: Site) -> None:
    app_of(site, "ada")
    weak = await holding(site, auth_time=time.time())
    answer = await weak.post(APP, {"remove": "1"})
    assert "acr_values=mfa" in field(answer, "location")
    assert site.factors.of(site.accounts.find("ada")).totp_since
    strong = await holding(site, auth_time=time.time(), acr="mfa")
    assert (await strong.post(APP, {"remove": "1"})).status == 200
    assert not site.factors.of(site.accounts.find("ada")).totp_since


async def test_the_last_factor_of_who_must_have_one_stays(site: Site) -> None:
    app_of(site, "ada")
    site.factors.require("role", "editor", required=True)
    browser = await holding(site, auth_time=time.time(), acr="mfa")
    answer = await browser.post(APP, {"remove": "1"})
    assert (answer.status, answer.error) == (403, "second_factor_required")
    assert site.factors.of(site.accounts.find("ada")).totp_since


async def test_new_recovery_codes_are_shown_once(site: Site) -> None:
    app_of(site, "ada")
    browser = await holding(site, auth_time=time.time(), acr="mfa")
    answer = await browser.post(CODES, {})
    codes = [text for tag, text in PageReader(answer.body).texts if tag == "code"]
    assert len(codes) == 10
    assert ("Cache-Control", "no-store") in answer.fields
    assert site.factors.use_recovery_code(site.accounts.find("ada").subject, codes[3])


async def test_recovery_codes_without_a_factor_are_of_no_use(site: Site) -> None:
    browser = await signed_in(site)
    assert field(await browser.post(CODES, {}), "location") == APP


async def test_the_way_back_is_ours(site: Site) -> None:
    browser = await signed_in(site)
    answer = await set_up(site, browser, {"return_to": "https://evil.example/"})
    assert "evil.example" not in answer.body.decode()
