"""Refreshing sessions at a provider that is slow, down or lying, from several gateways."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from auth.decision import Reason
from auth.io.provider_client import Providers
from auth.io.provider_records import ProviderRecords
from auth.io.session_store import open_session_store
from auth.login.provider_refresh import RefreshesUnderWay
from auth.login.service import AtProviders, LoginService
from auth.ports import AccessTokenGone, AuthUnavailable
from auth.session import SessionRecord, digest
from config.model import Login
from tests.auth.login.conftest import SECRET, Browser, Site, begin_at, configured, sign_in_at
from tests.conftest import Valkey
from tests.end_to_end.running import free_port
from tests.providers.lying import REMOVED, LyingProvider

DUE = 0.001
"""A lifetime of access tokens that is over at once."""
LASTING = 3600.0
FIRST = "a-refresh-token-1"


@pytest.fixture
async def second(corp_site: Site, lying: LyingProvider, valkey: Valkey) -> AsyncIterator[Site]:
    """Another gateway on the same store."""
    settings = configured(login=Login(providers=(lying.configured(),)))
    store = await open_session_store(valkey.url, settings.session, worker=True)
    clients, refreshes = Providers(), RefreshesUnderWay()
    at_providers = AtProviders(clients, ProviderRecords(store.commands), refreshes)
    service = LoginService(settings, store, corp_site.accounts, SECRET, at_providers=at_providers)
    site = Site(service, store, corp_site.accounts)
    site.refreshes = refreshes
    yield site
    await clients.close()
    await store.close()


async def signed_in(site: Site, lying: LyingProvider) -> Browser:
    """Somebody whose session is due for a refresh, whose new tokens will last."""
    lying.lifetime = DUE
    await sign_in_at(lying, browser := site.browser())
    lying.lifetime = LASTING
    return browser


async def refresh(site: Site, cookie: str) -> None:
    """What a request does, and waiting for what comes of it."""
    site.service.refresh(cookie)
    await site.refreshes.settle(10)


async def stored(site: Site, cookie: str) -> SessionRecord:
    """The record as it stands in the store."""
    seen: list[SessionRecord] = []

    def look(record: SessionRecord) -> SessionRecord:
        seen.append(record)
        return record

    assert await site.store.update(digest(cookie), look)
    return seen[-1]


async def wait_until_asked(lying: LyingProvider) -> None:
    while not lying.used:
        await asyncio.sleep(0.01)


async def test_a_refresh_maps_the_person_anew_and_keeps_the_session(
    corp_site: Site, lying: LyingProvider
) -> None:
    lying.claims = {"roles": ["editor"], "acr": "strong"}
    browser = await signed_in(corp_site, lying)
    before = await stored(corp_site, browser.session)
    lying.claims = {"roles": ["reader"], "tenant": "acme"}

    await refresh(corp_site, browser.session)

    after = await stored(corp_site, browser.session)
    assert (before.roles, after.roles, after.tenant) == (("editor",), ("reader",), "acme")
    assert after.claims["acr"] == "strong"  # the sign-in is still that one
    assert (after.subject, after.created_at, after.expires_at, after.auth_time) == (
        before.subject, before.created_at, before.expires_at, before.auth_time,
    )  # fmt: skip
    assert after.refresh_at > before.refresh_at + 2000
    assert await corp_site.is_alive(browser.session)


async def test_each_refresh_uses_the_token_of_the_one_before(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.lifetime = DUE
    for _ in range(3):
        await refresh(corp_site, browser.session)
    assert lying.used == [f"a-refresh-token-{number}" for number in (1, 2, 3)]


async def test_what_is_not_due_is_left_alone(corp_site: Site, lying: LyingProvider) -> None:
    lying.lifetime = LASTING
    await sign_in_at(lying, browser := corp_site.browser())
    await refresh(corp_site, browser.session)
    lying.lifetime = 0.0
    await sign_in_at(lying, without := corp_site.browser())
    assert (await stored(corp_site, without.session)).refresh_at == 0
    await refresh(corp_site, without.session)
    assert lying.used == []


async def test_over_all_gateways_a_token_is_used_once_however_slow_the_provider(
    corp_site: Site, second: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.pause.clear()
    for _ in range(5):
        for site in (corp_site, second):
            site.service.refresh(browser.session)
    await wait_until_asked(lying)
    await asyncio.sleep(0.1)
    lying.pause.set()
    for site in (corp_site, second):
        await site.refreshes.settle(10)
        await refresh(site, browser.session)
    assert lying.used == [FIRST]


async def test_the_token_of_a_gateway_that_died_with_it_is_never_used_again(
    corp_site: Site, second: Site, lying: LyingProvider, valkey: Valkey
) -> None:
    """RFC 9700 section 4.14.2: a second use would cost the person everything at the provider."""
    browser = await signed_in(corp_site, lying)
    lying.pause.clear()
    corp_site.service.refresh(browser.session)
    await wait_until_asked(lying)
    corp_site.refreshes.tasks[digest(browser.session)].cancel()
    lying.pause.set()

    await refresh(second, browser.session)
    assert (await stored(second, browser.session)).refresh_at > 0  # perhaps it is only slow

    (claim,) = valkey.client.keys("doorward:provider-refresh:*")
    valkey.client.set(claim, "1000.000 long-ago", keepttl=True)
    second.refreshes.not_before.clear()
    await refresh(second, browser.session)
    assert (await stored(second, browser.session)).refresh_at == 0
    assert lying.used == [FIRST]
    assert await second.is_alive(browser.session)


async def test_a_provider_that_says_no_ends_the_session_everywhere(
    corp_site: Site, second: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    assert await second.is_alive(browser.session)
    lying.statuses["/token"] = 400
    lying.bodies["/token"] = b'{"error": "invalid_grant"}'
    await refresh(corp_site, browser.session)
    assert not await second.is_alive(browser.session)
    assert not await corp_site.is_alive(browser.session)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"error": "invalid_client"}'),
        (400, b'{"error": "unauthorized_client"}'),
        (503, b"<html>"),
        (429, b""),
    ],
)
async def test_a_refresh_that_was_not_made_costs_nothing_and_is_made_later(
    corp_site: Site, lying: LyingProvider, status: int, body: bytes
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.statuses["/token"], lying.bodies["/token"] = status, body
    await refresh(corp_site, browser.session)
    await refresh(corp_site, browser.session)  # too early
    assert lying.used == [FIRST]
    assert await corp_site.is_alive(browser.session)

    lying.statuses.clear()
    lying.bodies.clear()
    corp_site.refreshes.not_before.clear()
    await refresh(corp_site, browser.session)
    assert lying.used == [FIRST, FIRST]
    assert (await stored(corp_site, browser.session)).refresh_at > 0


async def test_a_provider_that_is_down_costs_nobody_their_session(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    gone = lying.metadata | {"token_endpoint": f"http://127.0.0.1:{free_port()}/token"}
    lying.metadata = gone
    clients = Providers()  # asks for the metadata anew
    settings = configured(login=Login(providers=(lying.configured(),)))
    records = ProviderRecords(corp_site.store.commands)
    corp_site.service = LoginService(
        settings,
        corp_site.store,
        corp_site.accounts,
        SECRET,
        at_providers=AtProviders(clients, records, corp_site.refreshes),
    )
    await refresh(corp_site, browser.session)
    assert await corp_site.is_alive(browser.session)
    assert (await stored(corp_site, browser.session)).refresh_at > 0
    await clients.close()


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_when_nobody_knows_whether_a_token_was_used_it_is_not_used_again(
    corp_site: Site, lying: LyingProvider, status: int
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.statuses["/token"], lying.bodies["/token"] = status, b"{}"
    await refresh(corp_site, browser.session)
    lying.statuses.clear()
    corp_site.refreshes.not_before.clear()
    await refresh(corp_site, browser.session)
    assert lying.used == [FIRST]
    assert await corp_site.is_alive(browser.session)


async def test_a_session_that_ends_while_the_provider_dawdles_stays_ended(
    corp_site: Site, lying: LyingProvider, valkey: Valkey
) -> None:
    """security.md, 2.2: a slow refresh in one tab must not undo the logout in another."""
    browser = await signed_in(corp_site, lying)
    lying.pause.clear()
    corp_site.service.refresh(browser.session)
    await wait_until_asked(lying)
    session = browser.session
    assert (await browser.post("/.doorward/logout", {})).status == 200
    lying.pause.set()
    await corp_site.refreshes.settle(10)
    assert not await corp_site.is_alive(session)
    assert valkey.client.keys("doorward:session:*") == []
    assert valkey.client.keys("doorward:provider-tokens:*") == []


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "bob"},
        {"iss": "https://evil.example"},
        {"aud": "other"},
        {"nonce": "another"},
        {"auth_time": 7},
        {"exp": REMOVED},
        {"at_hash": "wrong"},
        {"roles": {"admin": True}},
    ],
    ids=str,
)
async def test_news_that_is_no_good_ends_the_session(
    corp_site: Site, lying: LyingProvider, claims: dict[str, Any]
) -> None:
    """OIDC Core section 12.2."""
    lying.claims = {"auth_time": 1_700_000_000}
    browser = await signed_in(corp_site, lying)
    lying.claims = claims
    await refresh(corp_site, browser.session)
    assert not await corp_site.is_alive(browser.session)


async def test_userinfo_about_somebody_else_ends_the_session(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.userinfo = {"sub": "bob"}
    await refresh(corp_site, browser.session)
    assert not await corp_site.is_alive(browser.session)


async def test_without_a_new_id_token_the_userinfo_is_the_news(
    corp_site: Site, lying: LyingProvider
) -> None:
    lying.claims = {"roles": ["editor"]}
    browser = await signed_in(corp_site, lying)
    lying.signs_again, lying.userinfo = False, {"sub": "ada", "name": "Ada L."}
    await refresh(corp_site, browser.session)
    record = await stored(corp_site, browser.session)
    assert (record.name, record.roles) == ("Ada L.", ("editor",))


@pytest.mark.parametrize(
    ("status", "body"),
    # GitHub says 403, with this text, and 429.
    [(500, b"{}"), (503, b"{}"), (429, b"{}"), (403, b'{"message": "API rate limit exceeded"}')],
)
async def test_when_only_the_news_cannot_be_had_the_new_tokens_are_kept(
    corp_site: Site, lying: LyingProvider, status: int, body: bytes
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.lifetime, lying.statuses["/userinfo"] = DUE, status
    lying.bodies["/userinfo"] = body
    await refresh(corp_site, browser.session)
    lying.statuses.clear()
    lying.bodies.clear()
    await refresh(corp_site, browser.session)
    assert lying.used == [FIRST, "a-refresh-token-2"]
    assert await corp_site.is_alive(browser.session)


async def test_what_others_have_changed_meanwhile_stays(
    corp_site: Site, lying: LyingProvider
) -> None:
    """A record may be replaced by anybody (contract section 6); times are the writer's own."""
    browser = await signed_in(corp_site, lying)
    lying.pause.clear()
    corp_site.service.refresh(browser.session)
    await wait_until_asked(lying)
    sooner = (await stored(corp_site, browser.session)).expires_at - 1000
    name = digest(browser.session)
    await corp_site.store.update(name, lambda old: msgspec.structs.replace(old, expires_at=sooner))
    lying.pause.set()
    await corp_site.refreshes.settle(10)
    assert (await stored(corp_site, browser.session)).expires_at == sooner


async def test_whoever_reads_store_and_log_finds_no_token(
    corp_site: Site, lying: LyingProvider, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    browser = await signed_in(corp_site, lying)
    await refresh(corp_site, browser.session)
    kept = [
        valkey.client.get(key)
        for key in valkey.client.keys("doorward:*")
        if valkey.client.type(key) == b"string"
    ]
    assert len(kept) >= 2
    for text in (*map(str, kept), caplog.text):
        assert "-token-" not in text
        assert browser.session not in text


async def test_when_the_provider_leaves_the_route_file_the_session_goes_on_without_news(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    login = Login(providers=(lying.configured(id="other"),))
    corp_site.service = corp_site.service.reconfigured(configured(login=login))
    await refresh(corp_site, browser.session)
    assert lying.used == []
    assert (await stored(corp_site, browser.session)).refresh_at == 0


async def test_the_access_token_is_to_be_had_as_long_as_it_lives(
    corp_site: Site, lying: LyingProvider
) -> None:
    lying.lifetime = LASTING
    await sign_in_at(lying, browser := corp_site.browser())
    assert await corp_site.service.access_token(browser.session) == "an-access-token-1"
    await (ours := corp_site.browser()).sign_in()
    assert await corp_site.service.access_token(ours.session) == ""


async def test_whoever_needs_an_access_token_waits_for_the_refresh(
    corp_site: Site, second: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.pause.clear()
    waiting = [
        asyncio.create_task(site.service.access_token(browser.session))
        for site in (corp_site, second, corp_site)
    ]
    await wait_until_asked(lying)
    lying.pause.set()
    assert await asyncio.gather(*waiting) == ["an-access-token-2"] * 3
    assert lying.used == [FIRST]


async def test_when_there_is_no_other_access_token_people_sign_in_again(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.statuses["/token"], lying.bodies["/token"] = 500, b"{}"
    with pytest.raises(AccessTokenGone):
        await corp_site.service.access_token(browser.session)
    assert await corp_site.is_alive(browser.session)


async def test_while_the_provider_is_down_an_expired_access_token_is_an_outage(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    lying.statuses["/token"] = 503
    with pytest.raises(AuthUnavailable) as outage:
        await corp_site.service.access_token(browser.session)
    assert outage.value.reason == Reason.PROVIDER_UNAVAILABLE


async def test_an_access_token_that_is_no_field_value_goes_nowhere(
    corp_site: Site, lying: LyingProvider
) -> None:
    """A provider could write fields of its own to our upstreams."""
    lying.metadata["userinfo_endpoint"] = ""  # it would stumble over the token first
    await begin_at(lying, browser := corp_site.browser())
    tokens = {
        "access_token": "a\r\nX-Auth-Roles: admin",
        "token_type": "Bearer",
        "id_token": lying.signed(lying.usual_claims()),
        "expires_in": 3600,
    }
    lying.bodies["/token"] = json.dumps(tokens).encode()
    answered = {"code": "the-code", "state": lying.asked["state"], "iss": lying.issuer}
    await browser.get("/.doorward/callback", answered)
    assert browser.session
    with pytest.raises(AccessTokenGone):
        await corp_site.service.access_token(browser.session)
