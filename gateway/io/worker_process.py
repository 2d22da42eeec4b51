"""One worker as its supervisor sees it: a process, its channel, and what it serves by now."""

import asyncio
import contextlib
import logging
import signal
import sys
import time

from gateway.io.control import (
    Abort,
    CallingEnd,
    ChannelError,
    CommandError,
    Commit,
    Drain,
    Measure,
    Prepare,
    ReopenLogs,
    Start,
    channel_pair,
)
from gateway.io.metrics import Measurement

_log = logging.getLogger(__name__)

WORKER_COMMAND = (sys.executable, "-m", "gateway.io.worker")
PREPARE_SECONDS = 60.0
"""10,000 routes with conditions take a few seconds to compile."""
COMMIT_SECONDS = 5.0
"""To take up, or to forget, what is prepared already."""
EXIT_SECONDS = 5.0
"""For closing what is left when the draining is over."""
MEASURE_SECONDS = 1.0
"""A worker that cannot answer in this time is overloaded or stopped; a scrape must not hang."""
HUNG_AFTER = 30.0
"""Seconds without an answer to anything, after which a worker that serves counts as hung. No
request holds the loop for so long, and its share of the connections waits for nothing."""


class WorkerProcess:
    """A running worker. `generation` is the one it serves, 0 before the first."""

    def __init__(self, slot: int, process: asyncio.subprocess.Process, channel: CallingEnd) -> None:
        self.slot = slot
        self.generation = 0
        self.responsive = True
        self.started_at = time.monotonic()
        self._process = process
        self._channel = channel

    @classmethod
    async def spawn(
        cls, slot: int, listener: int, command: tuple[str, ...] = WORKER_COMMAND
    ) -> "WorkerProcess":
        """Start a process that inherits the listening socket *listener* (a descriptor)."""
        ours, theirs = channel_pair()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), listener),
                # Its own session: a Ctrl-C on the terminal reaches the supervisor alone, which
                # then drains its workers in good order.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(slot, process, await CallingEnd.over(ours))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    async def start(self, start: Start) -> None:
        """Tell the process what it needs once. Raises as `CallingEnd.call` does."""
        await self._channel.call(start, timeout=PREPARE_SECONDS)

    async def prepare(self, generation: int, packed: bytes) -> None:
        """Have it make a generation ready. Raises as `CallingEnd.call` does."""
        await self._channel.call(Prepare(generation, packed), timeout=PREPARE_SECONDS)

    async def commit(self, generation: int) -> None:
        """Have it serve the generation that it has prepared. Raises as `CallingEnd.call` does."""
        await self._channel.call(Commit(generation), timeout=COMMIT_SECONDS)
        self.generation = generation

    async def abort(self, generation: int) -> None:
        """Have it forget what it prepared; if it cannot be told, the next prepare replaces it."""
        with contextlib.suppress(CommandError, ChannelError):
            await self._channel.call(Abort(generation), timeout=COMMIT_SECONDS)

    @property
    def silent_for(self) -> float:
        """Seconds since it last answered anything, be it too late, or began."""
        return time.monotonic() - self._channel.heard_at

    async def measure(self) -> Measurement | None:
        """Return its numbers, or None (and no longer `responsive`) if it does not answer."""
        try:
            measurement = await self._channel.call(Measure(), timeout=MEASURE_SECONDS)
        except (CommandError, ChannelError):
            self.responsive = False
            return None
        self.responsive = True
        return measurement

    async def reopen_logs(self) -> None:
        """Have it open its log files anew."""
        with contextlib.suppress(CommandError, ChannelError):
            await self._channel.call(ReopenLogs(), timeout=COMMIT_SECONDS)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - the worker's own deadline
        """Have it finish within *timeout* seconds and end; kill it if it has not by then."""
        try:
            with contextlib.suppress(CommandError, ChannelError):
                await self._channel.call(Drain(timeout), timeout=COMMIT_SECONDS)
            async with asyncio.timeout(timeout + EXIT_SECONDS):
                await self.wait()
        except TimeoutError:
            _log.warning("worker %d did not end within %g s and is killed", self.slot, timeout)
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self) -> str:
        """Wait for the process to end; return how it did, in words."""
        code = await self._process.wait()
        await self._channel.close()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
