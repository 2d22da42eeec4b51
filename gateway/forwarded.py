"""Who is really calling, when proxies stand in between (RFC 7239, X-Forwarded-*).

Nobody is trusted by default: without `trusted_proxies` the peer of the connection is the client,
and whatever it says about itself ends here (oauth2-proxy CVE-2026-40575, Traefik CVE-2026-35051).
A trusted peer is believed from the right: each entry was written by the hop to its right, so the
walk stops at the first address that is not trusted. What stands to the left of it is hearsay.

Most proxies write X-Forwarded-* and pass a client's Forwarded on as it came, so where both are
there, Forwarded must say nothing else: with a host of its own the client would choose where the
links in somebody's letter lead.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

import msgspec

from config.model import IPNetwork
from gateway.authority import read_authority
from gateway.bad_request import BadRequest
from gateway.head import RequestHead

UNKNOWN = "unknown"
"""RFC 7239 6.2: the address of a peer that has none (a Unix socket)."""

_MAX_HOPS = 32
"""Entries of a chain that are looked at, from the right; a client can write thousands."""
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@\-]{1,128}")
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_BRACKETED = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # noqa: S105 - RFC 9110 5.6.2, not a secret
_PAIR = re.compile(rf'({_TOKEN})=(?:({_TOKEN})|"([^"\\]*+(?>(?:\\.[^"\\]*+)*))")')
_SEPARATOR = re.compile(r"[ \t]*+([;,])[ \t]*+")
_X_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
_FORWARDING = (*_X_FORWARDED, "forwarded")


class Client(msgspec.Struct, frozen=True):
    """The client as far as the trusted proxies vouch for it."""

    address: str
    """Canonical text, IPv4-mapped IPv6 as IPv4; `unknown` when there is none."""
    scheme: str
    """How the client spoke: `http` or `https`."""
    host: str
    """The authority that the client asked for; what X-Forwarded-Host will say."""
    trusted: bool
    """Whether the peer is a trusted proxy, so that what it said was believed."""
    forwarded_for: str
    """X-Forwarded-For as it goes on: client, trusted hops, peer."""
    request_id: str = ""
    """The trusted proxy's X-Request-Id, empty when there is none or it is odd."""

    @property
    def origin(self) -> str:
        """The origin that the client's browser shows."""
        return f"{self.scheme}://{self.host}"


class _Told(NamedTuple):
    """What one family of fields says of a client; empty where it says nothing."""

    chain: tuple[str, ...]
    scheme: str
    host: str


def read_client(
    peer: str, head: RequestHead, *, scheme: str, trusted_proxies: tuple[IPNetwork, ...] = ()
) -> Client:
    """Return who sent *head*: *peer* is the address of the connection, *scheme* its scheme.

    Found out once for a section, a connection and a generation.

    Raises:
        BadRequest: 400; a trusted proxy passed on a Forwarded that says what X-Forwarded-* beside
            it do not. One of them is the client's own.
    """
    section = head.section
    known = section.client
    if (
        known is not None
        and known[0] is peer
        and known[1] is scheme
        and known[2] is trusted_proxies
    ):
        return known[3]
    client = _read_client(peer, head, scheme, trusted_proxies)
    section.client = (peer, scheme, trusted_proxies, client)
    return client


def _read_client(
    peer: str, head: RequestHead, scheme: str, trusted_proxies: tuple[IPNetwork, ...]
) -> Client:
    address = canonical_address(peer) or UNKNOWN
    if not trusted_proxies or not is_trusted(address, trusted_proxies):
        return Client(address, scheme, head.authority, False, address)
    fields = head.by_name
    request_id = head.field("x-request-id")
    if _REQUEST_ID.fullmatch(request_id) is None:
        request_id = ""
    if fields.keys().isdisjoint(_FORWARDING):
        return Client(address, scheme, head.authority, True, address, request_id)

    def told(hops: list[str], proto: str, host: str) -> _Told:
        """Return what one of the two families of fields says."""
        chain = _walk(address, hops, trusted_proxies) if any(hops) else ()
        spoken = _SCHEMES.get(proto.lower(), "")
        return _Told(chain, spoken, _believed_host(host, spoken or scheme))

    forwarded = _read_forwarded(fields.get("forwarded", ()))
    nearest = forwarded[-1] if forwarded else {}
    hops = [hop.get("for", "") for hop in forwarded]
    believed = told(hops, nearest.get("proto", ""), nearest.get("host", ""))
    if not fields.keys().isdisjoint(_X_FORWARDED):
        hops, protos, hosts = (_list(fields.get(name, ())) for name in _X_FORWARDED)
        beside, believed = believed, told(hops, _last(protos), _last(hosts))
        if any(one and one != other for one, other in zip(beside, believed, strict=True)):
            raise BadRequest(400, "Forwarded and X-Forwarded-* disagree.")
    chain = believed.chain or (address,)
    return Client(
        chain[0],
        believed.scheme or scheme,
        believed.host or head.authority,
        True,
        ", ".join(chain),
        request_id,
    )


def continued_trace(head: RequestHead) -> str:
    """Return the traceparent that *head* carries if it is a good one, else an empty string.

    W3C Trace Context: version 00, lower-case hex, no id of zeros; several fields are none.
    """
    if "traceparent" not in head.section.by_name:
        return ""
    value = head.field("traceparent")
    return value if _TRACEPARENT.fullmatch(value) else ""


@lru_cache(maxsize=4096)
def canonical_address(text: str) -> str:
    """Return the one spelling of an IP address, or an empty string if *text* is none.

    Takes `[v6]:port` and `v4:port`, as some proxies write them; a zone is cut off.
    """
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        text = bracketed[1]
    with_port = _WITH_PORT.fullmatch(text)
    if with_port is not None:
        text = with_port[1]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # Traefik GHSA-7jmw: ::ffff:10.0.0.1 is 10.0.0.1
    return str(address)


@lru_cache(maxsize=4096)
def is_trusted(address: str, trusted_proxies: tuple[IPNetwork, ...]) -> bool:
    """Whether *address*, in canonical form, is in one of the networks *trusted_proxies*."""
    if not address or address == UNKNOWN:
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in trusted_proxies)


def _walk(peer: str, entries: list[str], trusted_proxies: tuple[IPNetwork, ...]) -> tuple[str, ...]:
    """Return client, hops and peer: to the left as far as each speaker is trusted."""
    chain = [peer]
    for entry in reversed(entries[-_MAX_HOPS:]):
        address = canonical_address(entry)
        if not address:
            break  # `unknown`, an obfuscated name or junk: nobody further left can be known
        chain.append(address)
        if not is_trusted(address, trusted_proxies):
            break
    return tuple(reversed(chain))


def _list(values: Iterable[str]) -> list[str]:
    return [member.strip(" \t") for member in ",".join(values).split(",") if member.strip(" \t")]


def _last(members: list[str]) -> str:
    return members[-1] if members else ""


def _believed_host(text: str, scheme: str) -> str:
    if not text:
        return ""
    try:
        return read_authority(text, scheme).text
    except BadRequest:
        return ""


def _read_forwarded(values: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the elements of the Forwarded fields (RFC 7239 4), parameter names in lower case.

    Raises:
        BadRequest: 400; not the grammar of RFC 7239. Guessing would be believing the client.
    """
    elements: list[dict[str, str]] = []
    for value in values:
        position, element = 0, dict[str, str]()
        while position < len(value):
            pair = _PAIR.match(value, position)
            if pair is None:
                raise BadRequest(400, "The Forwarded field is malformed.")
            name, token, quoted = pair.groups()
            plain = token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
            if name.lower() in element:
                raise BadRequest(400, "The Forwarded field is malformed.")
            element[name.lower()] = plain
            position = pair.end()
            separator = _SEPARATOR.match(value, position)
            if separator is not None:
                position = separator.end()
                if separator[1] == ",":
                    elements.append(element)
                    element = {}
            elif position < len(value):
                raise BadRequest(400, "The Forwarded field is malformed.")
        if element:
            elements.append(element)
    return elements
