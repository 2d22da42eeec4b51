"""People whose passwords a service of the operator's checks, and their second factors here."""

import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from auth.io.account_events import AccountEvents
from auth.login.account import Account, AccountError, checked_account
from auth.login.accounts import Accounts
from auth.login.app_secret import sealed_in
from auth.login.elsewhere import KnownPeople
from auth.login.service import LoginService
from auth.session import SessionRecord, digest
from config.model import Login, UserService
from tests.auth.login.authenticator import Authenticator
from tests.auth.login.conftest import (
    PASSWORD,
    PUBLIC,
    SECRET,
    App,
    Browser,
    Site,
    configured,
    field,
    new_passkey,
)
from tests.auth.login.page_reader import PageReader

LOGIN, SECOND = "/.doorward/login", "/.doorward/second-factor"
ACCOUNT = "/.doorward/account"
APP = f"{ACCOUNT}/authenticator"
THEIRS = {"username": "ada", "password": "their own"}


class Directory:
    """What the service says of ada, who is `u-7` there."""

    def __init__(self) -> None:
        self.roles = ["editor"]

    async def handle(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["password"] != "their own":
            return web.Response(status=401)
        told = {"subject": "u-7", "name": "Ada", "roles": self.roles, "groups": ["maths"]}
        return web.json_response(told)


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
async def elsewhere(site: Site, directory: Directory) -> AsyncIterator[Site]:
    """The site, where passwords are checked by `directory`."""
    application = web.Application()
    application.router.add_post("/check", directory.handle)
    async with TestServer(application) as server:
        login = Login(accounts=False, user_service=UserService(str(server.make_url("/check"))))
        site.service = LoginService(
            configured(login=login),
            site.store,
            site.accounts,
            SECRET,
            second_factors=site.service._second_factors,
            events=AccountEvents(site.store.commands),
        )
        yield site


async def set_up(site: Site, browser: Browser, path: str) -> App:
    """Set an app up with the page at *path*, as a person does."""
    page = PageReader((await browser.get(path)).body)
    hidden = {
        each.attributes["name"]: each.attributes.get("value", "")
        for each in page.elements
        if each.attributes.get("type") == "hidden"
    }
    secret = site.factors.opened_secret("u-7", sealed_in(hidden["secret"]))
    assert secret is not None
    app = App(site, secret)
    answer = await browser.post(path, hidden | {"code": app.code()})
    assert (answer.status, answer.error) == (200, "")
    assert "Keep these recovery codes" in PageReader(answer.body).text
    return app


async def record_of(site: Site, browser: Browser) -> SessionRecord:
    found = await site.store.find(digest(browser.session))
    assert isinstance(found, SessionRecord)
    return found


async def events_of(site: Site, name: str) -> list[dict[str, str]]:
    entries: Any = await site.store.commands.xrange("doorward:events")
    told = [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]
    return [each for each in told if each["event"] == name]


async def test_an_app_that_somebody_elsewhere_sets_up_is_asked_for_from_then_on(
    elsewhere: Site,
) -> None:
    browser = elsewhere.browser()
    await browser.sign_in(**THEIRS)
    app = await set_up(elsewhere, browser, APP)
    assert (await record_of(elsewhere, browser)).acr == "mfa"

    another = elsewhere.browser()
    answer = await another.post(LOGIN, THEIRS | {"return_to": "/notes/1"})
    assert (field(answer, "location"), another.session) == (SECOND, "")
    assert (await another.post(SECOND, {"code": "000000"})).status == 401
    answer = await another.post(SECOND, {"code": app.code()})
    assert field(answer, "location") == "/notes/1"
    record = await record_of(elsewhere, another)
    assert (record.subject, record.name) == ("u-7", "Ada")
    assert (record.roles, record.groups) == (("editor",), ("maths",))
    assert (record.amr, record.acr) == (("pwd", "otp", "mfa"), "mfa")
    assert elsewhere.accounts.find("ada").subject != "u-7"


@pytest.mark.parametrize("whom", [("subject", "u-7"), ("role", "editor")])
async def test_who_must_have_a_factor_sets_one_up_before_there_is_a_session(
    elsewhere: Site, whom: tuple[str, str]
) -> None:
    elsewhere.factors.require(*whom, required=True)
    browser = elsewhere.browser()
    answer = await browser.post(LOGIN, THEIRS)
    assert (field(answer, "location"), browser.session) == (SECOND, "")
    await set_up(elsewhere, browser, SECOND)
    assert (await record_of(elsewhere, browser)).acr == "mfa"


async def test_their_password_is_not_removed_by_a_form_that_no_page_has(elsewhere: Site) -> None:
    """Nor that of somebody of ours who has the same subject, from before they moved."""
    with elsewhere.accounts.database.writing() as connection:
        connection.execute("UPDATE accounts SET subject = 'u-7' WHERE login = 'ada'")
    browser = elsewhere.browser()
    await browser.sign_in(**THEIRS)
    await new_passkey(browser, Authenticator(PUBLIC))
    for accept in (browser.fields["accept"], "application/json"):
        browser.fields["accept"] = accept
        answer = await browser.post(f"{ACCOUNT}/passkeys", {"alone": "1"})
        assert (answer.status, answer.error) == (404, "no_account_here")
    assert await elsewhere.accounts.sign_in("ada", PASSWORD)


async def test_a_route_that_wants_more_has_them_show_their_factor_and_keeps_who_they_are(
    elsewhere: Site,
) -> None:
    browser, weak = elsewhere.browser(), elsewhere.browser()
    await weak.sign_in(**THEIRS)
    await browser.sign_in(**THEIRS)
    app = await set_up(elsewhere, browser, APP)
    answer = await weak.get(LOGIN, {"acr_values": "mfa", "return_to": "/notes/1"})
    assert field(answer, "location") == SECOND
    answer = await weak.post(SECOND, {"code": app.code()})
    assert field(answer, "location") == "/notes/1"
    record = await record_of(elsewhere, weak)
    assert (record.subject, record.roles, record.acr) == ("u-7", ("editor",), "mfa")


async def test_the_roles_of_a_sign_in_are_those_that_were_told_with_its_password(
    elsewhere: Site, directory: Directory
) -> None:
    browser = elsewhere.browser()
    await browser.sign_in(**THEIRS)
    app = await set_up(elsewhere, browser, APP)
    directory.roles = []
    another = elsewhere.browser()
    await another.post(LOGIN, THEIRS)
    await another.post(SECOND, {"code": app.code()})
    assert (await record_of(elsewhere, another)).roles == ()


async def test_the_account_shows_factors_and_no_password_to_change(elsewhere: Site) -> None:
    browser = elsewhere.browser()
    await browser.sign_in(**THEIRS)
    shown = (await browser.get(ACCOUNT)).body
    assert b"Authenticator app" in shown
    assert f"{ACCOUNT}/password".encode() not in shown
    assert (await browser.get(f"{ACCOUNT}/password")).status == 404
    browser.fields["accept"] = "application/json"
    told = json.loads((await browser.get(ACCOUNT)).body)
    assert (told["login"], told["recovery_codes"]) == ("ada", 0)


@pytest.mark.parametrize(
    ("subject", "amr", "claims"),
    [
        ("corp:u1", ("pwd",), {}),
        ("u-7", ("pwd",), {"iss": "https://idp.example.com"}),
        ("u-7", ("hwk",), {}),
    ],
)
async def test_a_session_that_somebody_else_began_sets_nothing_up(
    elsewhere: Site, subject: str, amr: tuple[str, ...], claims: dict[str, object]
) -> None:
    await elsewhere.browser().sign_in(**THEIRS)
    now = round(elsewhere.clock(), 3)
    record = SessionRecord(1, subject, now, now + 60, auth_time=now, amr=amr, claims=claims)
    browser = elsewhere.browser()
    browser.cookies["__Host-doorward"] = await elsewhere.store.create(record)
    for path in (ACCOUNT, APP):
        answer = await browser.get(path)
        assert (answer.status, answer.error) == (404, "no_account_here")


async def test_other_services_are_told_of_factors(elsewhere: Site) -> None:
    browser = elsewhere.browser()
    await browser.sign_in(**THEIRS)
    await set_up(elsewhere, browser, APP)
    added = await events_of(elsewhere, "account.factor_added")
    assert [(each["subject"], each["factor"]) for each in added] == [
        ("u-7", "totp"),
        ("u-7", "recovery_codes"),
    ]
    assert await events_of(elsewhere, "account.factor_removed") == []
    assert (await browser.post(APP, {"remove": "1"})).status == 200
    (removed,) = await events_of(elsewhere, "account.factor_removed")
    assert (removed["subject"], removed["factor"]) == ("u-7", "totp")


# Whom we know -----------------------------------------------------------------------------------


def person(login: str, subject: str) -> Account:
    return checked_account(
        login, subject=subject, name="", tenant="", email="", roles=(), groups=()
    )


def test_a_name_means_who_signed_in_with_it_last(tmp_path: Path) -> None:
    times = iter((1.0, 2.0, 3.0))
    with closing(Accounts(tmp_path / "accounts.sqlite3")) as accounts:
        known = KnownPeople(accounts.database, clock=lambda: next(times))
        known.note(person("Ada", "u-7"))
        known.note(person("Ada", "u-7"))
        assert (known.subject_of("ADA"), known.login_of("u-7")) == ("u-7", "Ada")
        known.note(person("ada", "u-8"))  # a name that was given to somebody else
        assert known.subject_of("ada") == "u-8"
        known.note(person("ada.l", "u-7"))
        assert (known.subject_of("ada.l"), known.login_of("u-7")) == ("u-7", "ada.l")
        with pytest.raises(AccountError, match="--subject"):
            known.subject_of("nobody")
        assert known.login_of("u-9") is None
