"""Histories on a cluster whose shards fail over to replicas that lack the last writes.

`DOORWARD_FAULT_SEED=12` replays one; `DOORWARD_SOAK=1` runs a hundred instead of one.
"""

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from auth.io.address import parse_store_url
from auth.io.cluster_store import ClusterSessionStore
from auth.io.session_store import RedisSessionStore
from config.model import SessionSettings
from tests.cluster import PATIENT_NODE_TIMEOUT_MS, Cluster
from tests.faults.checker import check
from tests.faults.cluster_world import run_failover_history
from tests.faults.defences import NoMemory
from tests.faults.soaking import check_all, many, replayed_or, told

pytestmark = pytest.mark.wire

SEEDS = replayed_or(range(1, 2))
SOAK_SEEDS = many(100)
CHANCES = 4
FOUND_BY = (7, 10, 6, 11)
"""Seeds that found it missing when they were tried in order from 1."""


class WithoutMemory(ClusterSessionStore):
    """What ended is known to the shards alone."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._reader.endings = NoMemory()


async def open_without_memory(url: str, settings: SessionSettings) -> RedisSessionStore:
    store = WithoutMemory(parse_store_url(url), settings, worker=True)
    await store.connect()
    return store


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three shards, each a primary and a replica."""
    made = Cluster(
        tmp_path_factory.mktemp("cluster"), replicas=True, node_timeout_ms=PATIENT_NODE_TIMEOUT_MS
    )
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_failover_of_a_shard_breaks_no_promise(replicated: Cluster, seed: int) -> None:
    history = await run_failover_history(replicated, seed)
    broken = check(history)
    assert not broken, told(seed, history, broken)
    done = {each.result for each in history.operations if each.kind == "use"}
    assert {"admitted", "refused"} <= done
    assert any(each.kind == "rollback" for each in history.operations)


async def test_without_remembered_endings_a_failover_brings_sessions_back(
    replicated: Cluster,
) -> None:
    for seed in FOUND_BY * CHANCES:
        history = await run_failover_history(replicated, seed, open_store=open_without_memory)
        if {found.rule for found in check(history)} & {"admitted_after_end", "came_back"}:
            return
    pytest.fail("no seed found it missing")


@pytest.mark.soak
@pytest.mark.skipif("DOORWARD_SOAK" not in os.environ, reason="takes minutes: make soak")
async def test_a_hundred_failovers_of_shards_break_no_promise(replicated: Cluster) -> None:
    await check_all(partial(run_failover_history, replicated), SOAK_SEEDS)
