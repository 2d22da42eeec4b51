"""How long, how large, how many: from the written value to a number.

Every function raises `ValueError` with what to write instead, without repeating the value.
"""

import re
from typing import Final

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"([0-9]{1,12})(?: ?(B|KiB|MiB|GiB))?")
_BYTES: Final = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def duration(value: str) -> float:
    """Return the seconds that `500ms`, `10s`, `1.5m`, `12h` or `7d` last."""
    match = _DURATION.fullmatch(value)
    if not match:
        raise ValueError("write a number and a unit: 500ms, 10s, 5m, 12h or 7d")
    # Decimal places of a float: 0.1 * 60 is not worth an exact type, but 500ms must be 0.5.
    return round(float(match[1]) * _SECONDS[match[2]], 6)


def size(value: str | int) -> int:
    """Return the bytes of `32KiB`, `16MiB`, `1GiB`, `512B` or a plain number."""
    match = _SIZE.fullmatch(str(value))
    if not match:
        raise ValueError("write bytes as a number or with a unit: 4096, 32KiB, 16MiB or 1GiB")
    return int(match[1]) * _BYTES[match[2]]


def count(value: str | int) -> int:
    """Return a number from 1 to 1,000,000, which may come out of a variable as text."""
    text = str(value)
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= 1_000_000:
        raise ValueError("write a whole number from 1 to 1000000")
    return int(text)


def workers(value: str | int) -> int:
    """Return the number of workers; 0 for `auto`, one per core."""
    text = str(value)
    if text == "auto":
        return 0
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 256:
        raise ValueError("write a whole number from 1 to 256, or auto for one per core")
    return int(text)


def flag(value: object) -> bool:
    """Return whether *value* is true, or the text `true` that a variable may hold."""
    return value in (True, "true")
