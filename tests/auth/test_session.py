"""The session record as other services write it, its digest, and the identity it vouches for."""

import hashlib
import json
import re
from typing import Any

import pytest

from auth.identity import Identity
from auth.session import (
    LARGEST_IDENTITY,
    LARGEST_RECORD,
    MalformedRecord,
    SessionRecord,
    digest,
    encode_record,
    fits_fields,
    identity_of,
    new_cookie_value,
    parse_record,
    session_key,
)

LEAST: dict[str, Any] = {"v": 1, "subject": "u1", "created_at": 100, "expires_at": 200.5}


def test_a_record_with_the_required_fields_alone_is_one() -> None:
    record = parse_record(json.dumps(LEAST).encode())
    assert record == SessionRecord(1, "u1", 100.0, 200.5)
    assert (record.roles, record.claims, record.tenant) == ((), {}, "")


def test_fields_of_a_later_writer_are_ignored() -> None:
    value = json.dumps({**LEAST, "device": {"name": "phone"}, "roles": ["editor"]})
    assert parse_record(value.encode()).roles == ("editor",)


@pytest.mark.parametrize("missing", sorted(LEAST))
def test_a_record_without_a_required_field_is_malformed(missing: str) -> None:
    value = {name: field for name, field in LEAST.items() if name != missing}
    with pytest.raises(MalformedRecord, match=missing):
        parse_record(json.dumps(value).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": 0},
        {"v": "1"},
        {"v": True},
        {"subject": ""},
        {"subject": 7},
        {"subject": None},
        {"expires_at": "tomorrow"},
        {"expires_at": None},
        {"roles": "admin"},
        {"roles": [1]},
        {"groups": {"a": 1}},
        {"claims": []},
        {"auth_time": "then"},
    ],
    ids=str,
)
def test_a_record_with_a_field_of_another_kind_is_malformed(change: dict[str, object]) -> None:
    with pytest.raises(MalformedRecord):
        parse_record(json.dumps({**LEAST, **change}).encode())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b'"u1"',
        b"{",
        b'{"v":1}garbage',
        b'{"v":1,"subject":"\xff","created_at":1,"expires_at":2}',
        b'{"v":1,"subject":"\\ud800","created_at":1,"expires_at":2}',
        b'{"v":1,"subject":"u","created_at":1,"expires_at":NaN}',
        b'{"v":1,"subject":"u","created_at":1,"expires_at":Infinity}',
        b'{"v":1,"subject":"u","created_at":1,"expires_at":2,"claims":' + b'{"a":' * 100_000,
    ],
    ids=[
        *("empty", "null", "a list", "a string", "cut short", "more after it"),
        *("no UTF-8", "half a surrogate", "NaN", "infinite", "nested without end"),
    ],
)
def test_what_is_no_json_object_is_malformed_and_nothing_worse(value: bytes) -> None:
    with pytest.raises(MalformedRecord):
        parse_record(value)


def test_what_is_encoded_reads_as_the_same_record() -> None:
    record = SessionRecord(
        *(1, "u1", 1.25, 2.5, "Zoë", "acme", ("a", "b"), ("g",), ("s",), "z@example.com"),
        auth_time=1.5,
        amr=("pwd", "otp"),
        claims={"plan": "pro", "seats": [1, None]},
    )
    assert parse_record(encode_record(record)) == record


def test_an_encoded_record_spells_out_every_field_for_other_readers() -> None:
    written = json.loads(encode_record(SessionRecord(1, "u1", 1.0, 2.0)))
    assert set(written) == set(SessionRecord.__struct_fields__)


def test_the_digest_is_the_sha_256_of_the_cookie_in_lower_case_hex() -> None:
    assert digest("abc") == hashlib.sha256(b"abc").hexdigest()
    assert re.fullmatch(r"[0-9a-f]{64}", digest(""))


def test_cookies_that_differ_in_one_byte_beyond_ascii_have_different_digests() -> None:
    assert digest("\udcff") == hashlib.sha256(b"\xff").hexdigest()
    assert digest("\udcff") != digest("\udcfe")


def test_the_key_holds_the_digest_in_braces_that_pin_its_slot() -> None:
    assert session_key("00ff") == "doorward:session:{00ff}"


def test_a_cookie_value_has_256_bits_in_characters_that_need_no_quoting() -> None:
    values = {new_cookie_value() for _ in range(200)}
    assert len(values) == 200
    # 43 characters of 6 bits: 32 bytes, RFC 6265 cookie-octets all.
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", value) for value in values)


def test_an_identity_says_what_the_record_says_and_who_vouches_for_it() -> None:
    record = SessionRecord(
        *(1, "u1", 100.9, 200.5, "Ada", "acme", ("r",), ("g",), ("s",), "ada@example.com"),
        auth_time=99.9,
        amr=("pwd",),
        claims={"plan": "pro"},
    )
    assert identity_of(record, "d" * 64) == Identity(
        subject="u1",
        method="session",
        name="Ada",
        tenant="acme",
        email="ada@example.com",
        roles=("r",),
        groups=("g",),
        scopes=("s",),
        auth_time=99,
        amr=("pwd",),
        session_digest="d" * 64,
        expires_at=200.5,
        claims={"plan": "pro"},
    )


def test_a_record_that_does_not_say_when_its_subject_signed_in_was_made_then() -> None:
    assert identity_of(SessionRecord(1, "u1", 100.9, 200.0), "").auth_time == 100


def test_a_record_that_backends_could_not_be_told_of_is_malformed() -> None:
    """Else a display name of megabytes is sent, and kept, with each request."""
    fits = LARGEST_IDENTITY - len("u1")
    assert len(parse_record(json.dumps({**LEAST, "name": "n" * fits}).encode()).name) == fits
    for part in ("name", "tenant", "email"):
        with pytest.raises(MalformedRecord, match="more than 8192 bytes in the fields"):
            parse_record(json.dumps({**LEAST, part: "n" * (fits + 1)}).encode())
    for part in ("roles", "groups", "scopes"):
        with pytest.raises(MalformedRecord, match="more than 8192 bytes in the fields"):
            parse_record(json.dumps({**LEAST, part: ["role"] * 1700}).encode())


def test_a_record_larger_than_any_is_not_even_read() -> None:
    claims = {"x": "x" * (LARGEST_RECORD - 200)}
    assert parse_record(json.dumps({**LEAST, "claims": claims}).encode()).claims == claims
    with pytest.raises(MalformedRecord, match="65536 may be"):
        parse_record(b"x" * (LARGEST_RECORD + 1))


@pytest.mark.parametrize(
    ("letter", "octets"),
    [("a", 1), ("%", 3), (",", 3), ("\n", 3), ("\u00e9", 6), ("\U0001f600", 12)],
)
def test_what_a_person_takes_in_a_field_is_counted_as_it_is_sent(letter: str, octets: int) -> None:
    most = (LARGEST_IDENTITY - 1) // octets
    assert fits_fields(SessionRecord(1, "s", 0, 0, name=letter * most))
    assert not fits_fields(SessionRecord(1, "s", 0, 0, name=letter * (most + 1)))
