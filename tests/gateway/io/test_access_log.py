import json
import os
import threading
from pathlib import Path

import pytest

from gateway.events import ExchangeFinished
from gateway.io.access_log import PIPE_WRITE, AccessLog, LogSink, _pieces

CONTRACT_KEYS = [
    *("time", "request_id", "method", "host", "path", "status", "duration_ms", "route"),
    *("upstream", "subject", "tenant", "auth", "decision", "reason", "generation"),
    *("bytes_in", "bytes_out", "remote", "error"),
]


def event(path: str = "/notes/1") -> ExchangeFinished:
    return ExchangeFinished(
        started_at=1_795_343_460.1239,
        duration=0.0123456,
        request_id="r1",
        method="GET",
        host="a.example",
        path=path,
        status=200,
        route="notes",
        upstream="notes",
        subject="u1",
        tenant="acme",
        auth="session",
        decision="allow",
        reason="allowed",
        generation=3,
        bytes_in=0,
        bytes_out=12,
        remote="127.0.0.1",
    )


async def test_a_line_has_the_keys_of_the_contract_in_their_order(tmp_path: Path) -> None:
    log = AccessLog(LogSink(str(tmp_path / "access.jsonl")))
    log(event())
    log.close()
    (line,) = (tmp_path / "access.jsonl").read_text().splitlines()
    written = json.loads(line)
    assert list(written) == CONTRACT_KEYS
    assert written["time"] == "2026-11-22T10:31:00.123Z"
    assert written["duration_ms"] == 12.346
    assert written["error"] == ""


async def test_a_line_that_stands_for_many_says_for_how_many(tmp_path: Path) -> None:
    log = AccessLog(LogSink(str(tmp_path / "access.jsonl")))
    shed = event()
    shed.times = 3
    log(shed)
    log.close()
    written = json.loads((tmp_path / "access.jsonl").read_text())
    assert list(written) == [*CONTRACT_KEYS, "times"]
    assert written["times"] == 3


@pytest.mark.parametrize(
    "path",
    ['/a"b', "/a\nb", "/\x1b[31m", "/\xff", "/\u2028"],
    ids=["quote", "newline", "escape", "latin-1", "line-separator"],
)
async def test_no_path_can_forge_a_line(tmp_path: Path, path: str) -> None:
    log = AccessLog(LogSink(str(tmp_path / "log")))
    log(event(path))
    log.close()
    content = (tmp_path / "log").read_bytes()
    assert content.count(b"\n") == 1
    assert not any(byte < 0x20 for byte in content[:-1])
    assert json.loads(content)["path"] == path


async def test_a_query_string_never_gets_into_the_log(tmp_path: Path) -> None:
    log = AccessLog(LogSink(str(tmp_path / "log")))
    log(event("/reset?token=canary"))
    log.close()
    assert "canary" not in (tmp_path / "log").read_text()


async def test_an_event_that_cannot_be_written_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    log = AccessLog(LogSink(str(tmp_path / "log")))
    log(event("/\ud800"))
    log(event("/fine"))
    log.close()
    assert log.dropped == 1
    assert json.loads((tmp_path / "log").read_text())["path"] == "/fine"


async def test_a_reader_that_stands_still_costs_lines_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.io.access_log.PENDING_BYTES", 256 * 1024)
    monkeypatch.setattr("gateway.io.access_log.BATCH_BYTES", 32 * 1024)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(LogSink(str(pipe)))
    written = 4000
    for _ in range(written):
        log(event())
    log.flush()
    assert log.dropped > 0
    # Once somebody reads again, every line that was kept comes out whole.
    os.set_blocking(reader, True)
    lines: list[bytes] = []
    done = threading.Thread(target=log.close)
    with os.fdopen(reader, "rb") as stream:
        done.start()
        lines = list(stream)
    done.join()
    assert len(lines) == written - log.dropped > 0
    assert all(json.loads(line)["status"] == 200 for line in lines)


async def test_many_lines_do_not_wait_for_the_timer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.io.access_log.BATCH_SECONDS", 3600)
    monkeypatch.setattr("gateway.io.access_log.BATCH_BYTES", 100_000)
    sink = LogSink(str(tmp_path / "log"))
    log = AccessLog(sink)
    for number in range(2000):
        log(event(f"/{number}"))
    sink.close()
    written = (tmp_path / "log").read_text().splitlines()
    assert len(written) > 1000
    paths = [json.loads(line)["path"] for line in written]
    assert paths == [f"/{number}" for number in range(len(written))]


async def test_a_rotated_file_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AccessLog(LogSink(str(path)))
    log(event("/before"))
    log.flush()
    path.rename(tmp_path / "log.1")
    log.reopen()
    log(event("/after"))
    log.close()
    # The line before may be in either file, depending on when the thread got to it.
    assert json.loads(path.read_text().splitlines()[-1])["path"] == "/after"


async def test_the_log_is_not_for_everybody_on_the_machine(tmp_path: Path) -> None:
    log = AccessLog(LogSink(str(tmp_path / "log")))
    log.close()
    assert (tmp_path / "log").stat().st_mode & 0o007 == 0


def test_a_batch_for_a_pipe_is_cut_between_lines() -> None:
    lines = [b"x" * length + b"\n" for length in (1000, 3000, 3095, 10, 5000, 20)]
    pieces = _pieces(b"".join(lines))
    assert b"".join(pieces) == b"".join(lines)
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert all(len(piece) <= PIPE_WRITE or piece.count(b"\n") == 1 for piece in pieces)
