"""Notice that a file has changed, however it was changed.

Asking for its state twice a second costs one system call, and works the same for an editor that
replaces the file, a Kubernetes ConfigMap behind two symbolic links, and a network file system;
notifications of the kernel miss at least one of them.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

INTERVAL = 0.5
"""Seconds between two looks."""

_State = tuple[int, int, int, int]


async def changes(path: Path, *, interval: float = INTERVAL) -> AsyncIterator[None]:
    """Yield each time *path* has changed and then stood still for one *interval*.

    A file that is gone has not changed: it may be about to be replaced.
    """
    seen = pending = _state(path)
    while True:
        await asyncio.sleep(interval)
        now = _state(path)
        if now is None or now == seen:
            continue
        if now == pending:
            seen = now
            yield
        pending = now


def _state(path: Path) -> _State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
