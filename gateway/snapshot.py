"""A generation: everything that decides about requests, complete, checked and never changed.

A request takes the snapshot that is current when its head has been read and keeps it to its end, so
a reload is one assignment.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from auth.cookies import form_cookie_name, sign_in_cookie_prefix
from auth.login.pages import page_problems
from auth.origins import Origins
from auth.policy import Policy, PolicyError, compile_rule
from config.model import AccessRule, Configuration, Route, Upstream
from config.problem import Problem
from config.validation import suggestion
from gateway.fields import FieldRules
from gateway.page import PLAIN, RefusalPages, refusal_pages
from gateway.permits import Permits
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
    pages: RefusalPages = PLAIN
    """What a person sees who is refused."""
    permits: Permits = msgspec.field(default_factory=Permits)
    """Remembered; no part of the generation's meaning."""


def build_snapshot(configuration: Configuration, generation: int) -> Snapshot | list[Problem]:
    """Compile *configuration*; return the snapshot, or everything that keeps it from going live.

    The problems: conditions that do not compile, routes that take the same requests with equal
    precedence, own pages that are broken, and, once there is none of these, tests of the file that
    fail. Takes time in proportion to the routes and blocks: run it off the event loop.
    """
    table, problems = _compile_table(configuration.routes, configuration.upstreams)
    problems += page_problems(configuration)
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
            cookie_names=(
                session_cookie,
                form_cookie_name(session_cookie),
                f"{sign_in_cookie_prefix(session_cookie)}*",
            ),
            bearer_is_ours=bool(configuration.tokens),
        ),
        pages=refusal_pages(configuration),
    )
    return failed_tests(snapshot) or snapshot


def examine_routes(routes: Sequence[Route]) -> list[Problem]:
    """Return what keeps *routes* from being compiled together: the rest of their file is broken.

    For `config.reading.Examine`, so that an operator sees these problems in the same go.
    """
    names = {route.upstream for route in routes}
    return _compile_table(routes, {name: Upstream(name, ()) for name in names})[1]


def _compile_table(
    routes: Iterable[Route], upstreams: Mapping[str, Upstream]
) -> tuple[RouteTable, list[Problem]]:
    problems: list[Problem] = []
    policies: dict[AccessRule, Policy] = {}
    compiled: list[CompiledRoute] = []
    for route in routes:
        policy = policies.get(route.access)
        if policy is None:
            try:
                policy = policies[route.access] = compile_rule(route.access)
            except PolicyError as error:
                problems.append(_condition_problem(route, error))
                continue
        ready = compile_route(route, policy, upstreams[route.upstream])
        compiled.append(ready)
        problems += _unknown_parameters(ready)
    table = RouteTable(compiled)
    return table, [*problems, *table.ambiguities]


def _unknown_parameters(compiled: CompiledRoute) -> list[Problem]:
    """Return what the condition reads of the path that is not there: reading it would deny."""
    condition, route = compiled.policy.condition, compiled.route
    if condition is None:
        return []
    there = {name for _, name in compiled.params}
    problems = []
    for name in sorted(condition.parameters - there):
        said = f"the path has no {{{name}}}{suggestion(name, there)}"
        column = (route.access.when or "").find(name) + 1
        problems.append(_condition_problem(route, PolicyError(said, column=column)))
    return problems


def _condition_problem(route: Route, error: PolicyError) -> Problem:
    line, column = route.place_of_when
    # The expression may be folded over lines in the file: point at its start, name the column.
    return Problem(
        line or route.line,
        column or 1,
        f"route {route.id!r}: when: {error} (column {error.column} of the expression)",
    )
