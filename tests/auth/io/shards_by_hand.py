"""Two shards whose answers the test gives, and a reader of both."""

import json
from typing import Any

from auth.io.address import parse_store_url
from auth.io.session_cache import Lease
from auth.io.sharded_reader import ShardedReader
from auth.io.shards import Shard, Shards
from auth.revocation import epoch_name
from auth.slots import SLOTS, Primary, all_sessions_beside, parse_claims, slot_of_tag
from config.model import SessionSettings
from tests.auth.io.store_by_hand import StoreByHand

SETTINGS = SessionSettings(cookie_name="doorward", secure=False, lease=0.3)
CLOCK, WALL = 50.0, 1000.0
ALL_SLOTS = parse_claims(b"id1 myself,master 1 0-16383")
NAME = "d" * 64
OF_ALL = all_sessions_beside(NAME)
OF_SUBJECT = epoch_name("", "u1")


def record(**fields: object) -> bytes:
    value = {"v": 1, "subject": "u1", "created_at": 499.9, "expires_at": WALL + 300} | fields
    return json.dumps(value).encode()


def granted(until: float = CLOCK + 1) -> Lease:
    lease = Lease(ALL_SLOTS)
    lease.until = until
    lease.fresh_as_of = until - 1
    return lease


class _Up:
    """A link that is up, without a task of its own."""

    def __init__(self, store: StoreByHand) -> None:
        self.connection = store.connection
        self.problem = ""


class Bench:
    """Two shards, each with half of the slots, and a reader whose clocks stand still."""

    def __init__(self) -> None:
        self.reader = ShardedReader(SETTINGS, name="w1")
        self.reader.clock = lambda: CLOCK
        self.reader.wall = lambda: WALL
        self.stores = [StoreByHand(), StoreByHand()]
        self.shards = [self._shard(number) for number in range(2)]
        address = parse_store_url("redis+cluster://127.0.0.1:1")
        self.reader.shards = Shards(address, lambda _: self.shards[0], lambda: None)
        self.reader.shards._owners = [self.shards[slot * 2 // SLOTS] for slot in range(SLOTS)]
        self.reader.shards._nodes = {"id0": self.shards[0], "id1": self.shards[1]}

    def _shard(self, number: int) -> Shard:
        primary = Primary(f"id{number}", "127.0.0.1", number + 1)
        shard = Shard(primary, parse_store_url("redis://127.0.0.1"), is_late=False)
        half = SLOTS // 2
        slots = f"{number * half}-{(number + 1) * half - 1}"
        shard.lease = Lease(parse_claims(f"id{number} myself,master 1 {slots}".encode()))
        shard.lease.until = CLOCK + 1
        link: Any = _Up(self.stores[number])
        shard.tracked = shard.control = link
        return shard

    def of(self, tag: str) -> StoreByHand:
        return self.stores[slot_of_tag(tag) * 2 // SLOTS]

    async def answer(self, **values: object) -> None:
        """Answer everything that was asked: by the last part of its key's kind."""
        for store in self.stores:
            for command in await store.commands():
                kind = command[1].decode().split(":")[1]
                reply = values.get("ttl" if command[0] == b"PTTL" else kind)
                store.answer([reply] if command[0] == b"MGET" else reply)
