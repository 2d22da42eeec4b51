"""The cookies of several sites that share one sign-in: each good for one session, at one host.

How this works (ADR 0008). People sign in at one origin, whose cookie value is the session's own:
its digest names the record. Another site gets a cookie that says `site.<digest of the session>.
<secret>` and nothing that could be used elsewhere. The record itself has the digest of each site's
secret, so whoever looks the session up knows whether a site's cookie opens it, with one look and no
second record: whatever ends the session ends it for every site in the same step.

A site's secret is made from the sign-in's cookie value and the host, so two tabs that arrive at
once get the same. Neither leads back to the cookie value, nor one site's secret to another's.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from typing import NamedTuple

from auth.session import SessionRecord, digest

_PREFIX = "site."
_FORM = re.compile(r"site\.([0-9a-f]{64})\.([A-Za-z0-9_-]{43})", re.ASCII)


class Opener(NamedTuple):
    """What a cookie value says: which session, and with what it wants to open it."""

    session_digest: str
    site_key: str = ""
    """The digest of a site's secret; empty for the session's own cookie."""
    secret: str = ""
    """That secret; empty for the session's own cookie."""


def read_cookie(value: str) -> Opener:
    """Return what *value* says. Nothing of it is proven: see `may_open`."""
    found = _FORM.fullmatch(value) if value.startswith(_PREFIX) else None
    if found is None:
        return Opener(digest(value))
    return Opener(found[1], digest(found[2]), found[2])


def is_site_cookie(value: str) -> bool:
    """Return whether *value* is good at one site only, if it is good at all."""
    return bool(read_cookie(value).site_key)


def may_open(record: SessionRecord, *, host: str, site_key: str) -> bool:
    """Return whether a site's cookie whose secret has the digest *site_key* is good at *host*."""
    known = record.sites.get(host)
    return known is not None and bool(site_key) and known.key == site_key


def site_cookie(session_digest: str, secret: str) -> str:
    """Return the cookie value that `read_cookie` reads."""
    return f"{_PREFIX}{session_digest}.{secret}"


def site_secret(cookie: str, host: str) -> str:
    """Return the secret of the site *host* for the session whose own cookie value is *cookie*."""
    return _derived(cookie, f"doorward site 1\n{host}")


def tokens_secret(cookie: str) -> str:
    """Return what seals the provider's tokens of the session whose own cookie value is *cookie*."""
    return _derived(cookie, "doorward provider tokens 1")


def _derived(cookie: str, purpose: str) -> str:
    # RFC 2104: a keyed digest; the cookie value is random, and as long as the digest.
    made = hmac.digest(cookie.encode("utf-8", "surrogateescape"), purpose.encode(), hashlib.sha256)
    return urlsafe_b64encode(made).rstrip(b"=").decode()
