"""Looking for values in a document as it is, also in one that differs from the schema."""

from collections.abc import Callable, Iterator
from typing import Any

from config import addresses
from config.document import Place, PlacedMapping, PlacedSequence
from config.validation import Report, shown


class Found:
    """A value of the document with its place."""

    __slots__ = ("place", "value")

    def __init__(self, value: Any, place: Place) -> None:
        self.value = value
        self.place = place


def find(mapping: Any, *keys: str, as_: Callable[[Any], Any] | None = None) -> Found | None:
    """Return what stands under *keys*, read with *as_*; None if it is not there or no good."""
    place = (1, 1)
    value = mapping
    for key in keys:
        if not isinstance(value, PlacedMapping) or key not in value:
            return None
        place, value = value.places[key], value[key]
    if as_ is not None:
        try:
            value = as_(value)
        except (ValueError, TypeError, AttributeError):
            return None
    return Found(value, place)


def items(root: Any, *keys: str) -> Iterator[tuple[PlacedMapping, Place]]:
    """Yield the mappings in the list under *keys*."""
    found = find(root, *keys)
    if found and isinstance(found.value, PlacedSequence):
        for item, place in zip(found.value, found.value.places, strict=True):
            if isinstance(item, PlacedMapping):
                yield item, place


def check_unique(
    mappings: Iterator[tuple[PlacedMapping, Place]], key: str, what: str, report: Report
) -> None:
    """Report each value of *key* that stands in an earlier one of *mappings* too."""
    first: dict[str, int] = {}
    for item, _ in mappings:
        value = item.get(key)
        if isinstance(value, str):
            line, column = item.places[key]
            if value in first:
                report(
                    (line, column), f"the {what} {shown(value)} stands on line {first[value]} too"
                )
            first.setdefault(value, line)


def public_origin(root: Any) -> str:
    """Return the origin of the public side, or the default where it is not given well."""
    given = find(root, "server", "public_url", as_=addresses.origin)
    if given:
        return str(given.value)
    listen = find(root, "server", "listen", as_=addresses.address)
    scheme = "https" if find(root, "server", "tls") else "http"
    return f"{scheme}://{listen.value if listen else '127.0.0.1:8080'}"
