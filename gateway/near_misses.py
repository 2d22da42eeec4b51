"""Why not the other routes: for each of the nearest ones, the first thing that keeps it away."""

import heapq

import msgspec

from gateway.precedence import (
    CompiledRoute,
    fits_method,
    fits_path,
    fitting_hosts,
    host_precedence,
    path_precedence,
)
from gateway.routing import RouteTable

MOST_SHOWN = 8
"""In a table of thousands nobody reads more; the rest is counted."""
MOST_STRANGERS = 3
"""Routes shown when not one has the first segment."""
_STRANGER = (3, 0)
"""The distance of a route that has not even the first segment of the path."""


class NearMiss(msgspec.Struct, frozen=True):
    """A route that did not get the request."""

    route: str
    line: int
    why: str


def near_misses(  # noqa: PLR0913 - the parts of a request and who got it
    table: RouteTable,
    host: str,
    path: str,
    method: str,
    chosen: CompiledRoute | None,
    *,
    most: int = MOST_SHOWN,
) -> tuple[list[NearMiss], int]:
    """Return the *most* nearest routes but *chosen*, nearest first, and how many are left out.

    Nearest are those that fit too, then those that only refuse the method, then those of another
    host, then those whose path has most segments in common; those with none only when there is
    nothing better. Reads the whole table.
    """
    rated = [
        (_distance(route, host, path, method), place, route)
        for place, route in enumerate(table.routes)
        if route is not chosen
    ]
    nearest = heapq.nsmallest(most, (each for each in rated if each[0] < _STRANGER))
    nearest = nearest or heapq.nsmallest(MOST_STRANGERS, rated)
    shown = [
        NearMiss(route.route.id, route.route.line, why_not(route, host, path, method, chosen))
        for _, _, route in nearest
    ]
    return shown, len(rated) - len(shown)


def why_not(
    route: CompiledRoute, host: str, path: str, method: str, chosen: CompiledRoute | None
) -> str:
    """Return in half a sentence why *route* does not get the request that *chosen* gets."""
    if not fitting_hosts(route, host):
        return f"only for the host {' or '.join(route.route.match.hosts)}, not {host}"
    if not fits_path(route, path):
        return _path_difference(route, path)
    if not fits_method(route, method):
        return f"takes only {', '.join(sorted(route.methods))}"
    if chosen is None:
        return "fits"
    return f"fits too, but {chosen.route.id!r} comes first: {_advantage(chosen, route, host)}"


def _advantage(chosen: CompiledRoute, other: CompiledRoute, host: str) -> str:
    mine, theirs = (fitting_hosts(each, host)[0] for each in (chosen, other))
    if host_precedence(mine) != host_precedence(theirs):
        return "its host is more exact"
    if path_precedence(chosen) != path_precedence(other):
        return "its path is more literal"
    return "it names the method"


def _path_difference(route: CompiledRoute, path: str) -> str:
    segments = path.split("/")[1:]
    for at, (wanted, segment) in enumerate(zip(route.segments, segments, strict=False), 1):
        if wanted is None and not segment:
            return f"segment {at} of the path is empty, and {route.route.match.path} needs one"
        if wanted is not None and wanted != segment:
            return f"segment {at} of the path is {segment!r}, not {wanted!r}"
    if len(segments) < len(route.segments):
        return f"the path ends before {route.route.match.path} does"
    return f"the path goes on after {route.route.match.path}, which does not end in /*"


def _distance(route: CompiledRoute, host: str, path: str, method: str) -> tuple[int, int]:
    if fits_path(route, path):
        if not fitting_hosts(route, host):
            return (2, 0)
        return (0 if fits_method(route, method) else 1, 0)
    return (3, -_segments_in_common(route, path))


def _segments_in_common(route: CompiledRoute, path: str) -> int:
    count = 0
    for wanted, segment in zip(route.segments, path.split("/")[1:], strict=False):
        if wanted is not None and wanted != segment:
            break
        count += 1
    return count
