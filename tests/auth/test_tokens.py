"""The form of a token. The attacks as whole tokens stand in `io/test_token_verifier.py`."""

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth.decision import Reason
from auth.tokens import (
    SignedText,
    UnverifiedToken,
    check_claims,
    issuer_of,
    read_json_object,
    read_token,
)
from config.model import TokenIssuer

# How long an input takes says how busy the machine is.
AT_ANY_PACE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_well_formed_token_is_read_without_being_believed() -> None:
    token = f"{part({'alg': 'ES256', 'kid': 'k'})}.{part({'iss': 'x', 'sub': 'a'})}.AAAA"
    read = read_token(token)
    assert isinstance(read, UnverifiedToken)
    assert read.claims == {"iss": "x", "sub": "a"}
    signing_input, payload = token.rpartition(".")[0].encode(), b'{"iss": "x", "sub": "a"}'
    assert read.signed == SignedText("ES256", "k", payload, signing_input, bytes(3))
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


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"\\é\0'), inner),
    max_leaves=12,
)  # fmt: skip


@AT_ANY_PACE
@given(st.dictionaries(st.text("ab"), VALUES), st.booleans(), st.sampled_from([(",", ":"), None]))
def test_an_object_is_read_as_it_was_written_whatever_its_writer_s_style(
    value: dict[str, Any],
    escaped: bool,  # noqa: FBT001 - hypothesis gives it by place
    separators: tuple[str, str] | None,
) -> None:
    raw = json.dumps(value, ensure_ascii=escaped, separators=separators).encode()
    read = read_json_object(raw)
    assert read == value
    assert json.dumps(read) == json.dumps(value), "1 is not 1.0, nor True"


@AT_ANY_PACE
@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert isinstance(read_token(text), Reason)


@AT_ANY_PACE
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


@AT_ANY_PACE
@given(st.dictionaries(NAMES, JSON))
def test_no_claims_raise_and_none_by_chance_are_good(claims: dict[str, object]) -> None:
    issuer = TokenIssuer("https://idp.example.com", ("gw",), ("ES256",))
    assert check_claims(claims, issuer, 1000.0) is not None


HEADER = {"alg": "ES256"}
CLAIMS = {"iss": "https://idp.example.com", "aud": "gw", "sub": "a", "iat": 900, "exp": 1100}
IDP = TokenIssuer("https://idp.example.com", ("gw", "api"), ("ES256",))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, None),
        ({"typ": "at+JWT"}, None),
        ({"kid": "k" * 256}, None),
        ({"cty": "text"}, None),
        ({"alg": None}, Reason.TOKEN_ALGORITHM),
        ({"alg": ""}, Reason.TOKEN_ALGORITHM),
        ({"alg": ["ES256"]}, Reason.TOKEN_ALGORITHM),
        ({"crit": []}, Reason.TOKEN_MALFORMED),
        ({"b64": True}, Reason.TOKEN_MALFORMED),
        ({"zip": "DEF"}, Reason.TOKEN_MALFORMED),
        ({"enc": "A256GCM"}, Reason.TOKEN_MALFORMED),
        ({"p2c": 1}, Reason.TOKEN_MALFORMED),
        ({"typ": "logout+jwt"}, Reason.TOKEN_MALFORMED),
        ({"typ": 5}, Reason.TOKEN_MALFORMED),
        ({"cty": "JWT"}, Reason.TOKEN_MALFORMED),
        ({"cty": None}, Reason.TOKEN_MALFORMED),
        ({"kid": ""}, Reason.TOKEN_MALFORMED),
        ({"kid": "k" * 257}, Reason.TOKEN_MALFORMED),
        ({"kid": None}, Reason.TOKEN_MALFORMED),
        ({"kid": 5}, Reason.TOKEN_MALFORMED),
    ],
    ids=str,
)
def test_a_header_says_what_it_may_or_the_token_is_refused(
    header: dict[str, object], expected: Reason | None
) -> None:
    read = read_token(f"{part(HEADER | header)}.{part(CLAIMS)}.AAAA")
    assert (read if isinstance(read, Reason) else None) is expected


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (f"{part(HEADER)}.{part({**CLAIMS, 'sub': chr(0)})}.AAAA", Reason.TOKEN_CLAIMS),
        (f"{part(HEADER)}.{part(CLAIMS)}.AAAA" + "A" * 16 * 1024, Reason.TOKEN_MALFORMED),
        (f"{part(HEADER)}.{part(CLAIMS)}.AAAA.AAAA", Reason.TOKEN_MALFORMED),
        (f"{part(HEADER)}.{part(CLAIMS)}.", Reason.TOKEN_MALFORMED),
        (f"{part(HEADER)}.{part(CLAIMS)}.A", Reason.TOKEN_MALFORMED),
        (f"{part(HEADER)}.{part(CLAIMS)}.AB", Reason.TOKEN_MALFORMED),
        (f"{part([])}.{part(CLAIMS)}.AAAA", Reason.TOKEN_MALFORMED),
        (f" {part(HEADER)}.{part(CLAIMS)}.AAAA", Reason.TOKEN_MALFORMED),
    ],
    ids=[
        *("a zero byte", "too long", "four parts", "no signature", "an impossible length"),
        *("bits that are not used", "a header that is a list", "a space before it"),
    ],
)
def test_a_token_of_another_form_is_refused(token: str, reason: Reason) -> None:
    assert read_token(token) is reason


@pytest.mark.parametrize("issuer", [None, 5, ["https://idp.example.com"]])
def test_a_token_whose_issuer_is_no_text_names_none(issuer: object) -> None:
    assert (
        issuer_of(UnverifiedToken(SignedText("ES256", None, b"", b"", b""), {"iss": issuer})) == ""
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"aud": ["gw"]}, None),
        ({"aud": ["other", "gw"]}, Reason.TOKEN_AUDIENCE),
        ({"nbf": 1030}, None),
        ({"iat": 1030}, None),
        ({"exp": 1000.5}, None),
        ({"iss": "https://idp.example.com/"}, Reason.TOKEN_ISSUER_UNKNOWN),
        ({"iss": None}, Reason.TOKEN_ISSUER_UNKNOWN),
        ({"aud": "other"}, Reason.TOKEN_AUDIENCE),
        ({"aud": []}, Reason.TOKEN_AUDIENCE),
        ({"aud": None}, Reason.TOKEN_AUDIENCE),
        ({"aud": {"gw": 1}}, Reason.TOKEN_AUDIENCE),
        ({"aud": ["gw", 5]}, Reason.TOKEN_AUDIENCE),
        ({"sub": ""}, Reason.TOKEN_CLAIMS),
        ({"sub": 5}, Reason.TOKEN_CLAIMS),
        ({"sub": "a\r\nX-Auth-Roles: admin"}, Reason.TOKEN_CLAIMS),
        ({"sub": "a" * 257}, Reason.TOKEN_CLAIMS),
        ({"nonce": "n"}, Reason.TOKEN_CLAIMS),
        ({"events": {}}, Reason.TOKEN_CLAIMS),
        ({"cnf": {"jkt": "x"}}, Reason.TOKEN_CLAIMS),
        ({"exp": 1000}, Reason.TOKEN_EXPIRED),
        ({"exp": "1100"}, Reason.TOKEN_CLAIMS),
        ({"exp": True}, Reason.TOKEN_CLAIMS),
        ({"exp": None}, Reason.TOKEN_CLAIMS),
        ({"exp": 2**53 + 2}, Reason.TOKEN_CLAIMS),
        ({"exp": 900 + 7 * 86_400 + 1}, Reason.TOKEN_CLAIMS),
        ({"iat": -1}, Reason.TOKEN_CLAIMS),
        ({"iat": None}, Reason.TOKEN_CLAIMS),
        ({"iat": 1031}, Reason.TOKEN_NOT_YET_VALID),
        ({"nbf": 1031}, Reason.TOKEN_NOT_YET_VALID),
        ({"nbf": "900"}, Reason.TOKEN_CLAIMS),
    ],
    ids=str,
)
def test_claims_are_good_for_this_issuer_this_audience_and_this_moment(
    change: dict[str, object], expected: Reason | None
) -> None:
    assert check_claims({**CLAIMS, **change}, IDP, 1000.0) is expected


@pytest.mark.parametrize(
    ("audience", "expected"),
    [(["gw", "other"], None), (["other"], Reason.TOKEN_AUDIENCE)],
    ids=["somebody else's too", "somebody else's"],
)
def test_an_issuer_that_is_not_strict_may_name_others_beside_us(
    audience: list[str], expected: Reason | None
) -> None:
    lenient = TokenIssuer(IDP.issuer, IDP.audience, ("ES256",), strict_audience=False)
    assert check_claims({**CLAIMS, "aud": audience}, lenient, 1000.0) is expected
