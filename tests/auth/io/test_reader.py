"""The reader on a link whose far end the test plays, with clocks that it sets."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import hiredis
import msgspec
import pytest

from auth.decision import Reason
from auth.io.barrier import Ending
from auth.io.connection import Connection
from auth.io.link import Link
from auth.io.reader import Lag, Reader
from auth.io.session_cache import Entry
from auth.ports import AuthUnavailable
from auth.revocation import (
    ALL_SESSIONS,
    NO_EPOCH,
    WORKERS_KEY,
    ended_key,
    epoch_key,
    epoch_name,
    token_ref,
)
from auth.session import parse_record, session_key
from config.model import SessionSettings
from tests.auth.io.store_by_hand import StoreByHand

NAME, OTHER = "d" * 64, "e" * 64
OF_SUBJECT = epoch_name("", "u1")
START, WALL = 50.0, 1000.0
LEASE, IDLE = 0.5, 100.0
VALUE = json.dumps(
    {"v": 1, "subject": "u1", "created_at": 500.25, "expires_at": WALL + 300}
).encode()
RECORD = parse_record(VALUE)
TOKEN = token_ref(
    issuer="https://idp", subject="u1", jti="j1", issued_at=900.0, expires_at=WALL + 60
)


class Bench:
    """A reader on a link that beats when the test says so."""

    def __init__(self) -> None:
        self.now, self.wall = START, WALL
        settings = SessionSettings(
            cookie_name="doorward", secure=False, lease=LEASE, idle_timeout=IDLE
        )
        self.reader = Reader(settings, name="w1")
        self.reader.clock = lambda: self.now
        self.reader.wall = lambda: self.wall
        self.cache = self.reader.cache
        self.heard: list[frozenset[str] | None] = []
        self.reader.on_ended(self.heard.append)
        self.store: StoreByHand
        self.reachable = True
        self.reader.link = Link(
            self._connect, beat=3600, on_up=self._meet, on_down=self.reader.lose
        )

    async def _connect(self) -> Connection:
        if not self.reachable:
            raise ConnectionRefusedError("nobody is listening")
        self.store = StoreByHand()
        return self.store.connection

    async def _meet(self, connection: Connection) -> None:
        await self.reader.meet(connection, replaced=False)

    @property
    def connection(self) -> Connection:
        return self.store.connection

    async def beat(self, reply: object = 1) -> list[bytes]:
        """Beat once, answer it with *reply*, and return what was sent for the lease."""
        self.reader.tick(self.connection)
        asked = await self.store.commands()
        for command in asked:
            self.store.answer(reply if command[0] == b"EVAL" else b"PONG")
        return next(command for command in asked if command[0] == b"EVAL")

    def know(self, name: str = NAME, **limits: float) -> None:
        """Have a live session cached that depends on both epochs."""
        epochs = (ALL_SESSIONS, OF_SUBJECT)
        self.cache.keep(self.cache.sessions, name, Entry(RECORD, epochs=epochs, **limits))

    def end(self, names: dict[str, float], epochs: dict[str, str] | None = None) -> None:
        """Broadcast an ending."""
        ending = Ending("w2:7", "doorward:acknowledged:w2", WALL, names, epochs or {})
        self.store.push(b"message", b"doorward:ended", msgspec.json.encode(ending))

    async def asked(self) -> list[list[bytes]]:
        async with asyncio.timeout(5):
            while not (asked := await self.store.commands()):
                await asyncio.sleep(0)
            return asked

    async def answer_session(self, value: bytes | None = VALUE, ttl: int = 60_000) -> None:
        """Answer whatever a look-up asks, in as many rounds as it takes."""
        for command in await self.asked():
            match command[0]:
                case b"MGET":
                    self.store.answer([value, None])
                case b"PTTL":
                    self.store.answer(ttl if value is not None else -2)
                case _:
                    self.store.answer(None)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await made.reader.link.ready()
    await made.beat()
    yield made
    await made.reader.link.close()


class TestPeek:
    def test_a_cached_session_is_used_under_a_live_lease(self, bench: Bench) -> None:
        bench.know()
        bench.now = START + LEASE - 0.001
        assert bench.reader.peek(NAME) is RECORD
        assert bench.reader.status()["hits"] == 1

    def test_a_lease_that_is_over_admits_nobody(self, bench: Bench) -> None:
        bench.know()
        bench.now = START + LEASE
        assert bench.reader.peek(NAME) is None

    def test_a_session_is_not_used_beyond_its_deadline(self, bench: Bench) -> None:
        bench.know(deadline=START + 0.1)
        bench.now = START + 0.1
        assert bench.reader.peek(NAME) is None

    def test_a_session_is_not_used_beyond_what_its_record_says(self, bench: Bench) -> None:
        bench.know()
        bench.wall = RECORD.expires_at
        assert bench.reader.peek(NAME) is None

    def test_use_is_reported_once_in_a_tenth_of_the_idle_time(self, bench: Bench) -> None:
        bench.know(touch_at=START)
        bench.reader.peek(NAME)
        assert bench.reader.touches == {NAME}
        bench.reader.touches.clear()
        bench.cache.lease_until = float("inf")
        bench.now = START + IDLE / 10 - 0.1
        bench.reader.peek(NAME)
        assert bench.reader.touches == set()
        bench.now = START + IDLE / 10
        bench.reader.peek(NAME)
        assert bench.reader.touches == {NAME}

    def test_what_is_not_known_is_no_verdict(self, bench: Bench) -> None:
        assert bench.reader.peek(NAME) is None
        assert bench.reader.peek_revoked(TOKEN) is not True


class TestTheLease:
    async def test_a_beat_writes_the_worker_and_its_lease_to_the_registry(
        self, bench: Bench
    ) -> None:
        beats = [(await bench.beat())[3:] for _ in range(2)]
        assert beats == [
            [WORKERS_KEY.encode(), b"w1", b"2 500"],
            [WORKERS_KEY.encode(), b"w1", b"3 500"],
        ]

    async def test_a_lease_runs_from_when_its_beat_was_sent(self, bench: Bench) -> None:
        bench.now = START + 1
        bench.reader.tick(bench.connection)
        asked = await bench.store.commands()
        bench.now = START + 1.4  # the reply takes its time
        for command in asked:
            bench.store.answer(1 if command[0] == b"EVAL" else b"PONG")
        assert bench.cache.lease_until == START + 1 + LEASE
        assert bench.reader.status()["lease_age"] == pytest.approx(0.4)

    async def test_a_refused_beat_grants_nothing(self, bench: Bench) -> None:
        bench.now = START + 1
        await bench.beat(hiredis.ReplyError("NOPERM"))
        assert bench.cache.lease_until == START + LEASE
        assert bench.reader.counters["leases_refused"] == 1
        assert not bench.connection.lost

    @pytest.mark.parametrize("word", ["READONLY", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN"])
    async def test_a_server_that_is_no_primary_any_more_is_left(
        self, bench: Bench, word: str
    ) -> None:
        await bench.beat(hiredis.ReplyError(f"{word} of another mind"))
        assert bench.connection.lost

    async def test_where_nothing_is_tracked_no_lease_is_asked_for(self, bench: Bench) -> None:
        bench.connection.tracking = False
        bench.reader.tick(bench.connection)
        assert not [command for command in await bench.store.commands() if command[0] == b"EVAL"]

    async def test_a_lost_connection_ends_the_lease_and_a_new_one_begins_empty(
        self, bench: Bench
    ) -> None:
        bench.know()
        bench.connection.close()
        assert bench.reader.peek(NAME) is None
        assert bench.cache.lease_until == 0.0
        await bench.reader.link.ready()
        assert not bench.cache.sessions
        assert bench.reader.counters["connection_losses"] == 1

    async def test_a_server_that_is_another_one_is_counted(self, bench: Bench) -> None:
        bench.know()
        await bench.reader.meet(bench.connection, replaced=True)
        assert not bench.cache.sessions
        assert bench.cache.lease_until == 0.0
        assert bench.reader.status()["store_replaced"] == 1


class TestFind:
    async def test_what_is_not_cached_is_read_once_and_then_known(self, bench: Bench) -> None:
        finding = asyncio.create_task(bench.reader.find(NAME))
        await bench.answer_session()
        await bench.answer_session()  # the epoch of its subject
        assert await finding == RECORD
        assert bench.reader.peek(NAME) == RECORD

    async def test_what_is_known_to_be_none_is_not_read_again_under_the_lease(
        self, bench: Bench
    ) -> None:
        finding = asyncio.create_task(bench.reader.find(NAME))
        await bench.answer_session(None)
        assert await finding == Reason.SESSION_UNKNOWN
        assert await bench.reader.find(NAME) == Reason.SESSION_UNKNOWN
        assert await bench.store.commands() == []
        assert bench.reader.counters["negative_hits"] == 1
        bench.now = START + LEASE
        again = asyncio.create_task(bench.reader.find(NAME))
        await bench.answer_session(None)
        assert await again == Reason.SESSION_UNKNOWN
        assert bench.reader.counters["misses"] == 2

    async def test_what_is_remembered_to_have_ended_is_not_asked_for(self, bench: Bench) -> None:
        bench.know()
        bench.reader.endings.add(NAME, START + 60)
        assert await bench.reader.find(NAME) == Reason.SESSION_ENDED
        assert await bench.store.commands() == []

    async def test_an_ending_heard_after_the_verdict_was_reached_still_counts(
        self, bench: Bench
    ) -> None:
        """The broadcast comes in the same piece as the reply; the caller runs after both."""
        bench.cache.epochs.update(dict.fromkeys((ALL_SESSIONS, OF_SUBJECT), NO_EPOCH))
        finding = asyncio.create_task(bench.reader.find(NAME))
        await bench.answer_session()
        bench.end({NAME: 60.0})
        assert await finding == Reason.SESSION_ENDED

    async def test_callers_at_once_share_a_read_under_a_live_lease_and_only_then(
        self, bench: Bench
    ) -> None:
        finding = [asyncio.create_task(bench.reader.find(NAME)) for _ in range(3)]
        await bench.asked()
        assert bench.reader.counters["joined"] == 2
        bench.now = START + LEASE
        finding.append(asyncio.create_task(bench.reader.find(NAME)))
        assert len(await bench.asked()) >= 3  # asked again: the first may be older than they are
        assert bench.reader.counters["joined"] == 2
        for task in finding:
            task.cancel()

    @pytest.mark.parametrize("epoch", [ALL_SESSIONS, OF_SUBJECT])
    async def test_nobody_joins_a_read_whose_epoch_was_written_meanwhile(
        self, bench: Bench, epoch: str
    ) -> None:
        """The read took it from the cache, and still has its ticket."""
        bench.know(OTHER)
        bench.cache.epochs.update(dict.fromkeys((ALL_SESSIONS, OF_SUBJECT), NO_EPOCH))
        bench.reader.last_records.parse(NAME, VALUE)
        first = asyncio.create_task(bench.reader.find(NAME))
        assert len(await bench.asked()) == 2  # no epoch was asked for
        bench.store.push(b"invalidate", [epoch_key(epoch).encode()])
        second = asyncio.create_task(bench.reader.find(NAME))
        again = await bench.asked()
        assert bench.reader.counters["joined"] == 0
        bench.store.answer([VALUE, None], 60_000)
        assert await first == RECORD  # it came before
        written = [b"GET", epoch_key(epoch).encode()]
        values = [b"999000" if command == written else None for command in again[2:]]
        bench.store.answer([VALUE, None], 60_000, *values)
        assert await second == Reason.SESSION_ENDED

    async def test_a_read_whose_connection_broke_is_made_again_on_the_next(
        self, bench: Bench
    ) -> None:
        finding = asyncio.create_task(bench.reader.find(NAME))
        await bench.asked()
        bench.connection.close()
        await bench.reader.link.ready()
        await bench.answer_session(None)
        assert await finding == Reason.SESSION_UNKNOWN

    async def test_an_outage_is_no_verdict(self, bench: Bench) -> None:
        bench.reachable = False
        bench.connection.close()
        with pytest.raises(AuthUnavailable):
            await asyncio.wait_for(bench.reader.find(NAME), 5)


class TestAnOutage:
    @pytest.fixture
    def out(self, bench: Bench) -> Bench:
        bench.know()
        bench.cache.keep(bench.cache.tokens, TOKEN.name, Entry(verdict=False))
        bench.reachable = False
        bench.connection.close()
        bench.now = START + 0.01
        return bench

    async def test_what_was_known_good_is_served_as_long_as_was_asked(self, out: Bench) -> None:
        out.now = START + 60
        assert await out.reader.find(NAME, serve_cached=60) == RECORD
        assert await out.reader.is_revoked(TOKEN, serve_cached=60) is False
        assert out.reader.counters["served_cached"] >= 1
        out.now = START + 60.1
        with pytest.raises(AuthUnavailable):
            await out.reader.find(NAME, serve_cached=60)
        with pytest.raises(AuthUnavailable):
            await out.reader.is_revoked(TOKEN, serve_cached=60)

    async def test_nothing_is_served_that_nobody_asked_to_be_served(self, out: Bench) -> None:
        with pytest.raises(AuthUnavailable):
            await out.reader.find(NAME)

    async def test_nothing_is_served_that_was_not_known(self, out: Bench) -> None:
        with pytest.raises(AuthUnavailable):
            await out.reader.find(OTHER, serve_cached=60)

    async def test_nothing_is_served_that_has_expired_meanwhile(self, out: Bench) -> None:
        out.wall = RECORD.expires_at
        with pytest.raises(AuthUnavailable):
            await out.reader.find(NAME, serve_cached=60)

    async def test_nothing_is_served_that_has_ended(self, out: Bench) -> None:
        out.reader.endings.add(NAME, START + 600)
        out.reader.endings.add(TOKEN.name, START + 600)
        assert await out.reader.find(NAME, serve_cached=60) == Reason.SESSION_ENDED
        assert await out.reader.is_revoked(TOKEN, serve_cached=60) is True


class TestPushes:
    @pytest.mark.parametrize("key", [session_key(NAME), ended_key(NAME)])
    def test_a_key_that_changed_drops_its_session_and_no_other(
        self, bench: Bench, key: str
    ) -> None:
        bench.know()
        bench.know(OTHER)
        bench.store.push(b"invalidate", [key.encode()])
        assert bench.reader.peek(NAME) is None
        assert bench.reader.peek(OTHER) is RECORD

    @pytest.mark.parametrize("epoch", [ALL_SESSIONS, OF_SUBJECT])
    def test_an_epoch_that_changed_drops_all_that_depends_on_it(
        self, bench: Bench, epoch: str
    ) -> None:
        bench.know()
        bench.store.push(b"invalidate", [epoch_key(epoch).encode()])
        assert bench.reader.peek(NAME) is None

    def test_a_store_that_was_emptied_drops_everything(self, bench: Bench) -> None:
        bench.know()
        flushes = bench.reader.counters["flushes"]
        bench.store.push(b"invalidate", None)
        assert bench.reader.peek(NAME) is None
        assert bench.reader.counters["flushes"] == flushes + 1

    async def test_an_ending_is_in_force_before_it_is_acknowledged(self, bench: Bench) -> None:
        bench.know()
        seen: list[object] = []
        send = bench.connection.send

        def note(command: Any, *rest: Any) -> None:
            seen.append((bench.reader.peek(NAME), NAME in bench.reader.endings))
            send(command, *rest)

        bench.connection.send = note  # type: ignore[assignment]
        bench.end({NAME: 60.0})
        assert seen == [(None, True)]
        told = [b"PUBLISH", b"doorward:acknowledged:w2", b"w2:7 w1"]
        assert await bench.store.commands() == [told]
        assert bench.heard == [frozenset({NAME})]

    async def test_nothing_is_held_of_a_session_that_is_heard_to_have_ended(
        self, bench: Bench
    ) -> None:
        bench.reader.last_records.parse(NAME, VALUE)
        bench.reader.last_records.parse(OTHER, VALUE)
        bench.end({NAME: 60.0})
        assert bench.reader.last_records.subject(NAME) is None
        assert bench.reader.last_records.subject(OTHER) == "u1"

    async def test_the_end_of_everything_is_told_as_that(self, bench: Bench) -> None:
        bench.know()
        bench.end({}, {ALL_SESSIONS: "999000"})
        assert bench.reader.peek(NAME) is None
        assert bench.heard == [None]

    async def test_an_epoch_of_one_subject_leaves_the_session_it_keeps(self, bench: Bench) -> None:
        bench.know()
        bench.end({}, {OF_SUBJECT: f"999000 {NAME}"})
        finding = asyncio.create_task(bench.reader.find(NAME))
        await bench.answer_session()
        if await bench.store.commands():
            bench.store.answer(None)
        assert await asyncio.wait_for(finding, 5) == RECORD

    @pytest.mark.parametrize("message", [b"", b"garbage", b'{"barrier":1}'])
    async def test_a_message_of_strangers_is_not_acknowledged(
        self, bench: Bench, message: bytes
    ) -> None:
        bench.store.push(b"message", b"doorward:ended", message)
        assert await bench.store.commands() == []
        assert not bench.connection.lost

    def test_a_hook_that_fails_harms_neither_the_others_nor_the_connection(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_: object) -> None:
            raise ValueError("a mistake")

        later: list[object] = []
        bench.reader.on_ended(fail)
        bench.reader.on_ended(later.append)
        bench.end({NAME: 60.0})
        assert bench.heard == later == [frozenset({NAME})]
        assert not bench.connection.lost
        assert "a hook failed" in caplog.text


class TestLiveExchanges:
    async def test_a_session_whose_record_was_deleted_is_told_to_be_over(
        self, bench: Bench
    ) -> None:
        bench.know()
        bench.store.push(b"invalidate", [session_key(NAME).encode()])
        assert bench.heard == []  # it may have been written anew
        bench.reader.tick(bench.connection)
        await self.answer_all(bench, None)
        assert bench.heard == [frozenset({NAME})]

    async def test_a_session_whose_record_was_written_anew_goes_on(self, bench: Bench) -> None:
        bench.know()
        bench.store.push(b"invalidate", [session_key(NAME).encode()])
        bench.reader.tick(bench.connection)
        await self.answer_all(bench, VALUE)
        assert bench.heard == []
        assert bench.reader.peek(NAME) == RECORD

    async def test_what_exchanges_hang_on_is_looked_at_every_second(self, bench: Bench) -> None:
        bench.reader.follow(lambda: [OTHER])  # never read by this worker
        bench.now = START + 1.1
        bench.reader.tick(bench.connection)
        await self.answer_all(bench, None)
        assert bench.heard == [frozenset({OTHER})]

    @staticmethod
    async def answer_all(bench: Bench, value: bytes | None) -> None:
        """Answer beats and look-ups until nothing is asked any more."""
        async with asyncio.timeout(5):
            while bench.reader._settling:
                for command in await bench.store.commands():
                    match command[0]:
                        case b"MGET":
                            bench.store.answer([value, None])
                        case b"PTTL":
                            bench.store.answer(-2 if value is None else 60_000)
                        case b"EVAL":
                            bench.store.answer(1)
                        case b"PING":
                            bench.store.answer(b"PONG")
                        case _:
                            bench.store.answer(None)


def test_the_lag_is_counted_up_to_each_bound_and_beyond_the_last() -> None:
    lag = Lag()
    for seconds in (0.001, 0.0011, 5.0):
        lag.add(seconds)
    assert (lag.counts[0], lag.counts[1], lag.counts[-1]) == (1, 1, 1)
    assert lag.sum == pytest.approx(5.0021)


def test_a_sender_whose_clock_is_ahead_takes_nothing_off_the_lag() -> None:
    lag = Lag()
    lag.add(-3.0)
    assert (lag.counts[0], lag.sum) == (1, 0.0)
