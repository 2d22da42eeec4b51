"""Reading one verdict from several shards: `flight`, with a lease for every reply.

A reply counts with the lease of the shard that gave it, as that lease was when it came; what was
read from a slot that its shard hands over is told and not kept. A read that a shard sends elsewhere
(MOVED, ASK), or whose connection breaks, is made again by a flight of its own (`through`) that
follows redirections on the command connections. It has no ticket, nobody joins it, and nothing is
kept of it.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from auth.io.connection import Command, Connection, OnReply, Reply, StoreLost
from auth.io.flight import BYTES, Expected, Flight, Reading, SessionFlight, TokenFlight
from auth.io.session_cache import Entry, Lease
from auth.io.sharded_cache import ShardedCache, are_live
from auth.io.shards import Shard, Shards
from auth.revocation import bucket_key, ended_key, parse_epoch, revoked_key
from auth.session import session_key
from auth.slots import all_sessions_beside, slot_of

NO_CONNECTION: Callable[[str], Connection] = cast("Any", None)
"""Flights over shards find their connections themselves."""


class ShardedReading(Reading, Protocol):
    """What flights need of a store that is a cluster."""

    shards: Shards

    @property
    def cache(self) -> ShardedCache:
        """Return where verdicts are kept."""
        ...

    def lease_over(self, shard: Shard, slot: int) -> Lease | None:
        """Return the lease under which *shard* tells of *slot* now; None: it hands it over."""
        ...

    def lost_if_elsewhere(self, reply: Reply) -> Reply:
        """Turn a redirection into `StoreLost`: what it redirects has not been executed."""
        ...


class OverShards(Flight):
    """What flights over several shards do otherwise."""

    _reading: ShardedReading
    through: Shards | None = None
    """Follow redirections through these, and keep nothing."""

    def __init__(self, reading: ShardedReading, what: Any, *_: object) -> None:
        super().__init__(reading, what, NO_CONNECTION)
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


class ShardedSessionFlight(OverShards, SessionFlight):
    """Reads whether a session is live, key by key: half of a slot may have moved already."""

    def _read(self) -> None:
        name = self._name
        self._of_all = all_sessions_beside(name)
        record, tombstone = session_key(name), ended_key(name)
        # The record first: ending leaves the tombstone before it takes the record away.
        self._ask(record, ("MGET", record), self._put_value, list)
        self._ask(tombstone, ("MGET", tombstone), self._put_tombstone, list)
        self._ask(record, ("PTTL", record), self._put_ttl, int)
        self._ask_epochs()

    def _put_value(self, reply: Reply) -> None:
        assert isinstance(reply, list)
        (self._value,) = reply

    def _put_tombstone(self, reply: Reply) -> None:
        assert isinstance(reply, list)
        (self._tombstone,) = reply


class ShardedTokenFlight(OverShards, TokenFlight):
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
