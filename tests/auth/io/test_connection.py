"""The connection against bytes; no socket is needed for the order of things."""

import asyncio
from typing import cast

import hiredis
import pytest

from auth.io.connection import Connection, Reply, StoreLost


class Wire(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.aborted = False

    def write(self, data: object) -> None:
        self.written += cast("bytes", data)
        self.writes += 1

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
async def connection() -> Connection:
    made = Connection()
    made.connection_made(Wire())
    return made


async def test_replies_and_pushes_are_handed_out_in_their_order(connection: Connection) -> None:
    seen: list[object] = []
    connection.on_push = seen.append
    for _ in range(2):
        connection.send(("GET", "k"), seen.append)
    connection.data_received(b"$1\r\na\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n$1\r\nb\r\n")
    assert seen == [b"a", [b"invalidate", [b"k"]], b"b"]


async def test_a_reply_may_come_byte_by_byte(connection: Connection) -> None:
    seen: list[Reply] = []
    connection.send(("GET", "k"), seen.append)
    for byte in b"$3\r\nabc\r\n":
        connection.data_received(bytes((byte,)))
    assert seen == [b"abc"]


async def test_the_answer_to_subscribe_is_a_push_or_an_error(connection: Connection) -> None:
    seen: list[Reply] = []
    connection.send(("SUBSCRIBE", "c"), seen.append)
    connection.send(("PING",), seen.append)
    connection.data_received(b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n+PONG\r\n")
    assert seen == [[b"subscribe", b"c", 1], b"PONG"]
    connection.send(("SUBSCRIBE", "c"), seen.append)
    connection.data_received(b"-NOPERM no\r\n")
    assert isinstance(seen[2], hiredis.ReplyError)


async def test_an_abandoned_call_leaves_its_reply_to_nobody_else(connection: Connection) -> None:
    first, second = connection.call("GET", "a"), connection.call("GET", "b")
    first.cancel()
    connection.data_received(b"$1\r\na\r\n$1\r\nb\r\n")
    assert await second == b"b"


async def test_a_reply_of_another_type_closes_the_connection(connection: Connection) -> None:
    seen: list[Reply] = []
    connection.send(("PTTL", "k"), seen.append, int)
    connection.send(("PTTL", "k"), seen.append, int)
    connection.data_received(b"$1\r\na\r\n:5\r\n")
    assert connection.lost
    assert [type(reply) for reply in seen] == [StoreLost, StoreLost]


@pytest.mark.parametrize("data", [b"+PONG\r\n", b"?garbage\r\n"], ids=["unasked", "no RESP"])
async def test_what_nobody_asked_for_closes_the_connection(
    connection: Connection, data: bytes
) -> None:
    connection.data_received(data)
    assert connection.lost


async def test_an_error_is_a_reply_of_any_type(connection: Connection) -> None:
    seen: list[Reply] = []
    connection.send(("PTTL", "k"), seen.append, int)
    connection.data_received(b"-LOADING busy\r\n")
    assert isinstance(seen[0], hiredis.ReplyError)
    assert not connection.lost


async def test_a_lost_connection_tells_its_owner_first_and_everybody_once(
    connection: Connection,
) -> None:
    seen: list[object] = []
    connection.on_lost = lambda: seen.append("owner")
    connection.send(("GET", "k"), lambda reply: seen.append(type(reply)))
    connection.close()
    connection.connection_lost(None)
    assert seen == ["owner", StoreLost]
    with pytest.raises(StoreLost):
        connection.send(("GET", "k"), seen.append)


async def test_a_queue_without_end_is_refused(connection: Connection) -> None:
    def send_many() -> None:
        for _ in range(100_000):
            connection.send(("GET", "k"), lambda _: None)

    with pytest.raises(StoreLost):
        send_many()


async def test_what_is_sent_in_one_turn_is_written_in_one_piece_and_in_order() -> None:
    made, wire = Connection(), Wire()
    made.connection_made(wire)
    for key in ("a", "b"):
        made.send(("GET", key), lambda _: None)
    assert not wire.written
    await asyncio.sleep(0)
    assert wire.written == b"".join(
        b"*2\r\n$3\r\nGET\r\n$1\r\n%b\r\n" % key for key in (b"a", b"b")
    )
    assert wire.writes == 1
