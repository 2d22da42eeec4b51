"""A login service on a real store and real accounts, and browsers that talk to it."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from argon2 import PasswordHasher

from auth.identity import ABSENT, Authenticated, Caller
from auth.io.challenges import Challenges
from auth.io.database import Database
from auth.io.provider_client import Providers
from auth.io.provider_records import ProviderRecords
from auth.io.session_store import RedisSessionStore, open_session_store
from auth.io.unfinished import UnfinishedSignIns
from auth.login.accounts import Accounts
from auth.login.app_secret import sealed_in
from auth.login.factors import Factors
from auth.login.messages import LoginAnswer, LoginRequest
from auth.login.passkey import Passkey
from auth.login.passkeys import add_passkey
from auth.login.provider_refresh import RefreshesUnderWay
from auth.login.service import AtHand, AtProviders, LoginService
from auth.login.totp import code_of, current_step
from auth.session import SessionRecord, digest, identity_of
from config.model import (
    AccessRule,
    Address,
    Admin,
    Assertion,
    Configuration,
    IdentityHeaders,
    Login,
    Match,
    Route,
    Secret,
    Server,
    SessionSettings,
    Store,
)
from tests.auth.login.authenticator import Authenticator
from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.providers.lying import LyingProvider, lying_provider

PUBLIC = "https://app.example.com"
OWN = {"origin": PUBLIC}
PASSWORD = "correct horse battery"
SECRET = b"s" * 32
FACTOR_KEY = "k" * 32


def configured(
    *, login: Login | None = None, public_url: str = PUBLIC, hosts: tuple[str, ...] = ()
) -> Configuration:
    """A configuration with what the login service reads."""
    secure = public_url.startswith("https:")
    route = Route("all", Match("/*", hosts=hosts), "up", AccessRule("signed-in"))
    return Configuration(
        server=Server(Address("127.0.0.1", 8080), public_url),
        admin=Admin(Address("127.0.0.1", 8081)),
        store=Store(Secret("embedded")),
        session=SessionSettings("__Host-doorward" if secure else "doorward", secure),
        login=login or Login(),
        tokens=(),
        identity=IdentityHeaders((), Assertion()),
        upstreams={},
        routes=(route,),
    )


class Browser:
    """Sends what a browser of this decade sends, and keeps the cookies it is given."""

    def __init__(self, site: "Site") -> None:
        self.site = site
        self.cookies: dict[str, str] = {}
        self.fields = {
            "host": urlsplit(PUBLIC).netloc,
            "accept": "text/html,application/xhtml+xml,*/*;q=0.8",
        }

    @property
    def session(self) -> str:
        """The session cookie's value, or an empty string."""
        return self.cookies.get("__Host-doorward", "")

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> LoginAnswer:
        return await self.send("GET", path, query=query or {})

    async def post(
        self,
        path: str,
        form: Mapping[str, str],
        fields: Mapping[str, str] | None = None,
    ) -> LoginAnswer:
        """Send a form; *fields* replaces `Origin`, which is our own otherwise."""
        fields = {"origin": PUBLIC} if fields is None else fields
        return await self.send("POST", path, form=form, fields=fields)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        caller: Caller | None = None,
    ) -> LoginAnswer:
        fields = self.fields | dict(fields or {})
        if self.cookies:
            pairs = (f"{name}={value}" for name, value in self.cookies.items())
            fields["cookie"] = "; ".join(pairs)
        request = LoginRequest(
            method=method,
            path=path,
            query=query or {},
            form=form or {},
            cookies=dict(self.cookies),
            fields=fields,
            client_address="192.0.2.1",
            caller=caller or await self.site.caller(self.session),
            request_id="request-1",
        )
        answer = await self.site.service.handle(request)
        self._keep(answer)
        return answer

    async def sign_in(self, **form: str) -> LoginAnswer:
        form = {"username": "ada", "password": PASSWORD} | form
        answer = await self.post("/.doorward/login", form)
        assert answer.status == 303, PageReader(answer.body).text
        return answer

    def _keep(self, answer: LoginAnswer) -> None:
        for cookie in cookies_of(answer):
            name, _, rest = cookie.partition("=")
            value = rest.partition(";")[0]
            if "Max-Age=0" in cookie:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value


class Site:
    """One gateway's login service."""

    def __init__(
        self,
        service: LoginService,
        store: RedisSessionStore,
        accounts: Accounts,
        factors: Factors | None = None,
        clock: "Clock | None" = None,
    ) -> None:
        self.service = service
        self.store = store
        self.accounts = accounts
        self.refreshes = RefreshesUnderWay()
        self.factors = factors or Factors(accounts.database, FACTOR_KEY)
        self.clock = clock or Clock()

    def browser(self) -> Browser:
        return Browser(self)

    async def caller(self, cookie: str) -> Caller:
        """Who the gateway says is calling."""
        found = await self.store.find(digest(cookie)) if cookie else ""
        if isinstance(found, str):
            return ABSENT
        return Authenticated(identity_of(found, digest(cookie)))

    async def is_alive(self, cookie: str) -> bool:
        return not isinstance(await self.store.find(digest(cookie)), str)


class Clock:
    """The time that authenticator apps go by: the real one, but it can be moved on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class App:
    """Somebody's authenticator app."""

    def __init__(self, site: Site, secret: bytes) -> None:
        self.site = site
        self.secret = secret

    def code(self) -> str:
        """The next code: one that was shown before is not shown again."""
        self.site.clock.ahead += 30
        return code_of(self.secret, current_step(self.site.clock()))


def app_of(site: Site, login: str) -> App:
    """Set an app up for the account of *login*."""
    account, secret = site.accounts.find(login), bytes(range(20))
    app = App(site, secret)
    sealed = site.factors.sealed_secret(account.subject, secret)
    assert site.factors.set_up_totp(account, sealed, app.code(), site.factors.of(account))
    return app


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


async def set_up_app(
    site: Site, browser: Browser, query: Mapping[str, str] | None = None
) -> LoginAnswer:
    """Set an app up for ada as a person does; return the last answer."""
    path = "/.doorward/account/authenticator"
    page = PageReader((await browser.get(path, query)).body)
    hidden = {
        each.attributes["name"]: each.attributes.get("value", "")
        for each in page.elements
        if each.attributes.get("type") == "hidden"
    }
    subject = site.accounts.find("ada").subject
    secret = site.factors.opened_secret(subject, sealed_in(hidden["secret"]))
    assert secret is not None
    return await browser.post(path, hidden | {"code": App(site, secret).code()})


def keep_passkey(database: Database, passkey: Passkey) -> None:
    """Keep *passkey*, whatever else its owner has."""
    with database.writing() as connection:
        add_passkey(connection, passkey)


async def new_passkey(
    browser: Browser, authenticator: Authenticator, *, name: str = "Key"
) -> LoginAnswer:
    """Have *authenticator* make a passkey, as the page's script does; return the last answer."""
    path = "/.doorward/account/passkeys"
    asked = await browser.post(path, {"challenge": "1"}, {**OWN, "accept": "application/json"})
    assert asked.status == 200, asked.body
    made = authenticator.create(json.loads(asked.body))
    return await browser.post(path, {"credential": made, "name": name})


async def use_passkey(
    browser: Browser, path: str, authenticator: Authenticator, **form: str
) -> LoginAnswer:
    """Have *authenticator* show its passkey at *path*, and return the last answer."""
    asked = await browser.post(path, {"challenge": "1"}, {**OWN, "accept": "application/json"})
    assert asked.status == 200, asked.body
    shown = authenticator.get(json.loads(asked.body))
    return await browser.post(path, {"credential": shown, **form})


async def record_of(site: Site, browser: Browser) -> SessionRecord:
    """The session of *browser*."""
    found = await site.store.find(digest(browser.session))
    assert isinstance(found, SessionRecord)
    return found


def cookies_of(answer: LoginAnswer) -> list[str]:
    return [value for name, value in answer.fields if name == "Set-Cookie"]


def field(answer: LoginAnswer, name: str) -> str:
    """The only value of a field, or an empty string."""
    values = [value for known, value in answer.fields if known.lower() == name.lower()]
    assert len(values) <= 1, values
    return values[0] if values else ""


@pytest.fixture
async def store(valkey: Valkey) -> AsyncIterator[RedisSessionStore]:
    store = await open_session_store(valkey.url, configured().session, worker=True)
    yield store
    await store.close()


@pytest.fixture
async def site(tmp_path: Path, store: RedisSessionStore) -> AsyncIterator[Site]:
    """A gateway at `PUBLIC` with two accounts, `ada` and `bob`."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    accounts = Accounts(tmp_path / "accounts.sqlite3", hasher=hasher)
    accounts.add(
        "ada",
        PASSWORD,
        name="Ada Lovelace",
        tenant="acme",
        roles=["editor"],
        groups=["maths"],
        email="ada@example.com",
    )
    accounts.add("bob", PASSWORD, name="Bob")
    clock = Clock()
    factors = Factors(accounts.database, FACTOR_KEY, clock=clock)
    at_hand = AtHand(factors, UnfinishedSignIns(store.commands), Challenges(store.commands))
    service = LoginService(configured(), store, accounts, SECRET, second_factors=at_hand)
    yield Site(service, store, accounts, factors, clock)
    accounts.close()


@pytest.fixture
async def lying() -> AsyncIterator[LyingProvider]:
    """A provider that says what the test has it say."""
    async with lying_provider() as provider:
        yield provider


@pytest.fixture
async def corp_site(site: Site, lying: LyingProvider) -> AsyncIterator[Site]:
    """The site, where people of `lying` may sign in as well, as `corp`."""
    clients = Providers()
    settings = configured(login=Login(providers=(lying.configured(),)))
    site.service = LoginService(
        settings,
        site.store,
        site.accounts,
        SECRET,
        at_providers=AtProviders(clients, ProviderRecords(site.store.commands), site.refreshes),
    )
    yield site
    await clients.close()


async def begin_at(lying: LyingProvider, browser: Browser, **query: str) -> dict[str, str]:
    """Begin to sign in at *lying*; return the query that the browser goes back with."""
    answer = await browser.get("/.doorward/login", {"provider": "corp"} | query)
    assert answer.status == 303, PageReader(answer.body).text
    return lying.authorize(field(answer, "location"))


async def sign_in_at(lying: LyingProvider, browser: Browser, **query: str) -> LoginAnswer:
    """Sign in at *lying*, and return the last answer."""
    return await browser.get("/.doorward/callback", await begin_at(lying, browser, **query))
