"""Telling of sessions that end by themselves: nobody used them, or their time was over.

How this works. The store drops such a record without a word, so each session that was made or used
through a gateway stands in a sorted set, by when it would end if nobody used it from then on.
Using a session does not move it there; that would double the writes. When its time has come, one
gateway looks whether the record is still there: then it was used, and is put off to its new end. So
a session costs one look per idle time. Else it has ended, and the event is written in the
step that takes it off the set (`TELL`): once, however many look, and again by the next one if the
gateway dies before.

A logout takes the session off in the script that ends it. One that comes after the record had
expired ends nothing, leaves a tombstone, and the event is written from here with its reason. What
was lost in a failover (the set has the session, the tombstone was told again) is told the same way.

On a cluster a logout cannot end and tell in one step. So it first has the session looked at in a
few seconds (`intention`): should it end the session and die before it tells, the look tells with
its reason; should it die before that, the look finds the record, and the session goes on as before.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import redis.asyncio

from auth.io.connection import Command, Reply
from auth.io.leading import STORE_ERRORS, Leadership
from auth.io.records import CallAll
from auth.io.scripts import EXPECT, TELL
from auth.io.tasks import stop
from auth.ports import AuthUnavailable
from auth.revocation import (
    EVENTS_KEY,
    EXPIRING_FACTS_KEY,
    EXPIRING_KEY,
    LONGEST_SESSION,
    ended_key,
    milliseconds,
)
from auth.session import MalformedRecord, SessionRecord, parse_record, session_key

_PAGE = 500
"""Sessions looked at in one go: some 10 ms of the store's time."""
_EVERY = 1.0
"""Seconds between two looks for sessions whose time is over."""
# A store is not to notice when a hundred thousand sessions lapse at once.
_BETWEEN_PAGES = 0.05
_log = logging.getLogger("doorward.store")


def expectation(name: str, record: SessionRecord, ends_at: float) -> Command:
    """Return the command that has the end of a live session noticed.

    Unless it is used, that is at *ends_at* (epoch seconds).
    """
    keys = (EXPIRING_KEY, EXPIRING_FACTS_KEY, session_key(name), ended_key(name))
    return ("EVAL", EXPECT, len(keys), *keys, *_facts(name, record, ends_at), "NX")


def blind_expectation(name: str, record: SessionRecord, ends_at: float) -> Command:
    """Do as `expectation`, not looking whether it lives: in a cluster its record is elsewhere."""
    facts = _facts(name, record, ends_at)
    return ("EVAL", EXPECT, 2, EXPIRING_KEY, EXPIRING_FACTS_KEY, *facts, "NX")


def intention(name: str, record: SessionRecord, look_at: float) -> Command:
    """Return the command that has a session looked at by *look_at* (epoch seconds).

    For who is about to end it in several steps, and may not live to tell.
    """
    facts = _facts(name, record, look_at)
    return ("EVAL", EXPECT, 2, EXPIRING_KEY, EXPIRING_FACTS_KEY, *facts, "LT")


def telling(name: str, now: float, reason: bytes | str) -> Command:
    """Return the command that tells of the end of a session that is expected to end, once."""
    keys = (EVENTS_KEY, EXPIRING_KEY, EXPIRING_FACTS_KEY)
    return ("EVAL", TELL, len(keys), *keys, name, now, reason)


def _facts(name: str, record: SessionRecord, ends_at: float) -> tuple[str | int, ...]:
    # Nothing that a foreign record says may be too large for the store's numbers.
    expires = milliseconds(min(record.expires_at, ends_at + LONGEST_SESSION))
    return name, milliseconds(ends_at), f"{expires} {record.subject}"


async def tell_of_expired(call_all: CallAll, *, now: float) -> tuple[int, int]:
    """Look at sessions whose time has come *now* (epoch seconds); tell of those that have ended.

    Returns:
        How many had come due, at most a page of them, and of how many the end was told.

    Raises:
        AuthUnavailable: as *call_all*; what was not told is told the next time.
    """
    due = ("ZRANGE", EXPIRING_KEY, "-inf", milliseconds(now), "BYSCORE", "LIMIT", 0, _PAGE)
    (reply,) = await call_all([due])
    assert isinstance(reply, list)
    names = [name.decode("ascii", "replace") for name in reply]
    commands: list[Command] = []
    for name in names:
        record, tombstone = session_key(name), ended_key(name)
        # MGET: a key that holds no string must not stand in the way of the others.
        commands += [("MGET", record, tombstone), ("PTTL", record)]
    replies = await call_all(commands)
    outcomes = [
        _outcome(name, replies[2 * number : 2 * number + 2], now)
        for number, name in enumerate(names)
    ]
    told = await call_all(outcomes)
    tells = [outcome[1] is TELL for outcome in outcomes]
    return len(names), sum(reply == 1 for reply, tell in zip(told, tells, strict=True) if tell)


def _outcome(name: str, replies: Sequence[Reply], now: float) -> Command:
    """Return the command for a session that came due: it goes on, or its end is told."""
    values, ttl = replies
    assert isinstance(values, list)
    assert isinstance(ttl, int)
    record, tombstone = _parse(values[0]), values[1]
    if record is not None and tombstone is None and record.expires_at > now:
        # What an expired key has left is rounded: never look at the same one without a pause.
        left = record.expires_at - now if ttl < 0 else min(ttl / 1000, record.expires_at - now)
        facts = _facts(name, record, now + max(left, 0.01))
        return ("EVAL", EXPECT, 2, EXPIRING_KEY, EXPIRING_FACTS_KEY, *facts, "XX")
    reason = tombstone if isinstance(tombstone, bytes) else b""
    return telling(name, now, reason)


def _parse(value: object) -> SessionRecord | None:
    try:
        return parse_record(value) if isinstance(value, bytes) else None
    except MalformedRecord:
        return None


class ExpiryWatch:
    """Tells of expired sessions while this gateway is the one that does.

    Args:
        tell: looks once, as `tell_of_expired`.
        commands: a client of the store, for the leader's key.
    """

    def __init__(
        self, tell: Callable[[], Awaitable[tuple[int, int]]], commands: redis.asyncio.Redis
    ) -> None:
        self.told = 0
        self._tell = tell
        self._leadership = Leadership(
            commands, "doorward:expires", leads_for=5 * _EVERY, renew=_EVERY
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; another gateway may be telling already."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop, and let another gateway go on at once."""
        await stop(self._task)
        await self._leadership.resign()

    async def _run(self) -> None:
        troubled = False
        while True:
            pause = _EVERY
            try:
                if await self._leadership.hold():
                    due, told = await self._tell()
                    self.told += told
                    if due == _PAGE:
                        pause = _BETWEEN_PAGES
                troubled = False
            except (AuthUnavailable, *STORE_ERRORS) as error:
                if not troubled:
                    _log.warning("ends of sessions by themselves are not told: %s", error)
                troubled = True
            await asyncio.sleep(pause)
