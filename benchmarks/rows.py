"""What is promised beside the cost of the plain request: one function for each row of the table.

Each row measures both sides of its ratio in turn, in the same run. `target` is the largest value
that is good enough (the smallest where `at_least`).
"""

import itertools
import json
import os
import re
import signal
import ssl
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import jwt
import redis
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from auth.keys import public_jwk, thumbprint
from auth.session import SessionRecord, digest, encode_record, session_key
from benchmarks import peers
from benchmarks.measure import (
    OTHER_CORE,
    PROXY_CORE,
    Load,
    apply_load,
    cpu_seconds,
    descendants,
    pinned,
    resident_bytes,
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
    sessions: int = 120_000
    size: int = 1 << 30


QUICK = Effort(1, 1.0, connections=2_000, sessions=20_000, size=1 << 28)


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
session: {{idle_timeout: 12h, absolute_timeout: 24h}}
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
USUAL = {"scheme": "http", "workers": 1, "more": "", "other": 9}


# Measuring --------------------------------------------------------------------------------------


def costs(sides: list[Asked], effort: Effort) -> list[float]:
    """Return for each side its CPU µs a request: the median of interleaved rounds."""
    taken: list[list[float]] = [[] for _ in sides]
    for side in sides:
        _load(side, 1)
    for _ in range(effort.rounds):
        for side, samples in zip(sides, taken, strict=True):
            before = cpu_seconds(side.pid)
            load = _load(side, effort.seconds)
            samples.append((cpu_seconds(side.pid) - before) / load.requests * 1e6)
    return [statistics.median(samples) for samples in taken]


def _load(side: Asked, seconds: float) -> Load:
    url = f"{side.scheme}://127.0.0.1:{side.port}{side.path}"
    load = apply_load(
        url, seconds=seconds, connections=CONNECTIONS, fields=side.fields, script=side.script
    )
    if load.errors:
        raise RuntimeError(f"{url}: {load.errors} of {load.requests} requests failed")
    return load


def client(kind: str, core: str = OTHER_CORE, **arguments: object) -> dict[str, float]:
    """Run one of `benchmarks.clients` and return its result."""
    command = [sys.executable, "-m", "benchmarks.clients", kind, json.dumps(arguments)]
    output = subprocess.run(pinned(command, core), capture_output=True, text=True, check=False)
    if output.returncode:
        raise RuntimeError(output.stderr[-2000:])
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return result


def lua_over(lines: Path, field: str) -> str:
    """Return the path of a wrk script that sends each line of *lines* in turn as *field*."""
    script = lines.with_suffix(".lua")
    script.write_text(
        f"""local values = {{}}
for line in io.lines("{lines}") do values[#values + 1] = line end
math.randomseed(os.time())
local at = math.random(#values)
request = function()
  at = at % #values + 1
  wrk.headers["{field}"] = values[at]
  return wrk.format()
end
"""
    )
    return str(script)


# Rows -------------------------------------------------------------------------------------------


def bearer(stage: Stage, effort: Effort) -> Iterator[Row]:
    """ES256 tokens: seen before, and a new one each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    kid = thumbprint(public_jwk(key))
    directory = stage.ground().directory
    directory.mkdir(parents=True)
    keys = {"keys": [{**public_jwk(key), "kid": kid, "alg": "ES256", "use": "sig"}]}
    (directory / "jwks.json").write_text(json.dumps(keys))
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": "https://issuer",
        "aud": "api",
        "sub": "u1",
        "roles": ["editor"],
    }
    claims |= {"iat": now, "exp": now + 3600}
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    count = int(8000 * (effort.rounds * effort.seconds + 1))
    tokens = [
        jwt.encode({**claims, "jti": str(number)}, pem, "ES256", headers={"kid": kid})
        for number in range(count)
    ]
    lines = directory / "tokens"
    lines.write_text("".join(f"Bearer {token}\n" for token in tokens))
    text = (
        HEAD
        + ROUTES
        + (
            "tokens:\n  - issuer: https://issuer\n    audience: [api]\n    algorithms: [ES256]\n"
            "    jwks_file: {jwks}\n"
        )
    )
    with gateway(stage, text, **USUAL, jwks=directory / "jwks.json") as (port, pid):
        seen = {"Authorization": f"Bearer {tokens[0]}"}
        wait_until_it_answers(f"http://127.0.0.1:{port}{PATH}", seen)
        before = _cost_of_verification(tokens, key.public_key())
        cookie, known, new = costs(
            [
                Asked(port, pid, PATH, SIGNED_IN),
                Asked(port, pid, PATH, seen),
                Asked(port, pid, PATH, {}, lua_over(lines, "Authorization")),
            ],
            effort,
        )
        library = (before + _cost_of_verification(tokens, key.public_key())) / 2
    yield Row("bearer ES256 seen before / cookie", known / cookie, "x", 1.1)
    yield Row(
        "bearer ES256, new each time, above the cookie and the library's verification",
        new - cookie - library,
        "µs",
        20,
        note=f"PyJWT alone {library:.0f} µs, the request {new:.0f} µs",
    )


def _cost_of_verification(tokens: list[str], key: ec.EllipticCurvePublicKey) -> float:
    """Return what PyJWT takes to verify a token, CPU µs, where the proxy runs."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(PROXY_CORE)})
    began = time.process_time()
    for token in tokens[:1000]:
        jwt.decode(token, key, ["ES256"], audience="api", issuer="https://issuer")
    spent = time.process_time() - began
    os.sched_setaffinity(0, cores)
    return spent / 1000 * 1e6


def many_routes(stage: Stage, effort: Effort) -> Iterator[Row]:
    """10,000 routes against 10, and a reload of them under load."""
    few, many = (HEAD + ROUTES + _routes(count) for count in (6, 9_996))
    with gateway(stage, few, **USUAL) as one, gateway(stage, many, **USUAL) as two:
        for port, _ in (one, two):
            wait_until_it_answers(f"http://127.0.0.1:{port}{PATH}", SIGNED_IN, seconds=60)
        small, large = costs([Asked(*side, PATH, SIGNED_IN) for side in (one, two)], effort)
        yield Row("10,000 routes / 10", large / small, "x", 1.05)
        yield from _reload(two[0], two[1])


def _routes(count: int) -> str:
    """Return *count* routes of all kinds: hosts, parameters, prefixes."""
    kinds = itertools.cycle(
        (
            'hosts: [h{n}.example], path: "/a/{{{{x}}}}/b"',
            'path: "/p{n}/*"',
            'hosts: ["*.s{n}.example"], path: "/*"',
            'path: "/q/{{{{x}}}}/r{n}/{{{{y}}}}"',
        )
    )
    return "".join(
        f"  - {{{{id: r{n}, match: {{{{{kind.format(n=n)}}}}},"
        " upstream: notes, access: signed-in}}\n"
        for n, kind in zip(range(count), kinds, strict=False)
    )


def _reload(port: int, pid: int) -> Iterator[Row]:
    command = [sys.executable, "-m", "benchmarks.clients", "rate"]
    command.append(
        json.dumps(
            {
                "port": port,
                "path": PATH,
                "fields": SIGNED_IN,
                "rate": 300,
                "seconds": 12,
                "connections": 16,
            }
        )
    )
    asking = subprocess.Popen(pinned(command, OTHER_CORE), stdout=subprocess.PIPE, text=True)
    # The supervisor reads and compiles the file too; here it has the other core.
    os.sched_setaffinity(pid, {int(OTHER_CORE)})
    time.sleep(2)
    os.kill(pid, signal.SIGHUP)
    output, _ = asking.communicate(timeout=60)
    result = json.loads(output)
    note = (
        f"{result['errors']} of {result['sent']} requests failed, p99 {result['p99'] * 1e3:.1f} ms"
    )
    yield Row(
        "reload of 10,000 routes: longest wait of a request",
        result["max"] * 1e3,
        "ms",
        50,
        note=note,
    )
    yield Row("reload of 10,000 routes: requests that failed", result["errors"], "", 0)


def forward_auth(stage: Stage, effort: Effort) -> Iterator[Row]:
    """The answer to another proxy's question against the whole request."""
    with gateway(stage, HEAD + ROUTES, **USUAL) as (port, pid):
        asked = {
            **SIGNED_IN,
            "X-Original-Method": "GET",
            "X-Original-URL": f"http://127.0.0.1:{port}{PATH}",
        }
        wait_until_it_answers(f"http://127.0.0.1:{port}{PATH}", SIGNED_IN)
        proxied, answered = costs(
            [
                Asked(port, pid, PATH, SIGNED_IN),
                Asked(port, pid, "/.doorward/auth", asked),
            ],
            effort,
        )
        yield Row("forward-auth answer / proxied request", answered / proxied, "x", 0.8)


def latency(stage: Stage, effort: Effort) -> Iterator[Row]:
    """The p99 at half of our saturation rate, beside nginx + Lua at the same rate."""
    with gateway(stage, HEAD + ROUTES, **USUAL) as ours, peer(stage, peers.nginx_lua) as theirs:
        wait_until_it_answers(f"http://127.0.0.1:{ours[0]}{PATH}", SIGNED_IN)
        most = _load(Asked(*ours, PATH, SIGNED_IN), effort.seconds).requests / effort.seconds
        rate = min(most / 2, 4000.0)
        taken: dict[int, list[float]] = {ours[0]: [], theirs[0]: []}
        for _ in range(effort.rounds):
            for port, samples in taken.items():
                result = client(
                    "rate",
                    port=port,
                    path=PATH,
                    fields=SIGNED_IN,
                    rate=rate,
                    seconds=effort.seconds,
                    connections=CONNECTIONS,
                )
                if result["errors"]:
                    raise RuntimeError(f"{result['errors']} requests failed at a constant rate")
                samples.append(result["p99"] * 1e3)
    mine, other = (statistics.median(samples) for samples in taken.values())
    note = f"{mine:.2f} ms and {other:.2f} ms at {rate:.0f} requests a second"
    yield Row("p99 at half the saturation rate / nginx + Lua", mine / other, "x", 1.5, note=note)


def idle_memory(stage: Stage, effort: Effort) -> Iterator[Row]:
    """Memory that an idle keep-alive connection and an idle WebSocket take."""
    with _backend(stage) as other:
        for name, path, websocket, count, target in (
            ("idle keep-alive connection", "/public/x", False, effort.connections, 10.0),
            ("idle WebSocket", "/other/ws", True, effort.connections // 4, 24.0),
        ):
            usual = {**USUAL, "other": other}
            with gateway(stage, HEAD + ROUTES, **usual) as (port, pid):
                wait_until_it_answers(f"http://127.0.0.1:{port}{PATH}", SIGNED_IN)
                client("rate", port=port, path=PATH, fields=SIGNED_IN, rate=500, seconds=2,
                       connections=64)  # fmt: skip
                before = resident_bytes(pid)
                arguments = {
                    "port": port,
                    "path": path,
                    "fields": SIGNED_IN if websocket else {},
                    "count": count,
                    "websocket": websocket,
                    "seconds": 12,
                }
                command = [sys.executable, "-m", "benchmarks.clients", "hold"]
                holding = subprocess.Popen(
                    pinned([*command, json.dumps(arguments)], OTHER_CORE),
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert holding.stdout is not None
                if holding.stdout.readline() != "held\n":
                    raise RuntimeError(f"could not hold {count} connections")
                time.sleep(6)
                each = (resident_bytes(pid) - before) / count / 1024
                holding.communicate()
            yield Row(f"memory of an {name}", each, "KiB", target, note=f"{count} of them")


def session_memory(stage: Stage, effort: Effort) -> Iterator[Row]:
    """Memory that a cached session takes, and that the cache stays within its bound."""
    now = time.time()
    cookies = [f"many-{number:028d}-abcdef" for number in range(effort.sessions)]
    with redis.Redis(port=stage.store, protocol=2) as store:
        for at in range(0, len(cookies), 5000):
            chunk = cookies[at : at + 5000]
            pipeline = store.pipeline(transaction=False)
            for number, cookie in enumerate(chunk):
                record = SessionRecord(
                    v=1, subject=f"{cookie[5:20]}{number}", name="Ada Lovelace", tenant="acme",
                    roles=("editor", "member"), scopes=("notes.read",), created_at=now,
                    expires_at=now + 86_400,
                )  # fmt: skip
                pipeline.set(session_key(digest(cookie)), encode_record(record), ex=43_200)
            pipeline.execute()
    lines = stage.ground().directory
    lines.mkdir(parents=True)
    file = lines / "cookies"
    file.write_text("".join(f"doorward={cookie}\n" for cookie in cookies))
    script = lua_over(file, "Cookie")
    with gateway(stage, HEAD + ROUTES, **USUAL) as (port, pid):
        wait_until_it_answers(f"http://127.0.0.1:{port}{PATH}", SIGNED_IN)
        side = Asked(port, pid, "/mine/x", {}, script)
        _warm(port)
        before = resident_bytes(pid)
        entries = 0.0
        for _ in range(20):
            apply_load(
                f"http://127.0.0.1:{side.port}{side.path}",
                seconds=5,
                connections=CONNECTIONS,
                fields={},
                script=script,
            )
            entries = _metric(pid, "doorward_session_cache_entries")
            if entries >= 0.95 * min(len(cookies), 100_000):
                break
        each = (resident_bytes(pid) - before) / max(entries, 1) / 1024
    note = f"{len(cookies):,} in the store, {entries:,.0f} held (bound 100,000)"
    yield Row("memory of a cached session", each, "KiB", 2, note=note)


def _warm(port: int) -> None:
    client("rate", port=port, path=PATH, fields=SIGNED_IN, rate=500, seconds=2, connections=64)


def _metric(pid: int, name: str) -> float:
    """Read a metric from the admin address of the gateway with the process id *pid*."""
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    text = Path(command[command.index("--config") + 1]).read_text()
    found = re.search(r'admin: \{listen: "([^"]+)"', text)
    assert found is not None
    with urllib.request.urlopen(f"http://{found[1]}/metrics", timeout=5) as answer:
        metrics = answer.read().decode()
    value = re.search(rf"^{name}\S* ([0-9.e+]+)$", metrics, re.MULTILINE)
    return float(value[1]) if value else 0.0


@contextmanager
def _backend(stage: Stage) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.backend", str(port)]
    with running(command, OTHER_CORE, stage.base / "own-backend.log"):
        wait_for(port)
        yield port


def big_bodies(stage: Stage, effort: Effort) -> Iterator[Row]:
    """A big body in either direction: CPU against nginx, and growth."""
    with (stage.base / "backend" / "big").open("wb") as big:
        big.truncate(effort.size)
    with (
        _backend(stage) as other,
        gateway(stage, HEAD + ROUTES, **{**USUAL, "other": other}) as ours,
        _nginx_passing(stage, other) as theirs,
    ):
        wait_until_it_answers(f"http://127.0.0.1:{ours[0]}{PATH}", SIGNED_IN)
        for name, path, up in (("down", "/public/big", False), ("up", "/other/up", True)):
            spent = {}
            growth = 0
            for port, pid in (ours, theirs):
                memory = resident_bytes(pid)
                before = cpu_seconds(pid)
                client("bytes", port=port, path=path, fields=SIGNED_IN, size=effort.size, up=up)
                spent[port] = cpu_seconds(pid) - before
                growth = max(growth, resident_bytes(pid) - memory) if port == ours[0] else growth
            mine, other_one = spent[ours[0]], spent[theirs[0]]
            note = f"{mine:.2f} s and {other_one:.2f} s for {effort.size >> 20} MiB"
            yield Row(
                f"{effort.size >> 20} MiB {name}: CPU / nginx", mine / other_one, "x", 2, note=note
            )
            yield Row(f"{effort.size >> 20} MiB {name}: growth", growth / 2**20, "MiB", 16)


@contextmanager
def _nginx_passing(stage: Stage, other: int) -> Iterator[tuple[int, int]]:
    """Nginx that streams both ways, and lets WebSockets through to *other*."""
    ground = stage.ground()
    extra = f"""
    location /other/ {{ proxy_pass http://127.0.0.1:{other}; proxy_request_buffering off;
      proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $upgrade; client_max_body_size 0; }}
    """
    command = peers.nginx_command(
        ground, "proxy_buffering off;", server=extra,
        http="map $http_upgrade $upgrade { default upgrade; '' ''; }",
    )  # fmt: skip
    with running(command, PROXY_CORE, ground.directory / "log") as pid:
        wait_for(ground.port)
        yield ground.port, pid


def websockets(stage: Stage, effort: Effort) -> Iterator[Row]:
    """Messages of 100 bytes that a CPU second relays."""
    with (
        _backend(stage) as other,
        gateway(stage, HEAD + ROUTES, **{**USUAL, "other": other}) as ours,
        _nginx_passing(stage, other) as theirs,
    ):
        wait_until_it_answers(f"http://127.0.0.1:{ours[0]}{PATH}", SIGNED_IN)
        taken: dict[int, list[float]] = {ours[0]: [], theirs[0]: []}
        for _ in range(effort.rounds):
            for port, pid in (ours, theirs):
                before = cpu_seconds(pid)
                result = client("frames", port=port, path="/other/ws", fields=SIGNED_IN,
                                connections=32, seconds=effort.seconds)  # fmt: skip
                taken[port].append(result["messages"] / (cpu_seconds(pid) - before))
    mine, other_one = (statistics.median(samples) for samples in taken.values())
    note = f"{mine:,.0f} and {other_one:,.0f} echoes a CPU second"
    yield Row(
        "WebSocket messages a CPU second / nginx",
        mine / other_one,
        "x",
        0.5,
        at_least=True,
        note=note,
    )


def two_workers(stage: Stage, effort: Effort) -> Iterator[Row]:
    """What two workers do with twice the CPU: the cost of a request must not grow."""
    with (
        gateway(stage, HEAD + ROUTES, **USUAL) as one,
        gateway(stage, HEAD + ROUTES, **{**USUAL, "workers": 2}) as two,
    ):
        for port, _ in (one, two):
            wait_until_it_answers(f"http://127.0.0.1:{port}{PATH}", SIGNED_IN)
        alone, both = costs([Asked(*side, PATH, SIGNED_IN) for side in (one, two)], effort)
        workers = [
            pid
            for pid in descendants(two[1])
            if "gateway.io.worker" in Path(f"/proc/{pid}/cmdline").read_text()
        ]
        shares = sorted(cpu_seconds(pid) for pid in workers)
    note = f"by CPU share, both on one core; the lesser did {shares[0] / sum(shares):.0%}"
    yield Row("two workers / one", 2 * alone / both, "x", 1.9, at_least=True, note=note)


def tls(stage: Stage, effort: Effort) -> Iterator[Row]:
    """TLS on kept connections against plain, full handshakes against nginx."""
    directory = stage.ground().directory
    directory.mkdir(parents=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    more = (
        f"  tls: {{certificates: [{{cert_file: {directory}/cert.pem, "
        f"key_file: {directory}/key.pem}}]}}"
    )
    cookie = {"Cookie": f"__Host-doorward={COOKIE}"}
    with (
        gateway(stage, HEAD + ROUTES, **USUAL) as plain,
        gateway(stage, HEAD + ROUTES, **{**USUAL, "scheme": "https", "more": more}) as secure,
        _nginx_tls(stage, directory) as theirs,
    ):
        wait_until_it_answers(f"http://127.0.0.1:{plain[0]}{PATH}", SIGNED_IN)
        _wait_for_tls(secure[0], cookie)
        kept = costs(
            [
                Asked(*plain, PATH, SIGNED_IN),
                Asked(*secure, PATH, cookie, scheme="https"),
            ],
            effort,
        )
        closing = {"Connection": "close"}
        resumed = costs(
            [
                Asked(*secure, "/public/x", closing, scheme="https"),
                Asked(*theirs, "/public/x", closing, scheme="https"),
            ],
            effort,
        )
        full = _handshakes([secure, theirs], effort)
    yield Row("TLS on kept connections / plain", kept[1] / kept[0], "x", 1.6)
    for name, cost in (("full TLS handshake", full), ("resumed TLS handshake", resumed)):
        note = (
            f"TLS 1.3, {cost[0]:.0f} µs and {cost[1]:.0f} µs, with the request and the connection"
        )
        yield Row(f"{name} / nginx", cost[0] / cost[1], "x", 1.5, note=note)


def _handshakes(sides: list[tuple[int, int]], effort: Effort) -> list[float]:
    """Return for each side its CPU µs a connection with a full handshake and one request."""
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(effort.rounds):
        for (port, pid), samples in zip(sides, taken, strict=True):
            before = cpu_seconds(pid)
            result = client("handshakes", port=port, path="/public/x", seconds=effort.seconds,
                            threads=4)  # fmt: skip
            samples.append((cpu_seconds(pid) - before) / result["handshakes"] * 1e6)
    return [statistics.median(samples) for samples in taken]


def _wait_for_tls(port: int, fields: Mapping[str, str]) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # self-signed, on loopback
    url = f"https://127.0.0.1:{port}{PATH}"
    for _ in range(100):
        request = urllib.request.Request(url, headers=dict(fields))
        try:
            with urllib.request.urlopen(request, timeout=2, context=context):  # noqa: S310 - the same
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"no good answer from {url}")


@contextmanager
def _nginx_tls(stage: Stage, certificates: Path) -> Iterator[tuple[int, int]]:
    ground = stage.ground()
    command = peers.nginx_command(
        ground, "", listen="ssl",
        server=f"ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificates}/cert.pem;\n"
        f"    ssl_certificate_key {certificates}/key.pem;",
    )  # fmt: skip
    with running(command, PROXY_CORE, ground.directory / "log") as pid:
        wait_for(ground.port)
        yield ground.port, pid


ROWS: tuple[Callable[[Stage, Effort], Iterator[Row]], ...] = (
    bearer,
    many_routes,
    forward_auth,
    latency,
    idle_memory,
    session_memory,
    big_bodies,
    websockets,
    two_workers,
    tls,
)


def measure_rows(names: list[str], effort: Effort) -> list[Row]:
    """Measure the rows whose function's name has a part in *names* (all of them without any)."""
    rows: list[Row] = []
    with ExitStack() as stack:
        stage = stack.enter_context(Stage.open())
        for measure in ROWS:
            if names and not any(name in measure.__name__ for name in names):
                continue
            print(f"measuring {measure.__name__} ...", file=sys.stderr, flush=True)
            try:
                rows += measure(stage, effort)
            except (RuntimeError, OSError, subprocess.SubprocessError, TimeoutError) as failure:
                note = str(failure).strip().splitlines()[-1:] or [""]
                rows.append(Row(measure.__name__, float("nan"), "", 0, note=f"failed: {note[0]}"))
    return rows


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
