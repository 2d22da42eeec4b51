"""What is still to be written to people, in the store: any gateway puts it in, one takes it out.

How this works. A sorted set whose scores are when something is due, on the store's clock. Whoever
takes an item moves it a minute ahead in the same step; if they die it is due again then. So each is
done at least once. An item says who asked for what and holds no secret: the link is made when the
letter is written.
"""

from typing import Literal

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.ports import AuthUnavailable

KEY = "doorward:mail"
_MOST = 10_000
"""Items; strangers put them in, and the throttle of each address is the first bound."""
_TAKEN_FOR = 60.0
"""Seconds after which somebody else may take an item whose taker has died."""

_PUT = """
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], tonumber(time[1]) + tonumber(time[2]) / 1e6, ARGV[1])
return 1
"""
_TAKE = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1)
if not due[1] then return false end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), due[1])
return {due[1], tostring(now)}
"""
_AGAIN = """
local time = redis.call('TIME')
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then
  redis.call('ZADD', KEYS[1], tonumber(time[1]) + tonumber(time[2]) / 1e6 + ARGV[3], ARGV[2])
end
return 1
"""


class Wanted(msgspec.Struct, frozen=True):
    """Something that somebody asked to be written."""

    id: str
    """Random; the same however often it is tried."""
    kind: Literal["reset", "registration"]
    to: str
    """What the person typed: a user name or an address."""
    name: str
    language: str
    asked_at: float
    """Epoch seconds."""
    attempts: int = 0


class MailQueue:
    """The queue in the store that *commands* is a client of.

    Every method raises `AuthUnavailable` when the store does not answer.
    """

    def __init__(self, commands: Redis) -> None:
        self._commands = commands

    async def put(self, wanted: Wanted) -> bool:
        """Put *wanted* in, due at once; False: there is too much in it already."""
        return bool(await self._run(_PUT, msgspec.json.encode(wanted), _MOST))

    async def take(self) -> Wanted | None:
        """Return what is due, and nobody else gets it for a minute; None: nothing is."""
        while True:
            found = await self._run(_TAKE, _TAKEN_FOR)
            if not found:
                return None
            member = found[0]
            try:
                return msgspec.json.decode(member, type=Wanted)
            except msgspec.DecodeError:  # not of this version
                await self._remove(member)

    async def done(self, wanted: Wanted) -> None:
        """Take note that *wanted* needs nothing more."""
        await self._remove(msgspec.json.encode(wanted))

    async def again(self, wanted: Wanted, *, after: float) -> None:
        """Have *wanted* due again in so many seconds, with one more attempt counted."""
        counted = msgspec.structs.replace(wanted, attempts=wanted.attempts + 1)
        await self._run(_AGAIN, msgspec.json.encode(wanted), msgspec.json.encode(counted), after)

    async def _remove(self, member: bytes) -> None:
        try:
            await self._commands.zrem(KEY, member)
        except (RedisError, OSError) as error:
            raise AuthUnavailable("the store does not answer") from error

    async def _run(self, script: str, *arguments: bytes | float) -> list[bytes] | None:
        try:
            reply: list[bytes] | None = await self._commands.eval(script, 1, KEY, *arguments)
        except (RedisError, OSError) as error:
            raise AuthUnavailable("the store does not answer") from error
        return reply
