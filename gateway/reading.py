# ruff: noqa: SIM905 - a list of words reads better as one string
"""The one strict reading of a request head (RFC 9110, RFC 9112).

How this works. `read_request_head` takes the bytes up to and including the empty line. One regular
expression takes all of them or none: method, target, version, and lines of name, colon and value.
No obs-fold, no bare CR or LF, no white space before a colon, no control byte gets through it. All
its repetitions are possessive, so that time is linear in the bytes whatever they are.

Then the few fields that decide framing and authority are looked at, each of which must be there at
most once. Whatever can be read in two ways is refused, and the connection closed: a request that
is smuggled past one reader needs another one that reads it differently.

Stricter than the RFC, on purpose: HTTP/1.0 needs a Host as well, Content-Length may not be a list,
chunked is the only transfer coding and only one, several credentials or content types are refused,
a target in absolute-form must agree with Host. More lenient nowhere; see `gateway.target` for the
characters of a query.
"""

import re
from functools import lru_cache

from config.model import Limits
from gateway.authority import read_authority
from gateway.bad_request import BadRequest
from gateway.head import Fields, FieldSection, RequestHead
from gateway.target import ASTERISK, PLAIN_FORM, Target, canonical, plain_target

__all__ = [
    "BadRequest",
    "HeadReader",
    "check_partial_head",
    "connection_options",
    "read_request_head",
]

MAX_REQUEST_LINE = 8190
"""Bytes; RFC 9112 3 asks for 8000, aiohttp and Apache take 8190."""
MAX_FIELDS = 128
"""Field lines; HAProxy takes 101, aiohttp 128, nginx 1000."""

_TOKEN = r"!#$%&'*+\-.^_`|~0-9A-Za-z"  # noqa: S105 - RFC 9110 5.6.2, not a secret
# Atomic, `(?>(?:...)*)`, not possessive, `(?:...)*+`: that is at fault before Python 3.11.5
# (tests/test_expressions.py).
_HEAD = re.compile(
    rf"(?:\r\n)?([{_TOKEN}]{{1,32}}+) (?:{PLAIN_FORM}|([!-~]++)) HTTP/1\.([01])"
    rf"((?>(?:\r\n[{_TOKEN}]++:[\t -~\x80-\xff]*+)*))\r\n\r\n"
)
_PLAIN_LINE = re.compile(rf"([A-Z\-]{{1,32}}+) {PLAIN_FORM} HTTP/1\.1")
_REQUEST_LINE = re.compile(rf"[{_TOKEN}]{{1,32}}+ [!-~]++ HTTP/1\.[01]")
_OTHER_VERSION = re.compile(rf"[{_TOKEN}]{{1,32}}+ [!-~]++ HTTP/[0-9]\.[0-9]")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?]*)(.*)")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CODING = re.compile(rf"[{_TOKEN}]+")
# RFC 6455 4.1: 16 bytes in base64. The last digit before `==` carries two bits.
_WEBSOCKET_KEY = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
_WEBSOCKET_VERSION = (("Sec-WebSocket-Version", "13"),)
"""What a refused handshake is told: the one version there is (RFC 6455 4.4)."""
_ALLOW = (("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)
"""What 405 says for a method that no address takes (RFC 9110 15.5.6)."""

# IANA's registry without CONNECT, TRACE and PRI. RFC 9110 9.1: what is not known is answered 501.
_METHODS = frozenset(
    "GET HEAD POST PUT PATCH DELETE OPTIONS QUERY ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT COPY "
    "LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE ORDERPATCH "
    "PROPFIND PROPPATCH REBIND REPORT SEARCH UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE "
    "UPDATEREDIRECTREF VERSION-CONTROL".split()
)
# Fields that a decision reads, here or behind us: with two of them, first-wins and last-wins
# readers see different requests (Envoy CVE-2026-26308, aiohttp CVE-2026-34525). And fields that
# RFC 9110 5.3 allows once: some backends refuse the second one, others do not.
_SINGLETONS = frozenset(
    "host content-length transfer-encoding content-type content-range range expect max-forwards "
    "authorization proxy-authorization origin referer sec-fetch-site sec-fetch-mode sec-fetch-dest "
    "sec-websocket-key sec-websocket-version "
    "age content-location date etag from if-modified-since if-range if-unmodified-since "
    "last-modified server user-agent".split()
)
_FRAMING = frozenset(("content-length", "transfer-encoding"))
# Other spellings of them that CGI, WSGI and PHP fold into the same variable: to such a reader the
# message has content, to us another request begins there.
_DISGUISED_FRAMING = frozenset(
    name.replace("-", separator) for name in _FRAMING for separator in "!#$%&'*+.^_`|~"
)
# With one of these, a head says more than its request line and its plain fields do.
_NOT_PLAIN = _FRAMING | {"expect", "upgrade", "max-forwards"}
_MOST_REMEMBERED = 4096
"""Bytes of fields that a connection remembers."""


def read_request_head(
    head: bytes, *, scheme: str, limits: Limits, allow_encoded_slash: bool = False
) -> RequestHead:
    """Return what *head* says: all bytes up to and including the first empty line.

    *scheme* is that of the connection. *allow_encoded_slash* lets `%2F` through to the routes, of
    which at least one must want it; whoever matches then asks `Target.encoded_slash`.

    Raises:
        BadRequest: with the status that fits; nothing after the head may be read.
    """
    if len(head) > limits.head:
        raise _refused_size(head)
    whole = _HEAD.fullmatch(head.decode("latin-1"))
    if whole is None:
        raise _refused_head(head)
    if whole.start(6) > MAX_REQUEST_LINE:
        raise BadRequest(414, "The request line is too long.")
    method, path, query, other, minor, lines = whole.groups()
    fields, by_name = _read_fields(lines)
    if method not in _METHODS:
        raise _refused_method(method)
    host_values = by_name.get("host")
    if host_values is None:
        raise BadRequest(400, "A Host field is required.")
    authority = read_authority(host_values[0], scheme)
    target = (
        plain_target(path, query)
        if path is not None
        else _read_other_target(
            method, other, scheme, authority.text, allow_encoded_slash=allow_encoded_slash
        )
    )
    options = connection_options(by_name["connection"]) if "connection" in by_name else frozenset()
    if not _DISGUISED_FRAMING.isdisjoint(by_name):
        raise BadRequest(400, "A field that frames the content is misspelt.")
    content_length, chunked = None, False
    if not _FRAMING.isdisjoint(by_name):
        content_length, chunked = _read_framing(by_name, minor, limits)
    has_body = chunked or bool(content_length)
    upgrade = ""
    if "upgrade" in by_name and minor == "1" and "upgrade" in options:
        upgrade = _read_upgrade(by_name, method, has_body=has_body)
    result = RequestHead(
        method,
        target,
        authority.host,
        authority.text,
        (1, 1) if minor == "1" else (1, 0),
        fields,
        # RFC 9112 C.2.2: a 1.0 client may be a proxy that does not know Connection; always close.
        minor == "1" and "close" not in options,
        content_length,
        chunked,
        "expect" in by_name and _expects_continue(by_name, minor) and has_body,
        upgrade,
        target is ASTERISK or (method == "OPTIONS" and _may_go_no_further(by_name)),
    )
    result.__dict__["section"] = FieldSection(by_name)  # the cached property, already worked out
    return result


class HeadReader:
    """Reads the heads of one connection, whose *scheme* is given.

    Clients repeat themselves: from one request to the next the request line changes, and the fields
    are the same bytes; who polls sends all of it again. The last reading is remembered, so that at
    most the request line is read anew. The same bytes have the same meaning, so the result is that
    of `read_request_head`. What is remembered holds a cookie, so it lives no longer than the
    connection, and not while that idles.
    """

    __slots__ = ("_remembered", "_scheme")

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._remembered: tuple[bytes, bytes, RequestHead] | None = None
        """The fields' bytes; the whole head's, if its line was plain; what they say."""

    def read(
        self, head: bytes, limits: Limits, *, allow_encoded_slash: bool = False
    ) -> RequestHead:
        """Return what *head* says; see `read_request_head`."""
        remembered = self._remembered
        if remembered is not None and len(head) <= limits.head and head.endswith(remembered[0]):
            octets, last, before = remembered
            if head == last:
                return before
            line = head[: -len(octets)]
            plain = _PLAIN_LINE.fullmatch(line.decode("latin-1"))
            if plain is not None and len(line) <= MAX_REQUEST_LINE and plain[1] in _METHODS:
                method, path, query = plain.groups()
                again = RequestHead(
                    method,
                    plain_target(path, query),
                    before.host,
                    before.authority,
                    before.version,
                    before.fields,
                    before.keep_alive,
                )
                again.__dict__["section"] = before.section
                self._remembered = (octets, head, again)
                return again
        result = read_request_head(
            head, scheme=self._scheme, limits=limits, allow_encoded_slash=allow_encoded_slash
        )
        if remembered is not None:  # a browser's fields change, its cookie hardly ever
            result.section.take_over(remembered[2].section)
        if result.version == (1, 1) and _NOT_PLAIN.isdisjoint(result.by_name):
            # From the line end before the first field on: no request line can hold that.
            octets = head[head.find(b"\r\n", 2) :]
            small = len(octets) <= _MOST_REMEMBERED
            self._remembered = (octets, b"", result) if small else None
        return result

    def forget(self) -> None:
        """Forget what the last head said."""
        self._remembered = None


def check_partial_head(data: bytes | bytearray, *, start: int, limits: Limits) -> None:
    """Refuse a head that is not complete yet as soon as it cannot become a good one.

    *data* is all that has come, *start* how much of it an earlier call has seen: a client that
    sends byte by byte costs no more than one that sends all at once.

    Raises:
        BadRequest: too large, no HTTP/1 request line, or a bare CR, LF or NUL.
    """
    if len(data) > limits.head:
        raise _refused_size(data)
    if _BARE.search(data, max(start - 1, 0)):
        raise BadRequest(400, "The request head holds a bare CR or LF.")
    begin = 2 if data[:2] == b"\r\n" else 0
    end = data.find(b"\r\n", max(start - 1, begin))
    first = data.find(b"\r\n", begin) if end >= 0 else -1
    if end >= 0 and first == end:
        refusal = _refused_request_line(bytes(data[begin:end]))
        if refusal is not None:
            raise refusal
    if end < 0 and len(data) > MAX_REQUEST_LINE and data.find(b"\r\n", begin) < 0:
        raise BadRequest(414, "The request line is too long.")


@lru_cache(maxsize=512)
def connection_options(values: tuple[str, ...]) -> frozenset[str]:
    """Return the connection options of the Connection fields *values*, in lower case.

    Several lines are one list, and empty members are skipped (RFC 9110 5.3, 5.6.1).
    """
    members = (member.strip(" \t").lower() for member in ",".join(values).split(","))
    return frozenset(filter(None, members))


def _read_fields(lines: str) -> tuple[Fields, dict[str, tuple[str, ...]]]:
    """Return the fields of *lines*, each with a CRLF before it, in order and by lower-case name."""
    fields: list[tuple[str, str]] = []
    by_name: dict[str, tuple[str, ...]] = {}
    for line in lines.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        fields.append((name, value))
        key = name.lower()
        if key not in by_name:
            by_name[key] = (value,)
        elif key in _SINGLETONS:
            raise BadRequest(400, "A field that may come once came more than once.")
        else:
            by_name[key] += (value,)
    if len(fields) > MAX_FIELDS:
        raise BadRequest(431, "The request head has too many fields.")
    return tuple(fields), by_name


def _refused_size(data: bytes | bytearray) -> BadRequest:
    if data.find(b"\r\n", 2, MAX_REQUEST_LINE) < 0:
        return BadRequest(414, "The request line is too long.")
    return BadRequest(431, "The request head is too large.")


def _refused_head(head: bytes) -> BadRequest:
    line = head.removeprefix(b"\r\n").partition(b"\r\n")[0]
    return _refused_request_line(line) or BadRequest(400, "A field line is malformed.")


def _refused_request_line(line: bytes) -> BadRequest | None:
    text = line.decode("latin-1")
    if len(text) > MAX_REQUEST_LINE:
        return BadRequest(414, "The request line is too long.")
    if _REQUEST_LINE.fullmatch(text):
        return None
    if _OTHER_VERSION.fullmatch(text):
        return BadRequest(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    return BadRequest(400, "The request line is malformed.")


def _refused_method(method: str) -> BadRequest:
    if method == "TRACE":
        # RFC 9110 9.3.8: it would echo credentials, and the fields that we add.
        return BadRequest(405, "TRACE is not allowed.", _ALLOW)
    if method.upper() in _METHODS:
        return BadRequest(400, "Methods are case-sensitive.")
    return BadRequest(501, "The method is not implemented.")


def _read_other_target(
    method: str, text: str, scheme: str, authority: str, *, allow_encoded_slash: bool
) -> Target:
    """Read a target that is not plain, or in asterisk- or absolute-form (RFC 9112 3.2)."""
    if text[0] == "/":
        return canonical(text.encode(), allow_encoded_slash=allow_encoded_slash)
    if text == "*" and method == "OPTIONS":
        return ASTERISK
    parts = _ABSOLUTE.fullmatch(text)
    if parts is None:
        raise BadRequest(400, "The request target is malformed.")
    target_scheme, target_authority, rest = parts.groups()
    # The RFC lets the target win over Host. Readers that let Host win exist, so they must agree.
    if target_scheme.lower() != scheme:
        raise BadRequest(400, "The scheme of the target is not that of the connection.")
    if read_authority(target_authority, scheme).text != authority:
        raise BadRequest(400, "The target and the Host field disagree.")
    if not rest and method == "OPTIONS":
        return ASTERISK
    if rest[:1] != "/":
        rest = f"/{rest}"
    return canonical(rest.encode(), allow_encoded_slash=allow_encoded_slash)


def _read_framing(
    by_name: dict[str, tuple[str, ...]], minor: str, limits: Limits
) -> tuple[int | None, bool]:
    """Return content length and whether the body is chunked (RFC 9112 6.3)."""
    length = by_name.get("content-length")
    coding = by_name.get("transfer-encoding")
    if coding is None:
        assert length is not None
        if _LENGTH.fullmatch(length[0]) is None:
            raise BadRequest(400, "The Content-Length field is malformed.")
        number = int(length[0])
        if number > limits.body:
            raise BadRequest(413, "The request body is too large.")
        return number, False
    if length is not None:
        raise BadRequest(400, "Content-Length and Transfer-Encoding exclude each other.")
    if minor == "0":
        # RFC 9112 6.1: to be treated as if the framing were faulty.
        raise BadRequest(400, "HTTP/1.0 has no Transfer-Encoding.")
    if coding[0].lower() != "chunked":
        raise _refused_coding(coding[0])
    return None, True


def _refused_coding(value: str) -> BadRequest:
    codings = [coding.strip(" \t").lower() for coding in value.split(",")]
    unknown = [coding for coding in codings if coding != "chunked"]
    if unknown and len(codings) - len(unknown) <= 1 and all(map(_CODING.fullmatch, codings)):
        return BadRequest(501, "The only transfer coding is chunked.")
    return BadRequest(400, "The Transfer-Encoding field is malformed.")


def _expects_continue(by_name: dict[str, tuple[str, ...]], minor: str) -> bool:
    if by_name["expect"][0].lower() != "100-continue":
        raise BadRequest(417, "The only expectation is 100-continue.")
    return minor == "1"  # RFC 9110 10.1.1: from HTTP/1.0 it is ignored


def _may_go_no_further(by_name: dict[str, tuple[str, ...]]) -> bool:
    """Whether Max-Forwards is used up (RFC 9110 7.6.2)."""
    values = by_name.get("max-forwards")
    if values is None:
        return False
    if _LENGTH.fullmatch(values[0]) is None:
        raise BadRequest(400, "The Max-Forwards field is malformed.")
    return int(values[0]) == 0


def _read_upgrade(by_name: dict[str, tuple[str, ...]], method: str, *, has_body: bool) -> str:
    """Return `websocket` for a good handshake, nothing for a protocol that is not spoken here.

    RFC 9110 7.8: an upgrade may be ignored, and then the field ends here. A handshake with a body
    is how aiohttp CVE-2026-69243 hid a request.
    """
    if tuple(map(str.lower, by_name["upgrade"])) != ("websocket",):
        return ""
    key = by_name.get("sec-websocket-key", ("",))[0]
    version = by_name.get("sec-websocket-version", ("",))[0]
    if method != "GET" or has_body or version != "13" or not _WEBSOCKET_KEY.fullmatch(key):
        raise BadRequest(400, "The WebSocket handshake is malformed.", _WEBSOCKET_VERSION)
    return "websocket"
