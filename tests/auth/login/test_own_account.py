"""A person's own account: who may change what, and what that ends."""

import json
import time

import pytest

from auth.login.messages import LoginAnswer
from auth.session import SessionRecord
from tests.auth.login.conftest import (
    PASSWORD,
    App,
    Site,
    app_of,
    field,
    holding,
    set_up_app,
    signed_in,
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


# Forms of other sites ---------------------------------------------------------------------------


async def test_a_form_of_another_site_changes_nothing(site: Site) -> None:
    browser = await signed_in(site)
    app = await set_up_app(site, browser)
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
