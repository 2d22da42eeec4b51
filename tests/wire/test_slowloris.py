"""Many clients that hold on and give nothing, and one that just wants its answer."""

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.gateway.io.harness import Upstreams, upstream
from tests.wire.outside import Outside, outside
from tests.wire.slow_clients import BEGINNINGS

pytestmark = [pytest.mark.wire, pytest.mark.alone]

ROUTES = "  - {id: all, match: {path: /*}, upstream: app, access: public}"
SMALL = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
PROGRAM = Path(__file__).with_name("slow_clients.py")
KINDS = len(BEGINNINGS)
FEW = 500
MANY = 5000
REAPED_WITHIN = 180.0
"""Seconds: 30 for content and 60 for readers, and a machine that is busy takes longer."""


poured = [0]
"""Bytes that the upstream has got rid of."""


async def serve(
    backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/endless" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                poured[0] += 65536
        elif b"/small" in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Attackers:
    """Slow clients, in a process of their own, so that they do not slow down the measuring."""

    def __init__(self, port: int, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(port), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    @property
    def ended(self) -> int:
        """How many the gateway has closed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.communicate()


@contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def latencies(running: Outside, seconds: float) -> list[float]:
    client = await running.connect()
    found = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        await client.send(SMALL)
        assert (await client.receive()).status == 200
        found.append(time.perf_counter() - begin)
        await asyncio.sleep(0.004)
    await client.close()
    return found


async def until_nothing_moves() -> None:
    """Wait until every buffer is full: what fills them is this process, which measures as well."""
    async with asyncio.timeout(60):
        seen = -1
        while seen != poured[0]:
            seen = poured[0]
            await asyncio.sleep(1.0)


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


def worker_memory(running: Outside) -> int:
    """Return the resident bytes of all processes below `doorward run`."""
    pids, total = [running.process.process.pid], 0
    while pids:
        pid = pids.pop()
        with suppress(OSError):
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            if b"gateway.io.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                total += pages * resource.getpagesize()
    return total


async def hold_on(tmp_path: Path, count: int, *, until_reaped: bool) -> None:
    server = "limits: {head_timeout: 4s, idle_timeout: 4s}"
    async with upstream(serve) as backend, outside(tmp_path, backend, ROUTES, server=server) as g:
        await latencies(g, 0.5)
        quiet = p99(await latencies(g, 2.0))
        before = worker_memory(g)
        with ExitStack() as stack:
            attackers = await asyncio.to_thread(Attackers, g.port, count)
            stack.callback(attackers.stop)
            await until_nothing_moves()
            busy = p99(await latencies(g, 2.0 if count == FEW else 6.0))
            grown = worker_memory(g) - before
            print(  # noqa: T201 - what `pytest -s` is for
                f"{count} sockets: p99 {quiet * 1e3:.2f} ms quiet, {busy * 1e3:.2f} ms under "
                f"attack; {grown / 1024**2:.1f} MiB more"
            )
            # Three times, or what a test machine with other work does at any time.
            assert busy < max(3 * quiet, 0.025)
            # A stalled answer holds the buffers of two sockets; everybody else next to nothing.
            assert grown < 16 * 1024**2 + count * 64 * 1024
            async with asyncio.timeout(20):  # heads, and those who say nothing
                while attackers.ended < count * 2 // KINDS - 5:
                    await asyncio.sleep(0.2)
            if until_reaped:
                async with asyncio.timeout(REAPED_WITHIN):
                    while attackers.ended < count:
                        await asyncio.sleep(1.0)
        assert (await g.ask(SMALL)).status == 200


async def test_slow_clients_are_not_felt_and_slow_heads_are_closed(tmp_path: Path) -> None:
    with many_descriptors():
        await hold_on(tmp_path, FEW, until_reaped=False)


@pytest.mark.soak
@pytest.mark.skipif(not os.environ.get("DOORWARD_SOAK"), reason="takes minutes: DOORWARD_SOAK=1")
async def test_thousands_of_slow_clients_are_all_closed_in_the_end(tmp_path: Path) -> None:
    with many_descriptors():
        await hold_on(tmp_path, MANY, until_reaped=True)
