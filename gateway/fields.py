# ruff: noqa: SIM905 - a list of words reads better as one string
"""Which fields of a message go on, and which end here.

How this works. Every proxy that removed a client's `X-Auth-User` by name was got round with
`X_Auth_User` or `X.Auth.User`, which CGI, WSGI and PHP turn into the same variable (oauth2-proxy
CVE-2025-64484, Traefik CVE-2026-33433 and three more, Caddy CVE-2026-52845). So names are compared
by class: two are the same when their `fold` is. And because a backend might fold in a way that
nobody thought of, a client's field whose name has anything but letters, digits and `-` ends here.

Three things are left out of a request: what is managed (identity, forwarding and internal fields,
those of other gateways too), what is hop-by-hop (RFC 9110 7.6.1), and what Connection names. All of
that happens before ours are added, so that a client cannot name ours (Traefik CVE-2021-32813).
"""

import re
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import partial

from config.model import IdentityHeaders

_NO_ALPHANUMERIC = re.compile(r"[^A-Z0-9]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9\-]+")

HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-connection te trailer transfer-encoding upgrade http2-settings "
    "proxy-authorization proxy-authenticate proxy-authentication-info expect".split()
)
"""Lower case. RFC 9110 7.6.1, and what is only for the next hop: HTTP2-Settings (RFC 7540 3.2.1),
the proxy's own authentication (RFC 9110 11.7), Expect, which is answered here (10.1.1)."""

CHANGED_IN_REQUEST = frozenset(
    ("authorization", "cookie", "via", "max-forwards", "traceparent", "tracestate")
)
"""Lower case. They go on, but not as they came."""

_REWRITTEN = frozenset(("host", "content-length"))
"""Written anew from what was understood."""

# RFC 9110 7.6.1: a sender must not name fields that are meant for every recipient. A client that
# does would change who the backend thinks is calling, or what the body is; it is not obeyed.
_NEVER_LISTED = frozenset(
    "authorization cache-control content-encoding content-length content-type cookie host origin "
    "traceparent via".split()
)

# Beginnings of folded names: ours, and those of whoever stands in front of other people's backends.
_MANAGED_PREFIXES = tuple(
    "X_AUTH_ X_DOORWARD_ X_FORWARDED_ X_GATEWAY_ X_ENVOY_ X_ORIGINAL_ X_REWRITE_ REMOTE_ "
    "X_REMOTE_ X_WEBAUTH_ X_AUTHENTICATED_ X_AUTHENTIK_ X_AUTHELIA_ X_POMERIUM_ X_VOUCH_ "
    "X_TOKEN_ X_CONSUMER_ X_CREDENTIAL_ X_ANONYMOUS_CONSUMER X_GOOG_AUTHENTICATED_ "
    "X_GOOG_IAP_ X_AMZN_OIDC_ X_AMZN_MTLS_ X_MS_CLIENT_PRINCIPAL X_MS_TOKEN_ CF_ACCESS_ OIDC_ "
    "X_OIDC_ TAILSCALE_USER_ X_JWT_ X_USERINFO X_ENDPOINT_API_USERINFO "
    "X_APIGATEWAY_API_USERINFO X_SHIB_ SHIB_ X_SAML_ X_LDAP_ X_SSO_ X_OAUTH_ X_PROXY_ "
    "X_PROXYUSER_ X_MIDDLEWARE_ X_SSL_ SSL_ X_CLIENT_CERT X_CLIENT_VERIFY X_CLIENT_DN "
    "CLIENT_CERT X_ARR_CLIENTCERT X_TLS_ IMPERSONATE_ X_IMPERSONATE_".split()
)
_MANAGED = frozenset(
    # who is calling
    "X_USER X_USERNAME X_USER_ID X_USER_NAME X_USER_EMAIL X_USER_ROLE X_USER_ROLES X_GROUPS "
    "X_ROLES X_EMAIL X_ID_TOKEN X_ACCESS_TOKEN X_REFRESH_TOKEN GAP_AUTH GAP_SIGNATURE "
    # from where, and to what: rebuilt, never passed on
    "FORWARDED X_REAL_IP X_REAL_PORT X_REQUEST_ID X_URL_SCHEME X_SCHEME X_PROTO X_HOST X_CLIENT_IP "
    "CLIENT_IP TRUE_CLIENT_IP X_CLUSTER_CLIENT_IP CF_CONNECTING_IP FASTLY_CLIENT_IP "
    "X_ORIGINATING_IP X_AZURE_CLIENTIP FLY_CLIENT_IP FRONT_END_HTTPS X_HTTPS "
    "X_HTTP_HOST_OVERRIDE X_HOST_OVERRIDE X_BACKEND_HOST X_HTTP_DESTINATIONURL "
    "X_FORWARDED X_FORWARD FORWARDED_FOR_IP X_CLIENT_IP_ADDRESS X_NF_CLIENT_CONNECTION_IP "
    "X_CUSTOM_IP_AUTHORIZATION "
    # another method than the one that was allowed
    "X_HTTP_METHOD X_HTTP_METHOD_OVERRIDE X_METHOD_OVERRIDE "
    # httpoxy (CVE-2016-5385): HTTP_PROXY in a CGI backend
    "PROXY PROXY_HOST".split()
)
# Endings of folded names: every CDN has a name of its own for the client's address, and backends
# that once stood behind one still read it.
_MANAGED_SUFFIXES = tuple(
    "CLIENT_IP CLIENTIP CONNECTING_IP CONNECTING_IPV6 REAL_IP USER_IP REMOTE_IP REMOTE_ADDR "
    "FORWARDED_FOR FORWARD_FOR".split()
)
# A response must not tell the client what we told the backend, nor speak as the gateway.
_RESPONSE_PREFIXES = ("X_DOORWARD_", "X_GATEWAY_", "X_AUTH_", "X_FORWARDED_", "X_ENVOY_", "REMOTE_")

# In any spelling: somebody between us and the client might fold names, too.
_RESPONSE_REWRITTEN = frozenset("CONTENT_LENGTH TRANSFER_ENCODING SET_COOKIE SET_COOKIE2".split())

_MAX_REMEMBERED = 2048
"""Names; clients choose them, so the memory is bounded."""
_MAX_REMEMBERED_NAME = 64
"""Characters of a name that is remembered."""


class Handling(IntEnum):
    """What happens to a field. `PASS` is false, so that a filter reads well."""

    PASS = 0
    DROP = 1
    SPECIAL = 2
    """Left out of the usual way, and written by `gateway.forwarding` as it needs."""


def fold(name: str) -> str:
    """Return the class of *name*: upper case, every character but letters and digits is `_`."""
    return _NO_ALPHANUMERIC.sub("_", name.upper())


class _Remembered(dict[str, Handling]):
    """Handling by field name as it came; worked out once for each spelling, within bounds."""

    def __init__(self, work_out: Callable[[str], Handling]) -> None:
        self._work_out = work_out

    def __missing__(self, name: str) -> Handling:
        handling = self._work_out(name)
        if len(self) < _MAX_REMEMBERED and len(name) <= _MAX_REMEMBERED_NAME:
            self[name] = handling
        return handling


class FieldRules:
    """What is managed here: the built-in names, and those the configuration gives.

    *identity* names the identity fields, *cookie_names* the cookies that are the gateway's own.
    *bearer_is_ours* says that bearer tokens are the gateway's credential and end here.
    """

    __slots__ = (
        "_managed",
        "bearer_is_ours",
        "cookie_names",
        "own",
        "request",
        "response",
    )

    def __init__(
        self,
        identity: IdentityHeaders,
        *,
        cookie_names: Iterable[str],
        bearer_is_ours: bool = False,
    ) -> None:
        own = frozenset(
            (fold(identity.assertion.header), *(fold(name) for name, _ in identity.fields))
        )
        self.own = own
        """The names that the configuration gives, folded."""
        self._managed = _MANAGED | own
        self.cookie_names = tuple(cookie_names)
        self.bearer_is_ours = bearer_is_ours
        # Not methods of this object: what holds itself outlives its generation.
        self.request = _Remembered(partial(_handling_in_request, self._managed))
        """Handling of a request field, by name."""
        self.response = _Remembered(partial(_handling_in_response, own))
        """Handling of a response field, by name."""

    def says_the_same_as(self, other: "FieldRules") -> bool:
        """Whether every field is handled as by *other*, whatever its name."""
        return (self.own, self.cookie_names, self.bearer_is_ours) == (
            other.own,
            other.cookie_names,
            other.bearer_is_ours,
        )


def _is_managed(managed: frozenset[str], name: str) -> bool:
    """Whether a client's field called *name* would speak in the gateway's place."""
    folded = fold(name)
    return (
        folded in managed
        or folded.startswith(_MANAGED_PREFIXES)
        or folded.endswith(_MANAGED_SUFFIXES)
    )


def _handling_in_request(managed: frozenset[str], name: str) -> Handling:
    """Return what happens to a client's field called *name*."""
    lower = name.lower()
    if lower in CHANGED_IN_REQUEST:
        return Handling.SPECIAL
    plain = _PLAIN_NAME.fullmatch(name) is not None
    if not plain or lower in HOP_BY_HOP or lower in _REWRITTEN or _is_managed(managed, name):
        return Handling.DROP
    return Handling.PASS


def _handling_in_response(managed: frozenset[str], name: str) -> Handling:
    """Return what happens to an upstream's field called *name*."""
    lower = name.lower()
    if lower == "set-cookie":
        return Handling.SPECIAL
    folded = fold(name)
    ours = folded in managed or folded.startswith(_RESPONSE_PREFIXES)
    if ours or lower in HOP_BY_HOP or folded in _RESPONSE_REWRITTEN:
        return Handling.DROP
    return Handling.PASS


def listed_names(options: frozenset[str]) -> frozenset[str]:
    """Return the field names, in lower case, that the connection *options* take out."""
    return options - _NEVER_LISTED - HOP_BY_HOP - {"close"}


def end_to_end(
    fields: Iterable[tuple[str, str]], rules: FieldRules, options: frozenset[str]
) -> list[tuple[str, str]]:
    """Return the client's *fields* that go on as they are.

    Cookie, Via, Max-Forwards and the trace context are not among them: they go on changed.
    """
    handling = rules.request
    kept = [field for field in fields if not handling[field[0]]]
    listed = listed_names(options)
    if listed:
        kept = [field for field in kept if field[0].lower() not in listed]
    return kept
