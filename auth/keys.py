"""Keys as values: what an issuer publishes (JWKS), and the keys that sign our own assertions."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from auth.tokens import read_json_object

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey

ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""What a configured issuer may sign with: asymmetric algorithms only (RFC 8725 section 3.1)."""
LARGEST_JWKS = 1024 * 1024
"""Bytes of a JWKS or discovery document; the largest seen at a public issuer is below 20 KiB."""
_MOST_KEYS = 200
"""In a key set: a long one would cost the event loop too much to read."""
_SMALLEST_RSA = 2048
"""Bits (RFC 7518 section 3.3); above `_LARGEST_RSA` a signature costs the event loop too much."""
_LARGEST_RSA = 8192
_POWERS_OF_65537 = tuple(
    (prime, frozenset(pow(65537, exponent, prime) for exponent in range(prime - 1)))
    for prime in (
        *(3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89),
        *(97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167),
    )
)
_CURVE_BY_ALGORITHM = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


class KeySetError(ValueError):
    """A JWKS document that cannot be read, or that holds no key we may use."""


class VerificationKey(msgspec.Struct, frozen=True):
    """A public key of an issuer, and the algorithm it is bound to, if its JWK names one."""

    kid: str | None
    algorithm: str | None
    key: Any
    thumbprint: str

    def fits(self, algorithm: str) -> bool:
        """Tell whether a signature made with *algorithm* may be checked with this key."""
        if algorithm not in ALGORITHMS or self.algorithm not in (None, algorithm):
            return False
        if algorithm.startswith(("RS", "PS")):
            return isinstance(self.key, rsa.RSAPublicKey)
        if algorithm == "EdDSA":
            return isinstance(self.key, Ed25519PublicKey)
        curve = _CURVE_BY_ALGORITHM.get(algorithm)
        return isinstance(self.key, ec.EllipticCurvePublicKey) and self.key.curve.name == curve


class KeySet(msgspec.Struct, frozen=True):
    """The keys of one issuer. They are never mixed with another issuer's (RFC 9700 4.4)."""

    keys: tuple[VerificationKey, ...]
    skipped: int = 0
    """Entries that were left out: of an unfit kind, too weak, or not for signatures."""

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the one key for *kid* and *algorithm*.

        A token without `kid` is served only when there is no choice. Two keys that both fit are
        no key: which one was meant is for nobody to guess.
        """
        fitting = [
            key for key in self.keys if (kid is None or key.kid == kid) and key.fits(algorithm)
        ]
        return fitting[0] if len(fitting) == 1 else None


def read_key_set(document: bytes) -> KeySet:
    """Read a JWKS (RFC 7517 section 5).

    Left out: symmetric and private keys, keys not for signatures, RSA below 2048 bits, with a small
    exponent or of ROCA's making, kinds and curves that `ALGORITHMS` does not use.

    Raises:
        KeySetError: not a JWKS, or nothing in it may be used.
    """
    try:
        entries = read_json_object(document).get("keys")
    except ValueError as error:
        raise KeySetError(str(error)) from error
    if not isinstance(entries, list):
        raise KeySetError("it has no list of keys")
    if len(entries) > _MOST_KEYS:
        raise KeySetError(f"it has more than {_MOST_KEYS} keys")
    read = [_read_key(entry) for entry in entries]
    keys = {key.thumbprint + str(key.kid): key for key in read if key is not None}
    if not keys:
        raise KeySetError("none of its keys may be used to verify signatures")
    return KeySet(tuple(keys.values()), skipped=read.count(None))


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the JWK thumbprint (RFC 7638) of a public or private key."""
    names = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
    members = {name: jwk[name] for name in names[jwk["kty"]]}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    return encode_base64url(hashlib.sha256(canonical).digest())


def encode_base64url(raw: bytes) -> str:
    """Return unpadded base64url (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _read_key(entry: object) -> VerificationKey | None:
    if not isinstance(entry, dict) or not _is_for_signatures(entry):
        return None
    kid, algorithm = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        return None
    if algorithm is not None and algorithm not in ALGORITHMS:
        return None
    key = _public_key(entry)
    if key is None:
        return None
    return VerificationKey(kid, algorithm, key, thumbprint(entry))


def _is_for_signatures(entry: dict[str, Any]) -> bool:
    """RFC 7517 4.2 and 4.3. A key that comes with its private part is nobody's secret any more."""
    if entry.get("kty") not in ("RSA", "EC", "OKP") or "d" in entry:
        return False
    if "use" in entry and entry["use"] != "sig":
        return False
    operations = entry.get("key_ops", ["verify"])
    return isinstance(operations, list) and "verify" in operations


def _public_key(entry: dict[str, Any]) -> PublicKey | None:
    readers: dict[str, Any] = {
        "RSA": jwt.algorithms.RSAAlgorithm,
        "EC": jwt.algorithms.ECAlgorithm,
        "OKP": jwt.algorithms.OKPAlgorithm,
    }
    try:
        key = readers[entry["kty"]].from_jwk(entry)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        return None
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        strong = _SMALLEST_RSA <= key.key_size <= _LARGEST_RSA and numbers.n % 2 == 1
        strong = strong and numbers.e % 2 == 1 and numbers.e >= 65537
        return key if strong and not _can_be_factored(numbers.n) else None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key if key.curve.name in _CURVE_BY_ALGORITHM.values() else None
    return key if isinstance(key, Ed25519PublicKey) else None


def _can_be_factored(modulus: int) -> bool:
    """Tell whether *modulus* was made as ROCA can factor it (CVE-2017-15361).

    Infineon's library took only primes that are a power of 65537 modulo many small primes, and then
    so is their product; of other moduli one in 2 ** 27 is.
    """
    return all(modulus % prime in powers for prime, powers in _POWERS_OF_65537)


class SigningKey(msgspec.Struct, frozen=True):
    """A key that signs identity assertions. Times are epoch seconds."""

    kid: str
    private_key: ec.EllipticCurvePrivateKey
    created_at: float
    active_at: float
    """From then on it signs; it is published before, so that no verifier meets it unprepared."""

    def __repr__(self) -> str:
        return f"SigningKey({self.kid})"


class KeyRing(msgspec.Struct, frozen=True):
    """The signing keys, oldest first. With none, nothing can be signed yet."""

    keys: tuple[SigningKey, ...] = ()

    def signing_key(self, now: float) -> SigningKey | None:
        """Return the youngest key that is active at *now*; the oldest if none is yet."""
        active = [key for key in self.keys if key.active_at <= now]
        return active[-1] if active else next(iter(self.keys), None)

    def published(self, now: float, retain_for: float) -> tuple[SigningKey, ...]:
        """Return the keys that verifiers must know at *now*.

        A key is kept for *retain_for* seconds after its successor became active: until then an
        assertion that it signed may still be alive.
        """
        return tuple(
            key
            for key, successor in zip_longest(self.keys, self.keys[1:])
            if successor is None or now < successor.active_at + retain_for
        )


def signing_key(
    private_key: ec.EllipticCurvePrivateKey, created_at: float, active_at: float
) -> SigningKey:
    """Return *private_key* (P-256) under the name of its thumbprint."""
    return SigningKey(thumbprint(public_jwk(private_key)), private_key, created_at, active_at)


def public_jwk(private_key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """Return the public half as a JWK, without `kid`."""
    numbers = private_key.public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": encode_base64url(numbers.x.to_bytes(32, "big")),
        "y": encode_base64url(numbers.y.to_bytes(32, "big")),
    }


def key_set_document(keys: Sequence[SigningKey]) -> dict[str, object]:
    """Return the JWKS (RFC 7517) that publishes *keys*; without any private part."""
    return {
        "keys": [
            {**public_jwk(key.private_key), "use": "sig", "alg": "ES256", "kid": key.kid}
            for key in keys
        ]
    }


def to_pem(key: SigningKey) -> str:
    """Return the private key as PKCS #8 text. Secret: for the store only."""
    return key.private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def from_pem(text: str, created_at: float, active_at: float) -> SigningKey:
    """Read what `to_pem` wrote.

    Raises:
        ValueError: not a P-256 private key.
    """
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError("not a P-256 private key")
    return signing_key(key, created_at, active_at)
