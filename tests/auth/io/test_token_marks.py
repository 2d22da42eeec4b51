"""Tokens that nobody has seen before, against a real store: known to be good without asking."""

import asyncio
import time

import pytest

from auth.io.session_store import RedisSessionStore, open_session_store
from auth.ports import AuthUnavailable
from auth.revocation import (
    TokenRef,
    bucket_key,
    bucket_of,
    epoch_name,
    revoked_key,
    token_name,
    token_ref,
)
from tests.auth.io.conftest import SETTINGS, Open, leased
from tests.conftest import Valkey
from tests.relay import Relay

pytestmark = pytest.mark.wire
IDP = "https://idp"


def token(jti: str = "j1", subject: str = "u1") -> TokenRef:
    now = time.time()
    return token_ref(issuer=IDP, subject=subject, jti=jti, issued_at=now - 60, expires_at=now + 600)


def neighbour(of: TokenRef, number: int = 0) -> TokenRef:
    """Return another token whose name and whose subject's are in the same buckets."""
    name, epoch = (bucket_of(each) + f"{number:061x}" for each in (of.name, of.epoch))
    return TokenRef(name, epoch, of.issued_at, of.expires_at)


async def knowing(store: RedisSessionStore) -> RedisSessionStore:
    """Have *store* know that the buckets of `token()` are clean."""
    assert await store.is_revoked(token()) is False
    assert store.peek_revoked(neighbour(token())) is False
    return store


async def test_a_new_token_costs_no_round_trip_while_nothing_near_it_is_revoked(
    open_store: Open,
) -> None:
    store = await knowing(await open_store())
    misses = store._reader.counters["misses"]
    for number in range(1, 50):
        assert store.peek_revoked(neighbour(token(), number)) is False
        assert await store.is_revoked(neighbour(token(), number)) is False
    assert store._reader.counters["misses"] == misses


async def test_a_revocation_is_in_force_where_its_bucket_was_clean(open_store: Open) -> None:
    one, other = await open_store(), await knowing(await open_store())
    ended = await one.revoke_token(IDP, "j1", time.time() + 600)
    assert (ended.acknowledged, ended.of) == (2, 2)
    assert other.peek_revoked(token()) is True
    assert other.peek_revoked(neighbour(token())) is None  # only the store can tell now
    assert await other.is_revoked(neighbour(token())) is False


async def test_a_subject_is_revoked_where_the_bucket_was_clean(open_store: Open) -> None:
    one, other = await open_store(), await knowing(await open_store())
    await one.revoke_tokens_of(IDP, "u1")
    assert other.peek_revoked(token()) is None
    assert await other.is_revoked(token()) is True
    assert await other.is_revoked(token("j2", "u2")) is False


async def test_the_mark_alone_takes_the_knowledge_away(open_store: Open, valkey: Valkey) -> None:
    """Nobody needs to have heard the broadcast: the store says that the mark has changed."""
    store = await knowing(await open_store())
    command_line = await open_store(worker=False)
    await command_line._mark(token().name, 60)
    async with asyncio.timeout(SETTINGS.lease):
        while store.peek_revoked(neighbour(token())) is not None:
            await asyncio.sleep(0.001)
    await asyncio.to_thread(valkey.client.set, revoked_key(neighbour(token()).name), "x")
    assert await store.is_revoked(neighbour(token())) is True


async def test_a_silent_worker_does_not_believe_that_a_bucket_is_clean(
    open_store: Open, valkey: Valkey
) -> None:
    one = await open_store()
    async with Relay(int(valkey.tcp_url.rpartition(":")[2])) as relay:
        cut_off = await knowing(await open_store(relay.url))
        relay.hold(["from_store"], also_new=True)
        ended = await one.revoke_token(IDP, "j1", time.time() + 600)
        assert (ended.acknowledged, ended.of) == (1, 2)
        assert cut_off.peek_revoked(token()) is None
        relay.release(["from_store"])
        await leased(cut_off)
        assert await cut_off.is_revoked(token()) is True


@pytest.mark.parametrize("first", [10.0, 5000.0])
async def test_a_mark_outlives_everything_it_stands_for(
    open_store: Open, valkey: Valkey, first: float
) -> None:
    store = await open_store()
    now, mark = time.time(), bucket_key(bucket_of(token_name(IDP, "j1")))
    for live_for in (first, 600.0):
        await store.revoke_token(IDP, "j1", now + live_for)
    longest = max(first, 600.0) + 300
    assert valkey.client.pttl(mark) / 1000 > longest
    await store.revoke_tokens_of(IDP, "u1")
    epoch = epoch_name(IDP, "u1")
    keys = (bucket_key(bucket_of(epoch)), f"doorward:epoch:{{{epoch}}}")
    of_mark, of_epoch = (valkey.client.pttl(key) for key in keys)
    assert of_mark > of_epoch


async def test_without_tracking_every_token_is_asked_for(open_store: Open, valkey: Valkey) -> None:
    valkey.client.acl_setuser(
        "plain",
        enabled=True,
        passwords=["+pw"],
        keys=["*"],
        channels=["*"],
        categories=["+@all"],
        commands=["-client"],
    )
    store = await open_store(valkey.tcp_url.replace("//", "//plain:pw@"))
    assert await store.is_revoked(token()) is False
    assert store.peek_revoked(token()) is None
    assert not store._reader.cache.clean


async def test_an_outage_leaves_what_was_known_for_as_long_as_the_route_says(
    valkey: Valkey,
) -> None:
    async with Relay(int(valkey.tcp_url.rpartition(":")[2])) as relay:
        store = await open_session_store(relay.url, SETTINGS, worker=True)
        try:
            await leased(store)
            await knowing(store)
            relay.refuse = True
            relay.cut()
            async with asyncio.timeout(2):
                while store.peek_revoked(token()) is not None:
                    await asyncio.sleep(0.01)
            new = neighbour(token(), 7)
            assert await store.is_revoked(new, serve_cached=60.0) is False
            with pytest.raises(AuthUnavailable):
                await store.is_revoked(new)
            with pytest.raises(AuthUnavailable):
                await store.is_revoked(token("j-else", "u-else"), serve_cached=60.0)
        finally:
            await store.close()
