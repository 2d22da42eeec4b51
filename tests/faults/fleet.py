"""Whole gateways under faults: processes, workers, a real server, and relays between them.

The same checker reads what these clients record. Here a gateway is `doorward run` with several
workers, a client knows nothing but HTTP, and the nemesis may stop or kill any process.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import redis.asyncio

from auth.io.embedded import EmbeddedStore
from auth.session import digest, new_cookie_value, session_key
from tests.end_to_end.backend import Backend, running_backend, sent_fields
from tests.end_to_end.running import Gateway, free_port
from tests.faults.history import Fault, History, Operation, Result, clock
from tests.relay import BOTH, Direction, Relay
from tests.sentinel import WatchedStore
from tests.store_server import with_debugging

LEASE = 0.3
WORKERS = 2
READY_SECONDS = 30.0
# From when all workers are there again: how soon that is, is the machine's and Python's affair.
RECOVERY = 2.0
PATIENCE = 2.5
_TOKEN = "an-admin-token-of-the-tests"
_ADMIN = {"Authorization": f"Bearer {_TOKEN}"}
_DIRECTIONS: tuple[tuple[Direction, ...], ...] = (("from_store",), ("to_store",), BOTH)

ROUTES = """\
version: 1
server:
  listen: 127.0.0.1:{port}
  public_url: http://127.0.0.1:{port}
  workers: {workers}
admin: {{listen: "127.0.0.1:{admin_port}", token: {token}}}
store: {{url: "{store}"}}
session: {{lease: {lease}ms}}
upstreams: {{backend: {backend}}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: backend, access: signed-in}}
  - id: kept
    match: {{path: /kept/*}}
    upstream: backend
    access: signed-in
    on_store_outage: {{serve_cached: 60s}}
"""


class Store:
    """The server, which may be killed and started again on its data."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        options = ("--port", str(self.port), "--bind", "127.0.0.1", *with_debugging())
        self._server = EmbeddedStore(directory, options=options)

    def start(self) -> str:
        return self._server.start()

    def stop(self) -> None:
        if self._server.pid is not None:
            os.kill(self._server.pid, signal.SIGCONT)
        self._server.stop()

    @property
    def pid(self) -> int:
        assert self._server.pid is not None
        return self._server.pid

    def client(self) -> redis.asyncio.Redis:
        """Return a client of the server, as an operator uses it."""
        return redis.asyncio.Redis(port=self.port, protocol=2, socket_timeout=5)


class Fleet:
    """Gateways on one store, and the history that is being made."""

    def __init__(self, store: Store | WatchedStore, backend: Backend) -> None:
        self.store = store
        self.backend = backend
        self.relays: list[Relay] = []
        self.gateways: list[Gateway] = []
        self.operations: list[Operation] = []
        self.faults: list[Fault] = []
        self.cookies: dict[str, str] = {}
        """Cookie values by session, in the order of their creation."""
        self._clients: list[redis.asyncio.Redis] = []
        self.http: aiohttp.ClientSession
        self.direct: redis.asyncio.Redis

    async def workers(self) -> list[int]:
        """Return the process ids of all workers."""
        found: list[int] = []
        for gateway in self.gateways:
            async with self.http.get(f"{gateway.admin_url}/api/status", headers=_ADMIN) as answer:
                status = await answer.json()
            found += [worker["process"] for worker in status["workers"] if worker["alive"]]
        return found

    async def ready(self) -> None:
        """Wait until every gateway says that it is ready, with all its workers and its store."""
        for gateway in self.gateways:
            until, problem = clock() + READY_SECONDS, "-"
            while problem := await self._why_not_ready(gateway):
                assert clock() < until, f"{problem}\n{''.join(gateway.lines[-40:])}"
                await asyncio.sleep(0.05)

    async def _why_not_ready(self, gateway: Gateway) -> str:
        try:
            async with self.http.get(f"{gateway.admin_url}/readyz") as answer:
                said = await answer.json()
                has_all = said["workers"]["serving"] == WORKERS
                has_all &= said["store"]["connected_workers"] == WORKERS  # for "ready" one will do
                ready = answer.status == 200 and has_all
                return "" if ready else str(said)
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"{type(error).__name__} {error}"

    def connect_directly(self) -> None:
        """Use the store beside the gateways: the server that is the primary now."""
        self.direct = self.store.client()
        self._clients.append(self.direct)

    async def close_clients(self) -> None:
        """Close those of servers that are gone, too: visitors may have been using them."""
        for client in self._clients:
            await client.aclose()

    def take_history(self, healed_at: float) -> History:
        """Return what happened since the last time."""
        operations, self.operations = self.operations, []
        faults, self.faults = self.faults, []
        self.cookies = {}
        return History(LEASE, tuple(operations), tuple(faults), healed_at, RECOVERY)


@asynccontextmanager
async def running_fleet(
    directory: Path, *, gateways: int = 2, relayed: bool = True, watched: bool = False
) -> AsyncIterator[Fleet]:
    """Run gateways on a store of their own: behind relays, on its own port, or behind Sentinel."""
    async with AsyncExitStack() as stack:
        store_directory = directory / "store"
        store_directory.mkdir()
        # A busy machine must not look like a dead server: that would be a failover of its own.
        store = WatchedStore(store_directory, down_after=3) if watched else Store(store_directory)
        stack.callback(store.stop)
        url = store.start()
        fleet = Fleet(store, await stack.enter_async_context(running_backend()))
        # Each request on a connection of its own: the kernel picks a worker for it.
        fleet.http = await stack.enter_async_context(
            aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
                timeout=aiohttp.ClientTimeout(total=PATIENCE),
            )
        )
        fleet.connect_directly()
        stack.push_async_callback(fleet.close_clients)
        starting = []
        for number in range(gateways):
            if relayed and not watched:
                relay = await stack.enter_async_context(Relay(store.port))
                fleet.relays.append(relay)
                url = relay.url
            elif not watched:
                url = f"redis://127.0.0.1:{store.port}"
            home = directory / f"gateway{number}"
            home.mkdir()
            routes = ROUTES.format(
                port=free_port(),
                admin_port=free_port(),
                workers=WORKERS,
                token=_TOKEN,
                store=url,
                lease=round(LEASE * 1000),
                backend=fleet.backend.url,
            )
            (home / "routes.yaml").write_text(routes)
            # In threads: what they connect to are relays, and those run here.
            starting.append(asyncio.to_thread(Gateway, home, environment={}))
        for gateway in await asyncio.gather(*starting):
            fleet.gateways.append(gateway)
            stack.push_async_callback(asyncio.to_thread, gateway.stop)
        await fleet.ready()
        yield fleet


class Visitor:
    """A client of the fleet: does what its random generator says over HTTP, and records it."""

    def __init__(self, fleet: Fleet, seed: str) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)

    async def run(self, until: float) -> None:
        acts: list[Callable[[], object]] = [self.sign_in, self.put, self.log_out]
        acts += [self.log_out_everywhere, self.revoke, self.delete]
        while clock() < until:
            for _ in range(self._random.randint(1, 4)):
                await self.use(self._pick())
            (act,) = self._random.choices(acts, (5, 5, 6, 1.5, 3, 4))
            made = act()
            assert asyncio.iscoroutine(made)
            await made

    def _pick(self) -> str:
        sessions = list(self._fleet.cookies)
        return self._random.choice(sessions[-10:]) if sessions else ""

    def _gateway(self) -> Gateway:
        return self._random.choice(self._fleet.gateways)

    def _subject(self) -> str:
        return f"u{self._random.randrange(5)}"

    async def use(self, session: str, gateway: Gateway | None = None) -> None:
        """Send a request with the session's cookie to some worker."""
        if not session:
            return
        gateway = gateway or self._gateway()
        fields = {"Cookie": f"doorward={self._fleet.cookies[session]}"}
        started, cleared = clock(), False
        result: Result = "unknown"
        facts: dict[str, object] = {}
        try:
            async with self._fleet.http.get(f"{gateway.url}/x", headers=fields) as answer:
                body = await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            pass
        else:
            cleared = "Set-Cookie" in answer.headers
            if answer.status == 200:
                result, facts = "admitted", {"subject": sent_fields(body)["x-auth-subject"]}
            elif answer.status == 401:
                result, facts = "refused", {"reason": "session_ended"}
            else:
                result = "unavailable"
        self._record(
            "use",
            started,
            result,
            session=session,
            gateway=gateway.url,
            cleared_cookie=cleared,
            **facts,
        )

    async def look(self, session: str) -> None:
        """Use it at every gateway, more often than a gateway has workers."""
        if session:
            each = [gateway for gateway in self._fleet.gateways for _ in range(WORKERS + 1)]
            await asyncio.gather(*(self.use(session, gateway) for gateway in each))

    async def sign_in(self) -> None:
        """Create a session through the admin API, as a login service does."""
        subject, started = self._subject(), clock()
        url = f"{self._gateway().admin_url}/api/sessions"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            asked = self._fleet.http.post(url, headers=_ADMIN, json={"subject": subject})
            async with asked as answer:
                made = await answer.json()
                if answer.status == 201:
                    self._know(made["cookie"]["value"], subject, started, "create")

    async def put(self) -> None:
        """Write the record oneself."""
        value, subject, started, now = new_cookie_value(), self._subject(), clock(), time.time()
        record = {"v": 1, "subject": subject, "created_at": now, "expires_at": now + 3600}
        with contextlib.suppress(redis.RedisError):
            await self._fleet.direct.set(session_key(digest(value)), json.dumps(record), ex=600)
            self._know(value, subject, started, "put")

    async def log_out(self) -> None:
        """Log out with the session's own cookie, and look whether it is true everywhere."""
        session = self._pick()
        if not session:
            return
        await self.look(session)
        gateway = self._gateway()
        fields = {"Cookie": f"doorward={self._fleet.cookies[session]}", "Origin": gateway.url}
        url = f"{gateway.url}/.doorward/logout"
        await self._end("end", "POST", url, fields, session=session)
        await self.look(session)

    async def log_out_everywhere(self) -> None:
        """End all of a subject's, with one of them."""
        session = self._pick()
        owners = {each.session: each.subject for each in self._made()}
        if session not in owners:
            return
        gateway, subject = self._gateway(), owners[session]
        fields = {"Cookie": f"doorward={self._fleet.cookies[session]}", "Origin": gateway.url}
        url = f"{gateway.url}/.doorward/logout?everywhere=1"
        # With a session that is over already this ends nothing, and says so.
        await self._end("end_subject", "POST", url, fields, subject=subject, least=1)
        for each in [each for each, owner in owners.items() if owner == subject][-3:]:
            await self.look(each)

    async def revoke(self) -> None:
        """End one through the admin API."""
        session = self._pick()
        if session:
            url = f"{self._gateway().admin_url}/api/sessions?id={session}"
            await self._end("end", "DELETE", url, _ADMIN, session=session)
            await self.look(session)

    async def delete(self) -> None:
        """Delete the record, and look a lease later."""
        session = self._pick()
        if not session:
            return
        started = clock()
        result: Result = "ok"
        try:
            await self._fleet.direct.delete(session_key(session))
        except redis.RedisError:
            result = "unknown"
        self._record("delete", started, result, session=session)
        await asyncio.sleep(LEASE + 0.02)
        await self.look(session)

    async def look_at_everything(self) -> None:
        for session in tuple(self._fleet.cookies):
            await self.look(session)

    async def _end(
        self,
        kind: str,
        method: str,
        url: str,
        fields: dict[str, str],
        *,
        least: int = 0,
        **what: str,
    ) -> None:
        started = clock()
        result: Result = "unknown"
        said: dict[str, object] = {}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._fleet.http.request(method, url, headers=fields) as answer:
                said = await answer.json()
                if answer.status == 200:
                    ended = said["ended"]
                    assert isinstance(ended, int)
                    result = "ok" if ended >= least else "unknown"
                else:
                    result = "unavailable"
        workers = WORKERS * len(self._fleet.gateways)
        confirmed = said.get("acknowledged") == said.get("of") == workers
        self._record(kind, started, result, confirmed=confirmed, **what)

    def _made(self) -> list[Operation]:
        return [each for each in self._fleet.operations if each.kind in ("create", "put")]

    def _know(self, value: str, subject: str, started: float, kind: str) -> None:
        self._record(kind, started, "ok", session=digest(value), subject=subject)
        self._fleet.cookies[digest(value)] = value

    def _record(self, kind: str, started: float, result: Result, **facts: object) -> None:
        made = Operation(kind, started, clock(), result, **facts)  # type: ignore[arg-type]
        self._fleet.operations.append(made)


class Wrecker:
    """The nemesis of a fleet."""

    def __init__(self, fleet: Fleet, seed: str) -> None:
        self._fleet = fleet
        self._random = random.Random(seed)
        self._workers: list[int] = []
        self._store_is_hurt = asyncio.Lock()

    async def run(self, faults: Sequence[str]) -> None:
        """Cause *faults*, one after another, some at once."""
        self._workers = await self._fleet.workers()
        running: list[asyncio.Task[None]] = []
        for name in faults:
            running.append(asyncio.create_task(self._cause(name)))
            if self._random.random() < 0.7:
                await asyncio.gather(*running)
                running.clear()
        await asyncio.gather(*running)

    async def _cause(self, name: str) -> None:
        started = clock()
        with contextlib.suppress(redis.RedisError, ProcessLookupError):
            await getattr(self, name)()
        self._fleet.faults.append(Fault(name, started, clock()))
        await asyncio.sleep(self._random.uniform(0.0, 0.3))

    def _relay(self) -> Relay:
        return self._random.choice(self._fleet.relays)

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.choice((0.1, LEASE * 1.5, LEASE * 3)))

    async def stop_worker(self) -> None:
        await self._stop(self._random.choice(self._workers))

    async def stop_store(self) -> None:
        async with self._store_is_hurt:
            await self._stop(self._fleet.store.pid)

    async def _stop(self, process: int) -> None:
        os.kill(process, signal.SIGSTOP)
        try:
            await self._pause()
        finally:
            os.kill(process, signal.SIGCONT)

    async def kill_worker(self) -> None:
        process = self._random.choice(self._workers)
        self._workers.remove(process)
        os.kill(process, signal.SIGKILL)

    async def kill_store(self) -> None:
        """The server dies and starts again on what it had written."""
        async with self._store_is_hurt:
            assert isinstance(self._fleet.store, Store)
            os.kill(self._fleet.store.pid, signal.SIGKILL)
            await asyncio.sleep(self._random.choice((0.05, LEASE)))
            # On this thread: the kernel ends the server with the thread that started it.
            self._fleet.store.start()

    async def fail_over(self) -> None:
        """Sentinel makes the replica the primary, which mostly lacks the last writes."""
        store = self._fleet.store
        assert isinstance(store, WatchedStore)
        since = clock()
        if self._random.random() < 0.8:
            await asyncio.to_thread(store.lose_replication)
            await self._pause()
        started = clock()
        store.kill_primary()
        await asyncio.to_thread(store.wait_promoted)
        self._fleet.connect_directly()
        self._fleet.operations.append(Operation("rollback", started, clock(), "ok", since=since))
        # On this thread: the kernel ends the server with the thread that started it.
        store.revive()
        await asyncio.to_thread(store.wait_in_step)

    async def kill_connections(self) -> None:
        kind = self._random.choice(("pubsub", "normal"))
        await self._command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def debug_sleep(self) -> None:
        await self._command("DEBUG", "SLEEP", self._random.choice((0.1, LEASE, LEASE * 2)))

    async def flush(self) -> None:
        started = clock()
        await self._fleet.direct.flushall()
        self._fleet.operations.append(Operation("flush", started, clock(), "ok"))

    async def _command(self, *command: str | float) -> None:
        await self._fleet.direct.execute_command(*command)  # type: ignore[no-untyped-call]

    async def delay(self) -> None:
        relay = self._relay()
        relay.set_delay(self._random.choice((0.005, 0.05)), self._random.choice(_DIRECTIONS))
        await self._pause()
        relay.set_delay(0.0)

    async def hold(self) -> None:
        relay = self._relay()
        relay.hold(self._random.choice(_DIRECTIONS))
        await self._pause()
        if self._random.random() < 0.5:
            relay.release()
        else:
            relay.cut()

    async def hold_one(self) -> None:
        relay = self._relay()
        pairs = sorted(relay.pairs, key=id)
        if pairs:
            relay.hold(self._random.choice(_DIRECTIONS), [self._random.choice(pairs)])
        await self._pause()
        relay.release()

    async def refuse(self) -> None:
        relay = self._relay()
        relay.refuse = True
        relay.cut()
        await self._pause()
        relay.refuse = False


FAULTS = {
    "stop_worker": 4.0,
    "stop_store": 1.0,
    "kill_worker": 1.0,
    "kill_store": 1.0,
    "kill_connections": 2.0,
    "debug_sleep": 1.0,
    "flush": 0.3,
    "delay": 2.0,
    "hold": 3.0,
    "hold_one": 3.0,
    "refuse": 2.0,
}


async def run_round(fleet: Fleet, seed: int, faults: Sequence[str] = ()) -> History:
    """Make the history of *seed* (with *faults* instead of those it would choose)."""
    chooser = random.Random(seed)
    faults = faults or chooser.choices(list(FAULTS), list(FAULTS.values()), k=4)
    visitors = [Visitor(fleet, f"{seed} visitor {number}") for number in range(4)]
    wrecker = Wrecker(fleet, f"{seed} wrecker")
    for _ in range(3):
        await visitors[0].sign_in()
    over = asyncio.Event()

    async def cause_faults() -> None:
        await wrecker.run(faults)
        over.set()

    async def visit(visitor: Visitor) -> None:
        while not over.is_set():
            await visitor.run(clock() + 0.3)

    await asyncio.gather(cause_faults(), *map(visit, visitors))
    for relay in fleet.relays:
        relay.heal()
    await visitors[0].look_at_everything()
    await fleet.ready()
    healed_at = clock()
    await asyncio.gather(*(visitor.run(clock() + 0.3) for visitor in visitors))
    for visitor in visitors[:2]:
        await visitor.look_at_everything()
    return fleet.take_history(healed_at)
