"""Read a route file: from text to a whole `Configuration`, or to all of its problems.

    text → document (values and places) → secrets put in → schema → checks between values → records

Every step reports all it finds, and the next one still runs on what can be read, so an operator
sees everything in one go; records are built only when nothing was found.
"""

import posixpath
from collections.abc import Callable, Mapping
from functools import cache

from config.building import build_configuration
from config.checks import find_conflicts
from config.document import read_document
from config.model import Configuration
from config.problem import Problem
from config.schema import SCHEMA
from config.substitution import fill_document
from config.validation import Check, compile_schema, validate


@cache
def _check() -> Check:
    return compile_schema(SCHEMA)


def read_configuration(
    text: str,
    *,
    environment: Mapping[str, str],
    read_file: Callable[[str], str],
    base_dir: str,
) -> Configuration | list[Problem]:
    """Return what *text* says, or every problem in it, sorted by place. Never raises.

    Args:
        text: The route file, YAML or JSON.
        environment: Where `${NAME}` is looked up.
        read_file: Called with a path for `${file:PATH}`; raises `OSError` or `ValueError`.
        base_dir: What relative paths in the file are relative to.
    """

    def locate(path: str) -> str:
        return posixpath.join(base_dir, path)

    document = read_document(text)
    if document.root is None:
        return sorted(document.problems)
    unfilled = fill_document(document, environment, lambda path: read_file(locate(path)))
    found = validate(document.root, document.place, _check()) + find_conflicts(document.root)
    # What could not be put in is one problem, not also a malformed value.
    found = [problem for problem in found if (problem.line, problem.column) not in unfilled]
    if problems := document.problems + found:
        return sorted(set(problems))
    return build_configuration(document, locate)
