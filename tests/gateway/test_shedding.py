import pytest

from gateway.shedding import (
    LATE_SECONDS,
    MOST,
    PROBE_SECONDS,
    STILL_LATE_SECONDS,
    WINDOW_SECONDS,
    Shedder,
)

WINDOW = round(WINDOW_SECONDS / (PROBE_SECONDS + LATE_SECONDS))
"""Beats that are just late."""


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
        ([LATE_SECONDS * 100, 0.0, LATE_SECONDS * 100], False),
        ([LATE_SECONDS] * (WINDOW - 1), False),
        ([LATE_SECONDS] * WINDOW, True),
        ([WINDOW_SECONDS / 4, WINDOW_SECONDS], True),
        ([LATE_SECONDS * 2, STILL_LATE_SECONDS - 0.01] * 100, False),
        ([LATE_SECONDS * 2, STILL_LATE_SECONDS] * 100, True),
        ([LATE_SECONDS, *[STILL_LATE_SECONDS] * 1000], False),
        ([STILL_LATE_SECONDS] * 1000, False),
    ],
    ids=[
        "idle",
        "one pause",
        "two pauses",
        "nearly a window",
        "a window",
        "later and later",
        "late every other time",
        "long turns and short ones",
        "busy behind a pause",
        "busy",
    ],
)
def test_only_a_whole_window_of_late_beats_is_an_overload(
    beats: list[float], *, sheds: bool
) -> None:
    assert (told(*beats) > 0) is sheds


@pytest.mark.parametrize("late", [LATE_SECONDS, 1.0, 2.0])
def test_half_of_the_new_work_is_turned_away_within_four_seconds(late: float) -> None:
    shedder, passed = Shedder(), 0.0
    while shedder.share < 0.5:
        shedder.beat(late)
        passed += PROBE_SECONDS + late
    assert passed <= 4.5


def test_the_later_a_beat_the_more_is_turned_away() -> None:
    overloaded = [LATE_SECONDS] * WINDOW
    once_more = [told(*overloaded, late) for late in (STILL_LATE_SECONDS, LATE_SECONDS, 1.0)]
    assert told(*overloaded) < once_more[0] < once_more[1] < once_more[2]


def test_who_is_let_in_shall_not_wait_for_as_long_as_it_takes_to_be_sure() -> None:
    overloaded = [LATE_SECONDS] * WINDOW
    assert told(*overloaded, STILL_LATE_SECONDS) > told(*overloaded)
    assert told(*overloaded, STILL_LATE_SECONDS - 0.01) < told(*overloaded)


def test_some_requests_are_always_let_in() -> None:
    assert told(*[10.0] * 1000) == MOST < 1


def test_it_ends_when_the_loop_is_in_time_again() -> None:
    overloaded = [LATE_SECONDS] * 100
    assert told(*overloaded, 0.0) < MOST
    assert told(*overloaded, *[0.0] * 100) == 0.0
    assert told(*overloaded, *[0.0] * 100, LATE_SECONDS) == 0.0  # and begins anew
