import pytest

from gateway.shedding import LATE_SECONDS, MOST, PROBE_SECONDS, WINDOW, Shedder


def told(*beats: float) -> float:
    shedder = Shedder()
    for late in beats:
        shedder.beat(late)
    return shedder.share


@pytest.mark.parametrize(
    ("beats", "sheds"),
    [
        ([0.0] * 100, False),
        ([LATE_SECONDS * 100], False),  # a reload
        ([LATE_SECONDS] * (WINDOW - 1), False),
        ([LATE_SECONDS] * WINDOW, True),
        ([LATE_SECONDS * 2, LATE_SECONDS / 2] * 100, False),
    ],
    ids=["idle", "one pause", "nearly a window", "a window", "late every other time"],
)
def test_only_a_whole_window_of_late_beats_is_an_overload(
    beats: list[float], *, sheds: bool
) -> None:
    assert (told(*beats) > 0) is sheds


def test_half_of_the_new_work_is_turned_away_within_four_seconds() -> None:
    shedder, passed = Shedder(), 0.0
    while shedder.share < 0.5:
        shedder.beat(LATE_SECONDS)
        passed += PROBE_SECONDS + LATE_SECONDS
    assert passed <= 4.0


def test_some_requests_are_always_let_in() -> None:
    assert told(*[10.0] * 1000) == MOST < 1


def test_it_ends_when_the_loop_is_in_time_again() -> None:
    overloaded = [LATE_SECONDS] * 100
    assert told(*overloaded, 0.0) < MOST
    assert told(*overloaded, *[0.0] * 100) == 0.0
