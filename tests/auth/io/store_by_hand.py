"""The far end of a connection to the store, played by the test: each reply comes when it says so.

A real server answers at once; what this is for is the order of things that a server cannot be made
to show: a reply before an invalidation, a loss between two reads.
"""

import asyncio
from typing import cast

import hiredis

from auth.io.connection import Connection


class StoreByHand(asyncio.Transport):
    """Make it on a running event loop; `connection` is the near end."""

    def __init__(self) -> None:
        super().__init__()
        self._written = hiredis.Reader()
        self.aborted = False
        self.connection = Connection()
        self.connection.tracking = True
        self.connection.connection_made(self)

    def write(self, data: object) -> None:
        self._written.feed(cast("bytes", data))

    def abort(self) -> None:
        self.aborted = True

    async def commands(self) -> list[list[bytes]]:
        """Take what was asked since the last call, at the end of this turn of the loop."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asked = []
        while command := self._written.gets():
            asked.append(cast("list[bytes]", command))
        return asked

    def answer(self, *replies: object) -> None:
        """Answer the oldest commands, all in one piece: bytes, int, list, None or an exception."""
        self.connection.data_received(b"".join(map(_encoded, replies)))

    def push(self, *parts: object) -> None:
        """Send an invalidation or a message."""
        self.connection.data_received(b">" + _encoded(list(parts))[1:])


def _encoded(value: object) -> bytes:
    match value:
        case None:
            return b"_\r\n"
        case int():
            return b":%d\r\n" % value
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(value), value)
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(_encoded, value))
        case Exception():
            return b"-%s\r\n" % str(value).encode()
    raise TypeError(value)
