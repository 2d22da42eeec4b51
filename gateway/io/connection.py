"""The client's side: one connection, made by aiohttp's server, read by us.

How this works: this is the one file that knows aiohttp from the inside (ADR 0003); a test pins
the version it was read in. `ClientConnection` is aiohttp's `RequestHandler`, so accepting, the
registry of connections, and everything that must wait are aiohttp's: a task of its calls our
handler, content reaches it through a `StreamReader` with back-pressure. But no byte of a client's
reaches aiohttp's parser unread. `data_received` is a gate on the raw bytes:

1. A head is collected up to its empty line and read by `gateway.reading`, the only reading there
   is. A refusal is answered here and the connection closed.
2. A request that needs nothing but what is at hand is served at once, in the same call.
3. Any other one is handed to aiohttp as a message that *we* write: a constant request line and the
   framing as we understood it. So the two readings cannot disagree. Content follows as it is
   counted or decoded here, a chunked one in chunks written anew.
4. What comes after the end of a message waits, bounded, until its exchange is over and the client
   has taken the answer.

So where a message ends is always our decision, and there is one exchange at a time.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.answer import Answer
from gateway.bad_request import BadRequest
from gateway.framing import ChunkedScanner
from gateway.io.answering import answer_bytes
from gateway.io.exchange import Exchange
from gateway.io.lingering import duplicate
from gateway.io.relay import Tunnel
from gateway.io.tls import asked_name
from gateway.io.upstream import WRITE_BUFFER
from gateway.reading import HeadReader, check_partial_head

if TYPE_CHECKING:
    from gateway.io.serving import Serving

AIOHTTP_VERSION = "3.14.5"
"""The version whose `web_protocol.py` this file was written against."""

READ_BUFFER = 64 * 1024
"""Low-water mark of the content that waits for a slow upstream; aiohttp pauses at twice that."""

PENDING_LIMIT = 64 * 1024
"""Bytes that may wait behind the present exchange before reading stops."""

GOODBYE_SECONDS = 2.0
"""How long a TLS client may take to answer our closure alert (asyncio would wait for 30 s)."""

HALF_CLOSED_SECONDS = 0.9
"""How long an answer may take for a client that has closed its sending side.

Most of those have left, and the upstream need not work for nobody.
"""

_log = logging.getLogger(__name__)


class Server(web.Server):
    """aiohttp's low-level server, making our connections."""

    def __init__(self, serving: "Serving", *, secure: bool) -> None:
        super().__init__(
            _handle,
            access_log=None,
            auto_decompress=False,
            read_bufsize=READ_BUFFER,
            lingering_time=0,  # `gateway.io.lingering` does it
            keepalive_timeout=0,
        )
        self._serving = serving
        self._secure = secure

    def protocol(self, remote: str, network: str) -> "ClientConnection":
        """Make the protocol of a new connection from the address *remote* of *network*.

        They are told, because a connection that was reset already no longer knows its peer.
        """
        made = ClientConnection(
            self, self._serving, secure=self._secure, loop=self._loop, **self._kwargs
        )
        made.remote, made.network = remote, network
        return made


class Written(web.StreamResponse):
    """An answer that has been written already; aiohttp learns whether the connection stays."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool:
        """Whether another request may come."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing."""


async def _handle(request: web.BaseRequest) -> web.StreamResponse:
    """Serve what has to wait; aiohttp's task calls this once for each message handed to it."""
    connection = request.protocol
    assert isinstance(connection, ClientConnection)
    await connection.serving.serve(connection.next_waiting(), request.content)
    return Written(keep=connection.stays_open)


class ClientConnection(RequestHandler):
    """One client connection."""

    __slots__ = (
        "_half_closed",
        "_heads",
        "_held",
        "_last",
        "_length_left",
        "_parting",
        "_pending",
        "_pumping",
        "_scanner",
        "_tunnel",
        "_waiting",
        "asked_name",
        "deadline",
        "exchange",
        "network",
        "remote",
        "scheme",
        "seen_at",
        "seen_progress",
        "serving",
    )

    def __init__(
        self,
        server: Server,
        serving: "Serving",
        *,
        secure: bool,
        loop: asyncio.AbstractEventLoop,
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self.serving = serving
        self.scheme = "https" if secure else "http"
        self._heads = HeadReader(self.scheme)
        self.remote = ""
        self.network = ""
        """Whose address it is, as far as limits go."""
        self.asked_name = ""
        self.exchange: Exchange | None = None
        self.deadline = 0.0
        """Loop time by which the next head must have come; only between exchanges."""
        self.seen_progress: tuple[int, int] | None = None
        self.seen_at = 0.0
        """What the sweep saw last of what is to be written, and since when."""
        self._last = False
        """Whether nothing more is read as a request."""
        self._pending = bytearray()
        """What has been read and not yet understood: part of a head, or further requests."""
        self._pumping = False
        self._held = False
        self._half_closed = False
        self._parting: socket.socket | None = None
        """Keeps the connection alive when the transport has closed its end."""
        self._length_left = 0
        self._scanner: ChunkedScanner | None = None
        self._tunnel: Tunnel | None = None
        self._waiting: deque[Exchange] = deque()

    # The gate ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client (asyncio.Protocol)."""
        if not data:
            super().data_received(data)  # aiohttp goes on with what it had put aside
        elif self._tunnel is not None:
            self._from_client(self._tunnel, data)
        elif self.content_unread:
            rest = self._read_content(data)
            if rest:
                self._put_aside(rest)
        elif self._last:
            return
        elif self.exchange is not None or self._paused or self._held:
            self._put_aside(data)
        elif self._pending:
            seen = len(self._pending)
            self._pending += data
            data = bytes(self._pending)
            self._pending.clear()
            self._read_requests(data, seen)
        else:
            self._read_requests(data, 0)

    def _read_requests(self, data: bytes, seen: int) -> None:
        """Read as many requests as can be answered at once; *seen* bytes were looked at before."""
        self._pumping = True
        while data and not self._last:
            end = data.find(b"\r\n\r\n", max(seen - 3, 0)) + 4
            if end < 4:
                self._wait_for_head(data, seen)
                break
            rest = data[end:]
            self._begin(data[:end] if rest else data)
            if rest and self.content_unread:
                rest = self._read_content(rest)
            if self.exchange is not None or self._paused or self._held:
                # A client that asks on and on and takes no answer must not fill our memory.
                if rest:
                    self._put_aside(rest)
                break
            data, seen = rest, 0
        self._pumping = False
        if self._half_closed:
            self._close_if_done()

    def _close_if_done(self) -> None:
        """Close a connection whose client will ask no more and has got all its answers."""
        if self.exchange is None and not self._pumping:
            self.close_idle()

    def _wait_for_head(self, data: bytes, seen: int) -> None:
        try:
            check_partial_head(data, start=seen, limits=self.serving.limits)
        except BadRequest as error:
            self.refuse(error)
            return
        if not seen:
            self.deadline = self._loop.time() + self.serving.limits.head_timeout
        self._pending += data

    def _begin(self, head_bytes: bytes) -> None:
        serving = self.serving
        try:
            head = self._heads.read(
                head_bytes, serving.limits, allow_encoded_slash=serving.allow_encoded_slash
            )
        except BadRequest as error:
            self.refuse(error)
            return
        overload = serving.overload
        if overload.shedder.share and overload.refuses(self, head, last=serving.draining):
            return
        if head.chunked:
            self._scanner = ChunkedScanner(limit=serving.limits.body)
        elif head.content_length:
            self._length_left = head.content_length
        exchange = self.exchange = serving.begin(self, head)
        if not serving.serve_at_once(exchange):
            self.serve_waiting()

    @property
    def reads_head(self) -> bool:
        """Whether part of a request head has come."""
        return bool(self._pending) and not self._last

    def refuse(self, error: BadRequest) -> None:
        """Answer what cannot be read as a request, and read no more."""
        self.serving.refuse(self, error)
        self._close_in_stages()

    def _close_in_stages(self) -> None:
        """Close in stages, so that the client gets the answer though it may go on sending."""
        self._last = True
        self._pending.clear()
        self._length_left, self._scanner = 0, None
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if not self._half_closed:
            self._parting = duplicate(transport)
        transport.close()
        if self.scheme == "https":
            self._loop.call_later(GOODBYE_SECONDS, transport.abort)

    def _put_aside(self, data: bytes) -> None:
        """Keep what follows the present exchange, and stop reading when that is a lot."""
        if self._last:
            return
        self._pending += data
        if len(self._pending) > PENDING_LIMIT:
            self.hold_reading(hold=True)

    # Content -------------------------------------------------------------------------------------

    @property
    def content_unread(self) -> bool:
        """Whether content of the present request is still to come."""
        return self._length_left > 0 or self._scanner is not None

    def _read_content(self, data: bytes) -> bytes:
        """Hand content to aiohttp; return what follows it."""
        if self._scanner is None:
            content = data[: self._length_left]
            self._length_left -= len(content)
            super().data_received(content)
            return data[len(content) :]
        scanner = self._scanner
        try:
            taken = scanner.feed(data)
        except BadRequest as error:
            self._refuse_content(error)
            return b""
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in scanner.take())
        if scanner.done:
            self._scanner = None
            framed += b"0\r\n\r\n"
        if framed:
            super().data_received(framed)
        return data[taken:]

    def _refuse_content(self, error: BadRequest) -> None:
        """End an exchange whose content turned out to be malformed, whatever its state is."""
        exchange = self.exchange
        if exchange is None:
            self._close_in_stages()
        elif exchange.answered:
            exchange.cut("bad_request")
        else:
            self.serving.refuse_content(exchange, error)

    # What the exchange asks for ------------------------------------------------------------------

    def send_answer(self, exchange: Exchange, answer: Answer, *, keep: bool) -> int:
        """Write *answer*; return the bytes of its content that went."""
        return self.write_answer(answer, method=exchange.method, keep=keep)

    def write_answer(self, answer: Answer, *, method: str, keep: bool) -> int:
        """Write *answer* to a request with *method*; return the bytes of its content that went."""
        if self.transport is None:
            return 0
        data, content = answer_bytes(answer, method=method, keep=keep)
        self.transport.write(data)
        return content

    def turn_down(self, answer: bytes, *, keep: bool) -> bool:
        """Write *answer*, a whole one; return whether reading rests until `read_on` is called."""
        if self.transport is None:
            return False
        self.transport.write(answer)
        if not keep:
            self._close_in_stages()
            return False
        self.deadline = self._loop.time() + self.serving.limits.idle_timeout
        self.hold_reading(hold=True)
        return True

    def read_on(self) -> None:
        """Read again after a rest."""
        if self.exchange is None and self._tunnel is None and self._held:
            if self._pending:
                self._next_request()
            else:
                self.hold_reading(hold=False)

    def write(self, data: bytes) -> None:
        """Write bytes that belong to no answer: an interim one."""
        if self.transport is not None:
            self.transport.write(data)

    def serve_waiting(self) -> None:
        """Have aiohttp's task serve the present exchange."""
        exchange = self.exchange
        assert exchange is not None
        self._waiting.append(exchange)
        if self._task_handler is None and self._manager is not None:  # not lost meanwhile
            self._task_handler = self._loop.create_task(self.start())
        head = exchange.head
        if head.chunked:
            message = b"POST / HTTP/1.1\r\nHost: -\r\nTransfer-Encoding: chunked\r\n\r\n"
        elif head.content_length:
            message = b"POST / HTTP/1.1\r\nHost: -\r\nContent-Length: %d\r\n\r\n" % (
                head.content_length
            )
        else:
            message = b"GET / HTTP/1.1\r\nHost: -\r\n\r\n"
        super().data_received(message)

    def next_waiting(self) -> Exchange:
        """Return the exchange that aiohttp's present message stands for."""
        return self._waiting.popleft()

    @property
    def stays_open(self) -> bool:
        """Whether another request may come."""
        return not self._last

    def switch_protocols(self, exchange: Exchange, data: bytes) -> None:
        """Relay bytes from now on; *data* came after the upstream's 101."""
        assert self.transport is not None
        assert exchange.connection is not None
        tunnel = self._tunnel = Tunnel(self.transport, exchange.connection)
        early, self._pending = bytes(self._pending), bytearray()
        self.hold_reading(hold=False)
        if data:
            exchange.upstream_sent(data)
        if early:
            self._from_client(tunnel, early)

    def _from_client(self, tunnel: Tunnel, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.event.bytes_in += tunnel.from_client(data)

    def relay(self, data: bytes) -> None:
        """Write bytes of the new protocol."""
        if self._tunnel is not None:
            self._tunnel.from_upstream(data)

    def end_relay(self) -> None:
        """The upstream's side of the new protocol is over."""
        if self._tunnel is not None:
            self._tunnel.end()

    def close_relay(self, code: int) -> None:
        """End the new protocol from here, with a WebSocket status code."""
        if self._tunnel is not None:
            self._tunnel.close(code, self._loop)

    def exchange_over(self, *, keep: bool) -> None:
        """Take the next request, or close."""
        self.exchange = None
        if not keep:
            self._last = True
            self._pending.clear()
            if self._tunnel is None:
                self._close_in_stages()
            return
        self.deadline = self._loop.time() + self.serving.limits.idle_timeout
        if self._pending:
            self._next_request()
        if self._half_closed:
            self._close_if_done()

    def _next_request(self) -> None:
        """Go on with what has been put aside, once the client has taken what it asked for before.

        Called while `_read_requests` runs, there is nothing to do: its loop goes on.
        """
        if self._pumping or self._paused or not self._pending or self.exchange is not None:
            return
        data = bytes(self._pending)
        self._pending.clear()
        self.hold_reading(hold=False)
        self._read_requests(data, 0)

    def abort(self) -> None:
        """Drop the connection."""
        self._last = True
        self._stay_no_longer()
        if self.transport is not None:
            self.transport.abort()

    def _stay_no_longer(self) -> None:
        parting, self._parting = self._parting, None
        if parting is not None:
            parting.close()

    def reset(self) -> None:
        """Drop the connection and what the kernel holds for it: the client takes nothing.

        A mere close would leave megabytes there until the kernel gives up on them, minutes later.
        """
        peer = self.transport.get_extra_info("socket") if self.transport is not None else None
        if peer is not None:
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def forget_fields(self) -> None:
        """Forget what the client's last head said; it is idle, and a cookie is not for keeping."""
        self._heads.forget()

    def close_idle(self) -> None:
        """Close a connection on which nothing is under way."""
        self._last = True
        if self.transport is not None:
            self.transport.close()
            if self.scheme == "https":
                self._loop.call_later(GOODBYE_SECONDS, self.abort)

    # Flow control --------------------------------------------------------------------------------

    def hold_reading(self, *, hold: bool) -> None:
        """Stop or go on reading from the client, for a reason of ours."""
        if hold is self._held:
            return
        self._held = hold
        if hold:
            self._pause_transport_reading()
        elif not self._reading_paused:
            self._resume_transport_reading()

    def _resume_transport_reading(self) -> None:
        """Let aiohttp go on reading only if nothing of ours speaks against it."""
        if not self._held:
            super()._resume_transport_reading()

    def pause_writing(self) -> None:
        """The client is slow: so is the upstream from now on (asyncio.Protocol)."""
        super().pause_writing()
        if self.exchange is not None:
            self.exchange.client_writable(writable=False)

    def resume_writing(self) -> None:
        """Go on (asyncio.Protocol)."""
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.client_writable(writable=True)
        else:
            self._next_request()

    # Life ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin (asyncio.Protocol).

        As aiohttp does, but for its task, which is not begun before there is something for it to
        do (`serve_waiting`), and for its TCP options: uvloop has set the one, and the listener
        hands the others down.
        """
        transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self.transport = transport
        assert self._manager is not None
        self._manager.connection_made(self, transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        if self.scheme == "https":
            self.asked_name = asked_name(transport.get_extra_info("ssl_object"))
        self.deadline = self._loop.time() + self.serving.limits.head_timeout
        self.serving.connected(self)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # aiohttp never keeps it open
        """Let the answer under way be finished, if that is quick (asyncio.Protocol)."""
        exchange = self.exchange
        if exchange is None or self._tunnel or self.content_unread or self.scheme == "https":
            return None
        self._half_closed = True
        self._loop.call_later(HALF_CLOSED_SECONDS, self._leave)
        return True

    def _leave(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """End whatever was under way (asyncio.Protocol)."""
        self._last = True
        super().connection_lost(exc)
        if self._parting is not None and exc is None:
            parting, self._parting = self._parting, None
            self.serving.lingering.take(parting)
        self._stay_no_longer()
        if self.exchange is not None:
            self.exchange.client_lost()
        self.serving.disconnected(self)

    def _process_keepalive(self) -> None:
        """Keep aiohttp from closing idle connections: `GatewayServer.sweep` does it for all."""
        self._keepalive_handle = None
