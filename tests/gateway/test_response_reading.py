"""Response heads: what an upstream says about its answer, or that it cannot be trusted."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bad_request import BadRequest
from gateway.framing import ChunkedScanner
from gateway.response_reading import (
    MAX_RESPONSE_FIELDS,
    MAX_RESPONSE_HEAD,
    ResponseHead,
    ResponseReader,
    UpstreamProtocolError,
    check_partial_response_head,
    read_response_head,
)

VECTORS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "corpora/responses.jsonl").read_text().splitlines()
]


def read(text: str, method: str = "GET", *, upgrade: bool = False) -> ResponseHead:
    return read_response_head(
        text.encode("latin-1"), request_method=method, upgrade_requested=upgrade
    )


def converse(raw: bytes, method: str) -> str:
    """Read as a connection would, and return what has to happen, in the corpus' words."""
    while True:
        end = raw.find(b"\r\n\r\n") + 4
        try:
            check_partial_response_head(raw[:end] if end > 3 else raw, start=0)
            if end < 4:
                return "incomplete"
            head = read_response_head(raw[:end], request_method=method, upgrade_requested=True)
        except UpstreamProtocolError:
            return "502"
        raw = raw[end:]
        if not head.interim:
            break
    if head.chunked:
        scanner = ChunkedScanner(limit=None)
        try:
            raw = raw[scanner.feed(raw) :]
        except BadRequest:
            return "abort-downstream"
        whole = scanner.done
    elif head.content_length is not None:
        whole = len(raw) >= head.content_length
        raw = raw[head.content_length :]
    else:
        return "pass-close-upstream"
    if not whole:
        return "abort-downstream"
    return "pass" if head.keep_alive and not raw else "pass-close-upstream"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_an_upstream_poisons_nobody(vector: dict[str, Any]) -> None:
    outcome = converse(base64.b64decode(vector["raw_b64"]), vector["method"])
    allowed = {vector["must"], *vector.get("also_ok", ())}
    if "after_b64" in vector:
        allowed.add("pass")  # what comes later is for whoever watches the idle connection
    if vector["must"] == "wait-final":
        allowed.add("pass")
    if vector["must"].startswith("502"):
        allowed.add("502")
    assert outcome in allowed


OK = "HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("text", "method", "expected"),
    [
        (f"{OK}Content-Length: 5\r\n\r\n", "GET", "5 bytes, reusable"),
        (f"{OK}Content-Length: 05\r\n\r\n", "GET", "5 bytes, reusable"),
        (f"{OK}Transfer-Encoding: Chunked\r\n\r\n", "GET", "chunked, reusable"),
        (f"{OK}\r\n", "GET", "until close"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", "5 bytes"),
        (f"{OK}Connection: x\r\nConnection: Close\r\nContent-Length: 5\r\n\r\n", "GET", "5 bytes"),
        (f"{OK}Content-Length: 5\r\n\r\n", "HEAD", "0 bytes, reusable"),
        (f"{OK}\r\n", "HEAD", "0 bytes, reusable"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "GET", "0 bytes, reusable"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "GET", "0 bytes, reusable"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "GET", "0 bytes"),
        ("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", "0 bytes"),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", "0 bytes, reusable"),
    ],
)
def test_framing_follows_rfc_9112_section_6_3(text: str, method: str, expected: str) -> None:
    head = read(text, method)
    framing = "chunked" if head.chunked else f"{head.content_length} bytes"
    framing = "until close" if head.until_close else framing
    assert f"{framing}{', reusable' if head.keep_alive else ''}" == expected


@pytest.mark.parametrize(
    "text",
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Length: {'9' * 30}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA B: c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \x7f\r\n\r\n",
        "HTTP/1.1 200 O\rK\r\n\r\n",
        "HTTP/1.1 200 O\x00K\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 000 OK\r\n\r\n",
        "HTTP/1.1 999 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 200OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n",
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: " + "b" * MAX_RESPONSE_HEAD + "\r\n\r\n",
        "HTTP/1.1 200 OK\r\n" + "A: b\r\n" * (MAX_RESPONSE_FIELDS + 1) + "\r\n",
    ],
)
def test_an_ambiguous_answer_is_refused(text: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        read(text)


@pytest.mark.parametrize(
    "fields",
    ["Upgrade: websocket", "Connection: Upgrade", "Connection: Upgrade\r\nUpgrade: h2c"],
)
def test_a_switch_to_another_protocol_is_refused(fields: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        read(f"HTTP/1.1 101 Switching\r\n{fields}\r\n\r\n", upgrade=True)


def test_a_switch_that_was_asked_for_is_one() -> None:
    text = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    head = read(text, upgrade=True)
    assert head.upgrade
    assert not head.interim
    assert read("HTTP/1.1 103 Early Hints\r\n\r\n").interim


def test_fields_come_as_they_were_written() -> None:
    head = read("HTTP/1.1 200 \r\nX-A:  b c\t\r\nset-cookie: a=1\r\nDate: x\r\nE:\r\n\r\n")
    assert head.fields == (("X-A", "b c"), ("set-cookie", "a=1"), ("Date", "x"), ("E", ""))
    assert head.has_date
    assert head.reason == ""


@pytest.mark.parametrize(
    "data",
    [
        *(b"hello", b"h", b"HTTP/2", b"HTTP/1.1 20 ", b"HTTP/1.1 200 OK\nA", b"HTTP/1.1 200 OK\rA"),
        *(b"HTTP/1.1 200 OK\r\nA\x00", b"HTTP/1.1 200 OK\r\nA:" + b"b" * MAX_RESPONSE_HEAD),
    ],
)
def test_a_hopeless_beginning_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        check_partial_response_head(data, start=0)


def test_a_good_head_passes_at_every_length() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r"
    for end in range(len(data) + 1):
        check_partial_response_head(data[:end], start=max(end - 1, 0))


@given(st.binary(max_size=60).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest + b"\r\n\r\n"))
def test_reading_answers_or_refuses_and_never_fails(head: bytes) -> None:
    try:
        result = read_response_head(head, request_method="GET")
    except UpstreamProtocolError:
        return
    lines = "".join(f"{name}: {value}\r\n" for name, value in result.fields)
    again = f"HTTP/1.1 {result.status} {result.reason}\r\n{lines}\r\n"
    assert read(again) == result


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_head_that_came_before_is_the_same_and_read_as_if_it_came_first() -> None:
    reader = ResponseReader()
    first = reader.read(PLAIN, request_method="GET")
    assert reader.read(PLAIN, request_method="POST") is first
    assert first == read_response_head(PLAIN, request_method="GET")


def test_the_same_bytes_to_another_question_are_read_in_its_way() -> None:
    reader = ResponseReader()
    assert not reader.read(PLAIN, request_method="GET").bodiless
    assert reader.read(PLAIN, request_method="HEAD").bodiless
    assert not reader.read(PLAIN, request_method="GET").bodiless
    assert reader.read(SWITCH, request_method="GET", upgrade_requested=True).upgrade
    with pytest.raises(UpstreamProtocolError):
        reader.read(SWITCH, request_method="GET")


@pytest.mark.parametrize("name", ["Set-Cookie", "set-cookie", "SET-COOKIE"])
def test_a_head_that_sets_a_cookie_is_not_remembered(name: str) -> None:
    reader = ResponseReader()
    reader.read(f"HTTP/1.1 200 OK\r\n{name}: a=b\r\n\r\n".encode(), request_method="GET")
    assert len(reader) == 0


def test_no_more_heads_are_remembered_than_are_good_for_us() -> None:
    reader = ResponseReader()
    for number in range(1000):
        reader.read(b"HTTP/1.1 200 OK\r\nX: %d\r\n\r\n" % number, request_method="GET")
        assert len(reader) <= 64
    before = len(reader)
    reader.read(b"HTTP/1.1 200 OK\r\nX: %b\r\n\r\n" % (b"x" * 4000), request_method="GET")
    assert len(reader) == before
