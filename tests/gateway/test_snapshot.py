"""Building a generation: complete, or a list of problems."""

import gc
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.paths import path_pattern
from gateway.fields import Handling
from gateway.snapshot import Snapshot
from gateway.target import canonical
from tests.gateway.decision_table import ROUTES
from tests.gateway.loading import BASE, problems_of, snapshot_of

ROUTE = "  - {{id: {id}, match: {{path: '{path}'}}, upstream: notes, access: {access}}}\n"


def with_routes(*lines: str) -> str:
    return BASE + "routes:\n" + "".join(lines)


def test_a_good_file_becomes_a_generation() -> None:
    snapshot = snapshot_of(ROUTES)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.generation == 1
    assert len(snapshot.table.routes) == len(snapshot.configuration.routes)
    assert snapshot.origins.public == "http://127.0.0.1:8080"
    names = snapshot.field_rules.cookie_names
    assert names == ("doorward", "doorward-form", "doorward-sign-in-*")


@given(st.text("ab.~%2FfcC3A9eE!'*{};:@\\ ?#/é", max_size=8))
def test_the_path_of_every_route_is_one_that_a_request_can_have(text: str) -> None:
    """The route file and the reading of targets say separately what canonical is."""
    try:
        path = path_pattern(f"/{text}")
    except ValueError:
        return
    literal = re.sub(r"\{\w+\}", "x", path.removesuffix("/*")) or "/"
    assert canonical(literal.encode()).path == literal


def test_all_problems_are_found_at_once_and_sorted_by_place() -> None:
    text = with_routes(
        ROUTE.format(id="a", path="/a", access="{when: identity.subjekt == 'x'}"),
        ROUTE.format(id="b", path="/b", access="public"),
        ROUTE.format(id="c", path="/b", access="public"),
        ROUTE.format(id="d", path="/d", access="{when: '1 + 1'}"),
    )
    problems = problems_of(text)
    assert [problem.line for problem in problems] == [8, 10, 11]
    assert all(problem.column > 1 for problem in problems)
    first, second, third = problems
    assert "subjekt" in first.message
    assert "'b' (line 9)" in second.message
    assert "'d'" in third.message


def test_a_condition_that_many_routes_share_is_a_problem_of_each() -> None:
    access = "{when: nonsense}"
    lines = [ROUTE.format(id=f"r{n}", path=f"/{n}", access=access) for n in range(3)]
    assert [problem.line for problem in problems_of(with_routes(*lines))] == [8, 9, 10]


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("request.params.usr == 'x'", 'no {usr}; did you mean "user"? (column 16'),
        (r"request.params[\"id\"] == identity.subject", "no {id} (column 17"),
    ],
)
def test_what_a_condition_reads_of_the_path_must_be_there(when: str, said: str) -> None:
    line = ROUTE.format(id="a", path="/u/{user}", access=f'{{when: "{when}"}}')
    (problem,) = problems_of(with_routes(line))
    assert said in problem.message


@pytest.mark.parametrize(
    "when",
    [
        "request.params.user == 'request.params.other'",
        r"request.params[\"user\"] == identity.subject",
        "has(request.params.id) && request.params.id == identity.subject",
    ],
)
def test_a_condition_may_ask_whether_the_path_has_something(when: str) -> None:
    line = ROUTE.format(id="a", path="/u/{user}", access=f'{{when: "{when}"}}')
    assert isinstance(snapshot_of(with_routes(line)), Snapshot)


def test_the_files_tests_run_only_when_there_is_nothing_else_to_mend() -> None:
    failing = "tests:\n  - {request: GET /a, expect: deny}\n"
    good = with_routes(ROUTE.format(id="a", path="/a", access="public")) + failing
    (problem,) = problems_of(good)
    assert "test failed" in problem.message
    bad = with_routes(ROUTE.format(id="a", path="/a", access="{when: nonsense}")) + failing
    (problem,) = problems_of(bad)
    assert "test failed" not in problem.message


def test_a_generation_that_is_over_leaves_nothing_to_the_collector() -> None:
    """In a worker the collector comes rarely, and a site may be reloaded every few seconds."""
    snapshot_of(ROUTES)  # what is made once
    gc.collect()
    gc.disable()
    try:
        snapshot = snapshot_of(ROUTES)
        assert snapshot.field_rules.request["Accept"] is Handling.PASS
        del snapshot
        assert gc.collect() == 0
    finally:
        gc.enable()
