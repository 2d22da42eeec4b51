import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from auth.session import digest
from config.model import Upstream
from gateway.io.relay import CLOSING_SECONDS, FrameBoundaries
from tests.gateway.io.harness import (
    ALL,
    OK,
    PRIVATE,
    Gateway,
    Upstreams,
    answering,
    configuration,
    endpoint,
    gateway,
    one_upstream,
    upstream,
)

HANDSHAKE = (
    b"GET /%b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
)


def handshake(path: bytes = b"ws") -> bytes:
    return HANDSHAKE % (path, base64.b64encode(os.urandom(16)))


def frame(payload: bytes, opcode: int = 2, *, masked: bool = False) -> bytes:
    size = len(payload)
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes([0x80 | opcode, mask | size])
    elif size < 65536:
        head = bytes([0x80 | opcode, mask | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, mask | 127]) + size.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + payload


STREAM = b"".join(
    frame(b"x" * size, masked=masked)
    for size in (0, 1, 125, 126, 300, 65535, 65536)
    for masked in (False, True)
)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 4096, 10**6])
def test_frame_boundaries_are_the_same_however_the_stream_is_cut(step: int) -> None:
    boundaries, at = {0}, 0
    for size in (0, 1, 125, 126, 300, 65535, 65536):
        for masked in (False, True):
            at += len(frame(b"x" * size, masked=masked))
            boundaries.add(at)
    frames = FrameBoundaries()
    for begin in range(0, len(STREAM), step):
        frames.feed(STREAM[begin : begin + step])
        end = min(begin + step, len(STREAM))
        assert frames.between_frames == (end in boundaries)


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def echoing(*routes: object) -> AsyncIterator[Gateway]:
    async with serve(echo, "127.0.0.1", 0, max_size=2**21, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        upstreams = {"app": Upstream("app", (endpoint(port),))}
        async with gateway(configuration(upstreams, [ALL, PRIVATE])) as running:
            yield running


@pytest.mark.wire
async def test_messages_of_all_sizes_pass_both_ways() -> None:
    async with (
        echoing() as running,
        connect(f"ws://127.0.0.1:{running.port}/ws", max_size=2**21, compression=None) as client,
    ):
        for message in ("hello", "", b"\x00\xff", "x" * 70_000, os.urandom(2**20)):
            await client.send(message)
            assert await client.recv() == message
        await client.ping()
        assert running.server.exchanges == 1
        await client.close()
        async with asyncio.timeout(2):
            while running.server.exchanges:
                await asyncio.sleep(0.01)
        assert running.events[-1].status == 101
        assert running.events[-1].error == ""
        assert running.events[-1].bytes_in > 2**20


@pytest.mark.wire
async def test_an_anonymous_handshake_on_a_protected_route_reaches_no_upstream() -> None:
    async with upstream() as backend:
        async with gateway(configuration(one_upstream(backend), [PRIVATE])) as running:
            answer = await running.ask(handshake(b"private/ws"))

        assert answer.status == 401
        assert backend.connections == 0


@pytest.mark.wire
async def test_an_answer_other_than_101_is_no_tunnel() -> None:
    async with (
        upstream(answering(OK)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        await client.send(handshake() + smuggled)
        answer = await client.receive()

        assert answer.status == 200
        assert answer.fields["connection"] == "close"
        assert await client.at_end()
        assert len(backend.requests) == 1


@pytest.mark.wire
async def test_a_switch_that_nobody_asked_for_is_502() -> None:
    switch = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    async with (
        upstream(answering(switch)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        answer = await running.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

        assert answer.status == 502


def switching(then: bytes = b"") -> object:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: x\r\n\r\n" + then
        )
        while data := await reader.read(65536):
            backend.received += data

    return behave


@pytest.mark.wire
async def test_early_data_waits_for_the_switch_and_then_arrives_whole() -> None:
    async with (
        upstream(switching(b"from upstream")) as backend,  # type: ignore[arg-type]
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(handshake() + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.receive()).status == 101
        assert await client.reader.readexactly(13) == b"from upstream"
        await client.send(b"more")
        async with asyncio.timeout(2):
            while not backend.received.endswith(b"more"):
                await asyncio.sleep(0.01)

        assert b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nmore" in backend.received
        assert len(backend.requests) == 1


@pytest.mark.wire
async def test_a_websocket_of_an_ended_session_gets_a_close_frame_and_is_gone() -> None:
    async with echoing() as running:
        cookie = running.sessions.sign_in("u1")
        other = running.sessions.sign_in("u2")
        url = f"ws://127.0.0.1:{running.port}/private/ws"
        async with (
            connect(url, additional_headers={"Cookie": f"doorward={cookie}"}) as ended,
            connect(url, additional_headers={"Cookie": f"doorward={other}"}) as alive,
        ):
            await ended.send("a")
            await ended.recv()

            assert running.server.close_sessions({digest(cookie)}) == 1
            with pytest.raises(ConnectionClosed) as closing:
                await asyncio.wait_for(ended.recv(), 2)
            assert closing.value.rcvd is not None
            assert closing.value.rcvd.code == 1008
            await alive.send("still here")
            assert await alive.recv() == "still here"
        assert any(event.error == "session_ended" for event in running.events)


@pytest.mark.wire
async def test_a_client_that_answers_the_close_frame_is_not_kept_waiting() -> None:
    """RFC 6455 7.1.1: the server closes first; `recv` of a client returns only then."""
    async with echoing() as running:
        cookie = running.sessions.sign_in("u1")
        url = f"ws://127.0.0.1:{running.port}/private/ws"
        async with connect(url, additional_headers={"Cookie": f"doorward={cookie}"}) as ended:
            running.server.close_sessions({digest(cookie)})
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(ended.recv(), CLOSING_SECONDS / 2)


@pytest.mark.wire
async def test_in_the_middle_of_a_frame_an_ended_session_is_aborted() -> None:
    begun = frame(b"x" * 300)[:100]
    async with (
        upstream(switching(begun)) as backend,  # type: ignore[arg-type]
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        client = await running.connect()
        await client.send(
            handshake(b"private/ws").replace(
                b"\r\n\r\n", b"\r\nCookie: doorward=%b\r\n\r\n" % cookie.encode()
            )
        )
        await client.receive()
        assert await client.reader.readexactly(len(begun)) == begun
        running.server.close_sessions(None)

        assert await client.at_end(2)  # and not one byte that a reader would take for content
        await asyncio.wait_for(backend.lost.wait(), 2)


@pytest.mark.wire
async def test_after_the_end_of_its_session_nothing_of_a_websocket_gets_through() -> None:
    async with (
        upstream(switching()) as backend,  # type: ignore[arg-type]
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        client = await running.connect()
        await client.send(
            handshake(b"private/ws").replace(
                b"\r\n\r\n", b"\r\nCookie: doorward=%b\r\n\r\n" % cookie.encode()
            )
        )
        await client.receive()
        running.server.close_sessions({digest(cookie)})
        await client.send(b"too late")

        assert await client.reader.readexactly(4) == b"\x88\x02\x03\xf0"
        await asyncio.wait_for(backend.lost.wait(), 2)
        assert b"too late" not in backend.received


@pytest.mark.wire
async def test_draining_says_going_away_to_websockets() -> None:
    async with (
        echoing() as running,
        connect(f"ws://127.0.0.1:{running.port}/ws") as client,
    ):
        await client.send("a")
        await client.recv()
        draining = asyncio.create_task(running.server.drain(5))
        with pytest.raises(ConnectionClosed) as closing:
            await asyncio.wait_for(client.recv(), 2)

        assert closing.value.rcvd is not None
        assert closing.value.rcvd.code == 1001
        await draining


@pytest.mark.wire
async def test_a_slow_websocket_client_holds_its_upstream() -> None:
    sent = 0

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        await backend.read_head(reader)
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        message = frame(b"x" * 65536)
        while sent < 200 * 2**20:
            writer.write(message)
            sent += len(message)
            await writer.drain()

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        client.transport.pause_reading()
        await client.send(handshake())
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.1)

        (connection,) = running.server._serving.connections
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 512 * 1024
        assert sent < 32 * 2**20
        client.writer.transport.abort()
        await asyncio.wait_for(backend.lost.wait(), 3)
