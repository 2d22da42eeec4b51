"""The three answers to "may they?", each with its reason.

`Allow` is the permit: only `gateway.forwarding.plan` takes it, and it takes nothing else, so a
request cannot reach an upstream without one (ADR 0002).
"""

from enum import StrEnum
from typing import Literal

import msgspec

from auth.identity import Identity


class Reason(StrEnum):
    """Why. A closed list: `docs/reasons.md` says what each means and what to do about it."""

    PUBLIC = "public"
    ALLOWED = "allowed"
    ANONYMOUS_ALLOWED = "anonymous_allowed"
    """`access: optional` and nobody signed in."""
    NO_CREDENTIAL = "no_credential"
    SESSION_UNKNOWN = "session_unknown"
    SESSION_EXPIRED = "session_expired"
    SESSION_ENDED = "session_ended"
    SESSION_MALFORMED = "session_malformed"
    COOKIE_AMBIGUOUS = "cookie_ambiguous"
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105 - a reason, not a secret
    TOKEN_ISSUER_UNKNOWN = "token_issuer_unknown"  # noqa: S105 - the same
    TOKEN_ALGORITHM = "token_algorithm"  # noqa: S105 - the same
    TOKEN_KEY_UNKNOWN = "token_key_unknown"  # noqa: S105 - the same
    TOKEN_SIGNATURE = "token_signature"  # noqa: S105 - the same
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - the same
    TOKEN_NOT_YET_VALID = "token_not_yet_valid"  # noqa: S105 - the same
    TOKEN_AUDIENCE = "token_audience"  # noqa: S105 - the same
    TOKEN_CLAIMS = "token_claims"  # noqa: S105 - the same
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - the same
    CREDENTIALS_CONFLICT = "credentials_conflict"
    ROLE_MISSING = "role_missing"
    GROUP_MISSING = "group_missing"
    SCOPE_MISSING = "scope_missing"
    TENANT_MISMATCH = "tenant_mismatch"
    CONDITION_FALSE = "condition_false"
    CONDITION_FAILED = "condition_failed"
    """The `when:` expression raised an error; fails closed."""
    NO_ROUTE = "no_route"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BAD_REQUEST = "bad_request"
    STORE_UNAVAILABLE = "store_unavailable"
    KEYS_UNAVAILABLE = "keys_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    UPSTREAM_TRUNCATED = "upstream_truncated"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    INTERNAL = "internal"


class Allow(msgspec.Struct, frozen=True):
    """Pass it on. `identity` is None for an anonymous caller of a public or optional route."""

    reason: Reason
    identity: Identity | None = None
    outcome: Literal["allow"] = "allow"


class Challenge(msgspec.Struct, frozen=True):
    """Not signed in (any more); signing in could help."""

    reason: Reason
    outcome: Literal["challenge"] = "challenge"


class Deny(msgspec.Struct, frozen=True):
    """Signed in, and not allowed; signing in again would not help."""

    reason: Reason
    detail: str = ""
    """What was missing, for the log and for `explain`."""
    identity: Identity | None = None
    outcome: Literal["deny"] = "deny"


Decision = Allow | Challenge | Deny
