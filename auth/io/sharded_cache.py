"""What is held of a cluster: each copy with the leases of the shards that it was read from."""

from collections import OrderedDict
from collections.abc import Collection

from auth.io.endings import Endings
from auth.io.session_cache import Entry, Lease, SessionCache
from auth.revocation import ALL_SESSIONS, Epoch
from auth.slots import is_slot_tag


class ShardedEndings(Endings):
    """Every copy of the epoch of all sessions is that epoch: seen once, it is in force."""

    def add_epoch(self, name: str, epoch: Epoch) -> Epoch:
        """Remember an epoch that was seen, and return the one in force."""
        return super().add_epoch(_remembered_as(name), epoch)

    def epoch_of(self, name: str, epoch: Epoch) -> Epoch:
        """Return the epoch in force when the store says *epoch*."""
        return super().epoch_of(_remembered_as(name), epoch)


def _remembered_as(name: str) -> str:
    return ALL_SESSIONS if is_slot_tag(name) else name


class ShardedCache(SessionCache):
    """Verdicts, epochs and buckets, each with the leases under which it may be used."""

    def __init__(self, *, sessions: int = 100_000) -> None:
        super().__init__(sessions=sessions)
        self.epoch_leases: dict[str, Lease] = {}
        self.clean_leases: dict[str, Lease] = {}

    def live(self, entries: OrderedDict[str, Entry], name: str, now: float) -> Entry | None:
        """Return the entry of *name* if it may be used at *now*."""
        entry = entries.get(name)
        if entry is None or now >= entry.deadline or not are_live(entry.leases, now):
            return None
        entry.used = True
        return entry

    def epoch(self, name: str, now: float) -> Epoch | None:
        """Return the epoch *name* if it is known for sure at *now*."""
        lease = self.epoch_leases.get(name)
        return self.epochs.get(name) if lease is not None and now < lease.until else None

    def is_clean(self, bucket: str, now: float) -> bool:
        """Tell whether it is known for sure that nothing in *bucket* is revoked."""
        lease = self.clean_leases.get(bucket)
        return lease is not None and now < lease.until and bucket in self.clean

    def forget_void(self) -> None:
        """A lease is void: forget the buckets that were known under it, so that they are asked."""
        for bucket in [name for name, lease in self.clean_leases.items() if lease.void]:
            del self.clean_leases[bucket]
            self.clean.discard(bucket)
        self._surveyed.clear()

    def drop_epoch(self, epoch: str) -> list[str]:
        """An epoch changed; that of all sessions, in whichever slot."""
        if epoch != ALL_SESSIONS:
            self.epoch_leases.pop(epoch, None)
            return super().drop_epoch(epoch)
        copies = [name for name in self.epochs if is_slot_tag(name)]
        return [name for copy in copies for name in self.drop_epoch(copy)]

    def release(self, epoch: str) -> None:
        """Forget an epoch that was read for a verdict that was not kept."""
        super().release(epoch)
        if epoch not in self.epochs:
            self.epoch_leases.pop(epoch, None)

    def _forget(self, name: str) -> Entry | None:
        entry = super()._forget(name)
        for epoch in entry.epochs if entry else ():
            if epoch not in self.epochs:
                self.epoch_leases.pop(epoch, None)
        return entry

    def clear(self) -> None:
        """Nothing is known any more."""
        super().clear()
        self.epoch_leases.clear()
        self.clean_leases.clear()


def are_live(leases: Collection[Lease], now: float) -> bool:
    """Tell whether what was read under all of *leases* may be used at *now*."""
    return all(now < lease.until for lease in leases)
