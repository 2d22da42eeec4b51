"""Which build is running: the pure one, or the one whose busiest modules are compiled."""

from importlib.machinery import ExtensionFileLoader
from importlib.metadata import version

from gateway import reading

COMPILED = isinstance(getattr(reading, "__loader__", None), ExtensionFileLoader)
"""Whether this is the compiled build (`setup.py`), of which this module stands for all."""


def describe() -> str:
    """Return the version, and `compiled` if it is."""
    return f"{version('doorward')} (compiled)" if COMPILED else version("doorward")
