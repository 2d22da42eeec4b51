"""Finding the sessions of a subject: an index of ours, and a look at every record.

The index (a sorted set per subject) knows the sessions that were made or used through a gateway. A
record that another service wrote and nobody has used yet is found by scanning, as long as the store
is small enough for that. Neither is what an ending rests on: that is the epoch, which no index can
miss. They give the number, the list, and the sessions whose writer's clock runs ahead of ours.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from auth.io.connection import Command, Reply
from auth.revocation import ended_key, index_key
from auth.session import MalformedRecord, SessionRecord, parse_record, session_key

# About 50 ms of a local store's time; beyond, the index alone answers.
_MOST_SCANNED = 100_000
_PAGE = 500
"""Records read in one go."""

CallAll = Callable[[Sequence[Command]], Awaitable[list[Reply]]]


class Stored(NamedTuple):
    """A record as it stands in the store."""

    digest: str
    record: SessionRecord
    ttl: float
    """Seconds to live, negative: without limit."""


async def read_records(call_all: CallAll, digests: Sequence[str]) -> list[Stored]:
    """Return those of *digests* that have a record that can be read, and no tombstone."""
    found: list[Stored] = []
    for start in range(0, len(digests), _PAGE):
        page = digests[start : start + _PAGE]
        commands: list[Command] = []
        for name in page:
            record, tombstone = session_key(name), ended_key(name)
            # MGET: a key that holds no string must not stand in the way of the others.
            commands += [("MGET", record), ("PTTL", record), ("EXISTS", tombstone)]
        replies = await call_all(commands)
        for number, name in enumerate(page):
            values, ttl, ended = replies[3 * number : 3 * number + 3]
            assert isinstance(values, list)
            if isinstance(values[0], bytes) and isinstance(ttl, int) and not ended:
                record_or_none = read_record(values[0])
                if record_or_none is not None:
                    found.append(Stored(name, record_or_none, ttl / 1000))
    return found


async def records_of(
    call_all: CallAll, scans: Sequence[CallAll], subject: str, *, now: float
) -> tuple[list[Stored], bool]:
    """Return the records of *subject* that were found, and whether those are all there were.

    *scans* call commands about all keys, each at one server.
    Clears the index of what has expired.
    """
    key = index_key(subject)
    _, indexed = await call_all([("ZREMRANGEBYSCORE", key, "-inf", now), ("ZRANGE", key, 0, -1)])
    assert isinstance(indexed, list)
    digests = {name.decode("utf-8", "replace") for name in indexed}
    complete = await _size(scans) <= _MOST_SCANNED
    if complete:
        digests.update(await scan_digests(scans))
    stored = await read_records(call_all, sorted(digests))
    return [each for each in stored if each.record.subject == subject], complete


async def _size(scans: Sequence[CallAll]) -> int:
    sizes = [size for scan in scans for size in await scan([("DBSIZE",)])]
    return sum(size for size in sizes if isinstance(size, int))


async def scan_digests(scans: Sequence[CallAll]) -> set[str]:
    """Return the digest of every record in the store."""
    digests: set[str] = set()
    for scan in scans:
        await _scan_one(scan, digests)
    return digests


async def _scan_one(scan: CallAll, digests: set[str]) -> None:
    pattern = session_key("*")
    begin, end = pattern.encode().split(b"*")
    cursor: bytes = b"0"
    while True:
        (reply,) = await scan([("SCAN", cursor, "MATCH", "doorward:session:*", "COUNT", 1000)])
        assert isinstance(reply, list)
        cursor, keys = reply
        digests.update(key[len(begin) : -len(end)].decode("utf-8", "replace") for key in keys)
        if cursor == b"0":
            return


def read_record(value: object) -> SessionRecord | None:
    """Return the record that *value* is; None if it is none."""
    try:
        return parse_record(value) if isinstance(value, bytes) else None
    except MalformedRecord:
        return None
