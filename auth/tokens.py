"""Bearer tokens: what a JWT must look like before anybody computes a signature over it.

How this works: a token passes three gates, the cheap ones first (RFC 8725).

1. `read_token`: the compact form and nothing else (length, alphabet, two dots), both JSON objects
   read strictly (no name twice, no lone surrogate, no NaN), no extension that changes what is
   signed (`crit`, `b64`, `zip`, a nested token). `jku`, `x5u`, `x5c` and `jwk` are never looked at.
2. `check_claims`: issuer, audience and times, of exactly the right types, against one configured
   issuer. Nothing here has been verified yet; it only spares the costly step.
3. The signature, by PyJWT, with a key that belongs to this issuer and this algorithm
   (`auth.io.token_verifier`). Only then are the claims believed (`auth.claims`).

Every refusal is a `Reason` for the log. The answer to the client never says which it was.
"""

import json
import re
from binascii import a2b_base64
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from auth.decision import Reason
from config.model import TokenIssuer

LONGEST_TOKEN = 16 * 1024
"""Characters. A field of this length still fits the default request head of 32 KiB."""
LONGEST_LIFETIME = 7 * 86_400
"""Seconds from `iat` to `exp`. An `exp` in milliseconds, or one that never comes, is a mistake."""
CLOCK_SKEW = 30.0
"""Seconds by which an issuer's clock may be ahead of ours (`iat`, `nbf`); `exp` gets no grace."""
_LONGEST_KID = 256
_LONGEST_TEXT = 256
"""Characters of a claim that fills the identity; `_LONGEST_KID` of a `kid`."""
_LATEST_TIME = 2**53
"""Beyond it a double does not hold every second, so two readers could disagree."""

_COMPACT = re.compile(rb"(([A-Za-z0-9_-]++)\.([A-Za-z0-9_-]++))\.([A-Za-z0-9_-]++)")
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LAST_BY_REMAINDER = (_ALPHABET, b"", _ALPHABET[::16], _ALPHABET[::4])
"""Characters that may end a part, by its length modulo 4: 4 or 2 bits of the last are unused."""
_PADDING = (b"", b"===", b"==", b"=")
_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
BEARER_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})
"""RFC 9068 section 4 and, because most issuers write nothing better, plain `JWT`."""
_MEANING_CHANGED = ("crit", "b64", "zip", "enc", "p2c")
# RFC 8725 3.12: an ID token or a logout token is no access token. RFC 9449, RFC 8705: one with
# `cnf` is bound to a key whose possession was not proven here.
_NOT_OF_A_BEARER = frozenset(("nonce", "at_hash", "c_hash", "s_hash", "events", "cnf"))
UNFIT_FOR_A_FIELD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Controls, line separators, lone surrogates: what must not get near a field value or a log."""


class SignedText(msgspec.Struct, frozen=True, gc=False):
    """A JWS in compact form whose header is in order; its payload has not been looked at."""

    algorithm: str
    kid: str | None
    payload: bytes
    signing_input: bytes
    """What the signature is over (RFC 7515 section 5.1): the first two parts as they came."""
    signature: bytes


class UnverifiedToken(msgspec.Struct, frozen=True):
    """A token that is well formed. Nothing in it may be believed yet."""

    signed: SignedText
    claims: Mapping[str, Any]


def read_json_object(raw: bytes) -> dict[str, Any]:
    """Read a JSON object in which no name comes twice, at any depth.

    Raises:
        ValueError: not such an object, not UTF-8, NaN or Infinity, a lone surrogate, too deep.
    """
    try:
        # msgspec is strict about surrogates, numbers and UTF-8; only `json` shows every pair.
        value = msgspec.json.decode(raw)
        # What is written back as the very same bytes had no name twice: a dict has none. So most
        # issuers' tokens are read; those that were written with spaces, say, are read once more.
        if msgspec.json.encode(value) != raw:
            value = _pairs.decode(raw.decode())
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError("not strict JSON") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the input's fault, not the caller's
    return value


def read_token(token: str, *, types: frozenset[str] = BEARER_TYPES) -> UnverifiedToken | Reason:
    """Read *token* without believing it, or say what is wrong with its form; see `read_compact`."""
    read = read_compact(token, types=types)
    if isinstance(read, Reason):
        return read
    try:
        claims = read_json_object(read.payload)
    except ValueError:
        return Reason.TOKEN_MALFORMED
    if b"\\u0000" in read.payload:
        return Reason.TOKEN_CLAIMS  # whoever reads a claim in C sees it end there
    return UnverifiedToken(read, claims)


def read_compact(token: str, *, types: frozenset[str] = BEARER_TYPES) -> SignedText | Reason:
    """Read the compact form of *token* and its header (RFC 7515 section 5.2).

    *types* are the values of `typ` (lower case) that a token in this role may have; one without
    `typ` counts as `jwt` (RFC 8725 section 3.11).
    """
    if len(token) > LONGEST_TOKEN:
        return Reason.TOKEN_MALFORMED
    compact = _COMPACT.fullmatch(token.encode("utf-8", "surrogatepass"))
    if compact is None:
        return Reason.TOKEN_MALFORMED
    signing_input, first, second, third = compact.groups()
    try:
        header = _read_header(first, types)
        payload, signature = decode_base64url(second), decode_base64url(third)
    except ValueError:
        return Reason.TOKEN_MALFORMED
    if isinstance(header, Reason):
        return header
    return SignedText(*header, payload, signing_input, signature)


def issuer_of(token: UnverifiedToken) -> str:
    """Return the issuer the token names, or an empty string."""
    issuer = token.claims.get("iss")
    return issuer if isinstance(issuer, str) else ""


def check_claims(claims: Mapping[str, Any], issuer: TokenIssuer, now: float) -> Reason | None:
    """Check the registered claims against *issuer* at *now* (epoch seconds).

    `exp`, `iat`, `iss`, `aud` and `sub` are required (RFC 9068 section 2.2).
    """
    if claims.get("iss") != issuer.issuer:  # RFC 8725 3.8: exact, no prefix, no trailing slash
        return Reason.TOKEN_ISSUER_UNKNOWN
    if not _names_us(claims.get("aud"), issuer):
        return Reason.TOKEN_AUDIENCE
    if not is_fit_text(claims.get("sub")):
        return Reason.TOKEN_CLAIMS
    if not _NOT_OF_A_BEARER.isdisjoint(claims):
        return Reason.TOKEN_CLAIMS
    return _check_times(claims, now)


def is_fit_text(value: object) -> bool:
    """Tell whether *value* is a non-empty text that may stand in a field value."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_TEXT
        and UNFIT_FOR_A_FIELD.search(value) is None
    )


@lru_cache(maxsize=64)  # an issuer writes the same header into all its tokens
def _read_header(part: bytes, types: frozenset[str]) -> tuple[str, str | None] | Reason:
    """Return the algorithm and the key's id, or what is wrong; raise `ValueError` if unreadable."""
    header = read_json_object(decode_base64url(part))
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or not algorithm:
        return Reason.TOKEN_ALGORITHM
    if any(name in header for name in _MEANING_CHANGED):
        return Reason.TOKEN_MALFORMED
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in types:
        return Reason.TOKEN_MALFORMED
    content_type = header.get("cty", "")
    if not isinstance(content_type, str) or content_type.lower().endswith("jwt"):
        return Reason.TOKEN_MALFORMED
    kid = header.get("kid")
    if "kid" in header and (not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST_KID):
        return Reason.TOKEN_MALFORMED
    return algorithm, kid


def _names_us(audience: object, issuer: TokenIssuer) -> bool:
    if isinstance(audience, str):
        return audience in issuer.audience
    if not isinstance(audience, list) or not audience:
        return False
    if not all(isinstance(name, str) for name in audience):
        return False
    known = [name in issuer.audience for name in audience]
    # A token for somebody else too can be replayed here by that somebody.
    return all(known) if issuer.strict_audience else any(known)


def _check_times(claims: Mapping[str, Any], now: float) -> Reason | None:
    expires_at, issued_at = numeric_date(claims.get("exp")), numeric_date(claims.get("iat"))
    not_before = numeric_date(claims["nbf"]) if "nbf" in claims else 0.0
    if expires_at is None or issued_at is None or not_before is None:
        return Reason.TOKEN_CLAIMS
    if expires_at <= now:
        return Reason.TOKEN_EXPIRED
    if max(issued_at, not_before) > now + CLOCK_SKEW:
        return Reason.TOKEN_NOT_YET_VALID
    if expires_at - issued_at > LONGEST_LIFETIME:
        return Reason.TOKEN_CLAIMS
    return None


def numeric_date(value: object) -> float | None:
    """Read a NumericDate (RFC 7519 section 2): a number, and neither text nor a boolean."""
    if type(value) is not int and type(value) is not float:
        return None
    return float(value) if 0 <= value <= _LATEST_TIME else None


def decode_base64url(part: bytes) -> bytes:
    """Decode unpadded base64url in its one canonical form.

    The unused low bits of the last character must be zero (RFC 4648 section 3.5): else one token
    would have several spellings.
    """
    remainder = len(part) % 4
    if part[-1] not in _LAST_BY_REMAINDER[remainder]:
        raise ValueError("not canonical base64url")
    # `base64.urlsafe_b64decode` does the same and takes half as long again.
    return a2b_base64(part.translate(_TO_STANDARD) + _PADDING[remainder])


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name of a JSON object comes twice")
    return value


_pairs = json.JSONDecoder(object_pairs_hook=_refuse_duplicates)
