"""How much of the new work to turn away when there is more than can be done.

How this works. A timer that should fire every `PROBE_SECONDS` fires late when the event loop is
busy, and by as much as any request waits before it is looked at. One late beat is nothing: a
reload, a burst. When all beats of a whole window were late, work is standing in line, and whatever
is taken in now only lengthens it for those who wait already (the rule of CoDel, RFC 8289: the
smallest delay of an interval counts). Then a share of the new requests is refused, a little more
with each beat that is still late, a little less with each that is not. So the line gets short
again, and what has been taken is served.
"""

from collections import deque

PROBE_SECONDS = 0.1
"""Between two beats."""
LATE_SECONDS = 0.4
"""A beat that comes so much too late says that the loop is overloaded."""
WINDOW = 4
"""Beats that must all be late: two seconds, and longer the later they are."""
STEP_UP = 0.2
STEP_DOWN = 0.05
MOST = 0.95
"""Some are always let in, or nobody would notice that it is over."""


class Shedder:
    """Told of each beat; `share` is the part of the new requests to refuse, 0 to `MOST`."""

    def __init__(self) -> None:
        self.share = 0.0
        self._late: deque[float] = deque(maxlen=WINDOW)

    def beat(self, late: float) -> None:
        """Take note that a beat came *late* seconds after its time."""
        self._late.append(late)
        if late < LATE_SECONDS:
            self.share = max(0.0, round(self.share - STEP_DOWN, 4))
        elif self.share or (len(self._late) == WINDOW and min(self._late) >= LATE_SECONDS):
            self.share = min(MOST, round(self.share + STEP_UP, 4))
