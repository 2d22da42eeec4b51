"""How much time the machine took from a test: bounds on real time are made of ours and of that."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_STEP = 0.005


class Stalls:
    """Counts by how much its steps came late, all in all."""

    def __init__(self) -> None:
        self._late = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Return what a bound has to allow for: twice ours, as the store shares the machine."""
        return 2 * (self._late + max(0.0, time.monotonic() - self._began - _STEP))

    async def watch(self) -> None:
        """Count until cancelled."""
        while True:
            self._began = time.monotonic()
            await asyncio.sleep(_STEP)
            self._late += max(0.0, time.monotonic() - self._began - _STEP)


@asynccontextmanager
async def counting_stalls() -> AsyncIterator[Stalls]:
    """Count while the block lasts."""
    stalls = Stalls()
    task = asyncio.create_task(stalls.watch())
    try:
        yield stalls
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
