"""The regular expressions of the product mean the same on every Python that Doorward runs on.

Before Python 3.11.5 (Debian 12 has 3.11.2) a possessive repeat of a group, `(?:ab)*+`, kept what
its last, failing turn had already read (python/cpython#106052): good heads were refused, and `/%`
or `5;` passed as a whole path and a whole chunk size. An atomic group, `(?>(?:ab)*)`, does the same
work and is right everywhere; so is the possessive repeat of one character or one class.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [path for name in ("config", "auth", "gateway") for path in (ROOT / name).rglob("*.py")]

_HOLE = "\0"
"""What an f-string or `%b` puts in: it may be a group."""
_CLASS = re.compile(r"(?<!\\)\[\^?\]?(?:\\.|[^\]\\])*\]")
# `()*+` stands in lists of characters that classes are made of; nobody repeats an empty group.
_POSSESSIVE_GROUP = re.compile(r"(?:(?<![(\\])\)|\0|%[bs])(?:[*+?]|\{+[0-9,]+\}+)\+")


def texts(source: str) -> Iterator[str]:
    """Yield each text of a module as an expression would be read: what is put in, as a hole."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else _HOLE for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            yield node.value.decode("latin-1")


def possessive_groups(source: str) -> list[str]:
    return [text for text in texts(source) if _POSSESSIVE_GROUP.search(_CLASS.sub("c", text))]


def test_no_expression_repeats_a_group_possessively() -> None:
    assert SOURCES
    found = {path: wrong for path in SOURCES if (wrong := possessive_groups(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        'r"(?:ab)*+"',
        'rb"(a|[b)])++c"',
        'rf"(?:{A}[x]*+)?+"',
        'rf"{A}*+"',
        'rf"(?:a){{2,3}}+"',
        'r"(?:a)" r"{2}+"',
        'b"(?:[%b]++=%b)*+" % (A, B)',
    ],
)
def test_a_possessive_repeat_of_a_group_is_found(source: str) -> None:
    assert len(possessive_groups(source)) >= 1


@pytest.mark.parametrize(
    "source",
    ['r"(?>(?:ab)*)"', 'rf"[{A}]++a*+"', 'r"[()*+,]"', 'r"\\)*+"', 'r"(?:[a]*+)+b+"'],
)
def test_what_is_right_on_every_python_passes(source: str) -> None:
    assert possessive_groups(source) == []
