"""How long a logout takes, and what it costs: `python -m benchmarks.revocation [--only NAME]`.

Two gateways of two workers each on one store, all on this machine; in the last part one worker's
store with 100,000 cached sessions. The figures are those of issue 4, "Seen to work".
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import redis.asyncio

from auth.io.session_store import RedisSessionStore, open_session_store
from auth.session import SessionRecord, digest, encode_record, new_cookie_value, session_key
from config.model import SessionSettings
from tests.end_to_end.running import Gateway
from tests.faults.fleet import LEASE, Fleet, Store, running_fleet

Figures = dict[str, object]


class Wire:
    """One keep-alive connection to a gateway, with as little of a client as will do."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, method: str, path: str, cookie: str) -> tuple[int, bytes]:
        """Send a request without content; return status and content of the answer."""
        authority = self._gateway.url.removeprefix("http://")
        host, _, port = authority.partition(":")
        if self._streams is None:
            self._streams = await asyncio.open_connection(host, int(port))
        reader, writer = self._streams
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: {authority}\r\nCookie: doorward={cookie}\r\n"
            f"Origin: {self._gateway.url}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:] if line)
        }
        content = await reader.readexactly(int(fields["content-length"]))
        return int(head.split(" ", 2)[1]), content

    async def is_admitted(self, cookie: str) -> bool:
        """Tell whether a request with the session *cookie* gets through."""
        return (await self.send("GET", "/x", cookie))[0] == 200

    async def log_out(self, cookie: str) -> tuple[float, dict[str, float]]:
        """Log out; return the milliseconds that took and what the answer said."""
        began = time.perf_counter()
        status, content = await self.send("POST", "/.doorward/logout", cookie)
        took = (time.perf_counter() - began) * 1000
        assert status == 200, content
        return took, json.loads(content)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the figures of *values* that are worth telling, in milliseconds."""
    cuts = statistics.quantiles(values, n=100)
    named = {"p50": cuts[49], "p99": cuts[98], "max": max(values)}
    return {name: round(value, 2) for name, value in named.items()}


async def write_session(client: "redis.asyncio.Redis") -> str:
    """Write a session as a login service does; return its cookie value."""
    cookie, now = new_cookie_value(), time.time()
    record = SessionRecord(1, "u1", now, now + 3600)
    await client.set(session_key(digest(cookie)), encode_record(record), ex=3600)
    return cookie


async def healthy(fleet: Fleet, *, logouts: int = 500) -> Figures:
    """Everybody well: above a plain DEL's round trip, and everybody acknowledges."""
    wires = [Wire(gateway) for gateway in fleet.gateways for _ in range(4)]
    plain, taken, unconfirmed, wrong = [], [], 0, 0
    for number in range(logouts):
        cookie, other = [await write_session(fleet.direct) for _ in range(2)]
        for wire in wires:
            assert await wire.is_admitted(cookie)
        began = time.perf_counter()
        await fleet.direct.delete(session_key(digest(other)))
        plain.append((time.perf_counter() - began) * 1000)
        took, said = await wires[number % len(wires)].log_out(cookie)
        taken.append(took)
        unconfirmed += said["acknowledged"] != said["of"] or said["of"] != 4
        for wire in wires:
            wrong += await wire.is_admitted(cookie)
    for wire in wires:
        wire.close()
    above = [took - statistics.median(plain) for took in taken]
    figures: Figures = {"plain_del_ms": spread(plain), "logout_above_del_ms": spread(above)}
    return figures | {"unconfirmed": unconfirmed, "wrongly_admitted": wrong}


async def stopped_worker(fleet: Fleet, *, rounds: int = 8) -> Figures:
    """One worker under SIGSTOP: the logout waits for its lease, and it admits nothing after."""
    taken, wrong, told = [], 0, 0
    for number in range(rounds):
        cookie = await write_session(fleet.direct)
        # Connections to every worker, so that the stopped one has a copy and gets requests after.
        wires = [Wire(gateway) for gateway in fleet.gateways for _ in range(12)]
        await asyncio.gather(*(wire.is_admitted(cookie) for wire in wires))
        process = (await fleet.workers())[number % 4]
        os.kill(process, signal.SIGSTOP)
        try:
            answering = await _first_that_answers(wires, cookie)
            took, said = await answering.log_out(cookie)
        finally:
            os.kill(process, signal.SIGCONT)
        taken.append(took)
        told += said["acknowledged"] == said["of"] - 1
        wrong += sum(await asyncio.gather(*(wire.is_admitted(cookie) for wire in wires)))
        for wire in wires:
            wire.close()
        await asyncio.sleep(LEASE)
    bound = LEASE * 1000 + 100
    return {
        "logout_ms": spread(taken),
        "bound_ms": bound,
        "within_bound": sum(took <= bound for took in taken),
        "said_that_one_was_silent": told,
        "of": rounds,
        "wrongly_admitted": wrong,
    }


async def _first_that_answers(wires: list[Wire], cookie: str) -> Wire:
    """Return a connection whose worker runs; those of the stopped one are taken off *wires*."""
    for wire in tuple(wires):
        try:
            async with asyncio.timeout(0.2):
                await wire.is_admitted(cookie)
        except TimeoutError:
            wire.close()
            wires.remove(wire)
        else:
            return wire
    raise AssertionError("all workers are stopped")


async def store_gone(fleet: Fleet, *, seconds: float = 5.0) -> Figures:
    """The server is killed and comes back after *seconds*; what ended before does not."""
    good, ended = [await write_session(fleet.direct) for _ in range(2)]
    wires = [Wire(gateway) for gateway in fleet.gateways for _ in range(4)]
    for wire in wires:
        assert await wire.is_admitted(good)
        assert await wire.is_admitted(ended)
    await wires[0].log_out(ended)
    os.kill(fleet.store.pid, signal.SIGKILL)
    gone_at = time.monotonic()
    statuses: dict[int, int] = {}
    wrong = late = 0
    while (now := time.monotonic()) < gone_at + seconds:
        for wire in wires:
            wrong += await wire.is_admitted(ended)
            status, _ = await wire.send("GET", "/x", good)
            statuses[status] = statuses.get(status, 0) + 1
            late += status == 200 and now > gone_at + LEASE + 0.1
        await asyncio.sleep(0.02)
    fleet.store.start()
    back_at = time.monotonic()
    recovered = []
    for wire in wires:
        while not await wire.is_admitted(good):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.005)
        recovered.append(time.monotonic() - back_at)
        wrong += await wire.is_admitted(ended)
        wire.close()
    return {
        "statuses_while_gone": statuses,
        "admitted_later_than_a_lease": late,
        "recovered_after_ms": round(max(recovered) * 1000, 1),
        "wrongly_admitted": wrong,
    }


async def many_sessions(
    url: str, *, sessions: int = 100_000, rate: int = 1000, seconds: int = 5
) -> Figures:
    """Hold *sessions* copies while *rate* of them are logged out a second."""
    settings = SessionSettings(cookie_name="doorward", secure=False, lease=0.5)
    holder = await open_session_store(url, settings, worker=True)
    ender = await open_session_store(url, settings, worker=True)
    client = redis.asyncio.Redis.from_url(url, protocol=2)
    names = [digest(new_cookie_value()) for _ in range(sessions)]
    now = time.time()
    for start in range(0, sessions, 500):
        pipeline = client.pipeline(transaction=False)
        for name in names[start : start + 500]:
            record = SessionRecord(1, f"u{name[:8]}", now, now + 3600)
            pipeline.set(session_key(name), encode_record(record), ex=3600)
        await pipeline.execute()
        for name in names[start : start + 500]:
            await holder.find(name)
    held = holder.status()["entries"]
    before = list(holder.lag.counts)
    taken: list[float] = []
    wrong = 0

    async def log_out(name: str) -> None:
        nonlocal wrong
        await holder.find(name)
        began = time.perf_counter()
        await ender.end(name, reason="logout")
        wrong += holder.peek(name) is not None
        taken.append((time.perf_counter() - began) * 1000)

    running: set[asyncio.Task[None]] = set()
    began = time.monotonic()
    for number, name in enumerate(names[: rate * seconds]):
        if (pause := began + number / rate - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        elif not number % 20:
            await asyncio.sleep(0)
        running.add(task := asyncio.create_task(log_out(name)))
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    took = time.monotonic() - began
    lag = [after - count for after, count in zip(holder.lag.counts, before, strict=True)]
    await client.aclose()
    for store in (holder, ender):
        await store.close()
    return {
        "cached_sessions": held,
        "logouts_a_second": round(rate * seconds / took),
        "logout_ms": spread(taken),
        "invalidation_lag_p99_at_most_ms": _bound_of(holder, lag, 0.99),
        "wrongly_admitted": wrong,
    }


def _bound_of(store: RedisSessionStore, counts: Sequence[int], part: float) -> float:
    """Return the bound of the histogram's bucket in which *part* of all is reached, in ms."""
    wanted, seen = part * sum(counts), 0
    for count, bound in zip(counts, (*store.lag.bounds, float("inf")), strict=True):
        seen += count
        if seen >= wanted:
            return bound * 1000
    return float("inf")


ON_A_FLEET: dict[str, Callable[[Fleet], Awaitable[Figures]]] = {
    "healthy": healthy,
    "stopped_worker": stopped_worker,
    "store_gone": store_gone,
}


async def measure(only: str) -> None:
    """Run the parts and print their figures, a line of JSON each."""
    with tempfile.TemporaryDirectory(prefix="doorward-revocation-") as directory:
        for name, part in ON_A_FLEET.items():
            if only in ("", name):
                home = Path(directory, name)
                home.mkdir()  # noqa: ASYNC240 - nothing runs yet
                async with running_fleet(home, relayed=False) as fleet:
                    print(json.dumps({name: await part(fleet)}), flush=True)
        if only in ("", "many_sessions"):
            store = Store(Path(directory, "many"))
            url = store.start()
            try:
                print(json.dumps({"many_sessions": await many_sessions(url)}), flush=True)
            finally:
                store.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", choices=["", *ON_A_FLEET, "many_sessions"])
    asyncio.run(measure(parser.parse_args().only))
