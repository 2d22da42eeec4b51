"""Ending a task of our own, for certain."""

import asyncio
from typing import Any

_ASK_AGAIN = 1.0
"""Seconds that a task may take to clean up before it is cancelled again."""


async def stop(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel *tasks* and return when all are over; what they return or raise is dropped.

    One cancellation is not enough. `asyncio.wait_for` of Python 3.11 swallows the one that arrives
    in the step in which its awaitable ends (CPython gh-86296), and redis-py writes each command
    under it: a loop that talks to the store would run on, and who awaits its end with it.
    """
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        over, left = await asyncio.wait(left, timeout=_ASK_AGAIN)
        for task in over:
            if not task.cancelled():
                task.exception()  # looked at: asyncio complains of one that nobody saw
