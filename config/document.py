"""A YAML text as plain values that remember where they stand, and every problem of its writing.

How this works: libyaml's parser yields events one at a time, and an explicit stack turns them into
dicts and lists. No recursion, no alias (so no "billion laughs"), no tag (so no object of anybody's
choosing), bounded depth and size: reading ends quickly on every text, however hostile. Plain
scalars follow the core schema of YAML 1.2 (10.3), so `no`, `on` and `12:30` are text, and JSON is a
subset. Positions are kept in the parent: a dict knows the places of its keys and values, a list
those of its items.

`/{name}` and `${NAME}` may stand unquoted inside `{…}` and `[…]`, where YAML would take the brace
for the start of a mapping. Before parsing, these braces become two characters that the text does
not contain, one for one, so that no place moves; afterwards they are put back. In YAML a brace
right after `/` or `$` can only be part of a scalar, of a comment, or an error, so nothing else
changes.
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

import msgspec
import yaml

from config.problem import Problem

Place = tuple[int, int]
"""Line and column, both from 1."""

MAXIMUM_SIZE: Final = 8 * 1024 * 1024
"""Characters. Ten thousand routes take two million."""
MAXIMUM_DEPTH: Final = 32
"""Nested mappings and lists; the route file itself needs seven."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class PlacedMapping(dict[str, Any]):
    """A mapping of the document, with the place of each key and of each value."""

    __slots__ = ("key_places", "place", "places")

    def __init__(self, place: Place = (1, 1)) -> None:
        super().__init__()
        self.place = place
        self.key_places: dict[str, Place] = {}
        self.places: dict[str, Place] = {}


class PlacedSequence(list[Any]):
    """A list of the document, with the place of each item."""

    __slots__ = ("place", "places")

    def __init__(self, place: Place = (1, 1)) -> None:
        super().__init__()
        self.place = place
        self.places: list[Place] = []


Hole = tuple[PlacedMapping, str] | tuple[PlacedSequence, int]
"""Where a text with `${…}` stands: `container[key]`."""


class Document(msgspec.Struct):
    """What a text says, and what is wrong with how it is written."""

    root: Any = None
    """None when nothing could be read; `problems` then says why."""
    place: Place = (1, 1)
    problems: list[Problem] = []
    holes: list[Hole] = []
    lines: list[str] = []

    def content_place(self, place: Place) -> Place:
        """Return where the characters of the scalar at *place* begin, behind its quote or `|`."""
        line, column = place
        if not 0 < line <= len(self.lines):
            return place
        mark = self.lines[line - 1][column - 1 : column]
        if mark in {'"', "'"}:
            return line, column + 1
        if mark in {"|", ">"}:
            for number, text in enumerate(self.lines[line:], line + 1):
                if text.strip():
                    return number, len(text) - len(text.lstrip(" ")) + 1
        return place


def read_document(text: str) -> Document:
    """Read *text*; never raises. Duplicate keys, aliases, anchors, tags and `<<` are problems."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAXIMUM_SIZE:
        message = f"the file is larger than {MAXIMUM_SIZE} characters; nothing of it is read"
        return Document(problems=[Problem(1, 1, message)])
    # libyaml is handed UTF-8, and what a str may hold beyond that would raise.
    if surrogate := re.search("[\ud800-\udfff]", text):
        place = _place_in(text, surrogate.start())
        return Document(problems=[Problem(*place, "the file is not valid UTF-8 here")])
    shielded, opening, closing = _shield_braces(text)
    reader = _Reader(opening, closing)
    try:
        for event in yaml.parse(shielded, Loader=_LOADER):
            reader.take(event)
    except _TooDeepError as error:
        reader.report(error.place, f"nested more than {MAXIMUM_DEPTH} levels deep")
        reader.root = None
    except yaml.YAMLError as error:
        reader.problems.append(_problem_of(error, text))
        reader.root = None
    else:
        if reader.root is None and not reader.problems:
            reader.report((1, 1), "the file is empty; begin with `version: 1`")
    return Document(
        root=reader.root,
        place=reader.place,
        problems=reader.problems,
        holes=reader.holes,
        lines=text.split("\n"),
    )


class _TooDeepError(Exception):
    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


class _Next(Enum):
    """What an open container waits for, when it is not the value of a key that was read."""

    KEY = "key"
    DROPPED = "the value of a key that is no text"


class _Reader:
    """The stack machine from events to values."""

    def __init__(self, opening: str, closing: str) -> None:
        self.root: Any = None
        self.place: Place = (1, 1)
        self.problems: list[Problem] = []
        self.holes: list[Hole] = []
        self._documents = 0
        self._stack: list[PlacedMapping | PlacedSequence] = []
        # For each open container the key that waits for its value, or what comes next.
        self._keys: list[str | _Next] = []
        self._opening, self._closing = opening, closing

    def report(self, place: Place, message: str) -> None:
        self.problems.append(Problem(*place, message))

    def take(self, event: Any) -> None:
        """Take the next event of the parser."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._take_scalar(event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._open(event, PlacedMapping if kind is yaml.MappingStartEvent else PlacedSequence)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._stack.pop()
            self._keys.pop()
        elif kind is yaml.AliasEvent:
            place = _place_of(event)
            self.report(place, "aliases (*name) are not read; write the value out")
            self._add(None, place)
        elif kind is yaml.DocumentStartEvent:
            self._documents += 1
            if self._documents == 2:
                self.report(
                    _place_of(event), "a second document begins here; one file, one document"
                )

    def _take_scalar(self, event: Any) -> None:
        place = _place_of(event)
        if event.anchor is not None or event.tag is not None:
            self._refuse_properties(event, place)
        text: str = event.value
        if self._opening in text or self._closing in text:
            text = text.replace(self._opening, "{").replace(self._closing, "}")
        if self._keys and self._keys[-1] is _Next.KEY and type(self._stack[-1]) is PlacedMapping:
            self._take_key(text, place, plain=event.implicit[0])
        else:
            self._add(plain_value(text) if event.implicit[0] else text, place)

    def _take_key(self, key: str, place: Place, *, plain: bool) -> None:
        mapping = self._stack[-1]
        assert isinstance(mapping, PlacedMapping)
        self._keys[-1] = key
        if plain and key == "<<":
            self.report(place, "merge keys (<<) are not read; write the keys out")
        if key in mapping.key_places:
            first = mapping.key_places[key][0]
            self.report(place, f"the key {quoted(key)} stands here a second time; see line {first}")
        else:
            mapping.key_places[key] = place

    def _open(self, event: Any, kind: type[PlacedMapping | PlacedSequence]) -> None:
        place = _place_of(event)
        if len(self._stack) >= MAXIMUM_DEPTH:
            raise _TooDeepError(place)
        if event.anchor is not None or event.tag is not None:
            self._refuse_properties(event, place)
        container = kind(place)
        self._add(container, place)
        self._stack.append(container)
        self._keys.append(_Next.KEY)

    def _refuse_properties(self, event: Any, place: Place) -> None:
        if event.anchor is not None:
            self.report(place, "anchors (&name) are not read; write each value out")
        if event.tag is not None:
            self.report(place, "tags (!name) are not read; leave the tag out")

    def _add(self, value: Any, place: Place) -> None:
        """Put *value* where the next value belongs."""
        if not self._stack:
            if self._documents == 1:
                self.root, self.place = value, place
            return
        parent = self._stack[-1]
        if isinstance(parent, PlacedSequence):
            if type(value) is str and "${" in value:
                self.holes.append((parent, len(parent)))
            parent.append(value)
            parent.places.append(place)
            return
        key = self._keys[-1]
        if key is _Next.KEY:
            # The value is itself a key: `{a: 1}: b` or `*a: b`.
            self.report(place, "a key must be text")
            self._keys[-1] = _Next.DROPPED
            return
        self._keys[-1] = _Next.KEY
        if isinstance(key, str) and key not in parent:
            if type(value) is str and "${" in value:
                self.holes.append((parent, key))
            parent[key] = value
            parent.places[key] = place


_INTEGER = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}(\.[0-9]{0,18})?)([eE][-+]?[0-9]{1,2})?")
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def plain_value(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar means by the core schema of YAML 1.2 (10.3.2).

    Numbers too long to be meant as numbers, and `.inf` and `.nan`, stay text.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def quoted(text: str) -> str:
    """Return *text* as a message shows it: bounded, on one line, nothing a terminal would obey."""
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown) + '"'


_BRACED = re.compile(r"(?<=[/$])\{([^{}\n]*)\}")


def _shield_braces(text: str) -> tuple[str, str, str]:
    """Replace the braces of `/{name}` and `${NAME}`; see "How this works"."""
    unused = _unused_characters(text)
    opening, closing = next(unused), next(unused)
    return _BRACED.sub(rf"{opening}\1{closing}", text), opening, closing


def _unused_characters(text: str) -> Iterator[str]:
    present = set(text)
    # The private use area has 6,400 characters; a text that uses all of them is not shielded.
    yield from (c for c in map(chr, range(0xE000, 0xF900)) if c not in present)
    yield from "{}"


def _place_of(event: Any) -> Place:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _place_in(text: str, index: int) -> Place:
    start = text.rfind("\n", 0, index) + 1
    return text.count("\n", 0, index) + 1, index - start + 1


_HINTS: Final = (
    ("cannot start any token", "quote the value, and indent with spaces, never with tabs"),
    (
        "mapping values are not allowed",
        'quote a value that contains ": ", and check the indentation',
    ),
    ("unexpected end of stream", "a quote or bracket is not closed"),
)


def _problem_of(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = error.problem or error.context or "cannot be read"
        begun = error.context_mark
        if error.context and begun and begun.line + 1 != place[0]:
            what = f"{what}, {error.context} that begins on line {begun.line + 1}"
        hint = next((hint for part, hint in _HINTS if part in what), "")
        return Problem(*place, f"not YAML: {what}{'; ' if hint else ''}{hint}".replace("\n", " "))
    # yaml.reader.ReaderError counts bytes of the UTF-8 text.
    position = getattr(error, "position", 0) or 0
    index = len(text.encode()[:position].decode(errors="ignore"))
    character = text[index : index + 1]
    return Problem(
        *_place_in(text, index), f"the character {quoted(character)} is not allowed here"
    )
