"""Seeded histories of mixed faults keep the promises.

`DOORWARD_FAULT_SEED=1234` replays one; `DOORWARD_SOAK=1` runs a thousand instead of a few.
"""

import os
from collections import Counter

import pytest

from tests.conftest import Valkey
from tests.faults.checker import Violation, check
from tests.faults.history import History
from tests.faults.small_histories import run_history

pytestmark = pytest.mark.wire

_REPLAYED = os.environ.get("DOORWARD_FAULT_SEED")
SEEDS = [int(_REPLAYED)] if _REPLAYED else range(1, 26)
SOAK_SEEDS = range(1, int(os.environ.get("DOORWARD_FAULT_SEEDS", "1000")) + 1)


def told(seed: int, history: History, broken: list[Violation]) -> str:
    """Return what one needs to know of a seed that failed."""
    shown = [str(each) for each in broken[:5]]
    faults = ", ".join(map(str, history.faults))
    return "\n".join([f"DOORWARD_FAULT_SEED={seed} replays it; faults: {faults}", *shown])


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_history_of_faults_keeps_every_promise(valkey: Valkey, seed: int) -> None:
    history = await run_history(valkey, seed)
    broken = check(history)
    assert not broken, told(seed, history, broken)
    assert any(each.result == "admitted" for each in history.operations)


@pytest.mark.soak
@pytest.mark.skipif("DOORWARD_SOAK" not in os.environ, reason="takes minutes: make soak")
async def test_a_thousand_histories_keep_every_promise(valkey: Valkey) -> None:
    failed: dict[int, str] = {}
    done: Counter[str] = Counter()
    for seed in SOAK_SEEDS:
        valkey.flush()
        history = await run_history(valkey, seed)
        done.update(f"{each.kind} {each.result}" for each in history.operations)
        done.update(each.name for each in history.faults)
        broken = check(history)
        if broken:
            failed[seed] = told(seed, history, broken)
            print(failed[seed], flush=True)  # noqa: T201 - soon, not after minutes
    print(len(SOAK_SEEDS), "histories:", dict(sorted(done.items())))  # noqa: T201 - the report
    assert not failed, "\n\n".join(failed.values())
