"""The barrier at one shard of a cluster: `barrier`, with a registry that moves with the claims.

The registry is a hash in the first stable slot that the shard claims. Workers and enders must mean
the same one, so both say in their scripts which claims they believe, and the shard does nothing if
it claims something else. A registry that is new to an ender, because the claims have changed, may
lack workers that hold a lease under the old ones: it is doubted (`Barrier.doubt_registry`) for
longer than those can last.
"""

from collections.abc import Callable

import hiredis

from auth.io.barrier import Barrier, read_workers
from auth.io.connection import Command, Reply, StoreLost
from auth.io.link import Link
from auth.io.scripts import CLAIMS, SHARD_BROADCAST
from auth.io.shards import Shard
from auth.ports import AuthUnavailable
from auth.revocation import ENDED_CHANNEL
from auth.slots import REDIRECTS, Claims, ClusterAnswerError, parse_claims

# Claims change with every slot that is moved: one may meet a change more than once.
_TRIES = 5


class ShardBarrier(Barrier):
    """Sends endings over *link*, the command connection of *shard*.

    *name* must be another one at each shard: acknowledgements of one must not count for another's.
    *learn* takes news of what the shard claims, and raises `AuthUnavailable` for a replica.
    """

    def __init__(
        self, link: Link, shard: Shard, *, name: str, lease: float, learn: Callable[[Claims], None]
    ) -> None:
        super().__init__(link, name=name, lease=lease)
        self._shard = shard
        self._learn = learn

    @property
    def _registry(self) -> str | None:
        return self._shard.claims.registry_key

    async def _tell(self, message: bytes) -> tuple[dict[bytes, bytes], float]:
        losses = 0
        for _ in range(_TRIES):
            try:
                reply = await self._ask(message)
            except StoreLost as error:
                losses += 1
                if losses > 1:
                    raise AuthUnavailable("the shard was lost twice in a row") from error
                continue
            if isinstance(reply, bytes):
                try:
                    self._learn(parse_claims(reply))
                except ClusterAnswerError as error:
                    raise AuthUnavailable(str(error)) from error
            else:
                return read_workers(reply)
        raise AuthUnavailable("the slots of the shard keep changing hands")

    async def _ask(self, message: bytes) -> Reply:
        """Publish and return the workers; or what the shard claims, if that is news."""
        connection = await self._link.ready()
        claims, registry = self._shard.claims, self._registry
        if registry is None:
            raise AuthUnavailable("the shard has no slot of its own")
        facts = (f"{ENDED_CHANNEL}:{claims.node}", message, claims.text)
        command: Command = ("EVAL", SHARD_BROADCAST, 1, registry, *facts)
        try:
            try:
                return await connection.call(*command, expect=(list, bytes))
            except hiredis.ReplyError as error:
                if not str(error).startswith(REDIRECTS):
                    raise
                return await connection.call("EVAL", CLAIMS, 0, expect=bytes)
        except hiredis.ReplyError as error:
            raise AuthUnavailable(f"the shard answered an error: {error}") from error
