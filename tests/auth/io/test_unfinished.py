"""Sign-ins that want a second factor, in the store."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from auth.io.unfinished import UNFINISHED_SECONDS, UnfinishedSignIn, UnfinishedSignIns
from auth.login.account import Account
from auth.ports import AuthUnavailable
from tests.conftest import Valkey
from tests.store_server import nowhere

ADA = Account("u1", "ada", "Ada", "", ("editor",), (), "", False, 3, 1.5, 2.5)
HALF = UnfinishedSignIn(ADA, ("pwd",), 100.5, "/notes", "d" * 64)


@pytest.fixture
async def commands(valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url) as commands:
        yield commands


async def test_what_was_kept_is_found_until_it_is_taken(commands: Redis) -> None:
    unfinished = UnfinishedSignIns(commands)
    await unfinished.keep("binding", HALF)
    assert await unfinished.find("binding") == HALF
    assert await unfinished.find("other") is None
    assert await unfinished.take("binding") == HALF
    assert await unfinished.take("binding") is None
    assert await unfinished.find("binding") is None


async def test_no_binding_finds_nothing(commands: Redis) -> None:
    unfinished = UnfinishedSignIns(commands)
    await unfinished.keep("", HALF)
    assert await unfinished.find("") is None
    assert await unfinished.take("") is None


async def test_the_store_has_no_name_of_the_browsers_and_forgets(commands: Redis) -> None:
    await UnfinishedSignIns(commands).keep("binding-of-the-browser", HALF)
    (key,) = [key async for key in commands.scan_iter("doorward:unfinished:*")]
    assert b"binding" not in key
    assert 0 < await commands.ttl(key) <= UNFINISHED_SECONDS


async def test_what_is_no_record_is_no_sign_in(commands: Redis) -> None:
    unfinished = UnfinishedSignIns(commands)
    await unfinished.keep("binding", HALF)
    (key,) = [key async for key in commands.scan_iter("doorward:unfinished:*")]
    await commands.set(key, b'{"subject": 7}')
    assert await unfinished.find("binding") is None


async def test_a_store_that_is_out_is_an_outage() -> None:
    async with nowhere() as commands:
        with pytest.raises(AuthUnavailable):
            await UnfinishedSignIns(commands).find("binding")
