"""Ids of requests and traces: unique, not secret, and drawn many at a time."""

from random import Random, SystemRandom

_AT_ONCE = 256
_DIGITS = 32
_ZEROS = "0" * 16


class Ids:
    """Draws ids. One draw for many of them costs a tenth of as many draws."""

    __slots__ = ("_ready", "_source")

    def __init__(self) -> None:
        # A generator seeded from the system's: its numbers can be told from enough of them, and
        # nothing rests on their being secret.
        self._source = Random(SystemRandom().getrandbits(256))  # noqa: S311 - see above
        self._ready: list[str] = []

    def new_id(self) -> str:
        """Return 32 hex digits, of which the first 16 are not all zero."""
        while not self._ready:
            text = self._source.randbytes(_AT_ONCE * _DIGITS // 2).hex()
            cut = [text[at : at + _DIGITS] for at in range(0, len(text), _DIGITS)]
            self._ready = [digits for digits in cut if not digits.startswith(_ZEROS)]
        return self._ready.pop()

    def new_trace(self) -> str:
        """Return the traceparent of a trace that begins here (W3C Trace Context 3.2).

        Neither of its ids is all zero, which the specification forbids.
        """
        return f"00-{self.new_id()}-{self.new_id()[:16]}-01"
