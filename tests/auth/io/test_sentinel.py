"""A failover by real Sentinel: a primary, a replica and one sentinel."""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import redis

from auth.decision import Reason
from auth.io.embedded import EmbeddedStore, find_server
from auth.io.session_store import open_session_store
from auth.ports import AuthUnavailable
from auth.session import SessionRecord, digest
from tests.auth.io.conftest import SETTINGS, leased
from tests.auth.session_store_contract import record

pytestmark = pytest.mark.wire
T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[EmbeddedStore, str]]:
    """A primary that a sentinel watches, with one replica, and the store URL."""
    ports = [free_port() for _ in range(3)]
    servers: list[EmbeddedStore] = []
    for number, port in enumerate(ports[:2]):
        options = ["--port", str(port), "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
        options += ["--replicaof", f"127.0.0.1 {ports[0]}"] if number else []
        servers.append(EmbeddedStore(tmp_path / str(number), options=tuple(options)))
        servers[-1].start()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {ports[2]}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor main 127.0.0.1 {ports[0]} 1\n"
        "sentinel down-after-milliseconds main 500\n"
        "sentinel failover-timeout main 3000\n"
    )
    sentinel = subprocess.Popen(
        [find_server(), str(configuration), "--sentinel"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with redis.Redis(port=ports[2], protocol=2) as client:
            until = time.monotonic() + 20
            while not knows_replica(client):
                assert time.monotonic() < until
                time.sleep(0.05)
        yield servers[0], f"redis+sentinel://127.0.0.1:{ports[2]}/main"
    finally:
        sentinel.terminate()
        sentinel.wait()
        for server in servers:
            server.stop()


def knows_replica(sentinel: redis.Redis) -> bool:
    try:
        (replica,) = sentinel.sentinel_slaves("main")
    except (redis.RedisError, ValueError):
        return False
    return bool(replica["master-link-status"] == "ok")


async def until_back(act: Callable[[], Awaitable[T]]) -> T:
    """Do *act* as soon as the store is back."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(AuthUnavailable):
                return await act()
            await asyncio.sleep(0.05)


async def test_sessions_and_endings_outlive_a_failover(watched: tuple[EmbeddedStore, str]) -> None:
    primary, url = watched
    store = await open_session_store(url, SETTINGS, worker=True)
    try:
        await leased(store)
        live, ended = [digest(await store.create(record())) for _ in range(2)]
        await store.find(live)
        await store.end(ended, reason="logout")
        await store.commands.execute_command("WAIT", 1, 1000)  # type: ignore[no-untyped-call]
        await asyncio.to_thread(primary.stop)
        assert isinstance(await until_back(lambda: store.find(live)), SessionRecord)
        assert await store.find(ended) == Reason.SESSION_ENDED
        await leased(store)
        assert store.peek(live) is not None or await store.find(live)
        # Endings go over a link of their own, which may find the new primary a moment later.
        assert (await until_back(lambda: store.end(live, reason="logout"))).ended == 1
    finally:
        await store.close()
