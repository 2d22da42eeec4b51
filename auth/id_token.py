"""ID tokens and logout tokens: what their claims must say to us, as the relying party.

Their form and signature are the business of `auth.tokens` and `auth.io.provider_client`. What is
checked here tells the two apart from each other and from bearer tokens (RFC 8725 section 3.12):
an ID token brings our nonce and no `events`, a logout token `events` and no nonce.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

from auth.tokens import CLOCK_SKEW, LONGEST_LIFETIME, is_fit_text, numeric_date

ID_TOKEN_TYPES = frozenset({"jwt", "application/jwt"})
LOGOUT_TOKEN_TYPES = frozenset({"jwt", "logout+jwt", "application/logout+jwt"})
"""Back-Channel Logout 1.0 section 2.4 recommends `logout+jwt`; older providers write `JWT`."""
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LONGEST_LOGOUT_TOKEN = 86_400
"""Seconds from `iat` to `exp`, for as long as its `jti` must be remembered."""
_HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


class RefusedToken(ValueError):
    """A token of the provider that is no good; the text is fit for a log.

    `clock_off` is by how many seconds the clocks differ at least, when that is the trouble:
    positive when the provider's is ahead. `too_weak` says that the person did not prove enough.
    """

    def __init__(self, message: str, *, clock_off: float = 0.0, too_weak: bool = False) -> None:
        super().__init__(message)
        self.clock_off = clock_off
        self.too_weak = too_weak


class Expected(msgspec.Struct, frozen=True):
    """What an ID token must say to be the answer to our request."""

    issuer: str
    client_id: str
    nonce: str
    acr_values: tuple[str, ...] = ()
    """One of them, if there are any (OIDC Core section 5.5.1.1)."""
    max_age: float | None = None
    """Seconds since the person proved who they are, at most."""


class LogoutNotice(msgspec.Struct, frozen=True):
    """What a logout token says. `sid` or `sub` may be empty, not both."""

    sub: str
    sid: str
    jti: str
    expires_at: float


def check_id_token(
    claims: Mapping[str, Any], expected: Expected, now: float, *, algorithm: str, access_token: str
) -> None:
    """Check the claims of an ID token whose signature is good (OIDC Core section 3.1.3.7).

    *now* is in epoch seconds; *access_token* is the one that came with it, for `at_hash`.

    Raises:
        RefusedToken: it is not the answer to our request.
    """
    _check_parties(claims, expected.issuer, expected.client_id)
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(
        nonce.encode("utf-8", "surrogatepass"), expected.nonce.encode()
    ):
        raise RefusedToken("its nonce is not the one we sent")
    _check_form(claims, now, algorithm=algorithm, access_token=access_token)
    _check_strength(claims, expected, now)


def check_refreshed_token(  # noqa: PLR0913 - keyword-only
    claims: Mapping[str, Any],
    before: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    now: float,
    algorithm: str,
    access_token: str,
) -> None:
    """Check the claims of an ID token that came with a refresh (OIDC Core section 12.2).

    *before*: those of the one in whose place it comes; the rest as in `check_id_token`.

    Raises:
        RefusedToken: it is no good, or about another person or sign-in.
    """
    _check_parties(claims, issuer, client_id)
    if claims.get("sub") != before.get("sub"):
        raise RefusedToken("it is about somebody else than the one before")
    for name in ("auth_time", "nonce"):
        if name in claims and name in before and claims[name] != before[name]:
            raise RefusedToken(f"its {name} is of another sign-in")
    _check_form(claims, now, algorithm=algorithm, access_token=access_token)


def _check_form(
    claims: Mapping[str, Any], now: float, *, algorithm: str, access_token: str
) -> None:
    """Check what every ID token must be like."""
    if "events" in claims:
        raise RefusedToken("it is a security event, a logout token perhaps")
    if not is_fit_text(claims.get("sub")):
        raise RefusedToken("its sub is not a text of 1 to 256 printable characters")
    if "sid" in claims and not is_fit_text(claims["sid"]):
        raise RefusedToken("its sid is not a text of 1 to 256 printable characters")
    if "auth_time" in claims and numeric_date(claims["auth_time"]) is None:
        raise RefusedToken("its auth_time is not a time")
    _check_times(claims, now, longest=LONGEST_LIFETIME)
    if "at_hash" in claims and claims["at_hash"] != _left_half(access_token, algorithm):
        raise RefusedToken("its at_hash is not of the access token that came with it")


def check_logout_token(
    claims: Mapping[str, Any], issuer: str, client_id: str, now: float
) -> LogoutNotice:
    """Check the claims of a logout token (Back-Channel Logout 1.0 sections 2.4 and 2.6).

    Raises:
        RefusedToken: it is not one, or not for us, or not now.
    """
    _check_parties(claims, issuer, client_id)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise RefusedToken("its events have no back-channel logout")
    if "nonce" in claims:
        raise RefusedToken("it has a nonce, as an ID token has")
    if not is_fit_text(claims.get("jti")):
        raise RefusedToken("it has no jti")
    named = [name for name in ("sub", "sid") if name in claims]
    if not named or not all(is_fit_text(claims[name]) for name in named):
        raise RefusedToken("it names neither a subject nor a session")
    expires_at = _check_times(claims, now, longest=_LONGEST_LOGOUT_TOKEN)
    return LogoutNotice(claims.get("sub", ""), claims.get("sid", ""), claims["jti"], expires_at)


def _check_parties(claims: Mapping[str, Any], issuer: str, client_id: str) -> None:
    """Check who made it and for whom."""
    if claims.get("iss") != issuer:  # exact, no prefix, no trailing slash
        raise RefusedToken("its issuer is another one")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or client_id not in audiences:
        raise RefusedToken("its audience is somebody else")
    # Core 3.1.3.7, steps 3 to 5: for others too only when it was issued to us.
    needs_party = audiences != [client_id]
    if (needs_party or "azp" in claims) and claims.get("azp") != client_id:
        raise RefusedToken("it was issued to another client")


def _check_times(claims: Mapping[str, Any], now: float, *, longest: float) -> float:
    """Check `exp`, `iat` and `nbf` with a little grace either way, and return `exp`."""
    expires_at, issued_at = numeric_date(claims.get("exp")), numeric_date(claims.get("iat"))
    not_before = numeric_date(claims["nbf"]) if "nbf" in claims else 0.0
    if expires_at is None or issued_at is None or not_before is None:
        raise RefusedToken("it has no exp or iat, or one that is no time")
    if not 0 < expires_at - issued_at <= longest:
        raise RefusedToken("its exp is before its iat, or too long after")
    if expires_at + CLOCK_SKEW <= now:
        raise RefusedToken("it has expired", clock_off=issued_at - now)
    ahead = max(issued_at, not_before) - now
    if ahead > CLOCK_SKEW:
        raise RefusedToken("it is from the future", clock_off=ahead)
    return expires_at


def _check_strength(claims: Mapping[str, Any], expected: Expected, now: float) -> None:
    """Check what was asked for beyond the sign-in itself: asking alone binds no provider."""
    if expected.acr_values and claims.get("acr") not in expected.acr_values:
        raise RefusedToken("its acr is none of those that were asked for", too_weak=True)
    if expected.max_age is not None:
        auth_time = numeric_date(claims.get("auth_time"))
        if auth_time is None or now - auth_time > expected.max_age + CLOCK_SKEW:
            raise RefusedToken("its auth_time is missing or longer ago than max_age", too_weak=True)


def _left_half(access_token: str, algorithm: str) -> str:
    """Return the `at_hash` of *access_token* (OIDC Core section 3.1.3.6)."""
    make = _HASHES.get(algorithm[-3:], hashlib.sha512)  # Ed25519 signs with SHA-512
    digest = make(access_token.encode()).digest()
    return urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
