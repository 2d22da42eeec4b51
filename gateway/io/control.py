"""The channel between the supervisor and one worker: JSON lines over a socket pair.

The supervisor calls, the worker replies. A worker whose channel ends has lost its supervisor:
that is how no worker outlives it, however it died.
"""

import asyncio
import contextlib
import itertools
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from auth.io.tasks import stop
from gateway.io.metrics import Measurement

_log = logging.getLogger(__name__)

LINE_LIMIT = 256 * 1024 * 1024
"""Bytes. A configuration travels as one line, and there may be 10,000 routes in it."""


class Start(msgspec.Struct, tag="start", frozen=True):
    """What a worker needs once. It serves nothing until the first `Commit`."""

    slot: int
    listener: int
    """File descriptor of the listening socket, inherited."""
    data_directory: str
    store_url: str
    """Where the sessions live, with `embedded` already turned into the address of its socket."""
    access_log: str
    """A path, or `stdout`."""


class Prepare(msgspec.Struct, tag="prepare", frozen=True):
    """Make everything ready for a generation, and change nothing yet."""

    generation: int
    configuration: bytes
    """`gateway.io.packing`: what the supervisor checked, and not what a file says by now."""


class Commit(msgspec.Struct, tag="commit", frozen=True):
    """Requests that start from now on see this generation, which has been prepared."""

    generation: int


class Abort(msgspec.Struct, tag="abort", frozen=True):
    """Forget what was prepared."""

    generation: int


class Measure(msgspec.Struct, tag="measure", frozen=True):
    """Reply with a `Measurement`."""


class ReopenLogs(msgspec.Struct, tag="reopen_logs", frozen=True):
    """Somebody has moved the access log away."""


class Drain(msgspec.Struct, tag="drain", frozen=True):
    """Finish what is running within *timeout* seconds, then end the process."""

    timeout: float


Command = Start | Prepare | Commit | Abort | Measure | ReopenLogs | Drain
Result = Measurement | None


class _Call(msgspec.Struct, frozen=True):
    id: int
    command: Command


class _Reply(msgspec.Struct, frozen=True):
    id: int
    result: Result = None
    error: str = ""


class CommandError(Exception):
    """The worker could not do it, and says why, or has not said so in time."""


class RefusedError(Exception):
    """What a worker raises about a command that an operator's mistake stands in the way of."""


class ChannelError(Exception):
    """The worker is gone; whether it did it before is unknown, and no longer matters."""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a channel; neither is inherited unless asked for."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class CallingEnd:
    """The supervisor's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[_Reply]] = {}
        self._closed = False
        self.heard_at = time.monotonic()
        """When the last reply came, a late one included."""
        self._task = asyncio.create_task(self._read_replies())

    @classmethod
    async def over(cls, end: socket.socket) -> "CallingEnd":
        """Return the calling end over the socket *end*, which it owns from now on."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=LINE_LIMIT))

    async def call(self, command: Command, *, timeout: float) -> Result:  # noqa: ASYNC109 - part of the contract of a call: late is gone
        """Return what the worker replies to *command* within *timeout* seconds.

        Raises:
            CommandError: the worker refused or failed, and says why, or it is too late.
            ChannelError: it is gone.
        """
        if self._closed:
            raise ChannelError("the worker is gone")
        call = _Call(next(self._ids), command)
        reply: asyncio.Future[_Reply] = asyncio.get_running_loop().create_future()
        self._waiting[call.id] = reply
        try:
            self._writer.write(msgspec.json.encode(call) + b"\n")
            async with asyncio.timeout(timeout):
                await self._writer.drain()
                answer = await reply
        except TimeoutError as error:
            raise CommandError(f"no reply within {timeout:g} s") from error
        except OSError as error:
            raise ChannelError("the worker is gone") from error
        finally:
            self._waiting.pop(call.id, None)
        if answer.error:
            raise CommandError(answer.error)
        return answer.result

    async def close(self) -> None:
        """Hang up; the worker takes that as the loss of its supervisor."""
        await stop(self._task)
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read_replies(self) -> None:
        decode = msgspec.json.Decoder(_Reply).decode
        try:
            while line := await self._reader.readline():
                reply = decode(line)
                self.heard_at = time.monotonic()
                waiting = self._waiting.get(reply.id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except ConnectionError:
            pass  # the worker is gone, with something of ours unread
        except (OSError, ValueError):
            _log.exception("a worker's channel broke")
        finally:
            self._closed = True
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ChannelError("the worker is gone"))


async def serve_commands(
    end: socket.socket, perform: Callable[[Command], Awaitable[Result]]
) -> None:
    """Perform what the supervisor calls for, each in a task of its own, until it hangs up.

    What *perform* raises becomes the error of the reply. When the channel has ended, commands that
    still run are left to finish.
    """
    reader, writer = await asyncio.open_unix_connection(sock=end, limit=LINE_LIMIT)
    running: set[asyncio.Task[None]] = set()

    async def answer(call: _Call) -> None:
        try:
            reply = _Reply(call.id, await perform(call.command))
        except RefusedError as error:
            reply = _Reply(call.id, error=str(error))
        except Exception as error:  # noqa: BLE001 - the supervisor is told, whatever it was
            _log.exception("%s failed", type(call.command).__name__)
            reply = _Reply(call.id, error=str(error) or type(error).__name__)
        writer.write(msgspec.json.encode(reply) + b"\n")

    async for call in _calls(reader):
        if isinstance(call.command, Measure):
            # Nothing to wait for, and each task would cost a turn of the loop: where turns are
            # long, because there is too much to do, numbers are wanted most.
            await answer(call)
            continue
        task = asyncio.create_task(answer(call))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)
    writer.close()


async def _calls(reader: asyncio.StreamReader) -> AsyncIterator[_Call]:
    decode = msgspec.json.Decoder(_Call).decode
    try:
        while line := await reader.readline():
            yield decode(line)
    except OSError:
        return
