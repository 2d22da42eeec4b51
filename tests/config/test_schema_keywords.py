"""The kinds of value that the schema is written with, in the eyes of a validator."""

from typing import Any

import jsonschema
import pytest

from config.formats import FORMATS
from config.schema_keywords import (
    Schema,
    claims,
    duration,
    flag,
    list_of,
    mapping,
    number,
    one_of,
    set_of,
    size,
    text,
    words,
)


def takes(schema: Schema, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


PERSON = mapping("Somebody.", ("name",), name=words("A name."), from_=words("A place."))
WORDS = words("A word.")


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (PERSON, {"name": "Ada", "from": "London"}, {"name": "Ada", "from_": "London"}),
        (PERSON, {"name": "Ada"}, {"from": "London"}),
        (WORDS, "a", ""),
        (list_of(WORDS, "Words."), ["a", "a"], "a"),
        (set_of(WORDS, "Words."), ["a", "b"], ["a", "a"]),
        (one_of("One.", "a", 401), 401, "401"),
        (flag("Whether.", default=False), "true", "yes"),
        (flag("Whether.", default=False), True, None),
        (duration("How long.", "1s", "1h"), "1.5m", "1.5 m"),
        (duration("How long.", "1s", "1h"), "500ms", 500),
        (size("How much.", "1B", "1GiB"), 1024, 1.5),
        (size("How much.", "1B", "1GiB"), "16 MiB", "16MB"),
        (number("a number", "count", "How many.", "^[0-9]{1,3}$"), "12", "1234"),
        (number("a number", "count", "How many.", "^[0-9]{1,3}$"), 12, 1.5),
        (claims("Claims."), {"subject": "oid"}, {"acr": "acr"}),
    ],
)
def test_a_kind_of_value_takes_what_is_good_and_nothing_else(
    schema: Schema, good: object, bad: object
) -> None:
    assert takes(schema, good)
    assert not takes(schema, bad)


def test_a_text_is_read_by_a_format_that_there_is() -> None:
    schema = text("an address such as [::1]:80", "address", "Where.", default="127.0.0.1:8080")

    assert schema["format"] in FORMATS
    assert schema["default"] == "127.0.0.1:8080"


def test_bounds_are_written_as_the_operator_would() -> None:
    schema = duration("How long.", "50ms", "10s")

    assert (schema["x-at-least"], schema["x-at-most"]) == ("50ms", "10s")
