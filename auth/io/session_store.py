"""The session store on Redis or Valkey: the port `auth.ports.SessionStore`, and token revocation.

Reading is `reader`'s, on a tracked connection; everything that changes the store goes over a second
one (`_control`), on which acknowledgements come back too. Every write is idempotent, so one whose
reply was lost with its connection is simply sent again: creating finds its own record, ending finds
its own tombstone.
"""

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from functools import partial

import hiredis
import msgspec
from redis.asyncio import Redis

from auth.io.address import StoreAddress, parse_store_url
from auth.io.barrier import Barrier
from auth.io.connection import Command, Connection, Reply, StoreLost, boottime
from auth.io.expiry import expectation, tell_of_expired
from auth.io.link import Link
from auth.io.locating import close_client, command_client, open_primary
from auth.io.reader import Newcomer, OnEnded, Reader
from auth.io.records import CallAll, Stored, read_records, records_of, scan_digests
from auth.io.replay import PAGE, epoch_again, identify, ignore, mark, over_again, send_all
from auth.io.scripts import CREATE, END, EPOCH, TOUCH, UPDATE
from auth.io.seats import seat
from auth.ports import AuthUnavailable, Change, Ended, SessionSummary, TooManySessions
from auth.revocation import (
    ALL_SESSIONS,
    ENDED_CHANNEL,
    EVENTS_KEY,
    EXPIRING_FACTS_KEY,
    EXPIRING_KEY,
    LONGEST_SESSION,
    WORKERS_KEY,
    Epoch,
    ended_key,
    epoch_key,
    epoch_name,
    index_key,
    milliseconds,
    parse_epoch,
    revoked_key,
    token_name,
)
from auth.session import (
    MalformedRecord,
    SessionRecord,
    digest,
    encode_record,
    new_cookie_value,
    parse_record,
    session_key,
)
from config.model import SessionSettings

# A logout for a session nobody knows leaves a tombstone for so long only: it costs the caller
# nothing to make up cookies. Long enough for a record that is just being replicated.
UNKNOWN_FOR = 60.0
# Verifiers allow a token's clock to be off; its revocation must not end before they all refuse it.
_TOKEN_LEEWAY = 300.0
# Where an ending is told of, in the step that ends.
_TOLD = (EVENTS_KEY, EXPIRING_KEY, EXPIRING_FACTS_KEY)
BEATS_PER_LEASE = 5
"""So that a lease outlives some beats that are late or lost."""
_MOST_CHANGES = 5
"""Times that a change is made again because somebody else has made one."""


async def open_session_store(
    url: str, settings: SessionSettings, *, worker: bool
) -> "RedisSessionStore":
    """Open the store at *url* (`auth.io.address` says which forms there are).

    *worker*: keep the tracked connection, the lease and the cache; else only commands are sent, and
    every look-up asks the store. Waits a moment for the connection, but a store that is out is no
    error here: methods raise `AuthUnavailable` until it is back.

    Raises:
        StoreURLError: the URL cannot be used.
    """
    address = parse_store_url(url)
    if address.kind == "cluster":
        from auth.io.cluster_store import ClusterSessionStore  # noqa: PLC0415 - it builds on this

        store: RedisSessionStore = ClusterSessionStore(address, settings, worker=worker)
    else:
        store = RedisSessionStore(address, settings, worker=worker)
    await store.connect()
    return store


class RedisSessionStore:
    """See `open_session_store`; implements `SessionStore` and `TokenRevocations`."""

    def __init__(self, address: StoreAddress, settings: SessionSettings, *, worker: bool) -> None:
        self._address = address
        self._settings = settings
        self._worker = worker
        self._name = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self._reader = self._make_reader()
        self._closed = False
        self._identity: tuple[bytes, bytes] | None = None
        self._control_identity: tuple[bytes, bytes] | None = None
        self._control: Link
        self._barrier: Barrier
        self.commands = self._make_commands()
        # The hot path without a detour.
        self.peek = self._reader.peek
        self.find = self._reader.find
        self.ask = self._reader.ask
        self.peek_revoked = self._reader.peek_revoked
        self.is_revoked = self._reader.is_revoked
        self.follow = self._reader.follow
        self.follow_tokens = self._reader.follow_tokens
        self.silence = self._reader.silence
        self.lag = self._reader.lag
        self.wall = time.time

    def _make_reader(self) -> Reader:
        return Reader(self._settings, name=self._name)

    def _make_commands(self) -> Redis:
        """Return a client for everything that is not a session."""
        return command_client(self._address)

    async def connect(self) -> None:
        """Start the links and wait a moment for them."""
        beat = min(self._settings.lease / BEATS_PER_LEASE, 0.1)
        channel = f"doorward:acknowledged:{self._name}"
        self._control = Link(
            partial(open_primary, self._address, channel=channel, tracking=False),
            beat=beat,
            on_up=self._meet_control,
            on_tick=self._report,
        )
        self._barrier = Barrier(self._control, name=self._name, lease=self._settings.lease)
        links = [self._control]
        self._reader.link = self._control
        if self._worker:
            self._reader.link = Link(
                partial(open_primary, self._address, channel=ENDED_CHANNEL, tracking=True),
                beat=beat,
                on_up=self._meet_tracked,
                on_tick=self._reader.tick,
                on_down=self._reader.lose,
            )
            links.append(self._reader.link)
        for link in links:
            with contextlib.suppress(AuthUnavailable):  # the link has logged why
                await link.ready()

    def adopt(self, settings: SessionSettings) -> None:
        """Take up other settings from now on; but the lease, with which this store is registered.

        Sessions that exist keep their `expires_at`, and what they have left of the idle time.
        """
        self._settings = msgspec.structs.replace(settings, lease=self._settings.lease)
        self._reader.adopt(settings)

    async def close(self) -> None:
        """Give the lease back and disconnect; once is enough."""
        if self._closed:
            return
        self._closed = True
        if self._worker:
            await self._reader.link.close()
            self._reader.lose()
            # If it does not work the next ending waits for our lease once, that is all.
            with contextlib.suppress(AuthUnavailable):
                await self._call_all([("HDEL", WORKERS_KEY, self._name)])
        await self._control.close()
        await close_client(self.commands)

    async def _meet_tracked(self, connection: Connection) -> None:
        identity, _ = await identify(connection)
        replaced = self._identity is not None and identity != self._identity
        if replaced:
            await self._replay(connection)
        await self._reader.meet(connection, replaced=replaced)
        self._identity = identity

    async def _replay(self, connection: Connection) -> None:
        """Tell another server what ended: it may be a replica that never heard of it."""
        names, epochs = self._reader.endings.replay(self._reader.clock())
        commands = [
            *(command for item in names.items() for command in over_again(*item)),
            *(command for item in epochs.items() for command in epoch_again(*item)),
        ]
        await send_all(connection, commands)

    async def _meet_control(self, connection: Connection) -> None:
        connection.on_push = self._barrier.on_push
        identity, uptime = await identify(connection)
        changed = self._control_identity is not None and identity != self._control_identity
        if changed or uptime <= self._settings.lease + 2:
            self._barrier.doubt_registry(for_seconds=2 * self._settings.lease)
        self._control_identity = identity

    def _report(self, connection: Connection) -> None:
        """Tell the store, off the path of any request, what was used and what was seen first."""
        self._send_touches(connection)
        newcomers = self._reader.newcomers
        for name, newcomer in tuple(newcomers.items()):
            connection.send(expectation(name, *newcomer), partial(self._reported, name, newcomer))
            del newcomers[name]

    def _reported(self, name: str, newcomer: Newcomer, reply: Reply) -> None:
        if isinstance(reply, StoreLost):  # it may not have arrived: again
            self._reader.newcomers.setdefault(name, newcomer)

    def _send_touches(self, connection: Connection) -> None:
        """Report the use of sessions, off the path of any request; errors mean: next time."""
        idle = round(self._settings.idle_timeout * 1000)
        touches, self._reader.touches = self._reader.touches, set()
        for name in touches:
            keys = (session_key(name), ended_key(name))
            now = round(self.wall() * 1000)
            connection.send(("EVAL", TOUCH, 2, *keys, idle, now, idle // 20), ignore)
            self._reader.counters["touches"] += 1

    async def _call_all(self, commands: Sequence[Command]) -> list[Reply]:
        """Run idempotent commands in one go; all of them again if the connection broke.

        Raises:
            AuthUnavailable: no answer in time, or an error for an answer.
        """
        for _ in range(2):
            connection = await self._control.ready()
            with contextlib.suppress(StoreLost):
                futures = [connection.call(*command) for command in commands]
                replies = await asyncio.gather(*futures, return_exceptions=True)
                for reply in replies:
                    if isinstance(reply, hiredis.ReplyError):
                        raise AuthUnavailable(f"the session store answered an error: {reply}")
                    if isinstance(reply, BaseException):
                        raise reply
                return list(replies)
        raise AuthUnavailable("the session store was lost twice in a row")

    def _scans(self) -> Sequence[CallAll]:
        """Return what calls commands about all keys, once for each server that has some."""
        return (self._call_all,)

    async def create(self, record: SessionRecord) -> str:
        """Store a new session and return its cookie value; known everywhere at once.

        Raises:
            AuthUnavailable: not stored, or its subject's sessions were ended since `created_at`.
            TooManySessions: as `SessionStore.create`.
        """
        cookie = self._new_cookie_value(record.subject)
        name, now = digest(cookie), self.wall()
        created_at = _not_whole(milliseconds(record.created_at), milliseconds(now)) / 1000
        record = msgspec.structs.replace(record, created_at=created_at)
        live_for = min(self._settings.idle_timeout, record.expires_at - now)
        if live_for <= 0:
            raise ValueError("expires_at has passed")
        created, of_subject, of_all = await self._put(name, record, live_for, now)
        if not created:
            raise AuthUnavailable("the session was ended while it was being created")
        for value in (of_subject, of_all):
            assert value is None or isinstance(value, bytes)
            if parse_epoch(value).covers_session(record.created_at, name):
                raise AuthUnavailable("all sessions were ended during this sign-in: sign in again")
        await self._seat(name, record)
        return cookie

    def _new_cookie_value(self, subject: str) -> str:
        del subject
        return new_cookie_value()

    async def _put(
        self, name: str, record: SessionRecord, live_for: float, now: float
    ) -> tuple[bool, Reply, Reply]:
        """Write a new record; return whether it stands, and the values of its two epochs."""
        keys = (session_key(name), ended_key(name), EVENTS_KEY)
        facts = (encode_record(record), round(live_for * 1000), name, record.subject, now)
        index, epoch = index_key(record.subject), epoch_name("", record.subject)
        ends_at = now + live_for
        created, _, of_subject, of_all, *_ = await self._call_all(
            [
                ("EVAL", CREATE, 3, *keys, *facts),
                expectation(name, record, ends_at),
                ("GET", epoch_key(epoch)),
                ("GET", epoch_key(ALL_SESSIONS)),
                ("ZADD", index, record.expires_at, name),
                ("EXPIRE", index, LONGEST_SESSION),
            ]
        )
        return created == 1, of_subject, of_all

    async def _seat(self, name: str, record: SessionRecord) -> None:
        """Keep to `session.max_sessions`: end the oldest of the subject's sessions, or this one."""
        most, refuse = self._settings.max_sessions, self._settings.refuse_more
        if not most:
            return
        leaving = await seat(self._call_all, name, record.subject, most=most, refuse=refuse)
        for each in [name] if leaving is None else leaving:
            await self.end(each, reason="too_many_sessions")
        if leaving is None:
            raise TooManySessions(f"there are {most} sessions of this subject")

    async def update(self, digest: str, change: Change) -> bool:
        """Put what *change* makes of the record in its place; see `SessionStore.update`."""
        keys = self._keys_of(digest)
        for _ in range(_MOST_CHANGES):
            (value,) = await self._call_all([("GET", keys[0])])
            if not isinstance(value, bytes):
                return False
            try:
                record = parse_record(value)
            except MalformedRecord:
                return False
            changed = change(record)
            assert changed.subject == record.subject, "another subject is another session"
            facts = (value, encode_record(changed))
            command: Command = ("EVAL", UPDATE, len(keys), *keys, *facts)
            (done,) = await self._call_all([command])
            if done != 2:
                return bool(done)
        raise AuthUnavailable("a session's record is being changed all the time")

    def _keys_of(self, name: str) -> tuple[str, ...]:
        """Return the keys with which a record is written anew: its own, and what would forbid it.

        The second may be left out: a tombstone wins over whatever the record says.
        """
        return (session_key(name), ended_key(name))

    async def end(self, digest: str, *, reason: str) -> Ended:
        """End one session, everywhere."""
        started = boottime()
        names, alive = await self._end_records([digest], reason)
        return await self._broadcast(started, alive, names, {})

    async def end_subject(self, subject: str, *, reason: str, keep: str = "") -> Ended:
        """End every session of *subject* but *keep*, everywhere: by epoch, and one by one."""
        started = boottime()
        name = epoch_name("", subject)
        epoch = await self._set_epoch(name, keep)
        stored, complete = await records_of(self._call_all, self._scans(), subject, now=self.wall())
        if not complete:  # what counts seconds and was made in this one may have been missed
            epoch = await self._set_epoch(name, keep, after_this_second=True)
        digests = [each.digest for each in stored if each.digest != keep]
        names, alive = await self._end_records(digests, reason)
        return await self._broadcast(started, alive, names, {name: epoch.encode()})

    async def end_all(self, *, reason: str) -> Ended:
        """End every session there is: by one epoch, and then one by one, so that each is told."""
        started = boottime()
        before = await self._stored()
        epoch = await self._set_epoch(ALL_SESSIONS, "", after_this_second=True)
        covered = {
            name: epoch.covers_session(stored.record.created_at, name)
            for name, stored in before.items()
        }
        ahead = [name for name, is_covered in covered.items() if not is_covered]
        names, alive = await self._end_records(ahead, reason)
        ended = await self._broadcast(started, alive, names, {ALL_SESSIONS: epoch.encode()})
        # In force by now, also if we die here; then the rest is told when its time is over.
        others = [
            name
            for name, stored in (await self._stored()).items()
            if epoch.covers_session(stored.record.created_at, name)
        ]
        _, alive = await self._end_records(others, reason)
        return msgspec.structs.replace(ended, ended=ended.ended + alive)

    async def _stored(self) -> dict[str, Stored]:
        """Return every live record of the store."""
        digests = sorted(await scan_digests(self._scans()))
        stored, now = await read_records(self._call_all, digests), self.wall()
        return {each.digest: each for each in stored if each.record.expires_at > now}

    async def tell_of_expired(self) -> tuple[int, int]:
        """Write the events of sessions that ended by themselves; see `expiry.tell_of_expired`."""
        return await tell_of_expired(self._call_all, now=self.wall())

    async def settle(self) -> Ended:
        """Wait until all that has ended so far, by whomever, has ended everywhere.

        A worker that acknowledges has read every invalidation before that, on the same connection.
        """
        return await self._broadcast(boottime(), 0, {}, {})

    async def revoke_token(
        self, issuer: str, jti: str, expires_at: float, *, reason: str = "revoked"
    ) -> Ended:
        """Refuse the token *jti* of *issuer* from now on, everywhere."""
        started = boottime()
        name, live_for = token_name(issuer, jti), expires_at - self.wall() + _TOKEN_LEEWAY
        if live_for <= 0:
            return Ended(0, 0, 0, 0.0)
        await self._mark(name, live_for)
        await self._call_all([("SET", revoked_key(name), reason, "PX", round(live_for * 1000))])
        return await self._broadcast(started, 1, {name: live_for}, {})

    async def revoke_tokens_of(
        self, issuer: str, subject: str, *, reason: str = "revoked"
    ) -> Ended:
        """Refuse every token of *subject* that *issuer* made up to now, everywhere."""
        del reason  # an epoch has no room for one; the caller's log has it
        started = boottime()
        name = epoch_name(issuer, subject)
        await self._mark(name, LONGEST_SESSION)
        epoch = await self._set_epoch(name, "")
        return await self._broadcast(started, 1, {}, {name: epoch.encode()})

    async def _mark(self, name: str, seconds: float) -> None:
        """Say that something is revoked in the bucket of *name*; always before it is."""
        await self._call_all([mark(name, round(seconds * 1000))])

    async def _set_epoch(self, name: str, keep: str, *, after_this_second: bool = False) -> Epoch:
        if after_this_second:
            await asyncio.sleep(1 - self.wall() % 1)
        now = milliseconds(self.wall())
        values = await self._call_all(
            [("EVAL", EPOCH, 1, key, now, keep, LONGEST_SESSION) for key in self._epoch_keys(name)]
        )
        # What begins after the answer must not fall into the epoch's own millisecond.
        await asyncio.sleep(max(0.0, min((now + 1) / 1000 - self.wall(), 0.001)))
        return max(
            (parse_epoch(value if isinstance(value, bytes) else None) for value in values),
            key=lambda epoch: epoch.at,
        )

    def _epoch_keys(self, name: str) -> Sequence[str]:
        return (epoch_key(name),)

    async def _end_records(
        self, digests: Sequence[str], reason: str
    ) -> tuple[dict[str, float], int]:
        """Delete the records and leave tombstones.

        Returns:
            The digests with the seconds for which they must be remembered, and how many lived.
        """
        now = self.wall()
        limits = (round(now * 1000), round(UNKNOWN_FOR * 1000), LONGEST_SESSION * 1000)
        names: dict[str, float] = {}
        alive = 0
        for start in range(0, len(digests), PAGE):
            page = digests[start : start + PAGE]
            commands: list[Command] = []
            for name in page:
                keys = (session_key(name), ended_key(name), *_TOLD)
                commands.append(("EVAL", END, len(keys), *keys, *limits, reason, name, now))
            for name, reply in zip(page, await self._call_all(commands), strict=True):
                assert isinstance(reply, list)
                names[name] = reply[1] / 1000
                alive += reply[0]
        return names, alive

    async def _broadcast(
        self, started: float, ended: int, names: dict[str, float], epochs: dict[str, str]
    ) -> Ended:
        acknowledged, of = await self._barrier.broadcast(names, epochs, sent_at=self.wall())
        return Ended(ended, acknowledged, of, (boottime() - started) * 1000)

    async def sessions_of(self, subject: str) -> Sequence[SessionSummary]:
        """List the live sessions of *subject*, newest first."""
        now = self.wall()
        stored, _ = await records_of(self._call_all, self._scans(), subject, now=now)
        name = epoch_name("", subject)
        keys = (epoch_key(name), epoch_key(self._epoch_of_all(name)))
        epochs = [
            parse_epoch(value if isinstance(value, bytes) else None)
            for value in await self._call_all([("GET", key) for key in keys])
        ]
        live = [
            SessionSummary(name, record, now + ttl if ttl >= 0 else record.expires_at)
            for name, record, ttl in stored
            if record.expires_at > now
            and not any(epoch.covers_session(record.created_at, name) for epoch in epochs)
        ]
        return sorted(live, key=lambda each: each.record.created_at, reverse=True)

    def _epoch_of_all(self, name: str) -> str:
        """Return under which name the epoch of all sessions stands near *name*."""
        del name
        return ALL_SESSIONS

    def on_ended(self, hook: OnEnded) -> None:
        """Call *hook* with the digests of sessions that ended; None: all of them."""
        self._reader.on_ended(hook)

    def status(self) -> dict[str, object]:
        """Return what `/api/status` and the metrics show of the store: plain numbers."""
        return {"worker": self._name, **self._reader.status()}


def _not_whole(created_at: int, now: int) -> int:
    """Return *created_at* (like *now* in milliseconds), but never a whole second.

    That would say that its writer counts seconds (`Epoch.covers_session`), and we know better.
    """
    return created_at if created_at % 1000 else created_at + min(max(now - created_at, 1), 999)
