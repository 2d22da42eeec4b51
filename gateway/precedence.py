"""What a route fits, and which of two that fit comes first: the definition (`docs/matching.md`).

`gateway.routing` is the same thing made fast; a property test holds the two together.
"""

import msgspec

from auth.policy import Policy
from config.model import Route, Upstream


class CompiledRoute(msgspec.Struct, frozen=True, eq=False):
    """A route with everything that a request on it needs. Compared and hashed by identity."""

    route: Route
    policy: Policy
    upstream: Upstream
    segments: tuple[str | None, ...]
    """The path between its slashes; None stands for a parameter; without the final `*`."""
    params: tuple[tuple[int, str], ...]
    """The place in `path.split("/")` and the name of each parameter."""
    is_prefix: bool
    methods: frozenset[str]
    """What it takes, HEAD with GET; empty takes every method."""


def compile_route(route: Route, policy: Policy, upstream: Upstream) -> CompiledRoute:
    """Return *route* ready for a table."""
    is_prefix = route.match.path.endswith("/*")
    parts = route.match.path.removesuffix("/*").split("/")[1:]
    methods = frozenset(route.match.methods)
    return CompiledRoute(
        route=route,
        policy=policy,
        upstream=upstream,
        segments=tuple(None if _is_param(part) else part for part in parts),
        params=tuple((at, part[1:-1]) for at, part in enumerate(parts, 1) if _is_param(part)),
        is_prefix=is_prefix,
        # RFC 9110 9.3.2: HEAD is GET without the content, so who names GET takes HEAD.
        methods=methods | {"HEAD"} if "GET" in methods else methods,
    )


def _is_param(part: str) -> bool:
    return part.startswith("{") and part.endswith("}")


def host_patterns(route: CompiledRoute) -> tuple[str, ...]:
    """Return the host patterns of *route*; an empty one stands for any host."""
    return tuple(dict.fromkeys(route.route.match.hosts)) or ("",)


def fits_host(pattern: str, host: str) -> bool:
    """Return whether *host* is one of *pattern*'s: itself, anything below `*.suffix`, or any host.

    An empty pattern is the one of a route that names no host.
    """
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return pattern in ("", host)


def fitting_hosts(route: CompiledRoute, host: str) -> list[str]:
    """Return the host patterns of *route* that fit *host*, the one that counts first."""
    patterns = [pattern for pattern in host_patterns(route) if fits_host(pattern, host)]
    return sorted(patterns, key=host_precedence)


def fits_path(route: CompiledRoute, path: str) -> bool:
    """Return whether the canonical *path* is one of *route*'s, whatever the host and method."""
    segments = path.split("/")[1:]
    if not segments or len(segments) < len(route.segments):
        return False
    if len(segments) > len(route.segments) and not route.is_prefix:
        return False
    return all(
        bool(segment) if wanted is None else segment == wanted
        for wanted, segment in zip(route.segments, segments, strict=False)
    )


def fits_method(route: CompiledRoute, method: str) -> bool:
    """Return whether *route* takes *method*."""
    return not route.methods or method in route.methods


def host_precedence(pattern: str) -> tuple[int, int]:
    """Return the rank of a host pattern, lowest first: exact, `*.suffix` longest first, none."""
    if not pattern:
        return (2, 0)
    return (1, -len(pattern)) if pattern.startswith("*.") else (0, 0)


def path_precedence(route: CompiledRoute) -> tuple[int, ...]:
    """Return the rank of a path, lowest first: by segment, literal, then `{param}`, then `/*`."""
    ranks = tuple(1 if segment is None else 0 for segment in route.segments)
    return (*ranks, 2) if route.is_prefix else ranks


def method_precedence(route: CompiledRoute, method: str) -> int:
    """Return the rank for *method*: named, HEAD that comes with GET, any."""
    if not route.methods:
        return 2
    return 0 if method in route.route.match.methods else 1


def precedence(
    route: CompiledRoute, host: str, method: str
) -> tuple[tuple[int, int], tuple[int, ...], int]:
    """Return the rank of a route that fits a request for *host* with *method*; the lowest wins."""
    best = fitting_hosts(route, host)[0]
    return host_precedence(best), path_precedence(route), method_precedence(route, method)


def place_of_path(route: Route) -> tuple[int, int]:
    """Return line and column of the route's path in the file, for a problem with it."""
    line, column = route.place_of_path
    return (line, column) if line else (route.line, max(1, route.column))
