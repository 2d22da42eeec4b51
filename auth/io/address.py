"""Where the store is: its URL, and for Sentinel the question which server is the primary now."""

import ssl
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

_PORTS = {"redis": 6379, "rediss": 6379, "redis+cluster": 6379, "redis+sentinel": 26379}
Kind = Literal["single", "sentinel", "cluster"]
_KINDS: dict[str, Kind] = {
    "redis": "single",
    "rediss": "single",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}


class StoreURLError(ValueError):
    """A store URL that cannot be used; the message never shows its password."""


class StoreAddress(msgspec.Struct, frozen=True):
    """A store URL, taken apart."""

    kind: Kind
    path: str = ""
    """Of the Unix socket; then there are no hosts."""
    hosts: tuple[tuple[str, int], ...] = ()
    primary: str = ""
    """The name under which Sentinel watches the primary."""
    username: str = ""
    password: str = ""
    database: int = 0
    tls: bool = False
    sentinel_username: str = ""
    sentinel_password: str = ""

    def __repr__(self) -> str:
        where = self.path or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"StoreAddress({self.kind} {where})"

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what a connection verifies the server with, None without TLS."""
        return ssl.create_default_context() if self.tls else None


def parse_store_url(url: str) -> StoreAddress:
    """Take *url* apart.

    Forms: `unix:///path.sock`, `redis://[user:password@]host[:port][/database]`, `rediss://` for
    TLS, `redis+sentinel://[user:password@]h1[:port],h2/NAME[/database]` and
    `redis+cluster://h1,h2`; `?tls=true` asks Sentinel and Cluster servers for TLS. The sentinels'
    own password is `?sentinel_password=`, with `sentinel_username=` if they have users.

    Raises:
        StoreURLError: says what is wrong, without the URL's password.
    """
    try:
        return _parse(url)
    except StoreURLError:
        raise
    except ValueError as error:  # a port or a database that is no number
        raise StoreURLError("the store URL has a port or a database that is no number") from error


def _parse(url: str) -> StoreAddress:
    parts = urlsplit(url)
    userinfo, at, netloc = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":") if at else ("", "", "")
    username, password = unquote(username), unquote(password)
    query = parse_qs(parts.query)
    database = int(query.get("db", ["0"])[0])
    if parts.scheme == "unix":
        if not parts.path.startswith("/"):
            raise StoreURLError("a unix:// store URL needs the socket's absolute path")
        return StoreAddress(
            "single", path=parts.path, username=username, password=password, database=database
        )
    if parts.scheme not in _PORTS:
        raise StoreURLError(
            "the store URL must begin with redis://, rediss://, unix://, redis+sentinel:// or "
            "redis+cluster://"
        )
    kind, hosts = _KINDS[parts.scheme], _hosts(netloc, _PORTS[parts.scheme])
    segments = [segment for segment in parts.path.split("/") if segment]
    if kind == "sentinel" and not segments:
        raise StoreURLError("a redis+sentinel:// URL ends in the name of the primary")
    primary = unquote(segments.pop(0)) if kind == "sentinel" else ""
    if segments:
        database = int(segments[0])
    if kind == "cluster" and database:
        raise StoreURLError("a cluster has one database only")
    if kind == "single" and len(hosts) > 1:
        raise StoreURLError("redis:// takes one host; for more use +sentinel or +cluster")
    return StoreAddress(
        kind,
        hosts=hosts,
        primary=primary,
        username=username,
        password=password,
        database=database,
        tls=parts.scheme == "rediss" or query.get("tls", [""])[0] == "true",
        sentinel_username=query.get("sentinel_username", [""])[0],
        sentinel_password=query.get("sentinel_password", [""])[0],
    )


def _hosts(netloc: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = tuple(_host(part, default_port) for part in netloc.split(",") if part)
    if not hosts or not all(host for host, _ in hosts):
        raise StoreURLError("the store URL names no host")
    return hosts


def _host(part: str, default_port: int) -> tuple[str, int]:
    """Split `host`, `host:port`, `[v6]` or `[v6]:port`."""
    if part.startswith("["):
        host, _, rest = part[1:].partition("]")
        return host, int(rest.removeprefix(":") or default_port)
    host, _, port = part.partition(":")
    return host, int(port or default_port)
