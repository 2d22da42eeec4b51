"""Short histories: several gateways' stores in one process, on a real server, behind relays.

How this works. A history is made from its seed: which faults come when, and what each client does.
`World` is the running system, `Client` uses it and records, `Nemesis` breaks it. The server and the
sockets are real, so a seed replays the plan and not every microsecond: what was found once is found
again within a few runs, as a rule at the first.

Each gateway is a `RedisSessionStore` as a worker keeps it, with a relay of its own between it and
the server. The lease is short, so that a history of 200 ms has room for several.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import redis.asyncio

from auth.io.session_store import RedisSessionStore, open_session_store
from auth.ports import AuthUnavailable, Ended
from auth.session import SessionRecord, digest, new_cookie_value, session_key
from config.model import SessionSettings
from tests.conftest import Valkey
from tests.faults.history import Fault, History, Operation, Result, clock
from tests.relay import BOTH, Direction, Relay

# What is used at all is reported to the store (a touch) in histories that are this short.
IDLE_TIMEOUT = 10.0
RECOVERY = 1.5
_FOREIGN_TTL = 5000
_DIRECTIONS: tuple[tuple[Direction, ...], ...] = (("from_store",), ("to_store",), BOTH)

OpenStore = Callable[[str, SessionSettings], Awaitable[RedisSessionStore]]


async def open_worker_store(url: str, settings: SessionSettings) -> RedisSessionStore:
    """Open a store as every worker does."""
    return await open_session_store(url, settings, worker=True)


async def ask(store: RedisSessionStore, session: str) -> SessionRecord | str | None:
    """Look a session up as the gateway does first: without a task; None if that says nothing."""
    told: asyncio.Future[SessionRecord | str | None] = asyncio.get_running_loop().create_future()
    store.ask(session, lambda found: None if told.done() else told.set_result(found))
    return await told


class World:
    """Gateways, their relays, and a plain client beside them; and what has happened so far."""

    def __init__(self, valkey: Valkey, lease: float) -> None:
        self.valkey = valkey
        self.lease = lease
        self.relays: list[Relay] = []
        self.stores: list[RedisSessionStore] = []
        self.operations: list[Operation] = []
        self.faults: list[Fault] = []
        self.sessions: list[str] = []
        self.versions: dict[str, int] = {}
        self.foreign: dict[str, tuple[str, float]] = {}
        """Of sessions written by others: subject and `created_at`."""
        self.writing = asyncio.Lock()
        self.direct: redis.asyncio.Redis

    @property
    def port(self) -> int:
        return int(self.valkey.tcp_url.rpartition(":")[2])

    async def command(self, *command: str | float) -> object:
        """Send *command* to the server itself."""
        reply: object = await self.direct.execute_command(*command)  # type: ignore[no-untyped-call]
        return reply

    async def leased(self) -> None:
        """Wait until every gateway may trust its copies."""
        async with asyncio.timeout(20):
            for store in self.stores:
                while store._reader.clock() >= store._reader.cache.lease_until:
                    await asyncio.sleep(0.002)

    async def nothing_left_over(self) -> None:
        """Wait until no read is under way that nobody waits for, and no barrier."""
        async with asyncio.timeout(RECOVERY):
            for store in self.stores:
                while store._reader.cache.flights or store._barrier._rounds:
                    await asyncio.sleep(0.002)


@asynccontextmanager
async def small_world(
    valkey: Valkey, *, gateways: int, lease: float, open_store: OpenStore = open_worker_store
) -> AsyncIterator[World]:
    world = World(valkey, lease)
    settings = SessionSettings(
        cookie_name="doorward", secure=False, idle_timeout=IDLE_TIMEOUT, lease=lease
    )
    async with AsyncExitStack() as stack:
        world.direct = redis.asyncio.Redis.from_url(valkey.url, protocol=2)
        stack.push_async_callback(world.direct.aclose)
        for _ in range(gateways):
            relay = await stack.enter_async_context(Relay(world.port))
            store = await open_store(relay.url, settings)
            stack.push_async_callback(store.close)
            world.relays.append(relay)
            world.stores.append(store)
        # The registry is as young as the test's server: do not have every ending wait for that.
        await world.direct.hset("doorward:workers", "~", "0")
        for store in world.stores:
            store._barrier.uncertain_until = 0.0
        await world.leased()
        yield world


class Client:
    """Does what its random generator says, and records it."""

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._random = random.Random(seed)

    async def run(self, until: float) -> None:
        """Use, end, delete, replace and create sessions until the clock says *until*."""
        kinds = (self.use, self.create, self.put, self.end, self.end_subject, self.delete)
        more = (self.race, self.busy, self.replace, self.end_all)
        while clock() < until:
            for _ in range(self._random.randint(1, 4)):
                await self.use()
            (act,) = self._random.choices((*kinds, *more), (30, 8, 6, 15, 4, 6, 6, 4, 5, 0.5))
            await act()
            await asyncio.sleep(self._random.choice((0.0, 0.001, 0.004)))

    def pick(self) -> str:
        """Return a session, rather a recent one."""
        sessions = self._world.sessions
        return self._random.choice(sessions[-12:]) if sessions else "0" * 64

    def _gateway(self) -> int:
        return self._random.randrange(len(self._world.stores))

    async def use(self, session: str = "", gateway: int = -1) -> None:
        """Do what a request does: look at the copy, else ask."""
        session = session or self.pick()
        number = gateway if gateway >= 0 else self._gateway()
        store = self._world.stores[number]
        started = clock()
        found: SessionRecord | str | None = store.peek(session)
        if found is None and self._random.random() < 0.5:
            found = await ask(store, session)
        if found is None:
            try:
                found = await self._look_up(store, session)
            except AuthUnavailable:
                self._record("use", started, "unavailable", session=session, gateway=str(number))
                return
        if isinstance(found, SessionRecord):
            outcome: dict[str, object] = {"subject": found.subject, "version": int(found.tenant)}
            self._record(
                "use", started, "admitted", session=session, gateway=str(number), **outcome
            )
        else:
            reason = str(found)
            self._record(
                "use", started, "refused", session=session, gateway=str(number), reason=reason
            )

    async def _look_up(self, store: RedisSessionStore, session: str) -> SessionRecord | str:
        """Look up as requests do: without content by callback first, else by `find`."""
        if len(self._world.operations) % 2:
            answer = asyncio.get_running_loop().create_future()
            store.ask(session, answer.set_result)
            found: SessionRecord | str | None = await answer
            if found is not None:
                return found
        return await store.find(session)

    async def create(self, subject: str = "") -> str:
        """Sign in through a gateway, some for a very short time; empty: it did not work."""
        now, subject = time.time(), subject or self._subject()
        lives_for = self._random.choice((0.1, 3600.0, 3600.0, 3600.0))
        record = SessionRecord(1, subject, now, now + lives_for, tenant="0")
        started = clock()
        try:
            cookie = await self._world.stores[self._gateway()].create(record)
        except AuthUnavailable:
            return ""  # nobody has its cookie
        session = digest(cookie)
        self._record(
            "create",
            started,
            "ok",
            session=session,
            subject=subject,
            expires_at=started + lives_for,
            # On a starved machine a history may take longer than that.
            idles_at=started + IDLE_TIMEOUT,
        )
        self._know(session, 0)
        return session

    async def put(self, *, aged: float = 0.0) -> str:
        """Sign in through somebody else's login service, which writes the record itself.

        *aged*: it is as old as that (seconds) and was not used since, so each use is reported.
        """
        session, subject = digest(new_cookie_value()), self._subject()
        self._world.foreign[session] = subject, time.time() - aged
        started = clock() - aged  # what ended since then may concern it
        if not await self._write(session, 0):
            return ""
        idles_at = started + aged + _FOREIGN_TTL / 1000
        self._record("put", started, "ok", session=session, subject=subject, idles_at=idles_at)
        self._know(session, 0)
        return session

    async def replace(self) -> None:
        """Write a record anew, as a login service does when roles change."""
        session = self.pick()
        if session not in self._world.foreign:
            return
        async with self._world.writing:  # one writer: its versions take effect in their order
            version = self._world.versions[session] = self._world.versions[session] + 1
            started = clock()
            if await self._write(session, version, only_if_there=True):
                self._record("replace", started, "ok", session=session, version=version)

    async def end(self, session: str = "") -> None:
        """Log out, and look everywhere at once whether it is true."""
        session = session or self.pick()
        if self._random.random() < 0.5:  # every gateway has a copy
            await self._look(session)
        await self._end("end", lambda store: store.end(session, reason="logout"), session=session)
        await self._look(session)

    async def end_subject(self) -> None:
        """Log out everywhere."""
        subject = self._subject()
        theirs = [
            each.session
            for each in self._world.operations
            if each.kind in ("create", "put") and each.subject == subject
        ]
        await self._end(
            "end_subject", lambda store: store.end_subject(subject, reason="all"), subject=subject
        )
        for session in theirs[-3:]:
            await self._look(session)

    async def end_all(self) -> None:
        """End everything there is."""
        session = self.pick()
        await self._end("end_all", lambda store: store.end_all(reason="admin"))
        await self._look(session)

    async def delete(self) -> None:
        """Delete the record, as `redis-cli` would, and look a lease later."""
        session = self.pick()
        await self._look(session)
        await self._delete(session)
        await self._look(session)
        await self._look_late(session)

    async def _look_late(self, session: str) -> None:
        await asyncio.sleep(self._world.lease + 0.015)
        await self._look(session)

    async def _delete(self, session: str) -> None:
        started = clock()
        result: Result = "ok"
        try:
            await self._world.direct.delete(session_key(session))
        except redis.RedisError:
            result = "unknown"
        self._record("delete", started, result, session=session)

    async def race(self) -> None:
        """Delete a new session while everybody looks it up for the first time."""
        session = await self.create(f"u{len(self._world.operations)}")
        if session:
            looking = asyncio.create_task(self._look(session))
            await asyncio.sleep(self._random.uniform(0.0, 0.006))
            await self._delete(session)
            await looking
            await self._look_late(session)

    async def busy(self) -> None:
        """Delete a session while its use is being reported."""
        session = await self.put(aged=IDLE_TIMEOUT - _FOREIGN_TTL / 1000)
        if session:
            await self._look(session)
            await self._look(session)
            await asyncio.sleep(self._random.uniform(0.0, 0.006))
            await self._delete(session)
            await self._look_late(session)

    async def look_at_everything(self) -> None:
        """Use every session at every gateway."""
        for session in self._world.sessions:
            await self._look(session)

    async def _look(self, session: str) -> None:
        order = list(range(len(self._world.stores)))
        self._random.shuffle(order)
        await asyncio.gather(*(self.use(session, gateway) for gateway in order))

    async def _end(
        self,
        kind: str,
        act: Callable[[RedisSessionStore], Awaitable[Ended]],
        *,
        session: str = "",
        subject: str = "",
    ) -> None:
        stores = self._world.stores
        started = clock()
        try:
            ended = await act(stores[self._gateway()])
        except AuthUnavailable:
            self._record(kind, started, "unavailable", session=session, subject=subject)
            return
        confirmed = ended.acknowledged == ended.of == len(stores)
        self._record(kind, started, "ok", session=session, subject=subject, confirmed=confirmed)

    async def _write(self, session: str, version: int, *, only_if_there: bool = False) -> bool:
        subject, created_at = self._world.foreign[session]
        value = {
            "v": 1,
            "subject": subject,
            "created_at": created_at,
            "expires_at": created_at + 3600,
            "tenant": str(version),
        }
        try:
            return bool(
                await self._world.direct.set(
                    session_key(session), json.dumps(value), px=_FOREIGN_TTL, xx=only_if_there
                )
            )
        except (redis.RedisError, TimeoutError):
            return False

    def _subject(self) -> str:
        return f"u{self._random.randrange(4)}"

    def _know(self, session: str, version: int) -> None:
        self._world.versions[session] = version
        self._world.sessions.append(session)

    def _record(self, kind: str, started: float, result: Result, **facts: object) -> None:
        made = Operation(kind, started, clock(), result, **facts)  # type: ignore[arg-type]
        self._world.operations.append(made)


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
    valkey: Valkey, seed: int, *, open_store: OpenStore = open_worker_store
) -> History:
    """Make the history of *seed*."""
    chooser = random.Random(seed)
    lease = chooser.choice((0.04, 0.08))
    gateways = chooser.choice((2, 3))
    duration = chooser.uniform(0.15, 0.3)
    faults = plan(chooser)
    async with small_world(valkey, gateways=gateways, lease=lease, open_store=open_store) as world:
        clients = [Client(world, f"{seed} client {number}") for number in range(4)]
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
        return History(lease, operations, faults_done, healed_at, RECOVERY, one_worker_each=True)
