"""Where the gateway keeps what it writes: `.doorward/` beside the route file or `DOORWARD_DATA`."""

import os
from collections.abc import Mapping
from pathlib import Path

DIRECTORY_NAME = ".doorward"
DATA = "DOORWARD_DATA"


def data_directory(route_file: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the data directory that belongs to *route_file*, created if it is missing.

    It holds accounts, the embedded store and secrets, so only its owner may enter it (0700),
    also when it existed with wider permissions. `DOORWARD_DATA` names another one, for a route
    file that lies where nothing can be written.

    Raises:
        OSError: it cannot be created, or it belongs to somebody else.
    """
    named = environment.get(DATA)
    directory = Path(named).resolve() if named else route_file.resolve().parent / DIRECTORY_NAME
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        directory.chmod(0o700)
    return directory
