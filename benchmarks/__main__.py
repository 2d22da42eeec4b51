"""Compare and print the tables: `python -m benchmarks [--quick] [--only PROXY] [--row ROW]`.

Every round asks each proxy in turn, so that a machine that gets slower for a while is slow for all
of them; the figure is the median over the rounds. Ratios are against nginx + Lua + Redis.
"""

import argparse
import contextlib
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks import apache, doorward, peers, row, rows
from benchmarks.measure import PROXY_CORE, Sample, apply_load, cpu_seconds
from benchmarks.peers import Ground, Peer
from benchmarks.stage import Stage, running, signed_in
from gateway.io.build import COMPILED

REFERENCE = "nginx + Lua"
FAILURES = (OSError, RuntimeError, ValueError, subprocess.SubprocessError)
"""What spoils one figure and not the others."""
RESULTS = Path(__file__).parent / "results"


def ask(peer: Peer, ground: Ground, pid: int, seconds: float) -> Sample:
    """Load *peer* once and return what a request cost."""
    url = f"http://127.0.0.1:{ground.port}{peer.path}"
    before = cpu_seconds(pid, leaving_out=peer.leaving_out)
    load = apply_load(url, seconds=seconds, connections=64, fields=peer.fields)
    spent = cpu_seconds(pid, leaving_out=peer.leaving_out) - before
    if load.errors:
        raise RuntimeError(f"{peer.name}: {load.errors} of {load.requests} requests failed")
    return Sample(spent / load.requests * 1e6, load.requests, load.p99_us)


class Contest(NamedTuple):
    """What the proxies cost, and why some could not be asked."""

    samples: dict[str, list[Sample]]
    failures: dict[str, str]


def compare(makers: list[Callable[[Ground], Peer]], *, rounds: int, seconds: float) -> Contest:
    """Start everything, ask everybody in turn, stop everything. Who fails is left out."""
    contest = Contest({}, {})
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(Stage.open())
        asked: list[tuple[Peer, Ground, int]] = []
        for maker in makers:
            ground = stage.ground()
            peer = maker(ground)
            log = ground.directory / "log"
            pid = stack.enter_context(running(peer.command, PROXY_CORE, log, **peer.environment))
            try:
                peer = signed_in(peer, ground.port)
                ask(peer, ground, pid, 1)
            except FAILURES as failure:
                print(f"{peer.name}: {failure}\n{log.read_text()[-2000:]}", file=sys.stderr)
                contest.failures[peer.name] = str(failure)
            else:
                asked.append((peer, ground, pid))
        for _ in range(rounds):
            for peer, ground, pid in asked:
                if peer.name in contest.failures:
                    continue
                try:
                    sample = ask(peer, ground, pid, seconds)
                except FAILURES as failure:
                    contest.failures[peer.name] = str(failure)
                else:
                    contest.samples.setdefault(peer.name, []).append(sample)
    for name in contest.failures:
        contest.samples.pop(name, None)
    return contest


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


OURS = "Doorward, session + roles + CEL"
OURS_COMPILED = "Doorward compiled, session + roles + CEL"
AGAINST = ((REFERENCE, 1.0), ("Envoy", 0.7), ("Caddy", 0.15), ("Traefik", 0.15), ("Apache", 0.10))
PROMISES = (
    *((ours, theirs, target) for theirs, target in AGAINST for ours in (OURS, OURS_COMPILED)),
    ("Doorward, session asked", REFERENCE, 2.0),
    ("Doorward, public", OURS, 0.9),
    ("Doorward compiled, public", OURS_COMPILED, 0.9),
)
"""One's CPU a request against another's, and the ratio that is good enough."""


def promised(samples: dict[str, list[Sample]]) -> list[row.Row]:
    """Return the ratios that are promised, of those that were measured."""
    kept = []
    for ours, theirs, target in PROMISES:
        one = next((taken for name, taken in samples.items() if name.startswith(ours)), None)
        other = next((taken for name, taken in samples.items() if name.startswith(theirs)), None)
        if one and other:
            # Round by round: a slow moment of the machine is in both.
            ratios = [a.cpu_us / b.cpu_us for a, b in zip(one, other, strict=True)]
            note = f"rounds: {min(ratios):.2f} to {max(ratios):.2f}"
            ratio = statistics.median(ratios)
            kept.append(row.Row(f"CPU of {ours} / {theirs}", ratio, "x", target, note=note))
    return kept


def main() -> None:
    """Read the arguments, measure, print the tables and keep them."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", action="append", metavar="NAME", help="part of a proxy's name")
    parser.add_argument("--row", action="append", metavar="NAME", help="part of a row's name")
    parser.add_argument("--quick", action="store_true", help="a fifth of the time, more noise")
    parser.add_argument("--keep", action="store_true", help="write the tables to results/")
    arguments = parser.parse_args()
    for program in ("wrk", "nginx", "taskset"):
        if not shutil.which(program):
            sys.exit(f"benchmarks: {program} is not installed; try `make bench-peers`")
    rounds, seconds = (2, 1.0) if arguments.quick else (arguments.rounds, arguments.seconds)
    began = datetime.now(UTC)
    text = f"{_circumstances()}; {rounds} rounds of {seconds:.0f} s, 64 connections\n"
    found: list[row.Row] = []
    if not arguments.row:
        makers = [*doorward.VARIANTS, *peers.available()]
        left_out = doorward.why_not_compiled()
        makers += [] if left_out else doorward.COMPILED_VARIANTS
        makers += [apache.mod_auth_openidc] if apache.is_there() else []
        if arguments.only:
            makers = [m for m in makers if any(part in m.__name__ for part in arguments.only)]
        contest = compare(makers, rounds=rounds, seconds=seconds)
        text += f"\n{table(contest.samples)}\n"
        text += "".join(f"\n{name} failed: {why}\n" for name, why in contest.failures.items())
        if left_out and not arguments.only:
            text += f"\nNo rows of the compiled build: {left_out}.\n"
        found += promised(contest.samples)
    if arguments.row or not arguments.only:
        effort = row.QUICK if arguments.quick else row.Effort(min(rounds, 3), seconds)
        found += rows.measure_rows(arguments.row or [], effort)
    if found:
        text += f"\n{row.table(found)}\n"
    text += f"\nMeasured in {(datetime.now(UTC) - began).total_seconds() / 60:.0f} minutes.\n"
    print(text)
    if arguments.keep:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{began:%Y-%m-%d}-{_commit()}.md").write_text(text)


def _commit() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def _circumstances() -> str:
    return (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, commit {_commit()}, "
        f"{'compiled' if COMPILED else 'pure Python'}, {datetime.now(UTC):%Y-%m-%d}"
    )


if __name__ == "__main__":
    main()
