"""The public side of one worker: listens, watches over time limits, reloads, drains.

How this works: aiohttp's server makes a `ClientConnection` for each accepted socket, `Serving`
does what a request needs, and `GatewayServer` looks after all of them. A sweep walks over
connections and exchanges instead of a timer for each: an exchange whose progress has not changed
for too long is ended. So time limits cost nothing on the path of a request. What ends too late does
so by two sweeps at most, and they are as frequent as the shortest limit of the file asks for.
"""

import asyncio
import contextlib
import fcntl
import logging
import socket
import ssl
import sys
import termios
from collections.abc import Callable, Collection, Iterator, Sequence

from auth.decision import Reason
from auth.io.tasks import stop
from auth.revocation import TokenRef
from gateway.bad_request import BadRequest
from gateway.events import Observer
from gateway.io.accepting import Acceptor
from gateway.io.connection import ClientConnection, Server
from gateway.io.exchange import Exchange
from gateway.io.generation import ServerState, make_generation
from gateway.io.health import HealthChecks
from gateway.io.listening import KEEPALIVE
from gateway.io.relay import GOING_AWAY, TRY_AGAIN_LATER
from gateway.io.serving import Serving
from gateway.pipeline import is_allowed
from gateway.shedding import PROBE_SECONDS

__all__ = ["GatewayServer", "ServerState"]

SWEEP_SECONDS = 1.0
"""Between two sweeps over all connections, at the most."""
SWEEPS_IN_A_LIMIT = 4
"""Sweeps in the time of the shortest limit: it is seen begun by one of them, so it may be kept
half too long."""
LEAST_SWEEP_SECONDS = 0.05
"""Ten thousand idle connections take some 15 ms of a sweep."""
SWEEP_STEP = 100
"""Connections looked at before requests get their turn."""

FORGET_SECONDS = 3.0
"""How long an idle connection remembers what its client said last."""

OUTAGE_SECONDS = 5.0
"""How long what runs in somebody's name goes on while the store is silent, if its route is not
more patient (`on_store_outage`): longer than a restart or a failover takes, as a rule."""

CONTENT_SECONDS = 30.0
"""How long the content of a request may come without `CONTENT_BYTES` of progress."""

CONTENT_BYTES = 1024 * 30
"""1 kB/s over `CONTENT_SECONDS`, as Apache's mod_reqtimeout asks by default (500 B/s)."""

WRITE_STALL_SECONDS = 60.0
"""How long a client may take less than `WRITE_STALL_BYTES` of what is to be written."""

WRITE_STALL_BYTES = 1024 * 8
"""So that a byte now and then does not hold an answer for ever, as with nginx's `send_timeout`."""

# What the kernel takes of an answer before it is sent: for a client that takes nothing it would let
# its buffer grow to megabytes. A quarter of one keeps fast clients busy.
_UNSENT = (socket.TCP_NOTSENT_LOWAT, 256 * 1024)

_log = logging.getLogger(__name__)


class GatewayServer:
    """Serves clients with a `ServerState` until it is drained."""

    def __init__(
        self,
        state: ServerState,
        *,
        observers: Sequence[Observer] = (),
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        """Prepare; nothing listens before `start`. Must be called in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._generation = make_generation(state, None)
        self._serving = Serving(self._generation, tuple(observers))
        self._health = HealthChecks()
        self._sweep_seconds = sweep_seconds
        self._pause = self._pause_of(state)
        self._silence: Callable[[str], float] = lambda _: 0.0  # nothing is watched: no silence
        self._acceptors: list[Acceptor] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None
        self._health.watch(self._generation.pools.values())

    # Life ----------------------------------------------------------------------------------------

    async def start(
        self, sockets: Sequence[socket.socket], *, tls: ssl.SSLContext | None = None
    ) -> None:
        """Accept connections from *sockets*, which listen already; with *tls*, only https."""
        server = Server(self._serving, secure=tls is not None)
        for listener in sockets:
            if listener.family in (socket.AF_INET, socket.AF_INET6):
                # Accepted sockets inherit them.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in (*KEEPALIVE, _UNSENT):
                    listener.setsockopt(socket.IPPROTO_TCP, option, value)
            self._acceptors.append(Acceptor(listener, self._serving, server, tls=tls))
        self._sweeper = asyncio.create_task(self._sweep_for_ever())
        self._prober = asyncio.create_task(self._probe_for_ever())

    def replace_snapshot(self, state: ServerState) -> None:
        """Serve with *state* from the next request on; connections of unchanged upstreams stay."""
        old = self._generation
        self._generation = make_generation(state, old)
        self._serving.use(self._generation)
        self._pause = self._pause_of(state)
        self._end_what_lost_its_right()
        kept = set(map(id, self._generation.pools.values()))
        for pool in old.pools.values():
            if id(pool) not in kept:
                pool.retire()
        self._health.watch(self._generation.pools.values())

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - a limit, not a cancellation
        """Accept nothing more, let finish what is under way, then close everything.

        Idle connections are closed at once, WebSockets with 1001; what has not come to its end
        after *timeout* seconds is aborted.
        """
        self._serving.draining = True
        for acceptor in self._acceptors:
            acceptor.stop()
        for connection in tuple(self._serving.connections):
            if connection.exchange is None:
                connection.close_idle()
        for exchange in tuple(self._serving.exchanges):
            if exchange.event.status == 101:
                exchange.client.close_relay(GOING_AWAY)
            elif not exchange.answered:
                exchange.keep_alive = False
            else:
                # Its head has promised another request; that one gets a closed connection.
                exchange.keep_alive = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._serving.idle()
        await self.close()

    async def close(self) -> None:
        """End everything now."""
        for acceptor in self._acceptors:
            await acceptor.close()
        for exchange in tuple(self._serving.exchanges):
            exchange.cut(Reason.DRAINING)
        for connection in tuple(self._serving.connections):
            connection.abort()
        await self._health.stop()
        for pool in self._generation.pools.values():
            pool.abort()
        await stop(self._sweeper, self._prober)
        self._sweeper = self._prober = None
        await asyncio.sleep(0)  # let the transports say goodbye
        self._serving.close()

    # What others tell ----------------------------------------------------------------------------

    def close_sessions(self, names: Collection[str] | None) -> int:
        """End what runs in the name of ended sessions (None: of every session); count it.

        *names* are digests of sessions, and names of revoked tokens.
        """
        ended = [
            exchange
            for exchange in self._serving.exchanges
            if (
                ((digest := exchange.session_digest) and (names is None or digest in names))
                or ((token := exchange.token) and names is not None and token.name in names)
            )
        ]
        for exchange in ended:
            exchange.end_with_session(self._loop)
        return len(ended)

    def _end_what_lost_its_right(self) -> None:
        """End what runs in somebody's name who would not be let in by the generation in force.

        What runs in nobody's name goes on under the generation with which it began.
        """
        snapshot = self._generation.snapshot
        for exchange in tuple(self._serving.exchanges):
            identity = exchange.permit.identity if exchange.permit else None
            if identity is not None and not is_allowed(snapshot, exchange.head, identity):
                exchange.end_with_session(self._loop, "access_revoked")

    def watch_store(self, silence: Callable[[str], float]) -> None:
        """Have what runs in somebody's name ended when the store cannot be heard for too long.

        *silence* returns since how many seconds nothing was heard of it: endings least of all. Its
        argument names a session or a token; empty: for how long the most silent part was.
        """
        self._silence = silence

    def _end_what_nobody_vouches_for(self) -> None:
        if self._silence("") <= OUTAGE_SECONDS:
            return
        for exchange in tuple(self._serving.exchanges):
            matched = exchange.matched
            name = exchange.session_digest or (exchange.token.name if exchange.token else "")
            if matched is None or not name:
                continue
            if self._silence(name) > max(OUTAGE_SECONDS, matched.route.route.serve_cached):
                exchange.end_with_session(self._loop, Reason.STORE_UNAVAILABLE, TRY_AGAIN_LATER)

    def live_sessions(self) -> set[str]:
        """Return the digests of the sessions in whose name something runs."""
        return {exchange.session_digest for exchange in self._serving.exchanges} - {""}

    def live_tokens(self) -> list[TokenRef]:
        """Return the bearer tokens in whose name something runs."""
        return [token for exchange in self._serving.exchanges if (token := exchange.token)]

    @property
    def counters(self) -> dict[str, float]:
        """Numbers for the metrics, by family (`gateway.io.metrics.FAMILIES`)."""
        pools = self._generation.pools.values()
        return {
            "connections": float(len(self._serving.connections)),
            "connections_refused": float(self._serving.refused_connections),
            "requests_shed": float(self._serving.overload.count),
            "upstream_connections": float(
                sum(len(endpoint.open) for pool in pools for endpoint in pool.endpoints)
            ),
        }

    @property
    def exchanges(self) -> int:
        """Requests under way."""
        return len(self._serving.exchanges)

    # Overload ------------------------------------------------------------------------------------

    async def _probe_for_ever(self) -> None:
        """Tell how late the loop is (see `gateway.shedding`)."""
        overload, loop = self._serving.overload, self._loop
        while True:
            due = loop.time() + PROBE_SECONDS
            await asyncio.sleep(PROBE_SECONDS)
            overload.beat(loop.time() - due)

    # Time limits ---------------------------------------------------------------------------------

    def _pause_of(self, state: ServerState) -> float:
        """Return the seconds between two sweeps: enough of them for the shortest limit there is."""
        configuration = state.snapshot.configuration
        limits = [
            configuration.server.limits.head_timeout,
            configuration.server.limits.idle_timeout,
        ]
        for upstream in configuration.upstreams.values():
            limits += upstream.timeouts.response, upstream.timeouts.idle
        often = max(LEAST_SWEEP_SECONDS, min(limits) / SWEEPS_IN_A_LIMIT)
        return min(self._sweep_seconds, often)

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            try:
                for _ in self._sweep_in_steps(self._loop.time()):
                    await asyncio.sleep(0)  # thousands of connections must hold up no request
            except Exception:  # noqa: BLE001 - a bug must not end all time limits
                _log.exception("a sweep over the connections failed")

    def sweep(self, now: float) -> None:
        """End what has taken too long by *now*, the loop's time."""
        for _ in self._sweep_in_steps(now):
            pass

    def _sweep_in_steps(self, now: float) -> Iterator[None]:
        """Do as `sweep` does; yields now and then."""
        for count, connection in enumerate(tuple(self._serving.connections), 1):
            if connection.exchange is None:
                self._sweep_idle(connection, now)
            self._sweep_stalled(connection, now)
            if not count % SWEEP_STEP:
                yield
        for count, exchange in enumerate(tuple(self._serving.exchanges), 1):
            if not exchange.over:
                self._sweep_exchange(exchange, now)
            if not count % SWEEP_STEP:
                yield
        self._serving.sweep(now)
        self._end_what_nobody_vouches_for()
        for pool in self._generation.pools.values():
            for endpoint in pool.endpoints:
                endpoint.close_aged(now)

    def _sweep_idle(self, connection: ClientConnection, now: float) -> None:
        if now < connection.deadline:
            idle_timeout = self._serving.limits.idle_timeout
            if connection.deadline - now < idle_timeout - FORGET_SECONDS:
                connection.forget_fields()
            return
        if connection.reads_head:
            connection.refuse(BadRequest(408, "The request head did not come in time."))
        else:
            connection.close_idle()

    def _sweep_stalled(self, connection: ClientConnection, now: float) -> None:
        """Drop a client that does not take what is written."""
        transport = connection.transport
        waiting = transport.get_write_buffer_size() if transport is not None else 0
        if not waiting or transport is None:
            connection.seen_progress = None
            return
        exchange = connection.exchange
        written = exchange.event.bytes_out if exchange is not None else 0
        taken = written - waiting - _unacknowledged(transport)
        seen = connection.seen_progress
        if seen is None or seen[0] != id(exchange) or taken - seen[1] >= WRITE_STALL_BYTES:
            connection.seen_progress = (id(exchange), taken)
            connection.seen_at = now
        elif now - connection.seen_at > WRITE_STALL_SECONDS:
            connection.reset()

    def _sweep_exchange(self, exchange: Exchange, now: float) -> None:
        connection = exchange.connection
        event = exchange.event
        if event.status == 101:
            return
        if connection is None:
            if exchange.client.content_unread:
                self._sweep_content(exchange, now)  # a form of our own may trickle as well
            else:
                exchange.seen_at = now
            return
        if not exchange.request_sent:
            self._sweep_content(exchange, now)
            return
        progress = (exchange.answered, event.bytes_out)
        if progress != exchange.seen_progress or connection.held:
            # The client's slowness is not the upstream's fault; `_sweep_stalled` sees to it.
            exchange.seen_progress = progress
            exchange.seen_at = now
            return
        timeouts = exchange.pool.upstream.timeouts if exchange.pool else None
        assert timeouts is not None
        limit = timeouts.idle if exchange.answered else timeouts.response
        if now - exchange.seen_at > limit:
            exchange.time_out(Reason.UPSTREAM_TIMEOUT)

    def _sweep_content(self, exchange: Exchange, now: float) -> None:
        received = exchange.event.bytes_in
        seen = exchange.seen_progress
        if not isinstance(seen, int) or received - seen >= CONTENT_BYTES or exchange.is_blocked:
            exchange.seen_progress = received
            exchange.seen_at = now
        elif now - exchange.seen_at > CONTENT_SECONDS:
            exchange.give_up_content()


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Return how much the kernel holds that the client has not taken; 0 where nobody can say.

    A transport learns that there is room again in steps of a third of the kernel's buffer, which
    can be a megabyte: minutes for a client that is slow and honest.
    """
    peer = transport.get_extra_info("socket")
    try:
        return int.from_bytes(fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (AttributeError, OSError, ValueError):
        return 0
