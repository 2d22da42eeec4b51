"""Failovers by real Sentinel, with passwords of the store and of Sentinel, and with TLS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from auth.decision import Reason
from auth.io.session_store import RedisSessionStore, open_session_store
from auth.ports import AuthUnavailable
from auth.revocation import ended_key
from auth.session import SessionRecord, digest, session_key
from tests.auth.io.conftest import SETTINGS, leased
from tests.auth.session_store_contract import record
from tests.gateway.io.test_tls import make_certificate
from tests.sentinel import WatchedStore, watched_store

pytestmark = pytest.mark.wire
T = TypeVar("T")


async def until_back(act: Callable[[], Awaitable[T]]) -> T:
    """Do *act* as soon as the store is back."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(AuthUnavailable):
                return await act()
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def workers(url: str, count: int) -> AsyncIterator[list[RedisSessionStore]]:
    """Open *count* stores as workers do, and close them."""
    async with contextlib.AsyncExitStack() as stack:
        stores = []
        for _ in range(count):
            stores.append(await open_session_store(url, SETTINGS, worker=True))
            stack.push_async_callback(stores[-1].close)
            await leased(stores[-1])
        yield stores


async def replicated(watched: WatchedStore, *keys: str) -> None:
    """Wait until the replica has *keys*."""
    async with asyncio.timeout(20):
        while watched.replica.exists(*keys) != len(keys):
            await asyncio.sleep(0.01)


async def fail_over(watched: WatchedStore) -> None:
    watched.kill_primary()
    await asyncio.to_thread(watched.wait_promoted)


@pytest.mark.parametrize("kind", ["passwords", "passwords and TLS"])
async def test_sessions_and_endings_outlive_a_failover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kind: str
) -> None:
    certificate = None
    if kind == "passwords and TLS":
        request.getfixturevalue("server_with_tls")
        certificate = make_certificate(tmp_path, "store", "127.0.0.1")
        monkeypatch.setenv("SSL_CERT_FILE", certificate.cert_file)
    with watched_store(tmp_path, tls=certificate) as watched:
        async with workers(watched.start(), 1) as (store,):
            live, ended = [digest(await store.create(record())) for _ in range(2)]
            await store.find(live)
            await store.end(ended, reason="logout")
            assert await store.commands.ping()
            await replicated(watched, session_key(live), ended_key(ended))
            await fail_over(watched)
            found = await until_back(lambda: store.find(live))
            assert isinstance(found, SessionRecord)
            assert await store.find(ended) == Reason.SESSION_ENDED
            # Endings go over a link of their own, which may find the new primary a moment later.
            assert (await until_back(lambda: store.end(live, reason="logout"))).ended == 1
            assert await until_back(store.tell_of_expired) == (0, 0)


async def test_what_the_new_primary_never_heard_to_have_ended_stays_ended(tmp_path: Path) -> None:
    with watched_store(tmp_path) as watched:
        url = watched.start()
        async with workers(url, 2) as (one, other):
            ended, live = [digest(await one.create(record())) for _ in range(2)]
            assert isinstance(await other.find(ended), SessionRecord)
            await replicated(watched, session_key(ended), session_key(live))
            watched.lose_replication()
            logout = await one.end(ended, reason="logout")
            assert (logout.ended, logout.acknowledged) == (1, 2)
            assert watched.replica.exists(session_key(ended)), "the replica must lack the ending"
            await fail_over(watched)
            for store in (one, other):
                assert isinstance(await until_back(partial(store.find, live)), SessionRecord)
                assert await store.find(ended) == Reason.SESSION_ENDED
            async with workers(url, 1) as (newcomer,):
                assert await newcomer.find(ended) == Reason.SESSION_ENDED
            assert watched.primary.exists(ended_key(ended))
            assert not watched.primary.exists(session_key(ended))
