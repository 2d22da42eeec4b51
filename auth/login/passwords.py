"""What a password may be, and the hash that stands in for one nobody has."""

import secrets
import unicodedata
from base64 import b64encode

from argon2 import PasswordHasher

from auth.login.account import canonical_login

MIN_CHARACTERS = 8
"""NIST SP 800-63B section 3.1.1.2: at least 8, and no rules about kinds of characters."""
MAX_BYTES = 1024
"""Far more than anybody types; bounds what a stranger can make us normalise and hash."""


class UnsuitablePassword(ValueError):
    """A new password that may not be used; the message says what to do."""


def normalised(password: str) -> bytes | None:
    """Return the bytes that are hashed, or None if *password* is longer than any password.

    NFKC (SP 800-63B section 3.1.1.2), so that an accent typed on another keyboard is the same.
    """
    if len(password) > MAX_BYTES:
        return None
    text = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    return text if len(text) <= MAX_BYTES else None


def check_new_password(password: str, *, login: str) -> None:
    """Raise `UnsuitablePassword` unless *password* may become the password of *login*."""
    text = normalised(password)
    if text is None:
        raise UnsuitablePassword(
            f"the password is longer than {MAX_BYTES} bytes; take a shorter one"
        )
    if len(text.decode("utf-8", "surrogatepass")) < MIN_CHARACTERS:
        raise UnsuitablePassword(
            f"the password needs at least {MIN_CHARACTERS} characters; a few words make a good one"
        )
    if canonical_login(password) == canonical_login(login):
        raise UnsuitablePassword("the password is the login name; take another one")


def decoy_hash(hasher: PasswordHasher) -> str:
    """Return a hash with the parameters of *hasher* that no password has.

    Verifying it costs the same as verifying a real one, so that the time of a sign-in does not
    tell which names exist (ASVS 5.0 6.3.8). Nothing is computed here.
    """
    parameters = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    salt, digest = (
        b64encode(secrets.token_bytes(length)).rstrip(b"=").decode()
        for length in (hasher.salt_len, hasher.hash_len)
    )
    return f"$argon2id$v=19${parameters}${salt}${digest}"
