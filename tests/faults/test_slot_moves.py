"""Histories on a cluster whose slots are moved keep the promises; without the proof they do not.

`DOORWARD_FAULT_SEED=1234` replays one; `DOORWARD_SOAK=1` runs hundreds instead of a few.
"""

import os
from functools import partial

import pytest

from auth.io.address import parse_store_url
from auth.io.cluster_store import ClusterSessionStore
from auth.io.connection import Connection
from auth.io.reader import Reader
from auth.io.scripts import BEAT
from auth.io.session_store import RedisSessionStore
from auth.io.sharded_reader import ShardedReader
from auth.io.shards import Shard
from config.model import SessionSettings
from tests.cluster import Cluster
from tests.faults.checker import check
from tests.faults.cluster_world import run_history
from tests.faults.soaking import check_all, many, replayed_or, told

pytestmark = pytest.mark.wire

SEEDS = replayed_or(range(1, 3))
SOAK_SEEDS = many(300)
CHANCES = 4
FOUND_BY = (4, 2, 10, 8, 7, 3)
"""Seeds that found it missing when they were tried in order from 1."""


class _Blind(ShardedReader):
    """Its beats do not say whose slots it believes in: the shard grants what it is asked."""

    def _renew_with(self, shard: Shard, connection: Connection) -> None:
        lease, now = shard.lease, self.clock()
        registry = lease.claims.registry_key
        self._beats += 1
        connection.send(
            ("EVAL", BEAT, 1, registry or "", self._name, f"{self._beats} 100"),
            partial(self._granted_by, shard, connection, lease, now),
            (int, bytes),
        )


class WithoutOwnership(ClusterSessionStore):
    """No lease ends because a slot has left."""

    def _make_reader(self) -> Reader:
        reader = _Blind(self._settings, name=self._name)
        reader.shards = self._shards
        return reader


async def open_without_ownership(url: str, settings: SessionSettings) -> RedisSessionStore:
    store = WithoutOwnership(parse_store_url(url), settings, worker=True)
    await store.connect()
    return store


@pytest.mark.parametrize("seed", SEEDS)
async def test_moving_slots_breaks_no_promise(cluster: Cluster, seed: int) -> None:
    history = await run_history(cluster, seed)
    broken = check(history)
    assert not broken, told(seed, history, broken)
    assert any(each.result == "admitted" for each in history.operations)


async def test_without_the_proof_of_ownership_a_promise_is_broken(cluster: Cluster) -> None:
    for seed in FOUND_BY * CHANCES:
        history = await run_history(cluster, seed, open_store=open_without_ownership)
        if {found.rule for found in check(history)} & {"admitted_after_delete", "came_back"}:
            return
    pytest.fail("no seed found it missing")


@pytest.mark.soak
@pytest.mark.skipif("DOORWARD_SOAK" not in os.environ, reason="takes minutes: make soak")
async def test_hundreds_of_histories_with_moved_slots_keep_every_promise(cluster: Cluster) -> None:
    await check_all(partial(run_history, cluster), SOAK_SEEDS)
