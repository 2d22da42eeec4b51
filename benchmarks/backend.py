"""An upstream that nginx cannot be: echoes WebSocket frames, swallows uploads.

`python -m benchmarks.backend PORT`. What it answers is constant, so that it costs little.
"""

import asyncio
import base64
import hashlib
import re
import sys

import uvloop

_KEY = re.compile(rb"\r\nsec-websocket-key: ([^\r]+)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


class Backend(asyncio.Protocol):
    """One connection: requests with a length, until one asks for a WebSocket."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._head = b""
        self._left = 0
        self._echoes = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport (asyncio.Protocol)."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Echo, count, or answer (asyncio.Protocol)."""
        if self._echoes:
            self._echo(data)
            return
        if self._left:
            self._left -= len(data)
            if self._left <= 0:
                self._left = 0
                self._transport.write(_OK)
            return
        head, _, rest = (self._head + data).partition(b"\r\n\r\n")
        key, length = _KEY.search(head), _LENGTH.search(head)
        if key is not None:
            self._echoes = True
            accept = base64.b64encode(hashlib.sha1(key[1] + _GUID).digest())  # noqa: S324 - RFC 6455
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
        elif length is not None and int(length[1]) > len(rest):
            self._left = int(length[1]) - len(rest)
        else:
            self._transport.write(_OK)

    def _echo(self, data: bytes) -> None:
        """Send one frame of ours for each of the client's, which are masked and 100 bytes long."""
        self._transport.write((b"\x82\x64" + b"x" * 100) * (len(data) // FRAME_BYTES))


FRAME_BYTES = 2 + 4 + 100
"""A client's frame with 100 bytes: header, mask, payload (RFC 6455 5.2)."""


async def main(port: int) -> None:
    """Serve until stopped."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Backend, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
