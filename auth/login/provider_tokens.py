"""What is kept of a provider's tokens for a session, sealed so that only its cookie opens it."""

import msgspec

from auth.sealing import seal, unseal

_PURPOSE = "provider tokens"
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


def seal_tokens(cookie: str, kept: KeptTokens) -> bytes:
    """Return *kept*, sealed for the session whose cookie has the value *cookie*."""
    return seal(cookie, msgspec.json.encode(kept), purpose=_PURPOSE)


def open_tokens(cookie: str, sealed: bytes | None) -> KeptTokens | None:
    """Return what was sealed for *cookie*; None if that cannot be opened or read."""
    opened = unseal(cookie, sealed, purpose=_PURPOSE) if sealed else None
    if opened is None:
        return None
    try:
        return msgspec.json.decode(opened, type=KeptTokens)
    except msgspec.MsgspecError:
        return None
