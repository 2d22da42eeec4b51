"""Copies under several leases, and flights over shards that are played by hand."""

import asyncio
import json
from typing import Any

import hiredis
import pytest

from auth.decision import Reason
from auth.io.address import parse_store_url
from auth.io.connection import StoreLost
from auth.io.session_cache import Entry, Lease
from auth.io.sharded_reader import (
    ShardedCache,
    ShardedEndings,
    ShardedReader,
    ShardedSessionFlight,
    are_live,
)
from auth.io.shards import Shard, Shards
from auth.revocation import ALL_SESSIONS, NO_EPOCH, Epoch, epoch_name
from auth.session import SessionRecord
from auth.slots import NO_CLAIMS, SLOTS, Primary, all_sessions_beside, parse_claims, slot_of_tag
from config.model import SessionSettings
from tests.auth.io.store_by_hand import StoreByHand

SETTINGS = SessionSettings(cookie_name="doorward", secure=False, lease=0.3)
CLOCK, WALL = 50.0, 1000.0
ALL_SLOTS = parse_claims(b"id1 myself,master 1 0-16383")
NAME = "d" * 64
OF_ALL = all_sessions_beside(NAME)
OF_SUBJECT = epoch_name("", "u1")


def record(**fields: object) -> bytes:
    value = {"v": 1, "subject": "u1", "created_at": 499.9, "expires_at": WALL + 300} | fields
    return json.dumps(value).encode()


def granted(until: float = CLOCK + 1) -> Lease:
    lease = Lease(ALL_SLOTS)
    lease.until = until
    lease.fresh_as_of = until - 1
    return lease


class _Up:
    """A link that is up, without a task of its own."""

    def __init__(self, store: StoreByHand) -> None:
        self.connection = store.connection
        self.problem = ""


class Bench:
    """Two shards, each with half of the slots, and a reader whose clocks stand still."""

    def __init__(self) -> None:
        self.reader = ShardedReader(SETTINGS, name="w1")
        self.reader.clock = lambda: CLOCK
        self.reader.wall = lambda: WALL
        self.stores = [StoreByHand(), StoreByHand()]
        self.shards = [self._shard(number) for number in range(2)]
        address = parse_store_url("redis+cluster://127.0.0.1:1")
        self.reader.shards = Shards(address, lambda _: self.shards[0], lambda: None)
        self.reader.shards._owners = [self.shards[slot * 2 // SLOTS] for slot in range(SLOTS)]
        self.reader.shards._nodes = {"id0": self.shards[0], "id1": self.shards[1]}

    def _shard(self, number: int) -> Shard:
        primary = Primary(f"id{number}", "127.0.0.1", number + 1)
        shard = Shard(primary, parse_store_url("redis://127.0.0.1"), is_late=False)
        half = SLOTS // 2
        slots = f"{number * half}-{(number + 1) * half - 1}"
        shard.lease = Lease(parse_claims(f"id{number} myself,master 1 {slots}".encode()))
        shard.lease.until = CLOCK + 1
        link: Any = _Up(self.stores[number])
        shard.tracked = shard.control = link
        return shard

    def of(self, tag: str) -> StoreByHand:
        return self.stores[slot_of_tag(tag) * 2 // SLOTS]

    async def answer(self, **values: object) -> None:
        """Answer everything that was asked: by the last part of its key's kind."""
        for store in self.stores:
            for command in await store.commands():
                kind = command[1].decode().split(":")[1]
                reply = values.get("ttl" if command[0] == b"PTTL" else kind)
                store.answer([reply] if command[0] == b"MGET" else reply)


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


def test_every_lease_must_be_live() -> None:
    assert are_live((), 5.0)
    assert are_live((granted(6.0), granted(7.0)), 5.0)
    assert not are_live((granted(6.0), granted(5.0)), 5.0)


def test_a_void_lease_serves_no_outage_either() -> None:
    reader = ShardedReader(SETTINGS, name="w1")
    reader.clock = lambda: CLOCK
    lease = granted(CLOCK)
    assert reader._may_serve((lease,), 60.0)
    assert not reader._may_serve((lease,), 0.5)
    lease.revoke()
    assert not reader._may_serve((lease,), 60.0)


def test_the_end_of_all_that_one_copy_tells_of_holds_for_all() -> None:
    endings = ShardedEndings()
    copy, other = all_sessions_beside("a"), all_sessions_beside("b")
    endings.add_epoch(copy, Epoch(7))
    assert endings.epoch_of(other, NO_EPOCH) == Epoch(7)
    assert endings.epoch_of(epoch_name("", "u1"), NO_EPOCH) == NO_EPOCH
    assert endings.replay(0.0)[1] == {ALL_SESSIONS: Epoch(7)}


class TestTheCache:
    def test_an_epoch_and_a_bucket_are_known_under_their_own_lease(self) -> None:
        cache, lease = ShardedCache(), granted(10.0)
        cache.epochs["e"], cache.epoch_leases["e"] = NO_EPOCH, lease
        cache.clean.add("abc")
        cache.clean_leases["abc"] = lease
        assert cache.epoch("e", 9.9) == NO_EPOCH
        assert cache.is_clean("abc", 9.9)
        assert cache.epoch("e", 10.0) is None
        assert not cache.is_clean("abc", 10.0)
        assert not cache.is_clean("abd", 9.9)
        cache.drop_bucket("abc")
        assert not cache.is_clean("abc", 9.9)

    def test_nothing_is_left_of_an_epoch_that_no_verdict_needs(self) -> None:
        cache, lease = ShardedCache(), granted()
        cache.epochs["e"], cache.epoch_leases["e"] = NO_EPOCH, lease
        cache.keep(cache.sessions, "n", Entry(Reason.SESSION_ENDED, epochs=("e",)))
        cache.drop("n")
        cache.epochs["f"], cache.epoch_leases["f"] = NO_EPOCH, lease
        cache.release("f")
        assert not cache.epochs
        assert not cache.epoch_leases

    def test_the_end_of_all_drops_what_rests_on_any_copy_of_it(self) -> None:
        cache = ShardedCache()
        copies = [all_sessions_beside(name) for name in ("a", "b")]
        for copy in copies:
            cache.epochs[copy], cache.epoch_leases[copy] = NO_EPOCH, granted()
            value = SessionRecord(1, "u1", 0, 1)
            cache.keep(cache.sessions, f"of {copy}", Entry(value, epochs=(copy,)))
        assert sorted(cache.drop_epoch(ALL_SESSIONS)) == sorted(f"of {copy}" for copy in copies)
        assert not cache.sessions

    def test_a_void_lease_takes_its_buckets_with_it(self) -> None:
        cache, lease = ShardedCache(), granted()
        for bucket in ("abc", "abd"):
            cache.clean.add(bucket)
        cache.clean_leases["abc"], cache.clean_leases["abd"] = lease, granted()
        lease.revoke()
        cache.forget_void()
        assert cache.clean == {"abd"}
        cache.clear()
        assert cache.clean == set()
