"""Flights over shards that are played by hand."""

import asyncio

import hiredis
import pytest

from auth.io.connection import StoreLost
from auth.io.session_cache import Lease
from auth.io.sharded_flight import ShardedSessionFlight
from auth.session import SessionRecord
from auth.slots import SLOTS, parse_claims, slot_of_tag
from tests.auth.io.shards_by_hand import (
    ALL_SLOTS,
    CLOCK,
    NAME,
    OF_SUBJECT,
    Bench,
    record,
)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_of_a_slot_that_is_handed_over_nothing_is_kept(bench: Bench) -> None:
    slot = slot_of_tag(NAME)
    shard = bench.shards[slot * 2 // SLOTS]
    text = f"{shard.lease.claims.text} [{slot}->-other]"
    shard.lease = Lease(parse_claims(text.encode()))
    shard.lease.until = CLOCK + 1
    verdict = asyncio.ensure_future(bench.reader.find(NAME))
    for _ in range(3):
        await bench.answer(session=record(), ttl=60_000)
    assert isinstance(await verdict, SessionRecord)
    assert not bench.reader.cache.sessions


@pytest.mark.parametrize("what", ["lease", "claims", "epoch"])
async def test_a_read_under_way_is_joined_only_while_all_it_rests_on_holds(
    bench: Bench, what: str
) -> None:
    bench.reader.last_records.parse(NAME, record())
    flight = ShardedSessionFlight(bench.reader, NAME)
    flight.start()
    assert bench.reader._joinable(NAME) is flight
    home = bench.shards[slot_of_tag(OF_SUBJECT) * 2 // SLOTS]
    if what == "lease":
        home.lease.until = CLOCK
    elif what == "claims":
        bench.of(NAME).answer([record()])
        asked = bench.shards[slot_of_tag(NAME) * 2 // SLOTS]
        bench.reader._begin_anew(asked, ALL_SLOTS)
        asked.lease.until = CLOCK + 1  # granted anew: it says nothing of what was read before
    else:
        for store in bench.stores:
            for command in await store.commands():
                if b"epoch" in command[1] and OF_SUBJECT.encode() in command[1]:
                    store.answer(None)
                    break
                store.answer([record()] if command[0] == b"MGET" else None)
        bench.reader.cache.drop_epoch(OF_SUBJECT)
    assert bench.reader._joinable(NAME) is None


async def test_a_redirection_is_no_verdict(bench: Bench) -> None:
    flight = ShardedSessionFlight(bench.reader, NAME)
    verdict = flight.wait()
    flight.start()
    bench.of(NAME).answer(hiredis.ReplyError("MOVED 1 127.0.0.1:1"))
    with pytest.raises(StoreLost):
        await verdict
    assert NAME not in bench.reader.cache.flights
    assert bench.reader.shards._wanted.is_set()
