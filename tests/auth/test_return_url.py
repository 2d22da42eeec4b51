"""Return URLs: a browser that follows one stays with us."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.return_url import FALLBACK, MAX_LENGTH, origin_in, safe_return_url

ORIGINS = frozenset({"https://app.example.com", "http://127.0.0.1:8080"})
VECTORS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "corpora/redirects.jsonl").read_text().splitlines()
]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: ascii(vector["value"][:60]))
def test_an_open_redirect_goes_home(vector: dict[str, Any]) -> None:
    result = safe_return_url(vector["value"], origins=frozenset({"https://app.example.com"}))
    assert (result != "/") == (vector["must"] == "accept")


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("/", "/"),
        ("/a/b?c=d&e=/f//g;h#i", "/a/b?c=d&e=/f//g;h#i"),
        ("/a%20b/%C3%A9", "/a%20b/%C3%A9"),
        # As browsers send them (WHATWG URL, query percent-encode set).
        ("/a?filter[b]=c|d&e={f}^`", "/a?filter%5Bb%5D=c%7Cd&e=%7Bf%7D%5E%60"),
        ("/a?" + "[" * 681, "/a?" + "%5B" * 681),
        ("HTTP://127.0.0.1:8080/A", "http://127.0.0.1:8080/A"),
        ("https://app.example.com?a", "https://app.example.com/?a"),
        ("https://app.example.com#a", "https://app.example.com/#a"),
        ("/.doorward/sessions", "/.doorward/sessions"),
        ("/.doorward/account", "/.doorward/account"),
        ("/.doorward/account/authenticator", "/.doorward/account/authenticator"),
        ("/.doorward/account/passkeys", "/.doorward/account/passkeys"),
        ("/" + "a" * (MAX_LENGTH - 1), "/" + "a" * (MAX_LENGTH - 1)),
        ("/loginpage", "/loginpage"),
        ("/a/login/b", "/a/login/b"),
    ],
)
def test_our_own_places_are_honoured(value: str, result: str) -> None:
    assert safe_return_url(value, origins=ORIGINS) == result


@pytest.mark.parametrize(
    "value",
    [
        *(
            "/" + "a" * MAX_LENGTH,
            "/a?" + "[" * 682,
            "https://app.example.com:443/a",
            "https://app.example.com.:443/",
        ),
        *("http://app.example.com/a", "http://127.0.0.1/a", "http://127.0.0.1:8081/a", "//a", "a"),
        *("/a//b", "/a/../b", "/a/./b", "/..", "/a/%2e/b", "/a%2E%2e/b", "/a%2fb", "/a%5Cb"),
        *("/a%00", "/a%1F", "/a%7f", "/a%252fb", "/a;b", "/a%", "/a%zz", "/a?%", "/a?b\\c", "/a#%"),
        *("/a%c0%af/b", "/a%80", "/a%ed%a0%80", "/a?b\nc", "/a#\nb"),
        *("/a\n", "/a\r", "/\t/a", "/a?b c", "/a?b<c", "/a[b]", "/a|b", "/a#b#c", "?a", "#a"),
        *(
            "/.doorward/login",
            "/.doorward/logout",
            "/.Doorward/logout",
            "/.doorward/",
            "/.doorward",
        ),
        *("/.doorward/sessions/x", "/oauth2/start", "/logout/", "/app/Logout", "/a/sign_out?x"),
        *("https://app.example.com/logout", "/login", "/users/sign_in"),
    ],
)
def test_everything_else_goes_home(value: str) -> None:
    assert safe_return_url(value, origins=ORIGINS) == "/"


def test_a_letter_that_only_lower_cases_to_ours_is_not_ours() -> None:
    origins = frozenset({"https://kiosk.example"})
    assert safe_return_url("https://kiosk.example/a", origins=origins) != "/"
    assert safe_return_url("https://\u212aiosk.example/a", origins=origins) == "/"


PIECES = st.sampled_from(
    [
        *("/", "//", "\\", "http:", "https:", "https://app.example.com", "evil.example", "@", ":"),
        *(
            "#",
            "?",
            ".",
            "..",
            "%2f",
            "%5c",
            "%2e",
            "\t",
            "\n",
            "\x00",
            " ",
            "a",
            "\uff0f",
            "\u3002",
        ),
        *("127.0.0.1", ":8080", "http://127.0.0.1:8080", ";", "%"),
    ]
)


def as_a_browser_goes(value: str) -> tuple[str, str]:
    """Where WHATWG's parser ends up from our login page, as far as it is lenient with authority."""
    value = value.strip("".join(map(chr, range(0x21))))
    for dropped in "\t\r\n":
        value = value.replace(dropped, "")
    value = value.replace("\\", "/")
    scheme, colon, rest = value.partition(":")
    if colon and scheme.lower() in ("http", "https"):
        value = f"{scheme}://{rest.lstrip('/')}"
    elif value.startswith("//"):
        value = f"https://{value.lstrip('/')}"
    parts = urlsplit(value)
    return parts.scheme.lower(), parts.netloc.lower()


@given(st.lists(PIECES, max_size=8).map("".join))
def test_a_lenient_browser_never_leaves(value: str) -> None:
    result = safe_return_url(value, origins=ORIGINS)
    scheme, authority = as_a_browser_goes(result)
    assert (scheme, authority) == ("", "") or f"{scheme}://{authority}" in ORIGINS


@given(st.text(max_size=60))
def test_a_result_is_safe_to_judge_again(value: str) -> None:
    result = safe_return_url(value, origins=ORIGINS)
    assert safe_return_url(result, origins=ORIGINS) == result


def test_the_page_that_hands_on_may_be_returned_to_with_a_whole_url_in_its_query() -> None:
    long = f"/.doorward/authorize?return_to={'a' * (3 * MAX_LENGTH)}"
    assert safe_return_url(long, origins=frozenset()) == long
    assert safe_return_url(long + "a" * MAX_LENGTH, origins=frozenset()) == FALLBACK
    assert safe_return_url(f"/x?{'a' * MAX_LENGTH}", origins=frozenset()) == FALLBACK
    for path in ("/.doorward/authorize/x", "/.doorward/Authorize", "/.doorward/authorizes"):
        assert safe_return_url(path, origins=frozenset()) == FALLBACK


def test_the_origin_of_a_url_is_what_it_begins_with() -> None:
    assert origin_in("https://a.example:8443/x?y=https://b.example") == "https://a.example:8443"
    assert origin_in("/x?y=https://b.example") == ""
    assert origin_in("a\nb") == ""
