"""Page or JSON: RFC 9110 section 12.5.1."""

import pytest

from auth.login.negotiation import Representation, preferred

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BROWSER, "page"),
        ("text/html", "page"),
        ("TEXT/HTML", "page"),
        ("application/json", "json"),
        ("application/problem+json", "json"),
        ("application/json, text/html;q=0.5", "json"),
        ("application/json;q=0.5, text/html", "page"),
        ("application/json, */*;q=0.1", "json"),
        ("text/*;q=0.2, application/*;q=0.4", "json"),
        ("text/html;q=0, */*", "json"),
        ("application/json;q=0, */*", "page"),
        ("text/html;level=1;q=0.4, application/json;q=0.3", "page"),
    ],
)
def test_the_representation_with_more_weight_is_given(
    accept: str, expected: Representation
) -> None:
    for unless_told in ("page", "json"):
        assert preferred(accept, unless_told=unless_told) == expected


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "image/png",
        "text/html, application/json",
        "text/html;q=nan, application/json;q=7",
        "text/html;q=x",
        ",;,=;q",
        "image/png," * 5000 + "text/html",
    ],
    ids=lambda accept: accept[:30],
)
def test_a_tie_or_nonsense_gets_what_is_usual(accept: str) -> None:
    assert preferred(accept, unless_told="page") == "page"
    assert preferred(accept, unless_told="json") == "json"
