"""The chunked coding: strict, bounded, and the same however the bytes are cut."""

import base64
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bad_request import BadRequest
from gateway.framing import MAX_EXTENSIONS, MAX_SIZE_LINE, MAX_TRAILERS, ChunkedScanner

VECTORS: list[dict[str, Any]] = [
    vector
    for line in (Path(__file__).parents[1] / "corpora/smuggling.jsonl").read_text().splitlines()
    if (vector := json.loads(line))["family"] in ("chunk", "trailer")
]


def scan(pieces: Iterable[bytes], limit: int | None = 1 << 20) -> tuple[object, bytes, int]:
    """Return verdict (status, or whether it is done), payload and bytes taken."""
    scanner = ChunkedScanner(limit=limit)
    payload, taken = b"", 0
    try:
        for piece in pieces:
            here = scanner.feed(piece)
            payload += b"".join(scanner.take())
            taken += here
            if here < len(piece):
                break
    except BadRequest as refusal:
        return refusal.status, payload, taken
    assert scanner.decoded_bytes == len(payload)
    return scanner.done, payload, taken


def one_by_one(body: bytes) -> list[bytes]:
    return [body[at : at + 1] for at in range(len(body))]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_chunked_vector_is_taken_or_refused(vector: dict[str, Any]) -> None:
    body = base64.b64decode(vector["raw_b64"]).partition(b"\r\n\r\n")[2]
    for pieces in ([body], one_by_one(body), body.splitlines(keepends=True)):
        verdict, payload, _ = scan(pieces)
        if vector["expected"] == "reject-400":
            assert verdict in (400, 413)
        elif vector["expected"] == "close":
            assert verdict is False
        else:
            assert verdict is True
            assert payload == base64.b64decode(vector["upstream_body_b64"])


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"0\r\n\r\n", b""),
        (b"1\r\na\r\n0\r\n\r\n", b"a"),
        (b"A\r\n0123456789\r\n00\r\n\r\n", b"0123456789"),
        (b"a;x\r\n0123456789\r\n0;y=z\r\n\r\n", b"0123456789"),
        (b'1;a="b;\\"\r";c\r\nx\r\n0\r\n\r\n', None),
        (b'1;a="b;\\" c";d=e;f\r\nx\r\n0\r\n\r\n', b"x"),
        (b"1\r\n\r\r\n0\r\n\r\n", b"\r"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b"0\r\nA: b\r\nC:\t d \r\n\r\n", b""),
        (b"0000000000000001\r\nx\r\n0\r\n\r\n", b"x"),
        (b"00000000000000001\r\nx\r\n0\r\n\r\n", None),
        (b"0x1\r\nx\r\n0\r\n\r\n", None),
        (b"+1\r\nx\r\n0\r\n\r\n", None),
        (b"-1\r\nx\r\n0\r\n\r\n", None),
        (b"1;\r\nx\r\n0\r\n\r\n", None),
        (b"1;a=\r\nx\r\n0\r\n\r\n", None),
        (b"1 ;a\r\nx\r\n0\r\n\r\n", None),
        (b'1;a="b\r\nx\r\n0\r\n\r\n', None),
        (b"1;a\nx\r\n0\r\n\r\n", None),
        (b"1\r\r\nx\r\n0\r\n\r\n", None),
        (b"1\rx\r\n0\r\n\r\n", None),
        (b"1\r\nxy\r\n0\r\n\r\n", None),
        (b"1\r\nx\r0\r\n\r\n", None),
        (b"1\r\nx\n\n0\r\n\r\n", None),
        (b"0\r\n\n", None),
        (b"0\n\r\n", None),
        (b"0\r\nA : b\r\n\r\n", None),
        (b"0\r\n A: b\r\n\r\n", None),
        (b"0\r\nA: b\r\n c\r\n\r\n", None),
        (b"0\r\nA\r\n\r\n", None),
        (b"0\r\n: b\r\n\r\n", None),
        (b"0\r\nA: \x00\r\n\r\n", None),
        (b"0\r\nA: b\n\r\n", None),
    ],
)
def test_the_grammar_is_taken_at_its_word(body: bytes, payload: bytes | None) -> None:
    expected: object = (400, payload) if payload is None else (True, payload)
    for pieces in ([body], one_by_one(body)):
        verdict, seen, taken = scan(pieces)
        assert (verdict, None if payload is None else seen) == expected
        assert payload is None or taken == len(body)


def test_what_follows_the_body_is_not_taken() -> None:
    body = b"1\r\na\r\n0\r\n\r\n"
    assert scan([body + b"GET / HTTP/1.1\r\n"]) == (True, b"a", len(body))


def test_reading_may_start_behind_a_head() -> None:
    scanner = ChunkedScanner(limit=None)
    assert scanner.feed(memoryview(b"head1\r\na\r\n0\r\n\r\nrest"), 4) == 11
    assert scanner.done
    assert scanner.take() == [b"a"]
    assert scanner.take() == []


def test_a_fault_is_found_before_its_line_is_complete() -> None:
    assert scan([b"INVALID"])[0] == 400
    assert scan([b"0\r\nA b"])[0] == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"1;" + b"a" * MAX_SIZE_LINE, 400),
        (b"1;" + b"a" * MAX_SIZE_LINE + b"\r\nx\r\n0\r\n\r\n", 400),
        (b"1;" + b"a" * (MAX_SIZE_LINE - 3) + b"\r\nx\r\n", 400),
        ((b"1;" + b"a" * 200 + b"\r\nx\r\n") * (MAX_EXTENSIONS // 201 + 1), 400),
        (b"0\r\n" + b"A: b\r\n" * (MAX_TRAILERS // 6 + 1), 431),
        (b"0\r\nA:" + b"b" * MAX_TRAILERS, 400),
        (b"B\r\n", 413),
        (b"A\r\n0123456789\r\n1\r\n", 413),
        (b"FFFFFFFFFFFFFFFF\r\n", 413),
    ],
)
def test_sizes_are_bounded(body: bytes, status: int) -> None:
    limit = 10 if status == 413 else None
    assert scan([body], limit)[0] == status
    assert scan(one_by_one(body), limit)[0] == status


def test_a_chunk_as_large_as_the_limit_is_taken() -> None:
    assert scan([b"A\r\n0123456789\r\n0\r\n\r\n"], 10)[0] is True


PIECES = st.sampled_from(
    [
        *(
            b"0",
            b"1",
            b"5",
            b"a",
            b"F",
            b"\r\n",
            b"\r",
            b"\n",
            b";",
            b"=",
            b'"',
            b"\\",
            b" ",
            b"\t",
        ),
        *(b"0\r\n\r\n", b"1\r\nx\r\n", b"3;a=b\r\nxyz\r\n", b"A: b\r\n", b":", b"\x00", b"\xe9"),
    ]
)


@given(st.lists(PIECES, max_size=16).map(b"".join), st.data())
def test_the_verdict_does_not_depend_on_how_the_bytes_are_cut(
    body: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=8)))
    bounds = [0, *cuts, len(body)]
    pieces = [body[a:b] for a, b in pairwise(bounds)]
    whole = scan([body], 64)
    for cut in (scan([p for p in pieces if p], 64), scan(one_by_one(body), 64)):
        assert cut[0] == whole[0]
        if not isinstance(whole[0], bool):
            continue
        assert cut == whole


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
def test_what_was_encoded_comes_back(chunks: list[bytes]) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    assert scan(one_by_one(body)) == (True, b"".join(chunks), len(body))
