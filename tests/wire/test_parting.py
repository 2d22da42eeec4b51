"""Whoever is refused gets the whole answer, although it goes on sending (RFC 9112 9.6)."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.model import Limits
from gateway.io import connection
from gateway.io.tls import Certificates
from tests.gateway.io.harness import (
    ALL,
    PRIVATE,
    Gateway,
    Message,
    configuration,
    gateway,
    one_upstream,
    upstream,
)
from tests.gateway.io.test_tls import make_certificate
from tests.wire.test_bounds import until

pytestmark = pytest.mark.wire

MORE = bytes(10_000_000)
SMALL = Limits(body=1_000_000)

TOO_LARGE = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"
MALFORMED = b"GET / HTTP/1.1\r\n\r\n"
LONG_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000
SIGNED_OUT = b"POST /private/x HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"
LAST_ONE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@contextmanager
def client_of(running: Gateway, *, secure: bool) -> Iterator[socket.socket]:
    """Connect as a plain program does, which sends all it has before it reads."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as plain:
        # Little room for the answer's reset to be overtaken by our reading.
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        if not secure:
            yield plain
            return
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        with anybody.wrap_socket(plain, server_hostname="a") as wrapped:
            yield wrapped


def converse(running: Gateway, request: bytes, *, secure: bool) -> Message:
    with client_of(running, secure=secure) as client:
        client.sendall(request)
        client.sendall(MORE)
        got = b""
        while piece := client.recv(65536):
            got += piece
    head, _, content = got.partition(b"\r\n\r\n")
    return Message(head, content, complete=True)


REFUSED = {
    "too large": (TOO_LARGE, 413),
    "malformed": (MALFORMED, 400),
    "long head": (LONG_HEAD, 431),
    "signed out": (SIGNED_OUT, 401),
    "connection: close": (LAST_ONE, 200),
}
PATIENCE = connection.GOODBYE_SECONDS
CASES = [
    *(pytest.param(*case, False, PATIENCE, id=name) for name, case in REFUSED.items()),
    pytest.param(TOO_LARGE, 413, True, PATIENCE, id="too large, tls"),
    # The client has not answered our closure alert when the transport goes away.
    pytest.param(TOO_LARGE, 413, True, 0.01, id="too large, tls, given up soon"),
    pytest.param(LAST_ONE, 200, True, 0.01, id="connection: close, tls, given up soon"),
]


@pytest.mark.parametrize(("request_", "status", "secure", "patience"), CASES)
async def test_who_sends_on_behind_the_last_request_gets_the_whole_answer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request_: bytes,
    status: int,
    *,
    secure: bool,
    patience: float,
) -> None:
    monkeypatch.setattr(connection, "GOODBYE_SECONDS", patience)
    tls = Certificates([make_certificate(tmp_path, "one", "a")]).context if secure else None
    async with (
        upstream() as backend,
        gateway(
            configuration(one_upstream(backend), [ALL, PRIVATE], limits=SMALL), tls=tls
        ) as running,
    ):
        answer = await asyncio.to_thread(converse, running, request_, secure=secure)
        assert answer.status == status
        assert answer.fields["connection"] == "close"
        assert len(answer.content) == int(answer.fields["content-length"])
        assert len(running.events) == 1  # and nothing of it was taken for a request
        await until(lambda: running.server.counters["connections"] == 0)
