"""The signed identity assertion that upstreams get (docs/identity.md).

How this works: an assertion is signed once for what it says, and reused until half of its life is
over; what a request pays is one look-up. An upstream thus always sees an assertion that is good for
at least half of `ttl`. A session's digest is part of what is said, so no two sessions share one;
bearer tokens that say the same of the same subject do, for who gets a new one for each call is not
to wait for a signature as well. The memory is bounded; an assertion that was pushed out is simply
signed again. Signing is pure: ECDSA with the deterministic nonce of RFC 6979, the clock an
argument, the `jti` from a source given by the caller.

`use` brings in new keys; what the old ones signed stays good until it expires.
"""

import json
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from auth.decision import Reason
from auth.identity import Identity
from auth.keys import KeyRing, SigningKey, encode_base64url, key_set_document
from auth.ports import AuthUnavailable
from config.model import Assertion

RETAIN_FOR = 3600.0
"""Seconds a replaced key stays published at least; longer than any sensible `ttl`."""
_MOST_ASSERTIONS = 20_000
"""About 25 MB at 1,200 bytes each; a worker that sees more credentials signs some again."""
_ES256 = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


class _Signed(msgspec.Struct):
    """An assertion at hand."""

    assertion: str
    signed_at: float
    renew_at: float
    expires_at: float


_Said = tuple[object, ...]


class AssertionSigner:
    """Makes identity assertions and remembers them.

    Args:
        settings: issuer and `ttl` (seconds) of the assertions.
        ring: the keys; may be empty until `use` brings some.
        new_id: returns a fresh `jti`.
        capacity: how many assertions are remembered.
    """

    def __init__(
        self,
        settings: Assertion,
        ring: KeyRing,
        *,
        new_id: Callable[[], str],
        capacity: int = _MOST_ASSERTIONS,
    ) -> None:
        self._settings = settings
        self._ring = ring
        self._new_id = new_id
        self._capacity = capacity
        self._signed: OrderedDict[_Said, _Signed] = OrderedDict()
        self._header_by_kid: dict[str, str] = {}
        self.signatures = 0
        """How many assertions were signed so far."""

    def __len__(self) -> int:
        """Return how many assertions are remembered."""
        return len(self._signed)

    def assertion_for(self, identity: Identity, audience: str, now: float) -> str:
        """Return an assertion of *identity* for the upstream *audience* at *now* (epoch seconds).

        Raises:
            AuthUnavailable: there is no key to sign with yet.
        """
        said = (
            audience,
            identity.session_digest,
            identity.subject,
            identity.tenant,
            identity.roles,
            identity.scopes,
            identity.amr,
            identity.acr,
            identity.auth_time,
        )
        held = self._signed.get(said)
        if (
            held is not None
            and held.signed_at <= now < held.renew_at
            # One token may end before another that says the same.
            and (held.expires_at <= identity.expires_at or identity.expires_at <= 0)
        ):
            return held.assertion
        return self._sign_and_hold(said, identity, audience, now=now)

    def use(self, ring: KeyRing) -> None:
        """Sign with *ring* from now on."""
        self._ring = ring

    def jwks(self, now: float) -> dict[str, object]:
        """Return the JWKS document of the keys whose assertions may be alive at *now*."""
        retain_for = max(RETAIN_FOR, 2 * self._settings.ttl)
        return key_set_document(self._ring.published(now, retain_for))

    def _sign_and_hold(self, said: _Said, identity: Identity, audience: str, *, now: float) -> str:
        self._signed.pop(said, None)
        # Two that were signed longest ago for each new one: of people who are gone nothing stays.
        for longest_ago in tuple(islice(self._signed, 2)):
            is_full = len(self._signed) >= self._capacity
            if is_full or self._signed[longest_ago].renew_at <= now:
                del self._signed[longest_ago]
        expires_at = self._expires_at(identity, now)
        assertion = self._sign(identity, audience, now=now, expires_at=expires_at)
        renew_at = now + (expires_at - now) / 2
        self._signed[said] = _Signed(assertion, now, renew_at, expires_at)
        return assertion

    def _expires_at(self, identity: Identity, now: float) -> float:
        """An assertion never outlives the session or token it speaks of."""
        end = now + self._settings.ttl
        return min(end, identity.expires_at) if identity.expires_at > 0 else end

    def _sign(self, identity: Identity, audience: str, *, now: float, expires_at: float) -> str:
        key = self._ring.signing_key(now)
        if key is None:
            raise AuthUnavailable(
                "no key to sign identity assertions with", reason=Reason.KEYS_UNAVAILABLE
            )
        claims = _claims(identity)
        claims |= {"iss": self._settings.issuer, "aud": audience, "jti": self._new_id()}
        # Whole seconds, rounded down: `exp` minus `iat` is never more than `ttl`.
        issued_at = int(now)
        claims |= {
            "iat": issued_at,
            "exp": min(int(expires_at), issued_at + int(self._settings.ttl)),
        }
        payload = encode_base64url(json.dumps(claims, separators=(",", ":")).encode())
        self.signatures += 1
        return sign_es256(f"{self._header(key)}.{payload}", key)

    def _header(self, key: SigningKey) -> str:
        header = self._header_by_kid.get(key.kid)
        if header is None:
            text = json.dumps({"alg": "ES256", "kid": key.kid, "typ": "JWT"}, separators=(",", ":"))
            header = self._header_by_kid[key.kid] = encode_base64url(text.encode())
        return header


def sign_es256(signing_input: str, key: SigningKey) -> str:
    """Return the JWS in compact form (RFC 7515 7.1, RFC 7518 3.4: r and s, 32 bytes each)."""
    r, s = decode_dss_signature(key.private_key.sign(signing_input.encode(), _ES256))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return f"{signing_input}.{encode_base64url(signature)}"


def _claims(identity: Identity) -> dict[str, object]:
    """Return what is said of *identity*; no `sid` without a session, no time that is not known."""
    claims: dict[str, object] = {
        "sub": identity.subject,
        "tenant": identity.tenant,
        "roles": list(identity.roles),
        "scopes": list(identity.scopes),
        "amr": list(identity.amr),
    }
    if identity.session_digest:
        claims["sid"] = identity.session_digest
    if identity.acr:
        claims["acr"] = identity.acr
    if identity.auth_time:
        claims["auth_time"] = identity.auth_time
    return claims
