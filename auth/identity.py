"""Who is calling, as far as the gateway vouches for it."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from auth.revocation import TokenRef

Method = Literal["session", "bearer"]


# gc=False: no cycle can go through what was read from JSON, and each is 16 bytes less.
class Identity(msgspec.Struct, frozen=True, gc=False):
    """A caller who proved who they are."""

    subject: str
    """An immutable identifier; never a name or an address that a person may change."""
    method: Method = "session"
    name: str = ""
    tenant: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    auth_time: int = 0
    """When the person proved it, epoch seconds; 0 when that is not known."""
    amr: tuple[str, ...] = ()
    """Authentication methods references (RFC 8176)."""
    acr: str = ""
    """Authentication context class (OpenID Connect Core section 2): how strongly they proved it."""
    issuer: str = ""
    """Who says so: empty for a session, the token's issuer for a bearer token."""
    session_digest: str = ""
    """The session's digest (`auth.session.digest`), empty for a bearer token."""
    token: TokenRef | None = None
    """What names the bearer token in the store; None for a session."""
    expires_at: float = 0.0
    """Epoch seconds after which this identity is nobody's any more."""
    claims: Mapping[str, object] = {}
    refresh_at: float = 0.0
    """Epoch seconds from which on its provider is to be asked again; 0: never."""


class Authenticated(msgspec.Struct, frozen=True, gc=False):
    """The request carries a credential and it is good."""

    identity: Identity


class Absent(msgspec.Struct, frozen=True):
    """The request carries no credential."""


class Rejected(msgspec.Struct, frozen=True):
    """The request carries a credential that is no good: as if absent, but told apart in the log."""

    reason: str
    """A code of `auth.decision.Reason`, for the log and never for the answer."""


Caller = Authenticated | Absent | Rejected
ABSENT = Absent()
