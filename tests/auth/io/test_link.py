"""Links on a real server, and on connections that break when the test says so."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import hiredis
import pytest
import uvloop

from auth.io.address import StoreAddress, parse_store_url
from auth.io.connection import Connection, StoreLost
from auth.io.link import _BACKOFF, PATIENCE, Link, open_connection
from auth.ports import AuthUnavailable
from tests.auth.io.store_by_hand import StoreByHand
from tests.conftest import Valkey
from tests.store_server import tracks

pytestmark = pytest.mark.wire
# A loaded machine wakes us late; far below anything that would be an outage without end.
LATE = 3.0


async def info(connection: Connection) -> dict[str, str]:
    """Return what the server knows about *connection*."""
    text = await connection.call("CLIENT", "INFO")
    assert isinstance(text, bytes)
    return dict(part.partition("=")[::2] for part in text.decode().split())


class Greeter(asyncio.Protocol):
    """A server of the *version* that it says, and of a yes to everything."""

    def __init__(self, version: bytes) -> None:
        self.asked: list[bytes] = []
        self._version = version
        self._requests = hiredis.Reader()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._requests.feed(data)
        while command := self._requests.gets():
            self.asked.append(b" ".join(command))
            hello = b"%%1\r\n+version\r\n+%s\r\n" % self._version
            self._transport.write(hello if command[0] == b"HELLO" else b"+OK\r\n")


class TestOpening:
    @pytest.mark.parametrize("way", ["unix socket", "TCP"])
    async def test_a_connection_speaks_resp3_and_does_what_was_asked(
        self, valkey: Valkey, way: str
    ) -> None:
        url = valkey.url if way == "unix socket" else f"{valkey.tcp_url}/3"
        connection = await open_connection(parse_store_url(url), channel="c", tracking=True)
        try:
            facts = await info(connection)
            assert facts["sub"] == "1"
            hello: Any = await connection.call("HELLO")
            assert hello[b"proto"] == 3
            assert ("t" in facts["flags"]) is tracks()
            assert connection.tracking is tracks()
            assert facts["db"] == ("0" if way == "unix socket" else "3")
        finally:
            connection.close()

    async def test_without_tracking_and_channel_there_is_neither(self, valkey: Valkey) -> None:
        address = parse_store_url(valkey.url)
        connection = await open_connection(address, channel="", tracking=False)
        try:
            facts = await info(connection)
            assert facts["sub"] == "0"
            assert "t" not in facts["flags"]
            assert not connection.tracking
        finally:
            connection.close()

    @pytest.mark.parametrize(
        ("version", "tracks"),
        [
            *((b"6.0.20", False), (b"6.2.6", False), (b"6.2.7", True), (b"7.0.15", True)),
            *((b"10.0.0", True), (b"unstable", False), (b"", False)),
        ],
    )
    async def test_a_server_that_breaks_replies_apart_is_not_asked_to_track(
        self,
        version: bytes,
        tracks: bool,  # noqa: FBT001 - a table's column
    ) -> None:
        store = Greeter(version)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: store, "127.0.0.1", 0)
        async with server:
            address = StoreAddress("single", hosts=(server.sockets[0].getsockname(),))
            connection = await open_connection(address, channel="", tracking=True)
            assert connection.tracking is tracks
            assert (b"CLIENT TRACKING ON" in store.asked) is tracks
            connection.close()

    async def test_a_wrong_password_leaves_no_connection_open(self, valkey: Valkey) -> None:
        client: Any = valkey.client
        client.acl_setuser("u", enabled=True, reset=True, passwords=["+right"])
        url = valkey.tcp_url.replace("//", "//u:wrong@")
        before = client.info("clients")["connected_clients"]
        with pytest.raises(hiredis.ReplyError, match="WRONGPASS"):
            await open_connection(parse_store_url(url), channel="", tracking=False)
        async with asyncio.timeout(LATE):
            while client.info("clients")["connected_clients"] > before:
                await asyncio.sleep(0.005)

    async def test_a_server_that_may_not_track_is_used_without(self, valkey: Valkey) -> None:
        client: Any = valkey.client
        client.execute_command(
            *("ACL", "SETUSER", "u", "reset", "on", ">pw", "~*", "&*", "+@all", "-client")
        )
        url = valkey.tcp_url.replace("//", "//u:pw@")
        connection = await open_connection(parse_store_url(url), channel="", tracking=True)
        try:
            assert not connection.tracking
            assert await connection.call("PING") == b"PONG"
        finally:
            connection.close()

    async def test_a_channel_that_may_not_be_heard_is_an_error(self, valkey: Valkey) -> None:
        """Whoever hears no endings must not think that there are none."""
        client: Any = valkey.client
        client.execute_command(
            "ACL", "SETUSER", "u", "reset", "resetchannels", "on", ">pw", "~*", "+@all"
        )
        url = valkey.tcp_url.replace("//", "//u:pw@")
        with pytest.raises(hiredis.ReplyError, match="NOPERM"):
            await open_connection(parse_store_url(url), channel="c", tracking=True)

    async def test_a_port_where_nobody_listens_is_an_error_at_once(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        address = StoreAddress("single", hosts=(("127.0.0.1", port),))
        with pytest.raises(OSError, match=r"refused|failed"):
            await open_connection(address, channel="", tracking=False)


class Bench:
    """A link over connections that the test plays, and what it told its owner."""

    def __init__(self) -> None:
        self.stores: list[StoreByHand] = []
        self.told: list[str] = []
        self.ticks = 0
        self.connect: Callable[[], Awaitable[Connection]] = self._open
        self.up: Callable[[], None] = lambda: None
        self.tick: Callable[[Connection], None] = lambda _: None
        self.tries = 0

    async def _open(self) -> Connection:
        self.stores.append(StoreByHand())
        return self.stores[-1].connection

    async def _connect(self) -> Connection:
        self.tries += 1
        return await self.connect()

    async def _up(self, _: Connection) -> None:
        self.told.append("up")
        self.up()

    def _tick(self, connection: Connection) -> None:
        self.ticks += 1
        self.tick(connection)

    @contextlib.asynccontextmanager
    async def link(self, *, beat: float = 0.01) -> AsyncIterator[Link]:
        link = Link(
            self._connect,
            beat=beat,
            on_up=self._up,
            on_tick=self._tick,
            on_down=lambda: self.told.append("down"),
        )
        try:
            async with asyncio.timeout(4 * LATE):
                yield link
        finally:
            await link.close()


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LATE):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_connection_may_be_used_after_its_owner_has_met_it(bench: Bench) -> None:
    async with bench.link() as link:
        assert link.connection is None
        with pytest.raises(AuthUnavailable, match="not connected yet"):
            link.now_or_refuse()
        connection = await link.ready()
        assert connection is bench.stores[0].connection
        assert link.now_or_refuse() is connection
        assert bench.told == ["up"]
        await until(lambda: bench.ticks > 3)
    assert bench.stores[0].aborted  # closed for good
    assert bench.told == ["up", "down"]
    assert len(bench.stores) == 1


async def test_a_lost_connection_is_replaced_and_its_owner_told_of_both(bench: Bench) -> None:
    async with bench.link() as link:
        (await link.ready()).close()
        assert bench.told == ["up", "down"]  # before anybody could use what it was good for
        assert link.connection is None
        assert await link.ready() is bench.stores[1].connection
        assert bench.told == ["up", "down", "up"]


async def test_who_comes_while_it_just_broke_waits_for_the_next_one(bench: Bench) -> None:
    async with bench.link() as link:
        held = asyncio.Event()
        first = await link.ready()

        async def later() -> Connection:
            await held.wait()
            return await bench._open()

        bench.connect = later
        first.close()
        waiting = [asyncio.create_task(link.ready()) for _ in range(3)]
        await until(lambda: bench.tries == 2)
        assert not any(task.done() for task in waiting)
        held.set()
        assert set(await asyncio.gather(*waiting)) == {bench.stores[1].connection}


async def test_while_the_last_try_failed_everybody_is_refused_at_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse() -> Connection:
        raise ConnectionRefusedError("nobody is listening")

    bench.connect = refuse
    async with bench.link() as link:
        with pytest.raises(AuthUnavailable, match="nobody is listening"):
            await link.ready(patience=60)
        await until(lambda: bench.tries > 2)
        with pytest.raises(AuthUnavailable):
            await asyncio.wait_for(link.ready(patience=60), LATE)
        # Told once, however often it is tried.
        assert [each.levelno for each in caplog.records] == [logging.WARNING]
        bench.connect = bench._open
        await until(lambda: link.connection is not None)
        assert not link.failing


async def test_a_store_that_is_back_is_in_use_within_a_second() -> None:
    assert max(_BACKOFF) * 1.2 < 1 / 2


@pytest.mark.parametrize(
    "error",
    [
        AuthUnavailable("a replica"),
        StoreLost("gone"),
        hiredis.ReplyError("NOPERM"),
        UnicodeError("a host name that is too long"),
        AssertionError("never thought of"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["connecting", "meeting"])
async def test_whatever_goes_wrong_is_tried_again_and_not_at_full_speed(
    bench: Bench, error: Exception, where: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    async def fail_to_connect() -> Connection:
        raise error

    if where == "connecting":
        bench.connect = fail_to_connect
    else:
        bench.up = fail
    async with bench.link() as link:
        await asyncio.sleep(0.2)
        # With pauses of 0, 0.02, 0.05, 0.1 and 0.2 s that is 5; without, thousands.
        assert 2 <= bench.tries < 10
        assert str(error) in link.problem
        bench.connect, bench.up = bench._open, lambda: None
        await until(lambda: link.connection is not None)
        assert await link.ready() is bench.stores[-1].connection


async def test_a_beat_that_cannot_be_sent_is_no_reason_to_give_up(bench: Bench) -> None:
    def fail(_: Connection) -> None:
        raise StoreLost("far behind")

    bench.tick = fail
    async with bench.link() as link:
        connection = await link.ready()
        await until(lambda: bench.ticks > 3)
        assert link.connection is connection


async def test_a_beat_that_fails_otherwise_costs_the_connection_and_not_the_link(
    bench: Bench,
) -> None:
    def fail(_: Connection) -> None:
        raise AssertionError("never thought of")

    bench.tick = fail
    async with bench.link() as link:
        await until(lambda: bench.tries > 2)
        bench.tick = lambda _: None
        await until(lambda: link.connection is not None and bench.ticks > 9)
        assert bench.tries < 20


async def test_a_connection_lost_while_it_is_met_is_given_to_nobody(bench: Bench) -> None:
    def lose() -> None:
        bench.stores[-1].connection.close()

    bench.up = lose
    async with bench.link() as link:
        await until(lambda: bench.tries > 1)
        assert link.connection is None
        assert "down" not in bench.told  # it never was up
        bench.up = lambda: None
        await until(lambda: link.connection is not None)


async def test_a_store_that_does_not_answer_is_dropped_when_patience_is_over(
    bench: Bench,
) -> None:
    async with bench.link() as link:
        connection = await link.ready()
        started = asyncio.get_running_loop().time()
        with pytest.raises(StoreLost):
            await connection.call("PING")
        took = asyncio.get_running_loop().time() - started
        assert PATIENCE <= took < PATIENCE + LATE
        assert bench.told[:2] == ["up", "down"]
        assert bench.stores[0].aborted


async def test_a_store_that_answers_is_kept_however_long_nobody_asks(bench: Bench) -> None:
    async with bench.link(beat=0.1) as link:
        connection = await link.ready()
        call = connection.call("PING")
        bench.stores[0].answer(b"PONG")
        assert await call == b"PONG"
        await asyncio.sleep(PATIENCE + 0.3)
        assert link.connection is connection


async def test_a_server_that_takes_the_connection_and_says_nothing_is_an_outage() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = StoreAddress("single", hosts=(("127.0.0.1", silent.getsockname()[1]),))

        async def meet(_: Connection) -> None:
            raise AssertionError("it never said hello")

        link = Link(
            lambda: open_connection(address, channel="", tracking=True), beat=0.1, on_up=meet
        )
        try:
            with pytest.raises(AuthUnavailable, match="not connected within"):
                await asyncio.wait_for(link.ready(), LATE)
        finally:
            await link.close()


def test_a_loop_with_long_turns_does_not_take_its_store_for_dead(
    valkey_process: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the loop that workers run on: it runs its timers before it reads.

    Something is asked in each turn, and has waited for too long when the next one begins.
    """
    monkeypatch.setattr("auth.io.link.PATIENCE", 0.1)

    async def work_in_long_turns() -> bool:
        async with linked(valkey_process) as link:
            first = await link.ready()
            async with long_turns(8, lambda: first.send((b"PING",), lambda _: None)):
                pass
            return link.connection is first and not first.lost

    assert uvloop.run(work_in_long_turns())


def test_a_loop_with_long_turns_connects_all_the_same(
    valkey_process: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auth.io.link._HANDSHAKE", 0.1)

    async def connect_in_long_turns() -> bool:
        async with linked(valkey_process) as link, long_turns(16):
            return not link.failing

    assert uvloop.run(connect_in_long_turns())


@contextlib.asynccontextmanager
async def linked(store: Valkey) -> AsyncIterator[Link]:
    address = parse_store_url(store.tcp_url)
    link = Link(
        lambda: open_connection(address, channel="c", tracking=True),
        beat=0.02,
        on_up=_nothing,
        on_tick=lambda connection: connection.send((b"PING",), lambda _: None),
    )
    try:
        yield link
    finally:
        await link.close()


@contextlib.asynccontextmanager
async def long_turns(turns: int, also: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Keep the loop busy for 0.15 s in each of *turns* turns, and then leave."""
    loop, left = asyncio.get_running_loop(), turns

    def work() -> None:
        nonlocal left
        with contextlib.suppress(StoreLost):
            also()
        time.sleep(0.15)
        left -= 1
        if left:
            loop.call_soon(work)

    loop.call_soon(work)
    while left:
        await asyncio.sleep(0)
    yield


async def _nothing(_: Connection) -> None:
    pass
