"""A task that is stopped is over, whatever becomes of the cancellation."""

import asyncio

import pytest

from auth.io import tasks
from auth.io.tasks import stop


async def test_a_stopped_task_is_over() -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    await stop(task, None)
    assert task.cancelled()


async def test_a_task_that_lost_its_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "_ASK_AGAIN", 0.01)
    lost: list[bool] = []

    async def run() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append(True)

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await stop(task)
    assert lost
    assert task.cancelled()


async def test_what_a_stopped_task_raises_stops_nobody_else() -> None:
    async def fail() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise OSError("on the way out")

    failing, other = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(3600))
    await asyncio.sleep(0)
    await stop(failing, other)
    assert failing.done()
    assert other.cancelled()
