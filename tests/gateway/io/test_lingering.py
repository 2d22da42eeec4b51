import asyncio
import socket
from collections.abc import Iterator

import pytest

from gateway.io import lingering
from gateway.io.lingering import Lingering, duplicate

PIECE = bytes(65536)


@pytest.fixture
def pairs() -> Iterator["Pairs"]:
    made = Pairs()
    yield made
    made.close()


class Pairs:
    """Connections over TCP: our end, and the client's."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._listener]

    def make(self) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(self._listener.getsockname())
        ours, _ = self._listener.accept()
        for end in (ours, client):
            end.setblocking(False)
        self._ends += (ours, client)
        return ours, client

    def close(self) -> None:
        for end in self._ends:
            end.close()


async def is_closed(client: socket.socket, data: bytes = b"x") -> bool:
    """Whether *data* that *client* sends is answered with a reset by now."""
    loop = asyncio.get_running_loop()
    try:
        for _ in range(3):
            await loop.sock_sendall(client, data)
            await asyncio.sleep(0.02)
    except OSError:
        return True
    return False


async def until_closed(client: socket.socket, data: bytes = b"x") -> None:
    async with asyncio.timeout(10):
        while not await is_closed(client, data):
            pass


async def test_what_is_sent_behind_our_end_is_taken_and_thrown_away(pairs: Pairs) -> None:
    ours, client = pairs.make()
    held = Lingering(10)
    ours.send(b"the answer")
    held.take(ours)
    loop = asyncio.get_running_loop()
    for _ in range(200):
        await loop.sock_sendall(client, PIECE)
    assert await loop.sock_recv(client, 100) == b"the answer"
    assert await loop.sock_recv(client, 100) == b""
    client.close()
    await asyncio.wait_for(held.end(), 5)


async def test_more_than_enough_is_not_taken(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "LINGER_BYTES", 1_000_000)
    ours, client = pairs.make()
    Lingering(10).take(ours)
    await until_closed(client, PIECE)


async def test_who_is_silent_for_too_long_is_closed_and_who_sends_is_not(pairs: Pairs) -> None:
    loop = asyncio.get_running_loop()
    held = Lingering(10)
    silent, talking = pairs.make(), pairs.make()
    held.take(silent[0])
    held.take(talking[0])
    await asyncio.sleep(0.05)
    await loop.sock_sendall(talking[1], b"x")
    await asyncio.sleep(0.05)
    held.sweep(loop.time() + lingering.SILENT_SECONDS - 0.06)
    assert await is_closed(silent[1])
    assert not await is_closed(talking[1])
    held.close()


async def test_who_sends_on_and_on_is_closed_in_the_end(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "SILENT_SECONDS", lingering.LINGER_SECONDS * 2)
    held = Lingering(10)
    ours, client = pairs.make()
    held.take(ours)
    now = asyncio.get_running_loop().time()
    held.sweep(now + lingering.LINGER_SECONDS - 1)
    assert not await is_closed(client)
    held.sweep(now + lingering.LINGER_SECONDS + 1)
    await until_closed(client)


async def test_there_are_never_too_many_and_the_longest_goes_first(pairs: Pairs) -> None:
    held = Lingering(2)
    made = [pairs.make() for _ in range(3)]
    for ours, _ in made[:2]:
        held.take(ours)
    assert held.full
    held.take(made[2][0])
    await until_closed(made[0][1])
    assert not await is_closed(made[1][1])
    assert not await is_closed(made[2][1])
    held.close()
    assert not held.full


async def test_who_has_left_does_not_linger(pairs: Pairs) -> None:
    ours, client = pairs.make()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
    client.close()  # with a reset
    await asyncio.sleep(0.02)
    held = Lingering(10)
    held.take(ours)
    await asyncio.wait_for(held.end(), 5)
    assert ours.fileno() == -1


async def test_a_transport_without_a_socket_has_no_duplicate() -> None:
    assert duplicate(asyncio.Transport()) is None
