"""Targets: one spelling for what is matched and what is sent, or a refusal."""

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bad_request import BadRequest
from gateway.target import PLAIN_FORM, Target, canonical, plain_target

VECTORS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "corpora/path_bypass.jsonl").read_text().splitlines()
]

# Bytes that matter to some decoder, so that random targets are made of trouble.
PIECES = st.sampled_from(
    [
        *(b"/", b"//", b".", b"..", b"/.", b"/..", b"a", b"admin", b"%2e", b"%2E", b"%2f", b"%2F"),
        *(b"%5c", b"%25", b"%61", b"%c3%a9", b"%c0%ae", b"%ff", b"%3b", b";", b"\\", b"?", b"#"),
        *(b"%", b"%00", b" ", b"~", b"@", b":", b"\xe9", b"%EF%BC%8F"),
    ]
)
TARGETS = st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces)) | st.binary()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_bypass_has_one_meaning_or_none(vector: dict[str, Any]) -> None:
    raw = base64.b64decode(vector["raw_path_b64"])
    try:
        path = canonical(raw).path
    except BadRequest:
        path = "REJECT"
    assert path == vector["treat_as"] or (path == "REJECT" and vector["reject_ok"])


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("//a", "/a"),
        ("/a///b//", "/a/b/"),
        ("/..", "/"),
        ("/.", "/"),
        ("/../../a", "/a"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/.", "/a/b/"),
        ("/a/./b", "/a/b"),
        ("/...", "/..."),
        ("/.a/..b/c.", "/.a/..b/c."),
        ("/%7Euser/%41", "/~user/A"),
        ("/%e2%82%ac", "/%E2%82%AC"),
        ("/a%20b", "/a%20b"),
        ("/a%2Cb,c", "/a%2Cb,c"),
        ("/a;b", None),
        ("/a%3bb", None),
        ("/a%2fb", None),
        ("/a%5Cb", None),
        ("/a%25b", None),
        ("/a%00", None),
        ("/a%1f", None),
        ("/a%7F", None),
        ("/%ed%a0%80", None),  # a surrogate is no UTF-8
        ("/%c1%81", None),
        ("/%f0%80%80%af", None),
        ("/%f5%80%80%80", None),
        ("/%e2%82", None),
        ("/a|b", None),
        ("/a{b}", None),
        ('/a"b', None),
        ("/a%", None),
        ("/a%2", None),
        ("/a%zz", None),
        ("/a?%", None),
        ("/a?%zz", None),
        ("/a?b\\c", None),
        ("/a?b#c", None),
        ("//./a", None),
        ("a", None),
        ("*", None),
        ("", None),
        ("http://a/b", None),
    ],
)
def test_a_path_is_decoded_and_normalised_once(raw: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(BadRequest) as refusal:
            canonical(raw.encode())
        assert refusal.value.status == 400
    else:
        assert canonical(raw.encode()) == Target(path)


@pytest.mark.parametrize("query", ["", "a=1&b=%2F%2e", "q=/../x//y", "[]{}|^`\"<>;'", "a?b"])
def test_a_query_stays_byte_for_byte(query: str) -> None:
    target = canonical(f"/x/../y?{query}".encode())
    assert target == Target("/y", query, has_query=True)
    assert target.text == f"/y?{query}"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/a%2fb", "/a%2Fb"),
        ("/a%2Fb/", "/a%2Fb/"),
        ("/@scope%2fpackage?x", "/@scope%2Fpackage"),
        ("/a%2f..%2fb", None),
        ("/a%2f../b", None),
        ("/a/..%2fb", None),
        ("/a/../b%2fc", None),
        ("/a%2f/b", None),
        ("/a/%2fb", None),
        ("/%2fa", None),
        ("/a%2f", None),
        ("/a%2f%2fb", None),
        ("/a%2f.", None),
        ("/a//b%2fc", None),
        ("/a%5cb", None),
    ],
)
def test_an_encoded_slash_may_stay_where_it_means_one_thing(raw: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(BadRequest):
            canonical(raw.encode(), allow_encoded_slash=True)
    else:
        target = canonical(raw.encode(), allow_encoded_slash=True)
        assert target.path == path
        assert target.encoded_slash
        assert "%2F" not in target.decoded_slash_path


def read(raw: bytes, *, allow_encoded_slash: bool) -> Target | None:
    try:
        return canonical(raw, allow_encoded_slash=allow_encoded_slash)
    except BadRequest:
        return None


@given(raw=TARGETS, allow=st.booleans())
def test_canonical_is_a_fixed_point(*, raw: bytes, allow: bool) -> None:
    target = read(raw, allow_encoded_slash=allow)
    if target is not None:
        assert canonical(target.text.encode(), allow_encoded_slash=allow) == target


@given(TARGETS)
def test_no_decoder_finds_another_path_in_a_canonical_one(raw: bytes) -> None:
    """Decoding once, twice, cutting parameters, taking backslashes for slashes: nothing moves."""
    target = read(raw, allow_encoded_slash=False)
    if target is None:
        return
    once = unquote_to_bytes(target.path)
    shape = target.path.count("/")
    for view in (once, unquote_to_bytes(once), once.split(b";")[0], once.replace(b"\\", b"/")):
        segments = view.split(b"/")
        assert view.count(b"/") == shape
        assert b"" not in segments[1:-1]
        assert not {b".", b".."} & set(segments)
    assert not re.search(rb"[\x00-\x1f\x7f]", once)
    once.decode()


@given(TARGETS)
def test_the_fast_way_says_what_the_slow_one_says(raw: bytes) -> None:
    match = re.fullmatch(PLAIN_FORM, raw.decode("latin-1"))
    if match is None:
        return
    try:
        fast: Target | None = plain_target(*match.groups())
    except BadRequest:
        fast = None
    assert fast == read(raw, allow_encoded_slash=False)
