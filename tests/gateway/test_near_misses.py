"""Why not the other routes."""

import pytest

from gateway.near_misses import near_misses, why_not
from gateway.routing import Matched, RouteTable
from tests.gateway.test_routing import route

WHY = [
    ("/a/b", "GET /a/b", "fits too, but 'GET /a/b' comes first: it names the method"),
    ("/a/*", "/a/b", "fits too, but '/a/b' comes first: its path is more literal"),
    ("/a/{x}", "/a/b", "fits too, but '/a/b' comes first: its path is more literal"),
    ("/a/b", "h/a/b", "fits too, but 'h/a/b' comes first: its host is more exact"),
    ("*.s/a/b", "/a/b", "only for the host *.s, not h"),
    ("POST /a/b", "/a/b", "takes only POST"),
    ("GET /a/b", None, "fits"),
    ("/a/c", None, "segment 2 of the path is 'b', not 'c'"),
    ("/a/b/c", None, "the path ends before /a/b/c does"),
    ("/a/b/c/*", None, "the path ends before /a/b/c/* does"),
    ("/a", None, "the path goes on after /a, which does not end in /*"),
]


@pytest.mark.parametrize(("loser", "winner", "words"), WHY)
def test_a_near_miss_names_the_first_thing_that_keeps_it_away(
    loser: str, winner: str | None, words: str
) -> None:
    routes = []
    for text in (loser, winner):
        if text is None:
            continue
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
    chosen = routes[1] if winner is not None else None
    assert why_not(routes[0], "h", "/a/b", "GET", chosen) == words
    if chosen is not None:
        found = RouteTable(routes).match("h", "/a/b", "GET")
        assert isinstance(found, Matched)
        assert found.route is chosen


def test_an_empty_segment_is_no_parameter() -> None:
    words = "segment 2 of the path is empty, and /a/{x} needs one"
    assert why_not(route("/a/{x}"), "h", "/a/", "GET", None) == words


def test_the_nearest_come_first_and_the_rest_is_counted() -> None:
    near = [
        route("/a/*"),
        route("/a/b", methods=["POST"]),
        route("/a/b", hosts=["other"]),
        route("/a/c"),
    ]
    far = [route(f"/far{n}") for n in range(1000)]
    table = RouteTable([*far, *reversed(near)])
    shown, left_out = near_misses(table, "h", "/a/b", "GET", None)
    assert [miss.route for miss in shown] == [each.route.id for each in near]
    assert left_out == 1000
    shown, left_out = near_misses(table, "h", "/a/b", "GET", None, most=2)
    assert (len(shown), left_out) == (2, 1002)


def test_strangers_are_shown_only_when_there_is_nobody_else() -> None:
    table = RouteTable(route(f"/far{n}") for n in range(10))
    shown, left_out = near_misses(table, "h", "/a/b", "GET", None)
    assert (len(shown), left_out) == (3, 7)
