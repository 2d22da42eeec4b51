"""Codes that hand a session on, in the store."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from auth.io.site_codes import CODE_SECONDS, HandedOn, SiteCodes
from auth.ports import AuthUnavailable
from auth.sealing import seal
from auth.session import digest
from tests.conftest import Valkey

HANDED_ON = HandedOn("d" * 64, "https://shop.example.com", "c" * 64, "the-secret", "/cart")


@pytest.fixture
async def commands(valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url) as commands:
        yield commands


async def test_a_code_stands_for_what_it_was_given_for_once(commands: Redis) -> None:
    codes = SiteCodes(commands)
    code = await codes.give(HANDED_ON)
    assert await codes.take(code) == HANDED_ON
    assert await codes.take(code) is None


async def test_of_many_that_take_it_at_once_one_gets_it(commands: Redis, valkey: Valkey) -> None:
    code = await SiteCodes(commands).give(HANDED_ON)
    async with Redis.from_url(valkey.url) as others:
        # Connected before, or the first is done before the next has begun.
        await asyncio.gather(*(each.ping() for each in (commands, others) * 15))
        gateways = (SiteCodes(commands), SiteCodes(others))
        taken = await asyncio.gather(*(gateways[i % 2].take(code) for i in range(30)))
    assert [each for each in taken if each] == [HANDED_ON]


@pytest.mark.parametrize("code", ["", "x", "doorward:site-code:"])
async def test_what_was_never_given_stands_for_nothing(commands: Redis, code: str) -> None:
    assert await SiteCodes(commands).take(code) is None


async def test_a_value_of_somebody_elses_stands_for_nothing(commands: Redis) -> None:
    for value in ("", "x", seal("code", b"{}", purpose="site code")):
        await commands.set(f"doorward:site-code:{digest('code')}", value)
        assert await SiteCodes(commands).take("code") is None


async def test_it_ends_with_its_time_and_the_store_can_read_nothing_of_it(
    commands: Redis,
) -> None:
    code = await SiteCodes(commands).give(HANDED_ON)
    (key,) = [key async for key in commands.scan_iter("doorward:site-code:*")]
    assert 0 < await commands.ttl(key) <= CODE_SECONDS
    held = repr((key, await commands.get(key)))
    for secret in (code, HANDED_ON.secret, HANDED_ON.session_digest):
        assert secret not in held
    assert HANDED_ON.secret not in repr(HANDED_ON)


async def test_a_store_that_is_out_is_an_outage() -> None:
    async with Redis.from_url("unix:///nowhere/at/all") as nowhere:
        with pytest.raises(AuthUnavailable):
            await SiteCodes(nowhere).give(HANDED_ON)
        with pytest.raises(AuthUnavailable):
            await SiteCodes(nowhere).take("code")
