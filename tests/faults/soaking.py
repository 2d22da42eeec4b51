"""Seeds of histories: which are tried, and what is told of those that break a promise."""

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from tests.faults.checker import Violation, check
from tests.faults.history import History

_REPLAYED = os.environ.get("DOORWARD_FAULT_SEED")


def replayed_or(seeds: Sequence[int]) -> Sequence[int]:
    """Return the seed that `DOORWARD_FAULT_SEED` asks for, alone; else *seeds*."""
    return [int(_REPLAYED)] if _REPLAYED else seeds


def many(usual: int) -> Sequence[int]:
    """Return the seeds of a soak: as many as `DOORWARD_FAULT_SEEDS` says, else *usual*."""
    return range(1, int(os.environ.get("DOORWARD_FAULT_SEEDS", usual)) + 1)


def told(seed: int, history: History, broken: list[Violation]) -> str:
    """Return what one needs to know of a seed that failed."""
    shown = [str(each) for each in broken[:5]]
    faults = ", ".join(map(str, history.faults))
    return "\n".join([f"DOORWARD_FAULT_SEED={seed} replays it; faults: {faults}", *shown])


async def check_all(run: Callable[[int], Awaitable[History]], seeds: Sequence[int]) -> None:
    """Hold what *run* makes of each of *seeds* to every promise, to the last one of them."""
    failed: dict[int, str] = {}
    done: Counter[str] = Counter()
    for seed in seeds:
        history = await run(seed)
        done.update(f"{each.kind} {each.result}" for each in history.operations)
        done.update(each.name for each in history.faults)
        broken = check(history)
        if broken:
            failed[seed] = told(seed, history, broken)
            print(failed[seed], flush=True)  # noqa: T201 - soon, not after minutes
    print(len(seeds), "histories:", dict(sorted(done.items())))  # noqa: T201 - the report
    assert not failed, "\n\n".join(failed.values())
