"""Broadcasts and their acknowledgements on a real server, with workers played by the test."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import hiredis
import msgspec
import pytest

from auth.io.address import parse_store_url
from auth.io.barrier import MARGIN, Barrier, Ending, call_twice, read_ending
from auth.io.connection import Connection, boottime
from auth.io.link import Link
from auth.io.locating import open_primary
from auth.ports import AuthUnavailable
from auth.revocation import ENDED_CHANNEL, WORKERS_KEY
from tests.auth.io.store_by_hand import StoreByHand
from tests.conftest import Valkey

pytestmark = pytest.mark.wire
LEASE = 0.3
# What a loaded machine may add to a wait; an acknowledged ending takes far less than a lease.
LATE = 2.0
Hear = Callable[[Ending], list[str]]


@pytest.fixture
async def barrier(valkey: Valkey) -> AsyncIterator[Barrier]:
    made: Barrier

    async def meet(connection: Connection) -> None:
        connection.on_push = made.on_push

    address = parse_store_url(valkey.url)
    link = Link(
        lambda: open_primary(address, channel="doorward:acknowledged:me", tracking=False),
        beat=0.1,
        on_up=meet,
    )
    made = Barrier(link, name="me", lease=LEASE)
    await link.ready()
    yield made
    await link.close()


def register(valkey: Valkey, **workers: str) -> None:
    """Have the registry, an old one, hold *workers* with their values."""
    for name, value in {"~": "0", **workers}.items():
        valkey.client.hset(WORKERS_KEY, name, value)


async def broadcast(barrier: Barrier) -> tuple[int, int, float]:
    """Return who acknowledged, of how many, and the seconds it took."""
    started = boottime()
    acknowledged, of = await barrier.broadcast({"n": 60.0}, {}, sent_at=time.time())
    return acknowledged, of, boottime() - started


class Hearing:
    """Listens as workers do, and acknowledges whatever *hear* returns."""

    def __init__(self, valkey: Valkey, hear: Hear) -> None:
        self._valkey = valkey
        self._hear = hear
        self.heard: list[Ending] = []

    async def __aenter__(self) -> Self:
        self._listener: Any = self._valkey.client.pubsub()  # type: ignore[no-untyped-call]
        self._listener.subscribe(ENDED_CHANNEL)
        assert self._listener.get_message(timeout=5)["type"] == "subscribe"
        self._task = asyncio.create_task(asyncio.to_thread(self._answer))
        return self

    def _answer(self) -> None:
        message = self._listener.get_message(timeout=10)
        ending = read_ending(message["data"])
        assert ending is not None
        self.heard.append(ending)
        for line in self._hear(ending):
            self._valkey.client.publish(ending.reply_to, line)

    async def __aexit__(self, *_: object) -> None:
        await self._task
        self._listener.close()


async def test_nobody_who_might_hold_a_copy_is_waited_for_by_nobody(
    barrier: Barrier, valkey: Valkey
) -> None:
    register(valkey)
    acknowledged, of, took = await broadcast(barrier)
    assert (acknowledged, of) == (0, 0)
    assert took < LEASE


async def test_every_worker_that_has_heard_counts_and_nobody_waits_longer(
    barrier: Barrier, valkey: Valkey
) -> None:
    register(valkey, w1="1 5000", w2="7 5000")
    hear: Hear = lambda ending: [f"{ending.barrier} w1", f"{ending.barrier} w2"]  # noqa: E731
    async with Hearing(valkey, hear) as hearing:
        acknowledged, of, took = await broadcast(barrier)
    assert (acknowledged, of) == (2, 2)
    assert took < 5
    assert hearing.heard[0].names == {"n": 60.0}


async def test_a_silent_worker_is_waited_for_as_long_as_its_own_lease(
    barrier: Barrier, valkey: Valkey
) -> None:
    """Its lease may be longer than ours: another file, another generation."""
    register(valkey, w1="1 600")
    acknowledged, of, took = await broadcast(barrier)
    assert (acknowledged, of) == (0, 1)
    assert 0.6 + MARGIN <= took < 0.6 + LATE


@pytest.mark.parametrize(
    "line",
    ["{other} w1", "{barrier} w2", "{barrier}", "w1", "{barrier}  w1"],
    ids=["another broadcast", "another worker", "no worker", "no broadcast", "garbled"],
)
async def test_what_is_no_acknowledgement_of_its_own_replaces_none(
    barrier: Barrier, valkey: Valkey, line: str
) -> None:
    register(valkey, w1="1 300")
    hear: Hear = lambda ending: [line.format(barrier=ending.barrier, other="me:0")]  # noqa: E731
    async with Hearing(valkey, hear):
        acknowledged, of, took = await broadcast(barrier)
    assert (acknowledged, of) == (0, 1)
    assert took >= 0.3 + MARGIN


async def test_a_worker_that_never_moved_is_taken_off_the_list_and_one_that_did_is_not(
    barrier: Barrier, valkey: Valkey
) -> None:
    register(valkey, dead="1 700", late="1 700")

    def beat(_: Ending) -> list[str]:
        valkey.client.hset(WORKERS_KEY, "late", "2 700")
        return []

    async with Hearing(valkey, beat):
        assert (await broadcast(barrier))[:2] == (0, 2)
    async with asyncio.timeout(5):
        while await asyncio.to_thread(valkey.client.hexists, WORKERS_KEY, "dead"):
            await asyncio.sleep(0.005)
    assert valkey.client.hget(WORKERS_KEY, "late") == b"2 700"


async def test_a_list_younger_than_a_lease_is_waited_out_in_full(
    barrier: Barrier, valkey: Valkey
) -> None:
    """FLUSHALL took it along: who is missing may still hold a lease."""
    born = round(time.time() * 1000)
    valkey.client.hset(WORKERS_KEY, mapping={"~": str(born), "w1": "1 300"})
    hear: Hear = lambda ending: [f"{ending.barrier} w1"]  # noqa: E731
    async with Hearing(valkey, hear):
        acknowledged, of, _ = await broadcast(barrier)
    assert (acknowledged, of) == (1, 1)
    assert time.time() * 1000 - born >= 1000 * LEASE


async def test_a_list_that_is_lost_is_waited_out_in_full(barrier: Barrier, valkey: Valkey) -> None:
    *_, took = await broadcast(barrier)
    assert took >= LEASE + MARGIN


async def test_a_doubt_about_the_list_is_waited_out_and_never_gets_shorter(
    barrier: Barrier, valkey: Valkey
) -> None:
    register(valkey)
    barrier.doubt_registry(for_seconds=LEASE)
    doubtful_until = barrier.uncertain_until
    barrier.doubt_registry(for_seconds=0.001)
    assert barrier.uncertain_until == doubtful_until
    await broadcast(barrier)
    assert boottime() >= doubtful_until


async def test_broadcasts_at_once_keep_their_acknowledgements_apart(
    barrier: Barrier, valkey: Valkey
) -> None:
    register(valkey, w1="1 300")
    hear: Hear = lambda ending: [f"{ending.barrier} w1"]  # noqa: E731
    async with Hearing(valkey, hear):  # it hears the first alone
        both = await asyncio.gather(broadcast(barrier), broadcast(barrier))
    assert sorted(each[0] for each in both) == [0, 1]


async def test_a_broadcast_that_is_given_up_leaves_nothing_behind(
    barrier: Barrier, valkey: Valkey
) -> None:
    register(valkey, w1="1 60000")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(broadcast(barrier), 0.05)
    assert barrier._rounds == {}


@pytest.mark.parametrize("value", ["1", "", "1 x", "1 -5", "garbage"])
async def test_a_silent_worker_that_names_no_lease_is_waited_for_as_long_as_ours(
    barrier: Barrier, valkey: Valkey, value: str
) -> None:
    register(valkey, w1=value)
    acknowledged, of, took = await broadcast(barrier)
    assert (acknowledged, of) == (0, 1)
    assert LEASE + MARGIN <= took < LEASE + LATE


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"null",
        b"{}",
        b'{"barrier":"b","reply_to":"r"}',
        b'{"barrier":"b","reply_to":"r","sent_at":"now"}',
        b'{"barrier":"b","reply_to":"\xff","sent_at":1}',
        b'{"barrier":"b","reply_to":"r","sent_at":1,"more":' + b"[" * 100_000,
        b'{"barrier":"b","reply_to":"r","sent_at":1,"epochs":{"all":5}}',
    ],
    ids=[
        *("empty", "null", "no fields", "a field missing", "a wrong type", "no UTF-8"),
        *("endless nesting", "an epoch that is no text"),
    ],
)
def test_what_is_no_broadcast_of_ours_is_none(message: bytes) -> None:
    assert read_ending(message) is None


def test_a_broadcast_reads_as_it_was_sent_whatever_a_later_version_adds() -> None:
    ending = Ending("me:1", "doorward:acknowledged:me", 5.5, {"n": 60.0}, {"all": "7 keep"})
    sent = {**msgspec.to_builtins(ending), "later": {"version": [1]}}
    assert read_ending(msgspec.json.encode(sent)) == ending


class Breaking:
    """Gives out connections that the test breaks."""

    def __init__(self) -> None:
        self.opened: list[StoreByHand] = []

    async def ready(self) -> Connection:
        self.opened.append(StoreByHand())
        return self.opened[-1].connection

    async def asked(self, number: int) -> StoreByHand:
        """Wait until a command went out over the connection *number*."""
        async with asyncio.timeout(5):
            while len(self.opened) <= number or not await self.opened[number].commands():
                await asyncio.sleep(0)
        return self.opened[number]


async def test_a_command_whose_connection_broke_is_sent_once_more() -> None:
    breaking = Breaking()
    call = asyncio.create_task(call_twice(breaking.ready, ("PING",)))
    (await breaking.asked(0)).connection.close()
    (await breaking.asked(1)).answer(b"PONG")
    assert await call == b"PONG"


async def test_a_command_that_was_lost_twice_is_an_outage() -> None:
    breaking = Breaking()
    call = asyncio.create_task(call_twice(breaking.ready, ("PING",)))
    for number in range(2):
        (await breaking.asked(number)).connection.close()
    with pytest.raises(AuthUnavailable, match="twice"):
        await call
    assert len(breaking.opened) == 2


async def test_a_command_that_the_store_refuses_is_not_repeated() -> None:
    breaking = Breaking()
    call = asyncio.create_task(call_twice(breaking.ready, ("PING",)))
    (await breaking.asked(0)).answer(hiredis.ReplyError("NOPERM not you"))
    with pytest.raises(AuthUnavailable, match="NOPERM not you"):
        await call
    assert len(breaking.opened) == 1
