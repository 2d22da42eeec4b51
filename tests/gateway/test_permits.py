"""Permits that are given again, and everything that must make the rule be applied anew."""

from collections.abc import Mapping

import pytest

from auth.decision import Allow, Challenge, Decision, Deny
from auth.identity import ABSENT, Authenticated, Identity
from auth.policy import compile_rule
from config.model import AccessRule, Endpoint, Limits, Match, Route, Upstream
from gateway.permits import Permits
from gateway.precedence import compile_route
from gateway.reading import read_request_head
from gateway.routing import Matched

UPSTREAM = Upstream(name="app", endpoints=(Endpoint(scheme="http", host="a", port=1),))
ALICE = Authenticated(Identity(subject="alice", roles=("editor",), session_digest="d1"))


def matched(params: Mapping[str, str] | None = None, **rule: object) -> Matched:
    access = AccessRule(level="signed-in", **rule)  # type: ignore[arg-type]
    route = Route(id="r", match=Match(path="/*"), upstream="app", access=access)
    return Matched(compile_route(route, compile_rule(access), UPSTREAM), params or {})


def conclude(
    permits: Permits,
    match: Matched,
    caller: Authenticated = ALICE,
    target: str = "GET /x",
    fields: str = "",
) -> Decision:
    raw = f"{target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()
    return permits.conclude(
        match, caller, read_request_head(raw, scheme="http", limits=Limits()), 0.0
    )


def test_the_same_permit_is_given_again_to_the_same_caller_on_the_same_route() -> None:
    permits, match = Permits(), matched(roles=frozenset({"editor"}))
    first = conclude(permits, match)
    assert isinstance(first, Allow)
    assert conclude(permits, match) is first


def test_a_session_that_was_read_again_with_other_roles_is_judged_anew() -> None:
    permits, match = Permits(), matched(roles=frozenset({"editor"}))
    conclude(permits, match)
    demoted = Authenticated(Identity(subject="alice", session_digest="d1"))
    assert isinstance(conclude(permits, match, demoted), Deny)


def test_a_permit_for_one_route_is_none_for_another() -> None:
    permits = Permits()
    assert isinstance(conclude(permits, matched(roles=frozenset({"editor"}))), Allow)
    assert isinstance(conclude(permits, matched(roles=frozenset({"admin"}))), Deny)


@pytest.mark.parametrize(
    ("when", "allowed", "denied"),
    [
        ("request.method == 'GET'", ({}, "GET /x", ""), ({}, "POST /x", "")),
        ("request.path == '/x'", ({}, "GET /x", ""), ({}, "GET /y", "")),
        (
            "request.params.user == identity.subject",
            ({"user": "alice"}, "GET /x", ""),
            ({"user": "bob"}, "GET /x", ""),
        ),
        (
            "request.headers['x-a'] == '1'",
            ({}, "GET /x", "X-A: 1\r\n"),
            ({}, "GET /x", "X-A: 2\r\n"),
        ),
    ],
    ids=["method", "path", "params", "headers"],
)
def test_what_a_condition_reads_is_part_of_what_is_remembered(
    when: str,
    allowed: tuple[Mapping[str, str], str, str],
    denied: tuple[Mapping[str, str], str, str],
) -> None:
    permits, match = Permits(), matched(when=when)
    for _ in range(2):
        for (params, target, fields), expected in ((allowed, Allow), (denied, Deny)):
            again = Matched(match.route, params)
            decision = conclude(permits, again, target=target, fields=fields)
            assert isinstance(decision, expected)


def test_a_condition_on_the_host_tells_hosts_apart() -> None:
    permits, match = Permits(), matched(when="request.host == 'a'")
    assert isinstance(conclude(permits, match), Allow)
    raw = b"GET /x HTTP/1.1\r\nHost: b\r\n\r\n"
    other = read_request_head(raw, scheme="http", limits=Limits())
    assert isinstance(permits.conclude(match, ALICE, other, 0.0), Deny)


def test_refusals_and_strangers_are_not_remembered() -> None:
    permits, match = Permits(), matched(roles=frozenset({"admin"}))
    conclude(permits, match)
    raw = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    permits.conclude(match, ABSENT, read_request_head(raw, scheme="http", limits=Limits()), 0.0)
    assert len(permits) == 0


def test_the_memory_is_bounded_and_a_long_path_is_not_kept() -> None:
    permits, match = Permits(capacity=3), matched(when="request.path.startsWith('/')")
    for number in range(10):
        assert isinstance(conclude(permits, match, target=f"GET /{number}"), Allow)
        assert len(permits) <= 3
    before = len(permits)
    assert isinstance(conclude(permits, match, target=f"GET /{'x' * 1000}"), Allow)
    assert len(permits) == before


def test_a_permit_with_max_age_is_not_given_again_when_it_is_too_late() -> None:
    permits, match = Permits(), matched(max_age=300.0)
    head = read_request_head(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", scheme="http", limits=Limits())
    caller = Authenticated(Identity(subject="alice", session_digest="d1", auth_time=1000))
    assert isinstance(permits.conclude(match, caller, head, 1300.0), Allow)
    assert isinstance(permits.conclude(match, caller, head, 1301.0), Challenge)
