"""One request and its answer, from the head to the last byte, however it ends.

How this works: an exchange stands between a client connection and an upstream connection and is
told by both what happened. It begins with a decision, is `forward`ed or `answer`ed, and ends in
`_end`, once: there the event is completed and handed to the observers. While it is forwarded, the
upstream's callbacks write straight to the client's transport; nothing waits in between but what the
two transports hold, and each of them pauses the other's source.

Until the answer's head has been sent, every failure becomes a proper answer; after it, the only
honest end is to abort the client's connection: a clean last chunk would turn a cut-off answer into
a complete one (RFC 9112 8).
"""

import asyncio
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol

from auth.decision import Allow, Reason
from auth.revocation import TokenRef
from gateway.answer import Answer
from gateway.events import ExchangeFinished
from gateway.forwarding import response_fields
from gateway.head import RequestHead
from gateway.io.answering import http_date
from gateway.io.generation import Generation
from gateway.io.relay import SESSION_ENDED
from gateway.io.upstream import UpstreamConnection
from gateway.response_reading import ResponseHead

if TYPE_CHECKING:
    from gateway.forwarded import Client as Origin
    from gateway.io.pool import EndpointPool, UpstreamPool
    from gateway.routing import Matched

REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that may be sent again (RFC 9110 9.2.2; PUT and DELETE are left to the client)."""

ENDED_SESSION_SECONDS = 0.25
"""How long an answer that begins after its session ended may take."""

_LONGEST_TIMER = 3600.0
"""Seconds; a later end is looked at again after that."""


class Client(Protocol):
    """The client connection, as its exchange sees it."""

    transport: asyncio.Transport | None
    scheme: str
    asked_name: str
    """The name that the TLS client asked for, in lower case; empty without one."""

    @property
    def writing_paused(self) -> bool:
        """Whether the client is slower than the answer."""
        ...

    @property
    def content_unread(self) -> bool:
        """Whether content of the request is still to come."""
        ...

    def send_answer(self, exchange: "Exchange", answer: Answer, *, keep: bool) -> int:
        """Write an answer of the gateway's own; return the bytes of its content."""
        ...

    def write(self, data: bytes) -> None:
        """Write bytes that belong to no answer: an interim one."""
        ...

    def serve_waiting(self) -> None:
        """Have the exchange served by a task, because it must wait for something."""
        ...

    def switch_protocols(self, exchange: "Exchange", data: bytes) -> None:
        """Relay bytes from now on; *data* came after the upstream's 101."""
        ...

    def relay(self, data: bytes) -> None:
        """Write bytes of the new protocol."""
        ...

    def end_relay(self) -> None:
        """The upstream's side of the new protocol is over."""
        ...

    def hold_reading(self, *, hold: bool) -> None:
        """Stop or go on reading: the upstream is slow."""
        ...

    def close_relay(self, code: int) -> None:
        """End the new protocol with a WebSocket status code."""
        ...

    def exchange_over(self, *, keep: bool) -> None:
        """Take the next request, or close."""
        ...

    def abort(self) -> None:
        """Drop the connection, so that nobody takes what was sent for complete."""
        ...


class Keeper(Protocol):
    """Who keeps the exchanges."""

    def ended(self, exchange: "Exchange") -> None:
        """Take note that *exchange* is over."""
        ...

    def content_timed_out(self, exchange: "Exchange") -> None:
        """Answer that the content came too slowly."""
        ...

    def upstream_failed(self, exchange: "Exchange", reason: Reason) -> Answer:
        """Return the answer that tells of an upstream's failure."""
        ...


class Exchange:
    """A request under way. Made by the client connection when a head has been read."""

    __slots__ = (
        "_began_at",
        "_blocked",
        "_chunked",
        "_expiry",
        "_room",
        "_waiter",
        "access_token",
        "admitted",
        "answered",
        "client",
        "connection",
        "doomed",
        "endpoint",
        "event",
        "generation",
        "head",
        "keep_alive",
        "keeper",
        "matched",
        "method",
        "origin",
        "over",
        "permit",
        "pool",
        "repeated",
        "request_sent",
        "seen_at",
        "seen_progress",
        "wants_upgrade",
    )

    def __init__(
        self,
        client: Client,
        head: RequestHead,
        event: ExchangeFinished,
        *,
        generation: Generation,
        keeper: Keeper,
    ) -> None:
        self.client = client
        self.head = head
        self.event = event
        self.generation = generation
        self.keeper = keeper
        self.method = head.method
        self.wants_upgrade = bool(head.upgrade)
        self.keep_alive = head.keep_alive
        self.origin: Origin | None = None
        """Who is really calling."""
        self.permit: Allow | None = None
        self.access_token = ""
        """Of the provider, if the route wants it."""
        self.matched: Matched | None = None
        self.pool: UpstreamPool | None = None
        self.endpoint: EndpointPool | None = None
        """The endpoint whose turn it is."""
        self.admitted = False
        """Whether it counts among the requests that are with its upstream."""
        self.connection: UpstreamConnection | None = None
        self.request_sent = False
        self.answered = False
        """Whether the head of an answer has been written to the client."""
        self.over = False
        self.repeated = False
        """Whether the request is on its second connection, the first having proved stale."""
        self.doomed = False
        """Whether its session ended before its answer began."""
        self.seen_progress: object = None
        self.seen_at = 0.0
        self._chunked = False
        self._blocked = False
        self._room: asyncio.Future[None] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._began_at = monotonic()

    # What the gateway does with it ---------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        """Answer it ourselves, and end it."""
        if self.over:
            return
        self._leave_upstream()
        keep = self.keep_alive and not answer.close and not self.client.content_unread
        self.event.status = answer.status
        self.event.error = answer.error
        self.event.bytes_out += self.client.send_answer(self, answer, keep=keep)
        self.answered = True
        self._end(keep=keep)

    def forward(self, connection: UpstreamConnection, planned: bytes) -> None:
        """Send the *planned* head on *connection*; content, if any, follows with `send_content`."""
        self.connection = connection
        self.request_sent = not self.head.has_body
        if not self.request_sent:
            self._watch_expiry()
        connection.send(self, planned)

    def send_content(self, data: bytes) -> None:
        """Send content upstream, in the framing that the plan announced."""
        connection = self.connection
        if connection is None:
            return
        self.event.bytes_in += len(data)
        connection.write(_chunk(data, last=False) if self.head.chunked else data)

    def end_content(self) -> None:
        """The request's content is complete."""
        if self.connection is not None:
            if self.head.chunked:
                self.connection.write(b"0\r\n\r\n")
            self.request_sent = True

    async def room(self) -> None:
        """Wait until the upstream takes more content, or none any more."""
        if self._blocked and not self.over:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
            self._room = None

    async def settled(self) -> None:
        """Wait until it is over, or until it has to be sent again."""
        if not self.over and self.connection is not None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None

    @property
    def may_repeat(self) -> bool:
        """Whether the request may be sent a second time if a reused connection dies under it."""
        return not self.repeated and self.method in REPEATABLE and not self.head.has_body

    @property
    def is_over(self) -> bool:
        """Whether it has ended, asked again after a wait."""
        return self.over

    @property
    def session_digest(self) -> str:
        """The session in whose name it runs; empty without one."""
        permit = self.permit
        return permit.identity.session_digest if permit and permit.identity else ""

    @property
    def token(self) -> TokenRef | None:
        """The bearer token in whose name it runs, as revocations name it."""
        identity = self.permit.identity if self.permit else None
        return identity.token if identity else None

    @property
    def is_blocked(self) -> bool:
        """Whether the upstream takes no more content at the moment."""
        return self._blocked

    def give_up_content(self) -> None:
        """The client's content trickles: end it, and the upstream sees an aborted request."""
        if self.answered:
            self.cut("content_timeout")
        else:
            self.keeper.content_timed_out(self)

    # What the client connection tells ------------------------------------------------------------

    def client_lost(self) -> None:
        """The client is gone: nobody waits for the answer, so the upstream need not work on."""
        if self.over:
            return
        if not self.event.error and self.event.status != 101:
            self.event.error = "client_closed"
        self._leave_upstream()
        self._end(keep=False)

    def client_writable(self, *, writable: bool) -> None:
        """The client's transport is full, or has room again."""
        if self.connection is not None:
            if writable:
                self.connection.go_on()
            else:
                self.connection.hold()

    def cut(self, error: str) -> None:
        """End it now: with nothing more if its answer has begun, the connection aborted."""
        if self.over:
            return
        self.event.error = error
        self._leave_upstream()
        self.client.abort()
        self._end(keep=False)

    def end_with_session(
        self,
        loop: asyncio.AbstractEventLoop,
        error: str = "session_ended",
        code: int = SESSION_ENDED,
    ) -> None:
        """Its session has ended: what is being streamed stops; what has not begun must be short.

        A short answer may be the very one that reports the logout, so it is let through.
        *error* is for the access log, *code* for a WebSocket: a right can end in other ways too.
        """
        if self.event.status == 101:
            self.event.error = error
            self.client.close_relay(code)
        elif self.answered:
            self.cut(error)
        else:
            self.doomed = True
            if self.request_sent:
                return
            loop.call_later(ENDED_SESSION_SECONDS, self.cut, error)

    def _watch_expiry(self) -> None:
        """It goes on for a while: end it when the session or the token behind it expires."""
        identity = self.permit.identity if self.permit else None
        if self._expiry is None and identity is not None and identity.expires_at:
            self._arm_expiry(identity.expires_at)

    def _arm_expiry(self, expires_at: float) -> None:
        # The wall clock may be corrected meanwhile, so it is asked again when the time has come.
        left = expires_at - time()
        loop = asyncio.get_running_loop()
        if left > 0:
            self._expiry = loop.call_later(min(left, _LONGEST_TIMER), self._arm_expiry, expires_at)
        else:
            self.end_with_session(loop, "session_expired")

    def time_out(self, reason: Reason) -> None:
        """The upstream takes too long."""
        self._leave_upstream()
        self.upstream_failed(reason, unanswered=False)

    # What the upstream connection tells ----------------------------------------------------------

    def answer_began(self, head: ResponseHead, content: bytes, *, complete: bool) -> None:
        """Write the answer's head, and the content that came with it, in one go."""
        client = self.client
        transport = client.transport
        event = self.event
        event.status = head.status
        if complete:
            self.connection = None
        elif client.writing_paused and self.connection is not None:
            self.connection.hold()
        length, self._chunked = head.content_length, False
        if length is None and complete:
            length = len(content)  # all of it is here: no need for chunks
        elif length is None:
            # RFC 9112 6.1: chunked only to who speaks 1.1. What ends with the upstream's connection
            # is chunked too, so that the client can tell its end from an abort.
            self._chunked = self.head.version >= (1, 1)
        # After an answer to what was not read to its end, or to what asked for another protocol,
        # nobody can say what the client's next bytes are.
        keep = self.keep_alive = (
            self.keep_alive
            and not self.wants_upgrade
            and not client.content_unread
            and (length is not None or self._chunked)
        )
        self.answered = True
        data = response_fields(
            head,
            rules=self.generation.rules,
            length=length,
            chunked=self._chunked,
            keep_alive=keep,
            date="" if head.has_date else http_date(),
        )
        event.bytes_out += len(content)
        if transport is None:
            return
        if self._chunked:
            content = _chunk(content, last=complete)
        transport.write(data + content if content else data)
        if complete:
            self._end(keep=keep)
            return
        self._watch_expiry()
        if self.doomed:
            asyncio.get_running_loop().call_later(ENDED_SESSION_SECONDS, self.cut, "session_ended")

    def answer_continued(self, content: bytes, *, complete: bool) -> None:
        """Write more of the answer's content, in the framing that its head announced."""
        self.event.bytes_out += len(content)
        if complete:
            self.connection = None
        transport = self.client.transport
        if transport is None:
            return
        if self._chunked:
            content = _chunk(content, last=complete)
        if content:
            transport.write(content)
        if complete:
            self._end(keep=self.keep_alive)

    def upstream_switched(self, head: ResponseHead, data: bytes) -> None:
        """Send the 101 and let both sides speak the new protocol."""
        self.event.status = 101
        self.answered = True
        self.keep_alive = False
        self._watch_expiry()
        if self.pool is not None:
            self.pool.leave(self)
        transport = self.client.transport
        if transport is None:
            return
        transport.write(
            response_fields(
                head,
                rules=self.generation.rules,
                length=None,
                chunked=False,
                keep_alive=False,
                date=http_date(),
            )
        )
        self.client.switch_protocols(self, data)

    def upstream_sent(self, data: bytes) -> None:
        """Relay bytes of the new protocol."""
        self.event.bytes_out += len(data)
        self.client.relay(data)

    def upstream_failed(self, reason: Reason, *, unanswered: bool) -> None:
        """Answer, repeat or abort; see the module's text."""
        connection, self.connection = self.connection, None
        if self.over:
            return
        if self.event.status == 101:
            self.client.end_relay()
            self._end(keep=False)
        elif self.answered:
            self.event.error = (
                reason if reason is not Reason.UPSTREAM_UNREACHABLE else Reason.UPSTREAM_TRUNCATED
            )
            self.client.abort()
            self._end(keep=False)
        elif unanswered and connection is not None and connection.reused and self.may_repeat:
            # RFC 9112 9.3.1: it was closing while we wrote; the request was not acted upon.
            self.repeated = True
            self._go_on_waiting()
        else:
            self.fail(reason)

    def upstream_writable(self, *, writable: bool) -> None:
        """The upstream's transport is full, or has room again."""
        self._blocked = not writable
        if self.event.status == 101:
            self.client.hold_reading(hold=self._blocked)
        elif writable:
            _wake(self._room)

    # Ends ----------------------------------------------------------------------------------------

    def fail(self, reason: Reason) -> None:
        """Answer that the upstream failed, and which kind of failure it was."""
        self.answer(self.keeper.upstream_failed(self, reason))

    def _go_on_waiting(self) -> None:
        if self._waiter is None:
            self.client.serve_waiting()
        else:
            _wake(self._waiter)

    def _leave_upstream(self) -> None:
        connection, self.connection = self.connection, None
        if connection is None:
            return
        if self.event.status == 101:
            connection.close()  # what the client said last still has to arrive
        else:
            connection.abort()

    def _end(self, *, keep: bool) -> None:
        if self.over:
            return
        self.over = True
        if self._expiry is not None:
            self._expiry.cancel()
        event = self.event
        event.duration = monotonic() - self._began_at
        if self.admitted and self.pool is not None:
            self.pool.leave(self)
        self.keeper.ended(self)
        _wake(self._room)
        _wake(self._waiter)
        self.client.exchange_over(keep=keep)


def _chunk(content: bytes, *, last: bool) -> bytes:
    """Return *content* as a chunk (RFC 9112 7.1), and the last chunk if it is the end."""
    framed = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
    return framed + b"0\r\n\r\n" if last else framed


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
