"""CPU of a process tree per request, from `/proc`, under a load of `wrk`.

The proxy is pinned to one core; the upstream, the store and the load generator share the other.
Figures of different machines, or of different runs, are not comparable: compare ratios of one run.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PROXY_CORE = "0"
OTHER_CORE = "1"
_TICKS = os.sysconf("SC_CLK_TCK")


class Load(NamedTuple):
    """What `wrk` saw."""

    requests: int
    errors: int
    """Answers that were no 2xx or 3xx, and socket errors."""
    p50_us: float
    p99_us: float


class Sample(NamedTuple):
    """One round of one peer."""

    cpu_us: float
    """CPU of the proxy's process tree, user and system, a request, in microseconds."""
    requests: int
    p99_us: float


def pinned(command: list[str], core: str) -> list[str]:
    """Return *command* so that it runs on *core* only, with all its children."""
    return ["taskset", "-c", core, *command]


def descendants(pid: int) -> list[int]:
    """Return *pid* and every process below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting.extend(children.get(found[-1], ()))
    return found


def cpu_seconds(pid: int, *, leaving_out: frozenset[str] = frozenset()) -> float:
    """Return user and system time of the tree below *pid*, less processes of the names given."""
    total = 0
    for member in descendants(pid):
        try:
            stat = Path(f"/proc/{member}/stat").read_text()
        except OSError:
            continue
        name = stat[stat.index("(") + 1 : stat.rindex(")")]
        if name not in leaving_out:
            fields = stat.rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def resident_bytes(pid: int) -> int:
    """Return the private and shared memory of the tree below *pid*, proportionally shared."""
    total = 0
    for member in descendants(pid):
        try:
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue
        found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        total += int(found[1]) * 1024 if found else 0
    return total


def apply_load(
    url: str, *, seconds: float, connections: int, fields: Mapping[str, str], script: str = ""
) -> Load:
    """Run `wrk` against *url* for *seconds* on the other core."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency"]
    for name, value in fields.items():
        command += ["-H", f"{name}: {value}"]
    if script:
        command += ["-s", script]
    output = subprocess.run(
        pinned([*command, url], OTHER_CORE), capture_output=True, text=True, check=True
    ).stdout
    return read_wrk(output)


_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def read_wrk(output: str) -> Load:
    """Read what `wrk --latency` prints."""
    requests = re.search(r"(\d+) requests in", output)
    if not requests:
        raise ValueError(f"wrk said nothing of requests: {output!r}")
    bad = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", output))
    sockets = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", output
    )
    bad += sum(int(n) for n in sockets.groups()) if sockets else 0

    def percentile(name: str) -> float:
        found = re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", output)
        return float(found[1]) * _UNITS[found[2]] if found else float("nan")

    return Load(int(requests[1]), bad, percentile("50"), percentile("99"))
