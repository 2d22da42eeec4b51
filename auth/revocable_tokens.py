"""Bearer tokens that can be taken back before they expire.

A `TokenVerifier` says who a token speaks for, by its signature, for as long as it lasts. This one
asks in addition whether the token, or everything its issuer made for its subject, was revoked.
"""

from typing import Protocol

from auth.decision import Reason
from auth.identity import Authenticated, Caller, Identity, Rejected
from auth.ports import TokenRevocations
from auth.revocation import TokenRef

_REVOKED = Rejected(Reason.TOKEN_REVOKED)


class SignatureVerifier(Protocol):
    """Who a token speaks for, by its signature; `auth.io.token_verifier.JwtVerifier`."""

    def verify_at_once(self, token: str) -> Caller | None:
        """Return the verdict if nothing has to be waited for, else None. Never raises."""
        ...

    async def verify(self, token: str) -> Caller:
        """Return the verdict; raise `AuthUnavailable` if the keys cannot be had."""
        ...


class RevocableTokens:
    """The `TokenVerifier`: *verifier*, but for what *revocations* knows to be over."""

    def __init__(self, verifier: SignatureVerifier, revocations: TokenRevocations) -> None:
        self._verifier = verifier
        self._revocations = revocations

    def peek(self, token: str) -> Caller | None:
        """Return the verdict if both the verifier's and the store's are at hand."""
        caller = self._verifier.verify_at_once(token)
        if not isinstance(caller, Authenticated):
            return caller
        revoked = self._revocations.peek_revoked(_reference(caller.identity))
        if revoked is None:
            return None
        return _REVOKED if revoked else caller

    async def verify(self, token: str, *, serve_cached: float = 0.0) -> Caller:
        """Return who *token* speaks for unless it was revoked.

        With *serve_cached* (seconds), what was known not to be revoked when the store was lost is
        believed for that long.

        Raises:
            AuthUnavailable: the issuer's keys or the store could not be asked.
        """
        caller = await self._verifier.verify(token)
        if not isinstance(caller, Authenticated):
            return caller
        revoked = await self._revocations.is_revoked(
            _reference(caller.identity), serve_cached=serve_cached
        )
        return _REVOKED if revoked else caller


def _reference(identity: Identity) -> TokenRef:
    # Who has none comes from nowhere that could tell whether it was revoked.
    assert identity.token is not None
    return identity.token
