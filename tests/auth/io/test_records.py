"""Finding a subject's sessions on a real server, with what strangers leave lying about."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from auth.io import records
from auth.io.records import CallAll, read_records, records_of, scan_digests
from auth.revocation import ended_key, index_key
from auth.session import digest, session_key
from tests.auth.io.conftest import Open
from tests.conftest import Valkey

pytestmark = pytest.mark.wire
Write = Callable[..., None]


@pytest.fixture
async def call_all(open_store: Open) -> CallAll:
    return (await open_store(worker=False))._call_all


@pytest.fixture
def write(valkey: Valkey) -> Write:
    def write_record(name: str, subject: str = "u1", ttl: float | None = 600.0) -> None:
        now = time.time()
        value = {"v": 1, "subject": subject, "created_at": now, "expires_at": now + 3600}
        px = None if ttl is None else round(ttl * 1000)
        valkey.client.set(session_key(name), json.dumps(value), px=px)

    return write_record


async def test_a_record_is_found_with_the_time_that_its_key_has_left(
    call_all: CallAll, write: Write
) -> None:
    write("a", ttl=600)
    write("b", ttl=None)
    a, b = await read_records(call_all, ["a", "b", "unknown"])
    assert (a.digest, a.record.subject) == ("a", "u1")
    assert 590 < a.ttl <= 600
    assert b.ttl < 0


async def test_what_is_no_record_does_not_hide_those_that_are(
    call_all: CallAll, write: Write, valkey: Valkey
) -> None:
    for name in ("first", "ended", "last"):
        write(name)
    valkey.client.set(ended_key("ended"), "logout")
    valkey.client.set(session_key("malformed"), '{"v":1}')
    valkey.client.rpush(session_key("list"), "x")
    names = ["first", "ended", "malformed", "list", "last"]
    assert [each.digest for each in await read_records(call_all, names)] == ["first", "last"]


async def test_many_records_are_read_in_pages_and_in_the_order_asked_for(
    call_all: CallAll, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_PAGE", 3)
    pages: list[int] = []

    async def counted(commands: Any) -> list[object]:
        pages.append(len(commands))
        return await call_all(commands)

    names = [f"{number:02}" for number in range(7)]
    for name in names:
        write(name)
    assert [each.digest for each in await read_records(counted, names)] == names
    assert pages == [9, 9, 3]


async def test_a_scan_finds_every_record_and_nothing_else(
    call_all: CallAll, write: Write, valkey: Valkey
) -> None:
    names = {digest(str(number)) for number in range(2500)}  # more than one step of the scan
    with valkey.client.pipeline() as pipeline:
        for name in names:
            pipeline.set(session_key(name), "{}")
            pipeline.set(ended_key(name), "logout")
        pipeline.execute()
    assert await scan_digests([call_all]) == names


async def test_sessions_that_only_the_index_or_only_a_scan_knows_are_found(
    call_all: CallAll, write: Write, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("indexed", "foreign"):
        write(name)
    write("another's", subject="u2")
    far = time.time() + 3600
    valkey.client.zadd(index_key("u1"), {"indexed": far, "another's": far, "vanished": far})
    found, complete = await records_of(call_all, [call_all], "u1", now=time.time())
    assert ({each.digest for each in found}, complete) == ({"indexed", "foreign"}, True)
    monkeypatch.setattr(records, "_MOST_SCANNED", 1)  # too large a store to look at everything
    found, complete = await records_of(call_all, [call_all], "u1", now=time.time())
    assert ({each.digest for each in found}, complete) == ({"indexed"}, False)


async def test_the_index_is_cleared_of_what_has_expired_and_of_nothing_else(
    call_all: CallAll, valkey: Valkey
) -> None:
    valkey.client.zadd(index_key("u1"), {"old": 99.0, "now": 100.0, "young": 101.0})
    valkey.client.zadd(index_key("u2"), {"old": 99.0})
    await records_of(call_all, [call_all], "u1", now=100.0)
    assert valkey.client.zrange(index_key("u1"), 0, -1) == [b"young"]
    assert valkey.client.zcard(index_key("u2")) == 1


async def test_a_member_of_the_index_that_is_no_text_harms_nobody(
    call_all: CallAll, write: Write, valkey: Valkey
) -> None:
    write("good")
    valkey.client.zadd(index_key("u1"), {b"\xff\xfe": time.time() + 60})
    found, _ = await records_of(call_all, [call_all], "u1", now=time.time())
    assert [each.digest for each in found] == ["good"]
