"""Colours of the pages, and whether people can read them (WCAG 2.2, 1.4.3)."""

import re
from typing import Final

READABLE: Final = 4.5
"""The least contrast of text at level AA."""
LIGHT_GROUND: Final = "#f4f5f7"
DARK_GROUND: Final = "#1b1f27"
"""Of the grounds that text stands on in `style.css`, the one it stands out from least."""

_COLOUR = re.compile(r"#[0-9A-Fa-f]{6}")


def colour(text: str) -> str:
    """Return *text*, a colour such as `#2c56c4`, in lower case.

    Raises:
        ValueError: it is none.
    """
    if _COLOUR.fullmatch(text) is None:
        raise ValueError("is no colour; write six hexadecimal digits, such as '#2c56c4' in quotes")
    return text.lower()


def contrast(one: str, other: str) -> float:
    """Return how much two colours stand out from each other, from 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def mixed(one: str, other: str, share: float) -> str:
    """Return *one* with a *share* (0 to 1) of *other* in it."""
    pairs = zip(_channels(one), _channels(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def readable(given: str, *, dark: bool) -> str:
    """Return *given*, or the nearest shade of it that can be read on our light or *dark* ground."""
    ground, towards = (DARK_GROUND, "#ffffff") if dark else (LIGHT_GROUND, "#000000")
    shades = (mixed(given, towards, step / 100) for step in range(101))
    return next(shade for shade in shades if contrast(shade, ground) >= READABLE)


def _channels(given: str) -> tuple[int, ...]:
    return tuple(int(given[at : at + 2], 16) for at in (1, 3, 5))


def _luminance(given: str) -> float:
    """Return the relative luminance as WCAG 2.2 defines it."""
    parts = [channel / 255 for channel in _channels(given)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
