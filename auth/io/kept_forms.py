"""Forms that met no session, in the store, until the person who filled them in is back.

A form belongs to the browser that has the cookie it is named by, and lives for minutes. It is
sealed with that cookie's value, of which the store has the digest: whoever reads the store, a
backup or the replication, reads no form, and neither can we until the browser comes again.
"""

from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.ports import AuthUnavailable
from auth.sealing import seal, unseal
from auth.session import digest

FORM_SECONDS = 900
"""How long somebody may take to sign in and to look at the form again."""
_PURPOSE = "kept form"


class KeptForm(msgspec.Struct, frozen=True):
    """A form as it was sent."""

    target: str
    """Path and query it was sent to, on the origin that has the cookie."""
    pairs: tuple[tuple[str, str], ...]
    """Names and values in their order; a name may come more than once."""
    subject: str = ""
    """Whose it is; empty until somebody is signed in."""

    def __repr__(self) -> str:
        """Leave out what was typed."""
        return f"KeptForm({len(self.pairs)} fields)"


class KeptForms:
    """See above; every method raises `AuthUnavailable` when the store does not answer."""

    def __init__(self, commands: Redis) -> None:
        self._commands = commands

    async def keep(self, binding: str, form: KeptForm) -> None:
        """Keep *form* for the browser with the cookie value *binding*, 256 random bits."""
        await self._call("SET", _key(binding), _sealed(binding, form), "EX", FORM_SECONDS)

    async def find(self, binding: str) -> KeptForm | None:
        """Return what was kept for *binding*."""
        value = await self._call("GET", _key(binding)) if binding else None
        content = unseal(binding, value, purpose=_PURPOSE) if value else None
        return msgspec.json.decode(content, type=KeptForm) if content else None

    async def claim(self, binding: str, form: KeptForm, subject: str) -> None:
        """Make *form*, which was found, that of *subject* and of nobody else; its time goes on."""
        claimed = msgspec.structs.replace(form, subject=subject)
        await self._call("SET", _key(binding), _sealed(binding, claimed), "XX", "KEEPTTL")

    async def discard(self, binding: str) -> None:
        """Forget what was kept for *binding*."""
        await self._call("DEL", _key(binding))

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._commands.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise AuthUnavailable("the store does not answer") from error


def _sealed(binding: str, form: KeptForm) -> bytes:
    return seal(binding, msgspec.json.encode(form), purpose=_PURPOSE)


def _key(binding: str) -> str:
    return f"doorward:form:{digest(binding)}"
