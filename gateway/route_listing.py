"""The route table as `doorward routes` prints it."""

from config.model import AccessRule
from gateway.columns import in_columns
from gateway.precedence import CompiledRoute
from gateway.routing import RouteTable

_TITLES = ("METHODS", "HOSTS", "PATH", "ACCESS", "UPSTREAM", "ROUTE", "LINE")


def render_routes(table: RouteTable) -> str:
    """Return the routes in matching order, one a line, in columns."""
    return in_columns([_TITLES, *map(_row, table.in_matching_order())])


def _row(compiled: CompiledRoute) -> tuple[str, ...]:
    route = compiled.route
    return (
        ",".join(route.match.methods) or "*",
        ",".join(route.match.hosts) or "*",
        route.match.path,
        describe_access(route.access),
        route.upstream,
        route.id,
        str(route.line),
    )


def describe_access(rule: AccessRule) -> str:
    """Return an access rule in one line."""
    parts = [
        f"{name}: {','.join(sorted(values))}"
        for name, values in (
            ("tenants", rule.tenants),
            ("groups", rule.groups),
            ("roles", rule.roles),
            ("scopes", rule.scopes),
            ("acr", rule.acr),
        )
        if values
    ]
    if rule.max_age is not None:
        parts.append(f"max_age: {rule.max_age:g}s")
    if rule.when is not None:
        parts.append("when …")
    return "; ".join(([] if parts and rule.level == "signed-in" else [rule.level]) + parts)
