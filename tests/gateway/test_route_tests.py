"""The route file's own tests."""

import pytest

from tests.gateway.decision_table import ROUTES
from tests.gateway.loading import problems_of, snapshot_of

FIRST_LINE = ROUTES.count("\n") + 2

EDITOR = "{subject: u1, roles: [editor], scopes: [video.write], tenant: acme}"
PASSING = [
    "{request: GET /notes/1, as: {subject: u1}, expect: allow}",
    "{request: GET /notes/1, expect: challenge}",
    f"{{request: GET /users/u2/video/7, as: {EDITOR}, expect: deny}}",
    f"{{request: GET /users/u1/video/7, as: {EDITOR}, expect: allow}}",
    "{request: GET /space/1, as: {subject: u1, groups: [makers]}, expect: allow}",
    "{request: GET /nothing, expect: not-found}",
    "{request: PUT /notes/1, as: {subject: u1}, expect: not-found}",
    "{request: GET /a%2Fb, expect: not-found}",
    "{request: 'GET http://app.example.com/admin/x', expect: allow}",
    "{request: GET /, expect: allow}",
]


@pytest.mark.parametrize("line", PASSING)
def test_a_sentence_that_is_true_passes(line: str) -> None:
    snapshot_of(f"{ROUTES}tests:\n  - {line}\n")


FAILING = [
    (
        "{request: GET /notes/1, expect: allow}",
        "without a sign-in should be 'allow', but it is challenged by route 'notes', line 25 (no_c",
    ),
    (
        "{request: GET /admin/x, as: {subject: u1}, expect: allow}",
        "as u1 should be 'allow', but it is denied by route 'admin', line 37 (role_missing)",
    ),
    ("{request: GET /, expect: deny}", "but it is allowed by route 'front-page'"),
    ("{request: GET /nothing, expect: allow}", "but it is taken by no route (no_route)"),
    ("{request: PUT /notes/1, expect: allow}", "taken by no route (method_not_allowed)"),
    ("{request: GET /a%2Fb, expect: allow}", "but it is refused before any route with 400"),
]


@pytest.mark.parametrize(("line", "words"), FAILING, ids=[row[0] for row in FAILING])
def test_a_sentence_that_is_false_is_a_problem_that_says_what_happens(
    line: str, words: str
) -> None:
    (problem,) = problems_of(f"{ROUTES}tests:\n  - {line}\n")
    assert words in problem.message
    assert problem.line == FIRST_LINE
    assert problem.column > 1


def test_every_failing_sentence_is_reported() -> None:
    lines = "".join(f"  - {line}\n" for line, _ in FAILING)
    problems = problems_of(f"{ROUTES}tests:\n{lines}")
    assert [problem.line for problem in problems] == [
        FIRST_LINE + offset for offset in range(len(FAILING))
    ]


def test_a_field_of_the_request_is_seen_by_a_condition() -> None:
    text = ROUTES + (
        "  - id: by-field\n    match: {path: /field}\n    upstream: notes\n"
        "    access: {when: \"request.headers['x-kind'] == 'a'\"}\n"
        "tests:\n"
        "  - {request: GET /field, as: {subject: u1}, headers: {X-Kind: a}, expect: allow}\n"
        "  - {request: GET /field, as: {subject: u1}, headers: {X-Kind: b}, expect: deny}\n"
    )
    snapshot_of(text)
