"""How much of the new work to turn away when there is more than can be done.

How this works. A timer that should fire every `PROBE_SECONDS` fires late when the event loop is
busy, and by as much as any request waits before it is looked at. One late beat is nothing: a
reload, a burst. When all beats of a whole window were late, work is standing in line, and whatever
is taken in now only lengthens it for those who wait already (the rule of CoDel, RFC 8289: the
smallest delay of an interval counts). Then a share of the new requests is refused: more with each
beat that is still late, and the more the later it is, for the line grows by a factor in each turn
of the loop; a little less with each beat that is not. So the line gets short again, and what has
been taken is served.

Behind a late beat, and once work is being turned away, a beat counts as late much earlier. Turns of
a busy loop are not alike: one that reads requests may be short, and the next one, which has what
the store said of them, long. And nobody who is let in shall wait for as long as it takes to be sure
that there is an overload. And a client that was turned away is not read again before `REST_SECONDS`
have passed, so that one that asks on and on, whatever it was told, takes no more than its share of
what is left.
"""

PROBE_SECONDS = 0.1
"""Between two beats."""
LATE_SECONDS = 0.4
"""A beat that comes so much too late says that the loop is overloaded."""
STILL_LATE_SECONDS = 0.15
"""The same behind a late beat and while work is turned away; a full turn is well below it."""
WINDOW_SECONDS = 2.0
"""For how long all beats must be late, the first and the last by `LATE_SECONDS`."""
STEP_UP = 0.2
"""For a beat that is `LATE_SECONDS` late, and in proportion for others."""
MOST_AT_ONCE = 0.5
"""By which one late beat may raise the share."""
STEP_DOWN = 0.05
"""By which each beat in time lowers it."""
MOST = 0.95
"""Some are always let in, or nobody would notice that it is over."""
REST_SECONDS = 0.25
"""How long a connection is not read after a request on it was turned away."""


class Shedder:
    """Told of each beat; `share` is the part of the new requests to refuse, 0 to `MOST`."""

    def __init__(self) -> None:
        self.share = 0.0
        self._late_for = 0.0
        """Since when all beats have been late, seconds."""
        self._late_before = False

    def beat(self, late: float) -> None:
        """Take note that a beat came *late* seconds after its time."""
        watching = self.share > 0.0 or self._late_before
        if late < (STILL_LATE_SECONDS if watching else LATE_SECONDS):
            self._late_for, self._late_before = 0.0, False
            self.share = max(0.0, round(self.share - STEP_DOWN, 4))
            return
        self._late_for = round(self._late_for + PROBE_SECONDS + late, 4)
        stands_in_line = self._late_before and self._late_for >= WINDOW_SECONDS
        if self.share or (stands_in_line and late >= LATE_SECONDS):
            step = STEP_UP * (PROBE_SECONDS + late) / (PROBE_SECONDS + LATE_SECONDS)
            self.share = min(MOST, round(self.share + min(step, MOST_AT_ONCE), 4))
        self._late_before = True
