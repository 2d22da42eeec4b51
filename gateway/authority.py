"""The authority of a request: one spelling of host and port, or a refusal."""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

from gateway.bad_request import BadRequest

_DEFAULT_PORT = {"http": 80, "https": 443}
# RFC 3986 3.2.2 without userinfo, percent-encoding, sub-delims and IPvFuture: no host that resolves
# needs them, and each has been used to make two parsers disagree. `_` stays: container names.
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._\-]+))(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?")
# WHATWG URL, "ends in a number": a host whose last label looks like a number is an IPv4 address to
# a browser and to inet_aton (2130706433, 0x7f.1), so it must be a proper one.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class Authority(NamedTuple):
    """A host and, when it is not the scheme's own, a port."""

    host: str
    """Lower case, no trailing dot; an IPv6 literal compressed and without brackets."""
    text: str
    """As it is sent in a Host field."""


@lru_cache(maxsize=1024)
def read_authority(text: str, scheme: str) -> Authority:
    """Return the canonical form of *text*, the value of a Host field (RFC 9110 7.2).

    The port is left out when it is the default of *scheme* (RFC 9110 4.2.3).

    Raises:
        BadRequest: 400; empty, malformed, or a port out of range.
    """
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        raise BadRequest(400, "The Host field is malformed.")
    literal, name, digits = parts.groups()
    if literal is not None:
        try:
            host = str(IPv6Address(literal))
        except AddressValueError:
            raise BadRequest(400, "The Host field is malformed.") from None
        shown = f"[{host}]"
    else:
        host = shown = _host_name(name.lower())
    if digits is None:
        return Authority(host, shown)
    port = int(digits)
    if not 0 < port < 65536:
        raise BadRequest(400, "The port of the Host field is out of range.")
    if port == _DEFAULT_PORT.get(scheme):
        return Authority(host, shown)
    return Authority(host, f"{shown}:{port}")


def _host_name(name: str) -> str:
    """Return *name* without the trailing dot of an absolute name (Traefik CVE-2022-23632)."""
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise BadRequest(400, "The Host field is malformed.")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            IPv4Address(name)
        except AddressValueError:
            raise BadRequest(400, "The Host field is malformed.") from None
    return name
