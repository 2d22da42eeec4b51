"""Verdicts on sessions and tokens, from memory when that is as good as asking.

How this works. One tracked connection carries the reads, the store's invalidations, the broadcasts
of endings and the beats that renew the lease, all in the order in which the store did them.

1. `peek` uses a cached verdict under a live lease: no key it was read from has changed up to the
   moment the last answered beat was *sent*, and that is less than a lease ago.
2. `find` otherwise reads from the store in a `Flight`. It joins one that is under way only if that
   still holds its ticket, the lease is live, and the epochs that it used are still known. Then
   whatever ended before the caller came has been heard here, and took one of these away: had its
   ending been answered without us, our lease would have run out first.
3. An invalidation or a broadcast drops the verdict and the ticket; a broadcast is remembered
   (`endings`) and acknowledged after that. A lost connection ends the lease; a new one begins with
   an empty cache.

Without tracking (an older store, a proxy) no lease is ever granted, so every request reads.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import NamedTuple

import hiredis

from auth.decision import Reason
from auth.io.barrier import Ending, read_ending
from auth.io.connection import Connection, Reply, StoreLost, boottime
from auth.io.endings import Endings
from auth.io.flight import TOUCH_EVERY, Flight, SessionFlight, TokenFlight
from auth.io.link import PATIENCE, Link
from auth.io.scripts import BEAT
from auth.io.session_cache import LastRecords, SessionCache, Verdict
from auth.ports import AuthUnavailable, OnFound
from auth.revocation import (
    ALL_SESSIONS,
    NO_EPOCH,
    WORKERS_KEY,
    TokenRef,
    bucket_of,
    parse_epoch,
    read_key,
)
from auth.session import SessionRecord
from config.model import SessionSettings

OnEnded = Callable[[frozenset[str] | None], None]
FlightOver = Callable[[Callable[[str], Connection]], Flight]
"""From where each key is asked for, to a flight that asks there."""
# A server that says one of these is no primary any more, or is cut off from its replicas.
NOT_PRIMARY = ("READONLY", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN")
_MOST_DOUBTFUL = 10_000
"""Sessions to look at again, and newcomers to tell the store of; more are passed over."""
_log = logging.getLogger("doorward.store")


class Newcomer(NamedTuple):
    """A session that this process met for the first time."""

    record: SessionRecord
    ends_at: float
    """Epoch seconds, if nobody uses it."""


class Lag:
    """How long broadcasts took to arrive: a histogram of plain integers."""

    bounds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

    def __init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one broadcast."""
        seconds = max(seconds, 0.0)
        self.counts[sum(seconds > bound for bound in self.bounds)] += 1
        self.sum += seconds


class Reader:
    """The reading half of the store for one process; *name* is how the registry knows it.

    `link` must be set, once, to the link whose `on_up`, `on_tick` and `on_down` call this.
    """

    _session_flight: type[SessionFlight] = SessionFlight
    _token_flight: type[TokenFlight] = TokenFlight

    def __init__(self, settings: SessionSettings, *, name: str) -> None:
        self.cache = SessionCache(sessions=settings.cache_size)
        self.endings = Endings()
        self.last_records = LastRecords()
        self.idle_timeout = settings.idle_timeout
        self.absolute_timeout = settings.absolute_timeout
        self.clock: Callable[[], float] = boottime
        self.wall = time.time
        self.counters: Counter[str] = Counter()
        self.lag = Lag()
        self.fresh_as_of = 0.0
        self.touches: set[str] = set()
        self.newcomers: dict[str, Newcomer] = {}
        self.link: Link
        self._name = name
        self._heard_at = self.clock()
        self._lease = settings.lease
        self._beats = 0
        self._hooks: list[OnEnded] = []
        self._followed: Callable[[], Collection[str]] = tuple
        self._followed_tokens: Callable[[], Collection[TokenRef]] = tuple
        self._doubtful: set[str] = set()
        self._settling: set[str] = set()
        self._hits = 0
        self._next_sweep = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    # Verdicts

    def peek(self, digest: str) -> SessionRecord | None:
        """Return the live record if a copy under a live lease is at hand. About a microsecond."""
        cache = self.cache
        entry = cache.sessions.get(digest)
        if entry is None:
            return None
        now = self.clock()
        if now >= cache.lease_until or now >= entry.deadline:
            return None
        # `sessions` holds nothing else; asking would cost a tenth of this method.
        record: SessionRecord = entry.verdict  # type: ignore[assignment]
        if record.expires_at <= self.wall():
            return None
        entry.used = True
        if now >= entry.touch_at:
            entry.touch_at = now + TOUCH_EVERY * self.idle_timeout
            self.touches.add(digest)
        self._hits += 1
        return record

    async def find(self, digest: str, *, serve_cached: float = 0.0) -> SessionRecord | str:
        """Return the live record or the `Reason` why there is none; see `SessionStore.find`."""
        if digest in self.endings:
            return Reason.SESSION_ENDED
        record = self.peek(digest)
        if record is not None:
            return record
        absence = self.cache.live(self.cache.absences, digest, self.clock())
        if absence is not None:
            self.counters["negative_hits"] += 1
            assert isinstance(absence.verdict, str)
            return absence.verdict
        try:
            verdict = await self._read(digest, partial(self._session_flight, self, digest))
        except AuthUnavailable:
            known = self._known_good(digest, serve_cached)
            if known is None:
                raise
            return known
        assert not isinstance(verdict, bool)
        if digest in self.endings:  # heard while the answer was on its way
            return Reason.SESSION_ENDED
        return verdict

    def ask(self, digest: str, then: OnFound) -> None:
        """Look a session up with neither a task nor a future; see `SessionStore.ask`."""
        if digest in self.endings:
            then(Reason.SESSION_ENDED)
            return
        absence = self.cache.live(self.cache.absences, digest, self.clock())
        if absence is not None:
            self.counters["negative_hits"] += 1
            then(absence.verdict)  # type: ignore[arg-type]  # `absences` holds no other
            return
        waiter = partial(self._tell_found, digest, then)
        joined = self._joinable(digest)
        flight = self._new_flight(digest) if joined is None else joined
        if flight is None:
            then(None)
            return
        self.counters["misses"] += 1
        flight.then(waiter)
        if joined is None:
            flight.start()

    def _new_flight(self, digest: str) -> SessionFlight | None:
        """Return a flight that is to be started; None: there is nobody to ask at this moment."""
        connection = self.link.connection
        if connection is None:
            return None
        return self._session_flight(self, digest, lambda _: connection)

    def _joinable(self, name: str) -> Flight | None:
        """Return the flight for *name* that a request of this moment may wait for."""
        flight = self.cache.flights.get(name)
        if not isinstance(flight, Flight) or not flight.is_joinable(self.clock()):
            return None
        self.counters["joined"] += 1
        return flight

    def _tell_found(self, digest: str, then: OnFound, verdict: Verdict | Exception) -> None:
        found = verdict if isinstance(verdict, SessionRecord | str) else None
        if digest in self.endings:  # heard while the answer was on its way
            found = Reason.SESSION_ENDED
        try:
            then(found)
        except Exception:  # noqa: BLE001 - a caller's mistake must not end the store's connection
            _log.exception("a callback failed on what was found of a session")

    def _known_good(self, digest: str, serve_cached: float) -> SessionRecord | None:
        """The store is out: return a record that was good when it was lost, for *serve_cached*."""
        now = self.clock()
        entry = self.cache.sessions.get(digest)
        if entry is None or now >= entry.deadline or now - self.fresh_as_of > serve_cached:
            return None
        assert isinstance(entry.verdict, SessionRecord)
        if digest in self.endings or entry.verdict.expires_at <= self.wall():
            return None
        self.counters["served_cached"] += 1
        return entry.verdict

    def peek_revoked(self, token: TokenRef) -> bool | None:
        """Return whether *token* is revoked if that is known for sure, else None."""
        now = self.clock()
        entry = self.cache.live(self.cache.tokens, token.name, now)
        if entry is not None:
            assert isinstance(entry.verdict, bool)
            self._hits += 1
            return entry.verdict
        if token.name in self.endings:
            return True
        if self._is_known_clean(token, now):
            self._hits += 1
            return False
        return None

    def _is_known_clean(self, token: TokenRef, now: float) -> bool:
        return now < self.cache.lease_until and self._is_clean(token)

    def _is_clean(self, token: TokenRef) -> bool:
        """Tell whether nothing at all is revoked that could be *token* or its subject's."""
        clean = self.cache.clean
        return (
            bucket_of(token.name) in clean
            and bucket_of(token.epoch) in clean
            and not self.endings.epoch_of(token.epoch, NO_EPOCH).covers(token.issued_at, "")
        )

    async def is_revoked(self, token: TokenRef, *, serve_cached: float = 0.0) -> bool:
        """Return whether *token* is revoked, as fresh as the call."""
        known = self.peek_revoked(token)
        if known is not None:
            return known
        try:
            verdict = await self._read(token.name, partial(self._token_flight, self, token))
        except AuthUnavailable:
            was_revoked = self._known_of(token, serve_cached)
            if was_revoked is None:
                raise
            self.counters["served_cached"] += 1
            verdict = was_revoked
        return verdict is not False or token.name in self.endings

    def _known_of(self, token: TokenRef, serve_cached: float) -> Verdict | None:
        """The store is out: return what was known of *token* when it was lost."""
        if self.clock() - self.fresh_as_of > serve_cached:
            return None
        entry = self.cache.tokens.get(token.name)
        if entry is not None:
            return entry.verdict
        return False if self._is_clean(token) else None

    async def _read(self, name: str, flight_over: FlightOver) -> Verdict:
        """Read a verdict; once more if the connection broke, all within a bounded time."""
        self.counters["misses"] += 1
        joined = self._joinable(name)
        if joined is not None:
            with contextlib.suppress(StoreLost):
                return await joined.wait()
        # No time limit of its own: the link drops a connection whose oldest command waits too long.
        with contextlib.suppress(StoreLost):
            return await self._launch(flight_over)
        return await self._launch_again(flight_over)

    async def _launch_again(self, flight_over: FlightOver) -> Verdict:
        """Read once more, on the next connection."""
        with contextlib.suppress(StoreLost, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self.link.ready()
                return await self._launch(flight_over)
        raise AuthUnavailable("the session store does not answer")

    async def _launch(self, flight_over: FlightOver) -> Verdict:
        connection = self.link.connection or await self.link.ready()
        return await flight_over(lambda _: connection).launch()

    def on_malformed(self, name: str, problem: str) -> None:
        """Count and log a record that cannot be read."""
        self.counters["malformed"] += 1
        _log.warning("session %s has a malformed record: %s", name, problem)

    def on_absent(self, name: str) -> None:
        """A session that was live here a moment ago has vanished."""
        if name in self._doubtful:
            self.endings.vanish(name, self.clock())

    def on_first_seen(self, name: str, record: SessionRecord, live_for: float) -> None:
        """Have the end of a session noticed that may have been made without us."""
        if len(self.newcomers) < _MOST_DOUBTFUL:
            self.newcomers[name] = Newcomer(record, self.wall() + live_for)

    # Live exchanges

    def on_ended(self, hook: OnEnded) -> None:
        """Call *hook* with the digests of sessions that ended (None: all of them)."""
        self._hooks.append(hook)

    def follow(self, source: Callable[[], Collection[str]]) -> None:
        """Have the end of these sessions noticed within a second, whoever causes it.

        *source* returns the digests on which exchanges under way hang. An exchange is a use: its
        session does not idle out meanwhile.
        """
        self._followed = source

    def follow_tokens(self, source: Callable[[], Collection[TokenRef]]) -> None:
        """Do the same for bearer tokens, within a beat."""
        self._followed_tokens = source

    def _tell(self, names: frozenset[str] | None) -> None:
        for hook in self._hooks:
            try:
                hook(names)
            except Exception:  # noqa: BLE001 - a hook's mistake must not end the store's connection
                _log.exception("a hook failed on the end of a session")

    async def _settle(self, name: str) -> None:
        """Read a session again whose keys changed; tell if it is over."""
        try:
            verdict = await self.find(name)
            if isinstance(verdict, str):
                self._tell(frozenset((name,)))
            self._doubtful.discard(name)
        except AuthUnavailable:
            pass  # tried again when the store is back
        finally:
            self._settling.discard(name)

    async def _settle_token(self, token: TokenRef) -> None:
        """Ask whether a token is revoked of which that is not known any more; tell if it is."""
        with contextlib.suppress(AuthUnavailable):
            if await self.is_revoked(token):
                self._tell(frozenset((token.name,)))
        self._settling.discard(token.name)

    def _look_after_tokens(self) -> None:
        for token in self._followed_tokens():
            if token.name not in self._settling and self.peek_revoked(token) is not False:
                self._settling.add(token.name)
                self._begin(self._settle_token(token))

    def _begin(self, settling: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(settling)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The tracked connection

    async def meet(self, connection: Connection, *, replaced: bool) -> None:
        """A new connection: start empty. *replaced*: the server is not the one we knew."""
        connection.on_push = partial(self._on_push, connection)
        if replaced:
            self.counters["store_replaced"] += 1
        self.cache.lease_until = 0.0
        self.cache.clear()
        self._next_sweep = self.clock()
        self.counters["flushes"] += 1

    def silence(self, name: str = "") -> float:
        """Return since how many seconds nothing was heard of the store: of endings, that is.

        *name*: of the session or the token; in a cluster its shards count, else the worst of all.
        """
        del name
        # A server that answers and grants no lease may be one that is cut off from the others.
        return self.clock() - max(self._heard_at, self.fresh_as_of)

    def _hear_answer(self, sent_at: float, reply: Reply) -> None:
        if not isinstance(reply, Exception):
            self._heard_at = sent_at

    def lose(self) -> None:
        """The connection is gone: what is cached may not be used, but for an outage policy."""
        self.cache.lease_until = 0.0
        self.cache.flights.clear()
        self.counters["connection_losses"] += 1

    def tick(self, connection: Connection) -> None:
        """Renew the lease, and look after what changed."""
        self._renew(connection)
        self._look_after()

    def _renew(self, connection: Connection) -> None:
        if connection.tracking:
            self._beats += 1
            value = f"{self._beats} {round(self._lease * 1000)}"
            connection.send(
                ("EVAL", BEAT, 1, WORKERS_KEY, self._name, value),
                partial(self._granted, connection, self.clock()),
                int,
            )
        else:
            connection.send(("PING",), partial(self._hear_answer, self.clock()))

    def adopt(self, settings: SessionSettings) -> None:
        """Take up other times and another bound of the cache; the lease stays."""
        self.idle_timeout = settings.idle_timeout
        self.absolute_timeout = settings.absolute_timeout
        self.cache.most_sessions = settings.cache_size

    def _look_after(self) -> None:
        now = self.clock()
        self.cache.shrink()
        if now >= self._next_sweep:
            self._next_sweep = now + 1.0
            self.endings.expire(now)
            self._doubt(*(name for name in self._followed() if self.peek(name) is None))
        for name in tuple(self._doubtful - self._settling)[:500]:
            self._settling.add(name)
            self._begin(self._settle(name))
        self._look_after_tokens()

    def _granted(self, connection: Connection, sent_at: float, reply: Reply) -> None:
        """The store recorded that we may trust our copies for a lease from *sent_at* on."""
        if not isinstance(reply, Exception):
            self.fresh_as_of = sent_at
            self.cache.lease_until = sent_at + self._lease
        elif isinstance(reply, hiredis.ReplyError):
            self.counters["leases_refused"] += 1
            if str(reply).startswith(NOT_PRIMARY):
                connection.close()

    def _on_push(self, connection: Connection, push: list[object]) -> None:
        kind = push[0]
        if kind == b"invalidate":
            self._invalidate(push[1])
        elif kind == b"message" and isinstance(push[2], bytes):
            ending = read_ending(push[2])
            if ending is not None:
                self._hear(ending)
                with contextlib.suppress(StoreLost):
                    acknowledgement = f"{ending.barrier} {self._name}"
                    connection.send(("PUBLISH", ending.reply_to, acknowledgement), lambda _: None)

    def _invalidate(self, keys: object) -> None:
        if not isinstance(keys, list):  # FLUSHALL, FLUSHDB
            self.cache.clear()
            self.counters["flushes"] += 1
            self._next_sweep = self.clock()
            return
        for key in keys:
            kind, name = read_key(key)
            self.counters["invalidations"] += 1
            if kind == "epoch":
                self._doubt(*self.cache.drop_epoch(name))
            elif kind == "bucket":
                self.cache.drop_bucket(name)
            elif kind == "name" and self.cache.drop(name):
                self._doubt(name)

    def _doubt(self, *names: str) -> None:
        if len(self._doubtful) < _MOST_DOUBTFUL:
            self._doubtful.update(names)

    def _hear(self, ending: Ending) -> None:
        """A broadcast: drop what it names before it is acknowledged, and remember it."""
        self.lag.add(self.wall() - ending.sent_at)
        now = self.clock()
        for name, epoch in ending.epochs.items():
            self.endings.add_epoch(name, parse_epoch(epoch.encode()))
            self._doubt(*self.cache.drop_epoch(name))
        for name, seconds in ending.names.items():
            self.endings.add(name, now + seconds)
            self.cache.drop(name)
            self.last_records.forget(name)
        if ALL_SESSIONS in ending.epochs:
            self._tell(None)
        elif ending.names:
            self._tell(frozenset(ending.names))

    def status(self) -> dict[str, object]:
        """Return the counters and the state of the lease."""
        return {
            "connected": self.link.connection is not None,
            "problem": "" if self.link.connection is not None else self.link.problem,
            "caching": self.link.connection is not None and self.link.connection.tracking,
            "lease_age": self.clock() - self.fresh_as_of if self.fresh_as_of else None,
            "entries": len(self.cache.sessions),
            "hits": self._hits,
            "evictions": self.cache.evictions,
            "remembered_endings": len(self.endings),
            **self.counters,
        }
