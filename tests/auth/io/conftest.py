"""Stores on the run's real server and an issuer over real HTTP, closed after the test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from auth.io.fetching import DocumentFetcher
from auth.io.session_store import RedisSessionStore, open_session_store
from config.model import SessionSettings
from tests.auth.io.issuer import Issuer
from tests.conftest import Valkey

SETTINGS = SessionSettings(cookie_name="doorward", secure=False, lease=0.3)
Open = Callable[..., Awaitable[RedisSessionStore]]


@pytest.fixture
async def open_store(valkey: Valkey) -> AsyncIterator[Open]:
    """Open a store as a gateway would: of this run's server unless the test names another URL."""
    stores: list[RedisSessionStore] = []

    async def open_one(
        url: str = "", *, worker: bool = True, settings: SessionSettings = SETTINGS
    ) -> RedisSessionStore:
        store = await open_session_store(url or valkey.url, settings, worker=worker)
        stores.append(store)
        if worker:
            await leased(store)
        # The registry is as young as the test: do not have every ending wait for that.
        await asyncio.to_thread(valkey.client.hset, "doorward:workers", "~", "0")
        store._barrier.uncertain_until = 0.0
        return store

    yield open_one
    for store in stores:
        await store.close()


async def leased(store: RedisSessionStore) -> None:
    """Wait until the store's lease is live, if it can have one."""
    async with asyncio.timeout(10):
        while store._reader.clock() >= store._reader.cache.lease_until:
            connection = store._reader.link.connection
            if connection is not None and not connection.tracking:
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", issuer.answer)
    server = TestServer(application, host="127.0.0.1", handler_cancellation=True)
    await server.start_server()
    issuer.url = str(server.make_url("")).rstrip("/")
    yield issuer
    await server.close()


@pytest.fixture
async def fetch() -> AsyncIterator[DocumentFetcher]:
    fetcher = DocumentFetcher()
    yield fetcher
    await fetcher.close()
