import asyncio

import pytest

from auth.decision import Reason
from config.model import Upstream
from gateway.io.pool import EndpointPool, UpstreamPool
from gateway.io.upstream import UpstreamConnection
from gateway.response_reading import ResponseHead
from tests.gateway.io.harness import OK, Upstreams, answering, endpoint, upstream

pytestmark = pytest.mark.wire


class Told:
    """A `Requester` that remembers what it was told."""

    def __init__(self, *, method: str = "GET", sent: bool = True) -> None:
        self.method = method
        self.wants_upgrade = False
        self.request_sent = sent
        self.content = b""
        self.status = 0
        self.failure: Reason | None = None
        self.unanswered = False
        self.done = asyncio.Event()

    def answer_began(self, head: ResponseHead, content: bytes, *, complete: bool) -> None:
        self.status = head.status
        self.answer_continued(content, complete=complete)

    def answer_continued(self, content: bytes, *, complete: bool) -> None:
        self.content += content
        if complete:
            self.done.set()

    def upstream_switched(self, head: ResponseHead, data: bytes) -> None:
        raise AssertionError(head)

    def upstream_sent(self, data: bytes) -> None:
        raise AssertionError(data)

    def upstream_failed(self, reason: Reason, *, unanswered: bool) -> None:
        self.failure, self.unanswered = reason, unanswered
        self.done.set()

    def upstream_writable(self, *, writable: bool) -> None:
        pass


async def connected(backend: Upstreams) -> tuple[EndpointPool, UpstreamConnection]:
    (pool,) = UpstreamPool(Upstream("app", (endpoint(backend.port),))).endpoints
    return pool, await pool.connect()


async def asked(connection: UpstreamConnection, told: Told) -> Told:
    connection.send(told, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.wait_for(told.done.wait(), 2)
    return told


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\nX: y\r\n\r\n"
)


@pytest.mark.parametrize(
    ("answer", "method", "sent", "kept"),
    [
        (OK, "GET", True, True),
        (CHUNKED, "GET", True, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "GET", True, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "GET", True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD", True, True),
        (OK, "GET", False, False),
        (OK + b"x", "GET", True, False),
        (CHUNKED + b"x", "GET", True, False),
        (b"HTTP/1.1 204 No Content\r\n\r\nx", "GET", True, False),
        (OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), "GET", True, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "GET", True, False),
    ],
    ids=[
        "length", "chunked", "204", "304", "head", "request-unfinished", "surplus",
        "surplus-after-chunks", "content-of-204", "close", "http10",
    ],
)  # fmt: skip
async def test_only_a_clean_end_makes_a_connection_reusable(
    answer: bytes, method: str, *, sent: bool, kept: bool
) -> None:
    async with upstream(answering(answer)) as backend:
        pool, connection = await connected(backend)
        told = await asked(connection, Told(method=method, sent=sent))

        assert told.failure is None
        assert (pool.take_idle(repeatable=True) is connection) is kept
        connection.abort()


@pytest.mark.parametrize("late", [b"x", OK, b"\r\n"])
async def test_a_byte_while_idle_ends_the_connection(late: bytes) -> None:
    go_on = asyncio.Event()

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(OK)
        await go_on.wait()
        writer.write(late)
        await reader.read()

    async with upstream(behave) as backend:
        pool, connection = await connected(backend)
        await asked(connection, Told())
        go_on.set()
        await asyncio.wait_for(backend.lost.wait(), 2)

        assert pool.take_idle(repeatable=True) is None
        assert not pool.open


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize("answer", [OK, CHUNKED], ids=["length", "chunked"])
async def test_an_answer_is_the_same_however_it_is_cut(answer: bytes, size: int) -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        for at in range(0, len(answer), size):
            writer.write(answer[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    async with upstream(behave) as backend:
        _, connection = await connected(backend)
        told = await asked(connection, Told())

        assert (told.status, told.content) == (200, b"ok")
        connection.abort()


async def test_an_answer_without_length_ends_with_the_connection() -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    async with upstream(behave) as backend:
        pool, connection = await connected(backend)
        told = await asked(connection, Told())

        assert told.content == b"until the end"
        assert told.failure is None
        assert pool.take_idle(repeatable=True) is None


async def test_an_answer_that_never_began_may_be_told_from_one_that_did() -> None:
    async def nothing(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)

    async with upstream(nothing) as backend:
        _, connection = await connected(backend)
        told = await asked(connection, Told())
        assert (told.failure, told.unanswered) == (Reason.UPSTREAM_UNREACHABLE, True)


async def test_a_head_without_end_is_refused() -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(3000):
            writer.write(b"X: %b\r\n" % (b"x" * 100))
        await writer.drain()
        await reader.read()

    async with upstream(behave) as backend:
        _, connection = await connected(backend)
        told = await asked(connection, Told())

        assert told.failure is Reason.UPSTREAM_PROTOCOL
