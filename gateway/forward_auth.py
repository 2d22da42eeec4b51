"""The request that another proxy asks about (nginx `auth_request`, Traefik, Caddy, Envoy).

Two families of fields tell which one it is: `X-Forwarded-Method`, `-Proto`, `-Host`, `-Uri`
(Traefik, Caddy, Envoy) and `X-Original-Method`, `X-Original-URL` (nginx). They are believed from a
trusted proxy only. nginx passes on what its own client sent, and so does Traefik: where both
families speak, one of them may be the attacker's, so they must agree (oauth2-proxy
CVE-2026-40575).
"""

import re
from typing import NamedTuple

import msgspec

from gateway.authority import read_authority
from gateway.bad_request import BadRequest
from gateway.head import RequestHead
from gateway.target import canonical

_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)(/.*)?", re.IGNORECASE)
_METHOD = re.compile(r"[A-Z][A-Z\-]{0,31}")


class _Asked(NamedTuple):
    method: str
    scheme: str
    authority: str
    target: str


def original_request(
    head: RequestHead, *, trusted: bool, allow_encoded_slash: bool = False
) -> RequestHead:
    """Return the request that *head* asks about: its own fields, with the original's first line.

    *trusted* says whether *head* came from a trusted proxy.

    Raises:
        BadRequest: 403 from anybody else; 400 when the fields are missing, odd or contradictory.
    """
    if not trusted:
        raise BadRequest(403, "Only a proxy named in server.trusted_proxies may ask here.")
    asked = [one for one in (_forwarded(head), _original(head)) if one is not None]
    if not asked:
        raise BadRequest(
            400,
            "X-Forwarded-Method, -Proto, -Host and -Uri or X-Original-Method and -URL are needed.",
        )
    first = _read(asked[0], head, allow_encoded_slash=allow_encoded_slash)
    for other in asked[1:]:
        second = _read(other, head, allow_encoded_slash=allow_encoded_slash)
        if _identity(first) != _identity(second):
            raise BadRequest(400, "X-Forwarded-* and X-Original-* disagree.")
    return first


def _forwarded(head: RequestHead) -> _Asked | None:
    if "x-forwarded-uri" not in head.by_name:
        return None
    return _Asked(
        head.field("x-forwarded-method"),
        head.field("x-forwarded-proto").lower(),
        head.field("x-forwarded-host"),
        head.field("x-forwarded-uri"),
    )


def _original(head: RequestHead) -> _Asked | None:
    if "x-original-url" not in head.by_name:
        return None
    parts = _ABSOLUTE.fullmatch(head.field("x-original-url"))
    if parts is None:
        raise BadRequest(400, "X-Original-URL is no absolute URL.")
    scheme, authority, target = parts.groups()
    return _Asked(head.field("x-original-method"), scheme.lower(), authority, target or "/")


def _read(asked: _Asked, head: RequestHead, *, allow_encoded_slash: bool) -> RequestHead:
    if _METHOD.fullmatch(asked.method) is None:
        raise BadRequest(400, "The method of the original request is missing or malformed.")
    if asked.scheme not in ("http", "https"):
        raise BadRequest(400, "The scheme of the original request is missing or malformed.")
    authority = read_authority(asked.authority, asked.scheme)
    target = canonical(asked.target.encode("latin-1"), allow_encoded_slash=allow_encoded_slash)
    original = msgspec.structs.replace(
        head,
        method=asked.method,
        target=target,
        host=authority.host,
        authority=authority.text,
        content_length=None,
        chunked=False,
    )
    original.__dict__["section"] = head.section  # its own fields: what was made of them holds
    return original


def _identity(head: RequestHead) -> tuple[str, str, str]:
    return head.method, head.authority, head.target.text
