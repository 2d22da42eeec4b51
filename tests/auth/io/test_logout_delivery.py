"""Notices of ended sessions, through a real store, to a service that fails in the usual ways."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from msgspec.structs import replace

from auth.io import leading, logout_delivery
from auth.io.logout_delivery import LogoutDelivery
from auth.io.session_store import RedisSessionStore, open_session_store
from auth.io.signing_keys import SigningKeys
from auth.revocation import EVENTS_KEY
from auth.session import digest
from config.model import Assertion, Configuration, Endpoint, IdentityHeaders, Upstream
from tests.auth.io.conftest import SETTINGS
from tests.auth.login.conftest import configured
from tests.auth.session_store_contract import record
from tests.conftest import Valkey

pytestmark = pytest.mark.wire
ISSUER = "https://gateway.example"


class Service:
    """A backend that is told; it answers as it is set to."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.status = 200
        self.hangs = False
        self.news = asyncio.Event()
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        form = await request.post()
        claims = jwt.decode(str(form["logout_token"]), options={"verify_signature": False})
        self.told.append({"path": request.path, "answered": self.status, **claims})
        self.news.set()
        if self.hangs:
            await asyncio.sleep(3600)
        return web.Response(status=self.status)

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(15):
            while len(self.told) < count:
                self.news.clear()
                await self.news.wait()


@asynccontextmanager
async def listening(service: Service, path: str = "") -> AsyncIterator[Service]:
    app = web.Application()
    app.add_routes([web.post("/{tail:.*}", service.answer)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    if path:
        await web.UnixSite(runner, path).start()
    else:
        await web.TCPSite(runner, "127.0.0.1", service.port).start()
        service.port = runner.addresses[0][1]
    try:
        yield service
    finally:
        await runner.cleanup()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with listening(Service()) as running:
        yield running


@pytest.fixture
async def store(valkey: Valkey) -> AsyncIterator[RedisSessionStore]:
    store = await open_session_store(valkey.url, SETTINGS, worker=False)
    # The registry is as young as the test: do not have every ending wait for that.
    valkey.client.hset("doorward:workers", "~", "0")
    store._barrier.uncertain_until = 0.0
    yield store
    await store.close()


def telling(*endpoints: Endpoint, on_logout: str = "/ended", name: str = "app") -> Configuration:
    identity = IdentityHeaders((), Assertion(issuer=ISSUER))
    upstream = Upstream(name, endpoints, on_logout=on_logout)
    return replace(configured(), identity=identity, upstreams={name: upstream})


Deliver = Callable[[Configuration], Awaitable[LogoutDelivery]]


@pytest.fixture
async def deliver(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deliver]:
    """Start a gateway's delivery, with all its waits shortened."""
    monkeypatch.setattr(logout_delivery, "LEADS_FOR", 0.6)
    monkeypatch.setattr(logout_delivery, "_RENEW", 0.1)
    monkeypatch.setattr(logout_delivery, "_POLL", 0.01)
    monkeypatch.setattr(logout_delivery, "_BACKOFF", (0.02, 0.05))
    started: list[tuple[RedisSessionStore, SigningKeys, LogoutDelivery]] = []

    async def start(configuration: Configuration) -> LogoutDelivery:
        store = await open_session_store(valkey.url, SETTINGS, worker=False)
        keys = SigningKeys(store.commands)
        await keys.start()
        delivery = LogoutDelivery(store.commands, keys, lambda: configuration)
        await delivery.start()
        started.append((store, keys, delivery))
        for name, upstream in configuration.upstreams.items():
            if upstream.on_logout:
                await _group_of(store, name)
        return delivery

    yield start
    for store, keys, delivery in started:
        await delivery.close()
        await keys.close()
        await store.close()


async def _group_of(store: RedisSessionStore, name: str) -> None:
    async with asyncio.timeout(5):
        while True:
            exists = await store.commands.exists(EVENTS_KEY)
            groups = await store.commands.xinfo_groups(EVENTS_KEY) if exists else []
            if any(group["name"] == f"on_logout:{name}".encode() for group in groups):
                return
            await asyncio.sleep(0.01)


async def ended_session(store: RedisSessionStore, subject: str = "u1") -> str:
    name = digest(await store.create(record(subject)))
    await store.end(name, reason="logout")
    return name


async def pending(store: RedisSessionStore, name: str = "app") -> int:
    waiting = await store.commands.xpending(EVENTS_KEY, f"on_logout:{name}")
    return int(waiting["pending"])


async def confirmed(store: RedisSessionStore) -> None:
    async with asyncio.timeout(10):
        while await pending(store):
            await asyncio.sleep(0.01)


async def test_a_registered_service_is_told_of_an_ended_session(
    deliver: Deliver, service: Service, store: RedisSessionStore
) -> None:
    delivery = await deliver(telling(Endpoint("http", "127.0.0.1", service.port, "/base")))
    name = await ended_session(store)
    await service.wait_for(1)
    await confirmed(store)
    (told,) = service.told
    assert (told["path"], told["sub"], told["sid"]) == ("/base/ended", "u1", name)
    assert (told["iss"], told["aud"]) == (ISSUER, "app")
    assert delivery.counters == {("app", "delivered"): 1}


async def test_a_session_that_begins_is_nobodys_business(
    deliver: Deliver, service: Service, store: RedisSessionStore
) -> None:
    await deliver(telling(Endpoint("http", "127.0.0.1", service.port)))
    await store.create(record("u1"))
    await ended_session(store, "u2")
    await service.wait_for(1)
    await confirmed(store)
    assert [told["sub"] for told in service.told] == ["u2"]


@pytest.mark.parametrize("fault", ["status 500", "status 302", "hangs", "not there"])
async def test_a_service_that_fails_is_told_again_and_knows_that_it_is_the_same_notice(
    deliver: Deliver, store: RedisSessionStore, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logout_delivery, "_TIMEOUT", aiohttp.ClientTimeout(0.2))
    service = Service()
    async with listening(service):
        delivery = await deliver(telling(Endpoint("http", "127.0.0.1", service.port)))
        service.status = int(fault[7:]) if fault.startswith("status") else 200
        service.hangs = fault == "hangs"
        if fault != "not there":
            await ended_session(store)
            await service.wait_for(2)
            service.status, service.hangs = 200, False
            await confirmed(store)
    if fault == "not there":
        await ended_session(store)
        async with asyncio.timeout(5):
            while delivery.counters["app", "failed"] < 2:
                await asyncio.sleep(0.01)
        async with listening(service):
            await service.wait_for(1)
            await confirmed(store)
    assert len({told["jti"] for told in service.told}) == 1
    assert delivery.counters["app", "delivered"] == 1
    assert delivery.counters["app", "failed"] >= 2


async def test_one_service_that_is_down_keeps_no_other_waiting(
    deliver: Deliver, service: Service, store: RedisSessionStore
) -> None:
    configuration = telling(Endpoint("http", "127.0.0.1", service.port))
    down = Upstream("down", (Endpoint("http", "127.0.0.1", 1),), on_logout="/x")
    both = replace(configuration, upstreams={**configuration.upstreams, "down": down})
    await deliver(both)
    for _ in range(30):
        await ended_session(store)
    await service.wait_for(30)
    await confirmed(store)
    assert await pending(store, "down") > 0


async def test_of_several_gateways_one_delivers(
    deliver: Deliver, service: Service, store: RedisSessionStore
) -> None:
    settings = telling(Endpoint("http", "127.0.0.1", service.port))
    deliveries = [await deliver(settings) for _ in range(3)]
    for _ in range(20):
        await ended_session(store)
    await service.wait_for(20)
    await confirmed(store)
    assert sorted(each.counters["app", "delivered"] for each in deliveries) == [0, 0, 20]
    assert len({told["jti"] for told in service.told}) == len(service.told) == 20


@pytest.mark.parametrize("when", ["while the service thinks", "before anything is read"])
async def test_what_a_dead_gateway_had_taken_is_told_by_another(
    deliver: Deliver,
    service: Service,
    store: RedisSessionStore,
    when: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It dies without a word: nothing is given back.
    monkeypatch.setattr(leading, "_RESIGN", "return 0")
    settings = telling(Endpoint("http", "127.0.0.1", service.port))
    first = await deliver(settings)
    if when == "while the service thinks":
        service.hangs = True
        await ended_session(store)
        await service.wait_for(1)
    await first.close()
    service.hangs = False
    told_before = len(service.told)
    name = await ended_session(store)
    second = await deliver(settings)
    wanted = 2 if told_before else 1
    await service.wait_for(told_before + wanted)
    await confirmed(store)
    assert name in {told["sid"] for told in service.told}
    assert second.counters["app", "delivered"] == wanted


async def test_a_notice_that_cannot_be_delivered_in_time_is_given_up_and_counted(
    deliver: Deliver, service: Service, store: RedisSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logout_delivery, "LIVES_FOR", 0.3)
    service.status = 503
    delivery = await deliver(telling(Endpoint("http", "127.0.0.1", service.port)))
    await ended_session(store)
    await service.wait_for(1)
    await confirmed(store)
    assert delivery.counters["app", "expired"] == 1
    assert delivery.counters["app", "delivered"] == 0


async def test_a_stream_that_was_lost_is_taken_up_again(
    deliver: Deliver, service: Service, store: RedisSessionStore, valkey: Valkey
) -> None:
    await deliver(telling(Endpoint("http", "127.0.0.1", service.port)))
    valkey.flush()
    name = await ended_session(store)
    await service.wait_for(1)
    assert service.told[0]["sid"] == name


async def test_an_absolute_url_and_a_unix_socket_are_told_too(
    deliver: Deliver, service: Service, store: RedisSessionStore, tmp_path: Path
) -> None:
    socket = str(tmp_path / "s")
    url = f"http://127.0.0.1:{service.port}/elsewhere"
    configuration = telling(Endpoint("http", "127.0.0.1", 1), on_logout=url, name="far")
    near = telling(Endpoint("unix", socket), name="near")
    upstreams = {**configuration.upstreams, **near.upstreams}
    async with listening(Service(), socket) as local:
        await deliver(replace(configuration, upstreams=upstreams))
        await ended_session(store)
        await service.wait_for(1)
        await local.wait_for(1)
    assert (service.told[0]["path"], service.told[0]["aud"]) == ("/elsewhere", "far")
    assert (local.told[0]["path"], local.told[0]["aud"]) == ("/ended", "near")


async def test_nothing_is_asked_of_the_store_when_nobody_wants_to_be_told(
    deliver: Deliver, store: RedisSessionStore
) -> None:
    delivery = await deliver(configured())
    await asyncio.sleep(0.1)
    assert delivery._outboxes == {}
    assert not await store.commands.exists(EVENTS_KEY)
