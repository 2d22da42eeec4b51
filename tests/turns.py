"""Tests run in two processes, but those marked `alone` have the machine to themselves.

How this works. Every test holds the room while it runs: one that is `alone` holds it for itself,
all others share it. Who waits for the room stands in the door, so that nobody slips in before: a
test that wants to be alone waits for the one that runs, and for no other. Locks are `flock`s: they
go with the process that held them, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """Turns of the processes that share *directory*."""

    def __init__(self, directory: Path) -> None:
        self._door = _opened(directory / "door")
        self._room = _opened(directory / "room")

    @contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn, and have it while the block runs."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        os.close(self._door)
        os.close(self._room)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
