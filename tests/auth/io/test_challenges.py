"""The challenges of passkeys, in the store."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from auth.io.challenges import CHALLENGE_SECONDS, Challenge, Challenges
from auth.ports import AuthUnavailable
from tests.conftest import Valkey
from tests.store_server import nowhere

ASKED = Challenge(b"\x00\xffc" * 11, "second-factor", "u1")


@pytest.fixture
async def commands(valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url) as commands:
        yield commands


async def test_a_challenge_is_taken_once(commands: Redis) -> None:
    challenges = Challenges(commands)
    await challenges.keep("browser", ASKED)
    taken = await challenges.take("browser", purpose="second-factor", subject="u1")
    assert taken == ASKED.value
    assert await challenges.take("browser", purpose="second-factor", subject="u1") is None


@pytest.mark.parametrize(
    ("binding", "purpose", "subject"),
    [
        ("other", "second-factor", "u1"),
        ("", "second-factor", "u1"),
        ("browser", "sign-in", "u1"),
        ("browser", "second-factor", "u2"),
        ("browser", "second-factor", ""),
    ],
)
async def test_it_is_good_for_one_browser_one_purpose_and_one_person(
    commands: Redis, binding: str, purpose: str, subject: str
) -> None:
    challenges = Challenges(commands)
    await challenges.keep("browser", ASKED)
    assert await challenges.take(binding, purpose=purpose, subject=subject) is None


async def test_a_wrong_answer_uses_it_up_too(commands: Redis) -> None:
    challenges = Challenges(commands)
    await challenges.keep("browser", ASKED)
    await challenges.take("browser", purpose="sign-in")
    assert await challenges.take("browser", purpose="second-factor", subject="u1") is None


async def test_the_store_has_no_name_of_the_browsers_and_forgets(commands: Redis) -> None:
    await Challenges(commands).keep("binding-of-the-browser", ASKED)
    (key,) = [key async for key in commands.scan_iter("doorward:challenge:*")]
    assert b"binding" not in key
    assert 0 < await commands.ttl(key) <= CHALLENGE_SECONDS


async def test_what_is_no_record_is_no_challenge(commands: Redis) -> None:
    challenges = Challenges(commands)
    await challenges.keep("browser", ASKED)
    (key,) = [key async for key in commands.scan_iter("doorward:challenge:*")]
    await commands.set(key, b'{"value": 7}')
    assert await challenges.take("browser", purpose="second-factor", subject="u1") is None


async def test_a_store_that_is_out_is_an_outage() -> None:
    async with nowhere() as commands:
        with pytest.raises(AuthUnavailable):
            await Challenges(commands).take("browser", purpose="sign-in")
