"""The listing of the route table."""

import pytest

from config.model import AccessRule
from gateway.route_listing import describe_access, render_routes
from tests.gateway.decision_table import ROUTES
from tests.gateway.loading import snapshot_of

ACCESS = [
    (AccessRule("public"), "public"),
    (AccessRule("optional", roles=frozenset({"a"})), "optional; roles: a"),
    (AccessRule("signed-in"), "signed-in"),
    (AccessRule("signed-in", roles=frozenset({"b", "a"})), "roles: a,b"),
    (
        AccessRule(
            "signed-in",
            tenants=frozenset({"t"}),
            groups=frozenset({"g"}),
            scopes=frozenset({"s"}),
            when="true",
        ),
        "tenants: t; groups: g; scopes: s; when …",
    ),
    (AccessRule("signed-in", acr=("mfa", "phr"), max_age=300.0), "acr: mfa,phr; max_age: 300s"),
]


@pytest.mark.parametrize(("rule", "words"), ACCESS, ids=[words for _, words in ACCESS])
def test_an_access_rule_fits_on_a_line(rule: AccessRule, words: str) -> None:
    assert describe_access(rule) == words


def test_every_route_has_a_line_in_matching_order() -> None:
    table = snapshot_of(ROUTES).table
    title, *lines = render_routes(table).splitlines()
    assert title.split() == ["METHODS", "HOSTS", "PATH", "ACCESS", "UPSTREAM", "ROUTE", "LINE"]
    assert [line.split()[-2] for line in lines] == [
        each.route.id for each in table.in_matching_order()
    ]
    assert lines[0].split()[:3] == ["*", "app.example.com", "/admin/*"]
