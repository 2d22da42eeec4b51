"""Seeded histories of mixed faults keep the promises.

`DOORWARD_FAULT_SEED=1234` replays one; `DOORWARD_SOAK=1` runs a thousand instead of a few.
"""

import os

import pytest

from tests.conftest import Valkey
from tests.faults.checker import check
from tests.faults.history import History
from tests.faults.small_histories import run_history
from tests.faults.soaking import check_all, many, replayed_or, told

pytestmark = pytest.mark.wire

SEEDS = replayed_or(range(1, 26))
SOAK_SEEDS = many(1000)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_history_of_faults_keeps_every_promise(valkey: Valkey, seed: int) -> None:
    history = await run_history(valkey, seed)
    broken = check(history)
    assert not broken, told(seed, history, broken)
    assert any(each.result == "admitted" for each in history.operations)


@pytest.mark.soak
@pytest.mark.skipif("DOORWARD_SOAK" not in os.environ, reason="takes minutes: make soak")
async def test_a_thousand_histories_keep_every_promise(valkey: Valkey) -> None:

    async def run(seed: int) -> History:
        valkey.flush()
        return await run_history(valkey, seed)

    await check_all(run, SOAK_SEEDS)
