"""What is kept of a provider's tokens for a session, sealed so that only its cookies open it.

The key is a secret that is made of the session's own cookie value. A site that the session was
handed on to has another cookie; for it, the secret stands in the record, sealed with the site's
own (`auth.site_cookie`).
"""

import msgspec

from auth.sealing import seal, unseal
from auth.session import SessionRecord, SiteKey, digest
from auth.site_cookie import read_cookie, tokens_secret

_PURPOSE = "provider tokens"
_OF_SITE = "provider tokens of a site"
_AHEAD = 0.25
"""The part of an access token's life that is left when it is time for a new one."""


class KeptTokens(msgspec.Struct, frozen=True):
    """What a provider gave for one session. Secret, all of it."""

    provider: str
    """Its id."""
    id_token: str = ""
    """The last one that it gave."""
    is_signed: bool = True
    """Whether that came together with the access token."""
    access_token: str = ""
    refresh_token: str = ""
    expires_at: float = 0.0
    """Epoch seconds at which the access token expires."""
    refresh_at: float = 0.0
    """Epoch seconds from which on it is time for new ones; 0: there will be none."""

    def __repr__(self) -> str:
        return f"KeptTokens({self.provider!r}, …)"


def kept_tokens(  # noqa: PLR0913 - keyword-only
    provider: str,
    *,
    id_token: str,
    is_signed: bool,
    access_token: str,
    refresh_token: str,
    lifetime: float,
    now: float,
) -> KeptTokens:
    """Return what is kept of tokens that were given at *now* and live for *lifetime* seconds."""
    return KeptTokens(
        provider,
        id_token,
        is_signed,
        access_token,
        refresh_token,
        expires_at=now + lifetime,
        refresh_at=now + lifetime * (1 - _AHEAD) if refresh_token else 0.0,
    )


def site_key(cookie: str, secret: str) -> SiteKey:
    """Return what lets a site's cookie with *secret* open the session with its own *cookie*."""
    sealed = seal(secret, tokens_secret(cookie).encode(), purpose=_OF_SITE)
    return SiteKey(digest(secret), sealed)


def tokens_secret_of(cookie: str, record: SessionRecord | str | None) -> str:
    """Return the secret of the tokens of the session of *cookie*, one of a site or its own.

    *record* is the session's, as far as there is one; without it a site's cookie opens nothing.

    Returns:
        An empty text if there is none, which opens nothing.
    """
    opener = read_cookie(cookie)
    if not opener.site_key:
        return tokens_secret(cookie)
    if not isinstance(record, SessionRecord):
        return ""
    sealed = (each.tokens for each in record.sites.values() if each.key == opener.site_key)
    secret = unseal(opener.secret, next(sealed, b""), purpose=_OF_SITE)
    return secret.decode() if secret else ""


def seal_tokens(secret: str, kept: KeptTokens) -> bytes:
    """Return *kept*, sealed with the *secret* of its session (`tokens_secret`)."""
    return seal(secret, msgspec.json.encode(kept), purpose=_PURPOSE)


def open_tokens(secret: str, sealed: bytes | None) -> KeptTokens | None:
    """Return what was sealed with *secret*; None if that cannot be opened or read."""
    opened = unseal(secret, sealed, purpose=_PURPOSE) if sealed and secret else None
    if opened is None:
        return None
    try:
        return msgspec.json.decode(opened, type=KeptTokens)
    except msgspec.MsgspecError:
        return None
