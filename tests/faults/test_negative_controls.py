"""Each defence taken out once: the histories that pass with it must find a violation without it.

The seeds are those that found it when they were tried in order from 1; the first that finds it
again is enough. A seed replays the plan, not every microsecond, so each gets a few chances.
"""

import pytest

from auth.io.session_store import RedisSessionStore
from tests.conftest import Valkey
from tests.faults.checker import check
from tests.faults.defences import (
    WithBlindTouch,
    WithOldCopies,
    WithOutagesAsAbsence,
    WithoutBarrier,
    WithoutLease,
    WithoutMarks,
    WithoutMemory,
    WithoutOrder,
    WithoutTicket,
    opener_of,
)
from tests.faults.small_histories import run_history

pytestmark = pytest.mark.wire

CHANCES = 8
ENDED = {"admitted_after_end"}
DELETED = {"admitted_after_delete", "came_back"}

CONTROLS: dict[type[RedisSessionStore], tuple[tuple[int, ...], set[str]]] = {
    WithoutTicket: ((8, 13, 14, 26, 2, 4, 5), ENDED | DELETED | {"stale_record"}),
    WithoutOrder: ((1, 3, 4, 5), ENDED | DELETED),
    WithoutLease: ((34, 41, 32, 36, 22, 12), ENDED | DELETED),
    WithoutBarrier: ((10, 41, 4), ENDED),
    WithBlindTouch: ((20, 23, 33, 34, 5, 10), DELETED | {"stale_record"}),
    WithoutMemory: ((38, 8, 43, 57), ENDED),
    WithoutMarks: ((4, 5, 13, 18, 24, 26), DELETED),
    WithOldCopies: ((9, 24, 48, 50, 41, 39), ENDED | DELETED),
    WithOutagesAsAbsence: ((13, 10, 6, 7), {"wrongly_refused"}),
}


# What nobody waited for shows while a copy is still good: for longer than on a busy machine.
LEASES: dict[type[RedisSessionStore], float] = {WithoutBarrier: 0.3}


@pytest.mark.parametrize("kind", CONTROLS, ids=lambda kind: kind.__name__)
async def test_without_this_defence_a_history_breaks_a_promise(
    valkey: Valkey, kind: type[RedisSessionStore]
) -> None:
    seeds, rules = CONTROLS[kind]
    for seed in seeds * CHANCES:
        valkey.flush()
        lease = LEASES.get(kind, 0.0)
        history = await run_history(valkey, seed, open_store=opener_of(kind), lease=lease)
        if rules & {found.rule for found in check(history)}:
            return
    pytest.fail(f"{kind.__name__}: none of the seeds {seeds} found it missing")
