"""Sealing what the store keeps for a session, so that only its cookie opens it, and other secrets.

The store knows a session by the SHA-256 of its cookie value. The key here is made of the cookie
value itself (256 random bits), which no gateway keeps: whoever reads the store, a backup or the
replication, cannot open what is sealed, and neither can we until the browser comes again.
"""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


def seal(secret: str, content: bytes, *, purpose: str) -> bytes:
    """Return *content* encrypted and authenticated (AES-256-GCM) for *purpose*.

    *secret* is random, 128 bits or more: a session's cookie value, or a key of ours.
    """
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + _cipher(secret, purpose).encrypt(nonce, content, None)


def unseal(secret: str, sealed: bytes, *, purpose: str) -> bytes | None:
    """Return what `seal` was given; None if it was not sealed with *secret* for *purpose*."""
    nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
    try:
        return _cipher(secret, purpose).decrypt(nonce, rest, None)
    except (InvalidTag, ValueError):
        return None


def _cipher(secret: str, purpose: str) -> AESGCM:
    derive = HKDF(SHA256(), length=32, salt=None, info=f"doorward {purpose} 1".encode())
    return AESGCM(derive.derive(secret.encode("utf-8", "surrogatepass")))
