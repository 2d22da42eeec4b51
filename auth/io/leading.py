"""One gateway at a time: who holds a leader's key in the store does what must be done once."""

import contextlib
import secrets
from typing import Any

from redis.exceptions import RedisError

from auth.io.connection import boottime

_LEAD = """
-- KEYS: leader. ARGV: who, ms. 1: who leads from now on, for ms.
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RESIGN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end"

STORE_ERRORS = (RedisError, OSError, TimeoutError)
"""What the client of the store raises when it has no answer, or an error for one."""


class Leadership:
    """The wish to lead, and whether it is fulfilled.

    Args:
        commands: a client of the store.
        key: the leader's key.
        leads_for: seconds after which a leader that does not renew leads no more; so long nobody
            leads when it dies.
        renew: seconds between renewals.
    """

    def __init__(self, commands: Any, key: str, *, leads_for: float, renew: float) -> None:
        self._commands = commands
        self._key = key
        self._leads_for = leads_for
        self._renew = renew
        self._me = secrets.token_hex(8)
        self._until = 0.0

    @property
    def holds(self) -> bool:
        """Whether this process leads at this moment; not after a SIGSTOP, for one."""
        return boottime() < self._until

    async def hold(self) -> bool:
        """Become or stay the leader, if nobody else is.

        Raises:
            One of `STORE_ERRORS`: it is not known; what is held is held until its time is over.
        """
        now = boottime()
        if now < self._until - self._leads_for + self._renew:
            return True
        milliseconds = round(self._leads_for * 1000)
        led = await self._commands.eval(_LEAD, 1, self._key, self._me, milliseconds)
        # Counted from before the store's own count.
        self._until = now + self._leads_for if led else 0.0
        return bool(led)

    async def resign(self) -> None:
        """Let the next one lead at once."""
        self._until = 0.0
        with contextlib.suppress(*STORE_ERRORS):
            await self._commands.eval(_RESIGN, 1, self._key, self._me)
