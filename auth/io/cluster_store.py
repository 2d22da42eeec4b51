"""The session store on a cluster: several stores, each with its own lease and its own barrier.

How this works. Every primary is a store as `session_store` knows it: a tracked connection with its
beats, a connection for commands, a registry of workers in a slot of its own, a channel for
broadcasts. `sharded_reader` says when a copy may be used. What is different here:

- No step spans two slots, and while a slot is being moved not even two keys of one. So an ending is
  several steps, in the order that fails closed: the intention, the tombstone, the record's
  deletion, the event, the barrier. A tombstone wins over a record, so from that step on the session
  is over. The event is told in the step that takes the session off the set of those that will
  end (`expiry`). The intention has that set's watch look at it in a few seconds: it tells of an
  ending whose ender died before that.
- The epoch of all sessions has a copy for every few slots (`all_sessions_beside`).
- The barrier is held at *every* shard: a worker may have read what ended from the shard that owned
  its slot a moment ago. A shard that cannot be asked, and any news of the map or of a shard's
  claims, cost the full wait for one lease, which is enough whatever happened.
- A new session is put on the shard of its subject's epoch, so that a shard that is down takes the
  sessions of its own subjects with it and no others'.
- Events that cannot be written, because their shard is down, are kept until it is back.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import cast

import hiredis

from auth.io.address import StoreAddress
from auth.io.barrier import MARGIN, call_twice
from auth.io.cluster_commands import ClusterCommands
from auth.io.connection import Command, Connection, Reply, StoreLost, boottime
from auth.io.expiry import blind_expectation, intention, tell_of_expired, telling
from auth.io.link import PATIENCE, Link, open_connection
from auth.io.reader import Newcomer, Reader
from auth.io.records import CallAll, read_record
from auth.io.replay import PAGE, epoch_again, identify, over_again, send_all
from auth.io.scripts import CLAIMS, ENTOMB, TOUCH
from auth.io.session_store import BEATS_PER_LEASE, UNKNOWN_FOR, RedisSessionStore
from auth.io.shard_barrier import ShardBarrier
from auth.io.sharded_reader import ShardedReader
from auth.io.shards import Shard, Shards
from auth.ports import AuthUnavailable, Ended
from auth.revocation import (
    ALL_SESSIONS,
    ENDED_CHANNEL,
    EVENTS_KEY,
    LONGEST_SESSION,
    ended_key,
    epoch_key,
    epoch_name,
    index_key,
    milliseconds,
)
from auth.session import SessionRecord, digest, encode_record, new_cookie_value, session_key
from auth.slots import (
    Claims,
    Primary,
    all_sessions_beside,
    all_sessions_everywhere,
    key_of,
    parse_claims,
    slot_of,
    slot_of_tag,
    tag_of,
)
from config.model import SessionSettings

# To find a cookie whose session is beside its subject takes as many tries as there are shards; what
# takes longer is not worth it.
_MOST_TRIES = 100
# Seconds from the intention to end a session until its tombstone stands, or the ender has given up:
# both steps have twice the patience of a command. Who takes longer was stopped in between.
_ENDER_TAKES = 5.0
_MOST_UNTOLD = 10_000
"""Commands about events that wait for their shard; beyond, the oldest are given up."""
_log = logging.getLogger("doorward.store")


class ClusterSessionStore(RedisSessionStore):
    """See `open_session_store`; `RedisSessionStore` on a cluster."""

    _reader: ShardedReader
    commands: ClusterCommands

    def __init__(self, address: StoreAddress, settings: SessionSettings, *, worker: bool) -> None:
        self._shards = Shards(address, self._open_shard, self._doubt)
        super().__init__(address, settings, worker=worker)
        self._beat = min(settings.lease / BEATS_PER_LEASE, 0.1)
        self._uncertain_until = 0.0
        self._untold: deque[Command] = deque(maxlen=_MOST_UNTOLD)

    def _make_reader(self) -> Reader:
        reader = ShardedReader(self._settings, name=self._name)
        reader.shards = self._shards
        return reader

    def _make_commands(self) -> ClusterCommands:
        return ClusterCommands(self._shards)

    # Life

    async def connect(self) -> None:
        """Find the shards and wait a moment for their links."""
        await asyncio.to_thread(tag_of, 0)  # makes the table
        await self._shards.start()

    async def close(self) -> None:
        """Give the leases back and disconnect; once is enough."""
        if self._closed:
            return
        self._closed = True
        for shard in tuple(self._shards.all()):
            if shard.tracked is not None:
                await shard.tracked.close()
                shard.lease.revoke()
                registry, control = shard.claims.registry_key, shard.control.connection
                if registry and control is not None:
                    # If it does not work the next ending waits for our lease once, that is all.
                    with contextlib.suppress(StoreLost, hiredis.ReplyError, TimeoutError):
                        async with asyncio.timeout(PATIENCE):
                            await control.call("HDEL", registry, self._name)
        await self._shards.close()
        await self.commands.close_all()

    def _open_shard(self, primary: Primary) -> Shard:
        address = self._shards.address_of(primary.host, primary.port)
        shard = Shard(primary, address, is_late=bool(self._shards.all()))
        name = f"{self._name}:{primary.node}"
        shard.control = Link(
            partial(
                open_connection, address, channel=f"doorward:acknowledged:{name}", tracking=False
            ),
            beat=self._beat,
            on_up=partial(self._meet_control_of, shard),
            on_tick=partial(self._tick_control_of, shard),
            on_down=self._shards.look_again,
        )
        shard.barrier = ShardBarrier(
            shard.control,
            shard,
            name=name,
            lease=self._settings.lease,
            learn=partial(self._learn, shard),
        )
        shard.barrier.doubt_registry(for_seconds=2 * self._settings.lease)
        if self._worker:
            channel = f"{ENDED_CHANNEL}:{primary.node}"
            shard.tracked = Link(
                partial(open_connection, address, channel=channel, tracking=True),
                beat=self._beat,
                on_up=partial(self._meet_tracked_of, shard),
                on_tick=partial(self._reader.tick_shard, shard),
                on_down=partial(self._reader.lose_shard, shard),
            )
        return shard

    def _doubt(self) -> None:
        """Slots have changed hands: a worker may hold a lease of who had them before."""
        self._uncertain_until = boottime() + 2 * self._settings.lease

    async def _meet_tracked_of(self, shard: Shard, connection: Connection) -> None:
        identity, _ = await identify(connection)
        claims = await _ask_claims(connection)
        known = shard.identities.get("tracked")
        if shard.is_late if known is None else identity != known:
            self._reader.counters["store_replaced"] += 1
            await self._replay_to(connection, claims)
        self._reader.meet_shard(shard, connection, claims)
        shard.identities["tracked"] = identity

    async def _replay_to(self, connection: Connection, claims: Claims) -> None:
        """Tell another server what ended in its slots: it may be a replica that lacks the last."""
        names, epochs = self._reader.endings.replay(self._reader.clock())
        of_all = epochs.pop(ALL_SESSIONS, None)
        if of_all is not None:
            epochs |= dict.fromkeys(all_sessions_everywhere(), of_all)
        again = (
            *(command for item in names.items() for command in over_again(*item)),
            *(command for item in epochs.items() for command in epoch_again(*item)),
        )
        # A mark and what it stands for may belong to different shards.
        await send_all(
            connection, (each for each in again if claims.stable[slot_of(key_of(each) or "")])
        )

    async def _meet_control_of(self, shard: Shard, connection: Connection) -> None:
        connection.on_push = shard.barrier.on_push
        identity, uptime = await identify(connection)
        known = shard.identities.get("control", identity)
        if identity != known or uptime <= self._settings.lease + 2:
            shard.barrier.doubt_registry(for_seconds=2 * self._settings.lease)
        shard.identities["control"] = identity
        self._learn(shard, await _ask_claims(connection))

    def _tick_control_of(self, shard: Shard, connection: Connection) -> None:
        connection.send(("EVAL", CLAIMS, 0), partial(self._told_claims, shard, connection), bytes)
        self._report(connection)

    def _told_claims(self, shard: Shard, connection: Connection, reply: Reply) -> None:
        if isinstance(reply, bytes):
            try:
                self._learn(shard, parse_claims(reply))
            except ValueError:
                connection.close()
            except AuthUnavailable:  # it is a replica now
                connection.close()
                self._shards.look_again()

    def _learn(self, shard: Shard, claims: Claims) -> None:
        """Take what *shard* claims, and doubt its registry if that is news.

        Raises:
            AuthUnavailable: it is no primary.
        """
        if not claims.is_primary:
            raise AuthUnavailable("the server is a replica: the store needs its primary")
        if claims.text != shard.claims.text:
            shard.claims = claims
            shard.barrier.doubt_registry(for_seconds=2 * self._settings.lease)
            self._shards.look_again()

    # Commands

    async def _call_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Run idempotent commands, each where its key is; those sent elsewhere once more."""
        replies: list[Reply] = []
        for start in range(0, len(commands), PAGE):
            replies += await self._call_page(commands[start : start + PAGE])
        return replies

    async def _call_page(self, commands: Sequence[Command]) -> list[Reply]:
        sent = [self._send(command) for command in commands]
        replies = await asyncio.gather(*sent, return_exceptions=True)
        again = [number for number, reply in enumerate(replies) if _is_unanswered(reply)]
        calls = (self._shards.call(commands[number]) for number in again)
        for number, reply in zip(again, await asyncio.gather(*calls), strict=True):
            replies[number] = reply
        return list(replies)

    def _send(self, command: Command) -> "asyncio.Future[Reply]":
        with contextlib.suppress(StoreLost):
            link = self._shards.owner(slot_of(key_of(command) or "")).control
            if link.connection is not None:
                return link.connection.call(*command)
        nowhere: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        nowhere.set_exception(StoreLost("not connected"))
        return nowhere

    def _scans(self) -> Sequence[CallAll]:
        return [partial(_call_at, shard.control) for shard in self._shards.all()]

    def _report(self, connection: Connection) -> None:
        """Tell the store what was used and what was seen first; each goes to its own shard."""
        del connection
        idle = round(self._settings.idle_timeout * 1000)
        touches, self._reader.touches = self._reader.touches, set()
        now = round(self.wall() * 1000)
        for name in touches:
            # While its slot is being moved: next time.
            touch = ("EVAL", TOUCH, 1, session_key(name), idle, now, idle // 20)
            self._send(touch).add_done_callback(_look_at)
            self._reader.counters["touches"] += 1
        newcomers = self._reader.newcomers
        for name, newcomer in tuple(newcomers.items()):
            del newcomers[name]
            sent = self._send(blind_expectation(name, *newcomer))
            sent.add_done_callback(partial(self._report_again, name, newcomer))
        for _ in range(len(self._untold)):
            command = self._untold.popleft()
            self._send(command).add_done_callback(partial(self._tell_again, command))

    def _report_again(self, name: str, newcomer: Newcomer, sent: "asyncio.Future[Reply]") -> None:
        if not sent.cancelled() and sent.exception() is not None:
            self._reader.newcomers.setdefault(name, newcomer)

    def _tell_again(self, command: Command, sent: "asyncio.Future[Reply]") -> None:
        if not sent.cancelled() and sent.exception() is not None:
            self._untold.append(command)

    async def tell_of_expired(self) -> tuple[int, int]:
        """Write the events of sessions that ended by themselves; see `expiry.tell_of_expired`."""
        return await tell_of_expired(self._call_apart, now=self.wall())

    async def _call_apart(self, commands: Sequence[Command]) -> list[Reply]:
        """Call *commands*, and what reads several keys key by key: half may have been moved."""
        parts = [command[1:] if command[0] == "MGET" else () for command in commands]
        reads: list[Command] = [("MGET", key) for keys in parts for key in keys]
        values = iter(await self._call_all(reads))
        others = iter(await self._call_all([c for c in commands if c[0] != "MGET"]))
        return [
            [value for _ in keys for value in cast("list[Reply]", next(values))]
            if keys
            else next(others)
            for keys in parts
        ]

    # What the sessions' methods do otherwise here

    def _new_cookie_value(self, subject: str) -> str:
        """Return a cookie value whose session is on the shard of its subject, as a rule."""
        cookie = new_cookie_value()
        with contextlib.suppress(StoreLost):
            home = self._shards.owner(slot_of_tag(epoch_name("", subject)))
            for _ in range(_MOST_TRIES):
                name = digest(cookie)
                slots = (slot_of_tag(name), slot_of_tag(all_sessions_beside(name)))
                if all(self._shards.owner(slot) is home for slot in slots):
                    break
                cookie = new_cookie_value()
        return cookie

    async def _put(
        self, name: str, record: SessionRecord, live_for: float, now: float
    ) -> tuple[bool, Reply, Reply]:
        key, value = session_key(name), encode_record(record)
        index, epoch = index_key(record.subject), epoch_name("", record.subject)
        put = ("SET", key, value, "NX", "PX", round(live_for * 1000))
        (written,) = await self._call_all([put])
        held, ended, of_subject, of_all, *_ = await self._call_all(
            [
                ("GET", key),
                ("EXISTS", ended_key(name)),
                ("GET", epoch_key(epoch)),
                ("GET", epoch_key(self._epoch_of_all(name))),
                ("ZADD", index, record.expires_at, name),
                ("EXPIRE", index, LONGEST_SESSION),
            ]
        )
        # Not written: perhaps by an earlier try whose reply was lost.
        created = not ended and (written is not None or held == value)
        if created:
            fields = ("event", "session.started", "session", name, "subject", record.subject)
            event: Command = (*fields, "reason", "", "at", now)
            add: Command = ("XADD", EVENTS_KEY, "MAXLEN", "~", 100_000, "*", *event)
            await self._tell([blind_expectation(name, record, now + live_for), add])
        return created, of_subject, of_all

    async def _end_records(
        self, digests: Sequence[str], reason: str
    ) -> tuple[dict[str, float], int]:
        """Leave tombstones and delete the records, each step when the one before was answered."""
        names: dict[str, float] = {}
        alive = 0
        for start in range(0, len(digests), PAGE):
            page = digests[start : start + PAGE]
            reads: list[Command] = []
            for name in page:
                key = session_key(name)
                reads += [("MGET", key), ("PTTL", key), ("EXISTS", ended_key(name))]
            replies = await self._call_all(reads)
            found = [
                _Ending(name, *replies[3 * number : 3 * number + 3], now=self.wall())
                for number, name in enumerate(page)
            ]
            told = [each for each in found if each.record is not None and each.is_live]
            await self._tell([each.intention(self.wall()) for each in told])
            longest = LONGEST_SESSION * 1000
            tombs: list[Command] = [
                ("EVAL", ENTOMB, 1, ended_key(each.name), reason, each.left, longest)
                for each in found
            ]
            for each, reply in zip(found, await self._call_all(tombs), strict=True):
                assert isinstance(reply, list)
                names[each.name] = reply[1] / 1000
                alive += bool(each.is_live and reply[0])
            await self._call_all([("DEL", session_key(name)) for name in page])
            await self._tell([telling(each.name, self.wall(), reason) for each in told])
        return names, alive

    async def _tell(self, commands: Sequence[Command]) -> None:
        """Write about events, if their shard is there; it is not what an ending rests on."""
        try:
            await self._call_all(commands)
        except AuthUnavailable as error:
            self._untold.extend(commands)
            _log.warning("an event is told when its shard is back: %s", error)

    def _keys_of(self, name: str) -> tuple[str, ...]:
        return (session_key(name),)  # while their slot is moved, two keys may be at two servers

    def _epoch_keys(self, name: str) -> Sequence[str]:
        if name != ALL_SESSIONS:
            return (epoch_key(name),)
        return [epoch_key(copy) for copy in all_sessions_everywhere()]

    def _epoch_of_all(self, name: str) -> str:
        return all_sessions_beside(name)

    async def _broadcast(
        self, started: float, ended: int, names: dict[str, float], epochs: dict[str, str]
    ) -> Ended:
        """Hold the barrier at every shard; wait in full if one of them cannot say who is there."""
        executed_at, sent_at = boottime(), self.wall()
        barriers = [shard.barrier for shard in self._shards.all()]
        told = await asyncio.gather(
            *(barrier.tell(names, epochs, sent_at=sent_at) for barrier in barriers),
            return_exceptions=True,
        )
        workers: set[bytes] = set()
        silent: set[bytes] = set()
        failures: list[AuthUnavailable] = []
        for each in told:
            if isinstance(each, AuthUnavailable):
                failures.append(each)
            elif isinstance(each, BaseException):
                raise each
            else:
                workers.update(each[0])
                silent.update(each[1])
        if len(failures) == len(told):
            raise failures[0] if failures else AuthUnavailable("the cluster cannot be reached")
        if failures or executed_at < self._uncertain_until:
            longest = max(barrier.longest for barrier in barriers) + MARGIN
            await asyncio.sleep(max(0.0, executed_at + longest - boottime()))
        took = (boottime() - started) * 1000
        return Ended(ended, len(workers - silent), len(workers), took)


class _Ending:
    """What is known of a session that is to end: the reckoning of `scripts.END`."""

    def __init__(self, name: str, values: Reply, ttl: Reply, ended: Reply, *, now: float) -> None:
        assert isinstance(values, list)
        assert isinstance(ttl, int)
        self.name = name
        self.record = read_record(values[0])
        self.left = round(UNKNOWN_FOR * 1000)
        self.is_live = False
        if ttl == -2:
            return
        expires = None
        if self.record is not None:
            expires = milliseconds(self.record.expires_at) - milliseconds(now)
        elif ttl < 0:
            ttl = LONGEST_SESSION * 1000
        self.left = min(max(self.left, ttl, expires or 0), LONGEST_SESSION * 1000)
        self.is_live = not ended and (expires is None or expires > 0)

    def intention(self, now: float) -> Command:
        """Return what has its end told by the watch, should we not come to it."""
        assert self.record is not None
        return intention(self.name, self.record, now + _ENDER_TAKES)


def _is_unanswered(reply: Reply) -> bool:
    return isinstance(reply, StoreLost | hiredis.ReplyError)


async def _call_at(link: Link, commands: Sequence[Command]) -> list[Reply]:
    return [await call_twice(link.ready, command) for command in commands]


async def _ask_claims(connection: Connection) -> Claims:
    async with asyncio.timeout(PATIENCE):
        reply = await connection.call("EVAL", CLAIMS, 0, expect=bytes)
    assert isinstance(reply, bytes)
    return parse_claims(reply)


def _look_at(future: "asyncio.Future[Reply]") -> None:
    """Have looked at what a touch answered; asyncio complains of an error that nobody saw."""
    if not future.cancelled():
        future.exception()
