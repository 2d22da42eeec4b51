"""Where a request goes that a guarded route does not take because of its method.

Methods are part of what a route matches, so `methods: [GET]` on a guarded path sends a POST to the
next less literal route, and that may be a public `/*`. Often that is meant; as HTTP verb tampering
(CWE-650) it is a classic when it is not. So `doorward check` mentions it, and does not refuse it.
"""

from config.problem import Problem
from gateway.precedence import CompiledRoute, place_of_path
from gateway.routing import Matched, RouteTable

_USUAL_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def find_loopholes(table: RouteTable) -> list[Problem]:
    """Return a note for each guarded route whose path is open to another method."""
    notes = []
    for route in table.routes:
        if route.methods and route.policy.rule.level == "signed-in":
            note = _loophole(table, route)
            if note is not None:
                notes.append(note)
    return notes


def _loophole(table: RouteTable, route: CompiledRoute) -> Problem | None:
    pattern = next(iter(route.route.match.hosts), "any.invalid")
    host = f"any{pattern[1:]}" if pattern.startswith("*.") else pattern
    path = "/" + "/".join("any" if segment is None else segment for segment in route.segments)
    for method in _USUAL_METHODS:
        found = table.match(host, path, method)
        if isinstance(found, Matched) and found.route.policy.rule.level != "signed-in":
            other = found.route.route
            return Problem(
                *place_of_path(route.route),
                f"note: route {route.route.id!r} takes only {', '.join(sorted(route.methods))}; "
                f"{method} {path} goes to route {other.id!r} (line {other.line}), "
                f"which is {other.access.level}",
            )
    return None
