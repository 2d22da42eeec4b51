"""A relay between a gateway and the store that delays, cuts, or swallows either direction.

Swallowed bytes are kept, as TCP would keep them for retransmission: a black hole that is healed
delivers late, or never if the connection is cut first.
"""

import asyncio
from collections import deque
from collections.abc import Collection
from types import TracebackType
from typing import Literal, Self, cast

Direction = Literal["to_store", "from_store"]
BOTH: tuple[Direction, ...] = ("to_store", "from_store")


class _Pipe:
    """One direction of one connection: bytes come out in order, later, or not at all."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.held = False
        self.writer: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, data: bytes) -> None:
        if self.held or self.delay or self._waiting or self.writer is None:
            loop = asyncio.get_running_loop()
            self._waiting.append((loop.time() + self.delay, data))
            self.flush()
        else:
            self.writer.write(data)

    def flush(self) -> None:
        """Write what is due, and come back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.held or self.writer is None:
            return
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            self.writer.write(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0][0], self.flush)

    def drop(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()


class _Side(asyncio.Protocol):
    """One end of a relayed connection: what arrives here goes into *pipe*."""

    def __init__(self, pair: "Pair", pipe: _Pipe) -> None:
        self._pair = pair
        self._pipe = pipe

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._pair.joined(self, cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        self._pipe.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pair.cut()


class Pair:
    """One relayed connection."""

    def __init__(self, relay: "Relay") -> None:
        self._relay = relay
        self.pipes: dict[Direction, _Pipe] = {name: _Pipe() for name in BOTH}
        for name, pipe in self.pipes.items():
            pipe.delay = relay.delays[name]
            pipe.held = name in relay.held
        self.gateway_side = _Side(self, self.pipes["to_store"])
        self.store_side = _Side(self, self.pipes["from_store"])
        self._transports: list[asyncio.Transport] = []
        self._over = False

    def joined(self, side: _Side, transport: asyncio.Transport) -> None:
        if self._over:
            transport.abort()
            return
        self._transports.append(transport)
        toward = self.pipes["from_store" if side is self.gateway_side else "to_store"]
        toward.writer = transport
        toward.flush()
        if side is self.gateway_side:
            self._relay.reach_store(self)

    def cut(self) -> None:
        """Reset both ends."""
        self._over = True
        for pipe in self.pipes.values():
            pipe.drop()
        for transport in self._transports:
            transport.abort()
        self._relay.pairs.discard(self)


class Relay:
    """Listens on a port of its own and passes on to the store's *port*, until told otherwise."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.refuse = False
        self.delays: dict[Direction, float] = dict.fromkeys(BOTH, 0.0)
        self.held: set[Direction] = set()
        """Directions in which new connections let nothing through either."""
        self.pairs: set[Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def set_delay(self, seconds: float, directions: Collection[Direction] = BOTH) -> None:
        """Have what arrives from now on come out *seconds* later; also on new connections."""
        for direction in directions:
            self.delays[direction] = seconds
            for pair in self.pairs:
                pair.pipes[direction].delay = seconds

    def hold(
        self,
        directions: Collection[Direction],
        pairs: Collection[Pair] = (),
        *,
        also_new: bool = False,
    ) -> None:
        """Let nothing through on the connections there are now (or on *pairs* alone)."""
        if also_new:
            self.held.update(directions)
        for pair in tuple(pairs or self.pairs):
            for direction in directions:
                pair.pipes[direction].held = True

    def release(self, directions: Collection[Direction] = BOTH) -> None:
        """Deliver what was held."""
        self.held.difference_update(directions)
        for pair in tuple(self.pairs):
            for direction in directions:
                pair.pipes[direction].held = False
                pair.pipes[direction].flush()

    def cut(self) -> None:
        """Reset every connection."""
        for pair in tuple(self.pairs):
            pair.cut()

    def heal(self) -> None:
        """End every fault; what was held is lost with its connection, as after a long outage."""
        self.refuse = False
        self.held.clear()
        self.set_delay(0.0)
        for pair in tuple(self.pairs):
            if any(pipe.held for pipe in pair.pipes.values()):
                pair.cut()

    def reach_store(self, pair: Pair) -> None:
        """Connect the other end of *pair*."""
        task = asyncio.create_task(self._reach_store(pair))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _accept(self) -> asyncio.Protocol:
        pair = Pair(self)
        self.pairs.add(pair)
        return pair.gateway_side

    async def _reach_store(self, pair: Pair) -> None:
        if self.refuse:
            pair.cut()
            return
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: pair.store_side, "127.0.0.1", self.target)
        except OSError:
            pair.cut()
