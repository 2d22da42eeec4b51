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

`sharded_cache` holds the copies, `sharded_flight` reads them.
"""

from functools import partial

import hiredis

from auth.io.connection import Connection, Reply, StoreLost
from auth.io.flight import TOUCH_EVERY, SessionFlight
from auth.io.reader import NOT_PRIMARY, FlightOver, Reader
from auth.io.scripts import CLAIMS, SHARD_BEAT
from auth.io.session_cache import Lease, Verdict
from auth.io.sharded_cache import ShardedCache, ShardedEndings
from auth.io.sharded_flight import (
    NO_CONNECTION,
    OverShards,
    ShardedSessionFlight,
    ShardedTokenFlight,
)
from auth.io.shards import Shard, Shards
from auth.revocation import TokenRef, bucket_of, epoch_name
from auth.session import SessionRecord
from auth.slots import REDIRECTS, Claims, ClusterAnswerError, parse_claims, slot_of_tag
from config.model import SessionSettings


class ShardedReader(Reader):
    """The reading half of a store that is a cluster. `shards` must be set, once."""

    _session_flight = ShardedSessionFlight
    _token_flight = ShardedTokenFlight
    cache: ShardedCache

    def __init__(self, settings: SessionSettings, *, name: str) -> None:
        super().__init__(settings, name=name)
        self.cache = ShardedCache(sessions=settings.cache_size)
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

    def _new_flight(self, digest: str) -> SessionFlight | None:
        return ShardedSessionFlight(self, digest)

    async def _launch_again(self, flight_over: FlightOver) -> Verdict:
        """Read once more, following redirections: a shard sent us elsewhere."""
        flight = flight_over(NO_CONNECTION)
        assert isinstance(flight, OverShards)
        flight.through = self.shards
        return await flight.launch()

    async def _launch(self, flight_over: FlightOver) -> Verdict:
        return await flight_over(NO_CONNECTION).launch()

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

    def _is_known_clean(self, token: TokenRef, now: float) -> bool:
        buckets = (bucket_of(token.name), bucket_of(token.epoch))
        known = all(self.cache.is_clean(bucket, now) for bucket in buckets)
        return known and self._is_clean(token)

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
