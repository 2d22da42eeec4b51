"""An explanation as text."""

import msgspec

from auth.identity import ABSENT
from gateway.explain import explain
from gateway.explanation_text import render_explanation
from tests.gateway.decision_table import ROUTES
from tests.gateway.loading import snapshot_of
from tests.gateway.test_pipeline import caller_called

SNAPSHOT = snapshot_of(ROUTES)


def test_a_denial_shows_the_line_that_decided() -> None:
    explanation = explain(SNAPSHOT, "GET", "/users/u1/video/7", caller=caller_called("editor"))
    assert render_explanation(explanation).splitlines()[:16] == [
        "GET /users/u1/video/7",
        "  verdict   denied: signing in again would not help (condition_false)",
        "            the condition is not true",
        "  route     video-of-a-user (line 45): any method (any host)/users/{user}/video/*",
        "            user = u1",
        "  caller    subject: u2",
        "            method: session",
        "            tenant: acme",
        "            roles: editor",
        "            scopes: video.write",
        "  access    yes signed in",
        "            yes tenant is one of: acme",
        "            yes has one of the roles: admin, editor",
        "            yes has all of the scopes: video.write",
        "            NO  when: request.params.user == identity.subject",
        "  answer    403",
    ]


def test_what_is_allowed_shows_what_goes_upstream() -> None:
    text = render_explanation(explain(SNAPSHOT, "GET", "/notes/1", caller=caller_called("reader")))
    assert (
        "  upstream  notes at http://127.0.0.1:9001\n            | GET /notes/1 HTTP/1.1\n" in text
    )
    assert "note-deletion (line 33): takes only DELETE" in text


def test_no_route_says_so_and_shows_the_nearest() -> None:
    text = render_explanation(explain(SNAPSHOT, "GET", "/notesx", caller=ABSENT))
    assert "  verdict   reaches no route (no_route)\n  route     none\n" in text
    assert "  answer    404\n" in text
    assert "more, further away" in text


def test_nothing_is_said_of_more_routes_where_there_are_none() -> None:
    explanation = msgspec.structs.replace(
        explain(SNAPSHOT, "GET", "/notesx", caller=ABSENT), others_left_out=0
    )
    assert "more, further away" not in render_explanation(explanation)
