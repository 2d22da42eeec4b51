"""Another reader of the same bytes sees the same requests: ours may refuse more, never less."""

import asyncio
import base64
import json
from pathlib import Path

import pytest
from aiohttp import http_exceptions
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from config.model import Limits
from gateway.bad_request import BadRequest
from gateway.framing import ChunkedScanner
from gateway.head import RequestHead
from gateway.reading import read_request_head

LIMITS = Limits()
RAW = [
    base64.b64decode(json.loads(line)["raw_b64"])
    for line in (Path(__file__).parents[1] / "corpora/smuggling.jsonl").read_text().splitlines()
]
HEADS = sorted({raw.partition(b"\r\n\r\n")[0] for raw in RAW if 20 < raw.find(b"\r\n\r\n") < 2000})
BITS = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b",",
            b"chunked",
            b"Transfer-Encoding: chunked",
        ),
        *(b"Content-Length: 5", b"0", b"5", b"\r\nHost: a", b"\x00", b"\xe9", b"#", b"%2e", b"//"),
        *(b"HTTP/1.0", b"\r\nUpgrade: h2c", b"\r\nConnection: close", b";", b"=", b'"', b"_", b"."),
    ]
)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), BITS | st.binary(max_size=2)))


def aiohttp_reads(data: bytes) -> tuple[str, str, bool, str | None] | None:
    """Return what aiohttp's parser makes of one request head, None if it refuses it."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(
            BaseProtocol(loop), loop, 2**16, max_line_size=8190, max_field_size=32768
        )
        messages, _, _ = parser.feed_data(data)
    except (http_exceptions.HttpProcessingError, ValueError):
        return None
    finally:
        loop.close()
    assert len(messages) == 1
    message = messages[0][0]
    return message.method, message.path, message.chunked, message.headers.get("Content-Length")


def ours_reads(data: bytes) -> RequestHead | None:
    try:
        return read_request_head(data, scheme="http", limits=LIMITS)
    except BadRequest:
        return None


@settings(max_examples=1500)
@given(st.sampled_from(HEADS), EDITS)
def test_aiohttp_reads_what_we_accept_and_reads_it_the_same(
    head: bytes, edits: list[tuple[float, int, bytes]]
) -> None:
    for place, cut, put in edits[:3]:
        at = int(place * len(head))
        head = head[:at] + put + head[at + cut :]
    data = head + b"\r\n\r\n"
    ours = ours_reads(data)
    if ours is None or b"chunked\t" in data.lower() or b"chunked \t" in data.lower():
        return  # aiohttp takes no tab after the coding, which RFC 9110 5.6.3 allows
    theirs = aiohttp_reads(data)
    assert theirs is not None
    method, path, chunked, length = theirs
    assert (ours.method, ours.chunked) == (method, chunked)
    assert ours.content_length == (None if length is None else int(length))
    if ours.target.query and not path.startswith("http"):
        assert path.partition("?")[2] == ours.target.query


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: repr(raw[:40]))
def test_a_chunked_body_that_we_accept_ends_where_aiohttp_ends_it(raw: bytes) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    ours = ours_reads(head + b"\r\n\r\n")
    if ours is None or not ours.chunked:
        return
    scanner = ChunkedScanner(limit=LIMITS.body)
    try:
        taken = scanner.feed(body)
    except BadRequest:
        return
    if b"0\r\nContent-Length" in body:
        return  # aiohttp refuses that trailer; here all of them are thrown away (RFC 9110 6.5.1)
    loop = asyncio.new_event_loop()
    try:
        for size, ended in ((taken - 1, False), (taken, scanner.done)):
            parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
            messages, _, _ = parser.feed_data(head + b"\r\n\r\n" + body[:size])
            assert messages[0][1].is_eof() is ended
    finally:
        loop.close()
