"""From what a provider says of a person to a session record.

The subject is the provider's `sub`, behind the provider's namespace (`corp:248289761001`), so that
no two ways to sign in can mean the same person by accident or on purpose. Never an e-mail address:
those are given to somebody else one day. Which claims fill the rest is said in the route file
(`login.providers[].claims`), or known of the provider by its issuer.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from auth.claims import claim_at, identity_of_claims
from auth.decision import Reason
from auth.session import TOO_LARGE, SessionRecord, fits_fields
from config.model import Provider, TokenIssuer

LARGEST_CLAIMS = 16 * 1024
"""Bytes of JSON that go along with a session; every gateway that serves it has a copy."""
_OF_THE_PROTOCOL = frozenset(
    "aud azp exp iat nbf nonce at_hash c_hash s_hash jti events typ rat rt_hash".split()  # noqa: SIM905
)
_SIGNED_ONLY = _OF_THE_PROTOCOL | {"iss", "sid", "acr", "amr", "auth_time"}
"""Claims about the sign-in itself: believed from the ID token, never from userinfo."""


class UnfitProfile(ValueError):
    """The claims cannot become a session; the text is fit for a log."""


def merged_claims(id_token: Mapping[str, Any], userinfo: Mapping[str, Any]) -> dict[str, Any]:
    """Return both together; where both speak the signed one wins."""
    about_person = {name: each for name, each in userinfo.items() if name not in _SIGNED_ONLY}
    return about_person | dict(id_token)


def profile_of(
    provider: Provider, members: Mapping[str, Any], emails: bytes | None
) -> dict[str, Any]:
    """Return claims for what a provider without OpenID Connect says of a person.

    Nothing about the sign-in itself is among them: nothing of this is signed, or says for whom.
    *emails* is what GitHub answers about addresses (a JSON list), if it was asked.
    """
    claims = {name: each for name, each in members.items() if name not in _SIGNED_ONLY}
    claims["iss"] = provider.issuer
    path = provider.claims.get("subject", "sub")
    subject = claim_at(claims, path)
    if subject is None and "subject" not in provider.claims:
        subject = claims.get("id")
    # Many number their people. A number is as good as its text; true and 1.5 are not.
    claims["sub"] = str(subject) if type(subject) is int else subject
    if provider.protocol == "github":
        claims.pop("email", None)  # the public one: whatever they like
        claims["preferred_username"] = claims.get("login")
        claims["email"], claims["email_verified"] = _github_email(emails), True
    return {name: each for name, each in claims.items() if each is not None}


def _github_email(emails: bytes | None) -> str | None:
    try:
        listed = msgspec.json.decode(emails or b"[]", type=list[_GitHubEmail])
    except msgspec.MsgspecError:
        return None
    return next((each.email for each in listed if each.primary and each.verified), None)


class _GitHubEmail(msgspec.Struct):
    email: str
    primary: bool = False
    verified: bool = False


def refreshed_claims(
    before: Mapping[str, Any], signed: Mapping[str, Any], userinfo: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the claims after a refresh that brought *signed* (perhaps none) and *userinfo*.

    What was said about the sign-in itself stays as it was, unless it is said anew. A new ID token
    takes the place of the old one's claims: a role that it does not name any more is gone.
    """
    if not signed:
        return dict(before) | merged_claims({}, userinfo)
    kept = {name: each for name, each in before.items() if name in _SIGNED_ONLY}
    return kept | merged_claims(signed, userinfo)


def default_claims(issuer: str) -> dict[str, str]:
    """Return which claims fill which part, where that differs from the names of OpenID Connect."""
    parts = urlsplit(issuer)
    host = parts.hostname or ""
    if host == "accounts.google.com":
        return {"tenant": "hd"}
    if host in {"login.microsoftonline.com", "login.microsoftonline.us", "sts.windows.net"}:
        # `oid` is the person in their tenant; `sub` differs from one registered app to the next.
        return {"subject": "oid", "tenant": "tid"}
    if "/realms/" in parts.path:  # Keycloak
        return {"roles": "realm_access.roles"}
    if host == "gitlab.com":
        return {"groups": "groups_direct"}
    return {}


def record_of(
    claims: Mapping[str, Any], provider: Provider, *, created_at: float, expires_at: float
) -> SessionRecord:
    """Return the record of a new session for the person that *claims* are about.

    Raises:
        UnfitProfile: a claim that is read has the wrong type or unfit characters, or all of them
            together are too large.
    """
    paths = default_claims(provider.issuer) | dict(provider.claims)
    if provider.protocol != "openid":
        paths["subject"] = "sub"  # `profile_of` has put it there, as a text
    reader = TokenIssuer(
        issuer=provider.issuer, audience=(provider.client_id,), algorithms=(), claims=paths
    )
    who = identity_of_claims(claims, reader)
    if isinstance(who, Reason):
        raise UnfitProfile(
            "a claim that fills a part of the identity is missing, of the wrong type or unfit"
        )
    kept = {name: each for name, each in claims.items() if name not in _OF_THE_PROTOCOL}
    if len(msgspec.json.encode(kept)) > LARGEST_CLAIMS:
        raise UnfitProfile(f"the claims have more than {LARGEST_CLAIMS} bytes; map fewer of them")
    if not fits_fields(who, who.scopes):
        raise UnfitProfile(
            f"roles, groups and the rest {TOO_LARGE}; have the provider send fewer of them"
        )
    name = who.name or ("" if "name" in paths else _display_name(claims))
    return SessionRecord(
        v=1,
        subject=subject_of(provider, who.subject),
        created_at=created_at,
        expires_at=expires_at,
        name=name,
        tenant=who.tenant,
        roles=who.roles,
        groups=who.groups,
        scopes=who.scopes,
        email=who.email,
        auth_time=who.auth_time or created_at,
        amr=who.amr,
        acr=who.acr,
        claims=kept,
    )


def subject_of(provider: Provider, subject: str) -> str:
    """Return our subject for the one that *provider* calls *subject*."""
    return f"{provider.namespace}:{subject}" if provider.namespace else subject


def _display_name(claims: Mapping[str, Any]) -> str:
    """Return a name for pages, of a person whose profile has none."""
    for claim in ("preferred_username", "nickname"):
        name = claims.get(claim)
        if isinstance(name, str) and name.isprintable() and len(name) <= 256:
            return name
    return ""
