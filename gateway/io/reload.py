"""A new configuration goes live everywhere or nowhere.

How this works: the supervisor reads and checks the file, builds its snapshot and runs the file's
own tests. Then every worker prepares the generation (compiles it beside its loop); only when all
have done so are they told to commit, which is one assignment. Until then anything that goes wrong
leaves the old generation in force everywhere. A worker that cannot be told to commit is killed:
its successor starts with the new generation. A worker that dies meanwhile does not stop a reload,
for the same reason.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from config.model import Configuration
from config.problem import Problem
from gateway.io.control import ChannelError, CommandError
from gateway.io.packing import pack_configuration
from gateway.io.worker_process import WorkerProcess
from gateway.snapshot import Snapshot, build_snapshot

_log = logging.getLogger(__name__)


class Live(msgspec.Struct, frozen=True):
    """The generation that is in force."""

    generation: int
    configuration: Configuration
    snapshot: Snapshot
    packed: bytes
    """The configuration as it travels to workers."""


class Reloaded(msgspec.Struct, frozen=True):
    """How a reload went. `problems` is empty when it went live."""

    generation: int
    """The one that is in force now."""
    problems: tuple[str, ...] = ()
    """One line each, `FILE:LINE:COLUMN: message` where there is a place."""
    restart_needed: tuple[str, ...] = ()
    """Settings whose new value will not count before a restart."""


def build_live(configuration: Configuration, generation: int) -> Live | list[Problem]:
    """Return *configuration* ready to go live, or why it must not. Takes a while: no loop here."""
    snapshot = build_snapshot(configuration, generation)
    if isinstance(snapshot, list):
        return snapshot
    return Live(generation, configuration, snapshot, pack_configuration(configuration))


def keep_fixed(old: Configuration, new: Configuration) -> tuple[Configuration, tuple[str, ...]]:
    """Return *new* with what cannot change while running as in *old*, and the settings concerned.

    The sockets, the processes and the store connection live as long as the supervisor does.
    """
    kept: list[str] = []
    server = new.server
    if server.listen != old.server.listen:
        kept.append("server.listen")
        server = msgspec.structs.replace(server, listen=old.server.listen)
    if server.workers != old.server.workers:
        kept.append("server.workers")
        server = msgspec.structs.replace(server, workers=old.server.workers)
    if bool(server.certificates) != bool(old.server.certificates):
        kept.append("server.tls")
        server = msgspec.structs.replace(server, certificates=old.server.certificates)
    admin, store, session = new.admin, new.store, new.session
    if admin.listen != old.admin.listen:
        kept.append("admin.listen")
        admin = msgspec.structs.replace(admin, listen=old.admin.listen)
    if store != old.store:
        kept.append("store.url")
        store = old.store
    login = new.login
    if login.database != old.login.database:
        kept.append("login.database")
        login = msgspec.structs.replace(login, database=old.login.database)
    if session.lease != old.session.lease:  # what a worker has registered in the store
        kept.append("session.lease")
        session = msgspec.structs.replace(session, lease=old.session.lease)
    return (
        msgspec.structs.replace(
            new, server=server, admin=admin, store=store, session=session, login=login
        ),
        tuple(kept),
    )


class Reloader:
    """Holds the generation in force, and replaces it.

    *load* reads and checks the file; *workers* are those that have been started.
    Whoever brings a new worker up to date holds `lock`, so that no generation slips past it.
    """

    def __init__(
        self,
        live: Live,
        *,
        file: str,
        load: Callable[[], Configuration | list[Problem]],
        workers: Callable[[], Iterable[WorkerProcess]],
    ) -> None:
        self.live = live
        self.lock = asyncio.Lock()
        self.on_live: list[Callable[[Configuration], None]] = []
        """Called with each configuration that goes live here; what workers do is their affair."""
        self.last: Reloaded = Reloaded(live.generation)
        self.last_at = time.time()
        self.succeeded = 0
        self.failed = 0
        self._file = file
        self._load = load
        self._workers = workers

    async def bring_up(self, worker: WorkerProcess) -> None:
        """Have a new *worker* serve the generation in force. Raises as `CallingEnd.call` does."""
        async with self.lock:
            await worker.prepare(self.live.generation, self.live.packed)
            await worker.commit(self.live.generation)

    async def reload(self) -> Reloaded:
        """Read the file again and let it go live, or keep what is in force; never raises."""
        async with self.lock:
            try:
                outcome = await self._replace()
            except Exception:  # noqa: BLE001 - whatever it was, the old generation stays
                _log.exception("the reload failed")
                outcome = self._refused(["the reload failed; the log has the details"])
            self.last = outcome
            self.last_at = time.time()
            if outcome.problems:
                self.failed += 1
                for problem in outcome.problems:
                    _log.error("reload refused: %s", problem)
            else:
                self.succeeded += 1
                _log.info("generation %d is live", outcome.generation)
            for setting in outcome.restart_needed:
                _log.warning("%s has changed: that needs a restart; the rest is live", setting)
            return outcome

    async def _replace(self) -> Reloaded:
        old = self.live
        loaded = await asyncio.to_thread(self._load)
        if isinstance(loaded, list):
            return self._refused([problem.at(self._file) for problem in loaded])
        configuration, restart_needed = keep_fixed(old.configuration, loaded)
        new = await asyncio.to_thread(build_live, configuration, old.generation + 1)
        if isinstance(new, list):
            return self._refused([problem.at(self._file) for problem in new])
        workers = [worker for worker in self._workers() if worker.alive and worker.generation]
        failures = await _each(workers, lambda worker: worker.prepare(new.generation, new.packed))
        if failures:
            await asyncio.gather(*(worker.abort(new.generation) for worker in workers))
            return self._refused(failures)
        self.live = new
        for adopt in self.on_live:
            adopt(new.configuration)
        for failure in await _each(workers, lambda worker: _commit(worker, new.generation)):
            _log.error("%s: it is replaced", failure)
        return Reloaded(new.generation, restart_needed=restart_needed)

    def _refused(self, problems: list[str]) -> Reloaded:
        return Reloaded(self.live.generation, problems=tuple(problems))


async def _commit(worker: WorkerProcess, generation: int) -> None:
    try:
        await worker.commit(generation)
    except (CommandError, ChannelError):
        worker.kill()
        raise


async def _each(
    workers: list[WorkerProcess], do: Callable[[WorkerProcess], Awaitable[None]]
) -> list[str]:
    """Return what went wrong; a worker that is gone has a successor, and nothing went wrong."""
    results = await asyncio.gather(*(do(worker) for worker in workers), return_exceptions=True)
    failures = []
    for worker, result in zip(workers, results, strict=True):
        if isinstance(result, CommandError):
            failures.append(f"worker {worker.slot}: {result}")
        elif isinstance(result, BaseException) and not isinstance(result, ChannelError):
            raise result
    return failures
