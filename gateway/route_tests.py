"""The sentences of a route file about itself (`tests:`), held against what the routes do."""

from typing import TYPE_CHECKING

from auth.identity import ABSENT, Authenticated, Caller, Identity
from config.model import RouteTest
from config.problem import Problem
from gateway.rehearsal import Rehearsal, rehearse

if TYPE_CHECKING:
    from gateway.snapshot import Snapshot

_HAPPENED = {"allow": "allowed", "deny": "denied", "challenge": "challenged"}


def failed_tests(snapshot: "Snapshot") -> list[Problem]:
    """Run every test of the file; return one problem, at the test's place, for each that fails."""
    problems = []
    for test in snapshot.configuration.tests:
        rehearsal = rehearse(
            snapshot, test.method, test.target, caller=caller_of(test), fields=test.headers
        )
        if verdict_word(rehearsal) != test.expect:
            problems.append(Problem(test.line, test.column, _failure(test, rehearsal)))
    return problems


def caller_of(test: RouteTest) -> Caller:
    """Return the caller that the test's `as:` describes; nobody without a subject."""
    if test.subject is None:
        return ABSENT
    return Authenticated(
        Identity(
            subject=test.subject,
            tenant=test.tenant,
            roles=test.roles,
            groups=test.groups,
            scopes=test.scopes,
            acr=test.acr,
            claims=test.claims,
        )
    )


def verdict_word(rehearsal: Rehearsal) -> str:
    """Return `allow`, `deny` or `challenge`, or `not-found` for what reaches no route at all.

    A method that no route takes and a request that is refused unread reach none either.
    """
    decision = rehearsal.outcome.decision if rehearsal.outcome else ""
    return decision or "not-found"


def describe(rehearsal: Rehearsal) -> str:
    """Say in half a sentence what became of the request, and by which route and for what reason."""
    if rehearsal.refused is not None:
        return f"refused before any route with {rehearsal.refused.status}: {rehearsal.refused}"
    outcome = rehearsal.outcome
    assert outcome is not None
    if not outcome.decision:
        return f"taken by no route ({outcome.reason})"
    assert outcome.matched is not None
    route = outcome.matched.route.route
    happened = _HAPPENED[outcome.decision]
    return f"{happened} by route {route.id!r}, line {route.line} ({outcome.reason})"


def _failure(test: RouteTest, rehearsal: Rehearsal) -> str:
    who = f"as {test.subject}" if test.subject is not None else "without a sign-in"
    return (
        f"test failed: {test.method} {test.target} {who} should be {test.expect!r}, "
        f"but it is {describe(rehearsal)}"
    )
