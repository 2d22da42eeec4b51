import re
from pathlib import Path

import pytest

from config.colours import (
    DARK_GROUND,
    LIGHT_GROUND,
    READABLE,
    colour,
    contrast,
    mixed,
    readable,
)

STYLE = Path(__file__).parents[2] / "auth/login/pages/style.css"


def test_a_colour_has_six_digits() -> None:
    assert colour("#2C56c4") == "#2c56c4"
    for text in ("", "2c56c4", "#fff", "#2c56c4ff", "#2c56cg", "blue", "#2c56c4; }", "#2c56c4\n"):
        with pytest.raises(ValueError, match="no colour"):
            colour(text)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("#000000", "#ffffff", 21.0),
        ("#777777", "#ffffff", 4.48),
        ("#767676", "#ffffff", 4.54),
        ("#123456", "#123456", 1.0),
        ("#ff0000", "#ffffff", 4.0),
    ],
)
def test_the_contrast_is_what_wcag_says(one: str, other: str, expected: float) -> None:
    assert contrast(one, other) == contrast(other, one) == pytest.approx(expected, abs=0.01)


def test_colours_are_mixed_by_shares() -> None:
    assert mixed("#000000", "#ffffff", 0.2) == "#333333"
    assert mixed("#102030", "#ffffff", 0) == "#102030"
    assert mixed("#102030", "#ffffff", 1) == "#ffffff"


@pytest.mark.parametrize("given", ["#ffcc00", "#2c56c4", "#ffffff", "#000000", "#808080"])
@pytest.mark.parametrize("dark", [False, True])
def test_the_nearest_shade_that_can_be_read_is_found(given: str, *, dark: bool) -> None:
    ground = DARK_GROUND if dark else LIGHT_GROUND
    shade = readable(given, dark=dark)
    assert contrast(shade, ground) >= READABLE
    if contrast(given, ground) >= READABLE:
        assert shade == given


def test_the_grounds_are_those_of_the_style_sheet_that_are_hardest_to_read_on() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)[:2]
    grounds = [re.findall(r"--(?:ground|card): (#\w{6})", each) for each in (light, dark)]
    assert min(grounds[0], key=lambda each: contrast(each, "#000000")) == LIGHT_GROUND
    assert min(grounds[1], key=lambda each: contrast(each, "#ffffff")) == DARK_GROUND
