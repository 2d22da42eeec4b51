"""Reads our pages as a browser or a screen reader would, with the standard library."""

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import NamedTuple

_VOID = frozenset({"meta", "input", "path", "br", "link"})


class Element(NamedTuple):
    """A start tag with what stands around and in it."""

    tag: str
    attributes: dict[str, str]
    """A bare attribute has an empty value."""
    inside: tuple[str, ...]
    """The tags that are open around it."""
    form: int
    """The number of the form it is in, from 1; 0 outside."""


class PageReader(HTMLParser):
    """A page, read."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.texts: list[tuple[str, str]] = []
        """Every text with the tag it stands in."""
        self.faults: list[str] = []
        self._open: list[str] = []
        self._texts_of: dict[int, str] = {}
        self._stack: list[int] = []
        self._forms = self._form = 0
        self.feed(page.decode())
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            self.faults.append(f"<{tag}> has an attribute twice")
        if tag == "form":
            if self._form:
                self.faults.append("a form in a form")
            self._forms += 1
            self._form = self._forms
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append(Element(tag, attributes, tuple(self._open), self._form))
        if tag not in _VOID:
            self._open.append(tag)
            self._stack.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID:
            return
        if not self._open or self._open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self._open[-1:]}")
            return
        self._open.pop()
        self._stack.pop()
        if tag == "form":
            self._form = 0

    def handle_data(self, data: str) -> None:
        for index in self._stack:
            self._texts_of[index] = self._texts_of.get(index, "") + data
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data.strip()))

    @property
    def text(self) -> str:
        """What a person reads."""
        words = (text for tag, text in self.texts if tag not in {"style", "title"})
        return " ".join(" ".join(words).split())

    def all(self, tag: str, **attributes: str) -> Iterator[Element]:
        for element in self.elements:
            known = element.attributes
            if element.tag == tag and attributes.items() <= known.items():
                yield element

    def one(self, tag: str, **attributes: str) -> Element:
        (element,) = self.all(tag, **attributes)
        return element

    def text_of(self, element: Element) -> str:
        index = next(i for i, each in enumerate(self.elements) if each is element)
        return " ".join(self._texts_of.get(index, "").split())

    def by_id(self, name: str) -> Element:
        (element,) = (each for each in self.elements if each.attributes.get("id") == name)
        return element

    def inputs(self, form: int = 1) -> dict[str, str]:
        """The names and values a browser would send, without buttons."""
        return {
            element.attributes["name"]: element.attributes.get("value", "")
            for element in self.all("input")
            if element.form == form
        }
