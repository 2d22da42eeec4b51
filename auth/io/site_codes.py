"""The one-time codes that hand a session on to another site, as they wait in the store.

A code is named by its digest, and what it stands for is sealed with the code itself: whoever reads
the store can neither use one nor learn anything from it. Taking it is one step of the store's: of
several requests at once, over any number of gateways, one gets it.
"""

import secrets
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.ports import AuthUnavailable
from auth.sealing import seal, unseal
from auth.session import digest

CODE_SECONDS = 60
"""How long a code is good: one redirect, and a slow one."""
_PURPOSE = "site code"


class HandedOn(msgspec.Struct, frozen=True):
    """A session on its way to a site. Secret, as long as it is on its way."""

    session_digest: str
    site: str
    """The origin that it is for, and no other."""
    challenge: str
    """The digest of the value that the browser that asked has in a cookie there."""
    secret: str
    """What the site's cookie will open the session with (`auth.site_cookie`)."""
    return_to: str

    def __repr__(self) -> str:
        return f"HandedOn({self.session_digest!r}, {self.site!r})"


class SiteCodes:
    """See above; every method raises `AuthUnavailable` when the store does not answer."""

    def __init__(self, commands: Redis) -> None:
        self._commands = commands

    async def give(self, handed_on: HandedOn) -> str:
        """Return a new code for *handed_on*."""
        code = secrets.token_urlsafe(32)
        value = seal(code, msgspec.json.encode(handed_on), purpose=_PURPOSE)
        await self._call("SET", _key(code), value, "EX", CODE_SECONDS)
        return code

    async def take(self, code: str) -> HandedOn | None:
        """Return what *code* stands for, once; None if it is no good, or not any more."""
        value = await self._call("GETDEL", _key(code))
        opened = unseal(code, value, purpose=_PURPOSE) if value else None
        try:
            return msgspec.json.decode(opened, type=HandedOn) if opened else None
        except msgspec.MsgspecError:
            return None

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._commands.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise AuthUnavailable("the store does not answer") from error


def _key(code: str) -> str:
    return f"doorward:site-code:{digest(code)}"
