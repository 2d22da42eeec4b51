"""A person's own authenticator app: set up, replaced, removed, and by whom not."""

import time

from auth.login.app_secret import sealed_in
from auth.session import SessionRecord, digest
from tests.auth.login.conftest import (
    PUBLIC,
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
APP = f"{ACCOUNT}/authenticator"


async def test_an_app_is_set_up_and_the_session_is_a_stronger_one_with_a_new_id(
    site: Site,
) -> None:
    browser = await signed_in(site)
    before = browser.session
    answer = await set_up_app(site, browser, {"return_to": f"{PUBLIC}/vault"})
    page = PageReader(answer.body)
    codes = [text for tag, text in page.texts if tag == "code"]
    assert len(codes) == 10
    assert any(each.attributes.get("href") == f"{PUBLIC}/vault" for each in page.elements)
    assert not await site.is_alive(before)
    record = await site.store.find(digest(browser.session))
    assert isinstance(record, SessionRecord)
    assert (record.amr, record.acr) == (("pwd", "otp", "mfa"), "mfa")
    assert codes[0] not in PageReader((await browser.get(ACCOUNT)).body).text


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


async def test_the_way_back_is_ours(site: Site) -> None:
    browser = await signed_in(site)
    answer = await set_up_app(site, browser, {"return_to": "https://evil.example/"})
    assert "evil.example" not in answer.body.decode()


async def test_of_two_pages_that_set_an_app_up_the_second_replaces_nothing_unseen(
    site: Site,
) -> None:
    """Both were open before; whoever sends the second is shown that there is an app by now."""
    browser = await signed_in(site)
    page = PageReader((await browser.get(APP)).body)
    hidden = {
        each.attributes["name"]: each.attributes.get("value", "")
        for each in page.elements
        if each.attributes.get("type") == "hidden"
    }
    subject = site.accounts.find("ada").subject
    secret = site.factors.opened_secret(subject, sealed_in(hidden["secret"]))
    assert secret is not None
    assert (await set_up_app(site, browser)).status == 200
    since = site.factors.of(site.accounts.find("ada")).totp_since
    answer = await browser.post(APP, hidden | {"code": App(site, secret).code()})
    assert (answer.status, answer.error) == (409, "factors_changed")
    assert site.factors.of(site.accounts.find("ada")).totp_since == since
    shown = PageReader(answer.body)
    assert "Setting one up again replaces it" in shown.text
    again = {each.attributes.get("name"): each.attributes.get("value") for each in shown.elements}
    form = hidden | {"replaces": str(again["replaces"]), "code": App(site, secret).code()}
    assert (await browser.post(APP, form)).status == 303, "now it was seen, and is meant"
    assert site.factors.of(site.accounts.find("ada")).totp_since > since
