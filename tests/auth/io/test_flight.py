"""Flights against a store played by hand: what is read, what it means, and what may be kept."""

import json
from asyncio import Future
from collections.abc import Callable
from typing import Any

import pytest
from hiredis import ReplyError

from auth.decision import Reason
from auth.io.connection import StoreLost
from auth.io.flight import SessionFlight, TokenFlight
from auth.io.reader import Reader
from auth.io.session_cache import Verdict
from auth.ports import AuthUnavailable
from auth.revocation import (
    ALL_SESSIONS,
    NO_EPOCH,
    Epoch,
    bucket_key,
    bucket_of,
    buckets_near,
    ended_key,
    epoch_key,
    epoch_name,
    revoked_key,
    token_ref,
)
from auth.session import SessionRecord, session_key
from config.model import SessionSettings
from tests.auth.io.store_by_hand import StoreByHand

NAME = "d" * 64
OF_SUBJECT = epoch_name("", "u1")
CLOCK, WALL = 50.0, 1000.0
SETTINGS = SessionSettings(
    cookie_name="doorward",
    secure=False,
    lease=0.3,
    idle_timeout=100.0,
    absolute_timeout=5000.0,
)
TOKEN = token_ref(
    issuer="https://idp", subject="u1", jti="j1", issued_at=900.0, expires_at=WALL + 60
)


BUCKETS = (bucket_of(TOKEN.name), bucket_of(TOKEN.epoch))


def record(**fields: Any) -> bytes:
    value = {"v": 1, "subject": "u1", "created_at": 499.9, "expires_at": WALL + 300} | fields
    return json.dumps(value).encode()


def told(verdict: Future[Verdict]) -> Verdict:
    """Return what the flight said: it concludes inside the last reply, or not at all."""
    assert verdict.done()
    return verdict.result()


class Bench:
    """A reader under a live lease, whose clocks stand still, and the store it asks."""

    def __init__(self) -> None:
        self.store = StoreByHand()
        self.reader = Reader(SETTINGS, name="w1")
        self.reader.clock = lambda: CLOCK
        self.reader.wall = lambda: WALL
        self.cache = self.reader.cache
        self.cache.lease_until = CLOCK + 1
        self.store.connection.on_push = self._drop
        for bucket in BUCKETS:  # the neighbours were asked for before
            self.cache.survey(bucket)

    def _drop(self, push: list[object]) -> None:
        self.reader._invalidate(push[1])

    def session(self) -> SessionFlight:
        return SessionFlight(self.reader, NAME, lambda _: self.store.connection)

    def token(self) -> TokenFlight:
        return TokenFlight(self.reader, TOKEN, lambda _: self.store.connection)

    async def verdict(self, *rounds: tuple[object, ...]) -> Verdict:
        """Fly once for the session; each round answers what was asked up to then."""
        flight = self.session()
        verdict = flight.wait()
        flight.start()
        for replies in rounds:
            assert len(await self.store.commands()) == len(replies)
            self.store.answer(*replies)
        return told(verdict)

    def kept(self) -> dict[str, object]:
        """Return the verdicts that were kept, by the queue they are in."""
        queues = ("sessions", "absences", "tokens")
        entries = {queue: getattr(self.cache, queue).values() for queue in queues}
        return {queue: entry.verdict for queue, (*each,) in entries.items() for entry in each}


@pytest.fixture
async def bench() -> Bench:
    return Bench()


LIVE: tuple[tuple[object, ...], ...] = (([record(), None], 60_000, None), (None,))


async def test_all_that_can_be_asked_at_once_is_and_the_subjects_epoch_after_it(
    bench: Bench,
) -> None:
    flight = bench.session()
    verdict = flight.wait()
    flight.start()
    key, tombstone = session_key(NAME).encode(), ended_key(NAME).encode()
    first = [[b"MGET", key, tombstone], [b"PTTL", key], [b"GET", epoch_key(ALL_SESSIONS).encode()]]
    assert await bench.store.commands() == first
    bench.store.answer(*LIVE[0])
    assert not verdict.done()
    assert await bench.store.commands() == [[b"GET", epoch_key(OF_SUBJECT).encode()]]
    bench.store.answer(*LIVE[1])
    found = told(verdict)
    assert isinstance(found, SessionRecord)
    assert bench.kept() == {"sessions": found}
    assert bench.cache.flights == {}


async def test_a_session_that_expires_between_the_two_reads_is_over(bench: Bench) -> None:
    """Whoever joined meanwhile began after its end."""
    flight = bench.session()
    verdict = flight.wait()
    flight.start()
    await bench.store.commands()
    bench.store.answer(*LIVE[0])
    await bench.store.commands()
    bench.reader.wall = lambda: WALL + 300
    bench.store.answer(*LIVE[1])
    assert told(verdict) == Reason.SESSION_EXPIRED
    assert bench.kept() == {}


async def test_epochs_that_are_known_under_the_lease_are_not_read_again(bench: Bench) -> None:
    bench.cache.epochs.update({ALL_SESSIONS: NO_EPOCH, OF_SUBJECT: NO_EPOCH})
    found = await bench.verdict(([record(), None], 60_000))
    assert isinstance(found, SessionRecord)


async def test_epochs_of_a_lease_that_is_over_are_read_again(bench: Bench) -> None:
    bench.cache.epochs.update({ALL_SESSIONS: NO_EPOCH, OF_SUBJECT: NO_EPOCH})
    bench.cache.lease_until = CLOCK
    assert isinstance(await bench.verdict(*LIVE), SessionRecord)


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        (([record(), b"logout"], 60_000, None), Reason.SESSION_ENDED),
        (([None, None], -2, None), Reason.SESSION_UNKNOWN),
        (([None, None], 60_000, None), Reason.SESSION_MALFORMED),
        (([b"{}", None], 60_000, None), Reason.SESSION_MALFORMED),
        (([b'{"claims":' + b'{"a":' * 100_000, None], 60_000, None), Reason.SESSION_MALFORMED),
        (
            ([record(subject="u1").replace(b"u1", b"\xff"), None], 60_000, None),
            Reason.SESSION_MALFORMED,
        ),
    ],
    ids=["tombstone", "no key", "no string", "no record", "endless nesting", "no UTF-8"],
)
async def test_why_there_is_no_session_is_said_and_kept(
    bench: Bench, replies: tuple[object, ...], reason: Reason
) -> None:
    assert await bench.verdict(replies) == reason
    assert bench.kept() == {"absences": reason}
    assert bench.reader.counters["malformed"] == (reason == Reason.SESSION_MALFORMED)
    assert not bench.store.aborted  # one bad record is nothing to the others on the connection


async def test_a_session_that_has_expired_is_never_kept(bench: Bench) -> None:
    """The wall clock that judged it may yet be corrected."""
    verdict = await bench.verdict(([record(expires_at=WALL), None], 60_000, None))
    assert verdict == Reason.SESSION_EXPIRED
    assert bench.kept() == {}


@pytest.mark.parametrize(
    "rounds",
    [
        (([record(), b"logout"], 60_000, None, None),),
        (([None, None], -2, None, None),),
        (([record(expires_at=WALL), None], 60_000, None, None),),
        (([record(), None], 60_000, None, b"500000"),),
    ],
    ids=["tombstone", "no key", "expired", "epoch"],
)
async def test_no_record_is_kept_of_a_session_that_was_found_to_be_over(
    bench: Bench, rounds: tuple[tuple[object, ...], ...]
) -> None:
    bench.reader.last_records.parse(NAME, record())
    assert isinstance(await bench.verdict(*rounds), Reason)
    assert bench.reader.last_records.subject(NAME) is None


async def test_a_tombstone_is_remembered_for_as_long_as_any_session_may_live(bench: Bench) -> None:
    await bench.verdict(([record(), b"logout"], 60_000, None))
    bench.reader.endings.expire(CLOCK + SETTINGS.absolute_timeout - 1)
    assert NAME in bench.reader.endings


@pytest.mark.parametrize(
    ("of_all", "of_subject", "ended"),
    [
        (b"499899", b"499899", False),
        (b"500000", None, True),
        (None, b"500000", True),
        (b"500000 " + NAME.encode(), None, False),
        (None, b"500000 " + b"e" * 64, True),
        (None, b"garbage", True),
    ],
    ids=["older", "of all", "of its subject", "keeps it", "keeps another", "unreadable"],
)
async def test_an_epoch_ends_what_was_created_before_it(
    bench: Bench, of_all: bytes | None, of_subject: bytes | None, *, ended: bool
) -> None:
    verdict = await bench.verdict(([record(), None], 60_000, of_all), (of_subject,))
    assert (verdict == Reason.SESSION_ENDED) == ended
    assert list(bench.kept()) == ["absences" if ended else "sessions"]
    assert set(bench.cache.epochs) == {ALL_SESSIONS, OF_SUBJECT}  # the verdict depends on both


async def test_a_store_that_forgot_an_epoch_brings_nothing_back(bench: Bench) -> None:
    bench.reader.endings.add_epoch(OF_SUBJECT, Epoch(500_000))
    assert await bench.verdict(*LIVE) == Reason.SESSION_ENDED


async def test_an_epoch_heard_after_it_was_cached_counts(bench: Bench) -> None:
    bench.cache.epochs.update({ALL_SESSIONS: NO_EPOCH, OF_SUBJECT: NO_EPOCH})
    bench.reader.endings.add_epoch(ALL_SESSIONS, Epoch(500_000))
    assert await bench.verdict(([record(), None], 60_000)) == Reason.SESSION_ENDED


async def test_an_ending_heard_while_the_answer_was_on_its_way_counts(bench: Bench) -> None:
    flight = bench.session()
    verdict = flight.wait()
    flight.start()
    bench.reader.endings.add(NAME, CLOCK + 60)
    bench.store.answer(*LIVE[0])
    assert told(verdict) == Reason.SESSION_ENDED


@pytest.mark.parametrize("key", [session_key(NAME), ended_key(NAME), epoch_key(ALL_SESSIONS)])
@pytest.mark.parametrize("after", ["the first round", "the second round is asked"])
async def test_what_changed_under_way_is_told_to_who_asked_and_not_kept(
    bench: Bench, key: str, after: str
) -> None:
    flight = bench.session()
    verdict = flight.wait()
    flight.start()
    bench.store.answer(*LIVE[0])
    if after == "the second round is asked":
        await bench.store.commands()
    bench.store.push(b"invalidate", [key.encode()])
    bench.store.answer(*LIVE[1])
    assert isinstance(told(verdict), SessionRecord)
    assert bench.kept() == {}


async def test_a_flight_that_lost_its_ticket_leaves_that_of_the_next_alone(bench: Bench) -> None:
    first, second = bench.session(), bench.session()
    early = first.wait()
    first.start()
    bench.store.push(b"invalidate", [session_key(NAME).encode()])
    late = second.wait()
    second.start()
    bench.store.answer(*LIVE[0])
    bench.store.answer([None, None], -2, None)  # the second one's: the record was deleted
    bench.store.answer(*LIVE[1])
    assert isinstance(told(early), SessionRecord)
    assert told(late) == Reason.SESSION_UNKNOWN
    assert bench.kept() == {"absences": Reason.SESSION_UNKNOWN}


async def test_a_flight_that_failed_leaves_the_ticket_of_the_next_alone(bench: Bench) -> None:
    first, second = bench.session(), bench.session()
    first.start()
    second.start()
    bench.store.answer(Exception("LOADING"))
    assert bench.cache.flights == {NAME: second}


async def test_an_error_of_the_store_is_an_outage_and_no_verdict(bench: Bench) -> None:
    flight = bench.session()
    verdict = flight.wait()
    flight.start()
    bench.store.answer([record(), None], 60_000, Exception("LOADING the dataset"))
    with pytest.raises(AuthUnavailable, match="LOADING"):
        told(verdict)
    assert (bench.kept(), bench.cache.flights) == ({}, {})


async def test_a_late_reply_to_a_flight_that_failed_changes_nothing(bench: Bench) -> None:
    flight = bench.session()
    verdict = flight.wait()
    flight.start()
    bench.store.answer(Exception("LOADING"), -2, None)
    with pytest.raises(AuthUnavailable):
        told(verdict)
    assert bench.kept() == {}


@pytest.mark.parametrize("when", ["before it", "in the first round", "in the second round"])
async def test_a_lost_connection_ends_the_flight_without_a_verdict(bench: Bench, when: str) -> None:
    flight = bench.session()
    verdict = flight.wait()
    if when == "before it":
        bench.store.connection.close()
    flight.start()
    if when == "in the second round":
        bench.store.answer(*LIVE[0])
    bench.store.connection.close()
    with pytest.raises(StoreLost):
        told(verdict)
    assert (bench.kept(), bench.cache.flights) == ({}, {})


async def test_a_cancelled_caller_takes_nobody_along(bench: Bench) -> None:
    flight = bench.session()
    first, second = flight.wait(), flight.wait()
    flight.start()
    first.cancel()
    bench.store.answer(*LIVE[0])
    bench.store.answer(*LIVE[1])
    assert isinstance(told(second), SessionRecord)


@pytest.mark.parametrize(
    ("ttl", "left", "deadline"),
    [(60_000, 300, 60), (600_000, 300, 300), (-1, 300, 300)],
    ids=["as long as the key", "as long as the record", "a key without end"],
)
async def test_a_verdict_is_good_up_to_the_first_of_its_limits(
    bench: Bench, ttl: int, left: float, deadline: float
) -> None:
    await bench.verdict(([record(expires_at=WALL + left), None], ttl, None), (None,))
    assert bench.cache.sessions[NAME].deadline == CLOCK + deadline


@pytest.mark.parametrize(
    ("ttl", "left", "touch_at"),
    [
        (60_000, 300, 0.0),
        (99_000, 300, 9.0),
        (100_000, 300, 10.0),
        (150_000, 300, 60.0),
        (-1, 300, float("inf")),
        (50_000, 50, float("inf")),
        (46_000, 50, float("inf")),
        (44_000, 50, 0.0),
    ],
    ids=[
        *("long unused", "just written", "fresh", "longer than ours", "without end"),
        *("as long as it may live", "nearly that", "worth a write"),
    ],
)
async def test_use_is_reported_when_that_gains_something(
    bench: Bench, ttl: int, left: float, touch_at: float
) -> None:
    """The idle time is 100 s: a report is due after 10 of them, and not worth less than 5."""
    await bench.verdict(([record(expires_at=WALL + left), None], ttl, None), (None,))
    assert bench.cache.sessions[NAME].touch_at == pytest.approx(CLOCK + touch_at)


async def test_a_key_that_was_meant_to_end_sooner_is_let_end(bench: Bench) -> None:
    young = record(created_at=WALL - 10)
    await bench.verdict(([young, None], 60_000, None), (None,))
    assert bench.cache.sessions[NAME].touch_at == float("inf")


Prepare = Callable[[Bench], None]


@pytest.mark.parametrize(
    ("replies", "prepare", "revoked"),
    [
        ((None, None), lambda _: None, False),
        ((b"revoked", None), lambda _: None, True),
        ((None, b"900000"), lambda _: None, True),
        ((None, b"899999"), lambda _: None, False),
        ((None, b"garbage"), lambda _: None, True),
        ((None, None), lambda bench: bench.reader.endings.add(TOKEN.name, CLOCK + 9), True),
        (
            (None, None),
            lambda bench: bench.reader.endings.add_epoch(TOKEN.epoch, Epoch(900_000)),
            True,
        ),
    ],
    ids=[
        *("neither", "by its id", "by its subject", "issued later", "an unreadable epoch"),
        *("the store forgot its id", "the store forgot the epoch"),
    ],
)
async def test_whether_a_token_is_revoked(
    bench: Bench, replies: tuple[object, ...], prepare: Prepare, *, revoked: bool
) -> None:
    prepare(bench)
    flight = bench.token()
    verdict = flight.wait()
    flight.start()
    keys = (revoked_key(TOKEN.name), epoch_key(TOKEN.epoch), *map(bucket_key, BUCKETS))
    assert await bench.store.commands() == [[b"GET", key.encode()] for key in keys]
    bench.store.answer(*replies, b"1", b"1")
    assert told(verdict) is revoked
    assert bench.kept() == {"tokens": revoked}


async def test_a_revoked_token_is_remembered_until_it_expires(bench: Bench) -> None:
    flight = bench.token()
    flight.start()
    bench.store.answer(b"revoked", None, b"1", None)
    bench.reader.endings.expire(CLOCK + 59)
    assert TOKEN.name in bench.reader.endings
    bench.reader.endings.expire(CLOCK + 60)
    assert TOKEN.name not in bench.reader.endings


async def test_a_token_whose_subject_is_revoked_under_way_is_not_kept_as_good(
    bench: Bench,
) -> None:
    flight = bench.token()
    verdict = flight.wait()
    flight.start()
    bench.store.push(b"invalidate", [revoked_key(TOKEN.name).encode()])
    bench.store.answer(None, None, b"1", b"1")
    assert told(verdict) is False  # it asked before
    assert bench.kept() == {}


async def test_who_knows_of_no_bucket_yet_asks_for_all_those_nearby_once(bench: Bench) -> None:
    bench.cache.clear()
    flight = bench.token()
    flight.start()
    near = {each for bucket in BUCKETS for each in buckets_near(bucket)}
    asked = await bench.store.commands()
    assert {key.decode() for _, key in asked[2:]} == {bucket_key(each) for each in near}
    bench.store.answer(None, None, *(None for _ in asked[2:]))
    assert bench.cache.clean == near
    bench.cache.drop_bucket(BUCKETS[0])
    bench.token().start()
    assert (await bench.store.commands())[1:] == [[b"GET", bucket_key(BUCKETS[0]).encode()]]


async def test_a_bucket_whose_mark_cannot_be_read_is_not_clean(bench: Bench) -> None:
    bench.token().start()
    bench.store.answer(None, None, ReplyError("NOPERM"), None)
    assert bench.cache.clean == {BUCKETS[1]}


@pytest.mark.parametrize(
    ("marks", "clean"),
    [((None, None), {0, 1}), ((b"1", None), {1}), ((None, b"1"), {0}), ((b"1", b"1"), set())],
    ids=["neither", "its own", "its subject's", "both"],
)
async def test_a_bucket_without_a_mark_is_clean(
    bench: Bench, marks: tuple[object, ...], clean: set[int]
) -> None:
    bench.token().start()
    bench.store.answer(None, None, *marks)
    assert bench.cache.clean == {BUCKETS[number] for number in clean}
    assert not bench.cache.flights


async def test_a_bucket_that_is_marked_under_way_is_not_clean(bench: Bench) -> None:
    bench.token().start()
    bench.store.push(b"invalidate", [bucket_key(BUCKETS[0]).encode()])
    bench.store.answer(None, None, None, None)
    assert bench.cache.clean == {BUCKETS[1]}


async def test_marks_are_not_asked_for_where_they_could_not_be_trusted(bench: Bench) -> None:
    bench.store.connection.tracking = False
    bench.token().start()
    assert len(await bench.store.commands()) == 2
