"""What an upstream may send: the corpus of answers, and what the next request on the pool gets."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.io.harness import (
    ALL,
    Behaviour,
    Gateway,
    Message,
    Upstreams,
    answering,
    configuration,
    gateway,
    one_upstream,
    upstream,
)
from tests.wire.outside import Outside, outside
from tests.wire.vectors import given, own

pytestmark = pytest.mark.wire

GIVEN, OWN = given("responses"), own("responses")
ROUTES = "  - {id: all, match: {path: /*}, upstream: app, access: public}"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
CLEAN = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nclean"
"""The last answer of a connection, so that none of them is left in the pool for the next case."""


class Scripted:
    """Answers the first request as the case says, every other one cleanly."""

    def __init__(self, case: dict[str, Any], size: int) -> None:
        self.case = case
        self.raw = base64.b64decode(case["raw_b64"])
        self.after = base64.b64decode(case.get("after_b64", ""))
        self.closes = bool(case.get("closes"))
        self.size = size if len(self.raw) < 4000 else 1_000_000
        self.first = True
        self.after_sent = asyncio.Event()

    async def __call__(
        self, backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            await backend.read_head(reader)
            if not self.first:
                writer.write(CLEAN)
                continue
            self.first = False
            try:
                await self._misbehave(writer)
            finally:
                self.after_sent.set()  # also when the gateway has closed before all was sent
            if self.closes:
                return

    async def _misbehave(self, writer: asyncio.StreamWriter) -> None:
        for at in range(0, len(self.raw), self.size):
            writer.write(self.raw[at : at + self.size])
            await writer.drain()
            await asyncio.sleep(0)
        if self.after:
            await asyncio.sleep(0.02)
            writer.write(self.after)
            await writer.drain()


def passed(case: dict[str, Any], message: Message) -> bool:
    raw = base64.b64decode(case["raw_b64"])
    return message.status < 500 and message.complete and message.content in raw


@pytest.mark.parametrize("size", [1_000_000, 1], ids=["whole", "byte_wise"])
@pytest.mark.parametrize("case", GIVEN, ids=lambda case: case["name"])
async def test_an_answer_is_passed_on_or_refused_and_poisons_nobody(
    case: dict[str, Any], size: int
) -> None:
    scripted = Scripted(case, size)
    async with (
        upstream(scripted) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        await check(running, backend, scripted)


class Stage:
    """Behaviour for a gateway that goes on from case to case: the script changes."""

    def __init__(self) -> None:
        self.script: Behaviour = answering(CLEAN)

    async def __call__(
        self, backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self.script(backend, reader, writer)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Outside, Upstreams, Stage]]:
    stage = Stage()
    directory = tmp_path_factory.mktemp("gateway")
    async with upstream(stage) as backend, outside(directory, backend, ROUTES) as running:
        yield running, backend, stage


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", GIVEN + OWN, ids=lambda case: case["name"])
async def test_the_same_from_outside(
    bench: tuple[Outside, Upstreams, Stage], case: dict[str, Any]
) -> None:
    running, backend, stage = bench
    for size in (1_000_000, 1):
        stage.script = scripted = Scripted(case, size)
        await check(running, backend, scripted)


async def check(running: Gateway | Outside, backend: Upstreams, scripted: Scripted) -> None:
    """Ask twice; check what the first one got, and that the second got its own answer."""
    case, connections = scripted.case, backend.connections
    first = await running.ask(case["method"].encode() + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
    if case["must"] == "pass-close-upstream":
        await scripted.after_sent.wait()
        await asyncio.sleep(0.02)
    second = await running.ask(NEXT)

    assert second.status == 200
    assert second.content == b"clean"
    assert "x-poison" not in second.fields
    refused = first.status == 502 or not first.complete
    must = case["must"]
    if must in ("pass", "wait-final") and not case.get("also_ok"):
        assert passed(case, first)
        assert first.status < 400
    elif must == "pass-close-upstream":
        assert passed(case, first)
        assert backend.connections == connections + 2
    elif must == "pass":
        assert passed(case, first) or refused
    else:
        assert refused or ("pass" in case.get("also_ok", ()) and passed(case, first))
        assert backend.connections == connections + 2
    for name in case.get("strip", ()):
        assert name.lower() not in first.fields
