"""Names of routes, fields, methods and cookies, and the other small texts of the route file.

Every function raises `ValueError` with what is wrong, without repeating the value.
"""

import re
from email.utils import parseaddr
from typing import Final

from config.addresses import Url

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_EMAIL = re.compile(r"[^\s@<>()\[\]\\,;:\"]{1,64}@[^\s@<>()\[\]\\,;:\"]{1,253}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def name(value: str) -> str:
    """Return a name that the operator gives: of a route, an upstream, a provider."""
    if not _NAME.fullmatch(value):
        raise ValueError("a name has letters, digits and . _ - and begins with a letter or digit")
    return value


def email(value: str) -> str:
    """Return an e-mail address: of RFC 5321's only the form that people have."""
    if len(value) > 254 or not _EMAIL.fullmatch(value) or not value.isprintable():
        raise ValueError("this is no e-mail address")
    return value


def ldap_dn(value: str) -> str:
    """Return the DN of an entry, as far as one can see that it is one (RFC 4514)."""
    parts = re.split(r"(?<!\\),", value)
    if not value.isprintable() or not all(
        re.fullmatch(r" *[A-Za-z0-9.-]+ *=.+", part) for part in parts
    ):
        raise ValueError("write a DN such as cn=editors,ou=groups,dc=example,dc=com")
    return value


def sender(value: str) -> str:
    """Return who mail comes from: `address`, or `Name <address>`."""
    name_, address = parseaddr(value)
    email(address)
    if not value.isprintable() or value not in {address, f"{name_} <{address}>"}:
        raise ValueError("write an e-mail address, or Name <address>")
    return value


def namespace(value: str) -> str:
    """Return what stands before the subjects of a provider: a name, or nothing."""
    return name(value) if value else ""


def method(value: str) -> str:
    """Return a request method (RFC 9110 9.1: a token, case-sensitive)."""
    if not re.fullmatch(r"[A-Z][A-Z0-9-]{0,31}", value):
        upper = value.upper()
        known = re.fullmatch(r"[A-Z][A-Z0-9-]{0,31}", upper)
        raise ValueError(f"methods are upper case: {upper}" if known else "this is no method")
    if value == "CONNECT":
        raise ValueError("CONNECT is never forwarded")
    return value


def cookie_name(value: str) -> str:
    """Return a cookie's name (RFC 6265 4.1.1: a token) without prefixes of RFC 6265bis 4.1.3."""
    if not _TOKEN.fullmatch(value) or len(value) > 64:
        raise ValueError("a cookie's name has at most 64 letters, digits, - and _")
    if value.startswith("__"):
        raise ValueError("leave the prefix out; __Host- is put before it when public_url is https")
    return value


_LOGIN_PARAMETERS: Final = frozenset(
    (
        *("username", "password", "token"),
        # What goes there beside the way back, and would be written over it or be overwritten.
        *("acr_values", "max_age", "provider", "prompt", "again", "login_hint"),
        *("state", "code_challenge", "page"),
    )
)
"""What a query or form of the login page says besides where to return to."""


def query_parameter(value: str) -> str:
    """Return a name that needs no encoding in a query and means nothing else on the login page."""
    if not re.fullmatch(r"[A-Za-z0-9_.~-]{1,64}", value):
        raise ValueError("the name has letters, digits and - _ . ~")
    if value in _LOGIN_PARAMETERS:
        raise ValueError("the login page already has a field of that name")
    return value


def acr(value: str) -> str:
    """Return an authentication context class; lists of them are separated by spaces."""
    if not re.fullmatch(r"[!#-\[\]-~]{1,256}", value):
        raise ValueError("it has printable ASCII characters without spaces and quotes")
    return value


def fold(field: str) -> str:
    """Return the class of a field name: backends that fold names cannot tell its members apart."""
    return re.sub("[^A-Z0-9]", "_", field.upper())


# What the gateway writes itself, what ends at each hop, and what changes how a request is read.
_MANAGED: Final = frozenset(
    (
        "ACCEPT",
        "ACCEPT_ENCODING",
        "AUTHORIZATION",
        "CONNECTION",
        "CONTENT_ENCODING",
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "COOKIE",
        "DATE",
        "EXPECT",
        "FORWARDED",
        "HOST",
        "HTTP2_SETTINGS",
        "KEEP_ALIVE",
        "ORIGIN",
        "PROXY",
        "PROXY_AUTHORIZATION",
        "PROXY_CONNECTION",
        "RANGE",
        "REFERER",
        "SET_COOKIE",
        "TE",
        "TRACEPARENT",
        "TRACESTATE",
        "TRAILER",
        "TRANSFER_ENCODING",
        "UPGRADE",
        "VIA",
        "X_FORWARDED_FOR",
        "X_FORWARDED_HOST",
        "X_FORWARDED_METHOD",
        "X_FORWARDED_PORT",
        "X_FORWARDED_PREFIX",
        "X_FORWARDED_PROTO",
        "X_FORWARDED_SERVER",
        "X_FORWARDED_URI",
        "X_REAL_IP",
        "X_REQUEST_ID",
    )
)


def identity_field_name(value: str) -> str:
    """Return a field that may carry identity: plain letters, digits and hyphens, and not managed.

    Names with `_` or `.` are one field to some backends and another to others (oauth2-proxy
    CVE-2025-64484); a client's copy of them is dropped, and ours would be with it.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", value):
        raise ValueError("a field name here has letters, digits and -, and begins with a letter")
    folded = fold(value)
    if folded in _MANAGED or folded.startswith(("X_DOORWARD_", "SEC_", "PROXY_")):
        raise ValueError("this field is written by the gateway itself or has its own meaning")
    return value


def field_name(value: str) -> str:
    """Return a field name (RFC 9110 5.1)."""
    if not _TOKEN.fullmatch(value):
        raise ValueError("this is no field name")
    return value


def field_value(value: str) -> str:
    """Return a field value (RFC 9110 5.5) without white space around it."""
    if value != value.strip() or not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
        raise ValueError("a field value has no control characters and no white space around it")
    return value


def request_line(value: str) -> tuple[str, str]:
    """Return method and target of a test's request: `GET /notes/1` or `GET https://host/path`."""
    verb, space, target = value.partition(" ")
    if not space:
        raise ValueError("write a method and a path or URL: GET /notes/1")
    method(verb)
    if not re.fullmatch(r"[!-~]+", target) or "#" in target:
        raise ValueError("the target is ASCII without spaces and #; percent-encode everything else")
    if not target.startswith("/"):
        Url(target)
    return verb, target


def condition(value: str) -> str:
    """Return a CEL expression as written; whether it compiles is seen when it is compiled."""
    if not value.strip():
        raise ValueError("the expression is empty; leave `when` out to ask for nothing")
    return value
