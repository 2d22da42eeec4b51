"""Short histories on a real cluster, whose slots are moved while sessions are used and ended.

How this works. As `small_world`, with other faults: slots that matter (of sessions, of subjects, of
a shard's registry) are moved as the documentation says, slowly, while everybody goes on; a shard
hangs, connections are killed. No client is beside the gateways but one that follows redirections.
In histories of another kind a shard's primary dies, and a replica takes over that lacks what was
written last.

One thing more is done: somebody writes a subject's epoch by hand. It was absent when it was read,
so nothing but the proof of ownership in the beats can tell a worker when it is written at another
shard than the one it read from.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from signal import SIGCONT, SIGSTOP

import redis

from auth.io.cluster_store import ClusterSessionStore
from auth.io.session_store import RedisSessionStore, open_session_store
from auth.revocation import epoch_key, epoch_name
from auth.slots import slot_of, slot_of_tag
from config.model import SessionSettings
from tests.cluster import Cluster, shard_of
from tests.faults.history import Fault, History, Operation, Result, clock
from tests.faults.small_world import IDLE_TIMEOUT, RECOVERY, Client, World

OpenOnCluster = Callable[[str, SessionSettings], Awaitable[RedisSessionStore]]
FAULTS = ("move", "move", "move", "move", "move_registry", "hang", "kill_connections", "pause")


async def open_worker(url: str, settings: SessionSettings) -> RedisSessionStore:
    """Open a store as every worker does."""
    return await open_session_store(url, settings, worker=True)


class ClusterWorld(World):
    """Gateways on a cluster, without relays."""

    cluster: Cluster
    moving: asyncio.Lock

    async def move(
        self,
        slot: int,
        chooser: random.Random,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Move *slot* somewhere, slowly, and do what is to be done *meanwhile*."""
        cluster, pauses = self.cluster, (0.0, 0.02, 0.1)
        async with self.moving:  # as an operator would: one after another
            source = await asyncio.to_thread(cluster.owner, slot)
            target = chooser.choice([each for each in cluster.primaries if each is not source])
            await asyncio.to_thread(cluster.begin_move, slot, target)
            try:
                await asyncio.sleep(chooser.choice(pauses))
                await asyncio.to_thread(cluster.move_keys, slot, source, target)
                if meanwhile is not None:
                    await meanwhile()
                await asyncio.sleep(chooser.choice(pauses))
            finally:
                await asyncio.to_thread(cluster.move_keys, slot, source, target)
                await asyncio.to_thread(cluster.end_move, slot, source, target)

    def of_cluster(self) -> list[ClusterSessionStore]:
        """Return the gateways' stores."""
        return [store for store in self.stores if isinstance(store, ClusterSessionStore)]

    async def leased(self) -> None:
        async with asyncio.timeout(10):
            for store in self.of_cluster():
                while not store._shards.all() or any(
                    shard.lease.until <= store._reader.clock() for shard in store._shards.all()
                ):
                    await asyncio.sleep(0.002)

    async def nothing_left_over(self) -> None:
        async with asyncio.timeout(RECOVERY):
            for store in self.of_cluster():
                while store._reader.cache.flights or any(
                    shard.barrier._rounds for shard in store._shards.all()
                ):
                    await asyncio.sleep(0.002)


class ClusterClient(Client):
    """As `Client`, and writes epochs by hand."""

    async def end(self, session: str = "") -> None:
        """Log out; now and then somebody else ends all of a subject, by a bare write."""
        await super().end(session)
        if self._random.random() < 0.4:
            await self.write_epoch()

    async def write_epoch(self) -> None:
        """End all of somebody new without telling anybody, and look a lease later.

        Everybody knows by then that there is no such epoch; and its slot is on its way, as a rule.
        """
        world = self._world
        assert isinstance(world, ClusterWorld)
        subject = f"new {len(world.operations)}"
        session = await self.create(subject)
        if not session:
            return
        await self._look(session)
        key = epoch_key(epoch_name("", subject))
        if self._random.random() < 0.3:
            await self._write_by_hand(key, subject)
        else:
            await world.move(slot_of(key), self._random, lambda: self._write_by_hand(key, subject))
        await self._look_late(session)

    async def _write_by_hand(self, key: str, subject: str) -> None:
        started = clock()
        result: Result = "ok"
        try:
            await self._world.direct.set(key, str(round(time.time() * 1000)))
        except (redis.RedisError, TimeoutError):
            result = "unknown"
        self._record("epoch", started, result, subject=subject)


class SlotNemesis:
    """Moves slots, and hurts shards, as its random generator says."""

    def __init__(self, world: ClusterWorld, seed: str) -> None:
        self._world = world
        self._random = random.Random(seed)

    async def run(self, faults: list[str], until: float) -> None:
        """Cause *faults*, each at a moment of its own before *until*."""
        spread = 0.6 * (until - clock())
        moments = sorted(self._random.uniform(0.0, spread) for _ in faults)
        await asyncio.gather(*map(self._cause, faults, moments))

    async def _cause(self, name: str, after: float) -> None:
        await asyncio.sleep(after)
        started = clock()
        await getattr(self, name)()
        self._world.faults.append(Fault(name, started, clock()))

    async def move(self) -> None:
        """Move the slot of a subject's epoch, or of a session."""
        sessions = self._world.sessions[-4:]
        subjects = [epoch_name("", f"u{number}") for number in range(4)]
        tag = self._random.choice([*subjects, *subjects, *sessions])
        await self._world.move(slot_of_tag(tag), self._random)

    async def move_registry(self) -> None:
        """Move the slot in which a shard's registry of workers is."""
        store = self._random.choice(self._world.of_cluster())
        shard = self._random.choice(list(store._shards.all()))
        slot = shard.claims.stable.find(1)
        if slot >= 0:
            await self._world.move(slot, self._random)

    async def hang(self) -> None:
        """SIGSTOP of one shard, for less than its cluster would notice."""
        async with self._world.moving:
            server = self._random.choice(self._world.cluster.primaries)
            server.signal(SIGSTOP)
            try:
                await asyncio.sleep(self._random.choice((0.02, 0.1, 0.2)))
            finally:
                server.signal(SIGCONT)

    async def kill_connections(self) -> None:
        """CLIENT KILL at one shard, of one kind of connection."""
        server = self._random.choice(self._world.cluster.primaries)
        kind = self._random.choice(("pubsub", "normal"))
        await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def pause(self) -> None:
        """All gateways stand still."""
        time.sleep(self._random.choice((0.02, 0.15)))  # noqa: ASYNC251 - that is the fault


class ShardNemesis(SlotNemesis):
    """Kills primaries whose replicas take over."""

    async def fail_over(self) -> None:
        """A shard's primary dies; its replica, which mostly lacks the last writes, takes over."""
        world, cluster = self._world, self._world.cluster
        async with world.moving:
            number = self._random.randrange(len(cluster.primaries))
            since = clock()
            if self._random.random() < 0.8:
                await asyncio.to_thread(cluster.lose_replication, number)
                await self._end_some(number)
                await asyncio.sleep(self._random.choice((0.0, 0.1)))
            started = clock()
            await asyncio.to_thread(cluster.fail_over, number)
            lost = Operation("rollback", started, clock(), "ok", since=since)
            world.operations.append(lost)
            await asyncio.to_thread(cluster.revive, number)

    async def _end_some(self, number: int) -> None:
        """End two of the sessions of shard *number*: these endings will be lost."""
        client = Client(self._world, str(self._random.random()))
        theirs = [session for session in self._world.sessions if shard_of(session) == number]
        await asyncio.gather(*(client.end(session) for session in theirs[-2:]))


@asynccontextmanager
async def cluster_world(
    cluster: Cluster, *, gateways: int, lease: float, open_store: OpenOnCluster
) -> AsyncIterator[ClusterWorld]:
    world = ClusterWorld(None, lease)  # type: ignore[arg-type]  # no single server here
    world.cluster, world.moving = cluster, asyncio.Lock()
    settings = SessionSettings(
        cookie_name="doorward", secure=False, idle_timeout=IDLE_TIMEOUT, lease=lease
    )
    async with AsyncExitStack() as stack:
        beside = await open_session_store(cluster.url, settings, worker=False)
        stack.push_async_callback(beside.close)
        world.direct = beside.commands
        for _ in range(gateways):
            store = await open_store(cluster.url, settings)
            stack.push_async_callback(store.close)
            world.stores.append(store)
        await world.leased()
        yield world


async def run_history(
    cluster: Cluster, seed: int, *, open_store: OpenOnCluster = open_worker
) -> History:
    """Make the history of *seed*."""
    chooser = random.Random(seed)
    lease = chooser.choice((0.08, 0.12))
    faults = ["move", *chooser.choices(FAULTS, k=chooser.randint(1, 3))]
    cluster.flush()
    open_world = partial(cluster_world, cluster, gateways=2, lease=lease, open_store=open_store)
    async with open_world() as world:
        clients = [ClusterClient(world, f"{seed} client {number}") for number in range(4)]
        nemesis = SlotNemesis(world, f"{seed} nemesis")
        for number in range(4):
            await clients[0].create(f"u{number}")
        until = clock() + chooser.uniform(0.5, 0.8)
        await asyncio.gather(nemesis.run(faults, until), *(client.run(until) for client in clients))
        return await _look_after(world, clients)


async def run_failover_history(
    cluster: Cluster, seed: int, *, open_store: OpenOnCluster = open_worker
) -> History:
    """Make the history of *seed* in which a shard of *cluster*, which has replicas, fails over."""
    chooser = random.Random(f"{seed} failover")
    lease = chooser.choice((0.08, 0.12))
    faults = ["fail_over", *chooser.choices(("hang", "kill_connections", "pause"), k=2)]
    cluster.flush()
    open_world = partial(cluster_world, cluster, gateways=3, lease=lease, open_store=open_store)
    async with open_world() as world:
        clients = [Client(world, f"{seed} client {number}") for number in range(4)]
        nemesis = ShardNemesis(world, f"{seed} nemesis")
        for number in range(4):
            await clients[0].create(f"u{number}")
        over = asyncio.Event()

        async def hurt() -> None:
            await nemesis.run(faults, clock() + 0.5)
            over.set()

        async def visit(client: Client) -> None:
            while not over.is_set():
                await client.run(clock() + 0.1)

        await asyncio.gather(hurt(), *map(visit, clients))
        return await _look_after(world, clients)


async def _look_after(world: ClusterWorld, clients: Sequence[Client]) -> History:
    """Use everything everywhere when the faults are over, and return what has happened."""
    await asyncio.to_thread(world.cluster.await_agreement)
    healed_at = clock()
    await clients[0].look_at_everything()
    await world.leased()
    for client in clients[1:]:
        await client.look_at_everything()
    await world.nothing_left_over()
    operations, faults = tuple(world.operations), tuple(world.faults)
    return History(world.lease, operations, faults, healed_at, RECOVERY, one_worker_each=True)
