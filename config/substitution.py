"""Values from outside: `${NAME}`, `${NAME:-default}` and `${file:PATH}` inside any text value.

`$${` stands for a literal `${`. What is put in is never searched again, and never shown.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from config.document import Document, Place, quoted
from config.problem import Problem


class Filled(str):
    """A text that holds something from the environment or a file: no message may show it."""

    __slots__ = ()


class SubstitutionError(ValueError):
    """A `${…}` that cannot be filled. `offset` is where it begins in the text, from 0."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


_HOLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def fill(
    text: str, environment: Mapping[str, str], read_file: Callable[[str], str]
) -> tuple[str, list[SubstitutionError]]:
    """Return *text* with every `${…}` replaced, and what could not be.

    `${NAME:-default}` takes the default when the variable is not set or empty, as shells do. One
    line end at the end of a file is dropped: editors and `echo` put it there.
    """
    errors: list[SubstitutionError] = []

    def value_of(hole: re.Match[str]) -> str:
        if hole[0] == "$${":
            return "${"
        try:
            return _value(hole[1], environment, read_file, closed=bool(hole[2]))
        except ValueError as error:
            errors.append(SubstitutionError(str(error), hole.start()))
            return ""

    return Filled(_HOLE.sub(value_of, text)), errors


def _value(
    inside: str,
    environment: Mapping[str, str],
    read_file: Callable[[str], str],
    *,
    closed: bool,
) -> str:
    if not closed:
        raise ValueError("`${` is not closed; write $${ for a literal one")
    if inside.startswith("file:"):
        path = inside.removeprefix("file:")
        try:
            content = read_file(path)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no UTF-8 text of at most 1 MiB"
            raise ValueError(f"the file {quoted(path)} cannot be read: {why}") from error
        return content.removesuffix("\n").removesuffix("\r")
    match = _NAME.fullmatch(inside)
    if not match:
        raise ValueError(
            f"{quoted('${' + inside + '}')} names no variable; "
            "write ${NAME}, ${NAME:-default}, ${file:PATH}, or $${ for a literal ${"
        )
    name, default = match[1], match[2]
    value = environment.get(name)
    if default is not None:
        return value or str(default)
    if value is None:
        raise ValueError(
            f"the environment variable {name} is not set; set it, or give a default: ${{{name}:-…}}"
        )
    return value


class Filling(msgspec.Struct):
    """What came of filling a document."""

    unfilled: set[Place] = set()
    """The places of values with a hole that stays."""
    files: list[tuple[str, Place]] = []
    """The paths of `${file:PATH}`, each with the place of the value that it stands in."""


def fill_document(
    document: Document, environment: Mapping[str, str], read_file: Callable[[str], str]
) -> Filling:
    """Fill every hole of *document* in place, and report what cannot be."""
    filling = Filling()
    for hole in document.holes:
        # Any: a mapping with a key or a list with an index, and both are indexed alike.
        container: Any = hole[0]
        text, place = container[hole[1]], container.places[hole[1]]

        def read(path: str, place: Place = place) -> str:
            filling.files.append((path, place))
            return read_file(path)

        container[hole[1]], errors = fill(text, environment, read)
        for error in errors:
            filling.unfilled.add(place)
            document.problems.append(Problem(*_inside(document, place, text, error), str(error)))
    return filling


def _inside(document: Document, place: Place, text: str, error: SubstitutionError) -> Place:
    """Return where in the file the hole stands; the value's place if escapes or folds moved it."""
    line, column = document.content_place(place)
    source = document.lines[line - 1][column - 1 :] if line <= len(document.lines) else ""
    if source.startswith(text[: error.offset + 2]):
        return line, column + error.offset
    return place
