"""What the store promises while things break, on a real server behind a relay of our own."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median

import pytest
import redis

from auth.decision import Reason
from auth.io.embedded import EmbeddedStore
from auth.io.session_store import RedisSessionStore
from auth.ports import AuthUnavailable
from auth.revocation import ended_key
from auth.session import SessionRecord, digest, session_key
from tests.auth.io.conftest import SETTINGS, Open, leased
from tests.auth.session_store_contract import record
from tests.conftest import Valkey
from tests.relay import Relay
from tests.stalls import counting_stalls

pytestmark = pytest.mark.wire
LEASE = SETTINGS.lease


@pytest.fixture
async def relay(valkey: Valkey) -> AsyncIterator[Relay]:
    async with Relay(int(valkey.tcp_url.rpartition(":")[2])) as between:
        yield between


async def known(store: RedisSessionStore, name: str) -> str:
    """Have *store* cache the session *name*."""
    async with asyncio.timeout(10):  # a machine that stands still for a lease reads once more
        while store.peek(name) is None:
            assert isinstance(await store.find(name), SessionRecord)
    return name


async def made(store: RedisSessionStore, subject: str = "u1") -> str:
    return digest(await store.create(record(subject)))


async def test_a_delete_behind_the_reply_that_it_outdates_leaves_nothing_cached(
    open_store: Open, valkey: Valkey, relay: Relay
) -> None:
    """The reply to the read and the invalidation arrive in one piece."""
    store = await open_store(relay.url)
    name = await made(store)
    relay.hold(["from_store"], also_new=True)
    reading = asyncio.create_task(store.find(name))
    await asyncio.sleep(0.02)  # the read reaches the store: its reply is held back
    await asyncio.to_thread(valkey.client.delete, session_key(name))
    relay.release(["from_store"])
    await reading  # either answer is right: it began before the delete
    assert store.peek(name) is None
    assert await store.find(name) == Reason.SESSION_UNKNOWN


async def test_nobody_joins_a_read_that_may_be_older_than_themselves(
    open_store: Open, valkey: Valkey, relay: Relay
) -> None:
    store = await open_store(relay.url)
    name = await made(store)
    relay.hold(["from_store"], also_new=True)
    early = asyncio.create_task(store.find(name))
    await asyncio.sleep(0.02)
    await asyncio.to_thread(valkey.client.delete, session_key(name))
    await asyncio.sleep(LEASE)
    late = asyncio.create_task(store.find(name))
    await asyncio.sleep(0)
    relay.release(["from_store"])
    assert isinstance(await early, SessionRecord)
    assert await late == Reason.SESSION_UNKNOWN


async def test_requests_at_once_share_one_read_while_the_lease_is_live(
    open_store: Open, relay: Relay
) -> None:
    store = await open_store(relay.url)
    name = await made(store)
    store._reader.counters.clear()
    found = await asyncio.gather(*(store.find(name) for _ in range(100)))
    assert all(isinstance(each, SessionRecord) for each in found)
    assert store._reader.counters["misses"] == 100
    assert store._reader.counters["joined"] == 99


async def test_a_cancelled_leader_takes_no_follower_along(open_store: Open) -> None:
    store = await open_store()
    name = await made(store)
    leader = asyncio.create_task(store.find(name))
    followers = [asyncio.create_task(store.find(name)) for _ in range(3)]
    await asyncio.sleep(0)
    leader.cancel()
    found = await asyncio.gather(*followers)
    assert all(isinstance(each, SessionRecord) for each in found)


async def test_cancelled_callers_never_cross_answers(open_store: Open, relay: Relay) -> None:
    """redis-py 4.5.1 handed a cancelled caller's reply to the next one (March 2023)."""
    store = await open_store(relay.url)
    names = {await made(store, f"u{number}"): f"u{number}" for number in range(20)}
    for turn in range(100):
        store._reader.cache.clear()
        reads = {name: asyncio.create_task(store.find(name)) for name in names}
        await asyncio.sleep(0)
        for number, read in enumerate(reads.values()):
            if (number + turn) % 3:
                read.cancel()
        for name, read in reads.items():
            try:
                found = await read
            except asyncio.CancelledError:
                continue
            assert isinstance(found, SessionRecord)
            assert found.subject == names[name]


async def test_a_gateway_that_hears_nothing_admits_nobody_after_its_lease(
    open_store: Open, valkey: Valkey, relay: Relay
) -> None:
    store = await open_store(relay.url)
    name = await known(store, await made(store))
    relay.hold(["from_store"], also_new=True)
    deleted_at = time.monotonic()
    await asyncio.to_thread(valkey.client.delete, session_key(name))
    asked_at = time.monotonic()  # before the look: a pause between the two is the machine's
    while store.peek(name) is not None:
        assert asked_at - deleted_at < LEASE + 0.02
        await asyncio.sleep(0.001)
        asked_at = time.monotonic()
    with pytest.raises(AuthUnavailable):
        await asyncio.wait_for(store.find(name), 5)


async def test_the_lease_runs_from_when_its_beat_was_sent(open_store: Open, relay: Relay) -> None:
    """What happened after the beat was executed may still be on its way."""
    store = await open_store(relay.url)
    relay.hold(["from_store"], also_new=True)
    await asyncio.sleep(0.1)
    relay.hold(["to_store"], also_new=True)
    last_sent_before = store._reader.clock()
    await asyncio.sleep(0.1)
    relay.release(["from_store"])
    await asyncio.sleep(0.02)
    assert last_sent_before < store._reader.cache.lease_until <= last_sent_before + LEASE
    relay.release(["to_store"])


async def test_a_logout_waits_for_the_lease_of_a_gateway_that_does_not_hear(
    open_store: Open, relay: Relay
) -> None:
    deaf, store = await open_store(relay.url), await open_store()
    name = await known(deaf, await made(store))
    relay.hold(["from_store"], also_new=True)
    async with counting_stalls() as stalls:
        ended = await store.end(name, reason="logout")
        assert deaf.peek(name) is None
        assert (ended.acknowledged, ended.of) == (1, 2)
        assert ended.waited_ms <= 1000 * (LEASE + 0.1 + stalls.seconds)
    relay.release(["from_store"])


async def test_to_settle_waits_for_a_gateway_that_does_not_hear_of_a_delete(
    open_store: Open, valkey: Valkey, relay: Relay
) -> None:
    deaf, store = await open_store(relay.url), await open_store()
    name = await known(deaf, await made(store))
    relay.hold(["from_store"], also_new=True)
    await asyncio.to_thread(valkey.client.delete, session_key(name))
    settled = await store.settle()
    assert deaf.peek(name) is None
    assert (settled.ended, settled.acknowledged, settled.of) == (0, 1, 2)
    relay.release(["from_store"])


async def test_to_settle_is_quick_when_everybody_hears(open_store: Open, valkey: Valkey) -> None:
    other, store = await open_store(), await open_store()
    waits: list[float] = []
    for _ in range(20):
        name = await known(other, await made(store))
        await asyncio.to_thread(valkey.client.delete, session_key(name))
        settled = await store.settle()
        assert other.peek(name) is None
        assert (settled.acknowledged, settled.of) == (2, 2)
        waits.append(settled.waited_ms)
    # One may be slow on a loaded machine; who waits for leases is slow each time.
    assert median(waits) < 1000 * LEASE / 2


async def test_a_gateway_that_is_gone_costs_one_logout_its_wait(open_store: Open) -> None:
    dead, store = await open_store(), await open_store()
    dead._reader.link._task.cancel()
    await asyncio.sleep(0.05)
    names = [await made(store) for _ in range(2)]
    first = await store.end(names[0], reason="logout")
    assert (first.acknowledged, first.of) == (1, 2)
    assert first.waited_ms > 1000 * LEASE * 0.9
    await asyncio.sleep(0.02)
    async with counting_stalls() as stalls:
        second = await store.end(names[1], reason="logout")
        assert (second.acknowledged, second.of) == (1, 1)
        assert second.waited_ms < 1000 * (0.1 + stalls.seconds)


async def test_a_logout_waits_in_full_when_the_registry_was_lost(
    open_store: Open, valkey: Valkey, relay: Relay
) -> None:
    """FLUSHALL takes the list of workers along while one of them still has a lease."""
    deaf, store = await open_store(relay.url), await open_store()
    name = await known(deaf, await made(store))
    await leased(deaf)
    relay.hold(["from_store"], also_new=True)
    relay.hold(["to_store"], also_new=True)
    await asyncio.to_thread(valkey.client.delete, "doorward:workers")
    await store.end(name, reason="logout")
    assert deaf.peek(name) is None
    relay.release(["to_store"])
    relay.release(["from_store"])


async def test_a_killed_connection_refuses_nobody(open_store: Open, valkey: Valkey) -> None:
    store = await open_store()
    name = await known(store, await made(store))
    for _ in range(5):
        await asyncio.to_thread(valkey.client.execute_command, "CLIENT", "KILL", "TYPE", "pubsub")
        found = await asyncio.gather(*(store.find(name) for _ in range(5)))
        assert all(isinstance(each, SessionRecord) for each in found)
        await leased(store)


async def test_what_happened_while_the_connection_was_down_is_known_after_it(
    open_store: Open, valkey: Valkey, relay: Relay
) -> None:
    store = await open_store(relay.url)
    name = await known(store, await made(store))
    relay.refuse = True
    relay.cut()
    async with asyncio.timeout(10):
        while store._reader.link.connection is not None:
            await asyncio.sleep(0.001)
    await asyncio.to_thread(valkey.client.delete, session_key(name))
    relay.refuse = False
    await leased(store)
    assert await store.find(name) == Reason.SESSION_UNKNOWN


async def test_a_store_that_is_out_is_an_outage_at_once_and_over_within_a_second(
    open_store: Open, relay: Relay
) -> None:
    store = await open_store(relay.url)
    name = await known(store, await made(store))
    relay.refuse = True
    relay.cut()
    await asyncio.sleep(0.7)  # far enough into the back-off
    async with counting_stalls() as stalls:
        before = time.monotonic()
        for _ in range(20):
            with pytest.raises(AuthUnavailable):
                await store.find(name)
        assert time.monotonic() - before < 0.2 + stalls.seconds
    relay.refuse = False
    async with counting_stalls() as stalls:
        before = time.monotonic()
        await leased(store)
        assert isinstance(await store.find(name), SessionRecord)
        assert time.monotonic() - before < 1 + stalls.seconds


async def test_an_outage_policy_serves_what_was_known_good_and_nothing_that_ended(
    open_store: Open, valkey: Valkey, relay: Relay
) -> None:
    store, other = await open_store(relay.url), await open_store()
    good, ended, unknown = [await made(store) for _ in range(3)]
    for name in (good, ended):
        await known(store, name)
    await other.end(ended, reason="logout")
    relay.refuse = True
    relay.cut()
    await asyncio.sleep(0.05)
    assert isinstance(await store.find(good, serve_cached=60), SessionRecord)
    assert await store.find(ended, serve_cached=60) == Reason.SESSION_ENDED
    for name, serve_cached in ((unknown, 60.0), (good, 0.0), (good, 0.01)):
        with pytest.raises(AuthUnavailable):
            await store.find(name, serve_cached=serve_cached)


@pytest.mark.parametrize("fault", ["stopped", "sleeping"])
async def test_a_store_that_hangs_is_an_outage_within_a_second(
    open_store: Open, valkey: Valkey, fault: str
) -> None:
    store = await open_store()
    name = await made(store)
    sleeping: asyncio.Task[object] | None = None
    if fault == "stopped":
        os.kill(valkey.pid, signal.SIGSTOP)
    else:
        command = ("DEBUG", "SLEEP", "1.5")
        sleeping = asyncio.create_task(asyncio.to_thread(valkey.client.execute_command, *command))
        await asyncio.sleep(0.05)
    try:
        async with counting_stalls() as stalls:
            started = time.monotonic()
            with pytest.raises(AuthUnavailable):
                await asyncio.wait_for(store.find(name), 5)
            assert time.monotonic() - started < 1.1 + stalls.seconds
            if fault == "stopped":
                with pytest.raises(AuthUnavailable):
                    await store.end(name, reason="logout")
                assert time.monotonic() - started < 2.1 + stalls.seconds
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    if sleeping:
        await sleeping
    async with counting_stalls() as stalls:
        back_at = time.monotonic()
        await leased(store)
        found = await store.find(name)  # whether the logout got through is not known
        assert time.monotonic() - back_at < 1 + stalls.seconds
    assert isinstance(found, SessionRecord) or (fault, found) == ("stopped", Reason.SESSION_ENDED)


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[tuple[int, redis.Redis]]:
    """Another server that will be told it has the same data, but for the last writes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = EmbeddedStore(tmp_path / "b", options=("--port", str(port), "--bind", "127.0.0.1"))
    with redis.Redis.from_url(server.start(), protocol=2) as client:
        yield port, client
    server.stop()


async def test_a_failover_that_lost_the_logout_brings_nothing_back(
    open_store: Open, valkey: Valkey, relay: Relay, replica: tuple[int, redis.Redis]
) -> None:
    port, new_primary = replica
    store = await open_store(relay.url)
    ended, vanished = [await known(store, await made(store)) for _ in range(2)]
    for name in (ended, vanished):
        new_primary.set(session_key(name), valkey.client.get(session_key(name)), ex=600)  # type: ignore[arg-type]
    await store.end(ended, reason="logout")
    await asyncio.to_thread(valkey.client.delete, session_key(vanished))
    while await store.find(vanished) != Reason.SESSION_UNKNOWN:
        await asyncio.sleep(0.01)
    relay.target = port
    relay.cut()
    await asyncio.sleep(0.05)
    await leased(store)
    assert store._reader.counters["store_replaced"] == 1
    assert await store.find(ended) == Reason.SESSION_ENDED
    assert await store.find(vanished) == Reason.SESSION_ENDED
    assert new_primary.exists(ended_key(ended), ended_key(vanished)) == 2


async def test_a_replica_is_never_used(
    open_store: Open, relay: Relay, replica: tuple[int, redis.Redis], valkey: Valkey
) -> None:
    port, other = replica
    store = await open_store(relay.url)
    other.replicaof("127.0.0.1", int(valkey.tcp_url.rpartition(":")[2]))
    relay.target = port
    relay.cut()
    await asyncio.sleep(0.1)
    with pytest.raises(AuthUnavailable, match="replica"):
        await store.find("0" * 64)


_WORKER = """
import asyncio, json, sys, time
from auth.io.session_store import open_session_store
from config.model import SessionSettings

async def main(url, lease, name):
    settings = SessionSettings(cookie_name="d", secure=False, lease=lease)
    store = await open_session_store(url, settings, worker=True)
    await asyncio.sleep(0.1)
    await store.find(name)
    admitted = 0.0
    print("ready", flush=True)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for _ in range(500):  # without giving the connection a chance to be read
            now = time.monotonic()
            if store.peek(name) is not None:
                admitted = now
        if isinstance(admitted, float) and now - admitted > 1:
            break
        await asyncio.sleep(0)
    print(json.dumps({"admitted": admitted}), flush=True)

asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
"""


async def test_a_worker_that_was_stopped_and_continued_admits_nothing_that_ended(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store()
    name = await made(store)
    worker = subprocess.Popen(  # noqa: ASYNC220 - it takes a millisecond
        [sys.executable, "-c", _WORKER, valkey.url, str(LEASE), name], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    try:
        assert await asyncio.to_thread(worker.stdout.readline) == b"ready\n"
        await asyncio.sleep(0.1)  # it admits
        os.kill(worker.pid, signal.SIGSTOP)
        async with counting_stalls() as stalls:
            ended = await store.end(name, reason="logout")
            answered_at = time.monotonic()
            assert (ended.acknowledged, ended.of) == (1, 2)
            assert ended.waited_ms <= 1000 * (LEASE + 0.1 + stalls.seconds)
        os.kill(worker.pid, signal.SIGCONT)
        said = json.loads(await asyncio.to_thread(worker.stdout.readline))
        assert 0 < said["admitted"] < answered_at
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()


@pytest.mark.parametrize("tracking", [True, False])
async def test_it_is_known_since_when_the_store_is_silent(
    open_store: Open, valkey: Valkey, relay: Relay, *, tracking: bool
) -> None:
    user = ""
    if not tracking:
        rights = ["reset", "on", ">pw", "~*", "&*", "+@all", "-client"]
        valkey.client.execute_command("ACL", "SETUSER", "plain", *rights)  # type: ignore[no-untyped-call]
        user = "plain:pw@"
    store = await open_store(relay.url.replace("//", f"//{user}"))
    async with counting_stalls() as stalls:
        began = time.monotonic()
        while time.monotonic() < began + 0.3:
            assert store.silence() < 0.25 + stalls.seconds
            await asyncio.sleep(0.01)
        relay.hold(["from_store"], also_new=True)
        held_at = time.monotonic()
        await asyncio.sleep(0.3)
        assert store.silence() > 0.2
        assert store.silence() < time.monotonic() - held_at + 0.25 + stalls.seconds
    relay.release(["from_store"])
    async with asyncio.timeout(10):
        while store.silence() > 0.1:
            await asyncio.sleep(0.01)


async def test_a_primary_that_may_not_write_is_as_good_as_silent(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store()
    valkey.client.config_set("min-replicas-to-write", 1)
    try:
        await asyncio.sleep(0.4)
        assert store.silence() > 0.2
    finally:
        valkey.client.config_set("min-replicas-to-write", 0)


async def test_a_new_primary_is_told_of_any_number_of_endings(
    open_store: Open, valkey: Valkey
) -> None:
    """More commands than a connection takes at once: they go in parts."""
    store = await open_store()
    until = store._reader.clock() + 3600
    names = [f"{number:064x}" for number in range(6000)]
    for name in names:
        store._reader.endings.add(name, until)
    await store.commands.execute_command("DEBUG", "CHANGE-REPL-ID")  # type: ignore[no-untyped-call]
    connection = store._reader.link.connection
    assert connection is not None
    connection.close()
    async with asyncio.timeout(30):
        while store._reader.clock() >= store._reader.cache.lease_until:
            await asyncio.sleep(0.01)
    assert valkey.client.exists(*map(ended_key, names)) == len(names)
