"""The queue, in a real store."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from redis.asyncio import Redis

from auth.io import mail_queue
from auth.io.mail_queue import KEY, MailQueue, Wanted
from auth.ports import AuthUnavailable
from tests.conftest import Valkey
from tests.store_server import nowhere


def wanted(number: int = 1) -> Wanted:
    return Wanted(f"id-{number}", "reset", "ada", "", "de", 1_795_345_561.123)


@pytest.fixture
async def queue(valkey: Valkey) -> AsyncIterator[MailQueue]:
    async with Redis.from_url(valkey.url, protocol=2) as commands:
        yield MailQueue(commands)


async def test_what_is_put_in_comes_out_as_it_was(queue: MailQueue) -> None:
    assert await queue.put(wanted())
    assert await queue.take() == wanted()


async def test_what_one_has_taken_nobody_else_gets_until_they_are_overdue(
    queue: MailQueue, valkey: Valkey
) -> None:
    await queue.put(wanted())
    await queue.take()
    assert await queue.take() is None
    valkey.client.zincrby(KEY, -61, msgspec.json.encode(wanted()))  # as if a minute had passed
    assert await queue.take() == wanted()


async def test_what_is_done_is_gone(queue: MailQueue, valkey: Valkey) -> None:
    await queue.put(wanted())
    taken = await queue.take()
    assert taken is not None
    await queue.done(taken)
    assert valkey.client.zcard(KEY) == 0


async def test_what_is_tried_again_is_due_later_and_counts_its_attempts(
    queue: MailQueue, valkey: Valkey
) -> None:
    await queue.put(wanted())
    taken = await queue.take()
    assert taken is not None
    await queue.again(taken, after=30)
    assert await queue.take() is None
    await queue.again(msgspec.structs.replace(taken, attempts=1), after=-1)
    assert await queue.take() == msgspec.structs.replace(taken, attempts=2)


async def test_what_was_done_meanwhile_is_not_tried_again(queue: MailQueue) -> None:
    await queue.put(wanted())
    taken = await queue.take()
    assert taken is not None
    await queue.done(taken)
    await queue.again(taken, after=-1)
    assert await queue.take() is None


async def test_a_full_queue_takes_no_more(
    queue: MailQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_queue, "_MOST", 2)
    assert [await queue.put(wanted(number)) for number in range(3)] == [True, True, False]


async def test_what_another_version_wrote_is_passed_over(queue: MailQueue, valkey: Valkey) -> None:
    valkey.client.zadd(KEY, {b"{}": 0})
    await queue.put(wanted())
    assert await queue.take() == wanted()
    assert valkey.client.zcard(KEY) == 1


async def test_a_store_that_is_gone_is_an_outage() -> None:
    async with nowhere() as commands:
        queue = MailQueue(commands)
        for attempt in (
            queue.put(wanted()), queue.take(), queue.done(wanted()), queue.again(wanted(), after=1)
        ):  # fmt: skip
            with pytest.raises(AuthUnavailable):
                await attempt
