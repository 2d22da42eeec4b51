"""No more sessions than may be, over two gateways."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import time
from typing import Any

import msgspec
import pytest

from auth.io.session_store import RedisSessionStore, open_session_store
from auth.ports import TooManySessions
from auth.session import SessionRecord, digest
from config.model import SessionSettings
from tests.conftest import Valkey

LIMITED = SessionSettings("doorward", secure=False, max_sessions=3)
Stores = tuple[RedisSessionStore, RedisSessionStore]


@pytest.fixture
async def stores(valkey: Valkey, request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    """Two gateways on one store."""
    refuse = getattr(request, "param", "end_oldest") == "refuse"
    settings = msgspec.structs.replace(LIMITED, refuse_more=refuse)
    async with AsyncExitStack() as stack:
        opened = [await open_session_store(valkey.url, settings, worker=True) for _ in range(2)]
        for store in opened:
            stack.push_async_callback(store.close)
        yield opened[0], opened[1]


def record(age: float = 0.0, subject: str = "u1") -> SessionRecord:
    now = time()
    return SessionRecord(1, subject, now - age, now + 3600 - age)


async def alive(store: RedisSessionStore, cookies: list[str]) -> list[str]:
    found = [await store.find(digest(cookie)) for cookie in cookies]
    return [
        cookie for cookie, each in zip(cookies, found, strict=True) if not isinstance(each, str)
    ]


async def test_the_oldest_session_gives_way_everywhere_and_the_event_says_why(
    stores: Stores, valkey: Valkey
) -> None:
    one, two = stores
    cookies = [await one.create(record(age)) for age in (300, 200, 100)]
    assert await alive(two, cookies) == cookies
    cookies.append(await two.create(record()))
    for store in stores:
        assert await alive(store, cookies) == cookies[1:]
    entries: Any = valkey.client.xrange("doorward:events")
    ended = entries[-1][1]
    assert (ended[b"event"], ended[b"reason"]) == (b"session.ended", b"too_many_sessions")
    assert ended[b"session"].decode() == digest(cookies[0])


@pytest.mark.parametrize("stores", ["refuse"], indirect=True)
async def test_the_new_session_is_refused_where_that_is_wished(stores: Stores) -> None:
    one, two = stores
    cookies = [await one.create(record(age)) for age in (300, 200, 100)]
    with pytest.raises(TooManySessions):
        await two.create(record())
    assert await alive(two, cookies) == cookies
    assert len(await two.sessions_of("u1")) == 3
    await two.end(digest(cookies[0]), reason="signed_out")
    cookies.append(await two.create(record()))
    assert await alive(one, cookies) == cookies[1:]


@pytest.mark.parametrize("stores", ["end_oldest", "refuse"], indirect=True)
async def test_sessions_that_have_ended_take_no_seat(stores: Stores, valkey: Valkey) -> None:
    one, two = stores
    cookies = [await one.create(record(age)) for age in (400, 300, 200)]
    await one.end(digest(cookies[1]), reason="signed_out")
    valkey.client.delete(f"doorward:session:{{{digest(cookies[2])}}}")
    cookies += [await two.create(record(100)), await two.create(record())]
    assert await alive(one, cookies) == [cookies[0], *cookies[3:]]


@pytest.mark.parametrize("stores", ["end_oldest", "refuse"], indirect=True)
async def test_many_at_once_on_two_gateways_leave_as_many_as_may_be(stores: Stores) -> None:
    creating = [stores[n % 2].create(record(n)) for n in range(20)]
    results = await asyncio.gather(*creating, return_exceptions=True)
    cookies = [each for each in results if isinstance(each, str)]
    assert all(isinstance(each, str | TooManySessions) for each in results)
    for store in stores:
        assert len(await alive(store, cookies)) == 3
        assert len(await store.sessions_of("u1")) == 3


async def test_a_clock_that_is_behind_does_not_push_out_the_new_session(stores: Stores) -> None:
    one, two = stores
    cookies = [await one.create(record()) for _ in range(3)]
    cookies.append(await two.create(record(900)))
    assert await alive(one, cookies) == cookies[1:]


async def test_each_subject_is_counted_by_itself(stores: Stores) -> None:
    cookies = [await stores[0].create(record(subject=f"u{n}")) for n in range(5)]
    assert await alive(stores[1], cookies) == cookies


async def test_without_a_limit_there_is_none(valkey: Valkey) -> None:
    store = await open_session_store(
        valkey.url, msgspec.structs.replace(LIMITED, max_sessions=0), worker=True
    )
    cookies = [await store.create(record(n)) for n in range(6)]
    assert await alive(store, cookies) == cookies
    await store.close()
