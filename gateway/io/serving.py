"""What happens to a request that has been read: decided, then forwarded or answered.

How this works: `serve_at_once` is the fast path, one synchronous call from the client's bytes to
the upstream's transport, for a request whose caller is known and for which a connection idles. A
session that has to be looked up takes the rest of that way in the callback of the store's reply.
What it cannot finish it leaves to `serve`, which takes the same steps and may wait between them:
for the store or an issuer, for a connection, for content. What had been concluded before is kept.

Nothing here is ever cancelled when a client leaves: the exchange is told, and each wait ends by
itself (the store's and the connect's by their time limits).
"""

import asyncio
import contextlib
import logging
from functools import partial
from random import Random, SystemRandom
from time import time
from typing import TYPE_CHECKING

from aiohttp import StreamReader

from auth.decision import Allow, Challenge, Reason
from auth.identity import Caller
from auth.login.messages import SentForm, WayBack
from auth.login.throttle import network_of
from auth.ports import AccessTokenGone, AuthUnavailable
from gateway.answer import Answer
from gateway.bad_request import BadRequest
from gateway.events import ExchangeFinished, Observer
from gateway.forwarded import (
    Client,
    canonical_address,
    continued_trace,
    is_trusted,
    read_client,
)
from gateway.forwarding import plan
from gateway.head import RequestHead
from gateway.io.answering import CONTINUE
from gateway.io.endpoints import (
    Endpoints,
    cookies_of,
    read_form,
    refresh_if_due,
    session_cookie_of,
)
from gateway.io.exchange import REPEATABLE, Exchange
from gateway.io.generation import Generation
from gateway.io.ids import Ids
from gateway.io.lingering import Lingering
from gateway.io.overload import Overload
from gateway.io.pool import ConnectFailed, EndpointPool
from gateway.io.upstream import UpstreamConnection
from gateway.kept_forms import may_be_kept
from gateway.outcome import Outcome, Waiting
from gateway.pipeline import conclude_waiting, decide, decide_at_once
from gateway.responses import answer_bad_request, answer_error, answer_outcome
from gateway.routing import is_own

if TYPE_CHECKING:
    from gateway.io.connection import ClientConnection

LINGERING_AT_ONCE = 1024
"""Connections that have had their last answer and may go on sending for a while."""

LAST_LINGERING_SECONDS = 0.5
"""How long a process that ends waits for clients that go on sending behind their answers."""

TURNED_AWAY_AT_ONCE = 64
"""Connections over a limit that get an answer; while so many linger, others are just dropped."""

CONNECT_ATTEMPTS = 3
"""Endpoints that are tried for one request; nothing of it has been sent before one is connected."""

_log = logging.getLogger(__name__)


class Serving:
    """Serves requests with the current generation, and knows what is under way."""

    def __init__(self, generation: Generation, observers: tuple[Observer, ...]) -> None:
        self.observers = observers
        self.exchanges: set[Exchange] = set()
        self.connections: set[ClientConnection] = set()
        self.draining = False
        self.lingering = Lingering(LINGERING_AT_ONCE)
        self.turned_away = Lingering(TURNED_AWAY_AT_ONCE)
        """Those that were turned away."""
        self.refused_connections = 0
        self._taken = 0
        """Connections, with those whose handshake is under way."""
        self._by_network: dict[str, int] = {}
        """The same by the client's network; kept in any case, as a reload may bring a limit."""
        self._emptied: asyncio.Event | None = None
        self._ids = Ids()
        # Not for secrets; a seeded generator costs a tenth of the system's.
        self._random = Random(SystemRandom().getrandbits(256))  # noqa: S311 - see above
        self.overload = Overload(self._random, self._observe)
        self._endpoints = Endpoints()
        self.use(generation)

    def use(self, generation: Generation) -> None:
        """Serve what comes from now on with *generation*."""
        self.generation = generation
        server = generation.snapshot.configuration.server
        self.limits = server.limits
        self.allow_encoded_slash = generation.snapshot.table.allows_encoded_slash
        self.overload.use(generation.snapshot)

    # What the client connection calls ------------------------------------------------------------

    def take(self, address: str) -> str | None:
        """Count a new connection from *address* in; return whose it is, None if there is no room.

        Whoever took it gives it back, unless a connection comes of it.
        """
        network, limits = network_of(address), self.limits
        same = self._by_network.get(network, 0)
        most = limits.connections_per_address
        crowded = most and same >= most and not self._is_trusted(address)
        if crowded or self._taken >= limits.connections:
            self.refused_connections += 1
            return None
        self._taken += 1
        self._by_network[network] = same + 1
        return network

    def give_back(self, network: str) -> None:
        """Count a connection of *network* out."""
        self._taken -= 1
        left = self._by_network.pop(network, 0) - 1
        if left > 0:
            self._by_network[network] = left

    def connected(self, connection: "ClientConnection") -> None:
        """Take note of a new connection."""
        self.connections.add(connection)

    def _is_trusted(self, address: str) -> bool:
        trusted = self.generation.snapshot.configuration.server.trusted_proxies
        return bool(trusted) and is_trusted(canonical_address(address), trusted)

    def disconnected(self, connection: "ClientConnection") -> None:
        """Take note that a connection is gone."""
        self.connections.discard(connection)
        self.give_back(connection.network)
        if self._emptied is not None and not self.connections:
            self._emptied.set()

    async def idle(self) -> None:
        """Wait until the last connection is gone."""
        self._emptied = asyncio.Event()
        if self.connections:
            await self._emptied.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_LINGERING_SECONDS):
                await self.lingering.end()

    def sweep(self, now: float) -> None:
        """End the lingering that has taken too long by *now*, the loop's time."""
        self.lingering.sweep(now)
        self.turned_away.sweep(now)

    def close(self) -> None:
        """Let nobody linger any more."""
        self.lingering.close()
        self.turned_away.close()

    def begin(self, connection: "ClientConnection", head: RequestHead) -> Exchange:
        """Return the exchange for *head*."""
        generation = self.generation
        event = ExchangeFinished(time(), "", head.method, head.host, head.target.path)
        event.generation = generation.state.snapshot.generation
        event.remote = connection.remote
        exchange = Exchange(connection, head, event, generation=generation, keeper=self)
        if self.draining:
            exchange.keep_alive = False
        self.exchanges.add(exchange)
        return exchange

    def serve_at_once(self, exchange: Exchange) -> bool:
        """Answer or forward *exchange* if no task has to wait for it; return whether that is so."""
        try:
            return self._serve_at_once(exchange)
        except BadRequest as error:
            self.refuse_content(exchange, error)
        except AuthUnavailable as outage:
            self._answer_outage(exchange, outage)
        except Exception:  # noqa: BLE001 - logged there, and answered: fail closed
            self._answer_bug(exchange)
        return True

    def refuse(self, connection: "ClientConnection", error: BadRequest) -> None:
        """Answer what could not be read as a request."""
        request_id = self._ids.new_id()
        answer = answer_bad_request(error, request_id=request_id)
        sent = connection.write_answer(answer, method="GET", keep=False)
        self._observe(
            ExchangeFinished(
                time(),
                request_id=request_id,
                status=error.status,
                reason=Reason.BAD_REQUEST,
                generation=self.generation.snapshot.generation,
                bytes_out=sent,
                remote=connection.remote,
                error=answer.error,
            )
        )

    def refuse_content(self, exchange: Exchange, error: BadRequest) -> None:
        """Answer a request that turned out to be malformed after its head."""
        event = exchange.event
        event.reason = Reason.BAD_REQUEST
        exchange.answer(
            answer_bad_request(
                error,
                request_id=event.request_id,
                head=exchange.head,
                pages=exchange.generation.snapshot.pages,
            )
        )

    async def serve(self, exchange: Exchange, content: StreamReader) -> None:
        """Answer or forward *exchange*, waiting for whatever that takes."""
        try:
            await self._serve(exchange, content)
        except BadRequest as error:
            self.refuse_content(exchange, error)
        except AuthUnavailable as outage:
            self._answer_outage(exchange, outage)
        except Exception:  # noqa: BLE001 - logged there, and answered: fail closed
            if not exchange.over:  # else its client has left, and what was being read with it
                self._answer_bug(exchange)

    # What the exchange calls ---------------------------------------------------------------------

    def ended(self, exchange: Exchange) -> None:
        """Take note that *exchange* is over."""
        self.exchanges.discard(exchange)
        self._observe(exchange.event)

    def content_timed_out(self, exchange: Exchange) -> None:
        """Answer that the content came too slowly."""
        self.refuse_content(exchange, BadRequest(408, "The content did not come in time."))

    def upstream_failed(self, exchange: Exchange, reason: Reason) -> Answer:
        """Return the answer that tells of an upstream's failure."""
        return answer_error(
            reason,
            request_id=exchange.event.request_id,
            head=exchange.head,
            pages=exchange.generation.snapshot.pages,
        )

    # The steps -----------------------------------------------------------------------------------

    def _serve_at_once(self, exchange: Exchange) -> bool:
        head = exchange.head
        generation = exchange.generation
        self._identify(exchange)
        if head.ends_here:
            exchange.answer(_OPTIONS)
            return True
        if is_own(head.target.path):
            answer = self._endpoints.answer_at_once(exchange)
            if answer is not None:
                exchange.answer(answer)
            return answer is not None
        state = generation.state
        step = decide_at_once(state.snapshot, head, state.authenticator, exchange.event.started_at)
        if isinstance(step, Waiting):
            if head.has_body or head.upgrade or step.credentials.token:
                return False
            now, go_on = exchange.event.started_at, partial(self._go_on, exchange, step)
            state.authenticator.ask(step.credentials, now, go_on)
            return True
        if self._may_keep_form(exchange, step):
            return False
        return not self._conclude(exchange, step) or self._forward_at_once(exchange)

    def _go_on(self, exchange: Exchange, step: Waiting, caller: Caller | None) -> None:
        """Go on with *exchange* now that its caller is known; None: a task has to find out."""
        if exchange.over:
            return
        try:
            if caller is not None:
                snapshot = exchange.generation.snapshot
                outcome = conclude_waiting(
                    snapshot, step, caller, exchange.head, exchange.event.started_at
                )
                if not self._conclude(exchange, outcome) or self._forward_at_once(exchange):
                    return
            exchange.client.serve_waiting()
        except BadRequest as error:
            self.refuse_content(exchange, error)
        except AuthUnavailable as outage:
            self._answer_outage(exchange, outage)
        except Exception:  # noqa: BLE001 - logged there, and answered: fail closed
            self._answer_bug(exchange)

    def _forward_at_once(self, exchange: Exchange) -> bool:
        """Send *exchange*, which is permitted, if it has no content and a connection idles."""
        if exchange.head.has_body or exchange.head.upgrade or wants_access_token(exchange):
            return False
        pool = exchange.pool
        assert pool is not None
        if not pool.admit(exchange):
            return False
        endpoint = exchange.endpoint = pool.choose()
        connection = endpoint.take_idle(repeatable=exchange.method in REPEATABLE)
        if connection is None:
            return False
        self._send(exchange, endpoint, connection)
        return True

    async def _serve(self, exchange: Exchange, content: StreamReader) -> None:
        head = exchange.head
        state = exchange.generation.state
        if exchange.permit is None:
            if is_own(head.target.path):
                exchange.answer(await self._endpoints.answer(exchange, content))
                return
            outcome = await decide(
                state.snapshot, head, state.authenticator, exchange.event.started_at
            )
            kept = await self._keep_form(exchange, outcome, content)
            if not self._conclude(exchange, outcome, kept):
                return
        if await self._find_access_token(exchange):
            await self._forward(exchange, content)

    def _may_keep_form(self, exchange: Exchange, outcome: Outcome) -> bool:
        snapshot = exchange.generation.snapshot
        return may_be_kept(
            exchange.head,
            outcome,
            configuration=snapshot.configuration,
            origins=snapshot.origins,
            client=exchange.origin,
        )

    async def _keep_form(
        self, exchange: Exchange, outcome: Outcome, content: StreamReader
    ) -> WayBack | None:
        """Keep the form that *exchange* brings, if its sender shall have it after the sign-in."""
        if not self._may_keep_form(exchange, outcome):
            return None
        read = await read_form(exchange, content)
        if read is None:
            return None
        sent = SentForm(
            target=exchange.head.target.text,
            content=read,
            cookies=cookies_of(exchange.head.by_name.get("cookie", ())),
            client_address=exchange.event.remote,
            subject=outcome.identity.subject if outcome.identity else "",
        )
        try:
            return await exchange.generation.state.login.keep_form(sent)
        except AuthUnavailable:
            return None  # the answer is what it would have been without

    async def _find_access_token(self, exchange: Exchange) -> bool:
        """Find the access token that the route wants, or have people sign in for a new one."""
        permit, matched = exchange.permit, exchange.matched
        if not wants_access_token(exchange):
            return True
        assert permit is not None
        cookie = session_cookie_of(exchange)
        try:
            exchange.access_token = await exchange.generation.state.login.access_token(cookie)
        except AccessTokenGone:
            exchange.permit = None
            generation = exchange.generation.snapshot.generation
            outcome = Outcome(Challenge(Reason.ACCESS_TOKEN_GONE), generation, matched)
            return self._conclude(exchange, outcome)
        return True

    def _identify(self, exchange: Exchange) -> None:
        """Find out who speaks and give the request its id."""
        head, event = exchange.head, exchange.event
        event.request_id = self._ids.new_id()
        client = exchange.origin = read_client(
            event.remote,
            head,
            scheme=exchange.client.scheme,
            trusted_proxies=exchange.generation.snapshot.configuration.server.trusted_proxies,
        )
        event.remote = client.address
        if client.request_id:
            event.request_id = client.request_id
        if exchange.client.asked_name:
            self._check_name(exchange, client)

    def _check_name(self, exchange: Exchange, client: Client) -> None:
        """Refuse a host that the TLS client did not ask for (RFC 9110 15.5.20).

        A certificate may be for several hosts of ours, so these are let through; and a trusted
        proxy asks for the gateway's name, not for that of its client's request.
        """
        host = exchange.head.host
        if host == exchange.client.asked_name or client.trusted:
            return
        if not exchange.generation.snapshot.origins.is_own(host):
            raise BadRequest(421, "This connection is for another host.")

    def _conclude(self, exchange: Exchange, outcome: Outcome, kept: WayBack | None = None) -> bool:
        """Take note of *outcome*; answer unless it is a permit. Return whether it is one.

        *kept* says where the form that came with it waits.
        """
        event = exchange.event
        matched, verdict = outcome.matched, outcome.verdict
        identity = outcome.identity
        if identity is not None:
            event.subject, event.tenant = identity.subject, identity.tenant
            event.auth = identity.method
            if identity.refresh_at:  # refused, too: perhaps for want of a role that is there now
                refresh_if_due(exchange, identity)
        if matched is not None:
            route = matched.route.route
            event.route, event.upstream = route.id, route.upstream
        if type(verdict) is Allow:
            event.decision, event.reason = verdict.outcome, verdict.reason
            exchange.permit = verdict
            exchange.matched = matched
            exchange.pool = exchange.generation.pools[event.upstream]
            return True
        event.decision, event.reason = outcome.decision, outcome.reason
        snapshot = exchange.generation.snapshot
        exchange.answer(
            answer_outcome(
                outcome,
                exchange.head,
                login=snapshot.configuration.login,
                origins=snapshot.origins,
                request_id=event.request_id,
                client=exchange.origin,
                pages=snapshot.pages,
                kept=kept,
            )
        )
        return False

    def _send(
        self, exchange: Exchange, endpoint: EndpointPool, connection: UpstreamConnection
    ) -> None:
        """Plan the request for *endpoint* and send it on *connection*."""
        try:
            planned = self._plan(exchange, endpoint.endpoint.base_path)
        except Exception:
            endpoint.put_back(connection)
            raise
        exchange.forward(connection, planned)

    def _plan(self, exchange: Exchange, base_path: str) -> bytes:
        permit, matched, origin = exchange.permit, exchange.matched, exchange.origin
        assert permit is not None
        assert matched is not None
        assert origin is not None
        generation = exchange.generation
        event = exchange.event
        block = b""
        identity = permit.identity
        if identity is not None:
            assertion = generation.state.signer.assertion_for(
                identity, matched.route.upstream.name, event.started_at
            )
            block = generation.blocks.block(identity, assertion)
        return plan(
            permit,
            matched,
            exchange.head,
            origin,
            rules=generation.rules,
            identity_block=block,
            request_id=event.request_id,
            traceparent=continued_trace(exchange.head) or self._ids.new_trace(),
            base_path=base_path,
            access_token=exchange.access_token,
        )

    # Forwarding ----------------------------------------------------------------------------------

    async def _forward(self, exchange: Exchange, content: StreamReader) -> None:
        """Send the request and wait for the end; once more if its connection proved to be stale."""
        pool = exchange.pool
        assert pool is not None
        if exchange.over:  # its content was refused before this came to its turn
            return
        if not exchange.admitted and not await pool.admit_later(exchange):
            exchange.fail(Reason.OVERLOADED)
        while not exchange.over:
            connected = await self._connect(exchange)
            if connected is None:
                return
            endpoint, connection = connected
            if exchange.is_over or connection.transport is None:
                # The client left, or the upstream did, while we connected.
                endpoint.put_back(connection)
                continue
            if exchange.head.expects_continue and exchange.client.content_unread:
                exchange.client.write(CONTINUE)
            self._send(exchange, endpoint, connection)
            if exchange.head.has_body:
                await self._send_content(exchange, content)
            else:
                await exchange.settled()

    async def _connect(self, exchange: Exchange) -> tuple[EndpointPool, UpstreamConnection] | None:
        """Return a connection for *exchange*, or answer why there is none."""
        pool = exchange.pool
        assert pool is not None
        tried: list[EndpointPool] = []
        while True:
            # One choice for each request, or taking turns would turn twice.
            endpoint, exchange.endpoint = exchange.endpoint or pool.choose(tried), None
            # A connection that has died once already, or is to change protocols, is a new one.
            if not exchange.repeated and not exchange.wants_upgrade:
                idle = endpoint.take_idle(repeatable=exchange.may_repeat)
                if idle is not None:
                    return endpoint, idle
            try:
                return endpoint, await endpoint.connect()
            except ConnectFailed as failure:
                tried.append(endpoint)
                if len(tried) >= min(len(pool.endpoints), CONNECT_ATTEMPTS):
                    exchange.fail(failure.reason)
                    return None

    async def _send_content(self, exchange: Exchange, content: StreamReader) -> None:
        """Pass the content on while the answer may come already; end when the exchange does."""
        sender = asyncio.create_task(self._pump_content(exchange, content))
        await exchange.settled()
        sender.cancel()
        await asyncio.wait([sender])

    async def _pump_content(self, exchange: Exchange, content: StreamReader) -> None:
        """Send the request's content upstream as it comes, no faster than the upstream takes it."""
        try:
            while not exchange.over:
                data = await content.readany()
                if not data and content.at_eof():
                    exchange.end_content()
                    return
                exchange.send_content(data)
                await exchange.room()
        except Exception:  # noqa: BLE001 - the same
            if not exchange.over:
                self._answer_bug(exchange)

    # Failures ------------------------------------------------------------------------------------

    def _answer_outage(self, exchange: Exchange, outage: AuthUnavailable) -> None:
        exchange.event.reason = outage.reason
        exchange.answer(
            answer_error(
                outage.reason,
                request_id=exchange.event.request_id,
                head=exchange.head,
                retry_after=outage.retry_after,
                pages=exchange.generation.snapshot.pages,
            )
        )

    def _answer_bug(self, exchange: Exchange) -> None:
        _log.exception("request %s could not be served", exchange.event.request_id)
        if exchange.answered:
            exchange.cut(Reason.INTERNAL)
            return
        exchange.event.reason = Reason.INTERNAL
        exchange.answer(
            answer_error(
                Reason.INTERNAL,
                request_id=exchange.event.request_id,
                head=exchange.head,
                close=True,
                pages=exchange.generation.snapshot.pages,
            )
        )

    def _observe(self, event: ExchangeFinished) -> None:
        for observer in self.observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - it must not harm the request
                _log.exception("an observer failed")


def wants_access_token(exchange: Exchange) -> bool:
    """Tell whether the upstream gets the access token of the session that *exchange* came with."""
    permit, matched = exchange.permit, exchange.matched
    if matched is None or permit is None or permit.identity is None:
        return False
    return bool(matched.route.route.access_token and permit.identity.session_digest)


_OPTIONS = Answer(204, (("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),))
