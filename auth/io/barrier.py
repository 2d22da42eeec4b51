"""Telling every worker of an ending, and knowing when none of them can admit it any more.

How this works. The registry (`doorward:workers`) has a field for every worker that may hold a
lease: a worker writes it with the very command whose reply grants the lease. So after an ending
was executed, whoever reads the registry sees every worker that could still use an older copy:

- a worker that acknowledges the broadcast has dropped its copy, and will read anew;
- a worker that is silent has no lease left when one lease has passed since the ending: a later
  lease comes with the reply to a beat that was executed after the ending, and before that reply on
  the same connection come the invalidations.

Clocks of different machines are never compared, only durations. A silent worker whose field did not
move while a whole lease was waited out is taken off the list; its next beat puts it back.

The registry can be lost (FLUSHALL, a restart from an older file). While the list is younger than
a lease, or the server behind the connection has just been started or exchanged, it proves nothing,
and the lease is waited out in full.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection

import hiredis
import msgspec

from auth.io.connection import Command, Connection, Reply, StoreLost, boottime
from auth.io.link import Link
from auth.io.scripts import BROADCAST, FORGET
from auth.ports import AuthUnavailable
from auth.revocation import ENDED_CHANNEL, WORKERS_KEY

# For what lies between the lease's arithmetic and the request it admits: clock rates differ by some
# millionths, and a decision is made right after the clock was read.
MARGIN = 0.02
_BIRTH = b"~"


class Ending(msgspec.Struct):
    """The message that goes to every worker."""

    barrier: str
    reply_to: str
    """The channel for the acknowledgement."""
    sent_at: float
    """Epoch seconds by the sender's clock, for the lag histogram only."""
    names: dict[str, float] = {}
    """Sessions and tokens that are over, with the seconds for which that matters."""
    epochs: dict[str, str] = {}
    """Epochs by name, encoded."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Ending).decode


def read_ending(message: bytes) -> Ending | None:
    """Read a broadcast; None if it is no message of ours."""
    try:
        return _decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_workers(reply: Reply) -> tuple[dict[bytes, bytes], float]:
    """Read the answer to `scripts.BROADCAST`: the workers, and the age of their list in seconds."""
    assert isinstance(reply, list)
    flat, age = reply
    workers = dict(zip(flat[::2], flat[1::2], strict=True))
    return {name: value for name, value in workers.items() if name != _BIRTH}, age / 1000


class _Round:
    """One broadcast that waits for its acknowledgements."""

    def __init__(self) -> None:
        self.acknowledged: set[bytes] = set()
        self.news = asyncio.Event()


class Barrier:
    """Sends endings over *link* and waits until they are in force everywhere."""

    def __init__(self, link: Link, *, name: str, lease: float) -> None:
        self._link = link
        self._name = name
        self._lease = lease
        self._rounds: dict[bytes, _Round] = {}
        self._count = 0
        self.longest = lease
        """Seconds of the longest lease that a worker had when they were asked last."""
        self.uncertain_until = 0.0
        """Until then (boot clock) the registry may lack workers that hold a lease."""

    @property
    def channel(self) -> str:
        """The channel on which acknowledgements come back."""
        return f"doorward:acknowledged:{self._name}"

    def on_push(self, push: list[object]) -> None:
        """Take an acknowledgement: `<barrier> <worker>`."""
        if push[0] == b"message" and isinstance(push[2], bytes):
            barrier, _, worker = push[2].partition(b" ")
            if waiting := self._rounds.get(barrier):
                waiting.acknowledged.add(worker)
                waiting.news.set()

    def doubt_registry(self, *, for_seconds: float) -> None:
        """The server behind the link is a new one: its registry proves nothing for a while."""
        self.uncertain_until = max(self.uncertain_until, boottime() + for_seconds)

    async def broadcast(
        self, names: dict[str, float], epochs: dict[str, str], *, sent_at: float
    ) -> tuple[int, int]:
        """Return (acknowledged, of) once no worker can admit *names* or what *epochs* cover.

        What they name must have been executed in the store before the call.

        Raises:
            AuthUnavailable: the workers could not be told, or it is not known who they are.
        """
        workers, silent = await self.tell(names, epochs, sent_at=sent_at)
        return len(workers) - len(silent), len(workers)

    async def tell(
        self, names: dict[str, float], epochs: dict[str, str], *, sent_at: float
    ) -> tuple[Collection[bytes], Collection[bytes]]:
        """Do what `broadcast` does, and return every worker and those of them that were silent."""
        self._count += 1
        number = f"{self._name}:{self._count}"
        ending = Ending(number, self.channel, sent_at, names, epochs)
        waiting = self._rounds[number.encode()] = _Round()
        try:
            workers, age = await self._tell(_encode(ending))
            silent = await self._wait(waiting, workers, age, executed_at=boottime())
        finally:
            del self._rounds[number.encode()]
        if silent:
            self._forget(silent)
        return workers.keys(), silent.keys()

    async def _tell(self, message: bytes) -> tuple[dict[bytes, bytes], float]:
        """Publish and read the registry, in one step. Repeating it does no harm."""
        command = ("EVAL", BROADCAST, 1, WORKERS_KEY, ENDED_CHANNEL, message)
        return read_workers(await call_twice(self._link.ready, command))

    async def _wait(
        self, waiting: _Round, workers: dict[bytes, bytes], age: float, *, executed_at: float
    ) -> dict[bytes, bytes]:
        """Wait for everybody, or their leases' end; return the workers that stayed silent."""
        self.longest = max([self._lease, *map(self._lease_in, workers.values())])
        longest = self.longest + MARGIN
        uncertain = max(longest - age, self.uncertain_until - executed_at)
        until = executed_at + min(uncertain, longest)
        if until > boottime():  # a registry that may lack somebody: wait in full
            await asyncio.sleep(until - boottime())
        while silent := {n: v for n, v in workers.items() if n not in waiting.acknowledged}:
            until = executed_at + max(map(self._lease_in, silent.values())) + MARGIN
            if boottime() >= until:
                return silent
            waiting.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(until - boottime()):
                    await waiting.news.wait()
        return {}

    def _lease_in(self, value: bytes) -> float:
        """Return the seconds in a registry value `<beat> <lease ms>`; ours if it has none."""
        lease = value.partition(b" ")[2]
        return int(lease) / 1000 if lease.isdigit() else self._lease

    def _forget(self, silent: dict[bytes, bytes]) -> None:
        pairs = [part for item in silent.items() for part in item]
        registry = self._registry
        if self._link.connection is not None and registry is not None:
            with contextlib.suppress(StoreLost):
                self._link.connection.send(("EVAL", FORGET, 1, registry, *pairs), lambda _: None)

    @property
    def _registry(self) -> str | None:
        """The key of the registry of workers."""
        return WORKERS_KEY


async def call_twice(ready: Callable[[], Awaitable[Connection]], command: Command) -> Reply:
    """Call an idempotent *command*, and once more if the connection broke meanwhile.

    Raises:
        AuthUnavailable: no answer within the link's patience, or an error for an answer.
    """
    for last in (False, True):
        connection = await ready()
        try:
            return await connection.call(*command)
        except StoreLost as error:
            if last:
                raise AuthUnavailable("the session store was lost twice in a row") from error
        except hiredis.ReplyError as error:
            raise AuthUnavailable(f"the session store answered an error: {error}") from error
    raise AssertionError
