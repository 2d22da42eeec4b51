"""An upgraded connection: bytes both ways after the 101, and an orderly end when we must end it.

How this works: the gateway does not speak WebSocket, it relays it. Only the frame boundaries of
what the upstream sends are followed (RFC 6455 5.2), by their headers, so that when the session
ends or the gateway drains, a close frame of ours can be put where a frame may begin. In the
middle of a frame there is no such place; then the connection is aborted.
"""

import asyncio
from struct import pack

from gateway.io.upstream import UpstreamConnection

SESSION_ENDED = 1008
"""Policy violation (RFC 6455 7.4.1): the identity behind the connection is no more."""
GOING_AWAY = 1001
TRY_AGAIN_LATER = 1013
"""Whether the identity is still there cannot be found out (IANA WebSocket close codes)."""

CLOSING_SECONDS = 1.0
"""How long the client has to answer our close frame before the transport is closed."""


class FrameBoundaries:
    """Follows the frames of one direction, and knows whether one is under way."""

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        self._left = 0
        self._header = b""

    @property
    def between_frames(self) -> bool:
        """Whether the next byte is the first of a frame."""
        return not self._left and not self._header

    def feed(self, data: bytes) -> None:
        """Follow *data*."""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            header = self._header + data[at : at + 14 - len(self._header)]
            size = _header_size(header)
            if not size or len(header) < size:
                self._header = header
                return
            at += size - len(self._header)
            self._header = b""
            self._left = _payload_size(header)


def _header_size(header: bytes) -> int:
    """Return the bytes of the frame header that begins with *header*; 0 if it is too short."""
    if len(header) < 2:
        return 0
    length = header[1] & 0x7F
    extended = {126: 2, 127: 8}.get(length, 0)
    return 2 + extended + (4 if header[1] & 0x80 else 0)


def _payload_size(header: bytes) -> int:
    length = header[1] & 0x7F
    if length == 126:
        return int.from_bytes(header[2:4], "big")
    if length == 127:
        return int.from_bytes(header[2:10], "big")
    return length


def _ends_with_close_frame(data: bytes) -> bool:
    """Tell whether *data* ends like a client's answer to our close frame (RFC 6455 5.5.1).

    A client masks its frames: two bytes of header, four of mask, two of status. Something else that
    looks the same does no harm: the connection is at its end in any case.
    """
    return data[-8:-6] == b"\x88\x82"


class Tunnel:
    """The two sides of an upgraded connection."""

    __slots__ = ("_client", "_closing", "_frames", "_upstream")

    def __init__(self, client: asyncio.Transport, upstream: UpstreamConnection) -> None:
        self._client = client
        self._upstream = upstream
        self._frames = FrameBoundaries()
        self._closing = False

    def from_client(self, data: bytes) -> int:
        """Pass *data* on; return how many bytes went."""
        if self._closing:
            if _ends_with_close_frame(data):
                self._client.close()
            return 0
        self._upstream.write(data)
        return len(data)

    def from_upstream(self, data: bytes) -> int:
        """Pass *data* on; return how many bytes went."""
        if self._closing:
            return 0
        self._frames.feed(data)
        self._client.write(data)
        return len(data)

    def end(self) -> None:
        """The upstream has ended its side: so do we, after what is still to be written."""
        if not self._closing:
            self._client.close()

    def close(self, code: int, loop: asyncio.AbstractEventLoop) -> None:
        """End it with the WebSocket status *code*."""
        if self._closing:
            return
        self._closing = True
        self._upstream.abort()
        if not self._frames.between_frames:
            self._client.abort()
            return
        self._client.write(b"\x88\x02" + pack("!H", code))
        # The close frame must not be lost to a reset, so read on until the client has left.
        self._client.resume_reading()
        loop.call_later(CLOSING_SECONDS, self._client.close)
