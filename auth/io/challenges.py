"""The challenges of passkeys that the store remembers: for minutes, for one browser, for one use.

A record is named by the digest of a cookie that only that browser has. Taking it is what uses it
up, whether the answer is good or not, so that nothing that was signed is ever good twice.
"""

from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.ports import AuthUnavailable
from auth.session import digest

CHALLENGE_SECONDS = 300
"""How long somebody may look for their key; WebAuthn section 15.1 recommends five minutes."""


class Challenge(msgspec.Struct, frozen=True):
    """What a passkey is asked to sign."""

    value: bytes
    purpose: str
    """What it is for: an answer to one is good for no other."""
    subject: str = ""
    """Who must answer; empty: whoever can."""


class Challenges:
    """See above; every method raises `AuthUnavailable` when the store does not answer."""

    def __init__(self, commands: Redis) -> None:
        self._commands = commands

    async def keep(self, binding: str, challenge: Challenge) -> None:
        """Keep *challenge* for the browser with the cookie value *binding*."""
        value = msgspec.json.encode(challenge)
        await self._call("SET", _key(binding), value, "EX", CHALLENGE_SECONDS)

    async def take(self, binding: str, *, purpose: str, subject: str = "") -> bytes | None:
        """Return what was asked of the browser *binding*, once; None if it was something else."""
        value = await self._call("GETDEL", _key(binding)) if binding else None
        try:
            kept = msgspec.json.decode(value, type=Challenge) if value else None
        except msgspec.MsgspecError:
            return None
        if kept is None or (kept.purpose, kept.subject) != (purpose, subject):
            return None
        return kept.value

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._commands.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise AuthUnavailable("the store does not answer") from error


def _key(binding: str) -> str:
    return f"doorward:challenge:{digest(binding)}"
