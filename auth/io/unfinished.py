"""What the store remembers of sign-ins that want a second factor still: no session yet.

A record belongs to the browser that has the cookie it is named by, and lives for minutes. Taking it
is what makes a session of it: of several requests at once, one gets it.
"""

from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.login.account import Account
from auth.ports import AuthUnavailable
from auth.session import digest

UNFINISHED_SECONDS = 600
"""How long somebody may look for their phone."""


class UnfinishedSignIn(msgspec.Struct, frozen=True):
    """The first half of a sign-in, or a session that is to become a stronger one."""

    account: Account
    """As it was when the first factor was shown."""
    amr: tuple[str, ...]
    auth_time: float
    return_to: str
    session_digest: str = ""
    """The session that asks for more; empty for a sign-in."""
    only_passkeys: bool = False
    """Whether no other second factor will do: phishing is to be ruled out."""


class UnfinishedSignIns:
    """See above; every method raises `AuthUnavailable` when the store does not answer."""

    def __init__(self, commands: Redis) -> None:
        self._commands = commands

    async def keep(self, binding: str, sign_in: UnfinishedSignIn) -> None:
        """Keep *sign_in* for the browser with the cookie value *binding*."""
        value = msgspec.json.encode(sign_in)
        await self._call("SET", _key(binding), value, "EX", UNFINISHED_SECONDS)

    async def find(self, binding: str) -> UnfinishedSignIn | None:
        """Return what was kept for *binding*."""
        return _read(await self._call("GET", _key(binding))) if binding else None

    async def take(self, binding: str) -> UnfinishedSignIn | None:
        """Return what was kept for *binding*, once."""
        return _read(await self._call("GETDEL", _key(binding))) if binding else None

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._commands.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise AuthUnavailable("the store does not answer") from error


def _read(value: bytes | None) -> UnfinishedSignIn | None:
    try:
        return msgspec.json.decode(value, type=UnfinishedSignIn) if value else None
    except msgspec.MsgspecError:
        return None


def _key(binding: str) -> str:
    return f"doorward:unfinished:{digest(binding)}"
