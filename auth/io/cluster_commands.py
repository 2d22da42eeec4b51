"""A client for everything that is not a session, on a cluster: redis-py's, with routing of our own.

redis-py's `RedisCluster` would find the shards a second time, asks for every command's key
(`COMMAND`, one more right to grant), and repeats writes on its own account. This is the same plain
client that a single store has, one for each primary, and the map that the store keeps anyway.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, TryAgainError
from redis.exceptions import ConnectionError as Disconnected

from auth.io.connection import StoreLost
from auth.io.locating import close_client, command_client
from auth.io.shards import Shards
from auth.slots import key_of, slot_of

# A second, if it is one slot's move that is waited for.
_MOST_TRIES = 50
_TRY_AGAIN = 0.02
"""Seconds between two tries."""


class ClusterCommands(Redis):
    """Sends each command to the shard of its key; commands of several keys need one slot."""

    def __init__(self, shards: Shards) -> None:
        super().__init__(protocol=2)
        self._shards = shards
        self._clients: dict[tuple[str, int], Redis] = {}

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command, following redirections; see `redis.asyncio.Redis`."""
        slot = slot_of(key_of(args) or "")
        try:
            primary = self._shards.owner(slot).primary
        except StoreLost as error:
            raise Disconnected(str(error)) from error
        where, asking = (primary.host, primary.port), False
        for _ in range(_MOST_TRIES):
            try:
                return await self._run(self._client(where), args, options, asking=asking)
            except (MovedError, AskError) as error:
                asking = not isinstance(error, MovedError)
                where = (error.host or where[0], error.port)
                if not asking:
                    self._shards.look_again()
            except TryAgainError:
                # Half of its keys have been moved: the rest follows in a moment.
                await asyncio.sleep(_TRY_AGAIN)
            except Disconnected:
                self._shards.look_again()
                raise
        raise TryAgainError("the slot keeps changing hands")

    async def _run(
        self, client: Redis, args: tuple[Any, ...], options: dict[str, Any], *, asking: bool
    ) -> Any:
        if not asking:
            return await client.execute_command(*args, **options)  # type: ignore[no-untyped-call]
        # One connection for both: ASKING is for the next command only.
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("ASKING")
            pipeline.execute_command(*args, **options)
            *_, reply = await pipeline.execute()
            return reply

    def _client(self, where: tuple[str, int]) -> Redis:
        if where not in self._clients:
            self._clients[where] = command_client(self._shards.address_of(*where))
        return self._clients[where]

    async def close_all(self) -> None:
        """Close the connections to every shard."""
        for client in self._clients.values():
            await close_client(client)
        await close_client(self)
