"""Looking for values in documents of any shape."""

from typing import Any

import pytest

from config.document import read_document
from config.finding import check_unique, find, items, public_origin

DOCUMENT = """\
server: {listen: 127.0.0.1:5}
routes:
  - {id: a}
  - not a mapping
  - {id: 7}
  - {id: b}
  - {id: a}
"""


def root(text: str = DOCUMENT) -> Any:
    return read_document(text).root


def test_a_value_is_found_with_its_place() -> None:
    found = find(root(), "server", "listen")

    assert found is not None
    assert (found.value, found.place) == ("127.0.0.1:5", (1, 18))


@pytest.mark.parametrize("keys", [("admin",), ("server", "tls"), ("server", "listen", "port")])
def test_what_is_not_there_is_not_found(keys: tuple[str, ...]) -> None:
    assert find(root(), *keys) is None


@pytest.mark.parametrize("text", ["~", "[]", "text", "7"])
def test_in_what_is_no_mapping_nothing_is_found(text: str) -> None:
    assert find(root(text), "server") is None


def test_a_value_that_cannot_be_read_is_not_found() -> None:
    assert find(root(), "server", "listen", as_=int) is None
    assert find(root(), "routes", as_=int) is None
    found = find(root(), "server", "listen", as_=len)
    assert found is not None
    assert found.value == 11


def test_of_a_list_the_mappings_are_yielded_and_of_anything_else_nothing() -> None:
    assert [item["id"] for item, _ in items(root(), "routes")] == ["a", 7, "b", "a"]
    assert [*items(root(), "server")] == []
    assert [*items(root(), "tests")] == []


def test_a_value_that_stands_twice_is_told_with_the_line_of_the_first() -> None:
    told: list[object] = []
    check_unique(
        items(root(), "routes"),
        *("id", "route id"),
        lambda place, message: told.append((place, message)),
    )

    assert told == [((7, 10), 'the route id "a" stands on line 3 too')]


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("server: {public_url: https://a.example}", "https://a.example"),
        ("server: {public_url: no url, listen: 127.0.0.1:5}", "http://127.0.0.1:5"),
        ("server: {listen: 127.0.0.1:5}", "http://127.0.0.1:5"),
        ("server: {tls: {}}", "https://127.0.0.1:8080"),
        ("routes: []", "http://127.0.0.1:8080"),
    ],
)
def test_the_public_origin_is_given_or_follows_from_the_address(text: str, origin: str) -> None:
    assert public_origin(root(text)) == origin
