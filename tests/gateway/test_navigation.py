"""Browsers and programs."""

import pytest

from config.model import Limits
from gateway.head import RequestHead
from gateway.navigation import is_navigation, wants_page
from gateway.reading import read_request_head


def head(method: str, *fields: str) -> RequestHead:
    lines = "".join(f"{field}\r\n" for field in ("Host: h", *fields))
    raw = f"{method} / HTTP/1.1\r\n{lines}\r\n"
    return read_request_head(raw.encode(), scheme="http", limits=Limits())


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("GET", ["Sec-Fetch-Mode: navigate"], True),
        ("HEAD", ["Sec-Fetch-Mode: navigate", "Accept: application/json"], True),
        ("POST", ["Sec-Fetch-Mode: navigate", "Accept: text/html"], False),
        ("GET", ["Sec-Fetch-Mode: no-cors", "Accept: text/html"], False),
        ("GET", ["Accept: text/html"], True),
        ("GET", ["Accept: application/json", "Accept: text/html"], True),
        ("GET", ["Accept: */*"], False),
        ("GET", [], False),
    ],
)
def test_fetch_metadata_counts_before_accept_and_only_for_safe_methods(
    method: str, fields: list[str], *, expected: bool
) -> None:
    assert is_navigation(head(method, *fields)) is expected


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html", True),
        ("TEXT/HTML ; Q=0.5", True),
        ("text/html;q=0.5, application/json;q=0.5", True),
        ("text/html;q=0.4, application/json;q=0.5", False),
        ("text/html;q=0", False),
        ("text/html;q=nan", False),
        ("text/html;q=inf", False),
        ("text/html;q=-1", False),
        ("text/html;q=x", False),
        ("text/html;q=", False),
        ("text/html;level=1;q=0.1", True),
        ("text/*, */*", False),
        (",,;,", False),
        ("", False),
    ],
)
def test_a_page_is_wanted_by_name_and_by_weight(accept: str, *, expected: bool) -> None:
    assert wants_page(head("GET", f"Accept: {accept}")) is expected
