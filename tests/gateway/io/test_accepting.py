import asyncio
import errno
import logging
import socket
import ssl
import struct
from pathlib import Path

import pytest

from config.model import Limits
from gateway.io import accepting
from gateway.io.tls import Certificates
from tests.gateway.io.harness import (
    ALL,
    Gateway,
    configuration,
    gateway,
    one_upstream,
    upstream,
)
from tests.gateway.io.test_tls import make_certificate
from tests.wire.test_bounds import GET, until

pytestmark = pytest.mark.wire


def connect(running: Gateway) -> socket.socket:
    """Connect without a turn of the loop."""
    client = socket.create_connection(("127.0.0.1", running.port))
    client.setblocking(False)
    return client


async def test_many_are_accepted_in_one_turn_of_the_loop() -> None:
    # uvloop's own servers accept one: a worker with long turns would let nobody in.
    async with gateway(configuration({}, [])) as running:
        clients = [connect(running) for _ in range(50)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert running.server.counters["connections"] == len(clients)
        for client in clients:
            client.close()


async def test_those_who_are_connected_get_their_turn() -> None:
    async with gateway(configuration({}, [])) as running:
        clients = [connect(running) for _ in range(accepting.ACCEPTED_A_TURN * 3)]
        (acceptor,) = running.server._acceptors
        acceptor._accept()
        assert len(acceptor._beginning) == accepting.ACCEPTED_A_TURN
        await until(lambda: running.server.counters["connections"] == len(clients))
        for client in clients:
            client.close()


async def test_who_is_gone_before_being_accepted_takes_nobodys_place() -> None:
    limits = Limits(connections=10, connections_per_address=2)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        for _ in range(3):
            client = connect(running)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # with a reset: the kernel no longer knows whose connection it was
            await asyncio.sleep(0.05)
        assert (await running.ask(GET)).status == 200


async def test_without_descriptors_it_waits_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.2)
    caplog.set_level(logging.CRITICAL, "gateway.io.accepting")
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        (acceptor,) = running.server._acceptors
        listener, tried = acceptor._listener, []

        class Poor:
            """A listener whose process has no descriptor left."""

            def accept(self) -> None:
                tried.append(1)
                raise OSError(errno.EMFILE, "Too many open files")

            def fileno(self) -> int:
                return listener.fileno()

        acceptor._listener = Poor()  # type: ignore[assignment]
        waiting = asyncio.create_task(running.ask(GET))
        await until(lambda: tried)
        await asyncio.sleep(0.05)
        assert len(tried) == 1  # and not once in each turn
        acceptor._listener = listener
        assert (await waiting).status == 200


async def test_a_handshake_counts_as_a_connection_until_it_fails(tmp_path: Path) -> None:
    limits = Limits(connections=1)
    tls = Certificates([make_certificate(tmp_path, "one", "a")]).context
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    async with gateway(configuration({}, [], limits=limits), tls=tls) as running:
        half = connect(running)
        await until(lambda: running.server._acceptors[0]._beginning)
        with pytest.raises(OSError):  # noqa: PT011 - reset: no handshake for who is too many
            await asyncio.open_connection(
                "127.0.0.1", running.port, ssl=anybody, server_hostname="a"
            )
        assert running.server.counters["connections_refused"] == 1
        await asyncio.get_running_loop().sock_sendall(half, b"this is no TLS at all\r\n\r\n")
        await until(lambda: not running.server._acceptors[0]._beginning)
        half.close()
        _, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=anybody, server_hostname="a"
        )
        writer.close()
        await writer.wait_closed()


async def test_a_failed_handshake_leaves_no_descriptor(tmp_path: Path) -> None:
    tls = Certificates([make_certificate(tmp_path, "one", "a")]).context
    async with gateway(configuration({}, []), tls=tls) as running:
        before = set(Path("/proc/self/fd").iterdir())
        for _ in range(20):
            client = connect(running)
            await asyncio.get_running_loop().sock_sendall(client, b"GET / HTTP/1.1\r\n\r\n")
            client.close()
        await until(lambda: not running.server._acceptors[0]._beginning)
        await asyncio.sleep(0.05)
        assert len(set(Path("/proc/self/fd").iterdir()) - before) <= 1  # the one that lists them
        assert running.server._serving._taken == 0
