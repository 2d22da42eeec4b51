"""Clients for what `wrk` cannot measure: a constant rate, idle connections, handshakes, and so on.

`python -m benchmarks.clients KIND JSON` runs one of them, pinned by whoever starts it, and prints
its result as JSON. The process stops by itself.
"""

import asyncio
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping

import uvloop

from benchmarks.backend import FRAME_BYTES

_HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
)
_FRAME = b"\x82\xe4\0\0\0\0" + b"x" * 100
assert len(_FRAME) == FRAME_BYTES


def request_of(port: int, path: str, fields: Mapping[str, str], *, method: str = "GET") -> bytes:
    """Return a request head."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}\r\n".encode()


class _Asker(asyncio.Protocol):
    """One connection of the open-loop client; at most one request at a time."""

    def __init__(self, done: Callable[["_Asker", bytes], None]) -> None:
        self.transport: asyncio.Transport
        self.due = 0.0
        self._done = done
        self._read = b""
        self._whole = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._read += data
        if not self._whole:
            end = self._read.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            at = self._read.lower().find(b"content-length:", 0, end)
            length = int(self._read[at + 15 : self._read.find(b"\r\n", at)]) if at > 0 else 0
            self._whole = end + length
        if len(self._read) >= self._whole:
            status = self._read[9:12]
            self._read, self._whole = b"", 0
            self._done(self, status)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        if self.due:
            self._done(self, b"")


async def ask_at_a_rate(  # noqa: C901, PLR0913 - what the JSON holds; callbacks
    *,
    port: int,
    path: str,
    fields: Mapping[str, str],
    rate: float,
    seconds: float,
    connections: int,
) -> Mapping[str, object]:
    """Send *rate* requests a second whatever becomes of them, and time each from when it was due.

    So a pause of the server counts for every request that should have been sent in it, which a
    client that waits for its answer would leave out (coordinated omission).
    """
    loop = asyncio.get_running_loop()
    idle: list[_Asker] = []
    overdue: list[float] = []
    latencies: list[float] = []
    served: list[tuple[float, float]] = []
    errors = shed = 0
    request = request_of(port, path, fields)

    def done(asker: _Asker, status: bytes) -> None:
        nonlocal errors, shed
        now = time.perf_counter()
        latencies.append(now - asker.due)
        if status == b"200":
            served.append((now - began, now - asker.due))
        errors += status != b"200"
        shed += status == b"503"
        asker.due = 0.0
        if asker.transport.is_closing():
            return
        if overdue:
            send(asker, overdue.pop(0))
        else:
            idle.append(asker)

    def send(asker: _Asker, due: float) -> None:
        asker.due = due
        asker.transport.write(request)

    began = time.perf_counter()
    for _ in range(connections):
        _, asker = await loop.create_connection(lambda: _Asker(done), "127.0.0.1", port)
        idle.append(asker)
    began = time.perf_counter()
    total = int(rate * seconds)
    for number in range(total):
        due = began + number / rate
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        elif number % 16 == 0:
            await asyncio.sleep(0)
        while idle and idle[-1].transport.is_closing():
            idle.pop()  # a client would notice too, and not ask on it
        if idle:
            send(idle.pop(), due)
        else:
            overdue.append(due)
    deadline = time.perf_counter() + 5
    while len(latencies) < total and time.perf_counter() < deadline:  # noqa: ASYNC110 - at the end
        await asyncio.sleep(0.01)
    errors += total - len(latencies)
    latencies.sort()
    at = [latencies[min(int(len(latencies) * p), len(latencies) - 1)] for p in (0.5, 0.99)]
    # Without the first half, in which a server that is overloaded finds out that it is.
    later = sorted(late for when, late in served if seconds / 2 <= when < seconds)
    return {
        "p50": at[0],
        "p99": at[1],
        "max": latencies[-1],
        "errors": errors,
        "sent": total,
        "shed": shed,
        "served_a_second": len(later) / (seconds / 2),
        "served_p99": later[int(len(later) * 0.99)] if later else 0.0,
    }


async def hold_connections(  # noqa: PLR0913 - what the JSON holds
    *, port: int, path: str, fields: Mapping[str, str], count: int, websocket: bool, seconds: float
) -> Mapping[str, object]:
    """Open *count* connections, ask once on each, say so on stdout, and idle for *seconds*."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    request = request_of(port, path, fields)
    if websocket:
        request = _HANDSHAKE.format(path=path, port=port, fields=lines).encode()
    held = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        status = await reader.readuntil(b"\r\n\r\n")
        if not status.startswith((b"HTTP/1.1 200", b"HTTP/1.1 101")):
            raise RuntimeError(status.decode("latin-1"))
        held.append((reader, writer))
    print("held", flush=True)
    await asyncio.sleep(seconds)
    return {"held": len(held)}


async def exchange_frames(
    port: int, path: str, fields: Mapping[str, str], connections: int, seconds: float
) -> Mapping[str, object]:
    """Send frames of 100 bytes, each connection its next when its last was echoed; count them."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    handshake = _HANDSHAKE.format(path=path, port=port, fields=lines).encode()
    until = 0.0
    echoed = 0

    async def converse() -> None:
        nonlocal echoed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(handshake)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise RuntimeError(head.decode("latin-1"))
        while time.perf_counter() < until:
            writer.write(_FRAME)
            await reader.readexactly(102)
            echoed += 1
        writer.close()

    until = time.perf_counter() + seconds
    await asyncio.gather(*(converse() for _ in range(connections)))
    return {"messages": echoed}


async def move_bytes(
    *, port: int, path: str, fields: Mapping[str, str], size: int, up: bool
) -> Mapping[str, object]:
    """Send or fetch *size* bytes in one request."""
    began = time.perf_counter()
    await asyncio.to_thread(_move, port, path, fields, size, up=up)
    return {"seconds": time.perf_counter() - began}


def _move(port: int, path: str, fields: Mapping[str, str], size: int, *, up: bool) -> None:
    more = {**fields, "Content-Length": str(size)} if up else fields
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request_of(port, path, more, method="POST" if up else "GET"))
        piece = bytes(1 << 18)
        for _ in range(size // len(piece) if up else 0):
            connection.sendall(piece)
        got, buffer = 0, bytearray(1 << 20)
        while (read := connection.recv_into(buffer)) > 0:
            if not got and not buffer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(bytes(buffer[:200]).decode("latin-1"))
            got += read
            if up or got >= size:
                break


async def shake_hands(
    *, port: int, path: str, seconds: float, threads: int
) -> Mapping[str, object]:
    """Ask once on each of many TLS connections, every one with a full handshake; count them.

    `wrk` offers the session it had before, and so measures resumption.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # self-signed, on loopback
    request = request_of(port, path, {"Connection": "close"})
    until = time.perf_counter() + seconds

    def go_on() -> tuple[int, set[str | None]]:
        done, versions = 0, set()
        while time.perf_counter() < until:
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                context.wrap_socket(plain) as connection,
            ):
                connection.sendall(request)
                if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                    raise RuntimeError("no good answer")
                while connection.recv(65536):
                    pass
                if connection.session_reused:
                    raise RuntimeError("a session was resumed")
                versions.add(connection.version())
            done += 1
        return done, versions

    results = await asyncio.gather(*(asyncio.to_thread(go_on) for _ in range(threads)))
    versions = set().union(*(each[1] for each in results))
    return {"handshakes": sum(each[0] for each in results), "versions": sorted(map(str, versions))}


_KINDS = {
    "rate": ask_at_a_rate,
    "hold": hold_connections,
    "frames": exchange_frames,
    "bytes": move_bytes,
    "handshakes": shake_hands,
}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_KINDS[sys.argv[1]](**json.loads(sys.argv[2])))))  # type: ignore[operator]
