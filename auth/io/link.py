"""A link to one server of the store: connected, watched, and connected again when it breaks.

A server that takes longer than `PATIENCE` for the oldest command is as good as gone: the connection
is dropped and everybody is told, so nobody waits without bound. While the last try to connect has
failed the link is `failing` and callers are refused at once; a break by itself is no failure, the
callers of that moment wait for the next try.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import hiredis

from auth.io.address import StoreAddress
from auth.io.connection import Connection, StoreLost, boottime
from auth.io.tasks import stop
from auth.ports import AuthUnavailable

PATIENCE = 0.8
"""Seconds that the oldest command in flight may take."""
_TURNS = 3
"""Turns of the loop: in one the question is written, in the next one the answer is read."""
_HANDSHAKE = 0.5
"""Seconds for what `_HANDSHAKE_TURNS` counts in turns."""
_HANDSHAKE_TURNS = 8 * _TURNS
"""To connect, by TLS if need be, and to ask four questions."""
# To tell a new primary of 100,000 endings takes seconds; each part of it has `PATIENCE`.
_GREETING = 30.0
# A store that is back must be in use within a second, also after a long time away.
_BACKOFF = (0.0, 0.02, 0.05, 0.1, 0.2)

# Before, an invalidation may come in the middle of a reply (redis/redis#8935): an MGET of a record
# that has just expired is answered with one element too many.
_TRACKS_SINCE = (6, 2, 7)

_EXPECTED = (OSError, StoreLost, hiredis.HiredisError, AuthUnavailable)
_log = logging.getLogger("doorward.store")


async def open_connection(address: StoreAddress, *, channel: str, tracking: bool) -> Connection:
    """Connect to the one server at *address*, sign in, track, subscribe to *channel*.

    A server or proxy that cannot track, or not well (Redis before 6.2.7), still gets a connection:
    `Connection.tracking` is False.

    Raises:
        OSError, StoreLost, hiredis.ReplyError: it did not work out.
    """
    loop = asyncio.get_running_loop()
    if address.path:
        _, connection = await loop.create_unix_connection(Connection, address.path)
    else:
        host, port = address.hosts[0]
        _, connection = await loop.create_connection(
            Connection, host, port, ssl=address.tls_context()
        )
    try:
        version = await _greet(connection, address)
        if tracking and version >= _TRACKS_SINCE:
            with contextlib.suppress(hiredis.ReplyError):
                await connection.call("CLIENT", "TRACKING", "ON")
                connection.tracking = True
        if channel:
            await connection.call("SUBSCRIBE", channel)
    except BaseException:
        connection.close()
        raise
    return connection


async def _greet(connection: Connection, address: StoreAddress) -> tuple[int, ...]:
    """Sign in, and return the server's version; () if it is none that we can read."""
    hello: list[str] = ["HELLO", "3"]
    if address.password:
        hello += ["AUTH", address.username or "default", address.password]
    greeting = await connection.call(*hello, expect=dict)
    if address.database:
        await connection.call("SELECT", address.database)
    assert isinstance(greeting, dict)
    version = greeting.get(b"version")
    parts = version.split(b".") if isinstance(version, bytes) else []
    return tuple(map(int, parts)) if all(map(bytes.isdigit, parts)) else ()


async def _waits_in_vain(connection: Connection) -> bool:
    """Tell whether the server has not answered the oldest command in time.

    A loop that is busy asks late, and before it has read what came meanwhile: a worker with too
    much to do would take its store for dead, and refuse everybody who is signed in. So what is
    there is read first, which a turn of the loop does; where a turn takes longer than `PATIENCE`,
    the next command has waited as long by then, and only the same one being there still counts.
    """
    oldest = connection.oldest
    for _ in range(_TURNS):
        if connection.oldest is not oldest or connection.oldest_wait(boottime()) <= PATIENCE:
            return False
        await asyncio.sleep(0)
    return connection.oldest is oldest


async def _in_time(connecting: Coroutine[Any, Any, Connection]) -> Connection:
    """Return the connection that *connecting* opens within `_HANDSHAKE` seconds.

    On a loop that is busy it may take as many turns as it needs, see `_waits_in_vain`.

    Raises:
        TimeoutError: it takes longer. Whatever *connecting* raises.
    """
    task = asyncio.create_task(connecting)
    try:
        await asyncio.wait((task,), timeout=_HANDSHAKE)
        for _ in range(_HANDSHAKE_TURNS):
            if task.done():
                break
            await asyncio.sleep(0)
        else:
            await stop(task)
    except BaseException:
        await stop(task)
        if not task.cancelled() and task.exception() is None:
            task.result().close()
        raise
    if task.cancelled():
        raise TimeoutError(f"not connected within {_HANDSHAKE} s")
    return task.result()


class Link:
    """Keeps one connection that *connect* opens, until `close`.

    *on_up* is called with each new connection before anybody else may use it,
    and may await; *on_tick* every *beat* seconds while connected; *on_down* after a loss.
    """

    def __init__(
        self,
        connect: Callable[[], Coroutine[Any, Any, Connection]],
        *,
        beat: float,
        on_up: Callable[[Connection], Awaitable[None]],
        on_tick: Callable[[Connection], None] = lambda _: None,
        on_down: Callable[[], None] = lambda: None,
    ) -> None:
        self.connection: Connection | None = None
        self.failing = False
        self.problem = "not connected yet"
        self._connect = connect
        self._beat = beat
        self._on_up = on_up
        self._on_tick = on_tick
        self._on_down = on_down
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def ready(self, patience: float = PATIENCE) -> Connection:
        """Return the connection; wait for it if it just broke.

        Raises:
            AuthUnavailable: the last try to connect failed, or it takes longer than *patience*.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self.connection is None and not self.failing:
                    await self._changed.wait()
        return self.now_or_refuse()

    def now_or_refuse(self) -> Connection:
        """Return the connection, or raise `AuthUnavailable` if there is none at this moment."""
        if self.connection is None:
            raise AuthUnavailable(f"the session store cannot be reached: {self.problem}")
        return self.connection

    async def close(self) -> None:
        """Disconnect for good."""
        await stop(self._task)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                connection = await _in_time(self._connect())
                try:
                    await self._use(connection)
                    failures = 0
                finally:
                    connection.close()
            except Exception as error:  # noqa: BLE001 - a link that gives up is an outage for good
                failures += 1
                self._fail(error)
                pause = _BACKOFF[min(failures, len(_BACKOFF)) - 1]
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _use(self, connection: Connection) -> None:
        """Use *connection* until it is lost; raise whatever keeps it from being any good."""
        gone = asyncio.Event()

        def lose() -> None:
            gone.set()
            if self.connection is connection:
                self.connection = None
                self._on_down()

        connection.on_lost = lose
        async with asyncio.timeout(_GREETING):
            await self._on_up(connection)
        if gone.is_set():
            raise StoreLost("the connection to the store was lost at once")
        self.connection, self.failing = connection, False
        self._signal()
        while not gone.is_set():
            with contextlib.suppress(StoreLost):
                self._on_tick(connection)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._beat):
                    await gone.wait()
            if await _waits_in_vain(connection):
                self._fail(TimeoutError(f"no answer for {PATIENCE} s"))
                connection.close()

    def _fail(self, error: Exception) -> None:
        problem = str(error) or type(error).__name__
        if not self.failing:
            trace = None if isinstance(error, _EXPECTED) else error
            _log.warning("the session store cannot be used: %s", problem, exc_info=trace)
        self.failing, self.problem = True, problem
        self._signal()

    def _signal(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
