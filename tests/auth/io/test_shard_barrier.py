"""The barrier of one shard, whose claims change while it is held."""

import asyncio
from typing import Any

import hiredis
import pytest

from auth.io.address import parse_store_url
from auth.io.connection import Connection
from auth.io.shard_barrier import ShardBarrier
from auth.io.shards import Shard
from auth.ports import AuthUnavailable
from auth.slots import NO_CLAIMS, Claims, Primary, parse_claims
from tests.auth.io.store_by_hand import StoreByHand

LEASE = 0.1


class _Up:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def ready(self) -> Connection:
        return self.connection


class Bench:
    def __init__(self, claims: Claims) -> None:
        self.store = StoreByHand()
        address = parse_store_url("redis://127.0.0.1")
        self.shard = Shard(Primary("id1", "127.0.0.1", 1), address, is_late=False)
        self.shard.claims = claims
        link: Any = _Up(self.store.connection)
        self.barrier = ShardBarrier(link, self.shard, name="me:id1", lease=LEASE, learn=self._learn)

    def _learn(self, claims: Claims) -> None:
        self.shard.claims = claims

    async def asked(self) -> list[bytes]:
        async with asyncio.timeout(2):
            while not (commands := await self.store.commands()):
                await asyncio.sleep(0)
        return commands[0]


@pytest.fixture
async def bench() -> Bench:
    return Bench(parse_claims(b"id1 myself,master 1 0-9"))


async def test_it_asks_the_registry_of_the_claims_and_says_which(bench: Bench) -> None:
    told = asyncio.ensure_future(bench.barrier.tell({}, {}, sent_at=0.0))
    command = await bench.asked()
    assert command[3].decode() == bench.shard.claims.registry_key
    assert command[4] == b"doorward:ended:id1"
    assert command[6] == b"id1 myself,master 1 0-9"
    bench.store.answer([[b"~", b"0"], 3_600_000])
    workers, silent = await told
    assert not workers
    assert not silent


async def test_claims_that_have_changed_are_learnt_and_asked_with(bench: Bench) -> None:
    told = asyncio.ensure_future(bench.barrier.tell({}, {}, sent_at=0.0))
    await bench.asked()
    bench.store.answer(b"id1 myself,master 1 0-9 [0->-id2]")
    command = await bench.asked()
    assert command[3].decode() == bench.shard.claims.registry_key
    assert command[6].endswith(b"[0->-id2]")
    bench.store.answer([[], 3_600_000])
    workers, silent = await told
    assert not workers
    assert not silent


async def test_a_registry_that_has_left_makes_it_ask_for_the_claims(bench: Bench) -> None:
    told = asyncio.ensure_future(bench.barrier.tell({}, {}, sent_at=0.0))
    await bench.asked()
    bench.store.answer(hiredis.ReplyError("MOVED 0 127.0.0.1:2"))
    assert (await bench.asked())[2] == b"0"
    bench.store.answer(b"id1 myself,master 1 5-9")
    await bench.asked()
    bench.store.answer([[], 3_600_000])
    await told
    assert bench.shard.claims.text.endswith(" 5-9")


@pytest.mark.parametrize("said", [b"nonsense", hiredis.ReplyError("NOPERM no")])
async def test_a_server_that_cannot_say_is_an_outage(bench: Bench, said: object) -> None:
    told = asyncio.ensure_future(bench.barrier.tell({}, {}, sent_at=0.0))
    await bench.asked()
    bench.store.answer(said)
    with pytest.raises(AuthUnavailable):
        await told


async def test_claims_that_keep_changing_are_an_outage(bench: Bench) -> None:
    told = asyncio.ensure_future(bench.barrier.tell({}, {}, sent_at=0.0))
    for epoch in range(5):
        await bench.asked()
        bench.store.answer(f"id1 myself,master {epoch + 2} 0-9".encode())
    with pytest.raises(AuthUnavailable, match="changing hands"):
        await told


async def test_a_shard_without_slots_cannot_say_who_is_there() -> None:
    with pytest.raises(AuthUnavailable, match="no slot"):
        await Bench(NO_CLAIMS).barrier.tell({}, {}, sent_at=0.0)
