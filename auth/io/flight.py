"""Reading one verdict from the store: the keys it depends on, over the tracked connection.

How this works. A flight writes all the reads it can at once and continues in the callbacks of the
replies, so it takes no task, and it concludes at its exact place in the store's order. A session's
subject is known only from its record, so its epoch may take a second round, unless the same session
was read before (`LastRecords`, a guess and no more). Epochs that are known under the lease
are not read again.

Whoever waits for a flight is called back, or waits on a future of their own (`wait`): one who is
cancelled takes nobody along.
A verdict is kept in the cache only if the flight still holds its ticket (`SessionCache.flights`)
and every epoch it used is still the cached one. Those who wait get it in any case: each of its
reads was made after they came, or they joined under rule 2 of `reader` (`is_joinable`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Protocol

from auth.decision import Reason
from auth.io.connection import Command, Connection, OnReply, Reply, StoreLost
from auth.io.endings import Endings
from auth.io.session_cache import FOREVER, Entry, LastRecords, SessionCache, Verdict
from auth.ports import AuthUnavailable
from auth.revocation import (
    ALL_SESSIONS,
    Epoch,
    TokenRef,
    bucket_key,
    bucket_of,
    ended_key,
    epoch_key,
    epoch_name,
    parse_epoch,
    revoked_key,
)
from auth.session import MalformedRecord, SessionRecord, session_key

TOUCH_EVERY = 0.1
"""A session's use is reported when this part of its idle time has passed since the last report."""
LEAST_GAIN = 0.05
"""A report that would gain less than this part of the idle time is not worth a write."""

Expected = type | tuple[type, ...]
BYTES: Expected = (bytes, type(None))


OnVerdict = Callable[[Verdict | Exception], None]
"""Gets the verdict, or `StoreLost` or `AuthUnavailable`; must not raise."""


class Reading(Protocol):
    """What flights need of the store that sends them."""

    @property
    def cache(self) -> SessionCache:
        """Return where verdicts are kept."""
        ...

    endings: Endings
    last_records: LastRecords
    idle_timeout: float
    absolute_timeout: float

    def clock(self) -> float:
        """Return the boot clock, seconds."""
        ...

    def wall(self) -> float:
        """Return the wall clock, epoch seconds."""
        ...

    def on_malformed(self, name: str, problem: str) -> None:
        """Count and log a record that cannot be read."""
        ...

    def on_absent(self, name: str) -> None:
        """A session has neither a record nor a tombstone."""
        ...

    def on_first_seen(self, name: str, record: SessionRecord, live_for: float) -> None:
        """A live session was read that was not known here; unused it ends after *live_for*."""
        ...


class Flight:
    """One verdict under way. Say who waits (`then`, `wait`), and start it with `start`."""

    def __init__(
        self,
        reading: Reading,
        name: str,
        connection_of: Callable[[str], Connection],
    ) -> None:
        self._reading = reading
        self._name = name
        self._connection_of = connection_of
        self._waiters: list[OnVerdict] = []
        self._outstanding = 0
        self._epochs: dict[str, Epoch] = {}
        self._sent_at = 0.0
        self._over = False

    def then(self, waiter: OnVerdict) -> None:
        """Call *waiter* when it is over, in the callback of the store's last reply."""
        self._waiters.append(waiter)

    def wait(self) -> "asyncio.Future[Verdict]":
        """Return a future of the verdict; `StoreLost` or `AuthUnavailable` if there is none."""
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.then(partial(_settle, future))
        return future

    def launch(self) -> "asyncio.Future[Verdict]":
        """Start it, and return a future of the verdict as `wait` does."""
        verdict = self.wait()
        self.start()
        return verdict

    def start(self) -> None:
        """Take the ticket and write the first reads."""
        self._reading.cache.flights[self._name] = self
        self._sent_at = self._reading.clock()
        try:
            self._read()
        except StoreLost as error:
            self._fail(error)

    def is_joinable(self, now: float) -> bool:
        """Tell whether who comes *now* may wait for it too, if it still has its ticket.

        Its epochs must still be known: a change of one takes away the verdicts that rest on it, and
        this one does not exist yet.
        """
        return now < self._reading.cache.lease_until and self._knows_epochs(now)

    def _knows_epochs(self, now: float) -> bool:
        cache = self._reading.cache
        return all(cache.epoch(name, now) == epoch for name, epoch in self._epochs.items())

    def _read(self) -> None:
        raise NotImplementedError

    def _conclude(self) -> None:
        """All reads so far are answered: read on, or end with `_finish`."""
        raise NotImplementedError

    def _ask(self, key: str, command: Command, put: OnReply, expect: Expected) -> None:
        self._outstanding += 1
        self._connection_of(key).send(command, partial(self._answered, put), expect)

    def _ask_epoch(self, name: str) -> None:
        """Take the epoch *name* from the cache or the store."""
        known = self._reading.cache.epoch(name, self._reading.clock())
        if known is not None:
            self._epochs[name] = known
        elif name not in self._epochs:
            key = epoch_key(name)
            self._ask(key, ("GET", key), partial(self._put_epoch, name), BYTES)

    def _put_epoch(self, name: str, reply: Reply) -> None:
        assert reply is None or isinstance(reply, bytes)
        epoch = self._reading.endings.add_epoch(name, parse_epoch(reply))
        self._epochs[name] = epoch
        self._reading.cache.epochs[name] = epoch

    def _answered(self, put: OnReply, reply: Reply) -> None:
        self._outstanding -= 1
        if self._over:
            return
        if isinstance(reply, Exception):
            self._fail(reply)
            return
        put(reply)
        if not self._outstanding:
            try:
                self._conclude()
            except StoreLost as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End without a verdict. An error of the store is never "no session"."""
        self._over = True
        flights = self._reading.cache.flights
        if flights.get(self._name) is self:
            del flights[self._name]
        if not isinstance(error, StoreLost):
            error = AuthUnavailable(f"the session store answered an error: {error}")
        for waiter in self._waiters:
            waiter(error)

    def _finish(self, entries: OrderedDict[str, Entry] | None, entry: Entry) -> None:
        """End with a verdict, to be kept in *entries* if the ticket is still held."""
        self._over = True
        cache = self._reading.cache
        holds_ticket = cache.flights.get(self._name) is self
        if holds_ticket:
            del cache.flights[self._name]
        # Unchanged since this flight took them: another one may have read a later value.
        known = holds_ticket and all(
            cache.epochs.get(name) == self._epochs[name] for name in entry.epochs
        )
        if known and entries is not None:
            cache.keep(entries, self._name, entry)
        for name in self._epochs:
            cache.release(name)
        for waiter in self._waiters:
            waiter(entry.verdict)


def _settle(future: "asyncio.Future[Verdict]", verdict: Verdict | Exception) -> None:
    if future.done():
        return  # its caller went away
    if isinstance(verdict, Exception):
        future.set_exception(verdict)
    else:
        future.set_result(verdict)


class SessionFlight(Flight):
    """Reads whether a session is live."""

    _of_all = ALL_SESSIONS
    """The epoch of every session, under the name that it has for this one."""
    _value: bytes | None = None
    _tombstone: bytes | None = None
    _ttl = -2
    _parsed: SessionRecord | None = None
    _first = False

    def _read(self) -> None:
        name = self._name
        record, tombstone = session_key(name), ended_key(name)
        self._ask(record, ("MGET", record, tombstone), self._put_values, list)
        self._ask(record, ("PTTL", record), self._put_ttl, int)
        self._ask_epochs()

    def _ask_epochs(self) -> None:
        """Ask of all sessions, and of the subject's if the last record is remembered."""
        self._ask_epoch(self._of_all)
        subject = self._reading.last_records.subject(self._name)
        self._first = subject is None
        if subject is not None:
            self._ask_epoch(epoch_name("", subject))

    def _put_values(self, reply: Reply) -> None:
        assert isinstance(reply, list)
        self._value, self._tombstone = reply

    def _put_ttl(self, reply: Reply) -> None:
        assert isinstance(reply, int)
        self._ttl = reply

    def _conclude(self) -> None:
        if self._parsed is None:
            found = self._parse()
            if not isinstance(found, SessionRecord):
                # Expiry is judged by the wall clock, which may yet be corrected: never kept.
                expired = found is Reason.SESSION_EXPIRED
                self._reading.last_records.forget(self._name)
                self._finish(None if expired else self._reading.cache.absences, Entry(found))
                return
            self._parsed = found
            self._ask_epoch(epoch_name("", found.subject))
            if self._outstanding:
                return
        self._judge(self._parsed)

    def _parse(self) -> SessionRecord | Reason:
        """Return the record, or why there is no session."""
        reading = self._reading
        if self._tombstone is not None or self._name in reading.endings:
            reading.endings.add(self._name, reading.clock() + reading.absolute_timeout)
            return Reason.SESSION_ENDED
        if self._ttl == -2:
            reading.on_absent(self._name)
            return Reason.SESSION_UNKNOWN
        if self._value is None:  # MGET's answer for what is no string
            reading.on_malformed(self._name, "the key holds no string")
            return Reason.SESSION_MALFORMED
        try:
            record = reading.last_records.parse(self._name, self._value)
        except MalformedRecord as error:
            reading.on_malformed(self._name, str(error))
            return Reason.SESSION_MALFORMED
        if record.expires_at <= reading.wall():
            return Reason.SESSION_EXPIRED
        return record

    def _judge(self, record: SessionRecord) -> None:
        reading = self._reading
        names = (self._of_all, epoch_name("", record.subject))
        if any(
            reading.endings.epoch_of(epoch, self._epochs[epoch]).covers_session(
                record.created_at, self._name
            )
            for epoch in names
        ):
            reading.last_records.forget(self._name)
            self._finish(reading.cache.absences, Entry(Reason.SESSION_ENDED, epochs=names))
            return
        left = record.expires_at - reading.wall()
        if left <= 0:  # while its epoch was asked for, and others joined meanwhile
            self._finish(None, Entry(Reason.SESSION_EXPIRED))
            return
        reading.endings.reappear(self._name)
        idle = self._ttl / 1000 if self._ttl >= 0 else FOREVER
        if self._first:
            reading.on_first_seen(self._name, record, min(idle, left))
        # From when the reads were sent: the key may be that much nearer to its end.
        entry = Entry(record, deadline=self._sent_at + min(idle, left), epochs=names)
        window = reading.idle_timeout
        used_at = reading.wall() + idle - window
        if used_at < record.created_at - LEAST_GAIN * window:
            pass  # it never had the whole window: its writer wants it to end then, used or not
        elif idle + LEAST_GAIN * window < left:
            entry.touch_at = self._sent_at + max(0.0, idle - (1 - TOUCH_EVERY) * window)
        self._finish(reading.cache.sessions, entry)


class TokenFlight(Flight):
    """Reads whether a bearer token is revoked."""

    def __init__(
        self, reading: Reading, token: TokenRef, connection_of: Callable[[str], Connection]
    ) -> None:
        super().__init__(reading, token.name, connection_of)
        self._token = token
        self._buckets = tuple(dict.fromkeys((bucket_of(token.name), bucket_of(token.epoch))))
        self._revoked = False

    def _read(self) -> None:
        key = revoked_key(self._name)
        self._ask(key, ("GET", key), self._put, BYTES)
        self._ask_epoch(self._token.epoch)
        if self._connection_of(key).tracking:
            for bucket in self._buckets:
                if bucket not in self._reading.cache.clean:
                    for each in self._reading.cache.survey(bucket):
                        self._ask_bucket(each)

    def _ask_bucket(self, bucket: str) -> None:
        """Read a mark, under a ticket of its own; this token's verdict does not wait for it."""
        self._reading.cache.flights[bucket] = self
        key, put = bucket_key(bucket), partial(self._put_bucket, bucket)
        self._connection_of(key).send(("GET", key), put, BYTES)

    def _put_bucket(self, bucket: str, reply: Reply) -> None:
        cache = self._reading.cache
        if cache.flights.get(bucket) is self:
            del cache.flights[bucket]
            if reply is None:  # neither a mark nor an error
                cache.clean.add(bucket)

    def _put(self, reply: Reply) -> None:
        self._revoked = reply is not None

    def _conclude(self) -> None:
        reading, token = self._reading, self._token
        if self._revoked:
            reading.endings.add(token.name, reading.clock() + token.expires_at - reading.wall())
        epoch = reading.endings.epoch_of(token.epoch, self._epochs[token.epoch])
        revoked = (
            self._revoked or token.name in reading.endings or epoch.covers(token.issued_at, "")
        )
        self._finish(reading.cache.tokens, Entry(revoked, epochs=(token.epoch,)))
