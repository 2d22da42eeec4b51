import asyncio
import inspect
import socket
from importlib.metadata import version

import pytest
from aiohttp import web_protocol

from config.model import Limits
from gateway.io import connection
from tests.gateway.io.harness import (
    ALL,
    OK,
    PRIVATE,
    RawClient,
    Upstreams,
    answering,
    configuration,
    gateway,
    one_upstream,
    upstream,
)

pytestmark = pytest.mark.wire

GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"


async def echo(
    backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer with the target and whatever content came."""
    while True:
        head = await backend.read_head(reader)
        content = b""
        fields = head.lower()
        if b"transfer-encoding: chunked" in fields:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                content += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        elif b"content-length: " in fields:
            content = await reader.readexactly(
                int(fields.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            )
        body = head.split(b" ")[1] + content
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def test_aiohttp_is_the_version_this_file_was_written_against() -> None:
    # With another version, read web_protocol.py and base_protocol.py anew, then change this.
    assert version("aiohttp") == connection.AIOHTTP_VERSION


@pytest.mark.parametrize(
    ("name", "promise"),
    [
        ("connection_made", "self._manager.connection_made(self, real_transport)"),
        ("connection_made", "task = loop.create_task(self.start())"),
        ("connection_lost", "self._task_handler is not None"),
        ("connection_lost", "self._current_request._cancel(exc)"),
        ("data_received", "self._messages.append((msg, payload))"),
        ("start", "self._keepalive = bool(resp.keep_alive)"),
        ("start", "await payload.readany()"),
        ("eof_received", "pass"),
    ],
)
def test_what_is_relied_on_in_aiohttp_is_still_there(name: str, promise: str) -> None:
    assert promise in inspect.getsource(getattr(web_protocol.RequestHandler, name))


async def test_many_requests_share_one_connection_on_both_sides() -> None:
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        for number in range(5):
            await client.send(GET % b"%d" % number)
            assert (await client.receive()).content == b"/%d" % number

        assert backend.connections == 1
        await client.close()


async def test_a_connection_has_no_task_before_something_has_to_wait() -> None:
    def tasks() -> int:
        names = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
        return sum(name == "RequestHandler.start" for name in names)

    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET % b"1")  # has to wait: for the first connection to the upstream
        await client.receive()
        assert tasks() == 1
        for _ in range(2):
            other = await running.connect()
            await other.send(GET % b"2")
            assert (await other.receive()).content == b"/2"
        assert tasks() == 1


async def test_accepted_connections_have_the_tcp_options_that_aiohttp_would_set() -> None:
    async with gateway(configuration({}, [])) as running:
        client = await running.connect()
        await client.send(GET % b"1")
        await client.receive()
        [connection] = running.server._serving.connections
        assert connection.transport is not None
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL, PRIVATE])) as running,
    ):
        client = await running.connect()
        post = b"POST /posted HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        chunked = (
            b"POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
        )
        parts = [GET % b"1", post, GET % b"private/x", chunked, GET % b"2", post, GET % b"3"]
        await client.send(b"".join(parts))
        answers = [await client.receive() for _ in parts]

        assert [answer.status for answer in answers] == [200, 200, 401, 200, 200, 200, 200]
        contents = [answer.content for answer in answers if answer.status == 200]
        assert contents == [b"/1", b"/postedabc", b"/chunkedabcd", b"/2", b"/postedabc", b"/3"]
        await client.close()


async def test_a_client_that_pipelines_without_reading_is_not_buffered_for_ever() -> None:
    async with (
        upstream(
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50000)
        ) as back,
        gateway(configuration(one_upstream(back), [ALL])) as running,
    ):
        client = await running.connect()
        transport = client.transport
        transport.pause_reading()
        flood = GET % b"x" * 50
        sent = 0
        while transport.get_write_buffer_size() < 4_000_000 and sent < 4000:
            client.writer.write(flood)
            sent += 50
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)

        assert len(back.requests) < sent / 2
        (held,) = running.server._serving.connections
        assert len(held._pending) <= connection.PENDING_LIMIT + 256 * 1024
        assert held.transport is not None
        assert held.transport.get_write_buffer_size() < 512 * 1024
        transport.abort()


async def test_what_comes_behind_a_request_under_way_waits_within_bounds() -> None:
    async def never(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        await reader.read()

    async with (
        upstream(never) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        client.writer.write(GET % b"first" + GET % b"behind" * 1_000_000)
        await asyncio.sleep(0.3)
        (held,) = running.server._serving.connections

        assert len(backend.requests) == 1
        assert len(held._pending) <= connection.PENDING_LIMIT + 256 * 1024
        assert client.transport.get_write_buffer_size() > 1_000_000
        client.transport.abort()


async def test_a_head_that_comes_byte_by_byte_is_read() -> None:
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        for byte in GET % b"slow":
            await client.send(bytes([byte]))
            await asyncio.sleep(0)

        assert (await client.receive()).content == b"/slow"
        await client.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
    ],
    ids=[
        "no-host",
        "bare-lf",
        "http09",
        "tls-hello",
        "http2",
        "connect",
        "uri",
        "head",
        "expect",
        "body",
    ],
)
async def test_a_refusal_closes_and_reaches_no_upstream(request_: bytes, status: int) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(request_)
        answer = await client.receive()

        assert answer.status == status
        assert answer.fields["connection"] == "close"
        assert answer.fields["x-doorward-error"] == "bad_request"
        assert await client.at_end()
        await client.close()
        assert backend.connections == 0
        assert running.events[-1].status == status


async def test_nothing_after_a_refusal_is_answered() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(b"GET / HTTP/1.1\r\n\r\n" + GET % b"smuggled")
        await client.receive()
        assert await client.at_end()
        client.writer.write(GET % b"smuggled")
        await asyncio.sleep(0.1)

        assert backend.connections == 0
        assert len(running.events) == 1


@pytest.mark.parametrize("begun", [b"", b"GET / HT"], ids=["nothing", "part"])
async def test_a_head_that_does_not_come_in_time_ends_the_connection(begun: bytes) -> None:
    limits = Limits(head_timeout=0.1)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        client = await running.connect()
        await client.send(begun)
        if begun:
            assert (await client.receive()).status == 408

        assert await client.at_end(2)


async def test_a_head_that_trickles_gets_no_more_time_than_one_that_stops() -> None:
    limits = Limits(head_timeout=0.2)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        client = await running.connect()
        trickle = asyncio.create_task(_trickle(client, b"GET /" + b"x" * 200))
        began = asyncio.get_running_loop().time()
        assert (await client.receive()).status == 408
        assert asyncio.get_running_loop().time() - began < 1.5  # and not after all of it
        trickle.cancel()
        await asyncio.wait([trickle])


async def _trickle(client: RawClient, data: bytes) -> None:
    for at in range(len(data)):
        client.writer.write(data[at : at + 1])
        await asyncio.sleep(0.02)


async def test_an_idle_connection_is_closed_after_its_time_but_not_before() -> None:
    limits = Limits(idle_timeout=0.3)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        client = await running.connect()
        await client.send(GET % b"")
        await client.receive()

        assert not await client.at_end(0.15)
        assert await client.at_end(2)


async def test_a_connection_beyond_the_limit_is_turned_away_politely() -> None:
    limits = Limits(connections=2)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        first = [await running.connect() for _ in range(2)]
        for client in first:
            await client.send(GET % b"")
            assert (await client.receive()).status == 200
        extra = await running.connect()
        answer = await extra.receive()

        assert answer.status == 503
        assert "retry-after" in answer.fields
        assert await extra.at_end()
        await extra.close()
        await first[0].send(GET % b"")
        assert (await first[0].receive()).status == 200
        await first[0].close()
        await first[1].close()


async def test_content_passes_both_ways_whatever_its_framing() -> None:
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        content = bytes(range(256)) * 4000
        sized = b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content)
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(piece), piece)
            for piece in (content[at : at + 33_333] for at in range(0, len(content), 33_333))
        )
        chunked = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await running.ask(sized + content)).content == b"/s" + content
        assert (await running.ask(chunked + chunks + b"0\r\n\r\n")).content == b"/c" + content
        assert [event.bytes_in for event in running.events] == [len(content)] * 2


async def test_chunk_extensions_and_trailers_end_here() -> None:
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        answer = await running.ask(
            b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;ext=1\r\nabc\r\n0\r\nX-Auth-Subject: admin\r\n\r\n"
        )

        assert answer.content == b"/cabc"
        assert b"ext" not in backend.received
        assert b"admin" not in backend.received


async def test_content_that_turns_out_malformed_aborts_the_upstream_and_is_refused() -> None:
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(
            b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        while not backend.requests:
            await asyncio.sleep(0.01)
        await client.send(b"zz\r\n")

        assert (await client.receive()).status == 400
        assert await client.at_end()
        await asyncio.wait_for(backend.lost.wait(), 2)
        assert b"\r\n0\r\n" not in backend.received


@pytest.mark.parametrize("signed_in", [True, False])
async def test_a_client_is_told_to_continue_only_after_the_decision(*, signed_in: bool) -> None:
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL, PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1") if signed_in else "nobody-knows-this-one-000"
        client = await running.connect()
        await client.send(
            b"POST /private/x HTTP/1.1\r\nHost: a\r\nCookie: doorward=%b\r\n"
            b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n" % cookie.encode()
        )
        first = await client.receive()
        if not signed_in:
            assert first.status == 401
            assert await client.at_end()
            assert backend.connections == 0
            return
        assert first.status == 100
        await client.send(b"abc")
        assert (await client.receive()).content == b"/private/xabc"
        assert b"xpect" not in backend.received
        await client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 10\r\n\r\n",
    ],
    ids=["204", "304"],
)
async def test_an_answer_without_content_leaves_the_connection_usable(answer: bytes) -> None:
    async with (
        upstream(answering(answer)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        for _ in range(3):
            await client.send(GET % b"")
            assert (await client.receive()).status in (204, 304)
        assert backend.connections == 1
        await client.close()


async def test_head_gets_the_length_and_no_content() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    async with (
        upstream(answering(head)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        for _ in range(2):
            await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = await client.receive(head_only=True)
            assert answer.fields["content-length"] == "5"
        assert backend.connections == 1
        await client.close()


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
async def test_a_client_of_http_1_0_gets_no_chunks_and_a_closed_connection(answer: bytes) -> None:
    async with (
        upstream(answering(answer)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        message = await client.receive()

        assert message.content == b"ok"
        assert "transfer-encoding" not in message.fields
        assert message.fields["connection"] == "close"
        assert await client.at_end()


async def test_a_client_that_asks_to_close_is_closed_after_its_answer() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET % b"more")
        assert (await client.receive()).fields["connection"] == "close"
        assert await client.at_end()
        assert len(backend.requests) == 1


async def test_a_client_that_closed_its_sending_side_still_gets_its_answers() -> None:
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET % b"1" + GET % b"2")
        client.writer.write_eof()

        assert (await client.receive()).content == b"/1"
        assert (await client.receive()).content == b"/2"
        assert await client.at_end(0.5)


async def test_content_that_trickles_ends_in_408_and_an_aborted_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.io.server.CONTENT_SECONDS", 0.2)
    async with (
        upstream(echo) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        trickle = asyncio.create_task(_trickle(client, b"x" * 999))

        assert (await client.receive()).status == 408
        assert not trickle.done(), "bytes that come are no progress while they are so few"
        trickle.cancel()
        await asyncio.wait([trickle])
        await asyncio.wait_for(backend.lost.wait(), 2)
        await client.close()


async def test_a_refused_request_with_content_gets_its_answer_before_the_end() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL, PRIVATE])) as running,
    ):
        client = await running.connect()
        await client.send(
            b"POST /private/x HTTP/1.1\r\nHost: a\r\nContent-Length: 15000000\r\n\r\n"
        )
        client.writer.write(b"x" * 1_000_000)

        answer = await client.receive()
        assert answer.status == 401
        assert answer.complete
        assert backend.connections == 0
        client.writer.transport.abort()
