"""Short histories: several gateways' stores in one process, on a real server, behind relays.

How this works. A history is made from its seed: which faults come when, and what each client does.
`World` is the running system, `Client` uses it and records (`bearers` uses tokens), and the nemesis
of `small_histories` breaks it. The server and the
sockets are real, so a seed replays the plan and not every microsecond: what was found once is found
again within a few runs, as a rule at the first.

Each gateway is a `RedisSessionStore` as a worker keeps it, with a relay of its own between it and
the server. The lease is short, so that a history of 200 ms has room for several.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import redis.asyncio

from auth.io.session_store import RedisSessionStore, open_session_store
from auth.ports import AuthUnavailable, Ended
from auth.session import SessionRecord, digest, new_cookie_value, session_key
from config.model import SessionSettings
from tests.conftest import Valkey
from tests.faults.history import Fault, Operation, Result, clock
from tests.relay import Relay

# What is used at all is reported to the store (a touch) in histories that are this short.
IDLE_TIMEOUT = 10.0
RECOVERY = 1.5
_FOREIGN_TTL = 5000

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
        self._seed = seed
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

    def _gateway_that_dies(self) -> int:
        return len(self._world.operations) % len(self._world.stores)

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
            if len(self._world.operations) % 3:
                await self._world.direct.delete(session_key(session))
            else:  # by a gateway that dies before it has told anybody
                store = self._world.stores[self._gateway_that_dies()]
                await store._end_records([session], "logout")
        except (redis.RedisError, AuthUnavailable):
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
