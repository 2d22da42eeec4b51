import pytest

from config.quantities import count, duration, flag, size, workers


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("1.5m", 90), ("12h", 43_200), ("7d", 604_800), ("0s", 0)],
)
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["10", "", "s", "1 s", "-1s", "1S", "10s\n", "1e3s", "٣s", "9" * 99]
)
def test_a_duration_needs_a_number_and_a_unit(text: str) -> None:
    with pytest.raises(ValueError, match="a number and a unit"):
        duration(text)


@pytest.mark.parametrize(
    ("value", "octets"),
    [(4096, 4096), ("4096", 4096), ("512B", 512), ("32KiB", 32_768), ("16 MiB", 16_777_216)],
)
def test_a_size_is_bytes(value: str | int, octets: int) -> None:
    assert size(value) == octets


@pytest.mark.parametrize("value", ["32KB", "1k", "-1", -1, "1.5MiB", "", "1KiB\n", True])
def test_a_size_of_another_form_is_refused(value: str | int) -> None:
    with pytest.raises(ValueError, match="write bytes"):
        size(value)


def test_workers_are_a_number_or_one_for_each_core() -> None:
    assert (workers(4), workers("4"), workers("auto")) == (4, 4, 0)


@pytest.mark.parametrize("value", [0, 257, -1, "many", "", "1.5"])
def test_another_number_of_workers_is_refused(value: str | int) -> None:
    with pytest.raises(ValueError, match="1 to 256"):
        workers(value)


@pytest.mark.parametrize("value", [0, -1, 1_000_001, "x", ""])
def test_a_count_has_bounds(value: str | int) -> None:
    assert count("12") == 12
    with pytest.raises(ValueError, match="whole number"):
        count(value)


def test_a_flag_may_come_as_text() -> None:
    assert [flag(each) for each in (True, "true", False, "false")] == [True, True, False, False]
