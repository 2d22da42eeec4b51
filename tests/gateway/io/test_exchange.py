import asyncio
import socket
import struct
from typing import Any, cast

import pytest

from config.model import Limits, Timeouts
from tests.gateway.io.harness import (
    ALL,
    OK,
    PRIVATE,
    Behaviour,
    Upstreams,
    answering,
    configuration,
    gateway,
    one_upstream,
    upstream,
)

pytestmark = pytest.mark.wire

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


def reset(writer: asyncio.StreamWriter) -> None:
    """Make the close a RST."""
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writer.transport.abort()


def sending_then_leaving(data: bytes, *, with_reset: bool = False) -> Behaviour:
    """Send *data* in answer to a request, then leave."""

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.02)
        if with_reset:
            reset(writer)

    return behave


FULL = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("with_reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("full", [FULL, CHUNKED], ids=["length", "chunked"])
async def test_an_upstream_that_dies_at_any_byte_never_makes_a_complete_answer(
    full: bytes, *, with_reset: bool
) -> None:
    for at in range(0, len(full), 3):
        async with (
            upstream(sending_then_leaving(full[:at], with_reset=with_reset)) as backend,
            gateway(configuration(one_upstream(backend), [ALL])) as running,
        ):
            client = await running.connect()
            await client.send(POST)  # not repeated, whatever happens
            answer = await client.receive()

            if b"\r\n\r\n" in full[:at]:
                assert answer.status == 200
                assert not answer.complete
                assert running.events[-1].error == "upstream_truncated"
            else:
                assert answer.status == 502
                assert answer.complete
            assert backend.connections == 1


async def test_a_dead_upstream_is_told_of_at_once() -> None:
    async with (
        upstream(sending_then_leaving(b"", with_reset=True)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        began = asyncio.get_running_loop().time()
        answer = await running.ask(POST)

        assert answer.status == 502
        assert answer.fields["x-doorward-error"] == "upstream_unreachable"
        assert asyncio.get_running_loop().time() - began < 1


async def test_nobody_listening_is_502() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        port = backend.port
    from tests.gateway.io.harness import endpoint  # noqa: PLC0415 - the port is free by now

    upstreams = one_upstream(backend)
    assert upstreams["app"].endpoints == (endpoint(port),)
    async with gateway(configuration(upstreams, [ALL])) as running:
        answer = await running.ask(GET)

        assert answer.status == 502
        assert running.events[-1].error == "upstream_unreachable"


def leaving_after_answers(count: int) -> Behaviour:
    """Answer *count* requests on a connection, and reset it when the next one comes."""

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for _ in range(count):
            await backend.read_head(reader)
            writer.write(OK)
        await backend.read_head(reader)
        reset(writer)

    return behave


@pytest.mark.parametrize(
    ("method", "repeated"),
    [
        ("GET", True),
        ("HEAD", True),
        ("OPTIONS", True),
        ("POST", False),
        ("PUT", False),
        ("DELETE", False),
    ],
)
async def test_only_what_is_safe_is_sent_again_when_a_kept_connection_proves_stale(
    method: str, *, repeated: bool
) -> None:
    async with (
        upstream(leaving_after_answers(1)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        assert (await running.ask(GET)).status == 200
        request = f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        answer = await running.ask(request)

        assert answer.status == (200 if repeated else 502)
        assert backend.connections == (2 if repeated else 1)
        assert len(running.events) == 2


async def test_a_request_with_content_is_never_sent_twice() -> None:
    async with (
        upstream(leaving_after_answers(1)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        await running.ask(GET)
        answer = await running.ask(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")

        assert answer.status == 502
        assert backend.connections == 1


async def test_a_request_is_repeated_once_and_not_on_another_kept_connection() -> None:
    async with (
        upstream(leaving_after_answers(0)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        assert (await running.ask(GET)).status == 502  # a fresh connection: no second attempt
        assert backend.connections == 1


async def test_a_request_is_not_repeated_after_a_byte_of_the_answer() -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(OK)
        await backend.read_head(reader)
        writer.write(b"HTTP/1.1 200")
        await writer.drain()

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        await running.ask(GET)

        assert (await running.ask(GET)).status == 502
        assert backend.connections == 1


async def never(
    backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await backend.read_head(reader)
    await reader.read()


async def test_an_upstream_that_does_not_answer_in_time_is_504() -> None:
    timeouts = Timeouts(response=0.15)
    async with (
        upstream(never) as backend,
        gateway(configuration(one_upstream(backend, timeouts=timeouts), [ALL])) as running,
    ):
        answer = await running.ask(GET)

        assert answer.status == 504
        assert answer.fields["x-doorward-error"] == "upstream_timeout"
        await asyncio.wait_for(backend.lost.wait(), 2)


async def test_a_short_limit_is_kept_however_seldom_the_others_would_be_looked_at() -> None:
    timeouts = Timeouts(response=0.2)
    async with (
        upstream(never) as backend,
        gateway(
            configuration(one_upstream(backend, timeouts=timeouts), [ALL]), sweep_seconds=3600
        ) as running,
    ):
        answer = await asyncio.wait_for(running.ask(GET), 30)

        assert answer.status == 504


async def test_an_answer_that_stops_coming_is_aborted() -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(CHUNKED[:-10])
        await reader.read()

    timeouts = Timeouts(idle=0.15)
    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend, timeouts=timeouts), [ALL])) as running,
    ):
        answer = await running.ask(GET)

        assert not answer.complete
        assert running.events[-1].error == "upstream_timeout"


@pytest.mark.parametrize("stage", ["before_the_head", "in_the_content"])
async def test_a_client_that_leaves_cancels_the_upstream_request(stage: str) -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        if stage == "in_the_content":
            writer.write(CHUNKED[:-10])
        await reader.read()

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET)
        while not backend.requests:
            await asyncio.sleep(0.005)
        client.writer.transport.abort()

        await asyncio.wait_for(backend.lost.wait(), 2)
        assert running.server.exchanges == 0
        assert running.events[-1].error == "client_closed"


async def test_many_clients_that_leave_leave_nothing_behind() -> None:
    async with (
        upstream(never) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        for _ in range(5):
            clients = [await running.connect() for _ in range(40)]
            for client in clients:
                await client.send(GET if clients.index(client) % 2 else POST[:-1])
            for client in clients:
                client.writer.transport.abort()
        async with asyncio.timeout(5):
            while running.server.exchanges or running.server.counters["connections"]:
                await asyncio.sleep(0.02)
        (endpoint_pool,) = running.server._generation.pools["app"].endpoints
        assert endpoint_pool.in_flight == 0
        # Connections that were made for a client already gone may idle; nothing else is left.
        assert all(one.requester is None for one in endpoint_pool.open)
        async with asyncio.timeout(5):  # aiohttp waits a while for content that will not come
            while len(asyncio.all_tasks() - backend.tasks) >= 5:
                await asyncio.sleep(0.02)


async def test_a_client_that_stops_reading_stops_the_upstream() -> None:
    sent = 0
    total = 200 * 1024 * 1024

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        await backend.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        piece = b"x" * 65536
        while sent < total:
            writer.write(piece)
            sent += len(piece)
            await writer.drain()

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        client.transport.pause_reading()
        await client.send(GET)
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.1)
        (connection,) = running.server._serving.connections
        assert connection.transport is not None
        held = connection.transport.get_write_buffer_size()

        assert held < 512 * 1024
        assert sent < 32 * 1024 * 1024  # what the kernel's buffers on both sides hold
        client.transport.resume_reading()
        await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readexactly(50 * 1024 * 1024)
        assert sent > 50 * 1024 * 1024
        client.writer.transport.abort()
        await asyncio.wait_for(backend.lost.wait(), 2)


async def test_an_upstream_that_stops_reading_stops_the_client() -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        transport = cast("asyncio.Transport", writer.transport)
        transport.pause_reading()
        await asyncio.sleep(0.5)
        transport.resume_reading()
        left = total
        while left:
            left -= len(await reader.read(65536))
        writer.write(OK)

    total = 60 * 1024 * 1024
    limits = Limits(body=total)
    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % total)
        client.writer.write(b"x" * total)
        await asyncio.sleep(0.4)
        waiting = client.writer.transport.get_write_buffer_size()
        (exchange,) = running.server._serving.exchanges

        assert waiting > 20 * 1024 * 1024
        assert exchange.is_blocked
        assert exchange.connection is not None
        assert exchange.connection.transport is not None
        assert exchange.connection.transport.get_write_buffer_size() < 512 * 1024
        assert (await client.receive()).content == b"ok"


async def test_an_event_stream_is_passed_on_event_by_event() -> None:
    go_on = asyncio.Event()

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            writer.write(b"data: %d\n\n" % number)
            await go_on.wait()
            go_on.clear()

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET)
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        for number in range(3):
            began = asyncio.get_running_loop().time()
            event = b"data: %d\n\n" % number
            framed = b"%x\r\n%b\r\n" % (len(event), event)
            async with asyncio.timeout(2):
                assert await client.reader.readexactly(len(framed)) == framed
            assert asyncio.get_running_loop().time() - began < 0.1
            go_on.set()
        assert await client.reader.readexactly(5) == b"0\r\n\r\n"  # its end was clean


async def test_an_early_answer_to_a_big_upload_is_relayed_and_both_sides_closed() -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await reader.read()

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nbegin")
        began = asyncio.get_running_loop().time()
        answer = await client.receive()

        assert answer.status == 413
        assert answer.fields["connection"] == "close"
        assert answer.content == b"big"
        assert asyncio.get_running_loop().time() - began < 0.5
        await asyncio.wait_for(backend.lost.wait(), 2)


async def test_interim_answers_are_swallowed_and_the_final_one_passed_on() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with (
        upstream(answering(interim + OK)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        assert (await running.ask(GET)).content == b"ok"
        assert (await running.ask(POST)).content == b"ok"


async def test_an_endless_row_of_interim_answers_is_502() -> None:
    async with (
        upstream(answering(b"HTTP/1.1 102 Processing\r\n\r\n" * 9 + OK)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        assert (await running.ask(GET)).status == 502


@pytest.mark.parametrize("answer", [OK, CHUNKED], ids=["length", "chunked"])
async def test_a_small_answer_leaves_in_one_write(answer: bytes) -> None:
    async with (
        upstream(answering(answer)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET)
        received = await client.reader.read(65536)

        assert received.endswith((b"\r\n\r\nok", b"\r\n\r\n0123456789"))


async def test_every_end_is_told_once() -> None:
    async with (
        upstream(sending_then_leaving(FULL[:-2])) as backend,
        gateway(configuration(one_upstream(backend), [ALL, PRIVATE])) as running,
    ):
        await running.ask(GET)
        await running.ask(b"GET /private/x HTTP/1.1\r\nHost: a\r\n\r\n")
        await running.ask(b"GET / HTTP/1.1\r\n\r\n")
        client = await running.connect()
        await client.send(POST[:-1])
        client.writer.transport.abort()
        async with asyncio.timeout(2):
            while len(running.events) < 4:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)

        summary: list[Any] = [(e.status, e.error) for e in running.events]
        assert summary == [
            (200, "upstream_truncated"),
            (401, "unauthenticated"),
            (400, "bad_request"),
            (0, "client_closed"),
        ]


async def test_what_follows_a_complete_answer_is_given_to_nobody() -> None:
    async with (
        upstream(answering(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        for number in range(1, 4):
            await client.send(GET)
            assert (await client.receive()).content == b"ok"
            assert backend.connections == number
