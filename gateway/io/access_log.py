"""The access log: one JSON object a line, formatted cheaply, written in batches beside the loop.

How this works: the observer only keeps the event. Enough events are encoded in one go, which is
cheaper than one by one between other work; a timer, or enough bytes, hands the lines to a thread
that does nothing but write. When the sink is slow or
broken the thread waits or fails alone: lines above the bound are dropped and counted, requests
never notice.
"""

import asyncio
import logging
import os
import queue
import stat
import threading
import time
from pathlib import Path

import msgspec

from gateway.events import ExchangeFinished

_log = logging.getLogger(__name__)

BATCH_LINES = 256
"""Events that are encoded at once: about half a millisecond."""
BATCH_SECONDS = 0.1
"""A line is at most this old when it is written: short enough for `tail -f`."""
BATCH_BYTES = 256 * 1024
"""Lines that are handed to the thread at once, if there are so many before they are that old: each
time it is woken, it and the loop wait for each other."""
PENDING_BYTES = 8 * 1024 * 1024
"""What a slow sink may hold up, per worker; above it lines are dropped."""
PIPE_WRITE = 4096
"""POSIX PIPE_BUF: what several workers write to one pipe in pieces of this size stays whole."""


_MILLISECONDS = tuple(f"{number:03d}Z" for number in range(1000))


class AccessLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line, with the keys of docs/operations.md in their order, and `times` if not 1."""

    time: str
    request_id: str
    method: str
    host: str
    path: str
    status: int
    duration_ms: float
    route: str
    upstream: str
    subject: str
    tenant: str
    auth: str
    decision: str
    reason: str
    generation: int
    bytes_in: int
    bytes_out: int
    remote: str
    error: str
    times: int = 1


class _Lines:
    """Turns events into lines; knows the present second by heart."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder()
        self._second = -1
        self._prefix = ""

    def encode(self, events: list[ExchangeFinished]) -> tuple[bytes, int]:
        """Return the lines of *events* and how many of them could not be written."""
        line_of = self._line_of
        try:
            return self._encoder.encode_lines([line_of(event) for event in events]), 0
        except (UnicodeEncodeError, msgspec.MsgspecError, ValueError, OverflowError):
            # A lone surrogate or the like in one of them; the others must not go with it.
            if len(events) == 1:
                return b"", 1
        parts = [self.encode([event]) for event in events]
        return b"".join(data for data, _ in parts), sum(lost for _, lost in parts)

    def _line_of(self, event: ExchangeFinished) -> AccessLine:
        started = event.started_at
        second = int(started)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        path = event.path
        # Attribute by attribute, the milliseconds ready: unpacking costs half as much again.
        return AccessLine(
            self._prefix + _MILLISECONDS[int((started - second) * 1000)],
            event.request_id,
            event.method,
            event.host,
            # Never the query: whoever fills the event sees to it, and this makes sure of it.
            path.partition("?")[0] if "?" in path else path,
            event.status,
            round(event.duration * 1000, 3),
            event.route,
            event.upstream,
            event.subject,
            event.tenant,
            event.auth,
            event.decision,
            event.reason,
            event.generation,
            event.bytes_in,
            event.bytes_out,
            event.remote,
            event.error,
            event.times,
        )


class LogSink:
    """A file or stdout, written to by a thread of its own.

    `dropped` counts the lines that were lost, because the sink was too slow or failed.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = self._open()
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        self._reopen = False
        self._failing = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._write_batches, name="access-log", daemon=True)
        self._thread.start()

    def put(self, batch: bytes, lines: int) -> None:
        """Hand over *batch*, which holds that many *lines*, without ever waiting."""
        with self._lock:
            if self._pending + len(batch) > PENDING_BYTES:
                self.dropped += lines
                return
            self._pending += len(batch)
        self._queue.put(batch)

    def reopen(self) -> None:
        """Open the file again before the next write (it may have been rotated away)."""
        self._reopen = True

    def close(self, *, patience: float = 2.0) -> None:
        """Write what is left, but wait no longer than *patience* seconds for a stuck sink."""
        self._queue.put(None)
        self._thread.join(patience)
        if not self._thread.is_alive() and self._path != "stdout":
            os.close(self._descriptor)

    def _open(self) -> int:
        if self._path == "stdout":
            return 1
        # 0640: who calls what is nobody else's business.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(Path(self._path), flags, 0o640)

    def _write_batches(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                self._refresh()
                self._write(batch)
                self._failing = False
            except OSError as error:
                self._lose(batch, error)
            with self._lock:
                self._pending -= len(batch)

    def _refresh(self) -> None:
        if (self._reopen or self._failing) and self._path != "stdout":
            self._reopen = False
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh

    def _write(self, batch: bytes) -> None:
        pipe = stat.S_ISFIFO(os.fstat(self._descriptor).st_mode)
        for piece in _pieces(batch) if pipe else (batch,):
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def _lose(self, batch: bytes, error: OSError) -> None:
        with self._lock:
            self.dropped += batch.count(b"\n")
        if not self._failing:
            self._failing = True
            _log.error("the access log cannot be written (%s); lines are lost", error.strerror)


def _pieces(batch: bytes) -> list[bytes]:
    """Cut *batch* after ends of lines into pieces that a pipe takes whole, where lines allow."""
    pieces = []
    start = 0
    while len(batch) - start > PIPE_WRITE:
        cut = batch.rfind(b"\n", start, start + PIPE_WRITE) + 1 or batch.find(b"\n", start) + 1
        pieces.append(batch[start:cut])
        start = cut
    pieces.append(batch[start:])
    return pieces


class AccessLog:
    """The observer that writes every exchange to *sink*."""

    def __init__(self, sink: LogSink) -> None:
        self._sink = sink
        self._lines = _Lines()
        self._batch: list[ExchangeFinished] = []
        self._encoded: list[bytes] = []
        self._encoded_lines = self._encoded_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def dropped(self) -> int:
        """How many lines were lost so far."""
        return self._sink.dropped

    def __call__(self, event: ExchangeFinished) -> None:
        """Take note of *event*, which is complete and will not change."""
        self._batch.append(event)
        if self._timer is None:
            self._timer = self._loop.call_later(BATCH_SECONDS, self.flush)
        elif len(self._batch) >= BATCH_LINES:
            self._encode()
            if self._encoded_bytes >= BATCH_BYTES:
                self.flush()

    def _encode(self) -> None:
        """Turn the events that have gathered into lines."""
        batch, self._batch = self._batch, []
        data, lost = self._lines.encode(batch)
        self._sink.dropped += lost
        self._encoded.append(data)
        self._encoded_bytes += len(data)
        self._encoded_lines += len(batch) - lost

    def flush(self) -> None:
        """Hand what has gathered to the sink."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._encode()
        data, lines = b"".join(self._encoded), self._encoded_lines
        self._encoded.clear()
        self._encoded_lines = self._encoded_bytes = 0
        if data:
            self._sink.put(data, lines)

    def reopen(self) -> None:
        """Start writing to a new file under the same name."""
        self.flush()
        self._sink.reopen()

    def close(self) -> None:
        """Write what is left."""
        self.flush()
        self._sink.close()
