"""Where a form was sent from: the defence against requests that another site makes for a person.

How this works. A browser attaches the session cookie to what a foreign page makes it send, so a
POST proves nothing by its cookie. In this order:

1. `Origin` (RFC 6454 section 7): every browser of this decade sends it with a POST, and no page
   can choose it. It must be one of our own origins. `null` (a sandboxed frame, a `data:` page, a
   page with `Referrer-Policy: no-referrer`) is nobody's origin, and refused.
2. Without it, `Sec-Fetch-Site` (Fetch Metadata), which no page can choose either: `same-origin`,
   or `none` for what the person started without any page.
3. With neither, whoever sends this is no browser of this decade, and the form's token decides
   (`FormTokens`): a keyed digest of a random cookie and of the session at hand. Another site can
   read neither cookie, so it cannot make the token; one that it got for itself is bound to its own.

Sign-in has one more case: with neither field and no token, whoever sends this is a program (curl, a
test) that holds a user name and a password, with or without cookies of its own. It is let through,
because what this defence is against needs a browser, and a browser that sends neither field is
older than 2020. Signing out has no such case.

The page itself must not be sent with `Referrer-Policy: no-referrer`: browsers then write
`Origin: null` into its forms (Fetch, "append a request Origin header").
"""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NONCE = re.compile(r"[A-Za-z0-9_-]{24}", re.ASCII)


class Provenance(StrEnum):
    """Who sent a form."""

    OWN = "own"
    """A page of this origin, or the person themselves."""
    FOREIGN = "foreign"
    UNKNOWN = "unknown"
    """The request says nothing of it."""


def origin_of(url: str) -> str:
    """Return the origin of *url* as browsers write it, or an empty string if it has none.

    Scheme and host in lower case, no default port (RFC 6454 section 6.2).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    host = parts.hostname
    if parts.scheme not in _DEFAULT_PORTS or not host or "@" in parts.netloc:
        return ""
    name = f"[{host}]" if ":" in host else host
    if port is None or port == _DEFAULT_PORTS[parts.scheme]:
        return f"{parts.scheme}://{name}"
    return f"{parts.scheme}://{name}:{port}"


def own_origins(*, public_url: str, origin: str, host: str) -> frozenset[str]:
    """Return the origins that count as ours for one request.

    They are the origin of *public_url* and the one that the request came to: *origin* as far as it
    is known, else *host* (the field's value). A page of another site cannot choose either, for
    both follow from the address the browser connected to. When *public_url* is https, ours all
    are, whatever a proxy before us speaks: a plain http origin could be anybody on the path.
    """
    public = origin_of(public_url)
    scheme, _, _ = public.partition("://")
    reached = origin_of(origin or f"{scheme}://{host}")
    if scheme == "https":
        reached = reached.replace("http://", "https://", 1)
    return frozenset({public, reached} - {""})


def provenance_of(fields: Mapping[str, str], own: frozenset[str]) -> Provenance:
    """Judge the fields `origin` and `sec-fetch-site` (lower-case names) against *own* origins."""
    origin = fields.get("origin")
    if origin is not None:
        # Exact text, not a parsed URL: browsers write origins in one way only.
        return Provenance.OWN if origin in own else Provenance.FOREIGN
    site = fields.get("sec-fetch-site")
    if site is not None:
        return Provenance.OWN if site in {"same-origin", "none"} else Provenance.FOREIGN
    return Provenance.UNKNOWN


class FormTokens:
    """Makes and checks the token that stands in each form."""

    def __init__(self, secret: bytes) -> None:
        """Take a *secret* of at least 32 bytes that all gateways of a store share."""
        if len(secret) < 32:
            raise ValueError("the secret of the form tokens needs at least 32 bytes")
        self._secret = secret

    def new_nonce(self) -> str:
        """Return a value for the form cookie: 144 random bits."""
        return secrets.token_urlsafe(18)

    def is_nonce(self, value: str) -> bool:
        """Tell whether *value* looks like one of `new_nonce`."""
        return _NONCE.fullmatch(value) is not None

    def token(self, nonce: str, session_digest: str) -> str:
        """Return the token for a form shown to the browser that holds *nonce* and the session."""
        message = f"doorward form 1\n{nonce}\n{session_digest}".encode()
        mac = hmac.digest(self._secret, message, hashlib.sha256)
        return urlsafe_b64encode(mac).rstrip(b"=").decode()

    def is_token(self, token: str, nonce: str, session_digest: str) -> bool:
        """Tell, in constant time, whether *token* was made for this nonce and session."""
        if not self.is_nonce(nonce):
            return False
        expected = self.token(nonce, session_digest)
        return hmac.compare_digest(token.encode(errors="replace"), expected.encode())
