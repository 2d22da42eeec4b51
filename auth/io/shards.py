"""The shards of a cluster: which primary has which slots, and commands that find their way.

How this works. The map (CLUSTER SLOTS of any server that answers) says where to send things. It is
a hint and no more: a server that does not own a slot says so (MOVED), and what a worker may believe
of a shard is what that shard's own beats say (`sharded_reader`). So a stale map costs a detour and
never a promise. It is read again when a server redirects us, when a link breaks or a server's
claims change, five times a second while a shard cannot be reached, and every few seconds.

`call` follows redirections, so that what is written reaches the slot's owner while slots are being
moved: MOVED to the new owner; ASK to the importing one, for this command; TRYAGAIN in a moment.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import hiredis
from msgspec.structs import replace

from auth.io.address import StoreAddress
from auth.io.connection import Command, Connection, Reply, StoreLost, boottime
from auth.io.link import PATIENCE, Link, open_connection
from auth.io.session_cache import Lease
from auth.io.tasks import stop
from auth.ports import AuthUnavailable
from auth.slots import (
    NO_CLAIMS,
    SLOTS,
    ClusterAnswerError,
    Primary,
    Redirect,
    key_of,
    parse_redirect,
    parse_slots,
    slot_of,
)

if TYPE_CHECKING:
    from auth.io.barrier import Barrier

_LOOK_EVERY = 5.0
"""Seconds between two looks at the map when all is well."""
_LOOK_EVERY_IN_TROUBLE = 0.2
"""The same while a shard is not reached."""
_LEAST_PAUSE = 0.05
"""Seconds between two looks, however many ask for one."""
_LOOK_PATIENCE = 0.3
"""Seconds for one server to connect, and as long to tell its map; then another one is asked."""
_TRY_AGAIN = 0.02
"""Seconds between two tries of a command that met a map in change."""
# One lost connection, a new map, and some redirections; then the caller hears of an outage.
_CALL_PATIENCE = 2 * PATIENCE
_log = logging.getLogger("doorward.store")
# What a server says of itself, or of its shard, that may be otherwise in a moment or elsewhere.
_NOT_NOW = ("TRYAGAIN", "CLUSTERDOWN", "READONLY", "MASTERDOWN", "LOADING")


class Shard:
    """One primary, and the links of this process to it; made by the store (`cluster_store`)."""

    def __init__(self, primary: Primary, address: StoreAddress, *, is_late: bool) -> None:
        self.primary = primary
        self.address = address
        self.is_late = is_late
        """It took over while we were here, perhaps from one that died with its last writes."""
        self.lease = Lease(NO_CLAIMS)
        self.claims = NO_CLAIMS
        """As the control connection heard them last, for the registry of workers."""
        self.heard_at = boottime()
        self.identities: dict[str, tuple[bytes, bytes]] = {}
        self.control: Link
        self.barrier: Barrier
        self.tracked: Link | None = None

    @property
    def links(self) -> tuple[Link, ...]:
        """The links, the reading one first."""
        return (self.control,) if self.tracked is None else (self.tracked, self.control)

    @property
    def is_reached(self) -> bool:
        """Whether every link is up."""
        return all(link.connection is not None for link in self.links)

    async def close(self) -> None:
        """Disconnect for good."""
        self.lease.revoke()
        for link in self.links:
            await link.close()


OpenShard = Callable[[Primary], Shard]


class Shards:
    """The shards of the cluster at *address*; *open_shard* makes one, *on_change* hears of a new
    map.
    """

    def __init__(
        self, address: StoreAddress, open_shard: OpenShard, on_change: Callable[[], None]
    ) -> None:
        self.problem = "not connected yet"
        self.changed_at = boottime()
        self._address = address
        self._open_shard = open_shard
        self._on_change = on_change
        self._nodes: dict[str, Shard] = {}
        self._owners: list[Shard | None] = [None] * SLOTS
        self._guests: dict[tuple[str, int], Connection] = {}
        self._turn = 0
        self._wanted = asyncio.Event()
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Find the shards, and wait a moment for their links."""
        self._task = asyncio.create_task(self._keep_looking())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * PATIENCE):
                await self._looked.wait()
        for shard in tuple(self._nodes.values()):
            for link in shard.links:
                with contextlib.suppress(AuthUnavailable):  # the link has logged why
                    await link.ready()

    async def close(self) -> None:
        """Disconnect from all of them."""
        await stop(self._task)
        for shard in tuple(self._nodes.values()):
            await shard.close()
        await asyncio.gather(*self._closing)
        for connection in self._guests.values():
            connection.close()

    def all(self) -> Collection[Shard]:
        """Return every shard that is known."""
        return self._nodes.values()

    def owner(self, slot: int) -> Shard:
        """Return the shard that owns *slot*.

        Raises:
            StoreLost: none does, as far as is known.
        """
        shard = self._owners[slot]
        if shard is None:
            raise StoreLost(f"no shard has the slot {slot}")
        return shard

    # Commands

    async def call(self, command: Command) -> Reply:
        """Run an idempotent *command* where its key is, following redirections.

        Raises:
            AuthUnavailable: no answer in time, or an error for an answer.
        """
        slot = slot_of(key_of(command) or "")
        try:
            async with asyncio.timeout(_CALL_PATIENCE):
                return await self._call(slot, command)
        except TimeoutError as error:
            raise AuthUnavailable("the session store does not answer in time") from error

    async def _call(self, slot: int, command: Command) -> Reply:
        redirect: Redirect | None = None
        losses = 0
        while True:
            try:
                connection = await self._connection(slot, redirect)
                if redirect is not None and redirect.asking:
                    connection.send(("ASKING",), _ignore)
                return await connection.call(*command)
            except StoreLost as error:
                losses += 1
                if losses > 1:
                    problem = str(error) if self._nodes else self.problem
                    message = f"the session store cannot be reached: {problem}"
                    raise AuthUnavailable(message) from error
                redirect = None
                await self.looked_again()
            except hiredis.ReplyError as error:
                redirect = parse_redirect(str(error))
                if redirect is None or not redirect.asking:
                    self.look_again()
                if redirect is None:
                    if not str(error).startswith(_NOT_NOW):
                        message = f"the session store answered an error: {error}"
                        raise AuthUnavailable(message) from error
                    await asyncio.sleep(_TRY_AGAIN)

    async def _connection(self, slot: int, redirect: Redirect | None) -> Connection:
        if redirect is None:
            return await self.owner(slot).control.ready()
        host = redirect.host or self.owner(slot).primary.host
        for shard in self._nodes.values():
            if (shard.primary.host, shard.primary.port) == (host, redirect.port):
                return await shard.control.ready()
        # One that has no slot yet: it is being given its first.
        known = self._guests.get((host, redirect.port))
        if known is None or known.lost:
            address = self.address_of(host, redirect.port)
            try:
                known = await open_connection(address, channel="", tracking=False)
            except (OSError, hiredis.HiredisError) as error:
                raise StoreLost(str(error)) from error
            self._guests[host, redirect.port] = known
        return known

    # The map

    def address_of(self, host: str, port: int) -> StoreAddress:
        """Return the address of one server: with the credentials and the TLS of the cluster's."""
        return replace(self._address, kind="single", hosts=((host, port),))

    def look_again(self) -> None:
        """The map may be out of date: read it soon."""
        self._wanted.set()

    async def looked_again(self) -> None:
        """Read the map soon, and wait until that is done."""
        self._wanted.set()
        await self._looked.wait()

    async def _keep_looking(self) -> None:
        while True:
            self._wanted.clear()
            found = False
            try:
                found = await self._look()
            except Exception:  # noqa: BLE001 - who gives up looking has an outage for good
                _log.exception("reading the map of the cluster failed")
            self._looked.set()
            well = found and all(shard.is_reached for shard in self._nodes.values())
            await asyncio.sleep(_LEAST_PAUSE)
            self._looked = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY if well else _LOOK_EVERY_IN_TROUBLE):
                    await self._wanted.wait()

    async def _look(self) -> bool:
        """Ask one server after another, those first that answered lately; take the first map."""
        self._turn += 1
        reached = [shard for shard in self._nodes.values() if shard.control.connection is not None]
        turn = self._turn % len(reached) if reached else 0
        for shard in reached[turn:] + reached[:turn]:
            if (connection := shard.control.connection) is not None and await self._read_map(
                connection, shard.primary.host
            ):
                return True
        for host, port in self._address.hosts:
            try:
                async with asyncio.timeout(_LOOK_PATIENCE):
                    address = self.address_of(host, port)
                    connection = await open_connection(address, channel="", tracking=False)
            except (OSError, StoreLost, hiredis.HiredisError, TimeoutError) as error:
                self.problem = str(error) or "no answer in time"
                continue
            try:
                if await self._read_map(connection, host):
                    return True
            finally:
                connection.close()
        return False

    async def _read_map(self, connection: Connection, host: str) -> bool:
        try:
            async with asyncio.timeout(_LOOK_PATIENCE):
                reply = await connection.call("CLUSTER", "SLOTS", expect=list)
            primaries, owners = parse_slots(reply, host)
        except (StoreLost, hiredis.HiredisError, TimeoutError, ClusterAnswerError) as error:
            self.problem = str(error) or "no answer in time"
            return False
        if not primaries:
            self.problem = "the cluster has no slots"
            return False
        self._take(primaries, owners)
        return True

    def _take(self, primaries: dict[str, Primary], owners: list[str | None]) -> None:
        gone = [s for n, s in self._nodes.items() if primaries.get(n) != s.primary]
        kept = {n: s for n, s in self._nodes.items() if primaries.get(n) == s.primary}
        new = {n: p for n, p in primaries.items() if n not in kept}
        nodes = kept | {n: self._open_shard(primary) for n, primary in new.items()}
        table = [None if name is None else nodes[name] for name in owners]
        if not gone and not new and table == self._owners:
            return
        self._nodes, self._owners, self.changed_at = nodes, table, boottime()
        for shard in gone:
            shard.lease.revoke()
            task = asyncio.create_task(shard.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._on_change()


def _ignore(reply: Reply) -> None:
    del reply
