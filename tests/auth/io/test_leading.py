"""Who leads, on a real server."""

import asyncio

import pytest

from auth.io.leading import STORE_ERRORS, Leadership
from auth.io.session_store import RedisSessionStore, open_session_store
from tests.auth.io.conftest import SETTINGS, Open
from tests.conftest import Valkey

pytestmark = pytest.mark.wire
KEY = "doorward:leads"


@pytest.fixture
async def store(open_store: Open) -> RedisSessionStore:
    return await open_store(worker=False)


def wish(store: RedisSessionStore, *, leads_for: float = 60.0, renew: float = 1.0) -> Leadership:
    return Leadership(store.commands, KEY, leads_for=leads_for, renew=renew)


async def test_one_leads_and_the_other_does_not(store: RedisSessionStore) -> None:
    one, other = wish(store), wish(store)
    assert [await one.hold(), await other.hold(), await one.hold()] == [True, False, True]
    assert (one.holds, other.holds) == (True, False)


async def test_who_resigns_is_followed_at_once(store: RedisSessionStore) -> None:
    one, other = wish(store), wish(store)
    await one.hold()
    await one.resign()
    assert not one.holds
    assert await other.hold()


async def test_who_does_not_lead_cannot_resign_for_another(store: RedisSessionStore) -> None:
    one, other = wish(store), wish(store)
    await one.hold()
    await other.resign()
    assert not await other.hold()


async def test_a_leader_that_does_not_renew_is_followed_and_knows_it(
    store: RedisSessionStore,
) -> None:
    one, other = wish(store, leads_for=0.1, renew=0.05), wish(store)
    await one.hold()
    async with asyncio.timeout(5):
        while not await other.hold():
            await asyncio.sleep(0.01)
    assert not one.holds
    assert not await one.hold()


async def test_a_leader_whose_key_was_lost_learns_it_at_the_next_renewal(
    store: RedisSessionStore, valkey: Valkey
) -> None:
    one, other = wish(store, renew=0.0), wish(store)
    await one.hold()
    valkey.client.delete(KEY)
    assert await other.hold()
    assert not await one.hold()
    assert not one.holds


async def test_an_outage_takes_nothing_from_the_leader_before_its_time(valkey: Valkey) -> None:
    store = await open_session_store(valkey.url, SETTINGS, worker=False)
    one = wish(store, renew=0.0)
    try:
        await one.hold()
        valkey.client.config_set("maxclients", "1")
        await store.commands.connection_pool.disconnect()
        with pytest.raises(STORE_ERRORS):
            await one.hold()
        assert one.holds
    finally:
        valkey.client.config_set("maxclients", "10000")
        await store.close()
