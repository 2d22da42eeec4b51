"""From the claims of a verified token to an identity.

Without a mapping the registered names are read: `sub`, `name`, `email`, `roles`, `groups` and
`scope` (RFC 9068 section 2.2.3), `scp`, `tenant`. `tokens[].claims` of the route file replaces any
of them by a dotted path. A claim of the wrong type refuses the token: it is never guessed at.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from auth.decision import Reason
from auth.identity import Identity
from auth.revocation import token_ref
from auth.tokens import UNFIT_FOR_A_FIELD, is_fit_text, numeric_date
from config.model import TokenIssuer

_MOST_MEMBERS = 1000
"""Members of a list; with more it fills no part of an identity."""
_MISSING = object()


class UnfitClaimError(ValueError):
    """A claim that fills a part of the identity has the wrong type or unfit characters."""


def identity_of_claims(claims: Mapping[str, Any], issuer: TokenIssuer) -> Identity | Reason:
    """Return the identity that verified *claims* of *issuer* speak for.

    Returns:
        `Reason.TOKEN_CLAIMS` if a claim that is needed is missing or one that is read is unfit.
    """
    try:
        return _map_claims(claims, issuer)
    except UnfitClaimError:
        return Reason.TOKEN_CLAIMS


def claim_at(claims: Mapping[str, Any], path: str) -> object:
    """Return the claim at dotted *path*, or None.

    A name may contain dots itself (`https://example.com/roles`, `my.client`): at each level the
    longest name that is there wins.
    """
    if "." not in path:  # nearly always, and seven times for each new token
        return claims.get(path)
    found = _find(claims, path)
    return None if found is _MISSING else found


def _find(claims: object, path: str) -> object:
    if not isinstance(claims, Mapping):
        return _MISSING
    end = len(path)
    while end > 0:
        name = path[:end]
        if name in claims:
            if end == len(path):
                return claims[name]
            deeper = _find(claims[name], path[end + 1 :])
            if deeper is not _MISSING:
                return deeper
        end = path.rfind(".", 0, end)
    return _MISSING


def _map_claims(claims: Mapping[str, Any], issuer: TokenIssuer) -> Identity:
    paths = issuer.claims
    found: Iterable[Any] = map(claims.get, _REGISTERED.values())
    if paths:
        found = (claim_at(claims, paths.get(part, name)) for part, name in _REGISTERED.items())
    subject, name, tenant, email, roles, groups, scopes = found
    if not is_fit_text(subject):
        raise UnfitClaimError("subject")
    if scopes is None and "scopes" not in paths:
        scopes = claims.get("scp")
    jti, expires_at = claims.get("jti"), float(claims["exp"])
    return Identity(
        subject=subject,
        method="bearer",
        name=_text(name),
        tenant=_text(tenant),
        email=_email(claims, email, mapped="email" in paths),
        roles=_texts(roles),
        groups=_texts(groups),
        scopes=_scopes(scopes),
        auth_time=_whole_seconds(claims.get("auth_time")),
        amr=_texts(claims.get("amr")),
        acr=_acr(claims.get("acr")),
        issuer=issuer.issuer,
        token=token_ref(
            issuer=issuer.issuer,
            subject=subject,
            jti=jti if isinstance(jti, str) else "",
            issued_at=numeric_date(claims.get("iat")) or 0.0,
            expires_at=expires_at,
        ),
        expires_at=expires_at,
        claims=claims,
    )


_REGISTERED = {
    "subject": "sub",
    "name": "name",
    "tenant": "tenant",
    "email": "email",
    "roles": "roles",
    "groups": "groups",
    "scopes": "scope",
}
"""The parts of an identity that a route file may map, and the claims that fill them otherwise."""


def _text(value: object) -> str:
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not is_fit_text(value):
        raise UnfitClaimError("not a text that may be passed on")
    return value


def _acr(value: object) -> str:
    """Read `acr`; one that is no text says nothing, and so opens nothing."""
    return value if isinstance(value, str) and is_fit_text(value) else ""


def _texts(value: object) -> tuple[str, ...]:
    """Read a list of texts; a single text is one member, never its characters."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (_text(value),) if value else ()
    if not isinstance(value, list) or len(value) > _MOST_MEMBERS:
        raise UnfitClaimError("not a list of texts")
    if not all(map(is_fit_text, value)):
        raise UnfitClaimError("a member is not a text that may be passed on")
    return tuple(value)


def _scopes(value: object) -> tuple[str, ...]:
    """Read scopes: a text is split at spaces (RFC 6749 section 3.3), a list taken as it is."""
    if not isinstance(value, str):
        scopes = _texts(value)
        if any(" " in scope for scope in scopes):
            raise UnfitClaimError("a scope has no space")
        return scopes
    if UNFIT_FOR_A_FIELD.search(value):
        raise UnfitClaimError("scope")
    return tuple(part for part in value.split(" ") if part)


def _email(claims: Mapping[str, Any], value: object, *, mapped: bool) -> str:
    """Return the address if it may be passed on as one.

    An address that the issuer has not verified is somebody's wish. When the operator names the
    claim, only an explicit `email_verified: false` keeps it back.
    """
    verified = claims.get("email_verified", mapped)
    if verified is not True:
        return ""
    address = _text(value)
    local, at, domain = address.partition("@")
    # One @ and a plain dot-atom: no reader can split it at another place (CVE-2026-40574).
    if address and (not at or "@" in domain or not local or not domain or _ODD & set(address)):
        raise UnfitClaimError("email")
    return address


_ODD = frozenset(' "<>()[],;:\\')


def _whole_seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value < 2**53 else 0
