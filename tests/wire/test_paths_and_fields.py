"""What a backend is told, byte for byte: the corpora of paths and of header fields by wire."""

import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from config.model import Assertion, IdentityHeaders
from tests.gateway.io.harness import (
    ALL,
    SIGNED_IN,
    Gateway,
    configuration,
    gateway,
    one_upstream,
    route,
    upstream,
)
from tests.wire.strict_upstream import Received, StrictUpstream

pytestmark = [pytest.mark.wire, pytest.mark.asyncio(loop_scope="module")]

CORPORA = Path(__file__).parents[1] / "corpora"


def cases(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPORA / name).read_text().splitlines()]


PATHS = cases("path_bypass.jsonl")
FIELDS = cases("headers.jsonl")
IDENTITY = IdentityHeaders(
    fields=(("X-Auth-User", "subject"), ("X-Auth-Groups", "groups"), ("X-Auth-Email", "email")),
    assertion=Assertion(issuer="https://app.example.com"),
)


class Bench(NamedTuple):
    gateway: Gateway
    upstream: StrictUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    strict = StrictUpstream()
    routes = [ALL, route("private", "/private/*", access=SIGNED_IN)]
    async with (
        upstream(strict) as backend,
        gateway(configuration(one_upstream(backend), routes, identity=IDENTITY)) as running,
    ):
        yield Bench(running, strict)


async def seen(bench: Bench, request: bytes) -> tuple[int, Received | None]:
    """Send *request*; return the status and what the upstream was sent, if anything."""
    bench.upstream.complete.clear()
    bench.upstream.faults.clear()
    answer = await bench.gateway.ask(request)
    assert bench.upstream.faults == []
    assert len(bench.upstream.complete) <= 1
    return answer.status, bench.upstream.complete[0] if bench.upstream.complete else None


@pytest.mark.parametrize("case", PATHS, ids=[case["name"] for case in PATHS])
async def test_the_path_that_was_decided_on_is_the_one_that_is_sent(
    bench: Bench, case: dict[str, Any]
) -> None:
    raw = base64.b64decode(case["raw_path_b64"])
    status, received = await seen(bench, b"GET %b HTTP/1.1\r\nHost: app.example.com\r\n\r\n" % raw)

    if received is None:
        assert status in (400, 414)
        assert case["treat_as"] == "REJECT" or case["reject_ok"]
        return
    path, _, query = received.target.partition(b"?")
    assert path.decode() == case["treat_as"]
    assert bench.gateway.events[-1].path == path.decode()
    assert query == raw.partition(b"?")[2]


def folded(name: bytes) -> str:
    return re.sub(r"[^A-Z0-9]", "_", name.decode("latin-1").upper())


@pytest.mark.parametrize("case", FIELDS, ids=[case["name"] for case in FIELDS])
async def test_a_backend_reads_what_the_gateway_vouches_for_and_nothing_else(
    bench: Bench, case: dict[str, Any]
) -> None:
    signed_in = case["route"].startswith("authenticated")
    cookie = bench.gateway.sessions.sign_in("u1", groups=("staff",), email="u1@example.com")
    lines = [base64.b64decode(line) for line in case["lines_b64"]]
    if signed_in:
        lines.append(b"Cookie: doorward=" + cookie.encode())
    request = b"GET %b HTTP/1.1\r\nHost: app.example.com\r\n%b\r\n\r\n" % (
        b"/private/x" if signed_in else b"/x",
        b"\r\n".join(lines),
    )
    status, received = await seen(bench, request)

    if received is None:
        assert status in (400, 401, 431)
        assert case["must"] == "reject" or case["reject_ok"]
        return
    assert case["must"] != "reject"
    told: dict[str, list[bytes]] = {"X_AUTH_USER": [], "X_AUTH_GROUPS": [], "X_AUTH_EMAIL": []}
    for name, value in received.fields:
        if folded(name) in told:
            told[folded(name)].append(value)
    identity = [[b"u1"], [b"staff"], [b"u1@example.com"]] if signed_in else [[], [], []]
    assert list(told.values()) == identity
    assert cookie.encode() not in b"".join(value for _, value in received.fields)
