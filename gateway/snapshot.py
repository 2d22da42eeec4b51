"""A generation: everything that decides about requests, complete, checked and never changed.

A request takes the snapshot that is current when its head has been read and keeps it to its end, so
a reload is one assignment.
"""

import msgspec

from auth.cookies import form_cookie_name
from auth.origins import Origins
from auth.policy import Policy, PolicyError, compile_rule
from config.model import AccessRule, Configuration, Route
from config.problem import Problem
from gateway.fields import FieldRules
from gateway.precedence import CompiledRoute, compile_route
from gateway.route_tests import failed_tests
from gateway.routing import RouteTable


class Snapshot(msgspec.Struct, frozen=True, eq=False):
    """One generation of the route file."""

    configuration: Configuration
    generation: int
    """Counts the route files that went live in this process's lifetime, from 1."""
    table: RouteTable
    origins: Origins
    field_rules: FieldRules
    """Which fields are the gateway's, in either direction."""


def build_snapshot(configuration: Configuration, generation: int) -> Snapshot | list[Problem]:
    """Compile *configuration*; return the snapshot, or everything that keeps it from going live.

    The problems: conditions that do not compile, routes that take the same requests with equal
    precedence, and, once there is none of these, tests of the file that fail. Takes time in
    proportion to the routes and blocks: run it off the event loop.
    """
    problems: list[Problem] = []
    policies: dict[AccessRule, Policy] = {}
    routes: list[CompiledRoute] = []
    for route in configuration.routes:
        policy = policies.get(route.access)
        if policy is None:
            try:
                policy = policies[route.access] = compile_rule(route.access)
            except PolicyError as error:
                problems.append(_condition_problem(route, error))
                continue
        routes.append(compile_route(route, policy, configuration.upstreams[route.upstream]))
    table = RouteTable(routes)
    problems += table.ambiguities
    if problems:
        return sorted(problems)
    session_cookie = configuration.session.cookie_name
    snapshot = Snapshot(
        configuration=configuration,
        generation=generation,
        table=table,
        origins=Origins.of(configuration),
        field_rules=FieldRules(
            configuration.identity,
            cookie_names=(session_cookie, form_cookie_name(session_cookie)),
            bearer_is_ours=bool(configuration.tokens),
        ),
    )
    return failed_tests(snapshot) or snapshot


def _condition_problem(route: Route, error: PolicyError) -> Problem:
    line, column = route.place_of_when
    # The expression may be folded over lines in the file: point at its start, name the column.
    return Problem(
        line or route.line,
        column or 1,
        f"route {route.id!r}: when: {error} (column {error.column} of the expression)",
    )
