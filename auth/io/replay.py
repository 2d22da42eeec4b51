"""Which server this is, and telling it again what ended: a replica may not have heard of it.

A failover may lose the last writes (Redis replicates without waiting). Who remembers them writes
them once more, before anything is read from the new server.
"""

import asyncio
from collections.abc import Iterable
from itertools import islice

from auth.io.connection import Command, Connection, Reply
from auth.io.link import PATIENCE
from auth.io.scripts import EPOCH, MARK
from auth.ports import AuthUnavailable
from auth.revocation import (
    LONGEST_SESSION,
    Epoch,
    bucket_key,
    bucket_of,
    ended_key,
    epoch_key,
    revoked_key,
)
from auth.session import session_key

# Milliseconds; more than lies between the writing of a mark and of what it stands for.
_MARK_LONGER = 60_000
PAGE = 500
"""Commands that are sent before their answers are waited for."""


async def identify(connection: Connection) -> tuple[tuple[bytes, bytes], int]:
    """Return the server's run and replication ids, and its uptime in seconds.

    Raises:
        AuthUnavailable: it is a replica.
    """
    fields: dict[bytes, bytes] = {}
    for section in ("server", "replication"):
        async with asyncio.timeout(PATIENCE):
            info = await connection.call("INFO", section, expect=bytes)
        assert isinstance(info, bytes)
        fields.update(
            (name, value)
            for name, colon, value in (line.partition(b":") for line in info.splitlines())
            if colon
        )
    if fields.get(b"role") == b"slave":
        raise AuthUnavailable("the server is a replica: the store needs its primary")
    identity = (fields.get(b"run_id", b""), fields.get(b"master_replid", b""))
    return identity, int(fields.get(b"uptime_in_seconds", b"0"))


def over_again(name: str, seconds: float) -> tuple[Command, ...]:
    """Return what tells a server that the session or the token *name* is over."""
    milliseconds = max(1, min(int(seconds), LONGEST_SESSION) * 1000)
    return (
        ("DEL", session_key(name)),
        ("SET", ended_key(name), "replayed", "PX", milliseconds),
        mark(name, milliseconds),
        ("SET", revoked_key(name), "replayed", "PX", milliseconds),
    )


def epoch_again(name: str, epoch: Epoch) -> tuple[Command, ...]:
    """Return what tells a server of *epoch*."""
    command = ("EVAL", EPOCH, 1, epoch_key(name), epoch.at, epoch.keep, LONGEST_SESSION)
    return mark(name, LONGEST_SESSION * 1000), command


async def send_all(connection: Connection, commands: Iterable[Command]) -> None:
    """Run *commands*, any number, and do not care for their answers.

    Raises:
        StoreLost: the connection broke.
        TimeoutError: the server takes too long for a part of them.
    """
    pages = iter(commands)
    while page := tuple(islice(pages, 2 * PAGE)):
        for command in page:
            connection.send(command, ignore)
        async with asyncio.timeout(PATIENCE):
            await connection.call("PING")


def mark(name: str, milliseconds: int) -> Command:
    """Return what marks the bucket of *name*; the mark lives longer than what it stands for."""
    return ("EVAL", MARK, 1, bucket_key(bucket_of(name)), milliseconds + _MARK_LONGER)


def ignore(reply: Reply) -> None:
    """Take an answer that nobody needs."""
    del reply
