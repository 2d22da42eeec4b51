"""How much memory it takes: connections, WebSockets, sessions; and which sessions stay."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hiredis import pack_command

from auth.session import SessionRecord, digest, encode_record, session_key
from benchmarks.measure import (
    OTHER_CORE,
    pinned,
    resident_bytes,
)
from benchmarks.row import (
    HEAD,
    PATH,
    ROUTES,
    SIGNED_IN,
    USUAL,
    Asked,
    Effort,
    Row,
    client,
    gateway,
    load,
    metric,
    own_backend,
    warm,
)
from benchmarks.stage import Stage, wait_until_it_answers


def idle_memory(stage: Stage, effort: Effort) -> Iterator[Row]:
    """Memory that an idle keep-alive connection and an idle WebSocket take."""
    with own_backend(stage) as other:
        for name, path, websocket, count, target in (
            ("idle keep-alive connection", "/public/x", False, effort.connections, 10.0),
            ("idle WebSocket", "/other/ws", True, effort.connections // 4, 24.0),
        ):
            usual = {**USUAL, "other": other}
            with gateway(stage, HEAD + ROUTES, **usual) as (port, pid):
                wait_until_it_answers(f"http://127.0.0.1:{port}{PATH}", SIGNED_IN)
                client("rate", port=port, path=PATH, fields=SIGNED_IN, rate=500, seconds=2,
                       connections=64)  # fmt: skip
                before = resident_bytes(pid)
                arguments = {
                    "port": port,
                    "path": path,
                    "fields": SIGNED_IN if websocket else {},
                    "count": count,
                    "websocket": websocket,
                    "seconds": 12,
                }
                command = [sys.executable, "-m", "benchmarks.clients", "hold"]
                holding = subprocess.Popen(
                    pinned([*command, json.dumps(arguments)], OTHER_CORE),
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert holding.stdout is not None
                if holding.stdout.readline() != "held\n":
                    raise RuntimeError(f"could not hold {count} connections")
                time.sleep(6)
                each = (resident_bytes(pid) - before) / count / 1024
                holding.communicate()
            yield Row(f"memory of an {name}", each, "KiB", target, note=f"{count} of them")


def session_memory(stage: Stage, effort: Effort) -> Iterator[Row]:
    """Memory that a cached session takes, that the bound is kept, and which sessions stay.

    First one session after the other is used until the cache is full: all that has grown by then is
    the sessions', also what is remembered of those that were used last (permits, assertions). Then
    a fifth of the requests are of a hot thousand, the others of one session after the other, until
    a third as many have been dropped as the cache holds. The hot ones must still be there.
    """
    store_sessions(stage.store, effort.sessions)
    directory = stage.ground().directory
    directory.mkdir(parents=True)
    once, flood, hot = (
        _sessions_in_use(directory / f"{share}.lua", share=share, total=effort.sessions)
        for share in (0, 0.2, 1)
    )
    with gateway(stage, HEAD + ROUTES, **{**USUAL, "cached": effort.cached}) as (port, pid):
        wait_until_it_answers(f"http://127.0.0.1:{port}{PATH}", SIGNED_IN)
        warm(port)

        def use(script: str, until: Callable[[], bool]) -> None:
            end = time.monotonic() + FLOOD_SECONDS
            while not until():
                if time.monotonic() > end:
                    raise RuntimeError(f"the cache never overflowed in {FLOOD_SECONDS:.0f} s")
                load(Asked(port, pid, "/mine/x", {}, script), 2)

        before = resident_bytes(pid)
        use(once, lambda: metric(pid, _EVICTIONS) > 0)
        full = resident_bytes(pid) - before
        load(Asked(port, pid, "/mine/x", {}, hot), 2)
        so_far = metric(pid, _EVICTIONS)
        use(flood, lambda: metric(pid, _EVICTIONS) > so_far + effort.cached / 3)
        evicted, held = metric(pid, _EVICTIONS) - so_far, metric(pid, _ENTRIES)
        missed = metric(pid, _MISSES)
        asked = load(Asked(port, pid, "/mine/x", {}, hot), 2).requests
        missed = metric(pid, _MISSES) - missed
    note = f"{effort.sessions:,} in the store, cache of {effort.cached:,} (`session.cache_size`)"
    yield Row("memory of a cached session", full / effort.cached / 1024, "KiB", 2, note=note)
    yield Row("sessions held / the bound", held / effort.cached, "x", 1, note=f"{held:,.0f} held")
    note = f"of {HOT:,} in use; {evicted:,.0f} evictions before, {asked:,} requests after"
    yield Row("hot sessions that stay", 1 - missed / HOT, "", 0.95, at_least=True, note=note)


_ENTRIES, _EVICTIONS, _MISSES = (
    f"doorward_session_cache_{name}" for name in ("entries", "evictions_total", "misses_total")
)
FLOOD_SECONDS = 200.0
"""A quiet machine needs 30 at most; one that is in use has the time too."""
HOT = 1000


def _sessions_in_use(script: Path, *, share: float, total: int) -> str:
    """Write a script of wrk whose requests are to *share* of the hot sessions; return its path."""
    script.write_text(_SESSIONS_IN_USE.format(share=share, hot=HOT, total=total))
    return str(script)


_SESSIONS_IN_USE = """\
math.randomseed(os.time())
local at = math.random({total})
request = function()
  local number = math.random({hot}) - 1
  if math.random() > {share} then at = (at + 1) % {total}; number = at end
  wrk.headers["Cookie"] = string.format("doorward=many-%028d-abcdef", number)
  return wrk.format()
end
"""


def store_sessions(
    port: int, count: int, *, cookie: str = "many-{:028d}-abcdef", subject: str = "{:020d}"
) -> None:
    """Write *count* sessions, each of somebody else: tens of thousands in a second.

    *cookie* and *subject* take the number.
    """
    now = time.time()
    record = encode_record(
        SessionRecord(
            v=1, subject=_SOMEBODY, name="Ada Lovelace", tenant="acme", roles=("editor", "member"),
            scopes=("notes.read",), created_at=now, expires_at=now + 86_400,
        )
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", port)) as store:
        for start in range(0, count, 2000):
            commands, stop = [], min(start + 2000, count)
            for number in range(start, stop):
                key = session_key(digest(cookie.format(number)))
                value = record.replace(_SOMEBODY.encode(), subject.format(number).encode())
                command = ("SET", key, value, "EX", 43_200)
                # hiredis' stub asks for a tuple of one
                commands.append(pack_command(command))  # type: ignore[arg-type]
            store.sendall(b"".join(commands))
            expected, replies = b"+OK\r\n" * (stop - start), b""
            while len(replies) < len(expected):
                replies += store.recv(65536)
            if replies != expected:
                raise RuntimeError(f"the store does not take sessions: {replies[:100]!r}")


_SOMEBODY = "somebody-of-a-million"
