"""Run the comparison and print the table: `python -m benchmarks [--rounds 5] [--only NAME]`.

Every round asks each proxy in turn, so that a machine that gets slower for a while is slow for all
of them; the figure is the median over the rounds. Ratios are against nginx + Lua + Redis.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import doorward, peers
from benchmarks.measure import (
    OTHER_CORE,
    PROXY_CORE,
    Sample,
    apply_load,
    cpu_seconds,
    pinned,
)
from benchmarks.peers import Ground, Peer

REFERENCE = "nginx + Lua"
RESULTS = Path(__file__).parent / "results"


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, *, seconds: float = 30) -> None:
    """Return when somebody accepts connections on *port*; raise `TimeoutError` otherwise."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def wait_until_it_answers(url: str, fields: Mapping[str, str], *, seconds: float = 30) -> None:
    """Return when a GET of *url* is answered with 200; raise `TimeoutError` otherwise."""
    deadline = time.monotonic() + seconds
    request = urllib.request.Request(url, headers=dict(fields))  # noqa: S310 - a loopback address
    failure = ""
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=2):  # noqa: S310 - the same
                return
        except OSError as error:  # HTTPError is one
            failure = str(error)
        time.sleep(0.05)
    raise TimeoutError(f"no good answer from {url}: {failure}")


@contextlib.contextmanager
def running(command: list[str], core: str, log: Path, **environment: str) -> Iterator[int]:
    """Run *command* pinned to *core* while the block lasts; yield its process id."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            pinned(command, core), stdout=sink, stderr=sink, env={**os.environ, **environment}
        )
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def serve_backend(directory: Path, port: int, auth_port: int) -> list[str]:
    """Write the upstream, nginx with a constant answer of 400 bytes, and an auth server's."""
    directory.mkdir(parents=True)
    body = json.dumps({"notes": ["milk"] * 44, "of": "u1", "padding": "x" * 12})
    (directory / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{port}; default_type application/json;
    location / {{ return 200 '{body}'; }} }}
  server {{ listen 127.0.0.1:{auth_port};
    location / {{ add_header X-Auth-Subject u1; add_header X-Auth-Roles editor,member;
      return 200 ''; }} }}
}}
"""
    )
    return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")]


def ask(peer: Peer, ground: Ground, pid: int, seconds: float) -> Sample:
    """Load *peer* once and return what a request cost."""
    url = f"http://127.0.0.1:{ground.port}{peer.path}"
    before = cpu_seconds(pid, leaving_out=peer.leaving_out)
    load = apply_load(url, seconds=seconds, connections=64, fields=peer.fields)
    spent = cpu_seconds(pid, leaving_out=peer.leaving_out) - before
    if load.errors:
        raise RuntimeError(f"{peer.name}: {load.errors} of {load.requests} requests failed")
    return Sample(spent / load.requests * 1e6, load.requests, load.p99_us)


def compare(
    makers: list[Callable[[Ground], Peer]], *, rounds: int, seconds: float
) -> dict[str, list[Sample]]:
    """Start everything, ask everybody in turn, stop everything."""
    samples: dict[str, list[Sample]] = {}
    base = Path(tempfile.mkdtemp(prefix="doorward-bench-"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        upstream, auth, store = free_port(), free_port(), free_port()
        backend = serve_backend(base / "backend", upstream, auth)
        stack.enter_context(running(backend, OTHER_CORE, base / "backend.log"))
        stack.enter_context(
            running(doorward.store_command(base / "store", store), OTHER_CORE, base / "store.log")
        )
        wait_for(upstream)
        wait_for(store)
        doorward.fill_store(store)
        asked: list[tuple[Peer, Ground, int]] = []
        for index, maker in enumerate(makers):
            ground = Ground(base / f"peer{index}", upstream, store, auth, free_port())
            peer = maker(ground)
            log = base / f"peer{index}.log"
            started = running(peer.command, PROXY_CORE, log, **peer.environment)
            asked.append((peer, ground, stack.enter_context(started)))
            try:
                wait_until_it_answers(f"http://127.0.0.1:{ground.port}{peer.path}", peer.fields)
                ask(peer, ground, asked[-1][2], 1)
            except (TimeoutError, RuntimeError, subprocess.CalledProcessError) as failure:
                sys.exit(f"{peer.name}: {failure}\n{log.read_text()[-2000:]}")
        for _ in range(rounds):
            for peer, ground, pid in asked:
                samples.setdefault(peer.name, []).append(ask(peer, ground, pid, seconds))
    return samples


def table(samples: dict[str, list[Sample]]) -> str:
    """Return the Markdown table of the medians."""
    cost = {name: statistics.median(s.cpu_us for s in taken) for name, taken in samples.items()}
    reference = next((c for name, c in cost.items() if name.startswith(REFERENCE)), None)
    lines = ["| proxy | CPU µs a request | ratio | spread |", "| --- | ---: | ---: | ---: |"]
    for name, value in sorted(cost.items(), key=lambda item: item[1]):
        taken = [s.cpu_us for s in samples[name]]
        ratio = f"{value / reference:.2f}" if reference else "-"
        lines.append(f"| {name} | {value:.1f} | {ratio} | {min(taken):.1f} to {max(taken):.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Read the arguments, measure, print the table and keep it."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", action="append", metavar="NAME", help="part of a proxy's name")
    parser.add_argument("--keep", action="store_true", help="write the table to results/")
    arguments = parser.parse_args()
    for program in ("wrk", "nginx", "taskset"):
        if not shutil.which(program):
            sys.exit(f"benchmarks: {program} is not installed; try `make bench-peers`")
    makers = [*doorward.VARIANTS, *peers.available()]
    if arguments.only:
        makers = [m for m in makers if any(part in m.__name__ for part in arguments.only)]
    samples = compare(makers, rounds=arguments.rounds, seconds=arguments.seconds)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    text = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, commit {commit or 'unknown'}, "
        f"{datetime.now(UTC):%Y-%m-%d}; {arguments.rounds} rounds of {arguments.seconds:.0f} s, "
        f"64 connections\n\n{table(samples)}\n"
    )
    print(text)
    if arguments.keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{commit or 'unknown'}.md").write_text(text)


if __name__ == "__main__":
    main()
