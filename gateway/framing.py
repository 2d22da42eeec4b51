"""The chunked transfer coding, read strictly and without waiting (RFC 9112 7.1).

How this works. `ChunkedScanner` is fed whatever the socket gave and says how many of those bytes
belong to the body. Between two feeds it keeps the beginning of a line at most, never payload. A
line that is cut by the end of the data is checked as far as it goes, so that a fault is found at
once and not when the next byte comes; the verdict on a body never depends on how it was cut.

The payload is collected decoded, for the caller to `take` and to write anew: chunk sizes,
extensions and trailers of the sender never travel on (RFC 9112 7.1.1, RFC 9110 6.5.1).

Stricter than the RFC: no white space around a chunk size or extension, at most 16 hex digits, a
bare LF ends no line.
"""

import re
from typing import Final

from gateway.bad_request import BadRequest

MAX_SIZE_LINE: Final = 256
"""Bytes of a chunk size with its extensions; llhttp and Go bound them likewise."""
MAX_EXTENSIONS: Final = 8192
"""Bytes of all chunk extensions of one body: they are read and thrown away."""
MAX_TRAILERS: Final = 8192
"""Bytes of the trailer section."""

_TOKEN = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"  # RFC 9110 5.6.2
_PLAIN = rb"[\t !#-\[\]-~\x80-\xff]*+"
_QUOTED = rb'"%b(?>(?:\\[\t -~\x80-\xff]%b)*)"' % (_PLAIN, _PLAIN)
_EXTENSIONS = rb"(?>(?:;[%b]++(?:=(?:[%b]++|%b))?)*)" % (_TOKEN, _TOKEN, _QUOTED)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16}+)(%b)\r\n" % _EXTENSIONS)
# What a size line may begin with: wider than all beginnings of good ones, never narrower.
_SIZE_LINE_BEGIN = re.compile(rb"[0-9A-Fa-f]{1,16}+(?:;[\t -~\x80-\xff]*+)?\r?+")
_TRAILER_LINE = re.compile(rb"(?:[%b]++:[\t -~\x80-\xff]*+)?\r\n" % _TOKEN)
_TRAILER_LINE_BEGIN = re.compile(rb"(?:[%b]++(?::[\t -~\x80-\xff]*+)?)?\r?+" % _TOKEN)
_DATA_END = b"\r\n"

_SIZE, _DATA, _DATA_CRLF, _TRAILER, _DONE = range(5)


class ChunkedScanner:
    """Finds the end of a chunked body and decodes it on the way.

    *limit* bounds the decoded body in bytes; None leaves it open, for an upstream's answer.
    """

    __slots__ = (
        "_begun",
        "_extension_bytes",
        "_left",
        "_limit",
        "_payload",
        "_state",
        "_trailer_bytes",
        "decoded_bytes",
        "done",
    )

    def __init__(self, *, limit: int | None) -> None:
        self.decoded_bytes = 0
        """Payload so far."""
        self.done = False
        """Whether the body is complete, its trailer section included."""
        self._limit = limit
        self._state = _SIZE
        self._left = 0
        self._begun = b""
        self._payload: list[bytes] = []
        self._extension_bytes = 0
        self._trailer_bytes = 0

    def take(self) -> list[bytes]:
        """Return the payload decoded since the last call, in pieces that are not empty."""
        payload, self._payload = self._payload, []
        return payload

    def feed(self, data: bytes | bytearray | memoryview, start: int = 0) -> int:
        """Read *data* from *start* on and return how many of its bytes belong to the body.

        Less than all of them only when the body is done: what follows is another message.

        Raises:
            BadRequest: 400 for a fault of the grammar, 413 for a body over the limit. The scanner
                cannot be used afterwards.
        """
        if not isinstance(data, bytes):
            data = bytes(data)
        position, end = start, len(data)
        while position < end and not self.done:
            if self._state == _DATA:
                position = self._read_data(data, position)
            elif self._state == _DATA_CRLF:
                position = self._read_data_end(data, position)
            elif self._state == _SIZE:
                position = self._read_size(data, position)
            else:
                position = self._read_trailer(data, position)
        return position - start

    def _read_size(self, data: bytes, position: int) -> int:
        line = None if self._begun else _SIZE_LINE.match(data, position)
        if line is not None and line.end() - position <= MAX_SIZE_LINE:
            position = line.end()
        else:
            whole, position = self._read_line(data, position, _SIZE_LINE_BEGIN)
            if whole is None:
                return position
            line = _SIZE_LINE.fullmatch(whole)
            if line is None:
                raise BadRequest(400, "A chunk size is malformed.")
        size = int(line[1], 16)
        if line[2]:
            self._extension_bytes += len(line[2])
            if self._extension_bytes > MAX_EXTENSIONS:
                raise BadRequest(400, "The chunk extensions are too large.")
        if self._limit is not None and self.decoded_bytes + size > self._limit:
            raise BadRequest(413, "The request body is too large.")
        self._left = size
        self._state = _DATA if size else _TRAILER
        return position

    def _read_data(self, data: bytes, position: int) -> int:
        piece = data[position : position + self._left]
        self._payload.append(piece)
        self.decoded_bytes += len(piece)
        self._left -= len(piece)
        if not self._left:
            self._state = _DATA_CRLF
        return position + len(piece)

    def _read_data_end(self, data: bytes, position: int) -> int:
        seen = self._begun + data[position : position + 2 - len(self._begun)]
        if seen == _DATA_END:
            position += 2 - len(self._begun)
            self._begun = b""
            self._state = _SIZE
            return position
        if seen != b"\r":
            raise BadRequest(400, "A chunk is not as long as it says.")
        self._begun = seen
        return position + 1

    def _read_trailer(self, data: bytes, position: int) -> int:
        line, position = self._read_line(data, position, _TRAILER_LINE_BEGIN)
        if line is None:
            return position
        if _TRAILER_LINE.fullmatch(line) is None:
            raise BadRequest(400, "A trailer field is malformed.")
        self._trailer_bytes += len(line)
        if self._trailer_bytes > MAX_TRAILERS:
            raise BadRequest(431, "The trailer section is too large.")
        if line == b"\r\n":
            self._state = _DONE
            self.done = True
        return position

    def _read_line(
        self, data: bytes, position: int, begin: re.Pattern[bytes]
    ) -> tuple[bytes | None, int]:
        """Return the next line with its end, or None if *data* ends before it does."""
        most = MAX_TRAILERS if self._state == _TRAILER else MAX_SIZE_LINE
        feed = data.find(b"\n", position, position + most + 1)
        stop = feed + 1 if feed >= 0 else len(data)
        line = self._begun + data[position : min(stop, position + most + 1)]
        if len(line) > most:
            raise BadRequest(400, "A line of the chunked body is too long.")
        if feed < 0:
            if begin.fullmatch(line) is None:
                raise BadRequest(400, "A line of the chunked body is malformed.")
            self._begun = line
            return None, stop
        self._begun = b""
        return line, stop
