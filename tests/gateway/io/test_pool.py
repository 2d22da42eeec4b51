import asyncio
import socket
from pathlib import Path

import pytest

from auth.decision import Reason
from config.model import Endpoint, Timeouts, Upstream
from gateway.io import pool as pools
from gateway.io.listening import KEEPALIVE
from gateway.io.pool import ConnectFailed, UpstreamPool
from tests.gateway.io.harness import (
    ALL,
    OK,
    Upstreams,
    answering,
    configuration,
    endpoint,
    gateway,
    one_upstream,
    upstream,
)

pytestmark = pytest.mark.wire

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSED_PORT = 1
"""Nothing listens on tcpmux."""


def of(*endpoints: Endpoint, **more: object) -> UpstreamPool:
    return UpstreamPool(Upstream("app", endpoints, **more))  # type: ignore[arg-type]


async def test_round_robin_takes_turns() -> None:
    pool = of(endpoint(1), endpoint(2), endpoint(3), balance="round_robin")
    ports = [pool.choose().endpoint.port for _ in range(6)]

    assert sorted(ports[:3]) == [1, 2, 3]
    assert ports[:3] == ports[3:]


async def test_least_requests_avoids_the_busy_endpoint() -> None:
    pool = of(endpoint(1), endpoint(2))
    pool.endpoints[0].in_flight = 5

    assert {pool.choose().endpoint.port for _ in range(5)} == {2}


async def test_equals_take_turns_under_least_requests() -> None:
    pool = of(endpoint(1), endpoint(2))

    assert {pool.choose().endpoint.port for _ in range(4)} == {1, 2}


async def test_an_unhealthy_endpoint_gets_nothing_while_another_one_is_healthy() -> None:
    pool = of(endpoint(1), endpoint(2))
    pool.endpoints[0].healthy = False
    assert {pool.choose().endpoint.port for _ in range(5)} == {2}

    pool.endpoints[1].healthy = False  # the last one is never left out: better a try than a refusal
    assert {pool.choose().endpoint.port for _ in range(5)} == {1, 2}


async def test_an_endpoint_that_keeps_failing_is_left_out_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "EJECT_SECONDS", 0.1)
    async with upstream() as backend:
        pool = of(endpoint(CLOSED_PORT), endpoint(backend.port))
        for _ in range(pools.EJECT_AFTER):
            with pytest.raises(ConnectFailed) as failed:
                await pool.endpoints[0].connect()
            assert failed.value.reason is Reason.UPSTREAM_UNREACHABLE
        assert {pool.choose().endpoint.port for _ in range(5)} == {backend.port}

        await asyncio.sleep(0.12)
        assert {pool.choose().endpoint.port for _ in range(5)} == {backend.port, CLOSED_PORT}


async def test_a_request_goes_to_the_next_endpoint_when_one_refuses() -> None:
    async with upstream() as backend:
        upstreams = {"app": Upstream("app", (endpoint(CLOSED_PORT), endpoint(backend.port)))}
        async with gateway(configuration(upstreams, [ALL])) as running:
            for _ in range(4):
                assert (await running.ask(GET)).status == 200
            post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
            assert (await running.ask(post)).status == 200  # nothing of it had been sent


async def test_requests_without_a_kept_connection_take_turns_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "IDLE_LIMIT", 0)
    async with upstream() as one, upstream() as two:
        upstreams = {"app": Upstream("app", (endpoint(one.port), endpoint(two.port)))}
        async with gateway(configuration(upstreams, [ALL])) as running:
            for _ in range(6):
                assert (await running.ask(GET)).status == 200
            assert (len(one.requests), len(two.requests)) == (3, 3)


async def test_a_connect_that_takes_too_long_is_a_timeout() -> None:
    # A listener whose queue is full drops what else comes.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        upstreams = {"app": Upstream("app", (endpoint(port),), timeouts=Timeouts(connect=0.2))}
        async with gateway(configuration(upstreams, [ALL])) as running:
            answer = await running.ask(GET)
            assert answer.status == 504
            assert answer.fields["x-doorward-error"] == "upstream_timeout"
        for filler in fillers:
            filler.close()


async def test_an_upstream_that_vanished_without_a_word_is_noticed() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        assert (await running.ask(GET)).status == 200
        (endpoint_pool,) = running.server._generation.pools["app"].endpoints
        (connection,) = endpoint_pool._idle
        assert connection.transport is not None
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for option, value in KEEPALIVE:
            assert sock.getsockopt(socket.IPPROTO_TCP, option) == value


async def test_a_unix_socket_is_an_upstream(tmp_path: Path) -> None:
    backend = Upstreams(answering(OK))
    path = str(tmp_path / "app.sock")
    server = await asyncio.start_unix_server(backend, path)
    upstreams = {"app": Upstream("app", (Endpoint("unix", path),))}
    async with gateway(configuration(upstreams, [ALL])) as running:
        for _ in range(2):
            assert (await running.ask(GET)).content == b"ok"
    server.close()
    assert backend.connections == 1


async def test_a_base_path_stands_before_what_is_sent() -> None:
    async with upstream() as backend:
        where = Endpoint("http", "127.0.0.1", backend.port, base_path="/base")
        async with gateway(configuration({"app": Upstream("app", (where,))}, [ALL])) as running:
            await running.ask(b"GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n")

        assert backend.requests[0].startswith(b"GET /base/x?y HTTP/1.1\r\n")


async def test_any_end_of_file_while_idle_takes_the_connection_out() -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(OK)

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        for number in range(1, 4):
            post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
            assert (await running.ask(post)).status == 200
            await asyncio.sleep(0.02)
            assert backend.connections == number


async def test_an_old_connection_carries_nothing_that_must_not_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "FRESH_SECONDS", -1.0)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        await running.ask(GET)
        await running.ask(GET)
        assert backend.connections == 1
        await running.ask(b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert backend.connections == 2


async def test_idle_connections_grow_old_and_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.1)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        await running.ask(GET)
        await asyncio.wait_for(backend.lost.wait(), 2)

        assert running.server.counters["upstream_connections"] == 0


async def test_no_more_connections_idle_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "IDLE_LIMIT", 2)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        await asyncio.gather(*(running.ask(GET) for _ in range(6)))
        await asyncio.sleep(0.05)

        assert running.server.counters["upstream_connections"] <= 2
