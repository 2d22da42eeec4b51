"""The last stage of a connection: our side is closed, and what still comes is thrown away.

How this works (RFC 9112 9.6). To close a socket while bytes of the client's are unread, or on their
way, makes the kernel send a reset, and a client that is still sending then loses the answer that it
has not read: the very answer that says why it need not send. So a connection ends in stages. The
transport closes as always, when everything is written, over TLS with the closure alert; but a
duplicate of its descriptor keeps the connection alive. Its writing side is shut, and what the
client sends is read into nowhere, until the client closes too, or falls silent, or it has been
enough. The connection's own objects are gone by then, so this costs next to nothing.

Bounded for each socket in bytes and time, and in number: when there are too many, the one that has
had the most time goes.
"""

import asyncio
import contextlib
import os
import socket

LINGER_SECONDS = 30.0
"""How long a client may go on sending, as with nginx's `lingering_time`."""

SILENT_SECONDS = 2.0
"""How long it may be silent: a client that is done closes as soon as it sees our end."""

LINGER_BYTES = 64 * 1024 * 1024
"""How much it may send: four times what a body may have by default."""

# MSG_TRUNC: the kernel drops the bytes and copies nothing, so that nobody ever writes in here.
_NOWHERE = bytearray(1024 * 1024)


def duplicate(transport: asyncio.Transport) -> socket.socket | None:
    """Return another descriptor of *transport*'s connection; None if there cannot be one."""
    peer = transport.get_extra_info("socket")
    try:
        # The family is told, or Python would ask the kernel three times.
        return socket.socket(peer.family, peer.type, peer.proto, os.dup(peer.fileno()))
    except (AttributeError, OSError):
        return None


class Lingering:
    """Sockets in their last stage, no more than *most*."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[socket.socket, _Bounds] = {}
        self._emptied: asyncio.Event | None = None

    @property
    def full(self) -> bool:
        """Whether the next one would end an earlier one."""
        return len(self._sockets) >= self._most

    def take(self, peer: socket.socket) -> None:
        """Shut the writing side of *peer*, which is ours from now on, and empty it."""
        if self.full:
            self._close(next(iter(self._sockets)))
        try:
            peer.shutdown(socket.SHUT_WR)
        except OSError:  # the client is gone
            peer.close()
            return
        self._sockets[peer] = _Bounds(self._loop.time())
        self._loop.add_reader(peer, self._read, peer)

    def sweep(self, now: float) -> None:
        """Close what has taken too long by *now*, the loop's time."""
        for peer, bounds in tuple(self._sockets.items()):
            if now >= bounds.silent_until or now >= bounds.until:
                self._close(peer)

    async def end(self) -> None:
        """Wait until the last one is closed."""
        self._emptied = asyncio.Event()
        if self._sockets:
            await self._emptied.wait()

    def close(self) -> None:
        """Close all of them."""
        for peer in tuple(self._sockets):
            self._close(peer)

    def _read(self, peer: socket.socket) -> None:
        bounds = self._sockets[peer]
        try:
            count = peer.recv_into(_NOWHERE, 0, socket.MSG_TRUNC)
        except BlockingIOError:
            return
        except OSError:
            count = 0
        bounds.left -= count
        bounds.silent_until = self._loop.time() + SILENT_SECONDS
        if not count or bounds.left < 0:
            self._close(peer)

    def _close(self, peer: socket.socket) -> None:
        del self._sockets[peer]
        self._loop.remove_reader(peer)
        with contextlib.suppress(OSError):
            peer.close()
        if self._emptied is not None and not self._sockets:
            self._emptied.set()


class _Bounds:
    """How much longer one socket may go on."""

    __slots__ = ("left", "silent_until", "until")

    def __init__(self, now: float) -> None:
        self.left = LINGER_BYTES
        self.until = now + LINGER_SECONDS
        self.silent_until = now + SILENT_SECONDS
