"""Variations of the vectors, made by rule: every byte in every place where one may decide.

The corpus holds the attacks that somebody has thought of. These tests put each of the 256 bytes
into each place of a request that frames, names or routes it, and say which ones may pass.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import NamedTuple

import pytest
import pytest_asyncio

from tests.gateway.io.harness import upstream
from tests.wire.outside import Outside, outside
from tests.wire.strict_upstream import Received, StrictUpstream

pytestmark = [pytest.mark.wire, pytest.mark.asyncio(loop_scope="module")]

ROUTES = "  - {id: all, match: {path: /*}, upstream: app, access: public}"
TOKEN = (
    frozenset(b"!#$%&'*+-.^_`|~0123456789") | frozenset(range(65, 91)) | frozenset(range(97, 123))
)
WHITE = frozenset(b" \t")
TEXT = WHITE | frozenset(range(0x21, 0x7F)) | frozenset(range(0x80, 0x100))
BYTES = [bytes([octet]) for octet in range(256)]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: app.example.com\r\n\r\n"


class Bench(NamedTuple):
    outside: Outside
    upstream: StrictUpstream


class Result(NamedTuple):
    statuses: list[int]
    closed: bool
    seen: list[Received]
    faults: list[str]
    begun: list[bytes]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    strict = StrictUpstream()
    directory = tmp_path_factory.mktemp("gateway")
    server = "limits: {head_timeout: 150ms, body: 1MiB}"
    async with upstream(strict) as backend, outside(directory, backend, ROUTES, server=server) as g:
        yield Bench(g, strict)


async def send(bench: Bench, raw: bytes) -> Result:
    """Send *raw* and read until the gateway closes, which it must do by itself."""
    strict = bench.upstream
    strict.complete.clear()
    strict.begun.clear()
    strict.faults.clear()
    client = await bench.outside.connect()
    received, closed = b"", False
    with suppress(ConnectionError):
        await client.send(raw)
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            try:
                while data := await client.reader.read(65536):
                    received += data
            except ConnectionError:
                pass
            closed = True
    await client.close()
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
    return Result(
        [status for status in statuses if status != 100],
        closed,
        list(strict.complete),
        list(strict.faults),
        list(strict.begun),
    )


def head(*lines: bytes, target: bytes = b"/here", method: bytes = b"POST") -> bytes:
    first = b"%b %b HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n" % (method, target)
    return first + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def refused(result: Result) -> bool:
    return (
        len(result.statuses) == 1
        and result.statuses[0] in (400, 404, 405, 408, 413, 414, 417, 431, 501, 505)
        and result.closed
        and not result.seen
    )


def one(result: Result) -> bool:
    return result.statuses == [200] and result.closed and len(result.seen) == 1


async def expect(bench: Bench, cases: Iterable[tuple[bytes, bool | None]]) -> None:
    """Send each case; True: one request, False: refused, None: either of them."""
    wrong = []
    for raw, passes in cases:
        result = await send(bench, raw)
        good = {True: one(result), False: refused(result), None: one(result) or refused(result)}
        harmless = not result.faults and not any(b"smuggled" in t for t in result.begun)
        if not (good[passes] and harmless):
            wrong.append((raw[:300], passes, result))
    assert wrong == []


async def test_every_byte_in_a_method(bench: Bench) -> None:
    await expect(bench, ((head(method=b"GE" + octet + b"T"), False) for octet in BYTES))


async def test_every_byte_at_the_end_of_a_method(bench: Bench) -> None:
    await expect(bench, ((head(method=b"GET" + octet), False) for octet in BYTES))


async def test_every_byte_in_a_path_raw(bench: Bench) -> None:
    good = frozenset(b"!$&'()*+,-./:=@_~?") | frozenset(
        b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )
    cases = ((head(target=b"/a" + octet + b"b"), octet[0] in good) for octet in BYTES)
    await expect(bench, cases)


@pytest.mark.parametrize("spelling", [b"%%%02x", b"%%%02X"])
async def test_every_byte_in_a_path_encoded(bench: Bench, spelling: bytes) -> None:
    refused_octets = frozenset(b"/\\%#?;") | frozenset(range(0x20)) | {0x7F} | set(range(0x80, 256))
    for octet in range(256):
        result = await send(bench, head(target=b"/a" + spelling % octet + b"b"))
        assert one(result) is (octet not in refused_octets), octet
        assert one(result) or refused(result)


async def test_every_byte_in_a_query(bench: Bench) -> None:
    bad = frozenset(range(0x21)) | frozenset(b"#\\%") | frozenset(range(0x7F, 0x100))
    cases = ((head(target=b"/a?b=" + octet + b"c"), octet[0] not in bad) for octet in BYTES)
    await expect(bench, cases)


async def test_every_byte_after_the_version(bench: Bench) -> None:
    raw = b"GET /here HTTP/1.1%b\r\nHost: app.example.com\r\nConnection: close\r\n\r\n"
    await expect(bench, ((raw % octet, False) for octet in BYTES))


async def test_every_byte_between_the_parts_of_a_request_line(bench: Bench) -> None:
    raw = b"GET%b/here%bHTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n"
    cases = [(raw % (octet, b" "), octet == b" ") for octet in BYTES]
    cases += [(raw % (b" ", octet), octet == b" ") for octet in BYTES]
    cases += [(raw % (b"  ", b" "), False), (raw % (b" ", b"  "), False)]
    await expect(bench, cases)


@pytest.mark.parametrize("place", ["before", "within", "after"])
async def test_every_byte_in_a_field_name(bench: Bench, place: str) -> None:
    names = {"before": b"%bX-Foo", "within": b"X-%bFoo", "after": b"X-Foo%b"}
    cases = []
    for octet in BYTES:
        line = names[place] % octet + b": 1"
        passes: bool | None = octet[0] in TOKEN or (octet == b":" and place != "before")
        cases.append((head(line), passes))
    await expect(bench, cases)


@pytest.mark.parametrize("place", ["before", "within", "after"])
async def test_every_byte_in_a_field_value(bench: Bench, place: str) -> None:
    values = {"before": b"%bfoo", "within": b"fo%bo", "after": b"foo%b"}
    cases = ((head(b"X-Foo: " + values[place] % octet), octet[0] in TEXT) for octet in BYTES)
    await expect(bench, cases)


@pytest.mark.parametrize("name", [b"Transfer-Encoding", b"Content-Length"])
@pytest.mark.parametrize("place", ["before", "after"])
async def test_a_framing_field_with_a_byte_too_many_in_its_name(
    bench: Bench, name: bytes, place: str
) -> None:
    value = b"chunked" if name.startswith(b"T") else b"%d" % (len(SMUGGLED) + 5)
    for octet in BYTES:
        odd = octet + name if place == "before" else name + octet
        raw = head(odd + b": " + value) + b"0\r\n\r\n" + SMUGGLED
        result = await send(bench, raw)
        assert not any(b"smuggled" in target for target in result.begun), octet
        assert result.faults == []
        assert len(result.seen) <= 1
        assert result.closed


@pytest.mark.parametrize("place", ["before", "within", "after"])
async def test_every_byte_in_a_coding(bench: Bench, place: str) -> None:
    codings = {"before": b"%bchunked", "within": b"chu%bnked", "after": b"chunked%b"}
    cases = []
    for octet in BYTES:
        passes = octet[0] in WHITE and place != "within"
        coding = codings[place] % octet
        cases.append((head(b"Transfer-Encoding: " + coding) + b"5\r\nhello\r\n0\r\n\r\n", passes))
    await expect(bench, cases)


CODINGS = [
    *(b"chunked, identity", b"identity", b"identity, chunked", b"chunked, chunked", b"gzip"),
    *(b"gzip, chunked", b"x, chunked", b",chunked", b"chunked,", b", chunked", b"chunked ,", b""),
    *(b"chunked;q=1", b"chunked;", b"chunked; a=b", b'"chunked"', b"'chunked'", b"chunked\x00"),
    *(b"xchunked", b"chunkedx", b"chunk", b"CHUNKED, chunked", b"deflate, gzip, chunked"),
    *(
        b"chunked, gzip",
        b"trailers",
        b"chunked trailers",
        b"\x0bchunked",
        b"chunked\x0c",
        b"[chunked]",
    ),
]


@pytest.mark.parametrize(
    "length", [b"", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length: 44\r\n"]
)
async def test_no_other_coding_than_chunked(bench: Bench, length: bytes) -> None:
    body = b"0\r\n\r\n" + SMUGGLED
    raws = []
    for coding in CODINGS:
        line = b"Transfer-Encoding: " + coding
        raws += [
            head(length.removesuffix(b"\r\n"), line) if length else head(line),
            head(line, b"Transfer-Encoding: chunked"),
            head(b"Transfer-Encoding: chunked", line),
        ]
    if length:
        raws += [head(b"Transfer-Encoding: chunked", length.strip())]
        raws += [head(length.strip(), b"transfer-encoding:chunked")]
    await expect(bench, ((raw + body, False) for raw in raws))


@pytest.mark.parametrize("place", ["before", "after"])
async def test_every_byte_in_a_length(bench: Bench, place: str) -> None:
    cases: list[tuple[bytes, bool | None]] = []
    for octet in BYTES:
        if octet.isdigit():
            continue
        value = octet + b"5" if place == "before" else b"5" + octet
        cases.append((head(b"Content-Length: " + value) + b"hello", octet[0] in WHITE))
    await expect(bench, cases)


LENGTHS = [
    *(b"", b"+5", b"-5", b"5.0", b"5e0", b"0x5", b"5,5", b"5, 5", b"5,6", b"5;", b'"5"', b"5 5"),
    *(
        b"5\t5",
        b"1_0",
        b"\xb2",
        b"5\xa0",
        b"\xd9\xa5",
        b"99999999999999999999",
        b"-0",
        b"+0",
        b"0,",
        b",5",
    ),
    *(b"18446744073709551621", b"0b101", b"0o5", b"five", b"NaN", b"Infinity", b"5\x00", b"(5)"),
]


async def test_no_length_that_another_reader_could_read_otherwise(bench: Bench) -> None:
    cases: list[tuple[bytes, bool | None]] = [
        (head(b"Content-Length: " + length) + b"hello" + SMUGGLED, False) for length in LENGTHS
    ]
    for first, second in itertools.product((b"5", b"0", b"6", b"05"), repeat=2):
        two = head(b"Content-Length: " + first, b"Content-Length: " + second)
        cases.append((two + b"hello" + SMUGGLED, False))
    await expect(bench, cases)


@pytest.mark.parametrize(
    "body",
    [
        b"%b5\r\nhello\r\n0\r\n\r\n",
        b"5%b\r\nhello\r\n0\r\n\r\n",
        b"5\r%b\nhello\r\n0\r\n\r\n",
        b"5\r\nhello%b\r\n0\r\n\r\n",
        b"5\r\nhello\r%b\n0\r\n\r\n",
        b"5\r\nhello\r\n%b0\r\n\r\n",
        b"5\r\nhello\r\n0%b\r\n\r\n",
        b"5\r\nhello\r\n0\r%b\n\r\n",
        b"5\r\nhello\r\n0\r\n\r%b\n",
    ],
    ids=lambda body: body.replace(b"%b", b"_").decode("unicode_escape").encode("unicode_escape"),
)
async def test_a_byte_too_many_in_chunked_content(bench: Bench, body: bytes) -> None:
    size_line = body.startswith((b"%b5", b"5%b")) or b"%b0" in body or b"0%b" in body
    for octet in BYTES:
        if size_line and octet in b"0123456789abcdefABCDEF":
            continue  # another size, and the end is waited for
        if body.endswith(b"\r%b\n") and octet == b"\n":
            continue  # that is the end, and a byte of what is not read any more
        result = await send(bench, head(b"Transfer-Encoding: chunked") + body % octet + SMUGGLED)
        assert not any(b"smuggled" in target for target in result.begun), octet
        assert result.faults == []
        assert result.seen == [], (octet, result)  # what had begun was never completed
        assert result.closed


async def test_every_byte_in_a_chunk_extension(bench: Bench) -> None:
    cases: list[tuple[bytes, bool | None]] = []
    for octet in BYTES:
        raw = head(b"Transfer-Encoding: chunked") + b"5;a" + octet + b"b\r\nhello\r\n0\r\n\r\n"
        passes = octet[0] in TOKEN or octet in b"=;"
        cases.append((raw, passes))
    await expect(bench, cases)


ENDS = [
    b"\n",
    b"\r",
    b"\r\r\n",
    b"\n\r",
    b"\n\n",
    b"\x0b",
    b"\x0c",
    b"\r\n\x00",
    b"\0\r\n",
]


@pytest.mark.parametrize("end", ENDS, ids=repr)
async def test_no_line_ends_otherwise_than_with_crlf(bench: Bench, end: bytes) -> None:
    good = head(b"X-Foo: 1", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"
    places = [match.start() for match in re.finditer(b"\r\n", good)]
    cases: list[tuple[bytes, bool | None]] = [
        (good[:place] + end + good[place + 2 :] + SMUGGLED, False) for place in places[:6]
    ]
    await expect(bench, cases)
    # What ends with a good line end and a byte more has ended: the byte belongs to nobody.
    for place in places[6:-1] if end.startswith(b"\r\n") else places[6:]:
        result = await send(bench, good[:place] + end + good[place + 2 :] + SMUGGLED)
        assert not any(b"smuggled" in target for target in result.begun)
        assert result.seen == []
        assert result.closed


@pytest.mark.parametrize("fold", [b"\r\n ", b"\r\n\t", b"\r\n  \t", b"\r\n \r\n ", b" \r\n "])
async def test_no_field_is_folded(bench: Bench, fold: bytes) -> None:
    lines = [b"X-Foo:%b1", b"X-Foo: 1%b2", b"X-Foo: 1%b", b"Transfer-Encoding:%bchunked"]
    lines += [b"Content-Length:%b0", b"Connection:%bclose", b"Transfer-Encoding: chunked%b"]
    await expect(bench, ((head(line % fold), False) for line in lines))
    first = b"GET /here HTTP/1.1%bHost: app.example.com\r\n\r\n" % fold
    await expect(bench, [(first, False)])


HOSTS_REFUSED = [
    *(b"", b" ", b"a b", b"a,b", b"a@b", b"u:p@a", b"a/b", b"a?b", b"a#b", b"a\\b", b"a:b", b"a:"),
    *(b"a:99999", b"a:-1", b"a:+80", b"a:0", b"a:80:80", b"[::1", b"::1", b"[::1]x", b"[::1]:x"),
    *(b"[::g]", b"[v1.a]", b"[::1%25eth0]", b"a..b", b".a", b"a%2eb", b"a%00", b"127.1", b"0x7f.1"),
    *(
        b"2130706433",
        b"256.1.1.1",
        b"1.2.3.4.5",
        b"\xc3\xa9.example",
        b"a;b",
        b"a\tb",
        b"(a)",
        b"<a>",
    ),
    *(b"a'b", b'"a"', b"*", b"*.a", b"a^b", b"a|b", b"a`b", b"{a}", b"-", b"a" * 300, b"-a", b"a-"),
]


async def test_no_host_that_could_be_another_one(bench: Bench) -> None:
    raw = b"GET /here HTTP/1.1\r\n%bConnection: close\r\n\r\n"
    cases: list[tuple[bytes, bool | None]] = []
    for host in HOSTS_REFUSED:
        cases += [(raw % (b"Host: %b\r\n" % host), False)]
    cases += [
        (raw % b"", False),
        (raw % b"Host: a\r\nHost: a\r\n", False),
        (raw % b"Host: a\r\nhost: b\r\n", False),
        (raw % b"Host : a\r\n", False),
        (raw % b"Host: a\r\n\x00Host: b\r\n", False),
    ]
    cases += [(raw % (b"Host: a%bb\r\n" % octet), None) for octet in BYTES]
    await expect(bench, cases)


AUTHORITIES_REFUSED = [
    *(b"evil.example", b"app.example.com:81", b"app.example.com@evil", b"u@app.example.com"),
    *(
        b"app.example.com:",
        b"",
        b"app.example.com.evil",
        b"%61pp.example.com",
        b"app.example.com\\",
    ),
    *(
        b"[::1]",
        b"127.0.0.1",
        b"app.example.com:443",
        b"app.example.com%00",
        b"app.example.com:080000",
    ),
]


async def test_no_target_that_disagrees_with_host(bench: Bench) -> None:
    cases: list[tuple[bytes, bool | None]] = []
    authorities = [b"http://" + authority for authority in AUTHORITIES_REFUSED]
    schemes = (b"https", b"ftp", b"ws", b"file", b"HTTPS", b"h", b"httpx")
    authorities += [scheme + b"://app.example.com" for scheme in schemes]
    cases += [(head(target=authority + b"/here"), False) for authority in authorities]
    for good in (
        b"app.example.com",
        b"APP.example.com",
        b"app.example.com:80",
        b"app.example.com.",
    ):
        cases.append((head(target=b"http://%b/here" % good), True))
        cases.append((head(target=b"HTTP://%b/here" % good), True))
    cases += [
        (head(target=target), False)
        for target in (
            b"*",
            b"here",
            b"app.example.com:80",
            b"//",
            b"http:/here",
            b"http:here",
            b"?a",
            b"",
        )
        if target != b"//"
    ]
    await expect(bench, cases)


async def test_no_other_version_and_no_other_protocol(bench: Bench) -> None:
    versions = [
        b"HTTP/0.9",
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/2",
        b"HTTP/1",
        b"HTTP/1.10",
        b"HTTP/01.1",
    ]
    versions += [
        b"http/1.1",
        b"HTTP /1.1",
        b"HTTPS/1.1",
        b"RTSP/1.0",
        b"ICE/1.0",
        b"HTTP/1.1.1",
        b"HTTP/+1.1",
    ]
    versions += [
        b"HTTP/1,1",
        b"HTTP/1.",
        b"HTTP/.1",
        b"HTTP/1.1 HTTP/1.1",
        b"",
        b"HTTP/1.\xb9",
        b"HTTP/3.0",
    ]
    raw = b"GET /here %b\r\nHost: app.example.com\r\n\r\n"
    await expect(bench, ((raw % version, False) for version in versions))


async def test_no_method_that_nobody_knows(bench: Bench) -> None:
    methods = [
        b"get",
        b"Get",
        b"CONNECT",
        b"TRACE",
        b"PRI",
        b"TRACK",
        b"DEBUG",
        b"SPAM",
        b"GETT",
        b"G",
    ]
    methods += [b"M-SEARCH", b"PURGE", b"BREW", b"X" * 33, b"GET,", b"_GET", b"POST/GET"]
    await expect(bench, ((head(method=method), False) for method in methods))


async def test_no_upgrade_carries_content_or_leads_elsewhere(bench: Bench) -> None:
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    version = b"Sec-WebSocket-Version: 13"
    up = (b"Connection: upgrade", b"Upgrade: websocket")
    cases: list[tuple[bytes, bool | None]] = [
        (head(*up, key, version, method=b"POST"), False),
        (head(*up, key, version, b"Content-Length: 5", method=b"GET") + b"hello", False),
        (
            head(*up, key, version, b"Transfer-Encoding: chunked", method=b"GET") + b"0\r\n\r\n",
            False,
        ),
        (head(*up, key, method=b"GET"), False),
        (head(*up, version, method=b"GET"), False),
        (head(*up, key, b"Sec-WebSocket-Version: 8", method=b"GET"), False),
        (head(*up, b"Sec-WebSocket-Key: short", version, method=b"GET"), False),
        (head(*up, key, key, version, method=b"GET"), False),
    ]
    for other in (b"h2c", b"TLS/1.0", b"websocket, h2c", b"WebSocket/13", b"HTTP/2.0", b"", b"foo"):
        lines = (
            b"Connection: upgrade, HTTP2-Settings",
            b"Upgrade: " + other,
            b"HTTP2-Settings: AAMA",
        )
        cases.append((head(*lines, method=b"GET"), True))
    await expect(bench, cases)


async def test_no_expectation_but_one(bench: Bench) -> None:
    values = [
        b"100-continue, 100-continue",
        b"200-ok",
        b"100",
        b"100-continue;",
        b"x",
        b"",
        b"\xff",
    ]
    cases: list[tuple[bytes, bool | None]] = [
        (head(b"Expect: " + value, b"Content-Length: 5") + b"hello", False) for value in values
    ]
    cases.append((head(b"Expect: 100-Continue", b"Content-Length: 5") + b"hello", True))
    await expect(bench, cases)


async def test_whatever_came_the_gateway_serves_the_next_one(bench: Bench) -> None:
    result = await send(bench, head(target=b"/clean", method=b"GET"))
    assert one(result)
    assert result.seen[0].target == b"/clean"
