"""Where the gateway keeps what it writes: `.doorward/` beside the route file."""

from pathlib import Path

DIRECTORY_NAME = ".doorward"


def data_directory(route_file: Path) -> Path:
    """Return the data directory that belongs to *route_file*, created if it is missing.

    It holds accounts, the embedded store and secrets, so only its owner may enter it (0700),
    also when it existed with wider permissions.

    Raises:
        OSError: it cannot be created, or it belongs to somebody else.
    """
    directory = route_file.resolve().parent / DIRECTORY_NAME
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        directory.chmod(0o700)
    return directory
