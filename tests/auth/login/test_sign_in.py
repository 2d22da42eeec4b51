"""Signing in, against a real store and real accounts."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from argon2 import PasswordHasher

from auth.identity import Authenticated, Identity
from auth.io.session_store import RedisSessionStore
from auth.login.accounts import Account, Accounts
from auth.login.messages import LoginAnswer
from auth.login.service import LoginService
from auth.login.throttle import Bucket, StoreThrottle
from auth.ports import AuthUnavailable
from auth.session import SessionRecord, digest
from config.model import Login, UserService
from tests.auth.login.conftest import (
    PASSWORD,
    PUBLIC,
    SECRET,
    Browser,
    Site,
    configured,
    cookies_of,
    field,
    sign_in_at,
)
from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.providers.lying import LyingProvider

LOGIN = "/.doorward/login"
WRONG = {"username": "ada", "password": "not this one"}


async def test_the_page_shows_a_form_that_signs_in(site: Site) -> None:
    browser = site.browser()
    page = PageReader((await browser.get(LOGIN, {"return_to": f"{PUBLIC}/notes/1"})).body)
    form = page.inputs() | {"username": "ada", "password": PASSWORD}
    answer = await browser.post(LOGIN, form)
    assert (answer.status, field(answer, "location")) == (303, f"{PUBLIC}/notes/1")
    assert await site.is_alive(browser.session)


async def test_a_session_says_who_signed_in_when_and_how(site: Site) -> None:
    before = time.time()
    browser = site.browser()
    await browser.sign_in()
    record = await site.store.find(digest(browser.session))
    assert isinstance(record, SessionRecord)
    account = site.accounts.find("ada")
    assert record.subject == account.subject
    assert (record.name, record.tenant, record.email) == (
        "Ada Lovelace",
        "acme",
        "ada@example.com",
    )
    assert (record.roles, record.groups, record.amr) == (("editor",), ("maths",), ("pwd",))
    assert before - 0.001 <= record.created_at == record.auth_time <= time.time() + 0.001
    assert record.expires_at == pytest.approx(record.created_at + 43_200)


async def test_the_cookie_is_for_this_host_and_no_script(site: Site) -> None:
    cookie, _ = cookies_of(await site.browser().sign_in())
    name, *attributes = cookie.split("; ")
    assert name.startswith("__Host-doorward=")
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age=43200"} == set(attributes)


async def test_each_sign_in_has_a_session_of_its_own(site: Site) -> None:
    first, second = site.browser(), site.browser()
    await first.sign_in()
    await second.sign_in()
    assert first.session != second.session
    assert await site.is_alive(first.session)


async def test_the_session_from_before_the_sign_in_is_over(site: Site) -> None:
    """Session fixation: whoever knows the presented value must not share what comes after."""
    attacker, victim = site.browser(), site.browser()
    await attacker.sign_in(username="bob")
    planted = attacker.session
    victim.cookies = dict(attacker.cookies)
    await victim.sign_in()
    assert victim.session != planted
    assert not await site.is_alive(planted)
    assert await site.is_alive(victim.session)


async def test_a_value_somebody_made_up_never_becomes_a_session(site: Site) -> None:
    browser = site.browser()
    browser.cookies = {"__Host-doorward": "chosen-by-an-attacker"}
    await browser.sign_in()
    assert browser.session != "chosen-by-an-attacker"
    assert not await site.is_alive("chosen-by-an-attacker")


@pytest.mark.parametrize(
    "form",
    [
        WRONG,
        {"username": "nobody", "password": PASSWORD},
        {"username": "ada", "password": "x" * 5000},
        {"username": "x" * 5000, "password": PASSWORD},
        {"username": "ada\x00", "password": PASSWORD},
        {"username": "eve", "password": PASSWORD},
    ],
    ids=["password", "unknown", "long-password", "long-name", "nul", "disabled"],
)
async def test_every_refusal_says_the_same(site: Site, form: dict[str, str]) -> None:
    site.accounts.add("eve", PASSWORD)
    site.accounts.set_disabled("eve", disabled=True)
    browser = site.browser()
    answer = await browser.post(LOGIN, form)
    page = PageReader(answer.body)
    assert answer.status == 401
    assert field(answer, "x-doorward-error") == answer.error == "sign_in_failed"
    assert field(answer, "www-authenticate").startswith("Cookie ")
    assert page.text_of(page.by_id("problem")) == (
        "The user name or the password is wrong. Check both and try again."
    )
    assert browser.session == ""


async def test_the_name_and_the_way_back_are_kept_and_the_password_is_not(site: Site) -> None:
    answer = await site.browser().post(LOGIN, WRONG | {"return_to": "/notes/1"})
    inputs = PageReader(answer.body).inputs()
    assert (inputs["username"], inputs["return_to"]) == ("ada", "/notes/1")
    assert inputs["password"] == ""
    assert b"not this one" not in answer.body


async def test_a_wrong_password_leaves_the_session_there_is(site: Site) -> None:
    browser = site.browser()
    await browser.sign_in()
    await browser.post(LOGIN, WRONG)
    assert await site.is_alive(browser.session)


@pytest.mark.parametrize("name", ["username", "password"])
async def test_an_empty_field_is_named(site: Site, name: str) -> None:
    answer = await site.browser().post(
        LOGIN, {"username": "ada", "password": PASSWORD} | {name: ""}
    )
    page = PageReader(answer.body)
    assert (answer.status, answer.error) == (400, "form_incomplete")
    assert page.by_id(name).attributes["aria-invalid"] == "true"
    assert page.text_of(page.by_id(f"{name}-fault")).startswith("Enter your")


@pytest.mark.parametrize(
    ("return_to", "location"),
    [
        ("", "/"),
        ("/notes/1?a=b#c", "/notes/1?a=b#c"),
        (f"{PUBLIC}/notes", f"{PUBLIC}/notes"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/.doorward/logout", "/"),
    ],
)
async def test_the_way_back_is_ours_or_the_front_page(
    site: Site, return_to: str, location: str
) -> None:
    shown = PageReader((await site.browser().get(LOGIN, {"return_to": return_to})).body)
    assert shown.inputs()["return_to"] == location
    answer = await site.browser().sign_in(return_to=return_to)  # checked again: a form can lie
    assert field(answer, "location") == location


async def test_the_way_back_may_go_by_another_name_in_the_query(site: Site) -> None:
    site.service = site.service.reconfigured(configured(login=Login(return_parameter="rd")))
    shown = PageReader((await site.browser().get(LOGIN, {"rd": "/notes/1"})).body)
    assert shown.inputs()["return_to"] == "/notes/1"


FOREIGN: dict[str, Mapping[str, str]] = {
    "foreign-origin": {"origin": "https://evil.example"},
    "null-origin": {"origin": "null"},
    "null-origin-same-site": {"origin": "null", "sec-fetch-site": "same-origin"},
    "plain-http-origin": {"origin": "http://app.example.com"},
    "cross-site": {"sec-fetch-site": "cross-site"},
    "same-site": {"sec-fetch-site": "same-site"},
}


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
async def test_a_form_of_another_site_signs_nobody_in(
    site: Site, fields: Mapping[str, str]
) -> None:
    """Login CSRF: else a person works, unknowing, in somebody else's account."""
    browser = site.browser()
    await browser.get(LOGIN)
    form = {"username": "ada", "password": PASSWORD}
    answer = await browser.post(LOGIN, form, fields)
    assert (answer.status, answer.error) == (403, "foreign_form")
    assert browser.session == ""
    assert PageReader(answer.body).by_id("password")  # and may sign in from here


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": PUBLIC},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"host": "other.example.com", "origin": "https://other.example.com"},
    ],
    ids=str,
)
async def test_a_form_of_our_own_origin_needs_no_token(
    site: Site, fields: Mapping[str, str]
) -> None:
    form = {"username": "ada", "password": PASSWORD}
    assert (await site.browser().post(LOGIN, form, fields)).status == 303


async def test_an_old_browser_signs_in_with_the_token_of_the_page(site: Site) -> None:
    browser = site.browser()
    inputs = PageReader((await browser.get(LOGIN)).body).inputs()
    form = inputs | {"username": "ada", "password": PASSWORD}
    assert (await browser.post(LOGIN, form, {})).status == 303


@pytest.mark.parametrize("case", ["wrong", "of-another", "cookie-lost"])
async def test_an_old_browser_without_its_own_token_is_refused(site: Site, case: str) -> None:
    browser, attacker = site.browser(), site.browser()
    inputs = PageReader((await browser.get(LOGIN)).body).inputs()
    others = PageReader((await attacker.get(LOGIN)).body).inputs()
    form = inputs | {"username": "ada", "password": PASSWORD}
    if case == "wrong":
        form["token"] = "A" * 43
    elif case == "of-another":
        form["token"] = others["token"]
    else:
        browser.cookies.clear()
    answer = await browser.post(LOGIN, form, {})
    assert answer.status == 403
    assert browser.session == ""


@pytest.mark.parametrize("saw_the_page", [True, False])
async def test_a_program_signs_in_with_or_without_cookies(site: Site, saw_the_page: bool) -> None:  # noqa: FBT001 - a table's column
    browser = site.browser()
    if saw_the_page:
        await browser.get(LOGIN)
    form = {"username": "ada", "password": PASSWORD}
    assert (await browser.post(LOGIN, form, {})).status == 303


async def test_who_asks_for_json_gets_json(site: Site) -> None:
    browser = site.browser()
    browser.fields["accept"] = "application/json"
    form = {"username": "ada", "password": PASSWORD, "return_to": "/notes"}
    answer = await browser.post(LOGIN, form)
    told = msgspec.json.decode(answer.body)
    assert answer.status == 200
    assert (told["name"], told["return_to"]) == ("Ada Lovelace", "/notes")
    assert browser.session
    assert browser.session.encode() not in answer.body
    refused = await browser.post(LOGIN, WRONG)
    assert refused.status == 401
    assert field(refused, "content-type") == "application/problem+json"
    assert msgspec.json.decode(refused.body)["code"] == "sign_in_failed"


async def test_who_is_signed_in_is_told_and_may_go_on(site: Site) -> None:
    browser = site.browser()
    await browser.sign_in()
    page = PageReader((await browser.get(LOGIN, {"return_to": "/notes"})).body)
    assert "You are signed in as Ada Lovelace" in page.text
    assert page.one("a").attributes["href"] == "/notes"
    assert await site.is_alive(browser.session)


@pytest.mark.parametrize(
    ("login", "serves"),
    [
        (Login(accounts=False), False),
        (Login(url="https://sso.example.com/signin"), False),
        (Login(url="https://sso.example.com/.doorward/login"), True),
    ],
    ids=["no-accounts", "own-service", "shared-service"],
)
async def test_the_page_is_there_only_where_people_sign_in_with_it(
    site: Site, login: Login, *, serves: bool
) -> None:
    site.service = site.service.reconfigured(configured(login=login))
    browser = site.browser()
    assert (await browser.get(LOGIN)).status == (200 if serves else 404)
    form = {"username": "ada", "password": PASSWORD}
    assert (await browser.post(LOGIN, form)).status == (303 if serves else 404)


class MeddledAccounts(Accounts):
    """Real accounts, disabled by somebody else right after the password was found right."""

    async def sign_in(self, login: str, password: str) -> Account | None:
        account = await super().sign_in(login, password)
        self.set_disabled(login, disabled=True)
        return account


async def test_an_account_disabled_during_its_sign_in_gets_no_session(
    tmp_path: Path, store: RedisSessionStore, valkey: Valkey
) -> None:
    """Its sessions were ended before this one was there; nobody would end it any more."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    accounts = MeddledAccounts(tmp_path / "a.sqlite3", hasher=hasher)
    account = accounts.add("ada", PASSWORD)
    site = Site(LoginService(configured(), store, accounts, SECRET), store, accounts)
    browser = site.browser()
    answer = await browser.post(LOGIN, {"username": "ada", "password": PASSWORD})
    assert (answer.status, browser.session) == (401, "")
    assert list(await store.sessions_of(account.subject)) == []
    accounts.close()


async def test_an_account_that_has_grown_beyond_what_backends_take_gets_no_session(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database may be written by others; its session would be refused at each request."""
    monkeypatch.setattr("auth.login.account.fits_fields", lambda _: True)
    subject = site.accounts.change("ada", name="n" * 9000).subject
    browser = site.browser()
    with pytest.raises(AuthUnavailable, match="larger than a session"):
        await browser.sign_in()
    assert browser.cookies.get("__Host-doorward") is None
    assert f"account {subject}: its name, roles and groups take more than 8192" in caplog.text


async def test_a_store_that_is_gone_is_an_outage_and_touches_no_cookie(
    site: Site, valkey: Valkey
) -> None:
    await site.store.close()
    caller = Authenticated(Identity(subject="u1"))
    with pytest.raises(AuthUnavailable):
        await Browser(site).send(
            "POST",
            LOGIN,
            form={"username": "ada", "password": PASSWORD},
            fields={"origin": PUBLIC},
            caller=caller,
        )


async def test_too_many_wrong_passwords_must_wait_and_say_how_long(
    site: Site, valkey: Valkey
) -> None:
    throttle = StoreThrottle(site.store.commands, pair=Bucket(2, 90.0))
    site.service = LoginService(configured(), site.store, site.accounts, SECRET, throttle=throttle)
    browser = site.browser()
    assert (await browser.post(LOGIN, WRONG)).status == 401
    await browser.sign_in()  # a right one costs nothing
    assert (await browser.post(LOGIN, WRONG)).status == 401
    answer = await browser.post(LOGIN, {"username": "ada", "password": PASSWORD})
    assert (answer.status, answer.error) == (429, "too_many_attempts")
    assert 80 <= int(field(answer, "retry-after")) <= 90
    assert "try again in 2 minutes" in PageReader(answer.body).text
    assert (await browser.post(LOGIN, WRONG | {"username": "bob"})).status == 401


async def test_more_sessions_than_an_account_may_begin_must_wait(
    site: Site, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auth.login.throttle.SESSIONS", Bucket(1, 90.0))
    throttle = StoreThrottle(site.store.commands)
    site.service = LoginService(configured(), site.store, site.accounts, SECRET, throttle=throttle)
    await site.browser().sign_in()
    answer = await site.browser().post(LOGIN, {"username": "ada", "password": PASSWORD})
    assert (answer.status, answer.error) == (429, "too_many_attempts")
    assert 80 <= int(field(answer, "retry-after")) <= 90
    assert "-form=" in field(answer, "set-cookie")  # and no session


async def test_more_sign_ins_than_fit_get_503_and_cost_no_attempt(
    site: Site, tmp_path: Path, valkey: Valkey
) -> None:
    throttle = StoreThrottle(site.store.commands, pair=Bucket(100, 90.0))
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    accounts = Accounts(tmp_path / "accounts.sqlite3", hasher=hasher, at_once=1, waiting=0)
    site.service = LoginService(configured(), site.store, accounts, SECRET, throttle=throttle)
    answers = await asyncio.gather(
        *(site.browser().post(LOGIN, {"username": "ada", "password": PASSWORD}) for _ in range(20))
    )
    accounts.close()
    statuses = {answer.status for answer in answers}
    assert statuses == {303, 503}
    (busy, *_) = (answer for answer in answers if answer.status == 503)
    assert (field(busy, "retry-after"), busy.error) == ("2", "overloaded")
    tokens = [
        float(value)
        for key in valkey.client.keys("doorward:attempts:pair:*")
        if (value := valkey.client.hget(key, "tokens"))
    ]
    assert tokens == [pytest.approx(100.0, abs=0.1)]


# Which provider ----------------------------------------------------------------------------------


def providers_of(answer: LoginAnswer) -> list[str]:
    page = PageReader(answer.body)
    return [
        link.attributes["href"] for link in page.all("a") if "provider=" in link.attributes["href"]
    ]


@pytest.fixture
def many(corp_site: Site, lying: LyingProvider) -> Site:
    """Providers `corp`, `acme` and `code` beside the accounts."""
    providers = (
        lying.configured(),
        lying.configured(id="acme", namespace="acme", domains=("acme.example", "acme.test")),
        lying.configured(id="code", namespace="code"),
    )
    corp_site.service = corp_site.service.reconfigured(configured(login=Login(providers=providers)))
    return corp_site


async def test_a_route_that_names_a_provider_goes_straight_there(
    many: Site, lying: LyingProvider
) -> None:
    answer = await many.browser().get("/.doorward/login", {"provider": "acme", "return_to": "/a"})
    assert field(answer, "location").startswith(f"{lying.issuer}/authorize?")


async def test_a_route_that_names_several_shows_only_these(many: Site) -> None:
    asked = {"provider": "code,acme,nobody", "acr_values": "mfa", "return_to": "/a"}
    links = providers_of(await many.browser().get("/.doorward/login", asked))
    assert links == [
        "/.doorward/login?provider=acme&return_to=%2Fa&acr_values=mfa",
        "/.doorward/login?provider=code&return_to=%2Fa&acr_values=mfa",
    ]


async def test_whoever_is_asked_for_more_is_asked_where_they_signed_in(
    many: Site, lying: LyingProvider
) -> None:
    await sign_in_at(lying, browser := many.browser())
    answer = await browser.get("/.doorward/login", {"max_age": "60"})
    assert field(answer, "location").startswith(f"{lying.issuer}/authorize?")
    assert (await browser.get("/.doorward/login")).status == 200


@pytest.mark.parametrize("address", ["ada@acme.example", " Ada@ACME.test ", "a@b@acme.test"])
async def test_an_address_leads_to_the_provider_of_its_domain(
    many: Site, lying: LyingProvider, address: str
) -> None:
    browser = many.browser()
    form = {"email": address, "return_to": "/notes"}
    answer = await browser.post("/.doorward/login", form)
    (refresh,) = PageReader(answer.body).all("meta", **{"http-equiv": "refresh"})
    onward = refresh.attributes["content"].removeprefix("0; url=")
    asked = dict(parse_qsl(urlsplit(onward).query))
    assert asked == {"provider": "acme", "return_to": "/notes", "login_hint": address.strip()}
    to = await browser.get("/.doorward/login", asked)
    assert dict(parse_qsl(urlsplit(field(to, "location")).query))["login_hint"] == address.strip()


@pytest.mark.parametrize("address", ["ada@elsewhere.example", "acme.example.evil.test", "", "@"])
async def test_an_address_of_no_known_domain_leads_nowhere(many: Site, address: str) -> None:
    answer = await many.browser().post("/.doorward/login", {"email": address})
    assert (answer.status, answer.error) == (400, "domain_unknown")
    typed = PageReader(answer.body).one("input", name="email").attributes
    assert (typed["value"], typed["aria-invalid"]) == (address, "true"), "there, to be mended"


async def test_only_where_a_provider_has_domains_an_address_is_asked_for(
    many: Site, corp_site: Site
) -> None:
    shown = PageReader((await many.browser().get("/.doorward/login")).body)
    assert [*shown.all("input", name="email")]
    corp_site.service = corp_site.service.reconfigured(configured())
    shown = PageReader((await corp_site.browser().get("/.doorward/login")).body)
    assert not [*shown.all("input", name="email")]


async def test_passwords_that_are_checked_elsewhere_are_not_those_of_our_accounts(
    site: Site, store: RedisSessionStore
) -> None:
    async def users(request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["username"] == "out":
            return web.Response(status=503)
        if asked["password"] != "their own":
            return web.Response(status=401)
        return web.json_response({"subject": "u-7", "groups": ["maths"]})

    application = web.Application()
    application.router.add_post("/check", users)
    async with TestServer(application) as server:
        login = Login(accounts=False, user_service=UserService(str(server.make_url("/check"))))
        throttle = StoreThrottle(store.commands, pair=Bucket(size=2, seconds_each=600.0))
        site.service = LoginService(
            configured(login=login), store, site.accounts, SECRET, throttle=throttle
        )
        browser = site.browser()
        assert (await browser.get(LOGIN)).status == 200
        await browser.sign_in(username="ada", password="their own")
        record = await store.find(digest(browser.session))
        assert isinstance(record, SessionRecord)
        assert (record.subject, record.groups, record.amr) == ("u-7", ("maths",), ("pwd",))
        for _ in range(3):  # an outage is no wrong password, and costs no token
            with pytest.raises(AuthUnavailable):
                await browser.post(LOGIN, {"username": "out", "password": PASSWORD})
        answers = [
            (await browser.post(LOGIN, {"username": "ada", "password": PASSWORD})).status
            for _ in range(3)
        ]
        assert answers == [401, 401, 429]


@pytest.mark.parametrize(
    ("origin", "cause"),
    [
        ("http://app.example.com", "sent over https only. Open https://app.example.com instead"),
        ("https://app.example.com:8443", "takes itself for https://app.example.com"),
    ],
)
async def test_a_page_opened_under_another_scheme_or_port_says_which_one_is_right(
    site: Site, origin: str, cause: str
) -> None:
    browser = site.browser()
    form = {"username": "ada", "password": PASSWORD}
    answer = await browser.post(LOGIN, form, {"origin": origin})
    assert (answer.status, answer.error, browser.session) == (403, "foreign_form", "")
    text = PageReader(answer.body).text
    assert cause in text
    assert f"opened it as {origin}" in text


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://app.example.com.evil"])
async def test_a_form_of_somebody_else_is_told_nothing_of_us(site: Site, origin: str) -> None:
    form = {"username": "ada", "password": PASSWORD}
    answer = await site.browser().post(LOGIN, form, {"origin": origin})
    assert (answer.status, answer.error) == (403, "foreign_form")
    assert "did not come from this page" in PageReader(answer.body).text
