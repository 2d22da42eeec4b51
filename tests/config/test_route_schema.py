"""The structure of a route, and of a sentence about the routes."""

from typing import Any

import jsonschema
import pytest

from config.route_schema import ROUTE, ROUTE_TEST

NOTES: dict[str, Any] = {
    "id": "notes",
    "match": {"path": "/notes/*"},
    "upstream": "notes",
    "access": "signed-in",
}


def is_valid(schema: dict[str, Any], value: object) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize("missing", NOTES)
def test_a_route_says_all_four_of_id_match_upstream_and_access(missing: str) -> None:
    assert is_valid(ROUTE, NOTES)
    assert not is_valid(ROUTE, {key: value for key, value in NOTES.items() if key != missing})


@pytest.mark.parametrize(
    ("access", "good"),
    [
        ("public", True),
        ("optional", True),
        ("Public", False),
        (True, False),
        ([], False),
        ({"roles": ["a"], "acr": "mfa"}, True),
        ({"acr": ["phr", "mfa"], "max_age": "15m"}, True),
        ({"acr": []}, False),
        ({"role": ["a"]}, False),
        ({"roles": "a"}, False),
    ],
    ids=str,
)
def test_access_is_one_of_three_words_or_a_mapping_of_demands(access: object, good: bool) -> None:  # noqa: FBT001 - a column of the table
    assert is_valid(ROUTE, {**NOTES, "access": access}) is good


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({}, True),
        ({"expect": "not-found"}, True),
        ({"expect": "maybe"}, False),
        ({"as": {"roles": ["a"]}}, False),
        ({"as": {"subject": "u1", "claims": {"plan": "paid"}}}, True),
    ],
    ids=str,
)
def test_a_sentence_names_a_request_a_subject_if_any_and_an_outcome(
    changed: dict[str, Any],
    good: bool,  # noqa: FBT001 - a column of the table
) -> None:
    assert is_valid(ROUTE_TEST, {"request": "GET /", "expect": "allow", **changed}) is good
