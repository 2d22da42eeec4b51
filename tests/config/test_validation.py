import copy
import random
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.document import PlacedMapping, PlacedSequence, read_document
from config.formats import FORMATS
from config.problem import Problem
from config.schema import SCHEMA
from config.substitution import Filled
from config.validation import compile_schema, shown, suggestion, validate

CHECK = compile_schema(SCHEMA)


def differences(schema: dict[str, Any], text: str) -> list[Problem]:
    document = read_document(text)
    assert not document.problems
    return validate(document.root, document.place, compile_schema(schema, "it"))


TEXT = {"type": "string", "minLength": 1}
TABLE = {
    "type": "object",
    "properties": {"name": TEXT, "kind": {"enum": ["small", "large"]}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "text", "expected"),
    [
        (TEXT, "5", '1:1 it: text is needed here, not 5; quote it to make it text: "5"'),
        (TEXT, "true", '1:1 it: text is needed here, not true; quote it to make it text: "true"'),
        ({"type": "array", "items": TEXT}, "[~]", "1:2 it[]: text is needed here, not nothing"),
        (TEXT, "[]", "1:1 it: text is needed here, not a list"),
        (TEXT, "''", "1:1 it: this must not be empty"),
        ({"type": "integer"}, "true", "1:1 it: a whole number is needed here, not true"),
        ({"const": 1}, "true", "1:1 it: this must be 1, not true"),
        ({"const": 1}, "1.0", "1:1 it: this must be 1, not 1.0"),
        (TABLE, "{}", '1:1 the key "name" is missing in it'),
        (TABLE, "{nme: x, name: y}", '1:2 unknown key "nme" in it'),
        (TABLE, "{name: x, knd: y}", '1:11 unknown key "knd" in it; did you mean "kind"?'),
        (
            TABLE,
            "name: x\nkind: smal",
            '2:7 it.kind: one of small, large is needed here, not "smal"; did you mean "small"?',
        ),
        (TABLE, "name: x\nkind: 3", "2:7 it.kind: one of small, large is needed here, not 3"),
        (
            {"type": "array", "items": TEXT, "uniqueItems": True},
            "[a, b, a]",
            '1:8 it: "a" stands here twice',
        ),
        ({"type": "array", "items": TEXT, "minItems": 1}, "[]", "1:1 it: this must not be empty"),
        ({"type": "object", "minProperties": 1}, "{}", "1:1 it: this must not be empty"),
        (
            {"anyOf": [{"type": "string", "enum": ["on"]}, TABLE]},
            "7",
            "1:1 it: one of on or a mapping is needed here, not 7",
        ),
        (
            {"anyOf": [{"type": "string", "enum": ["on"]}, TABLE]},
            "{name: ''}",
            "1:8 it.name: this must not be empty",
        ),
        (
            {
                "type": "string",
                "format": "doorward-duration",
                "title": "a duration",
                "x-at-least": "1s",
                "x-at-most": "1h",
            },
            "2h",
            '1:1 it "2h" is not between 1s and 1h',
        ),
        (
            {
                "type": "object",
                "propertyNames": {"type": "string", "format": "doorward-name", "title": "a name"},
            },
            "{a: 1, -b: 2}",
            '1:8 it "-b": a name has letters, digits and . _ - and begins with a letter or digit',
        ),
    ],
)
def test_a_difference_is_told_at_its_place(
    schema: dict[str, Any], text: str, expected: str
) -> None:
    found = [f"{each.line}:{each.column} {each.message}" for each in differences(schema, text)]
    assert found == [expected]


def test_a_key_that_already_stands_there_is_not_suggested() -> None:
    (problem,) = differences(TABLE, "{name: x, nam: y}")
    assert "did you mean" not in problem.message


def test_what_was_put_in_or_may_not_be_shown_never_appears() -> None:
    found: list[str] = []
    form = {"type": "string", "format": "doorward-duration", "title": "a duration"}
    for schema, value in (
        (form, Filled("s3cret")),
        (form | {"writeOnly": True}, "s3cret"),
        (form | {"writeOnly": True}, 5_3_2_1),
        ({"enum": ["s3cre", "x"]}, Filled("s3cret")),
        (form | {"x-at-least": "1s", "x-at-most": "2s"}, Filled("53h")),
    ):
        compile_schema(schema, "it")(value, (1, 1), lambda _, message: found.append(message))
    assert len(found) == 5
    assert not [each for each in found if "s3cret" in each or "5321" in each or "53h" in each]


def test_a_keyword_without_a_check_is_refused() -> None:
    with pytest.raises(ValueError, match="maxLength"):
        compile_schema({"type": "string", "maxLength": 3})


def test_alternatives_of_one_type_are_refused() -> None:
    with pytest.raises(ValueError, match="alternatives of one type"):
        compile_schema({"anyOf": [TEXT, {"enum": ["a"]}]})


def test_a_choice_of_a_type_without_a_check_is_refused() -> None:
    with pytest.raises(ValueError, match="no check for the choice None"):
        compile_schema({"enum": ["a", None]})


def test_two_checks_of_one_value_are_refused() -> None:
    with pytest.raises(ValueError, match="several checks"):
        compile_schema({"type": ["object", "array"], "items": TEXT}, "it")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["object", "string"], "minProperties": 1},
        {"type": ["array", "string"], "items": {"type": "integer"}, "minItems": 1},
    ],
)
def test_what_is_asked_of_one_type_is_not_asked_of_another(schema: dict[str, Any]) -> None:
    assert differences(schema, "x") == []
    assert len(differences(schema, "{}" if "object" in schema["type"] else "[]")) == 1


def test_items_of_the_wrong_type_are_not_told_twice() -> None:
    found = differences({"type": "array", "items": TEXT, "uniqueItems": True}, "[[a], [a]]")
    assert [each.message for each in found] == ["it[]: text is needed here, not a list"] * 2


def test_a_suggestion_is_near_and_bounded() -> None:
    assert suggestion("ntoes", ["notes", "video"]) == '; did you mean "notes"?'
    assert suggestion("x", ["notes"]) == ""
    assert suggestion("a" * 100_000, ["a" * 100_000]) == ""
    assert shown(1) == "1"


def placed(value: Any) -> Any:
    """Return *value* as the document reader would have made it."""
    if isinstance(value, dict):
        mapping = PlacedMapping()
        for key, item in value.items():
            mapping[key] = placed(item)
            mapping.places[key] = mapping.key_places[key] = (1, 1)
        return mapping
    if isinstance(value, list):
        sequence = PlacedSequence()
        sequence.extend(map(placed, value))
        sequence.places.extend([(1, 1)] * len(value))
        return sequence
    return value


FULL: dict[str, Any] = {
    "version": 1,
    "server": {
        "listen": "127.0.0.1:1",
        "limits": {"head": "2KiB", "body": 100, "head_timeout": "1s"},
        "tls": {"certificates": [{"cert_file": "a", "key_file": "b"}]},
        "workers": "auto",
    },
    "session": {"cookie": {"name": "n", "same_site": "lax"}, "lease": "100ms"},
    "login": {
        "providers": [
            {"id": "p", "issuer": "https://i", "client_id": "c", "claims": {"roles": "r"}}
        ],
        "accounts": False,
    },
    "tokens": [{"issuer": "i", "audience": ["a"], "algorithms": ["ES256"], "jwks_file": "f"}],
    "identity": {"headers": {"X-A": "subject"}, "include": ["name"], "assertion": {"ttl": "60s"}},
    "upstreams": {"a": "http://a", "b": {"endpoints": ["unix:/s"], "balance": "round_robin"}},
    "routes": [
        {
            "id": "r",
            "match": {"path": "/{x}/*", "hosts": ["a"], "methods": ["GET"]},
            "upstream": "a",
            "access": {"roles": ["x"], "when": "true"},
            "unauthenticated": 401,
            "on_store_outage": {"serve_cached": "60s"},
            "rewrite": {"add_prefix": "/p"},
        },
        {"id": "s", "match": {"path": "/"}, "upstream": "b", "access": "public"},
    ],
    "tests": [
        {
            "request": "GET /",
            "as": {"subject": "u", "claims": {"a": [1]}},
            "headers": {"A": "b"},
            "expect": "allow",
        }
    ],
}


ORACLE_FORMATS = jsonschema.FormatChecker(formats=())


def _readable(parse: Any) -> Any:
    def readable(value: object) -> bool:
        if not isinstance(value, str | int):
            return True
        parse(value)
        return True

    return readable


for _name, _parse in FORMATS.items():
    ORACLE_FORMATS.checks(_name, raises=(ValueError, AttributeError, TypeError))(_readable(_parse))
ORACLE = jsonschema.Draft202012Validator(SCHEMA, format_checker=ORACLE_FORMATS)

SCALARS: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    401,
    -1,
    1.5,
    "",
    "x",
    "10s",
    "99h",
    "/a",
    "a",
    "GET",
    "public",
    "GET /",
    [],
    {},
    ["a", "a"],
    ["x"],
    {"a": "b"},
]


def mutate(value: Any, chance: random.Random) -> Any:
    """Return a copy of *value* with one thing in it changed."""
    value = copy.deepcopy(value)
    spots: list[tuple[Any, Any]] = []

    def walk(container: Any) -> None:
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, item in items:
            spots.append((container, key))
            if isinstance(item, dict | list):
                walk(item)

    walk(value)
    container, key = chance.choice(spots)
    what = chance.randrange(4)
    if what == 0:
        del container[key]
    elif what == 1 and isinstance(container, dict):
        container[key + "s"] = container.pop(key)
    elif what == 2 and isinstance(container, list):
        container.append(copy.deepcopy(container[key]))
    else:
        container[key] = copy.deepcopy(chance.choice(SCALARS))
    return value


def test_the_full_example_has_no_difference() -> None:
    assert validate(placed(FULL), (1, 1), CHECK) == []
    assert ORACLE.is_valid(FULL)


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 3))
def test_the_verdict_is_that_of_a_general_validator(chance: random.Random, times: int) -> None:
    value: Any = FULL
    for _ in range(times):
        value = mutate(value, chance)
    bounded = [
        each
        for each in validate(placed(value), (1, 1), CHECK)
        if "is not between" not in each.message
    ]
    assert (bounded == []) == ORACLE.is_valid(value), (value, bounded)
