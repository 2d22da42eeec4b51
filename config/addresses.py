"""Hosts, addresses, networks and URLs, as far as the route file needs them.

Every function raises `ValueError` with what is wrong, without repeating the value.
"""

import ipaddress
import re
from typing import Final

from config.model import Address, Endpoint, IPNetwork
from config.paths import literal_path, literal_target

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


def host_name(value: str) -> str:
    """Return a host name or IP address in lower case, IPv6 without brackets, no trailing dot."""
    text = value.lower()
    if text.startswith("[") or ":" in text:
        bracketed = text.startswith("[") and text.endswith("]")
        try:
            return ipaddress.IPv6Address(text[1:-1] if bracketed else text).compressed
        except ValueError:
            raise ValueError("this is neither a host name nor an IPv6 address") from None
    text = text.removesuffix(".")
    if not text.isascii():
        raise ValueError("write an international name in its ASCII form, xn--…")
    labels = text.split(".")
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("a host name has letters, digits and hyphens, with dots between")
    # WHATWG URL 3.5: a name that ends in a number is an IPv4 address in one of many spellings.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ValueError("write an IPv4 address as four decimal numbers: 127.0.0.1") from None
    return text


def host_pattern(value: str) -> str:
    """Return a host that a route takes: exact, or `*.suffix`; lower case."""
    if value == "*":
        raise ValueError("leave hosts out to take every host")
    if value.startswith("*."):
        suffix = host_name(value[2:])
        if _is_address(suffix):
            raise ValueError("*. goes before a name, not before an address")
        return f"*.{suffix}"
    if "*" in value:
        raise ValueError("* may only be the whole first label: *.example.com")
    if "://" in value or "/" in value:
        raise ValueError("write only the host, without scheme and path")
    if re.search(r"^[^:]*:[0-9]+$|\]:[0-9]+$", value):
        raise ValueError("write the host without its port; routes match on every port")
    return host_name(value)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether *host*, as `host_name` returns it, is this machine and nothing else."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_wildcard(host: str) -> bool:
    """Whether *host* stands for every address of this machine."""
    return host in {"0.0.0.0", "::"}  # noqa: S104 - compared, never bound


def port(text: str) -> int:
    """Return a port number, 0 to 65535."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65_535:
        raise ValueError("a port is a number up to 65535")
    return int(text)


def address(value: str) -> Address:
    """Return where to listen, from `HOST:PORT` or `[IPV6]:PORT`."""
    host, colon, number = value.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise ValueError("write HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    if host in {"", "*"}:
        raise ValueError("write 0.0.0.0 (or [::]) before the port to listen on every address")
    return Address(host_name(host), port(number))


def network(value: str) -> IPNetwork:
    """Return the network of a CIDR or of a single address."""
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        if "host bits" in str(error):
            wider = ipaddress.ip_network(value, strict=False)
            raise ValueError(f"bits behind the prefix are set; write {wider}") from None
        raise ValueError("write a network such as 10.0.0.0/8 or fd00::/8") from None


_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]\\]+)(?::(?P<port>[0-9]*))?"
    r"(?P<path>/[^\s?#\\]*)?(?P<query>\?[^\s#\\]*)?"
)
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Url:
    """The parts of an http or https URL, host and scheme in lower case."""

    __slots__ = ("host", "path", "port", "query", "scheme")

    def __init__(self, value: str) -> None:
        if not value.isascii() or not value.isprintable():
            raise ValueError("a URL is ASCII without spaces; percent-encode everything else")
        if "@" in value.partition("://")[2].partition("/")[0]:
            raise ValueError("a URL here must not carry a user name or password")
        match = _URL.fullmatch(value)
        if not match or match["scheme"].lower() not in DEFAULT_PORTS:
            raise ValueError("write an absolute URL without fragment: http://… or https://…")
        self.scheme = match["scheme"].lower()
        self.host = host_name(match["host"])
        self.port = port(match["port"]) if match["port"] else DEFAULT_PORTS[self.scheme]
        if self.port == 0:
            raise ValueError("a URL needs a port other than 0")
        self.path, self.query = match["path"] or "", match["query"] or ""

    @property
    def origin(self) -> str:
        """Scheme, host and port as browsers write an origin: no default port (RFC 6454 6.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        number = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{number}"

    def __str__(self) -> str:
        return f"{self.origin}{self.path}{self.query}"


def origin(value: str) -> str:
    """Return scheme and authority of a URL that has nothing more."""
    url = Url(value)
    if url.path not in {"", "/"} or url.query:
        raise ValueError("write only scheme, host and port; the gateway serves from the root")
    return url.origin


def secure_url(value: str) -> str:
    """Return an https URL as written, or an http one on this machine."""
    url = Url(value)
    # Keys and tokens that come over plain http are whatever the network says (RFC 8725 3.8).
    if url.scheme != "https" and not is_loopback(url.host):
        raise ValueError("this must be https; plain http is for this machine only")
    return value


def path_or_url(value: str) -> str:
    """Return a path that begins with `/` as written, or an absolute http(s) URL."""
    if value.startswith("/"):
        literal_target(value)
        return value
    return str(Url(value))


def endpoint(value: str) -> Endpoint:
    """Return an address of an upstream: `http://…`, `https://…`, `unix:/path/to.sock`."""
    if value.startswith("unix:"):
        path = value.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/") or not path.isprintable():
            raise ValueError("write the whole path of the socket: unix:/run/app.sock")
        # sockaddr_un has 108 bytes on Linux, one of them the final NUL.
        if len(path.encode()) > 107:
            raise ValueError("the path of a socket has at most 107 bytes")
        return Endpoint("unix", path)
    url = Url(value)
    if url.query:
        raise ValueError("an endpoint has no query")
    base_path = url.path.rstrip("/")
    if base_path:
        literal_path(base_path)
    return Endpoint("https" if url.scheme == "https" else "http", url.host, url.port, base_path)


_STORE_SCHEMES: Final = (
    "redis", "rediss", "unix",
    "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster",
)  # fmt: skip


def database_url(value: str) -> str:
    """Return the URL of a PostgreSQL database if its scheme is one; libpq reads the rest."""
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in {"postgresql", "postgres"} or not rest:
        raise ValueError("write postgresql://USER@HOST/NAME; leave it out for the file")
    if not value.isprintable() or " " in value:
        raise ValueError("a URL has no spaces and no control characters")
    return value


def ldap_url(value: str) -> str:
    """Return the URL of a directory: scheme, host and port, and nothing that LDAP URLs can ask."""
    scheme, _, rest = value.partition("://")
    if scheme not in {"ldap", "ldaps"} or not re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", rest):
        raise ValueError("write ldaps://HOST or ldap://HOST, with :PORT if need be")
    address(rest if re.search(r":[0-9]+$", rest) else f"{rest}:389")
    return value


def ldap_host(url: str) -> str:
    """Return the host of a directory's URL."""
    rest = url.partition("://")[2]
    return address(rest if re.search(r":[0-9]+$", rest) else f"{rest}:389").host


def store_url(value: str) -> str:
    """Return the store's URL if its scheme is known and something follows it."""
    scheme, separator, rest = value.partition("://")
    if value == "embedded":
        return value
    if not separator or scheme not in _STORE_SCHEMES or not rest or not rest.isprintable():
        raise ValueError(
            "write embedded, redis://HOST:PORT/0, rediss://…, unix:///path/to.sock, "
            "redis+sentinel://H1,H2/NAME or redis+cluster://H1,H2"
        )
    if scheme == "unix" and not rest.rpartition("@")[2].startswith("/"):
        raise ValueError("write the whole path of the socket: unix:///run/redis.sock")
    servers, _, name = rest.rpartition("@")[2].partition("/")
    if scheme != "unix":
        for server in servers.split(","):
            address(server if re.search(r":[0-9]+$", server) else f"{server}:6379")
    if scheme.endswith("sentinel") and not name.partition("/")[0].partition("?")[0]:
        raise ValueError("name the service that the sentinels watch: redis+sentinel://H1,H2/NAME")
    return value
