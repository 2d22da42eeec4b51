"""Sessions that end by themselves are told of, once, whatever goes on beside it."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from auth.io import expiry
from auth.io.connection import Command, Reply
from auth.io.expiry import ExpiryWatch
from auth.io.session_store import RedisSessionStore
from auth.ports import AuthUnavailable
from auth.revocation import EVENTS_KEY, EXPIRING_FACTS_KEY, EXPIRING_KEY, ended_key
from auth.session import digest, session_key
from config.model import SessionSettings
from tests.auth.io.conftest import Open
from tests.auth.session_store_contract import record
from tests.conftest import Valkey

pytestmark = pytest.mark.wire
SHORT = SessionSettings(cookie_name="doorward", secure=False, lease=0.3, idle_timeout=0.05)
HOUR = 3600.0


def told(valkey: Valkey) -> list[tuple[str, str, str]]:
    """Return what the stream says of endings: session, subject, reason."""
    entries: Any = valkey.client.xrange(EVENTS_KEY)
    return [
        tuple(fields[name].decode() for name in (b"session", b"subject", b"reason"))
        for _, fields in entries
        if fields[b"event"] == b"session.ended"
    ]


def expected(valkey: Valkey) -> dict[bytes, float]:
    entries: Any = valkey.client.zrange(EXPIRING_KEY, 0, -1, withscores=True)
    facts: Any = valkey.client.hgetall(EXPIRING_FACTS_KEY)
    found = dict(entries)
    assert facts.keys() == found.keys(), "the set and what is told of it belong together"
    return found


async def gone(valkey: Valkey, name: str) -> None:
    async with asyncio.timeout(5):
        while valkey.client.exists(session_key(name)):
            await asyncio.sleep(0.01)


async def short_lived(store: RedisSessionStore, valkey: Valkey, **fields: Any) -> str:
    """Make a session and let it end by itself."""
    name = digest(await store.create(record(**fields)))
    await gone(valkey, name)
    store.wall = lambda: time.time() + 0.1  # the last of its time to live is rounded
    return name


async def test_a_session_that_nobody_used_is_told_as_idle(open_store: Open, valkey: Valkey) -> None:
    store = await open_store(settings=SHORT, worker=False)
    name = await short_lived(store, valkey, subject="a person")
    assert await store.tell_of_expired() == (1, 1)
    assert told(valkey) == [(name, "a person", "idle")]
    assert expected(valkey) == {}


async def test_a_session_whose_time_is_over_is_told_as_expired(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store(worker=False)
    name = await short_lived(store, valkey, lives_for=0.05)
    await store.tell_of_expired()
    assert told(valkey) == [(name, "u1", "expired")]


async def test_a_session_that_is_used_goes_on_and_is_looked_at_when_it_would_end_then(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store(worker=False)
    name = digest(await store.create(record(lives_for=4 * HOUR)))
    (before,) = expected(valkey).values()
    valkey.client.expire(session_key(name), 3 * 3600)
    store.wall = lambda: before / 1000 + 1
    assert await store.tell_of_expired() == (1, 0)
    assert told(valkey) == []
    (after,) = expected(valkey).values()
    assert after == pytest.approx(before + 3 * HOUR * 1000, abs=10_000)
    assert await store.tell_of_expired() == (0, 0)


async def test_a_session_that_was_logged_out_is_told_by_the_logout_alone(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store(worker=False)
    name = digest(await store.create(record()))
    await store.end(name, reason="signed_out")
    assert expected(valkey) == {}
    store.wall = lambda: time.time() + 24 * HOUR
    await store.tell_of_expired()
    assert told(valkey) == [(name, "u1", "signed_out")]


async def test_a_logout_after_the_record_expired_is_told_once_with_its_reason(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store(settings=SHORT, worker=False)
    name = await short_lived(store, valkey)
    assert (await store.end(name, reason="signed_out")).ended == 0
    assert told(valkey) == []
    await store.tell_of_expired()
    await store.tell_of_expired()
    assert told(valkey) == [(name, "u1", "signed_out")]


async def test_a_logout_between_the_look_and_the_telling_is_told_once(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store(worker=False)
    name = digest(await store.create(record()))
    due_at = time.time() + 24 * HOUR

    async def and_meanwhile(commands: Sequence[Command]) -> list[Reply]:
        replies = await store._call_all(commands)
        if commands and commands[0][0] == "MGET":
            # What the sweep has read says that it is alive and put off; then it ends.
            await store.end(name, reason="signed_out")
        return replies

    await expiry.tell_of_expired(and_meanwhile, now=due_at)
    assert told(valkey) == [(name, "u1", "signed_out")]
    assert expected(valkey) == {}, "what has ended is not expected again"


async def test_gateways_that_look_at_the_same_time_tell_once(
    open_store: Open, valkey: Valkey
) -> None:
    stores = [await open_store(settings=SHORT, worker=False) for _ in range(3)]
    for store in stores[1:]:
        store.wall = lambda: time.time() + 0.1
    name = await short_lived(stores[0], valkey)
    looked = await asyncio.gather(*(store.tell_of_expired() for store in stores))
    assert sum(count for _, count in looked) == 1
    assert told(valkey) == [(name, "u1", "idle")]


async def test_a_gateway_that_dies_after_the_look_leaves_it_to_the_next(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store(settings=SHORT, worker=False)
    name = await short_lived(store, valkey)

    async def dies(commands: Sequence[Command]) -> list[Reply]:
        if commands and commands[0][0] == "EVAL":
            raise AuthUnavailable("killed")
        return await store._call_all(commands)

    with pytest.raises(AuthUnavailable):
        await expiry.tell_of_expired(dies, now=store.wall())
    assert told(valkey) == []
    await store.tell_of_expired()
    assert told(valkey) == [(name, "u1", "idle")]


async def test_a_record_of_another_writer_is_told_when_somebody_used_it(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store()
    used, unused = digest("used"), digest("unused")
    now = time.time()
    value = {"v": 1, "subject": "theirs", "created_at": now, "expires_at": now + 3600}
    for name in (used, unused):
        valkey.client.set(session_key(name), json.dumps(value), ex=60)
    await store.find(used)
    async with asyncio.timeout(5):
        while not expected(valkey):
            await asyncio.sleep(0.01)
    valkey.client.delete(session_key(used), session_key(unused))
    store.wall = lambda: now + 61
    await store.tell_of_expired()
    assert told(valkey) == [(used, "theirs", "idle")]


async def test_a_record_without_a_time_to_live_is_told_when_its_time_is_over(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store(worker=False)
    name = digest(await store.create(record(lives_for=HOUR)))
    valkey.client.persist(session_key(name))
    store.wall = lambda: time.time() + 0.9 * HOUR
    assert await store.tell_of_expired() == (1, 0)
    store.wall = lambda: time.time() + 1.1 * HOUR
    assert await store.tell_of_expired() == (1, 1)
    assert told(valkey) == [(name, "u1", "expired")]


@pytest.mark.parametrize("kind", ["no string", "no record"])
async def test_what_cannot_be_read_does_not_stand_in_the_way(
    open_store: Open, valkey: Valkey, kind: str
) -> None:
    store = await open_store(settings=SHORT, worker=False)
    broken = digest(await store.create(record("broken")))
    whole = await short_lived(store, valkey, subject="whole")
    valkey.client.delete(session_key(broken))
    if kind == "no string":
        valkey.client.hset(session_key(broken), "a", "b")
        valkey.client.hset(ended_key(broken), "a", "b")
    else:
        valkey.client.set(session_key(broken), "junk")
    await store.tell_of_expired()
    assert {subject for _, subject, _ in told(valkey)} == {"broken", "whole"}
    assert whole in {name for name, _, _ in told(valkey)}


async def test_more_than_a_page_is_told_in_pages(
    open_store: Open, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "_PAGE", 3)
    store = await open_store(settings=SHORT, worker=False)
    names = {await short_lived(store, valkey, subject=str(number)) for number in range(4)}
    assert await store.tell_of_expired() == (3, 3)
    assert await store.tell_of_expired() == (1, 1)
    assert {name for name, _, _ in told(valkey)} == names


class TestTheWatch:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(expiry, "_EVERY", 0.05)

    async def test_it_tells_without_being_asked(self, open_store: Open, valkey: Valkey) -> None:
        store = await open_store(settings=SHORT, worker=False)
        watch = ExpiryWatch(store.tell_of_expired, store.commands)
        await watch.start()
        name = digest(await store.create(record()))
        async with asyncio.timeout(10):
            while not watch.told:
                await asyncio.sleep(0.01)
        await watch.close()
        assert told(valkey) == [(name, "u1", "idle")]

    async def test_one_at_a_time_and_the_next_when_it_stops(
        self, open_store: Open, valkey: Valkey
    ) -> None:
        store = await open_store(worker=False)
        looks = [0, 0]
        looked = asyncio.Event()

        def counting(number: int) -> ExpiryWatch:
            async def look() -> tuple[int, int]:
                looks[number] += 1
                looked.set()
                return 0, 0

            return ExpiryWatch(look, store.commands)

        async def next_look() -> None:
            looked.clear()
            async with asyncio.timeout(10):
                await looked.wait()

        first, second = counting(0), counting(1)
        await first.start()
        await next_look()
        await second.start()
        for _ in range(5):
            await next_look()
        assert looks[1] == 0
        await first.close()
        await next_look()
        assert looks[1] > 0
        await second.close()

    async def test_an_outage_ends_nothing_but_the_look(
        self, open_store: Open, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = await open_store(worker=False)
        outcomes: list[Exception | tuple[int, int]] = [
            AuthUnavailable("out"),
            AuthUnavailable("out"),
            (0, 0),
            AuthUnavailable("out"),
        ]
        over = asyncio.Event()

        async def look() -> tuple[int, int]:
            if not outcomes:
                over.set()
                return 0, 0
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        watch = ExpiryWatch(look, store.commands)
        await watch.start()
        async with asyncio.timeout(10):
            await over.wait()
        await watch.close()
        assert [
            each.getMessage() for each in caplog.records if "not told" in each.getMessage()
        ] == ["ends of sessions by themselves are not told: out"] * 2
