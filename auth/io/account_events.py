"""What other services are told of accounts, by the stream of events in the store.

Each is written when the change has happened, and an outage of the store in that very moment does
not take the change back: then the log has it instead.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.revocation import EVENTS_KEY

_log = logging.getLogger("doorward.login")
_MOST_EVENTS = 100_000
"""That the stream keeps, about; the same for every writer of it."""

Factor = Literal["totp", "recovery_codes", "passkey"]


class AccountEvents:
    """Writes them; *commands* is a client of the store, None for a service that tells nobody."""

    def __init__(
        self, commands: Redis | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._commands = commands
        self._clock = clock

    async def factor_added(self, subject: str, factor: Factor) -> None:
        """Tell that *subject* set a second factor up, or put another one in its place."""
        await self._write("account.factor_added", subject, factor=factor)

    async def factor_removed(self, subject: str, factor: Factor) -> None:
        """Tell that *subject* has *factor* no more."""
        await self._write("account.factor_removed", subject, factor=factor)

    async def passkey_refused(self, subject: str) -> None:
        """Tell that a passkey of *subject* may have been copied: its counter did not go on."""
        await self._write("account.passkey_refused", subject, reason="counter")

    async def password_changed(self, subject: str) -> None:
        """Tell that the account of *subject* has another password."""
        await self._write("account.password_changed", subject)

    async def _write(self, event: str, subject: str, **more: str) -> None:
        if self._commands is None:
            return
        facts: dict[Any, Any] = {"event": event, "subject": subject, "at": self._clock(), **more}
        try:
            await self._commands.xadd(EVENTS_KEY, facts, maxlen=_MOST_EVENTS, approximate=True)
        except (RedisError, OSError) as error:
            _log.warning("nobody was told of %s of %s: %s", event, subject, type(error).__name__)
