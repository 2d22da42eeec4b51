"""The definition of what comes first."""

import pytest

from gateway.precedence import (
    fitting_hosts,
    host_precedence,
    method_precedence,
    path_precedence,
    place_of_path,
)
from tests.gateway.test_routing import route


def test_hosts_go_from_exact_over_the_longest_suffix_to_none() -> None:
    patterns = ["", "*.s", "a.s", "*.b.a.s", "*.a.s"]
    assert sorted(patterns, key=host_precedence) == ["a.s", "*.b.a.s", "*.a.s", "*.s", ""]


def test_a_route_counts_with_the_best_of_its_hosts_that_fit() -> None:
    several = route("/", hosts=["*.s", "a.s", "other"])
    assert fitting_hosts(several, "a.s") == ["a.s", "*.s"]
    assert fitting_hosts(several, "b.s") == ["*.s"]
    assert fitting_hosts(several, "s") == []
    assert fitting_hosts(route("/"), "s") == [""]


def test_paths_go_by_segment_from_the_literal_over_the_parameter_to_the_rest() -> None:
    paths = ["/*", "/{x}/*", "/{x}", "/a/*", "/a/{x}/*", "/a/{x}", "/a/b/*", "/a/b"]
    ordered = sorted((route(path) for path in reversed(paths)), key=path_precedence)
    assert [each.route.match.path for each in ordered] == [
        "/a/b", "/a/b/*", "/a/{x}", "/a/{x}/*", "/a/*", "/{x}", "/{x}/*", "/*",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("methods", "method", "rank"),
    [(["GET"], "GET", 0), (["HEAD"], "HEAD", 0), (["GET"], "HEAD", 1), ([], "GET", 2)],
)
def test_a_named_method_comes_before_the_head_of_a_get_and_that_before_any(
    methods: list[str], method: str, rank: int
) -> None:
    assert method_precedence(route("/", methods=methods), method) == rank


def test_a_problem_with_a_path_stands_at_the_path_or_else_at_the_route() -> None:
    assert place_of_path(route("/", line=7).route) == (7, 1)
