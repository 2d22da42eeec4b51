"""Signing in at a provider that lies, breaks or dawdles; a real one is in the end-to-end tests."""

import asyncio
import hashlib
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from auth.io.provider_client import Providers
from auth.io.provider_records import ProviderRecords, ProviderSession
from auth.login.messages import LoginAnswer
from auth.login.provider_refresh import RefreshesUnderWay
from auth.login.service import AtProviders, LoginService
from auth.login.throttle import Bucket, StoreThrottle
from auth.session import digest
from config.model import Login, Provider, SessionSettings
from tests.auth.login.conftest import (
    SECRET,
    Browser,
    Site,
    begin_at,
    configured,
    cookies_of,
    field,
    sign_in_at,
)
from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.providers.github import GitHub, github
from tests.providers.lying import CODE, REMOVED, STRANGER, LyingProvider

CALLBACK = "/.doorward/callback"


def restart(site: Site, *providers: Provider, accounts: bool = True) -> None:
    """Go on with other providers."""
    login = Login(accounts=accounts, providers=providers)
    site.service = site.service.reconfigured(configured(login=login))


async def test_a_sign_in_ends_where_it_was_wanted_with_a_new_session(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = corp_site.browser()
    answer = await sign_in_at(lying, browser, return_to="/notes/1?a=b")
    assert (answer.status, field(answer, "location")) == (303, "/notes/1?a=b")
    record = await corp_site.store.find(digest(browser.session))
    assert not isinstance(record, str)
    assert (record.subject, record.name) == ("corp:ada", "Ada")
    assert record.claims["sid"] == "session-1"


async def test_the_verifier_that_is_sent_is_that_of_the_challenge(
    corp_site: Site, lying: LyingProvider
) -> None:
    await sign_in_at(lying, corp_site.browser())
    form = next(form for path, _, form in lying.seen if path == "/token")
    made = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert urlsafe_b64encode(made).rstrip(b"=").decode() == lying.asked["code_challenge"]
    assert form["redirect_uri"] == "https://app.example.com/.doorward/callback"


async def test_every_sign_in_has_secrets_of_its_own(corp_site: Site, lying: LyingProvider) -> None:
    seen = set()
    for _ in range(3):
        await begin_at(lying, corp_site.browser())
        seen |= {lying.asked[name] for name in ("state", "nonce", "code_challenge")}
    assert len(seen) == 9
    assert all(len(value) == 43 for value in seen)


async def test_the_cookie_that_binds_it_is_out_of_reach_for_siblings_and_scripts(
    corp_site: Site, lying: LyingProvider
) -> None:
    answer = await corp_site.browser().get("/.doorward/login", {"provider": "corp"})
    (cookie,) = (each for each in cookies_of(answer) if "sign-in" in each)
    name, *attributes = cookie.split("; ")
    assert name.startswith("__Host-doorward-sign-in-")
    assert set(attributes) == {"Max-Age=600", "Path=/", "HttpOnly", "SameSite=Lax", "Secure"}


async def test_neither_the_secrets_nor_the_code_are_in_a_log(
    corp_site: Site, lying: LyingProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    lying.claims["nonce"] = "another"
    browser = corp_site.browser()
    await sign_in_at(lying, browser)
    logged = caplog.text
    assert "its nonce is not the one we sent" in logged
    form = next(form for path, _, form in lying.seen if path == "/token")
    for secret in (lying.asked["state"], lying.asked["nonce"], form["code_verifier"], CODE):
        assert secret not in logged


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://evil.example"}, "provider_failed"),
        ({"aud": "other"}, "provider_failed"),
        ({"aud": ["gateway", "other"]}, "provider_failed"),
        ({"nonce": "another"}, "provider_failed"),
        ({"nonce": REMOVED}, "provider_failed"),
        ({"exp": REMOVED}, "provider_failed"),
        ({"at_hash": "wrong"}, "provider_failed"),
        ({"sub": "a\r\nb"}, "provider_failed"),
        ({"roles": {"admin": True}}, "provider_failed"),
        ({"iat": 4_000_000_000, "exp": 4_000_000_300}, "provider_clock"),
        ({"iat": 1_000_000_000, "exp": 1_000_000_300}, "provider_clock"),
    ],
    ids=str,
)
async def test_an_id_token_that_is_no_good_makes_no_session(
    corp_site: Site, lying: LyingProvider, valkey: Valkey, claims: dict[str, Any], code: str
) -> None:
    lying.claims = claims
    browser = corp_site.browser()
    answer = await sign_in_at(lying, browser)
    assert (answer.error, browser.session) == (code, "")
    assert valkey.client.keys("doorward:session:*") == []
    page = PageReader(answer.body)
    assert "request-1" in page.text
    (again,) = (each for each in page.all("a") if page.text_of(each) == "Try again")
    assert again.attributes["href"].startswith("/.doorward/login?provider=corp&")


@pytest.mark.parametrize(
    "header", [{"typ": "logout+jwt"}, {"typ": "at+jwt"}, {"kid": "2"}], ids=str
)
async def test_another_kind_of_token_is_no_id_token(
    corp_site: Site, lying: LyingProvider, header: dict[str, str]
) -> None:
    query = await begin_at(lying, browser := corp_site.browser())
    lying.id_token = lying.signed(lying.usual_claims(), **header)
    assert (await browser.get(CALLBACK, query)).status == 502
    assert browser.session == ""


async def test_a_token_that_somebody_else_signed_is_no_id_token(
    corp_site: Site, lying: LyingProvider
) -> None:
    query = await begin_at(lying, browser := corp_site.browser())
    lying.id_token = lying.signed(lying.usual_claims(), key=STRANGER)
    assert (await browser.get(CALLBACK, query)).status == 502
    assert browser.session == ""


async def test_userinfo_about_somebody_else_makes_no_session(
    corp_site: Site, lying: LyingProvider
) -> None:
    lying.userinfo = {"sub": "bob", "roles": ["admin"]}
    answer = await sign_in_at(lying, browser := corp_site.browser())
    assert (answer.status, browser.session) == (502, "")


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"iss": "https://evil.example"}, 502, "provider_failed"),
        ({"iss": ""}, 502, "provider_failed"),
        ({"code": ""}, 502, "provider_failed"),
        ({"error": "access_denied"}, 403, "provider_denied"),
        ({"error": "<script>alert(1)</script>"}, 502, "provider_failed"),
        ({"error": "temporarily_unavailable"}, 503, "provider_unreachable"),
        ({"state": ""}, 400, "sign_in_incomplete"),
        ({"state": "x" * 300}, 400, "sign_in_incomplete"),
        ({"state": "another"}, 400, "sign_in_cookie_missing"),
    ],
    ids=str,
)
async def test_an_answer_that_is_no_good_is_not_exchanged(
    corp_site: Site, lying: LyingProvider, change: dict[str, str], status: int, error: str
) -> None:
    query = await begin_at(lying, browser := corp_site.browser()) | change
    answer = await browser.get(CALLBACK, query)
    assert (answer.status, answer.error, browser.session) == (status, error, "")
    assert "script" not in PageReader(answer.body).text
    assert "/token" not in {path for path, _, _ in lying.seen}


async def test_a_second_use_is_refused_also_after_a_failure(
    corp_site: Site, lying: LyingProvider
) -> None:
    query = await begin_at(lying, browser := corp_site.browser())
    cookies = dict(browser.cookies)
    lying.claims["nonce"] = "another"
    await browser.get(CALLBACK, query)
    lying.claims.clear()
    browser.cookies = cookies
    answer = await browser.get(CALLBACK, query)
    assert (answer.error, browser.session) == ("sign_in_expired", "")


async def test_a_sign_in_of_a_provider_that_is_configured_otherwise_now_is_over(
    corp_site: Site, lying: LyingProvider
) -> None:
    query = await begin_at(lying, browser := corp_site.browser())
    restart(corp_site, lying.configured(client_id="another"))
    answer = await browser.get(CALLBACK, query)
    assert (answer.error, browser.session) == ("sign_in_expired", "")


async def test_an_old_way_back_leads_whoever_is_signed_in_to_the_front_page(
    corp_site: Site, lying: LyingProvider
) -> None:
    query = await begin_at(lying, browser := corp_site.browser())
    await browser.get(CALLBACK, query)
    session = browser.session
    answer = await browser.get(CALLBACK, query)
    assert (answer.status, field(answer, "location")) == (303, "/")
    assert browser.session == session


@pytest.mark.parametrize("method", ["HEAD", "POST"])
async def test_only_get_uses_a_code_up(corp_site: Site, lying: LyingProvider, method: str) -> None:
    query = await begin_at(lying, browser := corp_site.browser())
    assert (await browser.send(method, CALLBACK, query=query)).status == 405
    assert (await browser.get(CALLBACK, query)).status == 303


async def test_the_session_from_before_is_over_also_when_its_cookie_stayed_at_home(
    corp_site: Site, lying: LyingProvider
) -> None:
    """Session fixation (ASVS 7.2.4); a strict cookie does not come along from the provider."""
    browser = corp_site.browser()
    await browser.sign_in()
    planted = browser.session
    query = await begin_at(lying, browser)
    browser.cookies.pop("__Host-doorward")
    await browser.get(CALLBACK, query)
    assert browser.session not in {"", planted}
    assert not await corp_site.is_alive(planted)


async def test_a_planted_session_is_not_what_becomes_ours(
    corp_site: Site, lying: LyingProvider
) -> None:
    other = corp_site.browser()
    await other.sign_in()
    query = await begin_at(lying, browser := corp_site.browser())
    browser.cookies["__Host-doorward"] = other.session
    await browser.get(CALLBACK, query)
    assert browser.session != other.session
    assert not await corp_site.is_alive(other.session)


async def test_where_to_return_to_is_checked_once_more_at_the_end(
    corp_site: Site, lying: LyingProvider, valkey: Valkey
) -> None:
    query = await begin_at(lying, browser := corp_site.browser(), return_to="/notes")
    (key,) = valkey.client.keys("doorward:sign-in:*")
    begun = msgspec.json.decode(valkey.client.get(key) or b"")
    valkey.client.set(key, msgspec.json.encode(begun | {"return_to": "https://evil.example/"}))
    answer = await browser.get(CALLBACK, query)
    assert field(answer, "location") == "/"


async def test_a_strict_cookie_is_not_lost_on_the_way_from_the_provider(
    corp_site: Site, lying: LyingProvider
) -> None:
    settings = configured(login=Login(providers=(lying.configured(),)))
    session = SessionSettings("__Host-doorward", secure=True, same_site="strict")
    corp_site.service = corp_site.service.reconfigured(
        msgspec.structs.replace(settings, session=session)
    )
    answer = await sign_in_at(lying, corp_site.browser(), return_to="/notes")
    assert answer.status == 200
    page = PageReader(answer.body)
    (refresh,) = page.all("meta", **{"http-equiv": "refresh"})
    assert refresh.attributes["content"] == "0; url=/notes"


async def test_the_sign_in_page_offers_every_way_there_is(
    corp_site: Site, lying: LyingProvider
) -> None:
    restart(corp_site, lying.configured(), lying.configured(id="two", label="Two"))
    page = PageReader((await corp_site.browser().get("/.doorward/login", {"return_to": "/n"})).body)
    links = {page.text_of(each): each.attributes["href"] for each in page.all("a")}
    assert links["Continue with Example Corp"] == "/.doorward/login?provider=corp&return_to=%2Fn"
    assert links["Continue with Two"] == "/.doorward/login?provider=two&return_to=%2Fn"
    assert page.by_id("username")


async def test_without_accounts_nobody_is_asked_for_a_password_nor_lets_one_in(
    corp_site: Site, lying: LyingProvider
) -> None:
    restart(corp_site, lying.configured(), lying.configured(id="two"), accounts=False)
    browser = corp_site.browser()
    page = PageReader((await browser.get("/.doorward/login")).body)
    assert not [*page.all("input")]
    form = {"username": "ada", "password": "correct horse battery"}
    assert (await browser.post("/.doorward/login", form)).status == 404
    assert browser.session == ""


async def test_the_only_way_is_taken_at_once_but_not_by_head(
    corp_site: Site, lying: LyingProvider, valkey: Valkey
) -> None:
    restart(corp_site, lying.configured(), accounts=False)
    browser = corp_site.browser()
    assert (await browser.send("HEAD", "/.doorward/login")).status == 200
    assert valkey.client.keys("doorward:sign-in:*") == []
    answer = await browser.get("/.doorward/login")
    assert field(answer, "location").startswith(f"{lying.issuer}/authorize?")


async def test_whoever_is_signed_in_is_asked_before_that_session_ends(
    corp_site: Site, lying: LyingProvider
) -> None:
    restart(corp_site, lying.configured(), accounts=False)
    await sign_in_at(lying, browser := corp_site.browser())
    answer = await browser.get("/.doorward/login")
    assert answer.status == 200
    assert "You are signed in as Ada" in PageReader(answer.body).text


async def test_an_unknown_provider_is_no_way(corp_site: Site) -> None:
    answer = await corp_site.browser().get("/.doorward/login", {"provider": "other"})
    assert answer.status == 200
    assert "Continue with Example Corp" in PageReader(answer.body).text


async def test_a_provider_that_is_down_is_named_on_the_sign_in_page(
    corp_site: Site, lying: LyingProvider
) -> None:
    lying.statuses["/.well-known/openid-configuration"] = 500
    browser = corp_site.browser()
    answer = await browser.get("/.doorward/login", {"provider": "corp", "return_to": "/notes"})
    page = PageReader(answer.body)
    assert (answer.status, answer.error) == (503, "provider_unreachable")
    assert "Example Corp does not answer right now." in page.text
    assert page.inputs()["return_to"] == "/notes"  # the other ways still work
    assert field(answer, "retry-after")
    assert (await browser.sign_in()).status == 303


async def test_with_several_providers_each_must_say_whose_answer_it_is(
    corp_site: Site, lying: LyingProvider
) -> None:
    """Mix-up: a provider that cannot say it has an address of its own to come back to."""
    lying.metadata["authorization_response_iss_parameter_supported"] = False
    both = (lying.configured(), lying.configured(id="own", own_callback=True))
    restart(corp_site, *both)
    browser = corp_site.browser()

    query = await begin_at(lying, browser)
    del query["iss"]
    assert (await browser.get(CALLBACK, query)).error == "provider_failed"

    query = await begin_at(lying, browser, provider="own")
    del query["iss"]
    assert lying.asked["redirect_uri"].endswith("/.doorward/callback/own")
    assert (await browser.get(CALLBACK, query)).error == "provider_failed"

    query = await begin_at(lying, browser, provider="own")
    del query["iss"]
    assert (await browser.get(f"{CALLBACK}/own", query)).status == 303

    assert (await browser.get(f"{CALLBACK}/corp", query)).status == 404


async def test_whoever_did_not_prove_enough_is_told_so_and_not_let_in(
    corp_site: Site, lying: LyingProvider
) -> None:
    restart(corp_site, lying.configured(acr_values=("mfa",)))
    lying.claims["acr"] = "pwd"
    answer = await sign_in_at(lying, browser := corp_site.browser())
    assert (answer.status, answer.error, browser.session) == (403, "provider_too_weak", "")
    lying.claims["acr"] = "mfa"
    assert (await sign_in_at(lying, browser)).status == 303


async def test_tabs_that_were_abandoned_do_not_fill_the_browser(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = corp_site.browser()
    others = {f"__Host-doorward-sign-in-{name}": "kept" for name in ("device", "recent")}
    browser.cookies |= others
    begun = [(await begin_at(lying, browser), lying.asked) for _ in range(21)]
    assert (
        len([each for each in browser.cookies if "sign-in-" in each and each not in others]) == 20
    )
    assert browser.cookies["__Host-doorward-sign-in-device"] == "kept"
    assert (await browser.get(CALLBACK, begun[0][0])).error == "sign_in_cookie_missing"
    for query, lying.asked in begun[1:]:
        assert (await browser.get(CALLBACK, query)).status == 303


async def test_a_session_that_ends_at_the_provider_during_the_sign_in_never_begins(
    corp_site: Site, lying: LyingProvider
) -> None:
    """D15: the logout token is faster than the answer of the token endpoint."""
    for named in ({"sid": "session-1"}, {"sid": REMOVED, "sub": "ada"}):
        query = await begin_at(lying, browser := corp_site.browser())
        lying.pause.clear()
        signing_in = asyncio.create_task(browser.get(CALLBACK, query))
        while lying.seen[-1][0] != "/token":
            await asyncio.sleep(0.005)
        token = lying.logout_token(**named)
        told = await corp_site.browser().post(
            "/.doorward/backchannel-logout", {"logout_token": token}, {}
        )
        assert told.status == 200
        lying.pause.set()
        answer = await signing_in
        assert (answer.status, answer.error) == (403, "provider_session_ended")
        assert browser.session == ""


async def test_whoever_signs_in_after_that_is_let_in(corp_site: Site, lying: LyingProvider) -> None:
    await corp_site.browser().post(
        "/.doorward/backchannel-logout", {"logout_token": lying.logout_token()}, {}
    )
    await asyncio.sleep(0.002)  # times are kept in milliseconds
    assert (await sign_in_at(lying, corp_site.browser())).status == 303


async def test_what_is_kept_of_the_tokens_nobody_reads_without_the_cookie(
    corp_site: Site, lying: LyingProvider, valkey: Valkey
) -> None:
    await sign_in_at(lying, browser := corp_site.browser())
    keys = [key for key in valkey.client.keys("*") if valkey.client.type(key) == b"string"]
    assert not [key for key in keys if "eyJ" in str(valkey.client.get(key))]
    assert valkey.client.exists(f"doorward:provider-tokens:{{{digest(browser.session)}}}")


class Empty:
    """A throttle that has had enough."""

    async def take(self, login: str, address: str) -> float:
        return 1.0

    async def put_back(self, login: str, address: str) -> None: ...

    async def take_code(self, subject: str) -> float:
        return 1.0

    async def put_back_code(self, subject: str) -> None: ...

    async def take_session(self, subject: str) -> float:
        return 1.0

    async def take_beginning(self, address: str) -> float:
        return 1.0

    async def take_logout_token(self, address: str) -> float:
        return 1.0

    async def put_back_logout_token(self, address: str) -> None: ...

    async def take_letter(self, to: str, address: str) -> float:
        return 1.0

    async def take_form(self, address: str) -> float:
        return 1.0


async def test_too_many_that_are_begun_from_one_network_are_refused(
    corp_site: Site, lying: LyingProvider
) -> None:
    clients = Providers()
    corp_site.service = LoginService(
        configured(login=Login(providers=(lying.configured(),))),
        corp_site.store,
        corp_site.accounts,
        SECRET,
        throttle=Empty(),
        at_providers=AtProviders(
            clients, ProviderRecords(corp_site.store.commands), RefreshesUnderWay()
        ),
    )
    answer = await corp_site.browser().get("/.doorward/login", {"provider": "corp"})
    assert (answer.status, answer.error) == (429, "too_many_attempts")
    await clients.close()


async def test_more_sessions_than_an_account_may_begin_must_wait(
    corp_site: Site, lying: LyingProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auth.login.throttle.SESSIONS", Bucket(1, 90.0))
    clients = Providers()
    corp_site.service = LoginService(
        configured(login=Login(providers=(lying.configured(),))),
        corp_site.store,
        corp_site.accounts,
        SECRET,
        throttle=StoreThrottle(corp_site.store.commands),
        at_providers=AtProviders(
            clients, ProviderRecords(corp_site.store.commands), RefreshesUnderWay()
        ),
    )
    assert (await sign_in_at(lying, first := corp_site.browser())).status == 303
    answer = await sign_in_at(lying, second := corp_site.browser())
    assert (answer.status, answer.error) == (429, "too_many_attempts")
    assert 80 <= int(field(answer, "retry-after")) <= 90
    assert "try again in 2 minutes" in PageReader(answer.body).text
    assert not second.session
    assert await corp_site.is_alive(first.session)  # and the one there was goes on
    await clients.close()


async def test_a_session_is_noted_under_the_providers_names_for_it(
    corp_site: Site, lying: LyingProvider
) -> None:
    await sign_in_at(lying, browser := corp_site.browser())
    records = ProviderRecords(corp_site.store.commands)
    name = ProviderSession(lying.issuer, "ada", "session-1").own_name
    assert await records.mark_ended(name, 0.0) == {digest(browser.session)}


# By GitHub, and others without OpenID Connect ---------------------------------------------------


@pytest.fixture
async def hub() -> AsyncIterator[GitHub]:
    async with github() as double:
        yield double


async def at_github(site: Site, hub: GitHub, **query: str) -> tuple[Browser, LoginAnswer]:
    browser = site.browser()
    begun = await browser.get("/.doorward/login", {"provider": "github"} | query)
    answered = hub.authorize(field(begun, "location"))
    return browser, await browser.get(f"{CALLBACK}/github", answered)


async def test_github_has_numbers_for_people_and_a_place_of_its_own_for_addresses(
    corp_site: Site, hub: GitHub, lying: LyingProvider
) -> None:
    restart(corp_site, lying.configured(), hub.configured())
    browser, answer = await at_github(corp_site, hub, return_to="/notes")
    assert (answer.status, field(answer, "location")) == (303, "/notes")
    record = await corp_site.store.find(digest(browser.session))
    assert not isinstance(record, str)
    assert (record.subject, record.name) == ("github:583231", "The Octocat")
    assert record.email == "octocat@example.com"
    assert record.refresh_at == 0
    (form,) = hub.forms
    assert form["redirect_uri"] == f"https://app.example.com{CALLBACK}/github"
    assert form["code_verifier"]


@pytest.mark.parametrize(
    "emails",
    [404, [], [{"email": "a@example.com", "primary": True, "verified": False}], [{"email": 7}]],
    ids=str,
)
async def test_an_address_that_github_has_not_verified_is_nobodys(
    corp_site: Site, hub: GitHub, emails: Any
) -> None:
    hub.emails = emails
    restart(corp_site, hub.configured())
    browser, _ = await at_github(corp_site, hub)
    record = await corp_site.store.find(digest(browser.session))
    assert not isinstance(record, str)
    assert (record.subject, record.email) == ("github:583231", "")


async def test_a_refusal_with_status_200_is_one(corp_site: Site, hub: GitHub) -> None:
    hub.error = "bad_verification_code"
    restart(corp_site, hub.configured())
    browser, answer = await at_github(corp_site, hub)
    assert (answer.error, browser.session) == ("provider_failed", "")


@pytest.mark.parametrize("number", [None, True, 1.5, "", {"id": 1}], ids=str)
async def test_whoever_has_no_number_or_name_is_nobody(
    corp_site: Site, hub: GitHub, number: object
) -> None:
    hub.user["id"] = number
    restart(corp_site, hub.configured())
    browser, answer = await at_github(corp_site, hub)
    assert (answer.error, browser.session) == ("provider_failed", "")


async def test_nothing_that_it_says_of_the_sign_in_itself_is_believed(
    corp_site: Site, hub: GitHub
) -> None:
    hub.user |= {"acr": "mfa", "amr": ["mfa"], "sid": "s", "iss": "https://evil.example"}
    restart(corp_site, hub.configured())
    browser, _ = await at_github(corp_site, hub)
    record = await corp_site.store.find(digest(browser.session))
    assert not isinstance(record, str)
    assert (record.acr, record.amr, record.claims["iss"]) == ("", (), hub.issuer)
    assert "sid" not in record.claims


async def test_it_cannot_say_how_strongly_somebody_signed_in(corp_site: Site, hub: GitHub) -> None:
    restart(corp_site, hub.configured())
    browser, answer = await at_github(corp_site, hub, acr_values="mfa")
    assert (answer.error, browser.session) == ("provider_too_weak", "")


async def test_a_code_of_another_provider_is_not_given_to_one_without_openid_connect(
    corp_site: Site, hub: GitHub, lying: LyingProvider
) -> None:
    """Mix-up (RFC 9700 section 4.4): no `iss` says whose it is, so the address does."""
    restart(corp_site, lying.configured(), hub.configured())
    browser = corp_site.browser()
    begun = await browser.get("/.doorward/login", {"provider": "github"})
    state = hub.authorize(field(begun, "location"))["state"]
    stolen = {"code": "of another provider", "state": state}
    for path in (CALLBACK, f"{CALLBACK}/corp"):
        answer = await browser.get(path, stolen)
        assert answer.status != 303
    assert (hub.forms, browser.session) == ([], "")


# By what the route asks for -----------------------------------------------------------------------


async def test_what_a_route_asks_for_goes_along_and_is_demanded(
    corp_site: Site, lying: LyingProvider
) -> None:
    asked = {"acr_values": "phr mfa", "max_age": "60", "prompt": "login", "login_hint": "a@b.c"}
    lying.claims = {"acr": "mfa", "auth_time": int(time.time())}
    await sign_in_at(lying, browser := corp_site.browser(), **asked)
    assert {name: lying.asked[name] for name in asked} == asked
    assert browser.session

    for weak in ({"acr": "pwd"}, {"auth_time": int(time.time()) - 600}, {"auth_time": REMOVED}):
        lying.claims = {"acr": "mfa", "auth_time": int(time.time())} | weak
        answer = await sign_in_at(lying, other := corp_site.browser(), **asked)
        assert (answer.error, other.session) == ("provider_too_weak", ""), weak


async def test_a_second_factor_that_is_only_in_amr_is_one(
    corp_site: Site, lying: LyingProvider
) -> None:
    lying.claims = {"amr": ["pwd", "mfa"]}
    await sign_in_at(lying, browser := corp_site.browser(), acr_values="mfa")
    assert browser.session


@pytest.mark.parametrize("weak", [{"acr": "weak"}, {"auth_time": 1_000_000_000}], ids=str)
async def test_a_query_asks_for_more_and_never_for_less(
    corp_site: Site, lying: LyingProvider, weak: dict[str, Any]
) -> None:
    restart(corp_site, lying.configured(acr_values=("strong",), max_age=60.0))
    lying.claims = {"acr": "strong", "auth_time": int(time.time())} | weak
    asked = {"acr_values": "weak strong", "max_age": "86400", "prompt": "none"}
    answer = await sign_in_at(lying, browser := corp_site.browser(), **asked)
    assert (answer.error, browser.session) == ("provider_too_weak", "")
    assert lying.asked["max_age"] == "60"
    assert "prompt" not in lying.asked
