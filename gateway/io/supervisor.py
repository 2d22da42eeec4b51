"""The parent process: sockets, the embedded store, the workers, reloads, and an orderly end.

How this works: the supervisor never touches a request. It makes the listening sockets, and for
each slot keeps one worker alive (`_keep_worker`); a worker that dies is replaced at once, and its
queue of connections waits in the socket that the supervisor has kept open; one that has long not
answered the supervisor is killed, and then replaced as if it had died. `Reloader` holds the
generation in force. Whatever the supervisor starts ends with it: in good order after a signal, and
when it is killed because the workers' channels and the store's pipe end.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from auth.io.tasks import stop
from config.model import Configuration
from config.problem import Problem
from gateway.io.control import ChannelError, CommandError, Start
from gateway.io.metrics import Measurement, Totals
from gateway.io.reload import Live, Reloader
from gateway.io.watching import changes
from gateway.io.worker_process import HUNG_AFTER, WORKER_COMMAND, WorkerProcess

if TYPE_CHECKING:
    import socket

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

FIRST_DELAY = 0.1
LAST_DELAY = 5.0
"""Seconds before a worker that keeps dying is started again; the first time there is no delay."""
STEADY_AFTER = 10.0
"""Seconds a worker must have lived for its death to count as a first one."""
POLL_SECONDS = 5.0
"""How much of a killed worker's counts may be lost."""


class RunSettings(msgspec.Struct, frozen=True):
    """What `doorward run` was told beside the file."""

    file: Path
    data_directory: Path
    access_log: str = "stdout"
    drain_seconds: float = 30.0
    worker_command: tuple[str, ...] = WORKER_COMMAND


class StartFailedError(Exception):
    """The gateway cannot start; the message says what to do."""


class Supervisor:
    """Runs the gateway from start to stop.

    *load* reads and checks the file again, for reloads. *store_url* is where the sessions live.
    There is one worker for each of *listeners*, which are the supervisor's from now on.
    """

    def __init__(
        self,
        live: Live,
        settings: RunSettings,
        *,
        load: Callable[[], Configuration | list[Problem]],
        store_url: str,
        listeners: tuple["socket.socket", ...],
    ) -> None:
        self.reloader = Reloader(
            live, file=str(settings.file), load=load, workers=lambda: self.workers
        )
        self.settings = settings
        self.started_at = time.time()
        self.restarts = 0
        self.draining = False
        self._store_url = store_url
        self._processes: dict[int, WorkerProcess] = {}
        self._totals = Totals()
        self.others: list[Callable[[], Mapping[str, float]]] = []
        """More numbers for `measure`, of what runs beside the workers."""
        self._listeners = listeners
        self._keepers: set[asyncio.Task[None]] = set()
        self._started: asyncio.Future[None] | None = None
        self._stop = asyncio.Event()
        self._terminal = next((number for number in range(3) if os.isatty(number)), None)
        self._stop_now = asyncio.Event()
        self._hung_up = asyncio.Event()

    @property
    def workers(self) -> Sequence[WorkerProcess]:
        """The worker processes, by slot."""
        return [self._processes[slot] for slot in sorted(self._processes)]

    @property
    def serving(self) -> Sequence[WorkerProcess]:
        """The workers that take requests."""
        return [worker for worker in self.workers if worker.alive and worker.generation]

    @property
    def stopping(self) -> bool:
        """Whether somebody has asked for the end."""
        return self._stop.is_set()

    @property
    def slots(self) -> int:
        """How many workers there should be."""
        return len(self._listeners)

    async def measure(self) -> Measurement:
        """Ask every worker for its numbers; return the sum over all there were."""
        workers = self.serving
        measurements = await asyncio.gather(*(worker.measure() for worker in workers))
        for worker, measurement in zip(workers, measurements, strict=True):
            if measurement is not None and worker.alive:
                self._totals.take(worker.pid, measurement)
        total = self._totals.total()
        reloader = self.reloader
        total.numbers.update(
            {
                "workers": float(len(workers)),
                "worker_restarts": float(self.restarts),
                "config_generation": float(reloader.live.generation),
                "config_last_reload_ok": float(not reloader.last.problems),
                "reloads": float(reloader.succeeded),
                "reload_failures": float(reloader.failed),
            }
        )
        for numbers in self.others:
            total.numbers.update(numbers())
        return total

    async def start(self) -> None:
        """Bring up all workers; return early if somebody asks to stop meanwhile.

        Raises:
            StartFailedError: a worker cannot do its work, and why.
        """
        self._install_signals()
        try:
            await self._start_workers()
        except BaseException:
            self._stop_now.set()
            await self.stop()
            raise

    async def _start_workers(self) -> None:
        self._started = asyncio.get_running_loop().create_future()
        for slot in range(self.slots):
            self._keep_going(self._keep_worker(slot))
        self._keep_going(self._watch_file())
        self._keep_going(self._reload_after_hangups())
        self._keep_going(self._poll())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait((self._started, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._started.done():
            self._started.result()

    def _keep_going(self, keeping: Coroutine[None, None, None]) -> None:
        """Run *keeping* until it ends or we do, and hold nothing of it after that."""
        task = asyncio.create_task(keeping)
        self._keepers.add(task)
        task.add_done_callback(self._keepers.discard)

    async def wait(self) -> None:
        """Return when somebody has asked for the end."""
        await self._stop.wait()

    async def stop(self) -> None:
        """Drain all workers and end them; a second signal ends them at once."""
        self.draining = True
        # First ours: as long as anybody holds a listening socket, connections queue up in it.
        for listener in self._listeners:
            listener.close()
        drains = asyncio.gather(
            *(worker.drain(self.settings.drain_seconds) for worker in self.serving)
        )
        hurry = asyncio.create_task(self._stop_now.wait())
        await asyncio.wait((drains, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for worker in self.workers:
            worker.kill()
        await stop(*self._keepers)
        await asyncio.gather(drains, return_exceptions=True)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
        _log.info("stopped")

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _ask_to_stop(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            _log.info("%s again: stopping at once", number.name)
            self._stop_now.set()
        else:
            _log.info("%s: draining; once more stops at once", number.name)
            self._stop.set()

    def _hang_up(self) -> None:
        if self._terminal is not None and not os.isatty(self._terminal):
            # Its window was closed: nobody asked for a reload, and nobody would end us later.
            _log.info("the terminal is gone: draining")
            self._stop.set()
            return
        self._hung_up.set()

    async def _reload_after_hangups(self) -> None:
        """Reload for each SIGHUP; for those that come while one is at it, once more at its end."""
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            await asyncio.gather(*(worker.reopen_logs() for worker in self.serving))
            await self.reloader.reload()

    async def _watch_file(self) -> None:
        async for _ in changes(self.settings.file):
            _log.info("%s has changed", self.settings.file)
            await self.reloader.reload()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.measure()
            self._end_hung()

    def _end_hung(self) -> None:
        """Kill the workers that have long not answered; `_keep_worker` starts others.

        The kernel goes on giving a hung worker its share of the new connections.
        """
        for worker in self.serving:
            if not worker.responsive and worker.silent_for >= HUNG_AFTER:
                _log.error(
                    "worker %d (process %d) has not answered for %d s and is killed",
                    worker.slot,
                    worker.pid,
                    worker.silent_for,
                )
                worker.kill()

    async def _keep_worker(self, slot: int) -> None:
        delay = 0.0
        while True:
            began = time.monotonic()
            try:
                ending = await self._run_worker(slot)
            except OSError as error:  # no memory, no descriptors: later there may be some
                ending = f"it cannot be started: {error.strerror}"
            if self.draining:
                return
            if self._started is not None and not self._started.done():
                self._started.set_exception(StartFailedError(f"worker {slot}: {ending}"))
                return
            self.restarts += 1
            steady = time.monotonic() - began >= STEADY_AFTER
            delay = 0.0 if steady else delay
            _log.error("worker %d ended (%s), starting another in %g s", slot, ending, delay)
            await asyncio.sleep(delay)
            delay = min(max(FIRST_DELAY, delay * 2), LAST_DELAY)

    async def _run_worker(self, slot: int) -> str:
        """Run one process in *slot* until it ends; return how it did."""
        listener = self._listeners[slot].fileno()
        worker = await self._spawn(slot, listener)
        self._processes[slot] = worker
        try:
            await worker.start(self._start_of(slot, listener))
            await self.reloader.bring_up(worker)
            _log.info("worker %d is ready (process %d)", slot, worker.pid)
            self._note_ready()
            return await worker.wait()
        except CommandError as error:
            return str(error)
        except ChannelError:
            return await worker.wait()
        finally:
            worker.kill()
            await _finish(asyncio.create_task(worker.wait()))
            self._totals.retire(worker.pid)

    async def _spawn(self, slot: int, listener: int) -> WorkerProcess:
        """Start a process; one that is half started when we are cancelled is ended first."""
        spawning = asyncio.create_task(
            WorkerProcess.spawn(slot, listener, self.settings.worker_command)
        )
        try:
            return await _finish(spawning)
        except asyncio.CancelledError:
            worker = spawning.result()
            worker.kill()
            await worker.wait()
            raise

    def _start_of(self, slot: int, listener: int) -> Start:
        return Start(
            slot=slot,
            listener=listener,
            data_directory=str(self.settings.data_directory),
            store_url=self._store_url,
            access_log=self.settings.access_log,
        )

    def _note_ready(self) -> None:
        started = self._started
        if started is not None and not started.done() and len(self.serving) == self.slots:
            started.set_result(None)


async def _finish(task: asyncio.Task[_T]) -> _T:
    """Return what *task* does; when we are cancelled, let it end first: it holds a process."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise
