"""What an upstream may send: the corpus of answers, and what the next request on the pool gets."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.io.harness import (
    ALL,
    Message,
    Upstreams,
    configuration,
    gateway,
    one_upstream,
    upstream,
)

pytestmark = pytest.mark.wire

CORPUS = Path(__file__).parents[1] / "corpora" / "responses.jsonl"
CASES = [json.loads(line) for line in CORPUS.read_text().splitlines()]
CLEAN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean"


class Scripted:
    """Answers the first request as the case says, every other one cleanly."""

    def __init__(self, case: dict[str, Any], size: int) -> None:
        self.raw = base64.b64decode(case["raw_b64"])
        self.after = base64.b64decode(case.get("after_b64", ""))
        self.closes = bool(case.get("closes"))
        self.size = size
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
            for at in range(0, len(self.raw), self.size):
                writer.write(self.raw[at : at + self.size])
                await writer.drain()
                await asyncio.sleep(0)
            if self.closes:
                return
            if self.after:
                await asyncio.sleep(0.02)
                writer.write(self.after)
                await writer.drain()
            self.after_sent.set()


def passed(case: dict[str, Any], message: Message) -> bool:
    raw = base64.b64decode(case["raw_b64"])
    return message.status < 500 and message.complete and message.content in raw


@pytest.mark.parametrize("size", [1_000_000, 1], ids=["whole", "byte_wise"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_an_answer_is_passed_on_or_refused_and_poisons_nobody(
    case: dict[str, Any], size: int
) -> None:
    scripted = Scripted(case, size if len(case["raw_b64"]) < 5000 else 1_000_000)
    request = case["method"].encode() + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
    async with (
        upstream(scripted) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        first = await running.ask(request)
        if case["must"] == "pass-close-upstream":
            await scripted.after_sent.wait()
            await asyncio.sleep(0.02)
        second = await running.ask(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")

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
            assert backend.connections == 2
        elif must == "pass":
            assert passed(case, first) or refused
        else:
            assert refused
            assert backend.connections == 2
        for name in case.get("strip", ()):
            assert name.lower() not in first.fields
