"""What a row of the table is, and what measuring one takes: proxies, loads, their cost."""

import json
import re
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import (
    OTHER_CORE,
    PROXY_CORE,
    Load,
    apply_load,
    cpu_seconds,
    pinned,
)
from benchmarks.peers import COOKIE, Ground, Peer
from benchmarks.stage import Stage, free_port, running, wait_for, wait_until_it_answers

SIGNED_IN = {"Cookie": f"doorward={COOKIE}"}
CONNECTIONS = 64


class Row(NamedTuple):
    """One line of the table."""

    measure: str
    value: float
    unit: str
    target: float
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.at_least else self.value <= self.target


class Effort(NamedTuple):
    """How long and how much; `--quick` makes less of it."""

    rounds: int
    seconds: float
    connections: int = 10_000
    sessions: int = 1_000_000
    cached: int = 100_000
    size: int = 1 << 30


QUICK = Effort(1, 1.0, connections=2_000, sessions=200_000, cached=50_000, size=1 << 28)


class Asked(NamedTuple):
    """A side of a ratio: a proxy that runs, and what it is asked."""

    port: int
    pid: int
    path: str
    fields: Mapping[str, str] = {}
    script: str = ""
    scheme: str = "http"


# Proxies ----------------------------------------------------------------------------------------


@contextmanager
def gateway(stage: Stage, text: str, **names: object) -> Iterator[tuple[int, int]]:
    """Run Doorward with the route file *text*; yield port and process id."""
    ground = stage.ground()
    ground.directory.mkdir(parents=True)
    routes = ground.directory / "routes.yaml"
    routes.write_text(
        text.format(
            port=ground.port, store=stage.store, upstream=stage.upstream, admin=free_port(), **names
        )
    )
    command = [str(Path(sys.executable).parent / "doorward"), "run", "--config", str(routes)]
    log = ground.directory / "access.log"
    with running(
        command, PROXY_CORE, ground.directory / "log", DOORWARD_ACCESS_LOG=str(log)
    ) as pid:
        wait_for(ground.port)
        yield ground.port, pid


@contextmanager
def peer(stage: Stage, maker: Callable[[Ground], Peer]) -> Iterator[tuple[int, int]]:
    """Run a peer; yield port and process id."""
    ground = stage.ground()
    made = maker(ground)
    with running(made.command, PROXY_CORE, ground.directory / "log", **made.environment) as pid:
        wait_until_it_answers(f"http://127.0.0.1:{ground.port}{made.path}", made.fields)
        yield ground.port, pid


HEAD = """\
version: 1
server:
  listen: "127.0.0.1:{port}"
  public_url: "{scheme}://127.0.0.1:{port}"
  workers: {workers}
  trusted_proxies: [127.0.0.1/32]
  limits: {{connections: 20000, body: 4GiB, idle_timeout: 10m}}
{more}
admin: {{listen: "127.0.0.1:{admin}"}}
store: {{url: "redis://127.0.0.1:{store}"}}
session: {{idle_timeout: 12h, absolute_timeout: 24h, cache_size: {cached}}}
upstreams:
  notes: http://127.0.0.1:{upstream}
  other: http://127.0.0.1:{other}
"""
ROUTES = """\
routes:
  - {{id: other, match: {{path: /other/*}}, upstream: other, access: signed-in}}
  - {{id: mine, match: {{path: /mine/*}}, upstream: notes, access: signed-in}}
  - {{id: public, match: {{path: /public/*}}, upstream: notes, access: public}}
  - id: notes-of-a-user
    match: {{path: "/users/{{user}}/*"}}
    upstream: notes
    access: {{roles: [editor, admin], when: request.params.user == identity.subject}}
"""
PATH = "/users/u1/notes"
USUAL = {"scheme": "http", "workers": 1, "more": "", "other": 9, "cached": 100_000}


# Measuring --------------------------------------------------------------------------------------


def costs(sides: list[Asked], effort: Effort) -> list[float]:
    """Return for each side its CPU µs a request: the median of interleaved rounds."""
    taken: list[list[float]] = [[] for _ in sides]
    for side in sides:
        load(side, 1)
    for _ in range(effort.rounds):
        for side, samples in zip(sides, taken, strict=True):
            before = cpu_seconds(side.pid)
            asked = load(side, effort.seconds).requests
            samples.append((cpu_seconds(side.pid) - before) / asked * 1e6)
    return [statistics.median(samples) for samples in taken]


def load(side: Asked, seconds: float) -> Load:
    """Load *side* and return what was seen; raise `RuntimeError` if a request failed."""
    url = f"{side.scheme}://127.0.0.1:{side.port}{side.path}"
    seen = apply_load(
        url, seconds=seconds, connections=CONNECTIONS, fields=side.fields, script=side.script
    )
    if seen.errors:
        raise RuntimeError(f"{url}: {seen.errors} of {seen.requests} requests failed")
    return seen


def client(kind: str, core: str = OTHER_CORE, **arguments: object) -> dict[str, float]:
    """Run one of `benchmarks.clients` and return its result."""
    command = [sys.executable, "-m", "benchmarks.clients", kind, json.dumps(arguments)]
    output = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    if output.returncode:
        raise RuntimeError(output.stderr[-2000:])
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return result


def lua_over(lines: Path, field: str, side: str) -> str:
    """Return the path of a wrk script that sends each line of *lines* in turn as *field*.

    Each run goes on where the one before stopped, so *side*, who alone is asked with it, sees no
    line again before all have been sent.
    """
    script = lines.with_name(f"{lines.name}-{side}.lua")
    place = lines.with_name(f"{lines.name}-{side}-at")
    place.write_text("0")
    script.write_text(
        f"""local values, threads = {{}}, {{}}
for line in io.lines("{lines}") do values[#values + 1] = line end
at = tonumber(io.open("{place}"):read("*a"))
setup = function(thread) threads[1] = thread end
request = function()
  at = at % #values + 1
  wrk.headers["{field}"] = values[at]
  return wrk.format()
end
done = function() io.open("{place}", "w"):write(threads[1]:get("at")) end
"""
    )
    return str(script)


@contextmanager
def own_backend(stage: Stage) -> Iterator[int]:
    """Run the upstream that speaks WebSocket; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.backend", str(port)]
    with running(command, OTHER_CORE, stage.base / "own-backend.log"):
        wait_for(port)
        yield port


def warm(port: int) -> None:
    """Let what is made once be made."""
    client("rate", port=port, path=PATH, fields=SIGNED_IN, rate=500, seconds=2, connections=64)


def metric(pid: int, name: str) -> float:
    """Read a metric from the admin address of the gateway with the process id *pid*."""
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    text = Path(command[command.index("--config") + 1]).read_text()
    found = re.search(r'admin: \{listen: "([^"]+)"', text)
    assert found is not None
    with urllib.request.urlopen(f"http://{found[1]}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    value = re.search(rf"^{name}\S* ([0-9.e+]+)$", metrics, re.MULTILINE)
    return float(value[1]) if value else 0.0


def table(rows: list[Row]) -> str:
    """Return the Markdown table of *rows*."""
    lines = ["| measure | value | target | | note |", "| --- | ---: | ---: | --- | --- |"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        lines.append(
            f"| {row.measure} | {row.value:.2f} {row.unit} | {sign} {row.target:g} {row.unit} | "
            f"{'met' if row.met else 'missed'} | {row.note} |"
        )
    return "\n".join(lines)
