"""What one client, or one upstream, may cost: limits, and that others do not notice."""

import asyncio
import errno
import gzip
import socket
import ssl
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest

from config.model import Limits, Upstream, UpstreamLimits
from gateway.io import server
from gateway.io.serving import TURNED_AWAY_AT_ONCE
from gateway.io.tls import Certificates
from gateway.shedding import MOST
from tests.gateway.io.harness import (
    ALL,
    OK,
    Gateway,
    RawClient,
    Upstreams,
    configuration,
    endpoint,
    gateway,
    one_upstream,
    upstream,
)
from tests.gateway.io.test_tls import make_certificate

pytestmark = pytest.mark.wire

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
ASTERISK = b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"


class Holding:
    """Answers nobody before it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(
        self, backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            await backend.read_head(reader)
            await self.go.wait()
            writer.write(OK)


def limited(backend: Upstreams, limits: UpstreamLimits) -> dict[str, Upstream]:
    return one_upstream(backend, limits=limits)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def waiting_clients(running: Gateway, count: int) -> list[RawClient]:
    clients = [await running.connect() for _ in range(count)]
    for client in clients:
        await client.send(GET)
    return clients


# Connections ------------------------------------------------------------------------------------


async def test_one_address_gets_no_more_connections_than_its_share() -> None:
    limits = Limits(connections=10, connections_per_address=2)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        first, second = await running.connect(), await running.connect()
        await first.send(GET)
        assert (await first.receive()).status == 200
        third = await running.connect()
        answer = await third.receive()
        assert answer.status == 503
        assert answer.fields["x-doorward-error"] == "overloaded"
        assert answer.fields["retry-after"] == "1"
        assert await third.at_end()

        # Another address is not concerned, nor is this one when it has closed a connection.
        other = socket.create_connection(
            ("127.0.0.1", running.port), source_address=("127.0.0.2", 0)
        )
        elsewhere = RawClient(*await asyncio.open_connection(sock=other))
        await elsewhere.send(GET)
        assert (await elsewhere.receive()).status == 200
        await elsewhere.close()
        await second.close()
        await third.close()
        await until(lambda: running.server.counters["connections"] == 1)
        assert (await running.ask(GET)).status == 200


async def test_a_trusted_proxy_may_have_all_connections() -> None:
    limits = Limits(connections_per_address=1)
    settings = {"limits": limits, "trusted_proxies": (ip_network("127.0.0.0/8"),)}
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], **settings)) as running,  # type: ignore[arg-type]
    ):
        clients = await waiting_clients(running, 4)
        assert [(await client.receive()).status for client in clients] == [200] * 4


async def all_that_comes(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_flood_of_connections_is_dropped_beyond_a_few_polite_answers() -> None:
    limits = Limits(connections=2)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        kept = await running.connect()
        other = await running.connect()
        ends = await asyncio.gather(
            *(all_that_comes(running.port) for _ in range(200)), return_exceptions=True
        )
        assert running.server.counters["connections"] == 2
        assert running.server.counters["connections_refused"] == 200
        for client in (kept, other):
            await client.send(GET)
            assert (await client.receive()).status == 200
        answered = [end for end in ends if isinstance(end, bytes) and end]
        assert 0 < len(answered) <= TURNED_AWAY_AT_ONCE + 20  # some end while others come
        assert all(end.startswith(b"HTTP/1.1 503 ") for end in answered)


# Requests ---------------------------------------------------------------------------------------


async def test_an_upstream_gets_no_more_requests_at_once_than_it_may() -> None:
    holding = Holding()
    async with upstream(holding) as backend:
        limits = UpstreamLimits(requests=2, queue=1, queue_timeout=5.0)
        async with gateway(configuration(limited(backend, limits), [ALL])) as running:
            taken = await waiting_clients(running, 2)
            await until(lambda: len(backend.requests) == 2)
            (queued,) = await waiting_clients(running, 1)
            await asyncio.sleep(0.05)
            refused = await running.ask(GET)
            assert refused.status == 503
            assert refused.fields["x-doorward-error"] == "overloaded"
            assert refused.fields["retry-after"] == "1"
            assert len(backend.requests) == 2

            holding.go.set()
            assert [(await client.receive()).status for client in (*taken, queued)] == [200] * 3
            assert (await running.ask(GET)).status == 200
            assert [event.upstream for event in running.events] == ["app"] * 5


async def test_who_waits_too_long_for_an_upstream_is_told_so() -> None:
    async with upstream(Holding()) as backend:
        limits = UpstreamLimits(requests=1, queue=5, queue_timeout=0.05)
        async with gateway(configuration(limited(backend, limits), [ALL])) as running:
            await waiting_clients(running, 1)
            await until(lambda: len(backend.requests) == 1)
            assert (await running.ask(GET)).status == 503


@pytest.mark.parametrize("content", [b"x\r\n", b"5\r\nhello0\r\n\r\n", b"FFFFFFFFFFFFFFFF\r\n"])
async def test_malformed_content_takes_no_place_for_ever(content: bytes) -> None:
    # It is refused as soon as it is there, which is before its request comes to its turn.
    head = b"POST /x HTTP/1.1\r\nHost: app.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with upstream() as backend:
        limits = UpstreamLimits(requests=1, queue=1, queue_timeout=0.05)
        async with gateway(configuration(limited(backend, limits), [ALL])) as running:
            for _ in range(2):
                assert (await running.ask(head + content)).status in {400, 413}
            assert (await running.ask(GET)).status == 200


async def test_places_are_given_back_however_an_exchange_ends() -> None:
    holding = Holding()
    async with upstream(holding) as backend:
        limits = UpstreamLimits(requests=1, queue=5, queue_timeout=5.0)
        async with gateway(configuration(limited(backend, limits), [ALL])) as running:
            (first,) = await waiting_clients(running, 1)
            await until(lambda: len(backend.requests) == 1)
            (leaving,) = await waiting_clients(running, 1)
            (staying,) = await waiting_clients(running, 1)
            await asyncio.sleep(0.05)
            await leaving.close()
            await first.close()
            holding.go.set()
            assert (await staying.receive()).status == 200
            assert (await running.ask(GET)).status == 200


async def test_what_cannot_be_connected_gives_its_place_back() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        upstreams = {
            "app": Upstream(
                "app", (endpoint(nobody.getsockname()[1]),), limits=UpstreamLimits(requests=1)
            )
        }
        async with gateway(configuration(upstreams, [ALL])) as running:
            assert [(await running.ask(GET)).status for _ in range(3)] == [502] * 3


async def test_an_upgraded_connection_takes_no_place() -> None:
    async def switch(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            head = await backend.read_head(reader)
            if b"Upgrade: websocket" not in head:
                writer.write(OK)
                continue
            writer.write(
                b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
            )
            await reader.read()

    async with upstream(switch) as backend:
        limits = UpstreamLimits(requests=1, queue=1, queue_timeout=0.05)
        async with gateway(configuration(limited(backend, limits), [ALL])) as running:
            client = await running.connect()
            await client.send(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert (await client.receive()).status == 101
            assert (await running.ask(GET)).status == 200
            await client.close()
            assert (await running.ask(GET)).status == 200


async def test_a_client_that_asks_on_and_takes_nothing_fills_no_memory() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", running.port))
        sent = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    await loop.sock_sendall(client, ASTERISK * 500)
                    sent += 500
        (connection,) = running.server._serving.connections
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 1024 * 1024
        assert len(connection._pending) < 512 * 1024
        asked = len(running.events)
        assert asked < sent  # it did not go on answering

        # What had been asked for comes all the same, once the client takes it.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        async with asyncio.timeout(20):
            while len(running.events) == asked:
                await loop.sock_recv(client, 1 << 20)
        client.close()


async def test_compressed_content_passes_both_ways_and_is_never_unpacked() -> None:
    bomb = gzip.compress(bytes(20_000_000))
    packed = b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(bomb), bomb)
    got = []

    async def take_and_give(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        got.append(await reader.readexactly(len(bomb)))
        writer.write(b"HTTP/1.1 200 OK\r\n" + packed)
        await reader.read()

    async with (
        upstream(take_and_give) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        answer = await running.ask(b"POST / HTTP/1.1\r\nHost: a\r\n" + packed)
        assert got == [bomb]
        assert answer.content == bomb
        assert answer.fields["content-encoding"] == "gzip"
        event = running.events[-1]
        assert event.bytes_in == event.bytes_out == len(bomb)


# Time -------------------------------------------------------------------------------------------


async def test_a_form_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONTENT_SECONDS", 0.2)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(
            b"POST /.doorward/login HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\nusername="
        )
        sending = asyncio.create_task(trickle(client, b"x", 0.02))
        answer = await client.receive()
        assert answer.status == 408
        assert await client.at_end()
        sending.cancel()
        assert running.login.asked == []
        assert running.events[-1].reason == "bad_request"


async def trickle(client: RawClient, byte: bytes, pause: float) -> None:
    with suppress(ConnectionError, asyncio.CancelledError):
        while True:
            await client.send(byte)
            await asyncio.sleep(pause)


async def pour(
    backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    await backend.read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    while True:
        writer.write(bytes(65536))
        await writer.drain()


@pytest.mark.parametrize(
    ("rate", "asked", "dropped"),
    [
        pytest.param(1, server.WRITE_STALL_BYTES, True, id="a byte at a time"),
        pytest.param(64 * 1024, server.WRITE_STALL_BYTES, False, id="slow"),
        # The kernel opens the window by so much at a time that only a higher bound shows it.
        pytest.param(64 * 1024, 1024**3, True, id="slower than asked"),
    ],
)
async def test_a_reader_of_single_bytes_is_dropped_and_a_slow_one_is_not(
    monkeypatch: pytest.MonkeyPatch, rate: int, asked: int, *, dropped: bool
) -> None:
    monkeypatch.setattr(server, "WRITE_STALL_SECONDS", 0.4)
    monkeypatch.setattr(server, "WRITE_STALL_BYTES", asked)
    async with (
        upstream(pour) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", running.port))
        await loop.sock_sendall(client, GET)
        await until(lambda: running.server.exchanges == 1)
        for _ in range(60):
            if not running.server.exchanges:
                break
            with suppress(ConnectionError):
                async with asyncio.timeout(1):
                    await loop.sock_recv(client, rate)
            await asyncio.sleep(0.02)
        assert (running.server.exchanges == 0) is dropped
        if dropped:  # with what the kernel held: the client cannot go on reading it
            await asyncio.sleep(0.05)
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        client.close()


async def test_a_client_that_takes_nothing_holds_little_in_the_kernel_too() -> None:
    async with (
        upstream(pour) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", running.port))
        await loop.sock_sendall(client, GET)
        held, seen = 0, -1
        while held != seen or not held:
            await asyncio.sleep(0.2)
            (connection,) = running.server._serving.connections
            assert connection.transport is not None
            held, seen = server._unacknowledged(connection.transport), held
        assert held < 1024 * 1024
        client.close()


# Overload ---------------------------------------------------------------------------------------


async def test_an_overloaded_worker_sheds_new_requests_and_ends_sessions_all_the_same() -> None:
    holding = Holding()
    async with (
        upstream(holding) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        (taken,) = await waiting_clients(running, 1)
        await until(lambda: len(backend.requests) == 1)
        running.server._serving.overload.shedder.share = 1.0
        shed = await running.ask(GET)
        assert shed.status == 503
        assert shed.fields["x-doorward-error"] == "overloaded"
        assert int(shed.fields["retry-after"]) > 0
        await until(lambda: running.events)
        assert running.events[-1].reason == "overloaded"
        assert (await running.ask(GET.replace(b"/ ", b"/.doorward/logout "))).status == 200
        holding.go.set()
        assert (await taken.receive()).status == 200  # what was taken is served


@pytest.mark.alone
async def test_a_loop_that_is_late_for_seconds_begins_to_shed_and_recovers() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        shedder = running.server._serving.overload.shedder
        for _ in range(40):
            shedder.beat(1.0)
        assert shedder.share == MOST
        await until(lambda: shedder.share == 0.0)  # the probe's own beats are in time
        assert (await running.ask(GET)).status == 200


# TLS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked_name", "host", "status"),
    [
        ("app.example.com", "app.example.com", 200),
        ("app.example.com", "APP.example.com.:443", 200),
        ("app.example.com", "other.example.com", 421),
        ("app.example.com", "127.0.0.1", 200),  # that is `public_url`
        (None, "other.example.com", 200),
    ],
)
async def test_a_host_that_the_tls_client_did_not_ask_for_is_misdirected(
    tmp_path: Path, asked_name: str | None, host: str, status: int
) -> None:
    certificate = make_certificate(tmp_path, "one", "app.example.com")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with (
        upstream() as backend,
        gateway(
            configuration(one_upstream(backend), [ALL]), tls=Certificates([certificate]).context
        ) as running,
    ):
        client = RawClient(
            *await asyncio.open_connection(
                "127.0.0.1", running.port, ssl=context, server_hostname=asked_name or ""
            )
        )
        await client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = await client.receive()
        assert answer.status == status
        assert len(backend.requests) == (status == 200)
        await client.close()
