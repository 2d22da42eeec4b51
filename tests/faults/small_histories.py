"""Histories of the small world: what breaks when, made from a seed."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Sequence

import redis

from tests.conftest import Valkey
from tests.faults.bearers import Bearer
from tests.faults.history import Fault, History, Operation, clock
from tests.faults.small_world import (
    RECOVERY,
    Client,
    OpenStore,
    World,
    open_worker_store,
    small_world,
)
from tests.relay import BOTH, Direction, Relay
from tests.stalls import counting_stalls

_DIRECTIONS: tuple[tuple[Direction, ...], ...] = (("from_store",), ("to_store",), BOTH)


class Nemesis:
    """Breaks things, one after another or at once, as its random generator says."""

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._random = random.Random(seed)

    async def run(self, faults: Sequence[str], until: float) -> None:
        """Cause *faults*, each at a moment of its own before *until*."""
        began = clock()
        moments = [self._random.uniform(0.0, 0.8 * (until - began)) for _ in faults]
        await asyncio.gather(
            *(self._cause(name, at) for name, at in zip(faults, moments, strict=True))
        )

    async def _cause(self, name: str, after: float) -> None:
        await asyncio.sleep(after)
        started = clock()
        with contextlib.suppress(redis.RedisError):
            await getattr(self, name)()
        self._world.faults.append(Fault(name, started, clock()))

    def _relay(self) -> Relay:
        return self._random.choice(self._world.relays)

    def _duration(self) -> float:
        return self._random.choice((0.01, 0.03, 0.1))

    async def delay(self) -> None:
        """One gateway's link gets slow, in one direction or both."""
        relay = self._relay()
        seconds = self._random.choice((0.001, 0.005, 0.02))
        relay.set_delay(seconds, self._random.choice(_DIRECTIONS))
        await asyncio.sleep(self._random.choice((0.05, 0.1, 0.2)))
        relay.set_delay(0.0)

    async def slow_everywhere(self) -> None:
        """All links get slow, each in its own way, until the end."""
        for relay in self._world.relays:
            for direction in BOTH:
                relay.set_delay(self._random.choice((0.0, 0.001, 0.003)), (direction,))

    async def hold(self) -> None:
        """A black hole: nothing passes, and what was sent arrives late or never."""
        relay = self._relay()
        relay.hold(self._random.choice(_DIRECTIONS))
        await asyncio.sleep(self._random.choice((0.03, 0.1, 0.2)))
        if self._random.random() < 0.5:
            relay.release()
        else:
            relay.cut()

    async def hold_one(self) -> None:
        """The same on one of a gateway's connections."""
        relay = self._relay()
        pairs = sorted(relay.pairs, key=id)
        if pairs:
            relay.hold(self._random.choice(_DIRECTIONS), [self._random.choice(pairs)])
        await asyncio.sleep(self._random.choice((0.03, 0.1, 0.2)))
        relay.release()

    async def cut(self) -> None:
        """Reset a gateway's connections."""
        self._relay().cut()

    async def refuse(self) -> None:
        """A gateway cannot connect for a while."""
        relay = self._relay()
        relay.refuse = True
        relay.cut()
        await asyncio.sleep(self._duration())
        relay.refuse = False

    async def kill_connections(self) -> None:
        """CLIENT KILL, of one kind of connection."""
        kind = self._random.choice(("pubsub", "normal"))
        await self._world.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def stop_store(self) -> None:
        """SIGSTOP of the server."""
        os.kill(self._world.valkey.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._duration())
        finally:
            os.kill(self._world.valkey.pid, signal.SIGCONT)

    async def debug_sleep(self) -> None:
        """The server is busy with something else."""
        await self._world.command("DEBUG", "SLEEP", self._duration())

    async def flush(self) -> None:
        """FLUSHALL, by somebody who should not."""
        started = clock()
        await self._world.direct.flushall()
        self._world.operations.append(Operation("flush", started, clock(), "ok"))

    async def overflow(self) -> None:
        """The server's table of tracked keys overflows: invalidations of what did not change."""
        await self._world.direct.config_set("tracking-table-max-keys", 1)
        await asyncio.sleep(self._duration())
        await self._world.direct.config_set("tracking-table-max-keys", 1_000_000)

    async def pause(self) -> None:
        """All gateways stand still: a long collection, or a machine without time for us."""
        time.sleep(self._random.choice((0.02, 0.15)))  # noqa: ASYNC251 - that is the fault

    async def rollback(self) -> None:
        """A failover to a replica that lacks what was written since a moment ago."""
        direct = self._world.direct
        since = clock()
        held = [(key, await direct.dump(key)) async for key in direct.scan_iter("doorward:*")]
        await asyncio.sleep(self._duration())
        started = clock()
        for relay in self._world.relays:
            relay.refuse = True
            relay.cut()
        await direct.flushall()
        for key, value in held:
            if value is not None:
                await direct.restore(key, 60_000, value, replace=True)
        await self._world.command("DEBUG", "CHANGE-REPL-ID")
        for relay in self._world.relays:
            relay.refuse = False
        lost = Operation("rollback", started, clock(), "ok", since=since)
        self._world.operations.append(lost)


LINK_FAULTS = ("delay", "hold", "hold_one", "cut", "refuse")
STORE_FAULTS = ("kill_connections", "stop_store", "debug_sleep", "flush", "overflow", "pause")


def plan(chooser: random.Random) -> list[str]:
    """Return which faults a history has: mixed ones, or a failover with such as hide no ending."""
    if chooser.random() < 0.15:
        return ["rollback", *chooser.choices(("delay", "pause"), k=2)]
    weights = (4, 6, 6, 2, 2, 2, 2, 1, 0.5, 1, 1)
    return chooser.choices(LINK_FAULTS + STORE_FAULTS, weights, k=chooser.randint(1, 4))


async def run_history(
    valkey: Valkey,
    seed: int,
    *,
    open_store: OpenStore = open_worker_store,
    lease: float = 0.0,
) -> History:
    """Make the history of *seed*, with its own lease unless *lease* says another (seconds)."""
    chooser = random.Random(seed)
    own_lease = chooser.choice((0.04, 0.08))
    lease = lease or own_lease
    gateways = chooser.choice((2, 3))
    duration = chooser.uniform(0.15, 0.3)
    faults = plan(chooser)
    async with (
        counting_stalls() as stalls,
        small_world(valkey, gateways=gateways, lease=lease, open_store=open_store) as world,
    ):
        clients = [Client(world, f"{seed} client {number}") for number in range(4)]
        clients.append(Bearer(world, f"{seed} bearer"))
        nemesis = Nemesis(world, f"{seed} nemesis")
        for _ in range(3):
            await clients[0].create()
        until = clock() + duration
        await asyncio.gather(nemesis.run(faults, until), *(client.run(until) for client in clients))
        for relay in world.relays:
            relay.heal()
        healed_at = clock()
        await clients[0].look_at_everything()
        await world.leased()
        for client in clients[1:]:
            await client.look_at_everything()
        await world.nothing_left_over()
        operations, faults_done = tuple(world.operations), tuple(world.faults)
        # To a machine that stands still for a second a store that answers is one that does not.
        recovery = RECOVERY + stalls.seconds
        return History(lease, operations, faults_done, healed_at, recovery, one_worker_each=True)
