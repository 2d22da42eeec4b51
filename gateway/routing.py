"""Which route takes a request, in a time that does not grow with the number of routes.

How this works
--------------
A route *fits* a request when its hosts, its path and its methods all do (`docs/matching.md`). Of
the routes that fit, `precedence` picks one: the host decides first, then the path, segment by
segment, then whether the route names the method. `gateway.precedence` is that definition;
`RouteTable` is the same thing made fast, and a property test holds the two together.

The table has one trie of path segments for each host pattern. A request visits the tries of its own
host: the exact host, then `*.suffix` from the longest to the shortest, then the routes without a
host. In a trie a literal segment is tried before `{param}`, and `/*` last, so the first route found
that takes the method is the one with the highest precedence. A path whose routes all refuse the
method does not end the search: a less literal route may take it. Only when none does is the answer
"method not allowed", with what all of them allow.

Two routes can be equal in precedence only when they share the host pattern, the shape of the path
and a method. They then meet in the same place of the same trie while it is built, which is how
ambiguity is found without comparing every pair.
"""

from collections.abc import Iterable, Mapping

import msgspec

from config.problem import Problem
from gateway.precedence import (
    CompiledRoute,
    host_patterns,
    host_precedence,
    path_precedence,
    place_of_path,
)

OWN_PREFIX = "/.doorward"
"""Everything below it is answered by the gateway itself and never routed."""

_SLASH = "%2F"


class Matched(msgspec.Struct, frozen=True):
    """A route takes the request; `params` are segments of the canonical path."""

    route: CompiledRoute
    params: Mapping[str, str]


class NoRoute(msgspec.Struct, frozen=True):
    """No route has this host and path."""


class MethodNotAllowed(msgspec.Struct, frozen=True):
    """Routes have this host and path, and none takes the method (RFC 9110 15.5.6)."""

    allowed: tuple[str, ...]
    """Sorted, for the field `Allow`."""


class EncodedSlash(msgspec.Struct, frozen=True):
    """The path has `%2F` where its route does not allow one: backends disagree about what it is."""


MatchResult = Matched | NoRoute | MethodNotAllowed | EncodedSlash

NO_ROUTE = NoRoute()
ENCODED_SLASH = EncodedSlash()
_NO_PARAMS: Mapping[str, str] = {}


class _Takers:
    """The routes of one host pattern and one path shape: at most one for each method."""

    __slots__ = ("any_method", "by_method", "named")

    def __init__(self) -> None:
        self.named: dict[str, CompiledRoute] = {}
        self.by_method: dict[str, CompiledRoute] = {}
        self.any_method: CompiledRoute | None = None

    def add(self, route: CompiledRoute) -> tuple[CompiledRoute, list[str]] | None:
        """Add *route*; return the route that is equal to it and the methods they share."""
        names = route.route.match.methods
        if not names:
            if self.any_method is not None:
                return self.any_method, []
            self.any_method = route
            return None
        shared = sorted(name for name in names if name in self.named)
        if shared:
            return self.named[shared[0]], shared
        self.named.update(dict.fromkeys(names, route))
        self.by_method = dict(self.named)
        if "GET" in self.named:
            self.by_method.setdefault("HEAD", self.named["GET"])
        return None


class _Node:
    """A place in a trie of path segments."""

    __slots__ = ("exact", "literals", "param", "prefix")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.param: _Node | None = None
        self.exact: _Takers | None = None
        self.prefix: _Takers | None = None

    def takers_of(self, route: CompiledRoute) -> _Takers:
        """Return the place of *route* in the trie below this node, made where it is new."""
        node = self
        for segment in route.segments:
            if segment is None:
                node.param = node.param or _Node()
                node = node.param
            else:
                node = node.literals.setdefault(segment, _Node())
        if route.is_prefix:
            node.prefix = node.prefix or _Takers()
            return node.prefix
        node.exact = node.exact or _Takers()
        return node.exact


class RouteTable:
    """Routes, ready to be asked. Never changed after it is built; safe to share."""

    def __init__(self, routes: Iterable[CompiledRoute]) -> None:
        self.routes = tuple(routes)
        self.allows_encoded_slash = any(route.route.allow_encoded_slash for route in self.routes)
        """Whether the reading of a target must let `%2F` pass, for `match` to judge."""
        self.ambiguities: list[Problem] = []
        """What must be empty before the table may be used."""
        roots: dict[str, _Node] = {}
        for route in self.routes:
            self._add(route, roots)
        self._suffixes = {
            pattern[1:]: root for pattern, root in roots.items() if pattern.startswith("*.")
        }
        self._hostless = (roots[""],) if "" in roots else ()
        self._exact = {
            host: (root, *self._roots_of_suffixes(host), *self._hostless)
            for host, root in roots.items()
            if host and not host.startswith("*.")
        }

    def _add(self, route: CompiledRoute, roots: dict[str, _Node]) -> None:
        for pattern in host_patterns(route):
            clash = roots.setdefault(pattern, _Node()).takers_of(route).add(route)
            if clash is not None:
                self.ambiguities.append(_ambiguity(route, clash[0], pattern, clash[1]))
                return

    def _roots_of_suffixes(self, host: str) -> list[_Node]:
        found = []
        dot = host.find(".") if self._suffixes else -1
        while dot >= 0:
            root = self._suffixes.get(host[dot:])
            if root is not None and dot > 0:
                found.append(root)
            dot = host.find(".", dot + 1)
        return found

    def match(self, host: str, path: str, method: str) -> MatchResult:
        """Return what the table says about a request, in `O(length of host and path)`.

        *host* is `RequestHead.host`, *path* a canonical path.
        """
        roots = self._exact.get(host)
        if roots is None:
            roots = self._hostless
            if self._suffixes:
                roots = (*self._roots_of_suffixes(host), *roots)
        segments = path.split("/")
        if len(segments) == 1:
            return NO_ROUTE  # the asterisk of `OPTIONS *` (RFC 9112 3.2.4), which is no path
        refusing: list[_Takers] = []
        for root in roots:
            route = _find(root, segments, 1, method, refusing)
            if route is not None:
                if _SLASH in path and not self._may_hold_slash(route, segments, host, method):
                    return ENCODED_SLASH
                if not route.params:
                    return Matched(route, _NO_PARAMS)
                return Matched(route, {name: segments[at] for at, name in route.params})
        if not refusing:
            return ENCODED_SLASH if _SLASH in path else NO_ROUTE
        return MethodNotAllowed(
            tuple(sorted({name for each in refusing for name in each.by_method}))
        )

    def _may_hold_slash(
        self, route: CompiledRoute, segments: list[str], host: str, method: str
    ) -> bool:
        """Return whether *route* may take a path with `%2F`, which some backends decode.

        It must have asked for that, the slash must be below its prefix, and a backend that decodes
        must see a path of this same route: else `/public/admin%2Fx` would go round the rule for
        `/public/admin/*` (Envoy CVE-2021-29492).
        """
        above = segments[: len(route.segments) + 1]
        if not route.route.allow_encoded_slash or any(_SLASH in segment for segment in above):
            return False
        decoded = self.match(host, "/".join(segments).replace(_SLASH, "/"), method)
        return isinstance(decoded, Matched) and decoded.route is route

    def in_matching_order(self) -> list[CompiledRoute]:
        """Return the routes by precedence; where that leaves them equal, by host, path and id."""
        return sorted(self.routes, key=_listing_order)


def _find(
    node: _Node, segments: list[str], at: int, method: str, refusing: list[_Takers]
) -> CompiledRoute | None:
    """Return the most literal route below *node* that takes *method*; note those that refuse it.

    Every node is visited at most once: a segment leads to two nodes at most, and both are its own.
    """
    if at == len(segments):
        takers = node.exact
        if takers is not None:
            route = takers.by_method.get(method) or takers.any_method
            if route is not None:
                return route
            refusing.append(takers)
    else:
        segment = segments[at]
        child = node.literals.get(segment)
        if child is not None:
            route = _find(child, segments, at + 1, method, refusing)
            if route is not None:
                return route
        if node.param is not None and segment:
            route = _find(node.param, segments, at + 1, method, refusing)
            if route is not None:
                return route
    takers = node.prefix
    if takers is not None:
        route = takers.by_method.get(method) or takers.any_method
        if route is not None:
            return route
        refusing.append(takers)
    return None


def is_own(path: str) -> bool:
    """Return whether *path* is one of the gateway's own, which no route may take."""
    return path.startswith(OWN_PREFIX) and path[len(OWN_PREFIX) : len(OWN_PREFIX) + 1] in ("", "/")


def _ambiguity(
    route: CompiledRoute, earlier: CompiledRoute, host: str, methods: list[str]
) -> Problem:
    first, second = earlier.route, route.route
    where = f"{', '.join(methods) or 'requests'} for {second.match.path}"
    on_host = f" on host {host}" if host else ""
    spelt = f" (there: {first.match.path})" if first.match.path != second.match.path else ""
    return Problem(
        *place_of_path(second),
        f"route {second.id!r} (line {second.line}) and route {first.id!r} (line {first.line}) both "
        f"take {where}{spelt}{on_host} with equal precedence: "
        "make their hosts, paths or methods differ, or remove one",
    )


def _listing_order(route: CompiledRoute) -> tuple[object, ...]:
    host = min(host_patterns(route), key=lambda pattern: (host_precedence(pattern), pattern))
    shape = tuple(
        (rank, segment or "")
        for rank, segment in zip(path_precedence(route), (*route.segments, ""), strict=False)
    )
    return (host_precedence(host), host, shape, not route.methods, route.route.id)
