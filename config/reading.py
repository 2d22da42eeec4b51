"""Read a route file: from text to a whole `Configuration`, or to all of its problems.

    text → document (values and places) → secrets put in → schema → checks between values → records

Every step reports all it finds, and the next one still runs on what can be read, so an operator
sees everything in one go. A configuration is built only when nothing was found; routes that are
sound in themselves are built all the same, so that whoever compiles them (`Examine`) can add what
compiling finds.
"""

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import msgspec

from config.building import build_configuration, build_route
from config.checks import find_conflicts
from config.document import Document, PlacedMapping, PlacedSequence, read_document
from config.model import Configuration, PrivateFile, Route
from config.named_files import NamedFile, named_files
from config.problem import Problem
from config.schema import SCHEMA
from config.substitution import fill_document
from config.validation import Check, compile_schema, validate

Examine = Callable[[Sequence[Route]], list[Problem]]
"""What is wrong with routes beyond their form; the packages above this one know."""


def examine_nothing(_routes: Sequence[Route]) -> list[Problem]:
    """Find nothing: for who only reads."""
    return []


LookAt = Callable[[Iterable[NamedFile]], list[Problem]]
"""What is wrong with the files that the route file names; whoever reads files knows."""


def look_at_none(_files: Iterable[NamedFile]) -> list[Problem]:
    """Find nothing: for who has no disk."""
    return []


@cache
def _check() -> Check:
    return compile_schema(SCHEMA)


@cache
def _check_route() -> Check:
    return compile_schema(SCHEMA["properties"]["routes"]["items"])


def read_configuration(  # noqa: PLR0913 - what is asked of the world, each by a name
    text: str,
    *,
    environment: Mapping[str, str],
    read_file: Callable[[str], str],
    base_dir: str,
    examine: Examine = examine_nothing,
    look_at: LookAt = look_at_none,
) -> Configuration | list[Problem]:
    """Return what *text* says, or every problem in it, sorted by place. Never raises.

    Args:
        text: The route file, YAML or JSON.
        environment: Where `${NAME}` is looked up.
        read_file: Called with a path for `${file:PATH}`; raises `OSError` or `ValueError`.
        base_dir: What relative paths in the file are relative to.
        examine: Called with the sound routes of a file that has problems, to find more of them.
        look_at: Called with the files that *text* names.
    """

    def locate(path: str) -> str:
        return posixpath.join(base_dir, path)

    document = read_document(text)
    if document.root is None:
        return sorted(document.problems)
    filling = fill_document(document, environment, lambda path: read_file(locate(path)))
    files = tuple(named_files(document.root, locate))
    found = [
        *validate(document.root, document.place, _check()),
        *find_conflicts(document.root),
        *look_at(files),
    ]
    # What could not be put in is one problem, not also a malformed value.
    found = [problem for problem in found if (problem.line, problem.column) not in filling.unfilled]
    if problems := document.problems + found:
        return sorted({*problems, *examine(_sound_routes(document))})
    private = [
        *(PrivateFile(file.path, file.key, *file.place) for file in files if file.kind == "key"),
        *(PrivateFile(locate(path), "${file:…}", *place) for path, place in filling.files),
    ]
    configuration = build_configuration(document, locate)
    return msgspec.structs.replace(configuration, private_files=tuple(private))


def _sound_routes(document: Document) -> list[Route]:
    """Return the routes of a file with problems that have none of form themselves."""
    routes = document.root.get("routes") if isinstance(document.root, PlacedMapping) else None
    if not isinstance(routes, PlacedSequence):
        return []
    return [
        build_route(given, place, document)
        for given, place in zip(routes, routes.places, strict=True)
        if not validate(given, place, _check_route())
    ]
