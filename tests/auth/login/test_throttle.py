"""Token buckets in a real store."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from auth.login.throttle import (
    BEGINNING,
    CODES,
    LETTERS,
    LETTERS_ASKED,
    SESSIONS,
    Bucket,
    StoreThrottle,
    network_of,
)
from auth.ports import AuthUnavailable
from tests.conftest import Valkey
from tests.store_server import nowhere

WIDE = Bucket(size=1000, seconds_each=1.0)
NARROW = Bucket(size=3, seconds_each=100.0)


@pytest.fixture
async def commands(valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url, protocol=2) as client:
        yield client


async def test_attempts_beyond_the_bucket_must_wait_for_a_token(commands: Redis) -> None:
    throttle = StoreThrottle(commands, pair=NARROW, network=WIDE, account=WIDE)
    assert [await throttle.take("ada", "192.0.2.1") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert 99 < await throttle.take("ada", "192.0.2.1") <= 100


async def test_a_bucket_fills_with_time(commands: Redis) -> None:
    throttle = StoreThrottle(commands, pair=Bucket(1, 0.02), network=WIDE, account=WIDE)
    assert await throttle.take("ada", "192.0.2.1") == 0.0
    wait = await throttle.take("ada", "192.0.2.1")
    assert 0.0 < wait <= 0.02
    async with asyncio.timeout(5):
        while (wait := await throttle.take("ada", "192.0.2.1")) > 0:
            await asyncio.sleep(wait)


async def test_a_good_attempt_costs_nothing(commands: Redis) -> None:
    throttle = StoreThrottle(commands, pair=NARROW, network=WIDE, account=WIDE)
    for _ in range(10):
        assert await throttle.take("ada", "192.0.2.1") == 0.0
        await throttle.put_back("ada", "192.0.2.1")


async def test_putting_back_never_makes_a_bucket_bigger(commands: Redis) -> None:
    throttle = StoreThrottle(commands, pair=NARROW, network=WIDE, account=WIDE)
    await throttle.take("ada", "192.0.2.1")
    for _ in range(10):
        await throttle.put_back("ada", "192.0.2.1")
    waits = [await throttle.take("ada", "192.0.2.1") for _ in range(4)]
    assert [wait > 0 for wait in waits] == [False, False, False, True]


async def test_who_guesses_from_one_place_does_not_lock_the_owner_out(commands: Redis) -> None:
    throttle = StoreThrottle(commands, pair=NARROW, network=WIDE, account=Bucket(4, 100.0))
    for _ in range(50):
        await throttle.take("ada", "192.0.2.66")
    assert await throttle.take("ada", "192.0.2.1") == 0.0


async def test_one_account_is_guarded_against_many_networks(commands: Redis) -> None:
    throttle = StoreThrottle(commands, pair=NARROW, network=WIDE, account=NARROW)
    waits = [await throttle.take("ada", f"192.0.2.{host}") for host in range(5)]
    assert [wait > 0 for wait in waits] == [False, False, False, True, True]


async def test_one_network_is_guarded_against_trying_many_names(commands: Redis) -> None:
    throttle = StoreThrottle(commands, pair=WIDE, network=NARROW, account=WIDE)
    waits = [await throttle.take(f"user{number}", "192.0.2.1") for number in range(5)]
    assert [wait > 0 for wait in waits] == [False, False, False, True, True]


async def test_one_account_begins_no_sessions_without_end(commands: Redis) -> None:
    one, two = StoreThrottle(commands), StoreThrottle(commands)
    turns = [(one, two)[turn % 2] for turn in range(SESSIONS.size)]
    assert {await throttle.take_session("ada") for throttle in turns} == {0.0}
    for throttle in (one, two):
        assert 0 < await throttle.take_session("ada") <= SESSIONS.seconds_each
    assert await one.take_session("bob") == 0.0


async def test_one_network_is_guarded_against_beginning_without_end(commands: Redis) -> None:
    throttle = StoreThrottle(commands)
    started, begun = time.monotonic(), 0
    while begun < 2 * BEGINNING.size and await throttle.take_beginning("192.0.2.1") == 0.0:
        begun += 1
    filled = (time.monotonic() - started) / BEGINNING.seconds_each  # meanwhile
    assert BEGINNING.size <= begun <= BEGINNING.size + filled + 1
    assert await throttle.take_beginning("192.0.3.1") == 0.0


async def test_spelling_the_name_another_way_finds_the_same_bucket(commands: Redis) -> None:
    throttle = StoreThrottle(commands, pair=NARROW, network=WIDE, account=WIDE)
    waits = [await throttle.take(name, "192.0.2.1") for name in ("ada", "ADA", "\uff41da", " Ada")]
    assert [wait > 0 for wait in waits] == [False, False, False, True]


async def test_many_gateways_at_once_hand_out_no_token_twice(valkey: Valkey) -> None:
    async def attempt() -> float:
        async with Redis.from_url(valkey.url, protocol=2) as client:
            throttle = StoreThrottle(client, pair=NARROW, network=WIDE, account=WIDE)
            return await throttle.take("ada", "192.0.2.1")

    waits = await asyncio.gather(*(attempt() for _ in range(20)))
    assert sum(wait == 0.0 for wait in waits) == 3


async def test_the_store_holds_no_name_and_forgets_by_itself(
    commands: Redis, valkey: Valkey
) -> None:
    throttle = StoreThrottle(commands)
    await throttle.take("my-password-in-the-wrong-field", "192.0.2.1")
    keys = valkey.client.keys("*")
    assert len(keys) == 3
    assert "password" not in repr(keys)
    assert all(0 < valkey.client.pttl(key) <= 61_000 for key in keys)


async def test_a_store_that_is_gone_is_an_outage() -> None:
    async with nowhere() as client:
        throttle = StoreThrottle(client)
        with pytest.raises(AuthUnavailable):
            await throttle.take("ada", "192.0.2.1")
        with pytest.raises(AuthUnavailable):
            await throttle.put_back("ada", "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_an_address_counts_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_letters_are_bounded_by_who_they_go_to_and_who_asks(commands: Redis) -> None:
    throttle = StoreThrottle(commands)
    for number in range(LETTERS.size):
        assert await throttle.take_letter("Ada", f"192.0.2.{number}") == 0.0
    assert 0 < await throttle.take_letter("ada", "198.51.100.1") <= LETTERS.seconds_each
    for number in range(LETTERS_ASKED.size):
        await throttle.take_letter(f"name-{number}", "203.0.113.7")
    assert 0 < await throttle.take_letter("somebody", "203.0.113.7") <= LETTERS_ASKED.seconds_each


async def test_the_codes_of_an_account_have_a_bucket_that_all_gateways_share(
    valkey: Valkey,
) -> None:
    async with Redis.from_url(valkey.url) as first, Redis.from_url(valkey.url) as second:
        one, two = StoreThrottle(first), StoreThrottle(second)
        for number in range(CODES.size):
            assert await (one, two)[number % 2].take_code("u1") == 0.0
        assert 0 < await two.take_code("u1") <= CODES.seconds_each
        await one.put_back_code("u1")
        assert await two.take_code("u1") == 0.0
        assert await two.take_code("u2") == 0.0
