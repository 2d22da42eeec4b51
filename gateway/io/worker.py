"""A worker process: `python -m gateway.io.worker DESCRIPTOR`, started by the supervisor only.

It does what the supervisor calls for over the channel on DESCRIPTOR. It listens from the first
commit on, and ends when it is told to drain, when somebody sends it SIGTERM, and when the channel
ends, because then its supervisor is gone.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from pathlib import Path

import uvloop

from gateway.io.access_log import AccessLog, LogSink
from gateway.io.application_log import start_logging
from gateway.io.assembly import Assembly, Parts
from gateway.io.control import (
    Abort,
    Command,
    Commit,
    Drain,
    Measure,
    Prepare,
    RefusedError,
    ReopenLogs,
    Result,
    Start,
    serve_commands,
)
from gateway.io.metrics import Counters, Measurement, add_store_numbers
from gateway.io.packing import unpack_configuration
from gateway.io.server import GatewayServer
from gateway.io.tls import CertificateError, Certificates

_log = logging.getLogger(__name__)

ORPHAN_SECONDS = 5.0
"""How long a worker without a supervisor goes on with what is running."""
TERMINATED_SECONDS = 30.0
"""For requests under way, of a worker that somebody else than its supervisor ends."""
CERTIFICATE_SECONDS = 2.0
"""How often the certificates' files are looked at."""
MOST_DESCRIPTORS = 1 << 20
"""Asked for where the system sets no limit."""
SWITCH_SECONDS = 0.0005
"""How long a thread may go on while another one waits for the interpreter."""
CLOSE_SECONDS = 3.0
"""For closing connections that nobody waits for any more; the supervisor is patient for longer."""


class Worker:
    """Performs commands; `over` is set when the process shall end, `patience` says how soon."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.patience = ORPHAN_SECONDS
        self._start: Start | None = None
        self._assembly: Assembly | None = None
        self._server: GatewayServer | None = None
        self._counters = Counters()
        self._access_log: AccessLog | None = None
        self._prepared: dict[int, Parts] = {}
        self._sessions_ended = 0
        self._certificates: Certificates | None = None
        self._watch: asyncio.Task[None] | None = None

    async def perform(self, command: Command) -> Result:
        """Do what the supervisor calls for."""
        match command:
            case Start():
                self._start = command
                self._access_log = AccessLog(_open_log(command.access_log))
            case Prepare():
                await self._prepare(command)
            case Commit():
                # Who drains has thrown away what was prepared, and finishes with what it has: an
                # error would have it killed while requests are under way.
                if not self.over.is_set():
                    await self._commit(self._prepared.pop(command.generation))
            case Abort():
                self._discard_prepared()
            case Measure():
                return self._measure()
            case ReopenLogs():
                assert self._access_log is not None
                self._access_log.reopen()
            case Drain():
                self.end_within(command.timeout)
        return None

    def end_within(self, seconds: float) -> None:
        """Finish what is running, but take no longer than *seconds*."""
        self.patience = seconds
        self.over.set()

    async def close(self) -> None:
        """Drain, and close everything."""
        if self._watch is not None:
            self._watch.cancel()
        if self._server is not None:
            await self._server.drain(self.patience)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                self._discard_prepared()
                if self._assembly is not None:
                    await self._assembly.close()
        if self._access_log is not None:
            self._access_log.close()

    async def _prepare(self, command: Prepare) -> None:
        assert self._start is not None
        configuration = await asyncio.to_thread(unpack_configuration, command.configuration)
        if self._assembly is None:
            self._assembly = await Assembly.open(
                self._start.store_url, configuration, Path(self._start.data_directory)
            )
            self._assembly.on_ended(self._close_sessions)
        if configuration.server.certificates:
            # Tried here, so that files that cannot be used stop the reload everywhere.
            try:
                certificates = await asyncio.to_thread(
                    Certificates, configuration.server.certificates
                )
            except CertificateError as error:
                raise RefusedError(f"server.tls.certificates: {error}") from error
            self._certificates = self._certificates or certificates
        self._discard_prepared()
        self._prepared[command.generation] = await self._assembly.make(
            configuration, command.generation
        )

    async def _commit(self, parts: Parts) -> None:
        assert self._start is not None
        assert self._assembly is not None
        assert self._access_log is not None
        self._assembly.use(parts)
        if self._server is not None:
            if self._certificates is not None:
                self._certificates.use(parts.configuration.server.certificates)
            self._server.replace_snapshot(parts.state)
            return
        server = GatewayServer(parts.state, observers=(self._counters, self._access_log))
        listener = socket.socket(fileno=self._start.listener)
        listener.setblocking(False)
        certificates = self._certificates
        await server.start([listener], tls=certificates.context if certificates else None)
        if certificates is not None:
            self._watch = asyncio.create_task(_watch_certificates(certificates))
        self._server = server
        # Whoever deletes a record, `redis-cli` included: what runs in its name ends.
        self._assembly.store.follow(server.live_sessions)
        self._assembly.store.follow_tokens(server.live_tokens)
        server.watch_store(self._assembly.store.silence)
        # What is there now stays: the collector need not look at it again and again. The request
        # path makes hardly any cycles, so it may wait for more garbage than by default.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)

    def _discard_prepared(self) -> None:
        assert self._assembly is not None or not self._prepared
        for parts in self._prepared.values():
            assert self._assembly is not None
            self._assembly.discard(parts)
        self._prepared.clear()

    def _close_sessions(self, digests: frozenset[str] | None) -> None:
        self._sessions_ended += len(digests or ())
        if self._server is not None:
            self._server.close_sessions(digests)

    def _measure(self) -> Measurement:
        measurement = self._counters.measurement()
        numbers = measurement.numbers
        numbers["sessions_ended"] = self._sessions_ended
        if self._access_log is not None:
            numbers["access_log_dropped"] = self._access_log.dropped
        if self._server is not None:
            numbers.update(self._server.counters)
        if self._assembly is not None:
            store = self._assembly.store
            lag = [*map(float, store.lag.counts), store.lag.sum]
            add_store_numbers(measurement, store.status(), lag)
        return measurement


def _open_log(path: str) -> LogSink:
    try:
        return LogSink(path)
    except OSError as error:
        raise RefusedError(
            f"the access log {path} cannot be written ({error.strerror}): "
            "name another one in DOORWARD_ACCESS_LOG"
        ) from error


async def _watch_certificates(certificates: Certificates) -> None:
    while True:
        await asyncio.sleep(CERTIFICATE_SECONDS)
        await asyncio.to_thread(certificates.reload_if_changed)


async def work(end: socket.socket) -> None:
    """Serve until it is over; *end* is this process's end of the channel."""
    worker = Worker()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGTERM, worker.end_within, TERMINATED_SECONDS
    )
    commands = asyncio.create_task(serve_commands(end, worker.perform))
    over = asyncio.create_task(worker.over.wait())
    await asyncio.wait((commands, over), return_when=asyncio.FIRST_COMPLETED)
    if not worker.over.is_set():
        _log.warning("the supervisor is gone: ending within %g s", ORPHAN_SECONDS)
    await worker.close()


def allow_many_descriptors() -> None:
    """Raise this process's limit of open files as far as it may.

    Shells and init systems start with 1,024 for programs that use `select`; each client takes one,
    and often one more towards an upstream.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Run the worker."""
    start_logging()
    allow_many_descriptors()
    # Its own session keeps the terminal's signals away, and these are for the supervisor anyway.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A reload compiles in a thread; requests must not wait 5 ms for each of its turns.
    sys.setswitchinterval(SWITCH_SECONDS)
    end = socket.socket(fileno=int(sys.argv[1]))
    end.setblocking(False)
    uvloop.run(work(end))


if __name__ == "__main__":
    main()
