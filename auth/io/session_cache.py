"""Verdicts that this worker may use without asking, and what they depend on.

How this works. A *verdict* is "this session is live: here is its record", "there is no such
session, because ...", or "this token is (not) revoked". It may be used while three things hold:

- the *lease*: the store granted it less than `lease` seconds ago, so everything that happened
  before that is known here (`lease_until`, on a clock that runs while the machine sleeps);
- none of the keys it was read from changed since: the store tells us (`drop`, `drop_epoch`);
- its own deadline has not passed.

Keys are read in flights, and a flight may put its verdict here only if none of its keys changed
while it was under way: its ticket is its place in `flights`, which every drop takes away. The same
place says whether a later request may join it: what was not dropped is still true, if the lease is
live.

Each kind of verdict is kept in a bounded queue. What is used gets a second chance when it comes to
the front (the CLOCK algorithm), so a flood of keys used once does not push out the busy ones; and
"no such session" has a queue of its own, so guessed cookies push out nothing but each other.

Nothing here reads a clock or waits: `now` is an argument.
"""

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from auth.revocation import Epoch, buckets_near
from auth.session import SessionRecord, parse_record
from auth.slots import Claims

if TYPE_CHECKING:
    from collections.abc import Hashable

Verdict = SessionRecord | str | bool
"""A live session, the reason why there is none, or whether a token is revoked."""
FOREVER = float("inf")
_SHARED_PARTS = ("tenant", "roles", "groups", "scopes", "amr", "acr", "begun_on")
_MOSTLY_EMPTY_PARTS = ("claims", "sites", "auth_time", "refresh_at")
_EMPTY: dict[type, object] = {float: 0.0, dict: {}}
"""One of each for all records, of which nobody changes anything."""
_MOST_SHARED = 1000
"""Of their values; a record holds 8 KiB of them at most."""
_HASH_BYTES = 24
_LOOKS = 200
"""For one to take out, some 0.3 ms: to pass 100,000 that are all in use at once takes 0.1 s."""


class Lease:
    """What one shard has granted under one set of claims.

    A copy of what was read from the shard may be used until `until`. Once `void` it never may be
    again: the server's claims have changed, or the connection did.
    """

    __slots__ = ("claims", "fresh_as_of", "until", "void")

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.until = 0.0
        self.fresh_as_of = 0.0
        self.void = False

    def revoke(self) -> None:
        """What was read under it may not be used any more."""
        self.until = 0.0
        self.void = True


class Entry:
    """A verdict with its limits, seconds on the boot clock."""

    __slots__ = ("deadline", "epochs", "leases", "touch_at", "used", "verdict")

    def __init__(
        self,
        verdict: Verdict,
        *,
        deadline: float = FOREVER,
        touch_at: float = FOREVER,
        epochs: tuple[str, ...] = (),
    ) -> None:
        self.verdict = verdict
        self.deadline = deadline
        self.touch_at = touch_at
        """When use of it must be reported to the store, to keep the session from idling out."""
        self.epochs = epochs
        self.leases: tuple[Lease, ...] = ()
        """Of the shards that it was read from; a single store has one lease for all."""
        self.used = False


class SessionCache:
    """The verdicts of one worker, at most *sessions* live ones and *others* of each other kind."""

    def __init__(self, *, sessions: int = 100_000, others: int = 20_000) -> None:
        self.lease_until = 0.0
        self.sessions: OrderedDict[str, Entry] = OrderedDict()
        self.absences: OrderedDict[str, Entry] = OrderedDict()
        self.tokens: OrderedDict[str, Entry] = OrderedDict()
        self.epochs: dict[str, Epoch] = {}
        self.clean: set[str] = set()
        """Buckets in which nothing is revoked; known by the same rules as a verdict."""
        self._surveyed: set[str] = set()
        self.flights: dict[str, object] = {}
        self.evictions = 0
        self._dependents: dict[str, str | set[str]] = {}
        """The verdicts that rest on an epoch; the name itself where it is but one, as for most
        subjects: a set would be a tenth of all that a session takes.
        """
        self.most_sessions = sessions
        """May change at any time; `shrink` then comes down to it."""
        self._most_others = others

    def live(self, entries: OrderedDict[str, Entry], name: str, now: float) -> Entry | None:
        """Return the entry of *name* if it may be used at *now*."""
        entry = entries.get(name)
        if entry is None or now >= self.lease_until or now >= entry.deadline:
            return None
        entry.used = True
        return entry

    def keep(self, entries: OrderedDict[str, Entry], name: str, entry: Entry) -> None:
        """Remember a verdict whose flight still held its ticket."""
        self._forget(name)
        entries[name] = entry
        for epoch in entry.epochs:
            self._tie(epoch, name)
        most = self.most_sessions if entries is self.sessions else self._most_others
        self._evict(entries, most)

    def _tie(self, epoch: str, name: str) -> None:
        """Take note that the verdict on *name* rests on *epoch*."""
        held = self._dependents.setdefault(epoch, name)
        if isinstance(held, set):
            held.add(name)
        elif held != name:
            self._dependents[epoch] = {held, name}

    def _untie(self, epoch: str, name: str) -> None:
        """Take that back, and forget an epoch on which nothing rests any more."""
        held = self._dependents[epoch]
        if isinstance(held, set):
            held.discard(name)
        if not held or held == name:
            del self._dependents[epoch]
            self.epochs.pop(epoch, None)

    def _evict(self, entries: OrderedDict[str, Entry], most: int) -> None:
        """Come down to *most*, or nearer to it: while all are in use, one hundredth above it."""
        self._come_down(entries, most, looks=_LOOKS)
        if len(entries) > most + most // 100:
            next(iter(entries.values())).used = False
            self._look_at_first(entries)

    def _come_down(self, entries: OrderedDict[str, Entry], most: int, *, looks: int) -> None:
        for _ in range(looks):
            if len(entries) <= most:
                return
            self._look_at_first(entries)

    def _look_at_first(self, entries: OrderedDict[str, Entry]) -> None:
        """Give the first of *entries* its second chance, or take it out."""
        name, entry = next(iter(entries.items()))
        if entry.used:
            entry.used = False
            entries.move_to_end(name)
        else:
            self._forget(name)
            self.evictions += 1

    def shrink(self, *, looks: int = 2000) -> None:
        """Come down to a bound that was lowered, or nearer to it: after *looks* others must work.

        That many take some three milliseconds.
        """
        self._come_down(self.sessions, self.most_sessions, looks=looks)

    def _forget(self, name: str) -> Entry | None:
        """Take the verdict on *name* out, and epochs that no other verdict depends on."""
        entry = (
            self.sessions.pop(name, None)
            or self.absences.pop(name, None)
            or self.tokens.pop(name, None)
        )
        for epoch in entry.epochs if entry else ():
            self._untie(epoch, name)
        return entry

    def epoch(self, name: str, now: float) -> Epoch | None:
        """Return the epoch *name* if it is known for sure at *now*; `NO_EPOCH` is known too."""
        return self.epochs.get(name) if now < self.lease_until else None

    def release(self, epoch: str) -> None:
        """Forget an epoch that was read for a verdict that was not kept."""
        if epoch not in self._dependents:
            self.epochs.pop(epoch, None)

    def drop(self, name: str) -> bool:
        """The keys of *name* changed. Return whether a live session was known under it."""
        self.flights.pop(name, None)
        entry = self._forget(name)
        return entry is not None and isinstance(entry.verdict, SessionRecord)

    def drop_epoch(self, epoch: str) -> list[str]:
        """An epoch changed: drop all that depends on it, and return the sessions among it."""
        self.epochs.pop(epoch, None)
        held = self._dependents.get(epoch, set())
        names = (held,) if isinstance(held, str) else tuple(held)
        return [name for name in names if self.drop(name)]

    def drop_bucket(self, bucket: str) -> None:
        """Something in *bucket* was revoked, or may be."""
        self.flights.pop(bucket, None)
        self.clean.discard(bucket)

    def survey(self, bucket: str) -> list[str]:
        """Return the buckets to ask for now that *bucket* is not known to be clean, itself first.

        The first time they are all those near it: who has just connected knows of none, and would
        otherwise ask once for each of the first thousands of tokens.
        """
        near = [] if bucket[0] in self._surveyed else buckets_near(bucket)
        self._surveyed.add(bucket[0])
        return [bucket, *(each for each in near if each != bucket and each not in self.clean)]

    def clear(self) -> None:
        """Nothing is known any more; no flight under way may be kept."""
        self.clean.clear()
        self._surveyed.clear()
        for each in (self.sessions, self.absences, self.tokens, self.epochs):
            each.clear()
        self.flights.clear()
        self._dependents.clear()


class LastRecords:
    """What was read last of each session; bounded. Nothing is believed from here.

    A record that stands unchanged in the store is the same object every time it is read, so that
    others can remember by it what they made of it; and whoever reads it can guess its epoch.
    """

    def __init__(self, *, most: int = 20_000) -> None:
        self._records: OrderedDict[str, tuple[bytes, SessionRecord]] = OrderedDict()
        """With the hash of what was read: the text is as long as all else that is kept of it."""
        self._most = most
        self._parts: dict[Hashable, Hashable] = {}

    def subject(self, name: str) -> str | None:
        """Return whose session *name* was."""
        held = self._records.get(name)
        return None if held is None else held[1].subject

    def parse(self, name: str, value: bytes) -> SessionRecord:
        """Do what `parse_record` does for the *value* that the store has under *name*."""
        hashed = hashlib.blake2b(value, digest_size=_HASH_BYTES).digest()
        held = self._records.get(name)
        if held is not None and held[0] == hashed:
            return held[1]
        record = parse_record(value)
        self._share_parts(record)
        if held is None and len(self._records) >= self._most:
            self._records.popitem(last=False)
        self._records[name] = hashed, record
        return record

    def forget(self, name: str) -> None:
        """The session *name* is over."""
        self._records.pop(name, None)

    def _share_parts(self, record: SessionRecord) -> None:
        """Give *record*, which nobody else has yet, the texts that others have as well.

        Sessions of one site have few tenants and sets of roles, and most have no claims; each with
        its own copy of them, and of nothing, is a quarter of the memory that a session takes.
        """
        for part in _SHARED_PARTS:
            value = getattr(record, part)
            if value:
                if len(self._parts) >= _MOST_SHARED:
                    self._parts.clear()
                same = self._parts.setdefault(value, value)
                msgspec.structs.force_setattr(record, part, same)
        for part in _MOSTLY_EMPTY_PARTS:
            value = getattr(record, part)
            if not value:
                msgspec.structs.force_setattr(record, part, _EMPTY.get(type(value), value))
