"""Verdicts from memory when the store is a cluster: `reader`'s rules, shard by shard.

How this works. There is one tracked connection to each primary, and what was read on it may be used
under *its* lease only; a verdict that was read from several shards needs the leases of all of them.

What a shard says proves nothing of a slot that is not its own any more: a key that was read there,
present or absent, sends no invalidation when it is written at the slot's new owner. So each beat
says what it believes of the shard's claims (`auth.slots.Claims`), and the shard grants the lease
only if that is still so, in the same atomic step. A change of any kind, a slot lost, gained, being
handed over or taken over, makes the lease void, and everything that was read under it; then the
worker goes on under the new claims, with an empty hand. Nothing is kept of a slot that is being
handed over. `docs/revocation.md` has the argument.

A read that a shard sends elsewhere (MOVED, ASK), or whose connection breaks, is made again by a
flight of its own that follows redirections on the command connections (`Shards.call`). It has no
ticket, nobody joins it, and nothing is kept of it.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, cast

import hiredis

from auth.decision import Reason
from auth.io.connection import Command, Connection, OnReply, Reply, StoreLost
from auth.io.endings import Endings
from auth.io.flight import BYTES, TOUCH_EVERY, Expected, Flight, SessionFlight, TokenFlight
from auth.io.reader import NOT_PRIMARY, Reader
from auth.io.scripts import CLAIMS, SHARD_BEAT
from auth.io.session_cache import Entry, Lease, SessionCache, Verdict
from auth.io.shards import Shard, Shards
from auth.ports import OnFound
from auth.revocation import (
    ALL_SESSIONS,
    Epoch,
    TokenRef,
    bucket_key,
    bucket_of,
    ended_key,
    epoch_name,
    parse_epoch,
    revoked_key,
)
from auth.session import SessionRecord, session_key
from auth.slots import (
    REDIRECTS,
    Claims,
    ClusterAnswerError,
    all_sessions_beside,
    is_slot_tag,
    parse_claims,
    slot_of,
    slot_of_tag,
)
from config.model import SessionSettings

_NO_CONNECTION = cast("Callable[[str], Connection]", None)
"""Flights over shards find their connections themselves."""


class ShardedEndings(Endings):
    """Every copy of the epoch of all sessions is that epoch: seen once, it is in force."""

    def add_epoch(self, name: str, epoch: Epoch) -> Epoch:
        """Remember an epoch that was seen, and return the one in force."""
        return super().add_epoch(_remembered_as(name), epoch)

    def epoch_of(self, name: str, epoch: Epoch) -> Epoch:
        """Return the epoch in force when the store says *epoch*."""
        return super().epoch_of(_remembered_as(name), epoch)


def _remembered_as(name: str) -> str:
    return ALL_SESSIONS if is_slot_tag(name) else name


class ShardedCache(SessionCache):
    """Verdicts, epochs and buckets, each with the leases under which it may be used."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch_leases: dict[str, Lease] = {}
        self.clean_leases: dict[str, Lease] = {}

    def live(self, entries: OrderedDict[str, Entry], name: str, now: float) -> Entry | None:
        """Return the entry of *name* if it may be used at *now*."""
        entry = entries.get(name)
        if entry is None or now >= entry.deadline or not are_live(entry.leases, now):
            return None
        entry.used = True
        return entry

    def epoch(self, name: str, now: float) -> Epoch | None:
        """Return the epoch *name* if it is known for sure at *now*."""
        lease = self.epoch_leases.get(name)
        return self.epochs.get(name) if lease is not None and now < lease.until else None

    def is_clean(self, bucket: str, now: float) -> bool:
        """Tell whether it is known for sure that nothing in *bucket* is revoked."""
        lease = self.clean_leases.get(bucket)
        return lease is not None and now < lease.until and bucket in self.clean

    def forget_void(self) -> None:
        """A lease is void: forget the buckets that were known under it, so that they are asked."""
        for bucket in [name for name, lease in self.clean_leases.items() if lease.void]:
            del self.clean_leases[bucket]
            self.clean.discard(bucket)
        self._surveyed.clear()

    def drop_epoch(self, epoch: str) -> list[str]:
        """An epoch changed; that of all sessions, in whichever slot."""
        if epoch != ALL_SESSIONS:
            self.epoch_leases.pop(epoch, None)
            return super().drop_epoch(epoch)
        copies = [name for name in self.epochs if is_slot_tag(name)]
        return [name for copy in copies for name in self.drop_epoch(copy)]

    def release(self, epoch: str) -> None:
        """Forget an epoch that was read for a verdict that was not kept."""
        super().release(epoch)
        if epoch not in self.epochs:
            self.epoch_leases.pop(epoch, None)

    def _forget(self, name: str) -> Entry | None:
        entry = super()._forget(name)
        for epoch in entry.epochs if entry else ():
            if epoch not in self.epochs:
                self.epoch_leases.pop(epoch, None)
        return entry

    def clear(self) -> None:
        """Nothing is known any more."""
        super().clear()
        self.epoch_leases.clear()
        self.clean_leases.clear()


def are_live(leases: Collection[Lease], now: float) -> bool:
    """Tell whether what was read under all of *leases* may be used at *now*."""
    return all(now < lease.until for lease in leases)


class _OverShards(Flight):
    """What flights over several shards do otherwise."""

    _reading: "ShardedReader"
    through: Shards | None = None
    """Follow redirections through these, and keep nothing."""

    def __init__(self, reading: "ShardedReader", what: Any, *_: object) -> None:
        super().__init__(reading, what, _NO_CONNECTION)
        self._asked: set[Shard] = set()
        self._leases: set[Lease] = set()
        self._under: Lease | None = None
        """The lease of what is being heard now; None: it may not be kept."""
        self._may_keep = True
        self._tasks: set[asyncio.Future[Reply]] = set()

    def start(self) -> None:
        """Take the ticket and write the first reads; one that follows redirections has none."""
        if self.through is None:
            super().start()
            return
        self._may_keep = False
        self._sent_at = self._reading.clock()
        self._read()

    def is_joinable(self, now: float) -> bool:
        """Tell whether all that was asked and known so far still holds for who comes now."""
        asked = all(now < shard.lease.until for shard in self._asked)
        return asked and are_live(self._leases, now) and self._may_keep and self._knows_epochs(now)

    def _ask(self, key: str, command: Command, put: OnReply, expect: Expected) -> None:
        slot = slot_of(key)
        if self.through is not None:
            self._outstanding += 1
            task = asyncio.ensure_future(self.through.call(command))
            self._tasks.add(task)
            task.add_done_callback(partial(self._followed, put))
            return
        shard = self._reading.shards.owner(slot)
        connection = connection_to(shard)
        self._outstanding += 1
        self._asked.add(shard)
        connection.send(command, partial(self._heard, shard, slot, put), expect)

    def _followed(self, put: OnReply, task: "asyncio.Future[Reply]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._answered(put, task.exception() or task.result())

    def _heard(self, shard: Shard, slot: int, put: OnReply, reply: Reply) -> None:
        """Take a reply with the lease under which it came."""
        self._under = self._reading.lease_over(shard, slot)
        if self._under is None:
            self._may_keep = False
        else:
            self._leases.add(self._under)
        self._answered(put, self._reading.lost_if_elsewhere(reply))

    def _put_epoch(self, name: str, reply: Reply) -> None:
        if self.through is None and self._under is not None:
            self._reading.cache.epoch_leases[name] = self._under
            super()._put_epoch(name, reply)
            return
        assert reply is None or isinstance(reply, bytes)
        self._epochs[name] = self._reading.endings.add_epoch(name, parse_epoch(reply))

    def _finish(self, entries: OrderedDict[str, Entry] | None, entry: Entry) -> None:
        leases = self._reading.cache.epoch_leases
        known = [leases[name] for name in entry.epochs if name in leases]
        entry.leases = tuple(self._leases.union(known))
        keep = self._may_keep and len(known) == len(entry.epochs)
        super()._finish(entries if keep else None, entry)

    def _fail(self, error: Exception) -> None:
        if self.through is None:
            super()._fail(error)
            return
        self._over = True  # no ticket to give back, and `through` has said what is wrong
        for waiter in self._waiters:
            waiter(error)


class ShardedSessionFlight(_OverShards, SessionFlight):
    """Reads whether a session is live, key by key: half of a slot may have moved already."""

    def _read(self) -> None:
        name = self._name
        self._of_all = all_sessions_beside(name)
        record, tombstone = session_key(name), ended_key(name)
        # The record first: ending leaves the tombstone before it takes the record away.
        self._ask(record, ("MGET", record), self._put_value, list)
        self._ask(tombstone, ("MGET", tombstone), self._put_tombstone, list)
        self._ask(record, ("PTTL", record), self._put_ttl, int)
        self._ask_epoch(self._of_all)
        subject = self._reading.last_records.subject(name)
        self._first = subject is None
        if subject is not None:
            self._ask_epoch(epoch_name("", subject))

    def _put_value(self, reply: Reply) -> None:
        assert isinstance(reply, list)
        (self._value,) = reply

    def _put_tombstone(self, reply: Reply) -> None:
        assert isinstance(reply, list)
        (self._tombstone,) = reply


class ShardedTokenFlight(_OverShards, TokenFlight):
    """Reads whether a bearer token is revoked."""

    def _read(self) -> None:
        key = revoked_key(self._name)
        self._ask(key, ("GET", key), self._put, BYTES)
        self._ask_epoch(self._token.epoch)
        if self.through is None:
            now = self._reading.clock()
            for bucket in self._buckets:
                if not self._reading.cache.is_clean(bucket, now):
                    for each in self._reading.cache.survey(bucket):
                        with contextlib.suppress(StoreLost):  # another shard's outage
                            self._ask_bucket(each)

    def _ask_bucket(self, bucket: str) -> None:
        """Read a mark, under a ticket of its own; this token's verdict does not wait for it."""
        key = bucket_key(bucket)
        slot = slot_of(key)
        shard = self._reading.shards.owner(slot)
        heard = partial(self._heard_mark, shard, slot, bucket)
        connection_to(shard).send(("GET", key), heard, BYTES)
        self._reading.cache.flights[bucket] = self

    def _heard_mark(self, shard: Shard, slot: int, bucket: str, reply: Reply) -> None:
        cache = self._reading.cache
        under = self._reading.lease_over(shard, slot)
        if isinstance(reply, Exception) or under is None:
            if cache.flights.get(bucket) is self:
                del cache.flights[bucket]
            return
        cache.clean_leases[bucket] = under
        self._put_bucket(bucket, reply)


def connection_to(shard: Shard) -> Connection:
    """Return the reading connection to *shard*.

    Raises:
        StoreLost: there is none at this moment.
    """
    connection = None if shard.tracked is None else shard.tracked.connection
    if connection is None:
        raise StoreLost("the shard is not connected")
    return connection


class ShardedReader(Reader):
    """The reading half of a store that is a cluster. `shards` must be set, once."""

    _session_flight = ShardedSessionFlight
    _token_flight = ShardedTokenFlight
    cache: ShardedCache

    def __init__(self, settings: SessionSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.cache = ShardedCache()
        self.endings = ShardedEndings()
        self.shards: Shards

    # Verdicts

    def peek(self, digest: str) -> SessionRecord | None:
        """Return the live record if a copy under live leases is at hand."""
        entry = self.cache.sessions.get(digest)
        if entry is None:
            return None
        now = self.clock()
        if now >= entry.deadline:
            return None
        for lease in entry.leases:
            if now >= lease.until:
                return None
        record: SessionRecord = entry.verdict  # type: ignore[assignment]  # as in `Reader.peek`
        if record.expires_at <= self.wall():
            return None
        entry.used = True
        if now >= entry.touch_at:
            entry.touch_at = now + TOUCH_EVERY * self.idle_timeout
            self.touches.add(digest)
        self._hits += 1
        return record

    def ask(self, digest: str, then: OnFound) -> None:
        """Look a session up with neither a task nor a future; see `SessionStore.ask`."""
        if digest in self.endings:
            then(Reason.SESSION_ENDED)
            return
        now = self.clock()
        absence = self.cache.live(self.cache.absences, digest, now)
        if absence is not None:
            self.counters["negative_hits"] += 1
            then(absence.verdict)  # type: ignore[arg-type]  # `absences` holds no other
            return
        self.counters["misses"] += 1
        flight = self._joinable(digest)
        waiter = partial(self._tell_found, digest, then)
        if flight is not None:
            flight.then(waiter)
            return
        flight = ShardedSessionFlight(self, digest)
        flight.then(waiter)
        flight.start()

    async def _read(
        self, name: str, flight_over: Callable[[Callable[[str], Connection]], Flight]
    ) -> Verdict:
        """Read a verdict; once more, following redirections, if a shard sent us elsewhere."""
        self.counters["misses"] += 1
        joined = self._joinable(name)
        if joined is not None:
            with contextlib.suppress(StoreLost):
                return await joined.wait()
        with contextlib.suppress(StoreLost):
            return await self._launch(flight_over)
        flight = flight_over(_NO_CONNECTION)
        assert isinstance(flight, _OverShards)
        flight.through = self.shards
        verdict = flight.wait()
        flight.start()
        return await verdict

    async def _launch(
        self, flight_over: Callable[[Callable[[str], Connection]], Flight]
    ) -> Verdict:
        flight = flight_over(_NO_CONNECTION)
        verdict = flight.wait()
        flight.start()
        return await verdict

    def _known_good(self, digest: str, serve_cached: float) -> SessionRecord | None:
        entry = self.cache.sessions.get(digest)
        if entry is None or not self._may_serve(entry.leases, serve_cached):
            return None
        assert isinstance(entry.verdict, SessionRecord)
        if self.clock() >= entry.deadline or entry.verdict.expires_at <= self.wall():
            return None
        if digest in self.endings:
            return None
        self.counters["served_cached"] += 1
        return entry.verdict

    def _may_serve(self, leases: tuple[Lease, ...], serve_cached: float) -> bool:
        oldest = self.clock() - serve_cached
        return all(not lease.void and lease.fresh_as_of >= oldest for lease in leases)

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
        buckets = (bucket_of(token.name), bucket_of(token.epoch))
        if all(self.cache.is_clean(bucket, now) for bucket in buckets) and self._is_clean(token):
            self._hits += 1
            return False
        return None

    def _known_of(self, token: TokenRef, serve_cached: float) -> Verdict | None:
        entry = self.cache.tokens.get(token.name)
        if entry is not None:
            return entry.verdict if self._may_serve(entry.leases, serve_cached) else None
        if not self._is_clean(token):
            return None
        buckets = (bucket_of(token.name), bucket_of(token.epoch))
        leases = tuple(self.cache.clean_leases[bucket] for bucket in buckets)
        return False if self._may_serve(leases, serve_cached) else None

    def lease_over(self, shard: Shard, slot: int) -> Lease | None:
        """Return the lease under which *shard* tells of *slot* now; None: it hands it over."""
        lease = shard.lease
        return lease if lease.claims.stable[slot] else None

    def lost_if_elsewhere(self, reply: Reply) -> Reply:
        """Turn a redirection into `StoreLost`: what it redirects has not been executed."""
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith(
            (*REDIRECTS, "CLUSTERDOWN")
        ):
            self.shards.look_again()
            return StoreLost("the slot is being moved")
        return reply

    # The tracked connections

    def meet_shard(self, shard: Shard, connection: Connection, claims: Claims) -> None:
        """A new connection to *shard*: nothing is known of it."""
        connection.on_push = partial(self._on_push, connection)
        self._begin_anew(shard, claims)

    def _begin_anew(self, shard: Shard, claims: Claims) -> None:
        shard.lease.revoke()
        shard.lease = Lease(claims)
        self.cache.forget_void()
        self._next_sweep = self.clock()
        self.counters["flushes"] += 1

    def lose_shard(self, shard: Shard) -> None:
        """The connection to *shard* is gone: for an outage policy only, what it said stays."""
        shard.lease.until = 0.0
        self.counters["connection_losses"] += 1
        self.shards.look_again()

    def tick_shard(self, shard: Shard, connection: Connection) -> None:
        """Renew the lease of *shard*, and look after what changed."""
        self._renew_with(shard, connection)
        self._look_after()

    def _renew_with(self, shard: Shard, connection: Connection) -> None:
        lease, now = shard.lease, self.clock()
        registry = lease.claims.registry_key
        if not connection.tracking:
            connection.send(("PING",), partial(self._hear_from, shard, now))
        elif registry is None:
            connection.send(
                ("EVAL", CLAIMS, 0), partial(self._told_claims, shard, connection, lease), bytes
            )
        else:
            self._beats += 1
            value = f"{self._beats} {round(self._lease * 1000)}"
            connection.send(
                ("EVAL", SHARD_BEAT, 1, registry, self._name, value, lease.claims.text),
                partial(self._granted_by, shard, connection, lease, now),
                (int, bytes),
            )

    def _hear_from(self, shard: Shard, sent_at: float, reply: Reply) -> None:
        if not isinstance(reply, Exception):
            shard.heard_at = self.fresh_as_of = sent_at

    def _granted_by(
        self, shard: Shard, connection: Connection, lease: Lease, sent_at: float, reply: Reply
    ) -> None:
        """The shard recorded that we may trust what it said, if it still claims what we believe."""
        if isinstance(reply, int):
            if not lease.void:
                lease.fresh_as_of = shard.heard_at = self.fresh_as_of = sent_at
                lease.until = sent_at + self._lease
        elif isinstance(reply, bytes):
            self._told_claims(shard, connection, lease, reply)
        elif isinstance(reply, hiredis.ReplyError):
            self.counters["leases_refused"] += 1
            self.shards.look_again()
            if str(reply).startswith(REDIRECTS):  # the registry's slot has left
                told = partial(self._told_claims, shard, connection, lease)
                connection.send(("EVAL", CLAIMS, 0), told, bytes)
            elif str(reply).startswith(NOT_PRIMARY):
                connection.close()

    def _told_claims(
        self, shard: Shard, connection: Connection, lease: Lease, reply: Reply
    ) -> None:
        """Take what the shard claims now; if that is not what *lease* was for, nothing is left."""
        if not isinstance(reply, bytes) or lease.void:
            return
        try:
            claims = parse_claims(reply)
        except ClusterAnswerError:
            connection.close()
            return
        if claims.text == lease.claims.text:
            return
        self._begin_anew(shard, claims)
        self.shards.look_again()
        if not claims.is_primary:
            connection.close()
        elif claims.registry_key is not None:
            self._renew_with(shard, connection)

    def silence(self, name: str = "") -> float:
        """Return since how many seconds nothing was heard of the shards of *name*."""
        now = self.clock()
        heard: list[float]
        if not name:
            heard = [shard.heard_at for shard in self.shards.all()]
        else:
            subject = self.last_records.subject(name)
            tags = (name,) if subject is None else (name, epoch_name("", subject))
            heard = []
            for tag in tags:
                try:
                    heard.append(self.shards.owner(slot_of_tag(tag)).heard_at)
                except StoreLost:
                    heard.append(self.shards.changed_at)
        return now - min(heard, default=self.shards.changed_at)

    def status(self) -> dict[str, object]:
        """Return the counters, and how the worst shard is doing."""
        shards = self.shards.all()
        reached = [each for each in shards if each.is_reached]
        fresh = min((each.lease.fresh_as_of for each in shards), default=0.0)
        problems = [link.problem for each in shards for link in each.links if not link.connection]
        return {
            "connected": bool(reached),
            "problem": (problems or [self.shards.problem] * (not shards) or [""])[0],
            "caching": any(
                each.tracked and each.tracked.connection and each.tracked.connection.tracking
                for each in shards
            ),
            "lease_age": self.clock() - fresh if fresh else None,
            "entries": len(self.cache.sessions),
            "hits": self._hits,
            "evictions": self.cache.evictions,
            "remembered_endings": len(self.endings),
            "shards": len(shards),
            "shards_reached": len(reached),
            "by_shard": {
                f"{each.primary.host}:{each.primary.port}": {
                    "connected": each.is_reached,
                    "lease_age": self.clock() - each.lease.fresh_as_of
                    if each.lease.fresh_as_of
                    else None,
                }
                for each in shards
            },
            **self.counters,
        }
