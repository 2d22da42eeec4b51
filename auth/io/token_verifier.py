"""Who a bearer token speaks for: every gate of `auth.tokens`, the signature, and the memory.

A token that was accepted is remembered by the SHA-256 of all of it until it expires, or until its
issuer's keys change. What is remembered is who it speaks for, never what that person may do.
A token that was refused is not remembered: anybody can make up any number of those.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from auth.claims import identity_of_claims
from auth.decision import Reason
from auth.identity import Authenticated, Caller, Rejected
from auth.io.fetching import DocumentFetcher, Fetch
from auth.io.jwks import IssuerKeys
from auth.io.tasks import stop
from auth.keys import ALGORITHMS, VerificationKey
from auth.session import fits_fields
from auth.tokens import (
    SignedText,
    UnverifiedToken,
    check_claims,
    issuer_of,
    read_token,
)
from config.model import TokenIssuer

_MOST_TOKENS = 10_000
"""Remembered as good; the one accepted longest ago goes first."""
_LEAST_LOOK = 64
"""So many at least before those that have expired are looked for; afterwards, twice those that have
not: each new token pays for two looks, and no more than half of what is held is of no use.
"""
_MOST_CHARACTERS = 8 * 1024 * 1024
"""Of all tokens remembered together; their claims take about three times as much memory."""


class JwtVerifier:
    """The `TokenVerifier` port for JWTs, by signature alone; see `auth.revocable_tokens`.

    Args:
        issuers: who is believed; no two with the same name.
        fetch: gets documents by URL; by default over HTTP.
        clock: epoch seconds.
    """

    def __init__(
        self,
        issuers: tuple[TokenIssuer, ...],
        *,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuers = issuers
        self.hits = 0
        """Tokens that were known; `misses` counts the others."""
        self.misses = 0
        self._fetcher = DocumentFetcher()
        self._clock = clock
        self._keys_by_issuer = {
            issuer.issuer: IssuerKeys(
                issuer, fetch or self._fetcher, on_change=self._forget_of(issuer.issuer)
            )
            for issuer in issuers
        }
        if len(self._keys_by_issuer) != len(issuers):
            raise ValueError("an issuer is configured twice")
        # A plain dict would look at all it has forgotten lately to find its oldest entry.
        self._accepted: OrderedDict[bytes, tuple[Authenticated, int]] = OrderedDict()
        self._characters = 0
        self._look_at = _LEAST_LOOK
        self._tasks: list[asyncio.Task[None]] = []

    def __len__(self) -> int:
        """Return how many tokens are remembered."""
        return len(self._accepted)

    async def start(self) -> None:
        """Begin to load the keys and to keep them fresh; does not wait for them."""
        self._tasks = [
            asyncio.create_task(keys.keep_fresh()) for keys in self._keys_by_issuer.values()
        ]

    async def close(self) -> None:
        """Stop keeping the keys fresh and close the connections."""
        await stop(*self._tasks)
        self._tasks = []
        for keys in self._keys_by_issuer.values():
            await keys.close()
        await self._fetcher.close()

    def peek(self, token: str) -> Caller | None:
        """Return the verdict on a token seen before; None says nothing. Never raises."""
        return self._recall(_digest(token))

    def _recall(self, digest: bytes) -> Caller | None:
        held = self._accepted.get(digest)
        if held is None:
            return None
        self.hits += 1
        caller = held[0]
        if caller.identity.expires_at <= self._clock():
            return Rejected(Reason.TOKEN_EXPIRED)
        return caller

    async def verify(
        self,
        token: str,
        *,
        serve_cached: float = 0.0,  # noqa: ARG002 - a store's outage; there is no store here
    ) -> Caller:
        """Return who *token* speaks for, or why for nobody.

        Raises:
            AuthUnavailable: the issuer's keys could not be had.
        """
        verdict = self.verify_at_once(token)
        if verdict is not None:
            return verdict
        self.misses += 1
        step = self._check_before_key(token)
        if isinstance(step, Rejected):
            return step
        read, keys = step
        key = await keys.find(read.signed.kid, read.signed.algorithm)
        if key is None:
            return Rejected(Reason.TOKEN_KEY_UNKNOWN)
        return self._check(token, _digest(token), step, key)

    def verify_at_once(self, token: str) -> Caller | None:
        """Return the verdict if it can be given without waiting; None says nothing. Never raises.

        For a token seen before, one that no key could make good, and any other whose key is here.
        """
        digest = _digest(token)
        known = self._recall(digest)
        if known is not None:
            return known
        step = self._check_before_key(token)
        if isinstance(step, Rejected):
            self.misses += 1
            return step
        read, keys = step
        key = keys.find_at_hand(read.signed.kid, read.signed.algorithm)
        if key is None:
            return None
        self.misses += 1
        return self._check(token, digest, step, key)

    def _check_before_key(self, token: str) -> "tuple[UnverifiedToken, IssuerKeys] | Rejected":
        """Take every gate but the signature's."""
        read = read_token(token)
        if isinstance(read, Reason):
            return Rejected(read)
        # The issuer first, then the key: no issuer's key ever serves another's token.
        keys = self._keys_by_issuer.get(issuer_of(read))
        if keys is None:
            return Rejected(Reason.TOKEN_ISSUER_UNKNOWN)
        algorithm = read.signed.algorithm
        if algorithm not in keys.issuer.algorithms or algorithm not in ALGORITHMS:
            return Rejected(Reason.TOKEN_ALGORITHM)
        fault = check_claims(read.claims, keys.issuer, self._clock())
        return (read, keys) if fault is None else Rejected(fault)

    def _check(
        self,
        token: str,
        digest: bytes,
        step: "tuple[UnverifiedToken, IssuerKeys]",
        key: VerificationKey,
    ) -> Caller:
        """Take the signature's gate. Nothing waits, so the key is in force when it is kept."""
        read, keys = step
        if not is_signed(read.signed, key):
            return Rejected(Reason.TOKEN_SIGNATURE)
        identity = identity_of_claims(read.claims, keys.issuer)
        if isinstance(identity, Reason):
            return Rejected(identity)
        if not fits_fields(identity, identity.scopes):
            return Rejected(Reason.TOKEN_CLAIMS)
        return self._remember(digest, Authenticated(identity), len(token))

    def status(self) -> list[dict[str, object]]:
        """Return for each issuer how its keys are, for operators."""
        return [
            {
                "issuer": name,
                "keys": 0 if (held := keys.key_set()) is None else len(held.keys),
                "loads": keys.loads,
                "last_error": keys.last_error,
            }
            for name, keys in self._keys_by_issuer.items()
        ]

    def _remember(self, digest: bytes, caller: Authenticated, characters: int) -> Authenticated:
        if digest in self._accepted:  # two requests verified it at the same time
            self._forget(digest)
        elif len(self._accepted) >= self._look_at:
            self._forget_expired()
        self._accepted[digest] = (caller, characters)
        self._characters += characters
        while len(self._accepted) > _MOST_TOKENS or self._characters > _MOST_CHARACTERS:
            _, (_, length) = self._accepted.popitem(last=False)  # the one accepted longest ago
            self._characters -= length
        return caller

    def _forget_expired(self) -> None:
        now = self._clock()
        for digest, (caller, _) in tuple(self._accepted.items()):
            if caller.identity.expires_at <= now:
                self._forget(digest)
        self._look_at = max(_LEAST_LOOK, 2 * len(self._accepted))

    def _forget(self, digest: bytes) -> None:
        self._characters -= self._accepted.pop(digest)[1]

    def _forget_of(self, issuer: str) -> Callable[[], None]:
        def forget() -> None:
            for digest, (caller, _) in tuple(self._accepted.items()):
                if caller.identity.issuer == issuer:
                    self._forget(digest)

        return forget


_algorithms = {name: jwt.get_algorithm_by_name(name) for name in ALGORITHMS}
_ECDSA = {
    "ES256": (ec.ECDSA(hashes.SHA256()), 32),
    "ES384": (ec.ECDSA(hashes.SHA384()), 48),
    "ES512": (ec.ECDSA(hashes.SHA512()), 66),
}
"""What OpenSSL is told, and the bytes of each half of a signature (RFC 7518 section 3.4)."""


def is_signed(text: SignedText, key: VerificationKey) -> bool:
    """Tell whether *text* has a good signature by the algorithm it names and *key*.

    The form, the algorithm and the kind and size of the key were checked before (`read_compact`,
    `VerificationKey.fits`, `read_key_set`), so that nothing of the token is read a second time.
    """
    algorithm = text.algorithm
    try:
        if algorithm in _ECDSA:
            return _is_signed_by_ecdsa(text, key.key, *_ECDSA[algorithm])
        verify = _algorithms[algorithm].verify
        return verify(text.signing_input, key.key, text.signature) is True
    except Exception:  # noqa: BLE001 - PyJWT and OpenSSL raise many kinds; every one means no
        return False


def _is_signed_by_ecdsa(
    text: SignedText, key: ec.EllipticCurvePublicKey, algorithm: ec.ECDSA, size: int
) -> bool:
    """Do what PyJWT does for one of these: a tenth of the cost of a new token was around it."""
    signature = text.signature
    if len(signature) != 2 * size:
        return False
    r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
    key.verify(encode_dss_signature(r, s), text.signing_input, algorithm)
    return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
