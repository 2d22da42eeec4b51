"""The origins (RFC 6454) that are the gateway's own: where a sign-in may start and return to."""

from urllib.parse import urlsplit

import msgspec

from config.model import Configuration

_DEFAULT_PORT = {"http": ":80", "https": ":443"}


class Origins(msgspec.Struct, frozen=True):
    """What of the configuration says which origins are ours."""

    public: str
    """Scheme and authority of `public_url`; where everything falls back to."""
    scheme: str
    """The one scheme of them all: `public_url` decides whether the cookie needs https."""
    hosts: frozenset[str]
    """The host of `public_url` and the exact hosts of routes."""
    suffixes: tuple[str, ...]
    """The part after the `*` of routes' host patterns, with its dot."""
    sites: frozenset[str] = frozenset()
    """The origins that people sign in to at the public one (`login.sites`)."""

    @classmethod
    def of(cls, configuration: Configuration) -> "Origins":
        """Return the origins of *configuration*."""
        public = urlsplit(configuration.server.public_url)
        patterns = {host for route in configuration.routes for host in route.match.hosts}
        suffixes = {pattern[1:] for pattern in patterns if pattern.startswith("*.")}
        exact = {pattern for pattern in patterns if not pattern.startswith("*.")}
        sites = frozenset(configuration.login.sites)
        return cls(
            public=f"{public.scheme}://{public.netloc}",
            scheme=public.scheme,
            hosts=frozenset({public.hostname or "", *exact, *map(host_of, sites)}),
            suffixes=tuple(sorted(suffixes)),
            sites=sites,
        )

    def is_own(self, host: str) -> bool:
        """Return whether *host* (`RequestHead.host`) is named by `public_url` or by a route."""
        return host in self.hosts or (bool(self.suffixes) and host.endswith(self.suffixes))

    def of_request(self, host: str, authority: str) -> str:
        """Return the origin a browser sees when it asks *authority*, or the public one.

        The scheme is always that of `public_url`: before us may be a proxy that ends TLS.
        The port is the client's, so that an overridden listening address works.
        """
        if not self.is_own(host):
            return self.public
        return f"{self.scheme}://{authority.removesuffix(_DEFAULT_PORT[self.scheme])}"

    def accepted(self, host: str, authority: str) -> frozenset[str]:
        """Return the origins that a sign-in at *authority* may return to."""
        port = urlsplit(self.public).port
        suffix = f":{port}" if port else ""
        bracketed = (f"[{host}]" if ":" in host else host for host in self.hosts)
        named = {f"{self.scheme}://{host}{suffix}" for host in bracketed}
        return frozenset({self.public, self.of_request(host, authority), *named, *self.sites})


def host_of(origin: str) -> str:
    """Return the host of *origin* as `RequestHead.host` has it."""
    return urlsplit(origin).hostname or ""
