"""What the tests of the route file share: a small good file, and reading without a disk."""

import re
from collections.abc import Mapping
from pathlib import Path

from config.model import Configuration
from config.problem import Problem
from config.reading import read_configuration

ROOT = Path(__file__).parents[2]

MINIMAL = """\
version: 1
upstreams:
  notes: http://127.0.0.1:9001
routes:
  - id: notes
    match: {path: /notes/*}
    upstream: notes
    access: signed-in
"""

ROUTE = "  - {id: %s, match: {path: %s}, upstream: notes, access: signed-in}\n"


def missing_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def read(text: str, environment: Mapping[str, str] | None = None) -> Configuration | list[Problem]:
    return read_configuration(
        text, environment=environment or {}, read_file=missing_file, base_dir="/etc/doorward"
    )


def configuration(text: str, environment: Mapping[str, str] | None = None) -> Configuration:
    result = read(text, environment)
    assert isinstance(result, Configuration), result
    return result


def problems(text: str, environment: Mapping[str, str] | None = None) -> list[Problem]:
    result = read(text, environment)
    assert isinstance(result, list), "there is no problem"
    assert result
    return result


def place_of(text: str, part: str) -> tuple[int, int]:
    """Return line and column of the only place where *part* stands in *text*."""
    (match,) = re.finditer(re.escape(part), text)
    start = text.rfind("\n", 0, match.start()) + 1
    return text.count("\n", 0, match.start()) + 1, match.start() - start + 1
