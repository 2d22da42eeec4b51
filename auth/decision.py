"""The three answers to "may they?", each with its reason.

`Allow` is the permit: only `gateway.forwarding.plan` takes it, and it takes nothing else, so a
request cannot reach an upstream without one (ADR 0002).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from auth.identity import Identity

_MOST_ACR_VALUES = 16
"""Of a query, which anybody can write; what stands behind them is passed over."""
AGAIN = "again"
"""The parameter that asks for a sign-in of somebody who has a session: it lacks something."""


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
    COOKIE_OF_OTHER_SITE = "cookie_of_other_site"
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
    ACCESS_TOKEN_GONE = "access_token_gone"  # noqa: S105 - the same
    CREDENTIALS_CONFLICT = "credentials_conflict"
    ROLE_MISSING = "role_missing"
    GROUP_MISSING = "group_missing"
    SCOPE_MISSING = "scope_missing"
    TENANT_MISMATCH = "tenant_mismatch"
    CONDITION_FALSE = "condition_false"
    CONDITION_FAILED = "condition_failed"
    """The `when:` expression raised an error; fails closed."""
    ACR_MISSING = "acr_missing"
    """Signed in, and not as strongly as the route asks."""
    AUTH_TIME_TOO_OLD = "auth_time_too_old"
    """Signed in, and longer ago than the route's `max_age`."""
    NO_ROUTE = "no_route"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BAD_REQUEST = "bad_request"
    STORE_UNAVAILABLE = "store_unavailable"
    KEYS_UNAVAILABLE = "keys_unavailable"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    UPSTREAM_TRUNCATED = "upstream_truncated"
    OVERLOADED = "overloaded"
    DRAINING = "draining"
    INTERNAL = "internal"


class Allow(msgspec.Struct, frozen=True, gc=False):
    """Pass it on. `identity` is None for an anonymous caller of a public or optional route."""

    reason: Reason
    identity: Identity | None = None
    outcome: Literal["allow"] = "allow"


class StepUp(msgspec.Struct, frozen=True):
    """What a sign-in must come to: the parameters of the same names of OpenID Connect Core 3.1.2.1.

    `acr_values`: any of them, best first; empty asks for none. `max_age` in seconds.
    """

    acr_values: tuple[str, ...] = ()
    max_age: float | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """Return it as the parameters of a request to sign in; `step_up_in` reads them."""
        asked = {"acr_values": " ".join(self.acr_values)} if self.acr_values else {}
        return asked if self.max_age is None else asked | {"max_age": str(int(self.max_age))}

    def is_strong_enough(self, acr: str, amr: tuple[str, ...]) -> bool:
        """Return whether *acr* is one of those asked for.

        RFC 8176 has a method `mfa`: a provider that knows no `acr` says it there.
        """
        wanted = self.acr_values
        return not wanted or acr in wanted or ("mfa" in wanted and "mfa" in amr)

    def is_too_old(self, age: float) -> bool:
        """Return whether *age* is more than `max_age`."""
        return self.max_age is not None and age > self.max_age


def step_up_in(parameters: Mapping[str, str]) -> StepUp | None:
    """Return what *parameters* ask of a sign-in, None if nothing; what makes no sense asks nothing.

    Anybody can write them: they decide what a person is asked for, never what that opens.
    """
    acr_values = tuple(parameters.get("acr_values", "").split()[:_MOST_ACR_VALUES])
    seconds = parameters.get("max_age", "")
    max_age = (
        float(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) < 10 else None
    )
    return StepUp(acr_values, max_age) if acr_values or max_age is not None else None


class Challenge(msgspec.Struct, frozen=True):
    """Not signed in (any more), or not strongly or recently enough; signing in could help."""

    reason: Reason
    step_up: StepUp | None = None
    """What that sign-in must come to, where the route says so."""
    outcome: Literal["challenge"] = "challenge"


class Deny(msgspec.Struct, frozen=True):
    """Signed in, and not allowed; signing in again would not help."""

    reason: Reason
    detail: str = ""
    """What was missing, for the log and for `explain`."""
    identity: Identity | None = None
    outcome: Literal["deny"] = "deny"


Decision = Allow | Challenge | Deny
