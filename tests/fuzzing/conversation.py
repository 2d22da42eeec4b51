"""Whole conversations: raw bytes to a running gateway, with an upstream stricter than any backend.

The gateway and the upstream run in this process, on real sockets, so that coverage guides the
fuzzer through both of them; they are started once and serve all inputs.
"""

import asyncio
import re
from contextlib import AsyncExitStack, suppress
from typing import NamedTuple

import uvloop

from config.model import Limits
from gateway.shedding import Shedder
from gateway.target import canonical
from tests.gateway.io.harness import (
    ALL,
    Gateway,
    Message,
    configuration,
    gateway,
    one_upstream,
    upstream,
)
from tests.wire.strict_upstream import StrictUpstream

CLEAN = b"GET /clean HTTP/1.1\r\nHost: app.example.com\r\n\r\n"
ENDS_WITHIN = 45.0
"""Seconds until the gateway must have closed; where the machine is free it takes one."""
ANSWERS_WITHIN = 30.0
"""The same for the answer to one request."""
LIMITS = Limits(head=8192, body=65536, head_timeout=1.0, idle_timeout=1.0)


class Bench(NamedTuple):
    """What runs all the time."""

    loop: asyncio.AbstractEventLoop
    gateway: Gateway
    upstream: StrictUpstream
    stack: AsyncExitStack


_running: list[Bench] = []


async def _start() -> tuple[Gateway, StrictUpstream, AsyncExitStack]:
    stack, strict = AsyncExitStack(), StrictUpstream()
    backend = await stack.enter_async_context(upstream(strict))
    settings = configuration(one_upstream(backend), [ALL], limits=LIMITS)
    return await stack.enter_async_context(gateway(settings)), strict, stack


def stop() -> None:
    """Stop what `conversation` has started."""
    while _running:
        bench = _running.pop()
        bench.loop.run_until_complete(bench.stack.aclose())
        left = asyncio.all_tasks(bench.loop)
        for task in left:
            task.cancel()
        if left:  # of nothing, `gather` asks for the thread's loop, and there may be none
            bench.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        bench.loop.close()


def _bench() -> Bench:
    if not _running:
        loop = uvloop.new_event_loop()
        _running.append(Bench(loop, *loop.run_until_complete(_start())))
    return _running[0]


def cuts(data: bytes) -> list[bytes]:
    """Cut all but the first byte of *data*, as that byte says."""
    how, data = data[0] % 4, data[1:]
    if how == 1:
        return [data[at : at + 1] for at in range(min(len(data), 512))] + [data[512:]]
    if how == 2:
        return re.split(rb"(?<=\r\n)", data)
    if how == 3:
        return [data[at : at + 7] for at in range(0, len(data), 7)]
    return [data]


async def _converse(bench: Bench, parts: list[bytes]) -> bytes:
    client = await bench.gateway.connect()
    bench.gateway.clients.clear()
    with suppress(ConnectionError, RuntimeError):
        for part in parts:
            await client.send(part)
            await asyncio.sleep(0)
        client.writer.write_eof()
    received = b""
    async with asyncio.timeout(ENDS_WITHIN):
        with suppress(ConnectionError):
            while data := await client.reader.read(65536):
                received += data
    await client.close()
    return received


def _ask_clean(bench: Bench) -> Message:
    """Ask for `/clean`, once more for as long as the gateway says that it is overloaded.

    The loop stands still while the fuzzer thinks, and on a busy machine for most of the time. Its
    beats are late for so long that it sheds requests, as it should; that is forgotten here.
    """
    while True:
        bench.gateway.server._serving.overload.shedder = Shedder()
        clean = bench.loop.run_until_complete(_ask(bench))
        if clean.fields.get("x-doorward-error") != "overloaded":
            return clean


async def _ask(bench: Bench) -> Message:
    """Ask for `/clean`; say who waits for what if that does not end."""
    asking = asyncio.create_task(bench.gateway.ask(CLEAN))
    if not (await asyncio.wait({asking}, timeout=ANSWERS_WITHIN))[0]:
        for task in asyncio.all_tasks():
            task.print_stack()
        raise TimeoutError("no answer to a request beside it")
    return await asking


def conversation(data: bytes) -> None:
    """Send *data*; what arrives is well formed, and what was asked for, and nobody else's."""
    if not data:
        return
    bench = _bench()
    strict = bench.upstream
    for seen in (strict.complete, strict.begun, strict.faults, bench.gateway.events):
        seen.clear()
    received = bench.loop.run_until_complete(_converse(bench, cuts(data)))
    clean = _ask_clean(bench)
    assert clean.content == b"answer to /clean", (clean.head, clean.content)
    pools = bench.gateway.server._generation.pools.values()
    assert not any(pool.requests for pool in pools), "a place at the upstream is held for ever"
    assert strict.faults == []
    assert strict.complete.pop().target == b"/clean"
    for request in strict.complete:
        if request.target != b"*":
            assert canonical(request.target).text.encode() == request.target
    answers = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
    final = [status for status in answers if status >= 200]
    assert final.count(200) <= len(strict.complete)
    # After a refusal, and after `close`, there is nothing more.
    refused = [at for at, status in enumerate(final) if status in (400, 413, 417, 431, 501, 505)]
    assert refused in ([], [len(final) - 1])
    assert 500 not in final
    assert not [event for event in bench.gateway.events if event.reason == "internal"]
