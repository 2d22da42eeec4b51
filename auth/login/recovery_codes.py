"""Recovery codes: the way in for somebody who lost the other second factor (SP 800-63B 3.1.2).

Each is 80 random bits, works once, and only its hash is kept: there is nothing to guess, so a plain
hash, bound to the account, is enough.
"""

import base64
import hashlib
import secrets

HOW_MANY = 10
_BYTES = 10
_GROUP = 4


def new_codes() -> tuple[str, ...]:
    """Return fresh codes, as they are shown."""
    return tuple(_shown(secrets.token_bytes(_BYTES)) for _ in range(HOW_MANY))


def code_digest(subject: str, code: str) -> str:
    """Return what is kept of *code*, however it is typed: case, spaces and hyphens do not count."""
    plain = "".join(character for character in code.lower() if character.isalnum())
    message = f"doorward recovery code 1\n{subject}\n{plain}"
    return hashlib.sha256(message.encode("utf-8", "surrogatepass")).hexdigest()


def _shown(random: bytes) -> str:
    text = base64.b32encode(random).decode().lower()
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))
