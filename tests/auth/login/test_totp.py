"""Codes of authenticator apps."""

import base64
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree as ET

import pytest

from auth.login.totp import (
    code_of,
    current_step,
    matching_step,
    provisioning_uri,
    qr_code,
    typed_secret,
)

SECRET = b"12345678901234567890"
"""The one of RFC 6238 appendix B."""


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ],
)
def test_the_codes_are_those_of_the_rfc(now: int, code: str) -> None:
    assert code_of(SECRET, current_step(now)) == code
    assert matching_step(SECRET, code, now) == now // 30


def test_a_code_is_good_for_one_step_either_way_and_no_further() -> None:
    found = {at: matching_step(SECRET, code_of(SECRET, 1000 + at), 30_000) for at in range(-3, 4)}
    assert found == {-3: None, -2: None, -1: 999, 0: 1000, 1: 1001, 2: None, 3: None}


@pytest.mark.parametrize("typed", ["", "28708", "2870820", "é87082", "\ud800", "287 083"])
def test_anything_else_is_no_code(typed: str) -> None:
    assert matching_step(SECRET, typed, 59) is None


def test_spaces_that_an_app_shows_may_be_typed() -> None:
    assert matching_step(SECRET, " 287 082 ", 59) == 1


def test_an_app_reads_the_secret_the_name_and_the_site() -> None:
    parts = urlsplit(provisioning_uri(SECRET, login="ada@acme", site="app.example.com"))
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert parts.path == "/app.example.com:ada%40acme"
    read = parse_qs(parts.query)
    assert base64.b32decode(read["secret"][0]) == SECRET
    assert read["issuer"] == ["app.example.com"]


def test_who_types_the_secret_types_the_same() -> None:
    assert base64.b32decode(typed_secret(SECRET).replace(" ", "")) == SECRET


def test_the_qr_code_is_one_element_without_a_style_or_a_script() -> None:
    drawn = ET.fromstring(qr_code("otpauth://totp/a?secret=b"))
    assert drawn.tag.endswith("svg")
    assert {child.tag.rpartition("}")[2] for child in drawn.iter()} == {"svg", "path"}
    assert all("style" not in child.attrib for child in drawn.iter())
