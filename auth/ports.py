"""What the core needs from the world, as protocols with the contract that the tests check."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from auth.decision import Reason
from auth.identity import Caller
from auth.revocation import TokenRef
from auth.session import SessionRecord


class AuthUnavailable(Exception):
    """The store or an issuer's keys could not be asked: an outage, never "not signed in".

    `retry_after` is a hint in whole seconds; `reason` says which of the two it was.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: int = 1,
        reason: Reason = Reason.STORE_UNAVAILABLE,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.reason = reason


class TooManySessions(Exception):
    """The subject has as many sessions as may be, and none of them gives way to a new one."""


class AccessTokenGone(Exception):
    """The provider's access token of a session is over, and there will be no other one."""


class Ended(msgspec.Struct, frozen=True):
    """How an ending went. When it is returned, the ending is in force on every gateway."""

    ended: int
    """Sessions that were alive and are not any more."""
    acknowledged: int
    """Workers that confirmed within the time."""
    of: int
    """Workers that might have held a copy."""
    waited_ms: float


class SessionSummary(msgspec.Struct, frozen=True):
    """A session as lists show it; without anything that could be used as one."""

    digest: str
    record: SessionRecord
    idle_expires_at: float
    """Epoch seconds at which it ends if it is not used."""


Change = Callable[[SessionRecord], SessionRecord]
"""Makes another record of one, with the same subject and times; may be called more than once."""

OnFound = Callable[[SessionRecord | str | None], None]
"""Gets what `SessionStore.find` would return, or None: only `find` can tell. Must not raise."""


class SessionStore(Protocol):
    """Where sessions live. Every method but `peek` may raise `AuthUnavailable`."""

    def peek(self, digest: str) -> SessionRecord | None:
        """Return the record if a copy under a live lease is at hand, without waiting.

        None says nothing: not at hand, or no such session. Never raises.
        """
        ...

    def ask(self, digest: str, then: OnFound) -> None:
        """Look *digest* up as `find` does, and call *then*: at once, or when the answer is here.

        For requests by the thousand: no task has to wait for it. Never raises.
        """
        ...

    async def find(self, digest: str, *, serve_cached: float = 0.0) -> SessionRecord | str:
        """Return the live record, or the `Reason` code why there is none.

        The answer is as fresh as the call: a session whose ending was answered before the call
        is never found. With *serve_cached* (seconds), a session known good when the store was
        lost is still found for that long.
        """
        ...

    async def create(self, record: SessionRecord) -> str:
        """Store a new session under a new random id and return the cookie value.

        Raises:
            TooManySessions: its subject has `session.max_sessions`, and a new one is refused.
        """
        ...

    async def update(self, digest: str, change: Change) -> bool:
        """Put what *change* makes of the session's record in its place.

        Only for a session that is alive at that moment: never brings one back, never makes one
        live longer, and overwrites nobody's change that *change* has not seen.

        Returns:
            Whether it was alive.
        """
        ...

    async def end(self, digest: str, *, reason: str) -> Ended:
        """End one session, everywhere."""
        ...

    async def end_subject(self, subject: str, *, reason: str, keep: str = "") -> Ended:
        """End every session of *subject* but the one with digest *keep*, everywhere."""
        ...

    async def end_all(self, *, reason: str) -> Ended:
        """End every session there is."""
        ...

    async def settle(self) -> Ended:
        """End nothing, and wait until all that had ended before the call has ended everywhere."""
        ...

    async def sessions_of(self, subject: str) -> Sequence[SessionSummary]:
        """List the live sessions of *subject*, newest first."""
        ...


class TokenRevocations(Protocol):
    """Which bearer tokens are over before they expire. Every method may raise `AuthUnavailable`."""

    def peek_revoked(self, token: TokenRef) -> bool | None:
        """Return whether *token* is revoked if that is known for sure, without waiting.

        None says nothing. Never raises. *token* comes from `auth.revocation.token_ref`; make it
        once per token and keep it.
        """
        ...

    async def is_revoked(self, token: TokenRef, *, serve_cached: float = 0.0) -> bool:
        """Return whether *token* is revoked, as fresh as the call; *serve_cached* as in `find`."""
        ...

    async def revoke_token(
        self, issuer: str, jti: str, expires_at: float, *, reason: str = "revoked"
    ) -> Ended:
        """Refuse one token, everywhere, until it expires (*expires_at*, epoch seconds)."""
        ...

    async def revoke_tokens_of(
        self, issuer: str, subject: str, *, reason: str = "revoked"
    ) -> Ended:
        """Refuse every token of *subject* that *issuer* made up to now, everywhere."""
        ...


class TokenVerifier(Protocol):
    """Who a bearer token speaks for."""

    def peek(self, token: str) -> Caller | None:
        """Return the verdict if that takes no waiting; None says nothing. Never raises."""
        ...

    async def verify(self, token: str, *, serve_cached: float = 0.0) -> Caller:
        """Return `Authenticated` or `Rejected`; *serve_cached* as in `SessionStore.find`.

        Raises:
            AuthUnavailable: the issuer's keys, or the store, could not be asked.
        """
        ...
