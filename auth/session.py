"""The session record, as it stands in the store (docs/login.md), and the digest that names it.

The cookie value never reaches the store, a log or an upstream: everything is keyed by its SHA-256.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from auth.identity import Identity

LARGEST_RECORD = 64 * 1024
"""Bytes of a record in the store; every gateway that serves the session has a copy."""
LARGEST_IDENTITY = 8 * 1024
"""Bytes of the fields that backends would get: many of them take 8 KiB of one field, or of a whole
head, and answer 431 to every request of a person with more groups than that."""
_LONGEST_CHARACTER = 12
"""Bytes of a character in a field: four of UTF-8, percent-encoded."""


class SiteKey(msgspec.Struct, frozen=True):
    """What opens a session at one of several sites that share its sign-in (`auth.site_cookie`)."""

    key: str
    """The digest of the site's secret."""
    tokens: bytes = b""
    """What seals the provider's tokens, sealed with that secret (`auth.login.provider_tokens`)."""


# gc=False: no cycle can go through what was read from JSON, and each is 16 bytes less.
class SessionRecord(msgspec.Struct, frozen=True, omit_defaults=False, gc=False):
    """What the login service wrote about a session. Times are epoch seconds."""

    v: int
    subject: str
    created_at: float
    expires_at: float
    name: str = ""
    tenant: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    email: str = ""
    auth_time: float = 0
    amr: tuple[str, ...] = ()
    acr: str = ""
    claims: Mapping[str, object] = {}
    begun_on: str = ""
    """The device (`auth.login.device`), for the list that its owner sees."""
    begun_from: str = ""
    """The client's address, for the same."""
    refresh_at: float = 0
    """From when on its use is a reason to ask its provider for news of it; 0: never."""
    sites: Mapping[str, SiteKey] = {}
    """Beside the origin where it began: the hosts that it was handed on to."""


class MalformedRecord(ValueError):
    """The value under a session's key is no session record of version 1."""


def new_cookie_value() -> str:
    """Return 256 random bits, URL-safe (OWASP ASVS 7.2.3 asks for 128)."""
    return secrets.token_urlsafe(32)


def digest(cookie_value: str) -> str:
    """Return the lower-case hex SHA-256 of *cookie_value*, the session's name in the store."""
    return hashlib.sha256(cookie_value.encode("utf-8", "surrogateescape")).hexdigest()


def session_key(session_digest: str) -> str:
    """Return the key of the record; the braces are literal, they pin the cluster slot."""
    return f"doorward:session:{{{session_digest}}}"


_decode = msgspec.json.Decoder(SessionRecord).decode
_encode = msgspec.json.Encoder().encode


def parse_record(value: bytes) -> SessionRecord:
    """Read the JSON of a session record.

    Raises:
        MalformedRecord: not JSON, a required field is missing, a field has the wrong type, the
            version is not 1, or it is larger than `LARGEST_RECORD` or `LARGEST_IDENTITY`. Fields
            this version does not know are ignored.
    """
    if len(value) > LARGEST_RECORD:
        raise MalformedRecord(f"it has {len(value)} bytes, and {LARGEST_RECORD} may be")
    try:
        record = _decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # The last two: msgspec lets bytes that are no UTF-8 and endless nesting through as these.
        raise MalformedRecord(str(error)) from error
    if record.v != 1:
        raise MalformedRecord(f"version {record.v} is not 1")
    if not record.subject:
        raise MalformedRecord("subject is empty")
    if not fits_fields(record, record.scopes):
        raise MalformedRecord(f"its name, roles, groups and the like {TOO_LARGE}")
    return record


class _Person(Protocol):
    """Whoever backends are told of."""

    @property
    def subject(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def email(self) -> str: ...
    @property
    def roles(self) -> tuple[str, ...]: ...
    @property
    def groups(self) -> tuple[str, ...]: ...


TOO_LARGE = f"take more than {LARGEST_IDENTITY} bytes in the fields for backends"
"""What is wrong with a person whom `fits_fields` refuses; goes behind the names of their parts."""


def fits_fields(who: _Person, scopes: Iterable[str] = ()) -> bool:
    """Tell whether the parts of *who* and their *scopes* take `LARGEST_IDENTITY` bytes at most.

    As field values, percent-encoded where they must be. A part that no field is configured for
    counts as well.
    """
    lists = (*who.roles, *who.groups, *scopes)
    texts = "".join((who.subject, who.name, who.tenant, who.email, *lists))
    if len(texts) * _LONGEST_CHARACTER + len(lists) <= LARGEST_IDENTITY:  # as nearly always
        return True
    octets = texts.encode("utf-8", "surrogatepass")
    encoded = sum(octet < 0x20 or octet > 0x7E or octet in b"%," for octet in octets)
    return len(octets) + 2 * encoded + len(lists) <= LARGEST_IDENTITY


def encode_record(record: SessionRecord) -> bytes:
    """Return the JSON that `parse_record` reads."""
    return _encode(record)


def identity_of(record: SessionRecord, session_digest: str) -> Identity:
    """Return the identity that *record* vouches for."""
    return Identity(
        subject=record.subject,
        method="session",
        name=record.name,
        tenant=record.tenant,
        email=record.email,
        roles=record.roles,
        groups=record.groups,
        scopes=record.scopes,
        auth_time=int(record.auth_time or record.created_at),
        amr=record.amr,
        acr=record.acr,
        session_digest=session_digest,
        expires_at=record.expires_at,
        claims=record.claims,
        refresh_at=record.refresh_at,
    )
