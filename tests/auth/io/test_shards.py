"""Commands that find their way in a real cluster, and the map."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from auth.decision import Reason
from auth.io.cluster_store import ClusterSessionStore
from auth.io.connection import StoreLost
from auth.io.session_store import open_session_store
from auth.ports import AuthUnavailable
from auth.session import SessionRecord, digest
from auth.slots import slot_of, slot_of_tag
from tests.auth.io.conftest import SETTINGS
from tests.auth.session_store_contract import record
from tests.cluster import Cluster, Server, in_thread

pytestmark = pytest.mark.wire


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[ClusterSessionStore]:
    cluster.flush()
    made = await open_session_store(cluster.url, SETTINGS, worker=True)
    assert isinstance(made, ClusterSessionStore)
    yield made
    await made.close()


@pytest.fixture
def newcomer(cluster: Cluster, tmp_path: Path) -> Iterator[Server]:
    """A primary that has no slot yet; it is forgotten after the test."""
    server = cluster.spare(tmp_path / "new")
    try:
        yield server
    finally:
        cluster.forget(server)


async def test_a_command_follows_a_map_that_is_out_of_date(store: ClusterSessionStore) -> None:
    shards: Any = store._shards
    right = list(shards._owners)
    shards._owners = [*right[::-1]]
    assert await store._shards.call(("SET", "k", "v")) == b"OK"
    async with asyncio.timeout(2):  # and the map is put right
        while shards._owners != right:
            await asyncio.sleep(0.01)


async def test_an_error_is_an_outage_and_says_which(store: ClusterSessionStore) -> None:
    await store._shards.call(("SET", "k", "v"))
    with pytest.raises(AuthUnavailable, match="WRONGTYPE"):
        await store._shards.call(("LPUSH", "k", "v"))


async def test_two_keys_of_a_slot_that_is_being_moved_are_an_outage_in_the_end(
    store: ClusterSessionStore, cluster: Cluster
) -> None:
    await store._shards.call(("SET", "{k}here", "v"))
    slot = slot_of("{k}here")
    target = next(each for each in cluster.primaries if each is not cluster.owner(slot))
    source = await in_thread(cluster.begin_move, slot, target)
    try:
        with pytest.raises(AuthUnavailable, match="in time"):
            await store._shards.call(("MGET", "{k}here", "{k}there"))
    finally:
        await in_thread(cluster.move_keys, slot, source, target)
        await in_thread(cluster.end_move, slot, source, target)
        await in_thread(cluster.await_agreement)


async def test_a_shard_without_a_slot_yet_takes_its_first(
    store: ClusterSessionStore, cluster: Cluster, newcomer: Server
) -> None:
    """No map shows it before: commands come to it by ASK alone."""
    name = digest(await store.create(record()))
    slot = slot_of_tag(name)
    source = await in_thread(cluster.begin_move, slot, newcomer)
    await in_thread(cluster.move_keys, slot, source, newcomer)
    assert isinstance(await store.find(name), SessionRecord)
    assert (await store.end(name, reason="logout")).ended == 1
    await in_thread(cluster.end_move, slot, source, newcomer)
    async with asyncio.timeout(5):
        while len(store._shards.all()) != 4:
            await asyncio.sleep(0.01)
    assert await store.find(name) == Reason.SESSION_ENDED
    await in_thread(cluster.move, slot, source)
    assert await store.find(name) == Reason.SESSION_ENDED
    async with asyncio.timeout(10):
        while len(store._shards.all()) != 3:
            await asyncio.sleep(0.01)


async def test_a_slot_that_nobody_has_is_lost(store: ClusterSessionStore) -> None:
    shards: Any = store._shards
    shards._owners = [None] * len(shards._owners)
    with pytest.raises(StoreLost, match="no shard"):
        store._shards.owner(5)
