"""The connections to one upstream: which endpoint, which connection, and when to give up on either.

How this works: an `UpstreamPool` has one `EndpointPool` for each endpoint. `choose` names the
endpoint for a request, by the upstream's `balance`, among those that are healthy; when none is,
among all: the last endpoint is never ejected. Idle connections are taken newest first, so that
spares grow old and are closed; an old one is never given to a request that must not be repeated,
because the upstream may be closing it at this moment (RFC 9112 9.3.1).
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Collection
from typing import Protocol

from auth.decision import Reason
from config.model import Endpoint, Upstream
from gateway.io.listening import KEEPALIVE
from gateway.io.upstream import UpstreamConnection
from gateway.response_reading import ResponseReader

IDLE_LIMIT = 256
"""Idle connections kept for an endpoint, per worker."""

IDLE_SECONDS = 30.0
"""Age at which an idle connection is closed; many servers close theirs after 5 to 75 s."""

FRESH_SECONDS = 1.0
"""How long a connection may have idled to carry a request that must not be sent twice.

Shorter than the keep-alive time of the usual servers (2 s gunicorn, 5 s Node and uvicorn).
"""

EJECT_AFTER = 3
"""Failed connects in a row after which an endpoint is left out for a while."""

EJECT_SECONDS = 5.0
"""For which an endpoint that failed gets no requests while another one is there."""


class ConnectFailed(Exception):
    """No connection to an endpoint could be made; `reason` says which kind of failure."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Admitted(Protocol):
    """What is admitted to an upstream: an exchange."""

    admitted: bool
    """Whether it counts among the requests that are with the upstream."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended meanwhile."""
        ...


class EndpointPool:
    """The connections to one endpoint."""

    def __init__(
        self, endpoint: Endpoint, connect_timeout: float, tls: ssl.SSLContext | None
    ) -> None:
        self.endpoint = endpoint
        self.healthy = True
        """What the active health check says; true when there is none."""
        self.in_flight = 0
        self.open: set[UpstreamConnection] = set()
        self.heads = ResponseReader()
        self._idle: dict[UpstreamConnection, None] = {}
        """In the order of their last use."""
        self._connect_timeout = connect_timeout
        self._tls = tls
        self._failures = 0
        self._ejected_until = 0.0
        self._retired = False
        self._loop = asyncio.get_running_loop()

    @property
    def is_available(self) -> bool:
        """Whether requests should go here while another endpoint could take them."""
        return self.healthy and (
            self._failures < EJECT_AFTER or self._loop.time() >= self._ejected_until
        )

    def take_idle(self, *, repeatable: bool) -> UpstreamConnection | None:
        """Return the idle connection used last; None if there is none fit for the request."""
        idle = self._idle
        if not idle:
            return None
        connection, _ = idle.popitem()
        if not repeatable and self._loop.time() - connection.idle_since > FRESH_SECONDS:
            idle[connection] = None
            return None
        self.in_flight += 1
        return connection

    async def connect(self) -> UpstreamConnection:
        """Return a new connection.

        Raises:
            ConnectFailed: refused, unreachable, not trusted, or slower than the upstream's
                `timeouts.connect`.
        """
        self.in_flight += 1
        try:
            async with asyncio.timeout(self._connect_timeout):
                connection = await self._open()
        except TimeoutError as error:
            self._count_failure()
            raise ConnectFailed(Reason.UPSTREAM_TIMEOUT, "no connection in time") from error
        except (OSError, ssl.SSLError) as error:
            self._count_failure()
            raise ConnectFailed(Reason.UPSTREAM_UNREACHABLE, str(error)) from error
        self._failures = 0
        return connection

    def _count_failure(self) -> None:
        self.in_flight -= 1
        self._failures += 1
        self._ejected_until = self._loop.time() + EJECT_SECONDS

    async def _open(self) -> UpstreamConnection:
        endpoint = self.endpoint
        if endpoint.scheme == "unix":
            _, connection = await self._loop.create_unix_connection(
                lambda: UpstreamConnection(self), endpoint.host
            )
        else:
            _, connection = await self._loop.create_connection(
                lambda: UpstreamConnection(self),
                endpoint.host,
                endpoint.port,
                ssl=self._tls,
                server_hostname=endpoint.host if self._tls else None,
            )
            # asyncio's own sockets have it off, and without it an upstream that vanished behind a
            # firewall is waited for as long as an endless answer may last.
            transport = connection.transport
            accessible = transport.get_extra_info("socket") if transport is not None else None
            if accessible is not None:
                accessible.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in KEEPALIVE:
                    accessible.setsockopt(socket.IPPROTO_TCP, option, value)
        return connection

    def retire(self) -> None:
        """Close what is idle now and the rest when its exchange ends."""
        self._retired = True
        for connection in tuple(self._idle):
            connection.close()

    def close_aged(self, now: float) -> None:
        """Close what has idled for too long; *now* is the loop's time."""
        for connection in tuple(self._idle):
            if now - connection.idle_since <= IDLE_SECONDS:
                break
            connection.close()

    # What the connections call -------------------------------------------------------------------

    def opened(self, connection: UpstreamConnection) -> None:
        """Count *connection*."""
        self.open.add(connection)

    def release(self, connection: UpstreamConnection) -> None:
        """Take back *connection*, which has come to a clean end."""
        if self._retired or len(self._idle) >= IDLE_LIMIT:
            connection.close()
            return
        connection.idle_since = self._loop.time()
        self._idle[connection] = None

    def put_back(self, connection: UpstreamConnection) -> None:
        """Take back *connection*, made or taken for an exchange that never used it."""
        self.ended()
        if connection.transport is not None and not connection.transport.is_closing():
            self.release(connection)

    def ended(self) -> None:
        """Count an exchange that ended, well or not."""
        self.in_flight -= 1

    def forget_idle(self, connection: UpstreamConnection) -> None:
        """Give *connection* to nobody any more."""
        self._idle.pop(connection, None)

    def closed(self, connection: UpstreamConnection) -> None:
        """Forget *connection*."""
        self.open.discard(connection)
        self._idle.pop(connection, None)


class UpstreamPool:
    """The connections to one upstream."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        tls = _tls_context() if any(e.scheme == "https" for e in upstream.endpoints) else None
        self.endpoints = tuple(
            EndpointPool(
                endpoint, upstream.timeouts.connect, tls if endpoint.scheme == "https" else None
            )
            for endpoint in upstream.endpoints
        )
        self._next = 0
        self.requests = 0
        """Admitted, and not yet over."""
        self._queue: deque[asyncio.Future[None]] = deque()

    def admit(self, request: Admitted) -> bool:
        """Count *request* among those with the upstream, if there is room for one more."""
        if self.requests >= self.upstream.limits.requests:
            return False
        self.requests += 1
        request.admitted = True
        return True

    async def admit_later(self, request: Admitted) -> bool:
        """As `admit`, but wait a while for room, if not too many do already."""
        if self.admit(request):
            return True
        limits = self.upstream.limits
        if len(self._queue) >= limits.queue:
            return False
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.queue_timeout):
                await turn
        if turn.cancelled():
            with contextlib.suppress(ValueError):  # `leave` may have passed over it already
                self._queue.remove(turn)
            return False
        # `leave` has passed a place on to this one.
        request.admitted = True
        if request.is_over:
            self.leave(request)
        return request.admitted

    def leave(self, request: Admitted) -> None:
        """Let the next one in: *request* is over, or speaks another protocol from now on."""
        if not request.admitted:
            return
        request.admitted = False
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.requests -= 1

    def choose(self, tried: Collection[EndpointPool] = ()) -> EndpointPool:
        """Return the endpoint for the next request, another one than those *tried* if there is."""
        endpoints = self.endpoints
        if len(endpoints) == 1:
            return endpoints[0]
        untried = [pool for pool in endpoints if pool not in tried] or list(endpoints)
        candidates = [pool for pool in untried if pool.is_available] or untried
        # Turning the list makes equals take turns.
        self._next += 1
        turn = self._next % len(candidates)
        if self.upstream.balance == "round_robin":
            return candidates[turn]
        turned = candidates[turn:] + candidates[:turn]
        return min(turned, key=_in_flight)

    def retire(self) -> None:
        """Close what idles; the rest when its exchange ends."""
        for pool in self.endpoints:
            pool.retire()

    def abort(self) -> None:
        """Close everything now."""
        for pool in self.endpoints:
            pool.retire()
            for connection in tuple(pool.open):
                connection.abort()


def _in_flight(pool: EndpointPool) -> int:
    return pool.in_flight


def _tls_context() -> ssl.SSLContext:
    """Return the context for https upstreams: the system's authorities, names are checked."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
