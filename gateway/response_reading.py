"""The strict reading of an upstream's response head (RFC 9112 4, 6.3).

An upstream that is confused about where its answer ends hands the rest of it to the next person on
the same connection. So whatever leaves that open is an `UpstreamProtocolError` (502, and the
connection is closed): two lengths, a length with a coding, a coding that is not just chunked, bare
LF, obs-fold, control bytes, a status that is none. Stricter than the RFC: equal Content-Length
fields are not merged, and white space before a colon is not cut off.
"""

import re
from functools import cached_property

import msgspec

from gateway.reading import connection_options

MAX_RESPONSE_HEAD = 64 * 1024
"""Bytes. Larger than what a client may send: answers carry cookies and policies."""
MAX_RESPONSE_FIELDS = 256
"""Field lines; twice what a client may send, for the same reason."""
MAX_INTERIM_RESPONSES = 8
"""1xx heads before the final one; an upstream could send them for ever."""

_MOST_REMEMBERED = 64
"""Heads of one endpoint."""
_LONGEST_REMEMBERED = 2048
"""Bytes of a head that is remembered."""

_TOKEN = r"!#$%&'*+\-.^_`|~0-9A-Za-z"  # noqa: S105 - RFC 9110 5.6.2, not a secret
_HEAD = re.compile(
    r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t -~\x80-\xff]*+))?"
    rf"((?>(?:\r\n[{_TOKEN}]++:[\t -~\x80-\xff]*+)*))\r\n\r\n"
)
_STATUS_LINE_BEGIN = re.compile(rb"HTTP/1\.[01] [1-5][0-9]{2}[ \r]")
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|\0")
_DECIDING = frozenset(("content-length", "transfer-encoding", "connection", "upgrade", "date"))
_LENGTH = re.compile(r"[0-9]{1,18}")


class UpstreamProtocolError(Exception):
    """What the upstream sent is no HTTP answer that can be passed on: 502, connection closed."""


class ResponseHead(msgspec.Struct, frozen=True, dict=True):
    """A response head that passed the strict reading."""

    status: int
    reason: str
    version: tuple[int, int]
    fields: tuple[tuple[str, str], ...]
    content_length: int | None
    """Bytes that follow, 0 where no body can follow; None when chunked or until close."""
    chunked: bool
    until_close: bool
    """Whether the body ends with the connection."""
    keep_alive: bool
    """Whether the connection may be used again once the body has been read."""
    upgrade: bool
    """Whether the connection speaks WebSocket from here on."""
    bodiless: bool = False
    """Whether there is no body whatever the fields say: HEAD, 1xx, 204, 304."""
    has_date: bool = False
    options: frozenset[str] = frozenset()
    """What Connection names, in lower case."""

    @property
    def interim(self) -> bool:
        """Whether another head follows (RFC 9110 15.2)."""
        return self.status < 200 and not self.upgrade

    @cached_property
    def written(self) -> dict[tuple[object, ...], bytes]:
        """Memo of `gateway.forwarding`: what this head became, by what it was written for."""
        return {}


class ResponseReader:
    """Reads the answers' heads of one endpoint, which are few and come again and again.

    The same bytes have the same meaning, so the result is that of `read_response_head`. A head
    that sets cookies is for one client and is not remembered; the others are bounded and few.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, ResponseHead] = {}

    def __len__(self) -> int:
        return len(self._known)

    def read(
        self, head: bytes, *, request_method: str, upgrade_requested: bool = False
    ) -> ResponseHead:
        """Return what *head* says; see `read_response_head`."""
        if request_method == "HEAD" or upgrade_requested:
            # The only two questions whose answers are read in another way.
            return read_response_head(
                head, request_method=request_method, upgrade_requested=upgrade_requested
            )
        known = self._known.get(head)
        if known is None:
            known = read_response_head(head, request_method=request_method)
            if len(head) <= _LONGEST_REMEMBERED and b"et-cookie" not in head.lower():
                if len(self._known) >= _MOST_REMEMBERED:
                    self._known.clear()
                self._known[head] = known
        return known


def read_response_head(
    head: bytes, *, request_method: str, upgrade_requested: bool = False
) -> ResponseHead:
    """Return what *head* says: all bytes up to and including the first empty line.

    Raises:
        UpstreamProtocolError: the connection must be closed, and nothing of it passed on.
    """
    if len(head) > MAX_RESPONSE_HEAD:
        raise UpstreamProtocolError("response head is too large")
    whole = _HEAD.fullmatch(head.decode("latin-1"))
    if whole is None:
        raise UpstreamProtocolError("response head is malformed")
    minor, digits, reason, lines = whole.groups()
    status = int(digits)
    fields: list[tuple[str, str]] = []
    deciding: dict[str, list[str]] = {}
    for line in lines.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        fields.append((name, value))
        key = name.lower()
        if key in _DECIDING:
            deciding.setdefault(key, []).append(value)
    if len(fields) > MAX_RESPONSE_FIELDS:
        raise UpstreamProtocolError("response head has too many fields")
    connection = deciding.get("connection")
    options = connection_options(tuple(connection)) if connection else frozenset()
    upgrade = status == 101
    if upgrade:
        _check_upgrade(options, deciding.get("upgrade", []), requested=upgrade_requested)
    content_length, chunked = _read_framing(deciding, minor)
    keep_alive = minor == "1" and "close" not in options
    bodiless = request_method == "HEAD" or status < 200 or status in (204, 304)
    if bodiless:
        # RFC 9112 6.3 rule 1: no body whatever the fields say. An upstream that announces one
        # where there must be none may go on to send it.
        announced = chunked or (bool(content_length) and status != 304 and request_method != "HEAD")
        content_length, chunked = 0, False
        keep_alive = keep_alive and not announced
    until_close = content_length is None and not chunked
    return ResponseHead(
        status,
        reason or "",
        (1, 1) if minor == "1" else (1, 0),
        tuple(fields),
        content_length,
        chunked,
        until_close,
        keep_alive and not until_close,
        upgrade,
        bodiless,
        "date" in deciding,
        options,
    )


def check_partial_response_head(data: bytes | bytearray, *, start: int) -> None:
    """Refuse a head that is not complete yet as soon as it cannot become a good one.

    *data* is all that has come, *start* how much of it an earlier call has seen.

    Raises:
        UpstreamProtocolError: too large, not HTTP/1, or a bare CR, LF or NUL.
    """
    if len(data) > MAX_RESPONSE_HEAD:
        raise UpstreamProtocolError("response head is too large")
    if start < 13:
        begin = bytes(data[:13])
        if not _STATUS_LINE_BEGIN.match(begin + b"HTTP/1.1 200 "[len(begin) :]):
            raise UpstreamProtocolError("status line is malformed")
    if _BARE.search(data, max(start - 1, 0)):
        raise UpstreamProtocolError("response head holds a bare CR or LF")


def _read_framing(deciding: dict[str, list[str]], minor: str) -> tuple[int | None, bool]:
    """Return content length and whether the body is chunked (RFC 9112 6.3)."""
    lengths = deciding.get("content-length")
    codings = deciding.get("transfer-encoding")
    if codings:
        if lengths or minor == "0" or len(codings) > 1 or codings[0].lower() != "chunked":
            raise UpstreamProtocolError("framing of the response is ambiguous")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise UpstreamProtocolError("length of the response is ambiguous")
    return int(lengths[0]), False


def _check_upgrade(options: frozenset[str], upgrades: list[str], *, requested: bool) -> None:
    """Refuse a switch that was not asked for, or to another protocol (RFC 9110 7.8)."""
    if not requested or "upgrade" not in options or [u.lower() for u in upgrades] != ["websocket"]:
        raise UpstreamProtocolError("protocol switch was not asked for")
