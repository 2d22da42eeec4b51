"""Who may run beside whom."""

import threading
from pathlib import Path

import pytest

from tests.turns import Turns

SOON = 10.0
NEVER = 0.2


class Guest(threading.Thread):
    """Takes a turn, says so, and keeps it until it is let go; its own files are its own process."""

    def __init__(self, directory: Path, *, alone: bool) -> None:
        super().__init__(daemon=True)
        self.inside = threading.Event()
        self._leave = threading.Event()
        self._turns = Turns(directory)
        self._alone = alone
        self.start()

    def run(self) -> None:
        with self._turns.taken(alone=self._alone):
            self.inside.set()
            self._leave.wait()
        self._turns.close()

    def leave(self) -> None:
        self._leave.set()
        self.join()


def test_tests_that_do_not_mind_run_at_the_same_time(tmp_path: Path) -> None:
    guests = [Guest(tmp_path, alone=False) for _ in range(2)]
    assert all(guest.inside.wait(SOON) for guest in guests)
    for guest in guests:
        guest.leave()


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_a_test_that_is_alone_runs_beside_no_other(
    tmp_path: Path,
    first: bool,  # noqa: FBT001 - a table's column
    second: bool,  # noqa: FBT001 - a table's column
) -> None:
    one = Guest(tmp_path, alone=first)
    assert one.inside.wait(SOON)
    other = Guest(tmp_path, alone=second)
    assert not other.inside.wait(NEVER)
    one.leave()
    assert other.inside.wait(SOON)
    other.leave()


def test_who_waits_to_be_alone_is_not_passed_by_others(tmp_path: Path) -> None:
    running = Guest(tmp_path, alone=False)
    assert running.inside.wait(SOON)
    alone = Guest(tmp_path, alone=True)
    assert not alone.inside.wait(NEVER)
    late = Guest(tmp_path, alone=False)
    assert not late.inside.wait(NEVER)
    running.leave()
    assert alone.inside.wait(SOON)
    assert not late.inside.is_set()
    alone.leave()
    assert late.inside.wait(SOON)
    late.leave()
