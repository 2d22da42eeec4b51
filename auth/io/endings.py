"""What this worker saw end, kept beyond what the store may forget.

A failover to a replica that lacks the last write, or a restart from an older file, brings deleted
keys back. What this worker heard or read of endings stays in force here whatever the store says,
and is told again to a store that turns out to be another one (`replay`).

A record that vanished without a tombstone is no ending: whoever deleted it may write it again. But
when it comes back because the *store* is another one, it is an ending that was lost.
"""

from collections import OrderedDict

from auth.revocation import LONGEST_SESSION, NO_EPOCH, Epoch, later

# 32-byte names: some 20 MB at most. The oldest goes first; its tombstone in the store stays.
_MOST = 100_000
# How long a replica may lag and still take over: far beyond any healthy replication.
_VANISHED_FOR = 60.0


class Endings:
    """Names (sessions and tokens) and epochs that are over for good. Times on the boot clock."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self._vanished: OrderedDict[str, float] = OrderedDict()
        self._epochs: OrderedDict[str, Epoch] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, name: str) -> bool:
        return name in self._until

    def add(self, name: str, until: float) -> None:
        """Remember that *name* is over; nobody needs to know after *until*."""
        self._until[name] = max(until, self._until.get(name, 0.0))
        self._vanished.pop(name, None)
        if len(self._until) > _MOST:
            self._until.popitem(last=False)

    def add_epoch(self, name: str, epoch: Epoch) -> Epoch:
        """Remember an epoch that was seen, and return the one in force."""
        known = self._epochs.get(name, NO_EPOCH)
        # Of two with the same time the newer answer counts: it may keep another session.
        in_force = epoch if epoch.at >= known.at else known
        if in_force.at >= 0:
            self._epochs[name] = in_force
            if len(self._epochs) > _MOST:
                self._epochs.popitem(last=False)
        return in_force

    def epoch_of(self, name: str, epoch: Epoch) -> Epoch:
        """Return the epoch in force when the store says *epoch*."""
        return later(epoch, self._epochs.get(name, NO_EPOCH))

    def vanish(self, name: str, now: float) -> None:
        """A session that was live here has no record any more, and no tombstone either."""
        self._vanished[name] = now
        if len(self._vanished) > _MOST:
            self._vanished.popitem(last=False)

    def reappear(self, name: str) -> None:
        """The same store has a live record under *name* again: somebody wrote it anew."""
        self._vanished.pop(name, None)

    def expire(self, now: float) -> None:
        """Forget what nobody needs to know any more; cheap enough for every few seconds."""
        for name in [name for name, until in self._until.items() if until <= now]:
            del self._until[name]
        for name, at in tuple(self._vanished.items()):
            if at > now - _VANISHED_FOR:
                break
            del self._vanished[name]

    def replay(self, now: float) -> tuple[dict[str, float], dict[str, Epoch]]:
        """The store is another one: what vanished has ended.

        Returns:
            Names with the seconds for which they must stay over, and epochs, for the new store.
        """
        for name in tuple(self._vanished):
            self.add(name, now + LONGEST_SESSION)
        return (
            {name: until - now for name, until in self._until.items() if until > now},
            dict(self._epochs),
        )
