"""One connection to an upstream: a request goes out, its answer is read strictly and handed on.

How this works: the connection carries one exchange at a time. `send` begins it, `data_received`
reads the answer's head (`gateway.response_reading`) and then counts or decodes its content, so that
the end of the answer is always known from the framing and never guessed. What is read is handed to
the exchange at once, callback to callback, without a task or a queue: small answers, head and
content in one read, leave in one write; the client's back-pressure pauses this transport.

A connection goes back to its pool only after an explicit clean end: the request sent whole, the
answer read whole, both sides willing, and not one byte more. Anything else, and any byte or end
of file while it idles, closes it. That is the whole defence against an answer reaching the wrong
user (aiohttp #13656, Traefik CVE-2026-71324): there is no state from which a doubtful connection
returns.
"""

import asyncio
import logging
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol, cast

from auth.decision import Reason
from gateway.bad_request import BadRequest
from gateway.framing import ChunkedScanner
from gateway.response_reading import (
    MAX_INTERIM_RESPONSES,
    ResponseHead,
    UpstreamProtocolError,
    check_partial_response_head,
)

if TYPE_CHECKING:
    from gateway.io.pool import EndpointPool

_log = logging.getLogger(__name__)

WRITE_BUFFER = 64 * 1024
"""Bytes that may wait in a transport before its source is paused."""


class Reading(IntEnum):
    """What the next byte of a connection is part of."""

    NOTHING = 0
    HEAD = 1
    LENGTH = 2
    CHUNKED = 3
    UNTIL_CLOSE = 4
    TUNNEL = 5


# An enumeration's members are slow to reach, and these are reached four times a request.
_NOTHING, _HEAD, _LENGTH, _CHUNKED, _UNTIL_CLOSE, _TUNNEL = Reading


class Requester(Protocol):
    """Who gets the answer: an exchange, or a health check."""

    method: str
    wants_upgrade: bool
    request_sent: bool
    """Whether the whole request, content included, has been written."""

    def answer_began(self, head: ResponseHead, content: bytes, *, complete: bool) -> None:
        """Take the final head and the content that came with it."""
        ...

    def answer_continued(self, content: bytes, *, complete: bool) -> None:
        """Take more content."""
        ...

    def upstream_switched(self, head: ResponseHead, data: bytes) -> None:
        """Take the 101 and the first bytes of the new protocol."""
        ...

    def upstream_sent(self, data: bytes) -> None:
        """Take bytes of the new protocol."""
        ...

    def upstream_failed(self, reason: Reason, *, unanswered: bool) -> None:
        """Take note that there will be no (more) answer; *unanswered*: not a byte came."""
        ...

    def upstream_writable(self, *, writable: bool) -> None:
        """Stop or go on sending content."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """A connection to one endpoint, made and kept by its pool."""

    __slots__ = (
        "_buffer",
        "_held",
        "_interim",
        "_keep_alive",
        "_left",
        "_reading",
        "_scanner",
        "answered",
        "idle_since",
        "pool",
        "requester",
        "reused",
        "transport",
    )

    def __init__(self, pool: "EndpointPool") -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.requester: Requester | None = None
        self.reused = False
        """Whether it has carried an exchange before the present one."""
        self.answered = False
        """Whether a byte of the answer has come."""
        self.idle_since = 0.0
        self._reading = _NOTHING
        self._buffer = b""
        self._interim = 0
        self._left = 0
        self._scanner: ChunkedScanner | None = None
        self._keep_alive = False
        self._held = False

    # What the pool and the exchange call ---------------------------------------------------------

    def send(self, requester: Requester, data: bytes) -> None:
        """Begin an exchange for *requester* with the request head (and content) *data*."""
        transport = self.transport
        assert self.requester is None
        assert transport is not None
        self.requester = requester
        self.answered = False
        self._interim = 0
        self._reading = _HEAD
        transport.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the request."""
        if self.transport is not None:
            self.transport.write(data)

    def hold(self) -> None:
        """Stop reading: the client is slow."""
        transport = self.transport
        if transport is not None and not self._held and not transport.is_closing():
            self._held = True
            transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        transport = self.transport
        if transport is not None and self._held and not transport.is_closing():
            self._held = False
            transport.resume_reading()

    @property
    def held(self) -> bool:
        """Whether the client's slowness keeps this connection from being read."""
        return self._held

    def abort(self) -> None:
        """Drop the connection; its requester, if any, is told nothing more."""
        self._forget()
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close an idle or finished connection."""
        self._forget()
        if self.transport is not None:
            self.transport.close()

    # What the event loop calls -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport (asyncio.Protocol)."""
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self.pool.opened(self)

    def data_received(self, data: bytes) -> None:
        """Read on (asyncio.Protocol)."""
        requester = self.requester
        if requester is None:
            # Nobody asked: whatever this is, the next user must not get it.
            self.abort()
            return
        self.answered = True
        reading = self._reading
        if reading is _HEAD:
            self._read_head(requester, data)
        elif reading is _LENGTH:
            self._read_length(requester, data)
        elif reading is _CHUNKED:
            self._read_chunks(requester, data)
        elif reading is _TUNNEL:
            requester.upstream_sent(data)
        else:
            requester.answer_continued(data, complete=False)

    def eof_received(self) -> bool | None:
        """End the answer that ends with the connection; everything else was cut off."""
        requester = self.requester
        if requester is not None:
            if self._reading is _UNTIL_CLOSE:
                self.close()
                requester.answer_continued(b"", complete=True)
            else:
                self._fail_cut_off(requester)
        else:
            self.close()
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """Fail the exchange that is still open (asyncio.Protocol)."""
        self.transport = None
        self.pool.closed(self)
        requester = self.requester
        if requester is not None:
            self._fail_cut_off(requester)

    def pause_writing(self) -> None:
        """Stop the client's content (asyncio.Protocol)."""
        if self.requester is not None:
            self.requester.upstream_writable(writable=False)

    def resume_writing(self) -> None:
        """Let the client's content come again (asyncio.Protocol)."""
        if self.requester is not None:
            self.requester.upstream_writable(writable=True)

    # Reading -------------------------------------------------------------------------------------

    def _read_head(self, requester: Requester, data: bytes) -> None:
        seen = len(self._buffer)
        if seen:
            data = self._buffer + data
            self._buffer = b""
        try:
            while data:
                end = data.find(b"\r\n\r\n") + 4
                if end < 4:
                    check_partial_response_head(data, start=seen)
                    self._buffer = data
                    return
                head = self.pool.heads.read(
                    data[:end],
                    request_method=requester.method,
                    upgrade_requested=requester.wants_upgrade,
                )
                data = data[end:]
                seen = 0
                if not head.interim:
                    self._begin(requester, head, data)
                    return
                # RFC 9110 15.2: none of them was asked for by us, and 100 is ours to send.
                self._interim += 1
                if self._interim > MAX_INTERIM_RESPONSES:
                    raise UpstreamProtocolError("too many interim responses")  # noqa: TRY301 - one end
        except UpstreamProtocolError as error:
            self._fail(requester, str(error))

    def _begin(self, requester: Requester, head: ResponseHead, data: bytes) -> None:
        self._keep_alive = head.keep_alive
        # RFC 9112 6.3, in its order: no content; chunked; a length; until the end.
        if head.upgrade:
            self._reading = _TUNNEL
            requester.upstream_switched(head, data)
        elif head.bodiless:
            self._finish(requester, surplus=bool(data))
            requester.answer_began(head, b"", complete=True)
        elif head.chunked:
            self._reading = _CHUNKED
            self._scanner = ChunkedScanner(limit=None)
            content = self._decode(requester, data)
            if content is not None:
                requester.answer_began(head, content, complete=self.requester is None)
        elif head.content_length is not None:
            length = head.content_length
            if len(data) >= length:
                self._finish(requester, surplus=len(data) > length)
                requester.answer_began(head, data[:length], complete=True)
            else:
                self._reading = _LENGTH
                self._left = length - len(data)
                requester.answer_began(head, data, complete=False)
        else:
            self._reading = _UNTIL_CLOSE
            requester.answer_began(head, data, complete=False)

    def _read_length(self, requester: Requester, data: bytes) -> None:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            requester.answer_continued(data, complete=False)
            return
        self._finish(requester, surplus=left < 0)
        requester.answer_continued(data[: len(data) + left], complete=True)

    def _read_chunks(self, requester: Requester, data: bytes) -> None:
        content = self._decode(requester, data)
        if content is not None:
            requester.answer_continued(content, complete=self.requester is None)

    def _decode(self, requester: Requester, data: bytes) -> bytes | None:
        """Return the content in *data*, None after a failure; finish when the last chunk came."""
        scanner = self._scanner
        assert scanner is not None
        try:
            taken = scanner.feed(data)
        except BadRequest as error:
            self._fail(requester, error.detail)
            return None
        if scanner.done:
            self._finish(requester, surplus=taken < len(data))
        return b"".join(scanner.take())

    # Ends ----------------------------------------------------------------------------------------

    def _finish(self, requester: Requester, *, surplus: bool) -> None:
        """The answer is whole: back to the pool if that is beyond doubt, closed if not."""
        transport = self.transport
        clean = self._keep_alive and not surplus and requester.request_sent
        self._forget()
        if transport is None:
            return
        if clean and not transport.is_closing():
            self.go_on()
            self.reused = True
            self.pool.release(self)
        else:
            transport.close()

    def _fail_cut_off(self, requester: Requester) -> None:
        unanswered = not self.answered
        reason = (
            Reason.UPSTREAM_UNREACHABLE if self._reading is _HEAD else Reason.UPSTREAM_TRUNCATED
        )
        self.abort()
        requester.upstream_failed(reason, unanswered=unanswered)

    def _fail(self, requester: Requester, detail: str) -> None:
        _log.warning("%s: %s; the connection is closed", self.pool.endpoint, detail)
        self.abort()
        requester.upstream_failed(Reason.UPSTREAM_PROTOCOL, unanswered=False)

    def _forget(self) -> None:
        if self.requester is not None:
            self.requester = None
            self.pool.ended()
        else:
            self.pool.forget_idle(self)
        self._reading = _NOTHING
        self._buffer = b""
        self._scanner = None
