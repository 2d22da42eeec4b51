"""A person's own passkeys, and the account that has no password any more."""

import json

import pytest

from auth.login.messages import LoginAnswer
from auth.login.one_time import OneTimeLinks, Purpose
from auth.login.service import LoginService
from auth.login.throttle import BEGINNING, StoreThrottle
from tests.auth.login.authenticator import Authenticator
from tests.auth.login.conftest import (
    PASSWORD,
    PUBLIC,
    SECRET,
    Browser,
    Site,
    app_of,
    configured,
    field,
    new_passkey,
    record_of,
    use_passkey,
)
from tests.auth.login.page_reader import PageReader

LOGIN, SECOND = "/.doorward/login", "/.doorward/second-factor"
ACCOUNT, PASSKEYS = "/.doorward/account", "/.doorward/account/passkeys"
CHANGE = f"{ACCOUNT}/password"
NEW = {"new_password": "a wholly new password", "new_password_again": "a wholly new password"}


def shows(answer: LoginAnswer) -> str:
    return PageReader(answer.body).text


async def signed_in(site: Site) -> Browser:
    browser = site.browser()
    await browser.sign_in()
    return browser


async def without_password(site: Site) -> tuple[Browser, Authenticator]:
    """A browser whose account, ada's, has a passkey and no password."""
    browser, authenticator = await signed_in(site), Authenticator(PUBLIC)
    await new_passkey(browser, authenticator)
    answer = await browser.post(PASSKEYS, {"alone": "1"})
    assert "password is removed" in shows(answer)
    return browser, authenticator


async def test_a_passkey_is_added_with_its_name_and_the_session_is_one_with_it(site: Site) -> None:
    browser = await signed_in(site)
    before = browser.session
    answer = await new_passkey(browser, Authenticator(PUBLIC), name="My phone")
    # The first factor brings recovery codes.
    codes = [text for tag, text in PageReader(answer.body).texts if tag == "code"]
    assert len(codes) == 10
    record = await record_of(site, browser)
    assert (record.amr, record.acr) == (("pwd", "hwk", "user", "mfa"), "phr")
    assert not await site.is_alive(before)
    text = shows(await browser.get(PASSKEYS))
    assert "My phone" in text
    assert "You have one." in shows(await browser.get(ACCOUNT))


async def test_who_gives_no_name_gets_one_after_the_device(site: Site) -> None:
    browser = await signed_in(site)
    browser.fields["user-agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Firefox/145.0"
    await new_passkey(browser, Authenticator(PUBLIC), name="")
    (passkey,) = site.factors.passkeys.of(site.accounts.find("ada").subject)
    assert passkey.name == "Firefox on Linux"


async def test_several_are_listed_for_programs_too(site: Site) -> None:
    browser = await signed_in(site)
    await new_passkey(browser, Authenticator(PUBLIC), name="Phone")
    second = Authenticator(PUBLIC, id_=b"j" * 16, synced=True)
    answer = await new_passkey(browser, second, name="Laptop")
    assert (answer.status, field(answer, "location")) == (303, PASSKEYS)
    browser.fields["accept"] = "application/json"
    told = json.loads((await browser.get(PASSKEYS)).body)["passkeys"]
    assert [(each["name"], each["synced"]) for each in told] == [("Phone", False), ("Laptop", True)]
    told = json.loads((await browser.get(ACCOUNT)).body)
    assert (told["passkeys"], told["passwordless"]) == (2, False)


async def test_one_authenticator_is_not_asked_twice(site: Site) -> None:
    browser = await signed_in(site)
    authenticator = Authenticator(PUBLIC)
    await new_passkey(browser, authenticator)
    options = json.loads((await browser.post(PASSKEYS, {"challenge": "1"})).body)
    assert [each["id"] for each in options["excludeCredentials"]]
    answer = await browser.post(PASSKEYS, {"credential": authenticator.create(options)})
    assert (answer.status, answer.error) == (400, "passkey_failed")


async def test_what_was_signed_elsewhere_adds_nothing(site: Site) -> None:
    browser = await signed_in(site)
    answer = await new_passkey(browser, Authenticator("https://evil.example"))
    assert (answer.status, answer.error) == (400, "passkey_failed")
    assert site.factors.passkeys.of(site.accounts.find("ada").subject) == ()


async def test_a_challenge_is_good_once_and_for_whom_it_was(site: Site) -> None:
    ada, bob = await signed_in(site), site.browser()
    await bob.sign_in(username="bob")
    authenticator = Authenticator(PUBLIC)
    options = json.loads((await ada.post(PASSKEYS, {"challenge": "1"})).body)
    response = authenticator.create(options)
    name = "__Host-doorward-sign-in-passkey"
    bob.cookies[name] = ada.cookies[name]
    answer = await bob.post(PASSKEYS, {"credential": response, "name": "Mine"})
    assert answer.error == "passkey_failed"
    answer = await ada.post(PASSKEYS, {"credential": response, "name": "Mine"})
    assert answer.error == "passkey_failed", "bob has used the challenge up"


@pytest.mark.parametrize("fields", [{"origin": "https://evil.example"}, {}])
@pytest.mark.parametrize(
    "form", [{"challenge": "1"}, {"remove": "x"}, {"rename": "x", "name": "y"}, {"alone": "1"}]
)
async def test_a_form_of_another_site_changes_nothing(
    site: Site, fields: dict[str, str], form: dict[str, str]
) -> None:
    browser = await signed_in(site)
    await new_passkey(browser, Authenticator(PUBLIC))
    (passkey,) = site.factors.passkeys.of(site.accounts.find("ada").subject)
    form = {name: passkey.id if value == "x" else value for name, value in form.items()}
    answer = await browser.post(PASSKEYS, form, fields)
    assert (answer.status, answer.error) == (403, "foreign_form")
    assert site.factors.passkeys.of(passkey.subject) == (passkey,)
    assert await site.accounts.sign_in("ada", PASSWORD)


async def test_a_session_by_password_alone_adds_no_passkey_to_an_account_with_an_app(
    site: Site,
) -> None:
    browser = await signed_in(site)
    app_of(site, "ada")
    answer = await browser.post(PASSKEYS, {"challenge": "1"})
    assert answer.status == 303
    assert "acr_values=mfa" in field(answer, "location")


async def test_nobody_sees_or_changes_them_without_a_session(site: Site) -> None:
    stranger = site.browser()
    assert (await stranger.get(PASSKEYS)).status == 303
    assert (await stranger.post(PASSKEYS, {"challenge": "1"})).status == 303
    stranger.fields["accept"] = "application/json"
    assert (await stranger.post(PASSKEYS, {"challenge": "1"})).status == 401


async def test_a_passkey_gets_another_name(site: Site) -> None:
    browser = await signed_in(site)
    await new_passkey(browser, Authenticator(PUBLIC), name="Phone")
    (passkey,) = site.factors.passkeys.of(site.accounts.find("ada").subject)
    answer = await browser.post(PASSKEYS, {"rename": passkey.id, "name": "Old phone"})
    assert "Old phone" in shows(answer)
    for name in ("", " ", "a\nb"):
        answer = await browser.post(PASSKEYS, {"rename": passkey.id, "name": name})
        assert (answer.status, answer.error) == (400, "form_incomplete")
    answer = await browser.post(PASSKEYS, {"rename": "other", "name": "Mine"})
    assert (answer.status, answer.error) == (404, "no_such_passkey")


async def test_a_passkey_is_removed_and_lets_nobody_in(site: Site) -> None:
    browser, authenticator = await signed_in(site), Authenticator(PUBLIC)
    await new_passkey(browser, authenticator)
    (passkey,) = site.factors.passkeys.of(site.accounts.find("ada").subject)
    answer = await browser.post(PASSKEYS, {"remove": passkey.id})
    assert "is removed" in shows(answer)
    assert (await browser.post(PASSKEYS, {"remove": passkey.id})).error == "no_such_passkey"
    other = site.browser()
    answer = await use_passkey(other, LOGIN, authenticator)
    assert (answer.status, other.session) == (401, "")


async def test_the_last_factor_of_who_must_have_one_stays(site: Site) -> None:
    browser = await signed_in(site)
    await new_passkey(browser, Authenticator(PUBLIC))
    subject = site.accounts.find("ada").subject
    site.factors.require("subject", subject, required=True)
    (passkey,) = site.factors.passkeys.of(subject)
    answer = await browser.post(PASSKEYS, {"remove": passkey.id})
    assert (answer.status, answer.error) == (403, "second_factor_required")
    assert site.factors.passkeys.of(subject) == (passkey,)


# Passkeys alone -----------------------------------------------------------------------------------


async def test_the_password_goes_and_what_it_began_ends(site: Site) -> None:
    other = await signed_in(site)
    browser, authenticator = await without_password(site)
    assert not await site.is_alive(other.session)
    assert await site.is_alive(browser.session)
    assert not await site.accounts.sign_in("ada", PASSWORD)
    assert not await site.accounts.sign_in("ada", "")
    again = site.browser()
    answer = await use_passkey(again, LOGIN, authenticator, return_to="/notes/1")
    assert (answer.status, field(answer, "location")) == (303, "/notes/1")
    assert (await record_of(site, again)).amr == ("hwk", "user", "mfa")


async def test_the_password_stays_without_recovery_codes_or_passkeys(site: Site) -> None:
    browser = await signed_in(site)
    answer = await browser.post(PASSKEYS, {"alone": "1"})
    assert (answer.status, answer.error) == (403, "last_factor")
    await new_passkey(browser, Authenticator(PUBLIC))
    with site.accounts.database.writing() as connection:
        connection.execute("DELETE FROM recovery_codes")
    assert "as soon as you have recovery codes" in shows(await browser.get(PASSKEYS))
    answer = await browser.post(PASSKEYS, {"alone": "1"})
    assert (answer.status, answer.error) == (403, "last_factor")
    assert await site.accounts.sign_in("ada", PASSWORD)


async def test_whoever_has_not_shown_a_passkey_here_keeps_the_password(site: Site) -> None:
    """One that was made under another host is no way in, and nobody can tell by looking at it."""
    browser, app = await signed_in(site), app_of(site, "ada")
    other = site.browser()
    await other.post(LOGIN, {"username": "ada", "password": PASSWORD})
    await other.post(SECOND, {"code": app.code()})
    authenticator = Authenticator(PUBLIC)
    await browser.post(LOGIN, {"username": "ada", "password": PASSWORD})
    await browser.post(SECOND, {"code": app.code()})
    await new_passkey(browser, authenticator)
    answer = await other.post(PASSKEYS, {"alone": "1"})
    assert answer.status == 303
    assert "acr_values=phr" in field(answer, "location")
    assert await site.accounts.sign_in("ada", PASSWORD)
    asked = {"acr_values": "phr", "return_to": PASSKEYS}
    assert field(await other.get(LOGIN, asked), "location") == SECOND
    assert field(await use_passkey(other, SECOND, authenticator), "location") == PASSKEYS
    assert "password is removed" in shows(await other.post(PASSKEYS, {"alone": "1"}))


async def test_the_only_way_in_is_not_removed(site: Site) -> None:
    browser, _ = await without_password(site)
    subject = site.accounts.find("ada").subject
    (passkey,) = site.factors.passkeys.of(subject)
    answer = await browser.post(PASSKEYS, {"remove": passkey.id})
    assert (answer.status, answer.error) == (403, "last_passkey")
    assert site.factors.passkeys.of(subject) == (passkey,)


async def test_a_password_may_come_back(site: Site) -> None:
    browser, _ = await without_password(site)
    assert "None: you sign in with a passkey" in shows(await browser.get(ACCOUNT))
    assert "Current password" not in shows(await browser.get(CHANGE))
    answer = await browser.post(CHANGE, NEW)
    assert "password is changed" in shows(answer)
    other = site.browser()
    answer = await other.post(LOGIN, {"username": "ada", "password": NEW["new_password"]})
    assert field(answer, "location") == SECOND


async def test_a_stolen_session_sets_no_password(site: Site) -> None:
    browser, _ = await without_password(site)
    subject = site.accounts.find("ada").subject
    record = await record_of(site, browser)
    from msgspec.structs import replace  # noqa: PLC0415 - for this test alone

    old = replace(record, auth_time=record.auth_time - 3600)
    browser.cookies["__Host-doorward"] = await site.store.create(old)
    answer = await browser.post(CHANGE, NEW)
    assert answer.status == 303
    assert "max_age=600" in field(answer, "location")
    assert site.factors.of(site.accounts.find_subject(subject) or pytest.fail("gone")).passwordless


async def test_who_lost_all_passkeys_needs_a_link_and_a_recovery_code(site: Site) -> None:
    browser = await signed_in(site)
    codes = [
        text
        for tag, text in PageReader((await new_passkey(browser, Authenticator(PUBLIC))).body).texts
        if tag == "code"
    ]
    await browser.post(PASSKEYS, {"alone": "1"})
    links = OneTimeLinks(site.accounts)
    secret = links.make(Purpose.RESET, site.accounts.find("ada"), lifetime=60.0)
    links.set_password(secret, NEW["new_password"])
    again = site.browser()
    await again.post(LOGIN, {"username": "ada", "password": NEW["new_password"]})
    assert not again.session
    answer = await again.post(SECOND, {"recovery_code": codes[0]})
    assert answer.status == 303
    assert (await record_of(site, again)).acr == "mfa"


async def test_challenges_are_not_handed_out_on_and_on(site: Site) -> None:
    throttle = StoreThrottle(site.store.commands)
    site.service = LoginService(
        configured(),
        site.store,
        site.accounts,
        SECRET,
        throttle=throttle,
        second_factors=site.service._second_factors,
    )
    for _ in range(BEGINNING.size):
        await throttle.take_beginning("192.0.2.1")
    stranger = site.browser()
    for _ in range(3):  # one more each half second
        answer = await stranger.post(LOGIN, {"challenge": "1"})
    assert (answer.status, answer.error) == (429, "too_many_attempts")
    assert field(answer, "retry-after")
