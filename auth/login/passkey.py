"""A passkey as a value (W3C WebAuthn), and who we are to an authenticator."""

import hashlib
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

MOST_PASSKEYS = 20
"""Of one account: enough for every device of a person, and a list that a page can show."""
LONGEST_NAME = 60
"""Characters of what a person calls a passkey."""


class Passkey(msgspec.Struct, frozen=True):
    """A credential that somebody's authenticator made for us. Times are epoch seconds."""

    id: str
    """The credential ID, base64url."""
    subject: str
    name: str
    """What its owner calls it."""
    public_key: bytes
    """A COSE_Key (RFC 9052 section 7)."""
    sign_count: int
    """As the authenticator told it last; 0: it does not count."""
    transports: tuple[str, ...]
    """How the authenticator can be reached, as a hint for browsers."""
    aaguid: str
    """The authenticator's model, as it says."""
    backup_eligible: bool
    """Whether the key may be copied to other devices of its owner."""
    backed_up: bool
    created_at: float
    used_at: float = 0.0
    """0: not yet."""

    def methods(self, *, user_verified: bool) -> tuple[str, ...]:
        """Return what a sign-in with it says in `amr` (RFC 8176 section 2).

        A key that stays in its authenticator is `hwk`, one that may be copied `swk`. The
        authenticator that saw to it who is using it (a PIN, a finger) makes two factors of one.
        """
        key = "swk" if self.backup_eligible else "hwk"
        return (key, "user", "mfa") if user_verified else (key, "user")


def user_handle(subject: str) -> bytes:
    """Return what authenticators keep to tell accounts apart (WebAuthn section 5.4.3).

    64 bytes at most, and nothing about a person (section 14.6.1): a subject that a directory tells
    may be longer, and have a name in it.
    """
    return hashlib.sha256(b"doorward user handle\0" + subject.encode()).digest()


class RelyingParty(msgspec.Struct, frozen=True):
    """Whom passkeys are made for. Only pages of `origin` can use them: that stops phishing."""

    id: str
    """The RP ID: the host of `origin`, without a port."""
    origin: str
    name: str
    """What authenticators call us."""

    @classmethod
    def at(cls, url: str, *, name: str) -> "RelyingParty | None":
        """Return what we are at *url*; None where browsers offer no passkeys.

        That is on plain http, but for `localhost`, and where the host is an address
        (WebAuthn Level 3 sections 5.1.3 and 13.4.9).
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        local = host == "localhost" or host.endswith(".localhost")
        if not (parts.scheme == "https" or (parts.scheme == "http" and local)):
            return None
        try:
            ip_address(host)
        except ValueError:
            default = {"https": 443, "http": 80}[parts.scheme]
            port = f":{parts.port}" if parts.port not in (None, default) else ""
            return cls(host, f"{parts.scheme}://{host}{port}", name or host)
        return None
