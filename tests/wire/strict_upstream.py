"""An upstream that is stricter than any backend, and remembers what it was sent."""

import asyncio
import re
from typing import NamedTuple

from tests.gateway.io.harness import Upstreams

_REQUEST_LINE = re.compile(rb"([A-Z-]+) (/[!-~]*|\*) HTTP/1\.1")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?|)"
)


class Received(NamedTuple):
    """A complete request."""

    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    content: bytes


class StrictUpstream:
    """Behaviour for `harness.upstream`: answers good requests, notes everything else as a fault."""

    def __init__(self) -> None:
        self.complete: list[Received] = []
        self.begun: list[bytes] = []
        """Targets of all requests, complete or not."""
        self.faults: list[str] = []

    async def __call__(
        self, _: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line, *rest = head[:-4].split(b"\r\n")
            request_line = _REQUEST_LINE.fullmatch(line)
            if request_line is None:
                self.faults.append(f"request line {line!r}")
                return
            method, target = request_line.groups()
            self.begun.append(target)
            fields = []
            for one in rest:
                field = _FIELD.fullmatch(one)
                if field is None:
                    self.faults.append(f"field line {one!r}")
                    return
                fields.append((field[1], field[2]))
            content = await self._read_content(reader, fields)
            if content is None:
                return
            self.complete.append(Received(method, target, tuple(fields), content))
            body = b"answer to " + target
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), b"" if method == b"HEAD" else body)
            )

    async def _read_content(
        self, reader: asyncio.StreamReader, fields: list[tuple[bytes, bytes]]
    ) -> bytes | None:
        framing = [
            (n.lower(), v)
            for n, v in fields
            if n.lower() in (b"content-length", b"transfer-encoding")
        ]
        if len([n for n, _ in fields if n.lower() == b"host"]) != 1:
            self.faults.append("no single Host")
            return None
        if len(framing) > 1:
            self.faults.append("framing that can be read in two ways")
            return None
        if not framing:
            return b""
        name, value = framing[0]
        if name == b"content-length":
            if re.fullmatch(rb"0|[1-9][0-9]*", value) is None:
                self.faults.append(f"length {value!r}")
                return None
            return await reader.readexactly(int(value))
        if value != b"chunked":
            self.faults.append(f"coding {value!r}")
            return None
        return await self._read_chunks(reader)

    async def _read_chunks(self, reader: asyncio.StreamReader) -> bytes | None:
        content = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            if re.fullmatch(rb"[0-9a-f]+\r\n", line) is None:
                self.faults.append(f"chunk size {line!r}")
                return None
            size = int(line, 16)
            data = await reader.readexactly(size + 2)
            if data[-2:] != b"\r\n":
                self.faults.append("a chunk that does not end")
                return None
            if not size:
                return content
            content += data[:-2]
