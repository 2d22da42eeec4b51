"""The plain client on a real cluster."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ResponseError

from auth.io.cluster_store import ClusterSessionStore
from auth.io.session_store import open_session_store
from tests.auth.io.conftest import SETTINGS
from tests.cluster import Cluster, in_thread

pytestmark = pytest.mark.wire


@pytest.fixture
async def store(cluster: Cluster) -> AsyncIterator[ClusterSessionStore]:
    cluster.flush()
    made = await open_session_store(cluster.url, SETTINGS, worker=False)
    assert isinstance(made, ClusterSessionStore)
    yield made
    await made.close()


async def test_each_command_goes_to_the_shard_of_its_key(store: ClusterSessionStore) -> None:
    commands: Any = store.commands
    for number in range(20):
        await commands.set(f"k{number}", number)
        assert await commands.eval("return redis.call('GET', KEYS[1])", 1, f"k{number}")
    await commands.xgroup_create("stream", "group", "0", mkstream=True)
    await commands.xadd("stream", {"a": "b"})
    ((name, ((_, fields),)),) = await commands.xreadgroup("group", "me", {"stream": ">"})
    assert (name, fields) == (b"stream", {b"a": b"b"})


async def test_a_map_that_is_out_of_date_costs_a_detour(
    store: ClusterSessionStore, cluster: Cluster
) -> None:
    await store.commands.set("k", "v")
    shards: Any = store._shards
    shards._owners = shards._owners[1:][::-1] + shards._owners[:1]
    assert await store.commands.get("k") == b"v"
    assert await store.commands.get("l") is None
    assert await in_thread(cluster.at("k").get, "k") == b"v"


async def test_an_error_of_the_server_is_raised_as_by_a_single_store(
    store: ClusterSessionStore,
) -> None:
    await store.commands.set("k", "v")
    with pytest.raises(ResponseError):
        await store.commands.execute_command("LPUSH", "k", "v")


async def test_without_a_shard_it_is_a_lost_connection(store: ClusterSessionStore) -> None:
    shards: Any = store._shards
    shards._owners = [None] * len(shards._owners)
    with pytest.raises(Disconnected):
        await store.commands.get("k")
