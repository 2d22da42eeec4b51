"""Read the route file, and the files that it names, from the disk."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from config.document import MAXIMUM_SIZE
from config.io.named_files import find_unusable
from config.io.page_files import read_page_files
from config.model import Configuration
from config.overriding import move_addresses
from config.problem import Problem
from config.reading import Examine, examine_nothing, read_configuration

_MAXIMUM_SECRET_SIZE = 1024 * 1024
"""Bytes; what is larger is no secret but a mistake."""


def load_configuration(
    path: Path, environment: Mapping[str, str] = os.environ, *, examine: Examine = examine_nothing
) -> Configuration | list[Problem]:
    """Return what the route file at *path* says, or all of its problems. Never raises.

    Relative paths in it are relative to its own directory. `DOORWARD_LISTEN` and
    `DOORWARD_ADMIN_LISTEN` move the two addresses, and `workers: auto` is counted out. *examine*
    adds to the problems of a file that has some (`config.reading.Examine`).
    """
    try:
        # A character is at most four bytes of UTF-8; one byte more shows that the file is larger.
        text = _read_text(path, MAXIMUM_SIZE * 4)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = len(error.object[: error.start].rpartition(b"\n")[2].decode()) + 1
        return [Problem(line, column, "the file is not valid UTF-8 here")]
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return [Problem(1, 1, f"the file cannot be read: {why}")]
    configuration = read_configuration(
        text,
        environment=environment,
        read_file=lambda name: _read_text(Path(name), _MAXIMUM_SECRET_SIZE),
        base_dir=str(path.absolute().parent),
        examine=examine,
        look_at=find_unusable,
    )
    if isinstance(configuration, list):
        return configuration
    if configuration.server.workers == 0:
        server = msgspec.structs.replace(configuration.server, workers=len(os.sched_getaffinity(0)))
        configuration = msgspec.structs.replace(configuration, server=server)
    configuration = read_page_files(configuration)
    if isinstance(configuration, list):
        return sorted(configuration)
    return move_addresses(configuration, environment)


def _read_text(path: Path, maximum: int) -> str:
    """Return the text of a file of at most *maximum* bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, is no UTF-8, or its name cannot be one.
    """
    with path.open("rb") as file:
        content = file.read(maximum + 1)
    if len(content) > maximum:
        raise ValueError(f"it is larger than {maximum} bytes")
    return content.decode()
