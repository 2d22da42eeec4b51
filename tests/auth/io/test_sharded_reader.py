"""A reader over shards that are played by hand: leases, beats, claims."""

import asyncio

import hiredis
import pytest

from auth.io.sharded_reader import ShardedReader
from auth.session import SessionRecord
from auth.slots import NO_CLAIMS, SLOTS, slot_of_tag
from tests.auth.io.shards_by_hand import (
    ALL_SLOTS,
    CLOCK,
    NAME,
    OF_ALL,
    OF_SUBJECT,
    SETTINGS,
    Bench,
    granted,
    record,
)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_copy_needs_the_lease_of_every_shard_it_was_read_from(bench: Bench) -> None:
    verdict = asyncio.ensure_future(bench.reader.find(NAME))
    for _ in range(3):
        await bench.answer(session=record(), ttl=60_000)
    assert isinstance(await verdict, SessionRecord)
    assert bench.reader.peek(NAME) is not None
    (entry,) = bench.reader.cache.sessions.values()
    homes = {slot_of_tag(tag) * 2 // SLOTS for tag in (NAME, OF_ALL, OF_SUBJECT)}
    assert set(entry.leases) == {bench.shards[home].lease for home in homes}
    for lease in entry.leases:
        lease.until = CLOCK
        assert bench.reader.peek(NAME) is None
        lease.until = CLOCK + 1
    assert bench.reader.peek(NAME) is not None


async def test_what_was_read_under_claims_that_changed_meanwhile_is_not_used(bench: Bench) -> None:
    verdict = asyncio.ensure_future(bench.reader.find(NAME))
    await bench.answer(session=record(), ttl=60_000)
    for shard in bench.shards:
        bench.reader._begin_anew(shard, shard.lease.claims)
        shard.lease.until = CLOCK + 1
    for _ in range(2):
        await bench.answer()
    assert isinstance(await verdict, SessionRecord)
    assert bench.reader.peek(NAME) is None


async def test_a_beat_says_what_the_worker_believes_and_its_refusal_voids_the_lease(
    bench: Bench,
) -> None:
    shard, store = bench.shards[0], bench.stores[0]
    before = shard.lease
    bench.reader._renew_with(shard, store.connection)
    (beat,) = await store.commands()
    assert beat[-1].decode() == before.claims.text
    store.answer(b"id0 myself,master 1 0-8191 [5->-id1]")
    assert before.void
    assert shard.lease.claims.text.endswith("[5->-id1]")
    assert shard.lease.until == 0.0
    (again,) = await store.commands()  # at once, under the new claims
    assert again[-1].decode() == shard.lease.claims.text
    store.answer(1)
    assert shard.lease.until == CLOCK + SETTINGS.lease


async def test_a_late_answer_to_a_beat_of_older_claims_grants_nothing(bench: Bench) -> None:
    shard, store = bench.shards[0], bench.stores[0]
    bench.reader._renew_with(shard, store.connection)
    before = shard.lease
    bench.reader._begin_anew(shard, ALL_SLOTS)
    store.answer(1)
    assert (before.until, shard.lease.until) == (0.0, 0.0)


@pytest.mark.parametrize("error", ["MOVED 1 h:1", "ASK 1 h:1", "TRYAGAIN"])
async def test_a_registry_that_has_left_makes_the_worker_ask_for_the_claims(
    bench: Bench, error: str
) -> None:
    shard, store = bench.shards[0], bench.stores[0]
    bench.reader._renew_with(shard, store.connection)
    await store.commands()
    store.answer(hiredis.ReplyError(error))
    (asked,) = await store.commands()
    assert asked[2] == b"0"
    store.answer(b"id0 myself,master 1 100-200")
    assert shard.lease.claims.registry_key != NO_CLAIMS.registry_key


@pytest.mark.parametrize("said", [b"id0 myself,slave 1 ", b"nonsense"])
async def test_a_server_that_is_no_primary_any_more_is_left(bench: Bench, said: bytes) -> None:
    shard, store = bench.shards[0], bench.stores[0]
    bench.reader._renew_with(shard, store.connection)
    store.answer(said)
    assert store.aborted


async def test_an_unreached_shard_is_asked_by_nobody(bench: Bench) -> None:
    told: list[object] = []
    link = bench.shards[slot_of_tag(NAME) * 2 // SLOTS].tracked
    assert link is not None
    link.connection = None
    bench.reader.ask(NAME, told.append)
    assert told == [None]


def test_a_void_lease_serves_no_outage_either() -> None:
    reader = ShardedReader(SETTINGS, name="w1")
    reader.clock = lambda: CLOCK
    lease = granted(CLOCK)
    assert reader._may_serve((lease,), 60.0)
    assert not reader._may_serve((lease,), 0.5)
    lease.revoke()
    assert not reader._may_serve((lease,), 60.0)
