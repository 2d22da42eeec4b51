"""The form of a token. The attacks as whole tokens stand in `io/test_token_verifier.py`."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.decision import Reason
from auth.tokens import UnverifiedToken, check_claims, issuer_of, read_json_object, read_token
from config.model import TokenIssuer


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_well_formed_token_is_read_without_being_believed() -> None:
    token = f"{part({'alg': 'ES256', 'kid': 'k'})}.{part({'iss': 'x', 'sub': 'a'})}.AAAA"
    read = read_token(token)
    assert read == UnverifiedToken("ES256", "k", {"iss": "x", "sub": "a"})
    assert isinstance(read, UnverifiedToken)
    assert issuer_of(read) == "x"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":[{"b":1,"\\u0062":1}]}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\xff"}',
        b'{"a":"\x01"}',
        b"\xef\xbb\xbf{}",
        b"[]",
        b'"x"',
        b"",
        b"{",
        b"{}{}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="JSON"):
        read_json_object(raw)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert isinstance(read_token(text), Reason)


@given(st.binary(), st.binary(), st.binary())
def test_no_content_raises(header: bytes, payload: bytes, signature: bytes) -> None:
    parts = [
        base64.urlsafe_b64encode(raw).rstrip(b"=").decode() for raw in (header, payload, signature)
    ]
    assert isinstance(read_token(".".join(parts)), UnverifiedToken | Reason)


NAMES = st.sampled_from(["iss", "aud", "sub", "exp", "iat", "nbf", "cnf"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


@given(st.dictionaries(NAMES, JSON))
def test_no_claims_raise_and_none_by_chance_are_good(claims: dict[str, object]) -> None:
    issuer = TokenIssuer("https://idp.example.com", ("gw",), ("ES256",))
    assert check_claims(claims, issuer, 1000.0) is not None
