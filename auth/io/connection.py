"""One connection to the store: commands out, replies and pushes in, in one order.

How this works. Every command that is written appends its callback to a queue; the one reader, which
is `data_received`, hands each reply to the callback at the head. A caller who goes away abandons
its callback, the reply is read all the same, so nobody can be handed another one's reply
(redis-py 4.5.1 had exactly that). A reply of a type that the command cannot have means the two
sides disagree about the order: the connection is closed and everybody in the queue is told.

What is sent in one turn of the event loop is written at its end in one piece: a system call costs
as much as all the rest of a read, and a busy worker reads several sessions in a turn.

Callbacks and pushes are called inside `data_received`, never later: what the caller sees is the
order in which the store did things. That order is what the session cache rests on.

RESP3 (protocol specification, "Pushes"): invalidations and pub/sub messages come between replies,
and the answer to SUBSCRIBE is itself a push, or an error reply.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

import hiredis

Reply = object
"""A value as hiredis reads it, or an exception: `hiredis.ReplyError` or `StoreLost`."""
OnReply = Callable[[Reply], None]
Argument = str | bytes | int | float
Command = tuple[Argument, ...]
T = TypeVar("T")

# Twice what a busy worker has in flight; beyond, the store is not keeping up and waiting is worse.
_MOST_IN_FLIGHT = 20_000
_NOTHING = object()


class StoreLost(Exception):
    """The connection went away before the reply came: whether the command ran is not known."""


# Not on Linux: the monotonic clock has to do, which may stand still while the machine sleeps.
_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
boottime: Callable[[], float] = partial(time.clock_gettime, _CLOCK)
"""Seconds on a clock that also runs while the machine sleeps, and never steps."""


class Connection(asyncio.Protocol):
    """A connection after `open_connection`; all of it runs on one event loop.

    *on_push* gets each push that is no subscription's answer; *on_lost* is called once.
    """

    def __init__(self) -> None:
        self.on_push: Callable[[list[object]], None] = lambda _: None
        self.on_lost: Callable[[], None] = lambda: None
        self.lost = False
        self.tracking = False
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._waiting: deque[tuple[OnReply, type | tuple[type, ...], float]] = deque()
        self._transport: asyncio.Transport | None = None
        self._unwritten: list[bytes] = []
        self._turn_at = 0.0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport (asyncio calls this)."""
        self._transport = cast("asyncio.Transport", transport)

    def send(
        self, command: Command, on_reply: OnReply, expect: type | tuple[type, ...] = object
    ) -> None:
        """Write *command*; *on_reply* gets the reply or why there is none.

        Raises:
            StoreLost: the connection is gone or far behind; nothing was sent.
        """
        if self.lost or self._transport is None or len(self._waiting) >= _MOST_IN_FLIGHT:
            raise StoreLost("not connected")
        if not self._unwritten:
            self._loop.call_soon(self._write)
            self._turn_at = boottime()
        self._waiting.append((on_reply, expect, self._turn_at))
        # hiredis' stub asks for a tuple of one
        self._unwritten.append(hiredis.pack_command(command))  # type: ignore[arg-type]

    def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(unwritten))

    def call(
        self, *command: Argument, expect: type | tuple[type, ...] = object
    ) -> "asyncio.Future[Reply]":
        """Write *command* and return a future of its reply; cancelling it abandons the reply."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.send(command, partial(_resolve, future), expect)
        return future

    @property
    def oldest(self) -> object | None:
        """The command at the head of the queue, which is the same object until it is answered."""
        return self._waiting[0] if self._waiting else None

    def oldest_wait(self, now: float) -> float:
        """Return for how long the head of the queue has waited, seconds; 0 if nobody waits."""
        return now - self._waiting[0][2] if self._waiting else 0.0

    def data_received(self, data: bytes) -> None:
        """Hand out what has come (asyncio calls this)."""
        try:
            self._reader.feed(data)
            while (value := self._reader.gets()) is not _NOTHING:
                if isinstance(value, hiredis.PushNotification) and value[0] != b"subscribe":
                    self.on_push(value)
                else:
                    self._answer(value)
        except hiredis.ProtocolError:
            self.close()

    def _answer(self, value: Reply) -> None:
        if not self._waiting:
            self.close()  # an answer nobody asked for
            return
        on_reply, expect, _ = self._waiting[0]
        if not isinstance(value, expect) and not isinstance(value, hiredis.ReplyError):
            self.close()  # out of step: this may be somebody else's answer
            return
        self._waiting.popleft()
        on_reply(value)

    def close(self) -> None:
        """Drop the connection at once; everybody who waits gets `StoreLost`."""
        if self._transport is not None:
            self._transport.abort()
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody (asyncio calls this)."""
        del exc
        self._lose()

    def _lose(self) -> None:
        if self.lost:
            return
        self.lost = True
        # First the owner, which drops what depended on this connection, then those who wait.
        self.on_lost()
        waiting, self._waiting = self._waiting, deque()
        for on_reply, _, _ in waiting:
            on_reply(StoreLost("the connection to the store was lost"))


def _resolve(future: "asyncio.Future[Reply]", reply: Reply) -> None:
    if future.done():
        return  # its caller went away
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)
