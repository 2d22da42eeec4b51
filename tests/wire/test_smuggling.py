"""The smuggling corpus against a running gateway with an upstream stricter than any backend."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from config.model import Limits, Match, Route
from tests.gateway.io.harness import (
    PUBLIC,
    Gateway,
    configuration,
    gateway,
    one_upstream,
    upstream,
)
from tests.wire.outside import Outside, outside
from tests.wire.strict_upstream import StrictUpstream
from tests.wire.vectors import given, own

pytestmark = [pytest.mark.wire, pytest.mark.asyncio(loop_scope="module")]

GIVEN, OWN = given("smuggling"), own("smuggling")
APP = Route("app", Match("/*", hosts=("app.example.com",)), "app", PUBLIC)
CLEAN = b"GET /clean HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n"
REFUSALS = {400, 404, 405, 408, 411, 413, 414, 417, 421, 431, 501, 505}
LONGEST_BYTEWISE = 2048
"""Bytes sent one at a time; of a longer case, its beginning."""


class Bench(NamedTuple):
    gateway: Gateway | Outside
    upstream: StrictUpstream


ROUTES = """\
  - {id: app, match: {path: /*, hosts: [app.example.com]}, upstream: app, access: public}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["here", "as a process"])
async def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bench]:
    strict = StrictUpstream()
    async with upstream(strict) as backend:
        if request.param == "here":
            limits = Limits(head_timeout=1.0)
            settings = configuration(one_upstream(backend), [APP], limits=limits)
            async with gateway(settings) as running:
                yield Bench(running, strict)
        else:
            directory = tmp_path_factory.mktemp("gateway")
            server = "limits: {head_timeout: 1s}"
            async with outside(directory, backend, ROUTES, server=server) as running:
                yield Bench(running, strict)


def whole(raw: bytes) -> list[bytes]:
    return [raw]


def byte_wise(raw: bytes) -> list[bytes]:
    parts = [raw[at : at + 1] for at in range(min(len(raw), LONGEST_BYTEWISE))]
    return [*parts, raw[LONGEST_BYTEWISE:]] if len(raw) > LONGEST_BYTEWISE else parts


def split_at_lines(raw: bytes) -> list[bytes]:
    return [part for part in re.split(rb"(?<=\r\n)", raw) if part]


async def converse(running: Gateway | Outside, parts: list[bytes]) -> tuple[list[int], bool, bool]:
    """Send *parts*; return the statuses of all answers, and whether it was closed and reset."""
    client = await running.connect()
    transport = client.writer.transport
    statuses: list[int] = []
    closed = reset = False
    for part in parts:
        if transport.is_closing():
            break
        with suppress(ConnectionError):
            await client.send(part)
        await asyncio.sleep(0)
    with suppress(OSError, RuntimeError):
        client.writer.write_eof()
    received = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            try:
                received = await client.reader.read()
            except ConnectionError:
                received = bytes(client.reader._buffer)  # type: ignore[attr-defined]
                reset = True
            closed = True
    statuses = [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
    await client.close()
    return [status for status in statuses if status != 100], closed, reset


def first_fields(seen: StrictUpstream) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields of the first request that was not the clean one."""
    return next((r.fields for r in seen.complete if r.target != b"/clean"), ())


def allowed(case: dict[str, Any]) -> set[str]:
    words = " ".join([case["expected"], *case["also_ok"]])
    return {
        word for word in ("reject", "one-request", "close", "answered locally") if word in words
    }


@pytest.mark.parametrize("cut", [whole, byte_wise, split_at_lines])
@pytest.mark.parametrize("case", GIVEN, ids=[case["name"] for case in GIVEN])
async def test_a_vector_is_refused_or_means_one_thing(
    bench: Bench, case: dict[str, Any], cut: Callable[[bytes], list[bytes]]
) -> None:
    await check(bench, case, cut)


@pytest.mark.parametrize("bench", ["as a process"], indirect=True)
@pytest.mark.parametrize("case", OWN, ids=[case["name"] for case in OWN])
async def test_a_vector_of_ours_is_refused_or_means_one_thing(
    bench: Bench, case: dict[str, Any]
) -> None:
    for cut in (whole, byte_wise):
        await check(bench, case, cut)


async def check(bench: Bench, case: dict[str, Any], cut: Callable[[bytes], list[bytes]]) -> None:
    """Send *case* in pieces as *cut* makes them; check the answer and what the upstream saw."""
    bench.upstream.complete.clear()
    bench.upstream.begun.clear()
    bench.upstream.faults.clear()

    statuses, closed, reset = await converse(bench.gateway, cut(base64.b64decode(case["raw_b64"])))
    clean = await bench.gateway.ask(CLEAN)

    seen = [request.target for request in bench.upstream.complete]
    assert clean.content == b"answer to /clean"  # nobody else got what was meant for this one
    assert seen.pop() == b"/clean"
    assert bench.upstream.faults == []
    assert not [target for target in bench.upstream.begun if target.startswith(b"/smuggled")]
    assert closed
    verdicts = allowed(case)
    assert len(seen) <= max(case["n_upstream"], "one-request" in verdicts)
    if seen and "upstream_body_b64" in case:
        assert bench.upstream.complete[0].content == base64.b64decode(case["upstream_body_b64"])
    lines = [b": ".join(field).decode("latin-1").lower() for field in first_fields(bench.upstream)]
    for unwanted in case.get("upstream_must_not_see", ()):
        assert not [line for line in lines if line.startswith(unwanted)]
    if seen and case["name"] == "maxfwd-options-5":
        assert case["upstream_must_see"] in lines
    refused = bool(statuses) and statuses[-1] in REFUSALS and not seen
    if case["expected"] == "reject-400" and not (
        {"close", "one-request", "answered locally"} & verdicts
    ):
        assert refused, statuses
        assert len(statuses) == 1  # nothing after a refusal is answered
        assert case.get("partial_ok") or bench.upstream.begun == [b"/clean"]
    elif case["expected"] == "one-request" and verdicts == {"one-request"}:
        assert len(seen) == case["n_upstream"]
        # RFC 9112 9.6: who sends on behind a request that closes may lose the answer to a reset.
        if statuses or not reset:
            assert [status for status in statuses if status == 200] == [200] * len(seen)
    else:
        assert refused or not statuses or len(seen) == len([s for s in statuses if s == 200])
