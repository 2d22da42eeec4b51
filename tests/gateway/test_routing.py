"""Routing: the written definition as tables, and the trie held to it by random tables."""

import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.policy import compile_rule
from config.model import AccessRule, Endpoint, Match, Route, Upstream
from gateway.precedence import (
    CompiledRoute,
    compile_route,
    fits_host,
    fits_method,
    fits_path,
    fitting_hosts,
    precedence,
)
from gateway.routing import EncodedSlash, Matched, MethodNotAllowed, NoRoute, RouteTable, is_own

PUBLIC = AccessRule("public")
POLICY = compile_rule(PUBLIC)
UPSTREAM = Upstream("notes", (Endpoint("http", "127.0.0.1", 9001),))


def route(  # the three words of a route file's line, for short
    path: str, *, hosts: Iterable[str] = (), methods: Iterable[str] = (), **more: object
) -> CompiledRoute:
    name = f"{','.join(methods)} {','.join(hosts)}{path}".strip()
    record = Route(
        id=str(more.get("id", name)),
        match=Match(path, tuple(hosts), tuple(methods)),
        upstream="notes",
        access=PUBLIC,
        allow_encoded_slash=bool(more.get("allow_encoded_slash")),
        line=int(str(more.get("line", 1))),
    )
    return compile_route(record, POLICY, UPSTREAM)


def taker(table: RouteTable, url: str, method: str = "GET") -> str:
    """Return the id of the route that takes *url*, or what the table says instead."""
    host, slash, rest = url.partition("/")
    answer = table.match(host, slash + rest, method)
    if isinstance(answer, Matched):
        return answer.route.route.id
    if isinstance(answer, MethodNotAllowed):
        return f"405 {','.join(answer.allowed)}"
    return "404" if isinstance(answer, NoRoute) else "encoded slash"


PATHS = [
    ("/notes", "/notes", True),
    ("/notes", "/notes/", False),
    ("/notes", "/notes/1", False),
    ("/notes/", "/notes/", True),
    ("/notes/", "/notes", False),
    ("/notes/*", "/notes", True),
    ("/notes/*", "/notes/", True),
    ("/notes/*", "/notes/1/2", True),
    ("/notes/*", "/notes1", False),
    ("/notes/*", "/Notes", False),
    ("/notes/*", "/", False),
    ("/", "/", True),
    ("/", "/a", False),
    ("/*", "/", True),
    ("/*", "/a/b", True),
    ("/*", "*", False),
    ("/users/{user}", "/users/u1", True),
    ("/users/{user}", "/users/", False),
    ("/users/{user}", "/users", False),
    ("/users/{user}", "/users/u1/x", False),
    ("/users/{user}/*", "/users/u1", True),
    ("/users/{user}/*", "/users//x", False),
    ("/users/{user}/video/*", "/users/u2/video/7", True),
    ("/{a}/{b}", "/x/y", True),
    ("/a%20b", "/a%20b", True),
]


@pytest.mark.parametrize(("pattern", "path", "fits"), PATHS, ids=str)
def test_a_path_is_exact_or_a_prefix_on_a_segment_boundary(
    pattern: str, path: str, *, fits: bool
) -> None:
    only = route(pattern)
    assert fits_path(only, path) is fits
    assert isinstance(RouteTable([only]).match("any", path, "GET"), Matched) is fits


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("app.example.com", "app.example.com", True),
        ("app.example.com", "x.app.example.com", False),
        ("*.example.com", "app.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("", "anything", True),
        ("::1", "::1", True),
    ],
)
def test_a_suffix_takes_what_is_below_it_and_not_itself(
    pattern: str, host: str, *, fits: bool
) -> None:
    assert fits_host(pattern, host) is fits
    only = route("/*", hosts=(pattern,) if pattern else ())
    assert isinstance(RouteTable([only]).match(host, "/x", "GET"), Matched) is fits


PRECEDENCE = [
    # The host decides first, whatever the paths are.
    (["app.example.com/*", "*.example.com/a/b", "/a/b"], "app.example.com/a/b", 0),
    (["*.b.example.com/*", "*.example.com/a"], "x.b.example.com/a", 0),
    (["*.example.com/*", "/a"], "x.example.com/a", 0),
    # A host without a fitting path leaves the request to the others.
    (["app.example.com/only", "*.example.com/a", "/a"], "app.example.com/a", 1),
    (["app.example.com/only", "*.example.com/only", "/a"], "app.example.com/a", 2),
    # Then the path, segment by segment: literal, parameter, rest.
    (["/a/b", "/a/{x}", "/a/*", "/*"], "h/a/b", 0),
    (["/a/{x}", "/a/*", "/*"], "h/a/b", 0),
    (["/a", "/a/*"], "h/a", 0),
    (["/a/*", "/{x}/b/c"], "h/a/b/c", 0),
    (["/a/{x}", "/{y}/b"], "h/a/b", 0),
    (["/a/{x}/*", "/a/{x}"], "h/a/b", 1),
    (["/a/{x}/c", "/a/b/*"], "h/a/b/c", 1),
    # A branch that leads nowhere is left again.
    (["/a/b/c", "/a/{x}/d"], "h/a/b/d", 1),
    (["/a/b/c", "/*"], "h/a/b/d", 1),
    (["/a/b/c/d", "/a/{x}/c/e", "/a/*"], "h/a/b/c/f", 2),
]


@pytest.mark.parametrize(("routes", "url", "winner"), PRECEDENCE)
@pytest.mark.parametrize("backwards", [False, True], ids=["as-listed", "reversed"])
def test_the_host_decides_before_the_path_and_the_order_never_does(
    routes: list[str], url: str, winner: int, *, backwards: bool
) -> None:
    compiled = []
    for text in routes:
        host, slash, rest = text.partition("/")
        compiled.append(route(slash + rest, hosts=[host] if host else []))
    wanted = compiled[winner].route.id
    assert taker(RouteTable(reversed(compiled) if backwards else compiled), url) == wanted


METHODS = [
    (["GET /a", "/a"], "GET", "GET /a"),
    (["GET /a", "/a"], "HEAD", "GET /a"),
    (["GET /a", "HEAD /a"], "HEAD", "HEAD /a"),
    (["GET /a", "/a"], "POST", "/a"),
    (["GET /a", "POST /a"], "POST", "POST /a"),
    (["POST /a"], "HEAD", "405 POST"),
    (["GET /a", "POST /a"], "DELETE", "405 GET,HEAD,POST"),
    # The more literal path refuses the method, a less literal one takes it.
    (["GET /a", "/*"], "POST", "/*"),
    (["GET /a", "PUT /{x}", "DELETE /*"], "POST", "405 DELETE,GET,HEAD,PUT"),
    (["GET /a", "PUT /{x}", "DELETE /*"], "PUT", "PUT /{x}"),
    (["GET /b"], "POST", "404"),
]


@pytest.mark.parametrize(("routes", "method", "wanted"), METHODS)
def test_a_route_that_names_the_method_comes_before_one_that_takes_any(
    routes: list[str], method: str, wanted: str
) -> None:
    compiled = []
    for text in routes:
        methods, _, path = text.rpartition(" ")
        compiled.append(route(path, methods=[methods] if methods else []))
    assert taker(RouteTable(compiled), "h/a", method) == wanted


def test_allow_is_the_union_over_host_specific_and_hostless_routes() -> None:
    table = RouteTable([route("/a", hosts=["h"], methods=["PUT"]), route("/*", methods=["GET"])])
    assert taker(table, "h/a", "POST") == "405 GET,HEAD,PUT"


def test_parameters_are_the_segments_of_the_canonical_path_undecoded() -> None:
    table = RouteTable([route("/users/{user}/video/{video}/*")])
    answer = table.match("h", "/users/a%20b/video/7/x/y", "GET")
    assert isinstance(answer, Matched)
    assert answer.params == {"user": "a%20b", "video": "7"}


ENCODED = [
    ("/files/*", "/files/a%2Fb", "/files/*"),
    ("/files/*", "/files%2Fb", "encoded slash"),
    ("/*", "/files%2Fb", "/*"),
    # The slash must not stand where a segment was looked at.
    ("/files/{name}", "/files/a%2Fb", "encoded slash"),
    ("/files/{name}/*", "/files/a%2Fb/c", "encoded slash"),
    # A backend that decodes would see the path of another route.
    ("/*", "/admin%2Fx", "encoded slash"),
    ("/*", "/%2Fadmin", "/*"),
    ("/files/*", "/files/private%2Fx", "encoded slash"),
    ("/admin/*", "/admin/a%2Fb", "encoded slash"),
]


@pytest.mark.parametrize(("opted", "path", "wanted"), ENCODED)
def test_an_encoded_slash_passes_only_where_decoding_it_changes_nothing(
    opted: str, path: str, wanted: str
) -> None:
    opted_in = [route(opted, allow_encoded_slash=True)] if opted != "/admin/*" else []
    closed = [route("/admin/*"), route("/files/private/*")]
    table = RouteTable([*opted_in, *closed])
    assert taker(table, f"h{path}") == wanted


def test_a_table_knows_whether_a_route_wants_encoded_slashes() -> None:
    assert not RouteTable([route("/a")]).allows_encoded_slash
    assert RouteTable([route("/a/*", allow_encoded_slash=True)]).allows_encoded_slash
    assert isinstance(RouteTable([route("/a/*")]).match("h", "/a/%2F", "GET"), EncodedSlash)


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/.doorward", True),
        ("/.doorward/me", True),
        ("/.doorwards", False),
        ("/x/.doorward", False),
    ],
)
def test_what_is_below_the_gateways_own_prefix_is_its_own(path: str, *, own: bool) -> None:
    assert is_own(path) is own


AMBIGUOUS = [
    ("/a", "/a", True),
    ("/users/{user}", "/users/{id}", True),
    ("/users/{user}/*", "/users/{id}/*", True),
    ("GET /a", "GET /a", True),
    ("HEAD /a", "HEAD /a", True),
    ("h/a", "h/a", True),
    ("*.s/a", "*.s/a", True),
    ("GET /a", "/a", False),
    ("GET /a", "HEAD /a", False),
    ("GET /a", "POST /a", False),
    ("/a", "/a/", False),
    ("/a", "/a/*", False),
    ("/a/{x}", "/{y}/b", False),
    ("/{x}", "/*", False),
    ("h/a", "/a", False),
    ("*.s/a", "*.t.s/a", False),
]


@pytest.mark.parametrize(("first", "second", "ambiguous"), AMBIGUOUS)
def test_routes_of_equal_precedence_that_share_a_request_are_ambiguous(
    first: str, second: str, *, ambiguous: bool
) -> None:
    routes = []
    for line, text in ((3, first), (9, second)):
        methods, _, place = text.rpartition(" ")
        host, slash, rest = place.partition("/")
        routes.append(
            route(
                slash + rest,
                hosts=[host] if host else [],
                methods=[methods] if methods else [],
                id=f"r{line}",
                line=line,
            )
        )
    problems = RouteTable(routes).ambiguities
    assert len(problems) == ambiguous
    for problem in problems:
        assert problem.line == 9
        for part in ("'r3'", "line 3", "'r9'", "line 9"):
            assert part in problem.message


def test_one_route_may_name_a_host_or_a_method_twice() -> None:
    assert RouteTable([route("/a", hosts=["h", "h"], methods=["GET", "GET"])]).ambiguities == []


def test_a_clash_on_one_of_several_hosts_is_found_once() -> None:
    routes = [route("/a", hosts=["x", "y"], id="p"), route("/a", hosts=["z", "y", "x"], id="q")]
    (problem,) = RouteTable(routes).ambiguities
    assert "on host y" in problem.message


def test_the_listing_is_in_matching_order() -> None:
    texts = ["/*", "/a/*", "/a/{x}", "/a/b", "GET /a/b", "*.s/a", "*.t.s/a", "h/*", "h/a"]
    routes = []
    for text in texts:
        methods, _, place = text.rpartition(" ")
        host, slash, rest = place.partition("/")
        routes.append(
            route(
                slash + rest,
                hosts=[host] if host else [],
                methods=[methods] if methods else [],
                id=text,
            )
        )
    listed = [each.route.id for each in RouteTable(routes).in_matching_order()]
    assert listed == [
        "h/a", "h/*", "*.t.s/a", "*.s/a", "GET /a/b", "/a/b", "/a/{x}", "/a/*", "/*",
    ]  # fmt: skip


# The trie against the definition ------------------------------------------------------------------

_SEGMENTS = st.sampled_from(["a", "b", "{x}"])
_PATTERNS = st.builds(
    lambda segments, end: "/" + "/".join(segments) + end if segments else end or "/",
    st.lists(_SEGMENTS, max_size=4),
    st.sampled_from(["", "/", "/*"]),
).map(lambda text: text.replace("//", "/"))
_HOSTS = st.sampled_from([(), ("h.s",), ("*.s",), ("*.h.s",), ("h.s", "*.s")])
_SETS_OF_METHODS = st.sampled_from([(), ("GET",), ("POST",), ("HEAD",), ("GET", "POST")])
_ROUTES = st.lists(
    st.builds(
        lambda path, hosts, methods: route(path, hosts=hosts, methods=methods),
        _PATTERNS,
        _HOSTS,
        _SETS_OF_METHODS,
    ),
    max_size=12,
)
_REQUEST_PATHS = st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=5).map(
    lambda segments: "/" + "/".join(segments)
)


@given(
    _ROUTES,
    st.sampled_from(["h.s", "x.h.s", "x.s", "other"]),
    _REQUEST_PATHS,
    st.sampled_from(["GET", "HEAD", "POST", "PUT"]),
)
def test_the_table_finds_the_fitting_route_of_lowest_precedence(
    routes: list[CompiledRoute], host: str, path: str, method: str
) -> None:
    table = RouteTable(routes)
    placed = [each for each in routes if fitting_hosts(each, host) and fits_path(each, path)]
    fitting = [each for each in placed if fits_method(each, method)]
    answer = table.match(host, path, method)
    if table.ambiguities:
        return
    if fitting:
        assert isinstance(answer, Matched)
        ranks = sorted(precedence(each, host, method) for each in fitting)
        assert precedence(answer.route, host, method) == ranks[0]
        assert len(set(ranks)) == len(ranks), "equal precedence that was not found ambiguous"
    elif placed:
        assert isinstance(answer, MethodNotAllowed)
        assert set(answer.allowed) == {name for each in placed for name in each.methods}
    else:
        assert isinstance(answer, NoRoute)


@pytest.mark.parametrize("hosts", [True, False], ids=["a host each", "one host"])
def test_a_match_takes_no_more_steps_among_ten_thousand_routes_than_among_ten(
    *, hosts: bool
) -> None:
    def steps(routes: int) -> int:
        """Count the lines that one match executes: a measure that no other process disturbs."""
        table = RouteTable(
            route(f"/s{n}/{{x}}/*", hosts=[f"h{n}" if hosts else "h"]) for n in range(routes)
        )
        count = 0

        def trace(_frame: FrameType, _event: str, _argument: object) -> Any:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            last = routes - 1
            table.match(f"h{last}" if hosts else "h", f"/s{last}/x/y", "GET")
        finally:
            sys.settrace(before)
        return count

    assert steps(10_000) == steps(10)
