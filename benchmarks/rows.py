"""What is promised beside the cost of the plain request: one function for each row of the table.

Each row measures both sides of its ratio in turn, in the same run. `target` is the largest value
that is good enough (the smallest where `at_least`).
"""

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from auth.keys import public_jwk, thumbprint
from benchmarks import memory_rows, peers, tls_rows
from benchmarks.measure import (
    OTHER_CORE,
    PROXY_CORE,
    cpu_seconds,
    descendants,
    pinned,
    resident_bytes,
)
from benchmarks.row import (
    CONNECTIONS,
    HEAD,
    PATH,
    ROUTES,
    SIGNED_IN,
    USUAL,
    Asked,
    Effort,
    Row,
    client,
    costs,
    gateway,
    load,
    lua_over,
    own_backend,
    peer,
)
from benchmarks.stage import Stage, free_port, running, wait_for, wait_until_it_answers
from benchmarks.verifying import verify


def bearer(stage: Stage, effort: Effort) -> Iterator[Row]:
    """ES256 tokens: seen before, and a new one each time.

    A new token each time means a head that no connection has shown before, so it is compared with
    cookies in turn: sessions that are cached, each request another than the one before. What the
    library takes for the signature is then taken off, measured in a server at work.
    """
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
    public = directory / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    cookies = directory / "cookies"
    cookies.write_text("".join(f"doorward={_ONE_OF_MANY.format(n)}\n" for n in range(_IN_TURN)))
    memory_rows.store_sessions(stage.store, _IN_TURN, cookie=_ONE_OF_MANY, subject="u1")
    with (
        gateway(stage, text, **USUAL, jwks=directory / "jwks.json") as ours,
        _verifying(stage, str(public)) as library,
        _verifying(stage, "-") as nobody,
    ):
        seen = {"Authorization": f"Bearer {tokens[0]}"}
        wait_until_it_answers(f"http://127.0.0.1:{ours[0]}{PATH}", seen)
        cookie, known, others, new, with_library, without = costs(
            [
                Asked(*ours, PATH, SIGNED_IN),
                Asked(*ours, PATH, seen),
                Asked(*ours, PATH, {}, lua_over(cookies, "Cookie", "ours")),
                Asked(*ours, PATH, {}, lua_over(lines, "Authorization", "ours")),
                Asked(*library, PATH, {}, lua_over(lines, "Authorization", "library")),
                Asked(*nobody, PATH, {}, lua_over(lines, "Authorization", "nobody")),
            ],
            effort,
        )
    yield Row("bearer ES256 seen before / cookie", known / cookie, "x", 1.1)
    spent = with_library - without
    note = (
        f"request {new:.0f} µs; with another cookie each time {others:.0f} µs, always "
        f"with the same one {cookie:.0f} µs; PyJWT in a server at work {spent:.0f} µs, in a "
        f"loop of its own {_cost_of_verification(tokens, key.public_key()):.0f} µs"
    )
    measure = "bearer ES256, new each time, above cookies in turn and the library's verification"
    yield Row(measure, new - others - spent, "µs", 20, note=note)


_IN_TURN = 101
_ONE_OF_MANY = "in-turn-{:026d}-abcdef"


@contextmanager
def _verifying(stage: Stage, pem: str) -> Iterator[tuple[int, int]]:
    """Run a server that verifies with PyJWT, or does not."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.verifying", str(port), pem]
    with running(command, PROXY_CORE, stage.base / "verifying.log") as pid:
        wait_for(port)
        yield port, pid


def _cost_of_verification(tokens: list[str], key: ec.EllipticCurvePublicKey) -> float:
    """Return what PyJWT takes to verify a token and does nothing else, CPU µs."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(PROXY_CORE)})
    began = time.process_time()
    for token in tokens[:1000]:
        verify(token, key)
    spent = time.process_time() - began
    os.sched_setaffinity(0, cores)
    return spent / 1000 * 1e6


def varied(stage: Stage, effort: Effort) -> Iterator[Row]:
    """Requests of which no two are alike, so that what is remembered of heads does not help."""
    directory = stage.ground().directory
    directory.mkdir(parents=True)
    scripts = {
        "no two paths and queries alike": directory / "path.lua",
        "no two heads alike, to the last field": directory / "fields.lua",
    }
    for script, more in zip(scripts.values(), ("", _ANOTHER_FIELD), strict=True):
        script.write_text(_ANOTHER_PATH.format(more=more))
    with gateway(stage, HEAD + ROUTES, **USUAL) as ours, peer(stage, peers.nginx_lua) as theirs:
        wait_until_it_answers(f"http://127.0.0.1:{ours[0]}{PATH}", SIGNED_IN)
        sides = [Asked(*ours, PATH, SIGNED_IN)]
        for script in scripts.values():
            sides += (Asked(*side, PATH, SIGNED_IN, str(script)) for side in (ours, theirs))
        same, *taken = costs(sides, effort)
    for name, mine, other in zip(scripts, taken[::2], taken[1::2], strict=True):
        note = f"{mine:.1f} µs and {other:.1f} µs; always the same request {same:.1f} µs"
        yield Row(f"{name} / nginx + Lua", mine / other, "x", 1.0, note=note)


_ANOTHER_PATH = """\
local number = 0
request = function()
  number = number + 1
  {more}
  return wrk.format("GET", "/users/u1/notes/" .. number .. "?page=" .. number)
end
"""
_ANOTHER_FIELD = 'wrk.headers["X-Client-Trace"] = "t" .. number'


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
        most = load(Asked(*ours, PATH, SIGNED_IN), effort.seconds).requests / effort.seconds
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


def big_bodies(stage: Stage, effort: Effort) -> Iterator[Row]:
    """A big body in either direction: CPU against nginx, and growth."""
    with (stage.base / "backend" / "big").open("wb") as big:
        big.truncate(effort.size)
    with (
        own_backend(stage) as other,
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
        own_backend(stage) as other,
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


ROWS: tuple[Callable[[Stage, Effort], Iterator[Row]], ...] = (
    bearer,
    varied,
    many_routes,
    forward_auth,
    latency,
    memory_rows.idle_memory,
    memory_rows.session_memory,
    big_bodies,
    websockets,
    two_workers,
    tls_rows.tls,
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
            except Exception as failure:  # noqa: BLE001 - whatever it is, the table has other rows
                why = [type(failure).__name__, *str(failure).strip().splitlines()][-1]
                rows.append(Row(measure.__name__, float("nan"), "", 0, note=f"failed: {why}"))
    return rows
