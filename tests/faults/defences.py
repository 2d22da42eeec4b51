"""The session store with one of its defences taken out: what the histories must then find.

Only tests take a defence out, and from outside: the product has no switch for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from auth.decision import Reason
from auth.io.address import parse_store_url
from auth.io.connection import Connection
from auth.io.endings import Endings
from auth.io.session_cache import SessionCache
from auth.io.session_store import RedisSessionStore
from auth.ports import AuthUnavailable
from auth.revocation import Epoch
from auth.session import SessionRecord, encode_record, session_key
from config.model import SessionSettings

# Longer than the leases of the histories: what such a push would have said comes too late.
_LATE = 0.15


class TicketlessCache(SessionCache):
    """A read under way is kept although its keys changed meanwhile."""

    def drop(self, name: str) -> bool:
        flight = self.flights.get(name)
        was_live = super().drop(name)
        if flight is not None:
            self.flights[name] = flight
        return was_live


class WithoutTicket(RedisSessionStore):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._reader.cache = TicketlessCache()


class WithoutOrder(RedisSessionStore):
    """Pushes come by another way than replies and beats, and that way is slow."""

    async def _meet_tracked(self, connection: Connection) -> None:
        await super()._meet_tracked(connection)
        loop, on_push = asyncio.get_running_loop(), connection.on_push
        connection.on_push = lambda push: void(loop.call_later(_LATE, on_push, push))


class EndlessLease(SessionCache):
    @property
    def lease_until(self) -> float:
        return float("inf")

    @lease_until.setter
    def lease_until(self, until: float) -> None:
        pass


class WithoutLease(RedisSessionStore):
    """A copy is good until somebody says otherwise."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._reader.cache = EndlessLease()


class WithoutBarrier(RedisSessionStore):
    """A logout answers when the workers have been told, not when they have heard."""

    async def connect(self) -> None:
        await super().connect()

        async def wait_for_nobody(*_: object, **__: object) -> dict[bytes, bytes]:
            return {}

        self._barrier._wait = wait_for_nobody  # type: ignore[method-assign]


class WithBlindTouch(RedisSessionStore):
    """A touch writes back the record that was used, instead of extending what is there."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._used: dict[str, SessionRecord] = {}
        peek = self.peek

        def remember(digest: str) -> SessionRecord | None:
            record = peek(digest)
            if record is not None:
                self._used[digest] = record
            return record

        self.peek = remember

    def _send_touches(self, connection: Connection) -> None:
        touches, self._reader.touches = self._reader.touches, set()
        idle = round(self._settings.idle_timeout * 1000)
        for name in touches & self._used.keys():
            value = encode_record(self._used[name])
            connection.send(("SET", session_key(name), value, "PX", idle), void)


class NoMemory(Endings):
    """Remembers nothing."""

    def __contains__(self, name: str) -> bool:
        return False

    def add(self, name: str, until: float) -> None:
        pass

    def vanish(self, name: str, now: float) -> None:
        pass

    def add_epoch(self, name: str, epoch: Epoch) -> Epoch:
        return epoch

    def epoch_of(self, name: str, epoch: Epoch) -> Epoch:
        return epoch


class WithoutMemory(RedisSessionStore):
    """What ended is known to the store alone."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._reader.endings = NoMemory()


class WithoutMarks(RedisSessionStore):
    """A token is revoked, and its bucket is not marked before."""

    async def _mark(self, name: str, seconds: float) -> None:
        pass


class WithOldCopies(RedisSessionStore):
    """A new connection goes on with what was cached on the one before."""

    async def _meet_tracked(self, connection: Connection) -> None:
        cache = self._reader.cache
        cache.clear = void  # type: ignore[method-assign]
        try:
            await super()._meet_tracked(connection)
        finally:
            del cache.clear


class WithOutagesAsAbsence(RedisSessionStore):
    """A store that does not answer is taken for one that knows no such session."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        find = self.find

        async def guess(digest: str, *, serve_cached: float = 0.0) -> SessionRecord | str:
            try:
                return await find(digest, serve_cached=serve_cached)
            except AuthUnavailable:
                return Reason.SESSION_UNKNOWN

        self.find = guess


def opener_of(
    kind: type[RedisSessionStore],
) -> Callable[[str, SessionSettings], Awaitable[RedisSessionStore]]:
    """Return what opens a store of *kind* as a worker does."""
    return partial(_open, kind)


async def _open(
    kind: type[RedisSessionStore], url: str, settings: SessionSettings
) -> RedisSessionStore:
    store = kind(parse_store_url(url), settings, worker=True)
    await store.connect()
    return store


def void(*_: object) -> None:
    """Do nothing."""
