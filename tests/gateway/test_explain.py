"""Explanations: the pipeline's own verdict, and words around it."""

import pytest

from auth.identity import ABSENT, Authenticated, Identity
from gateway.explain import explain
from tests.gateway.decision_table import CASES, ROUTES, Case
from tests.gateway.loading import BASE, snapshot_of
from tests.gateway.test_pipeline import caller_called

SNAPSHOT = snapshot_of(ROUTES)
EXIT_CODES = {"allow": 0, "challenge": 3, "deny": 4, "not-found": 5}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case[:3])))
def test_an_explanation_says_what_the_table_says(case: Case) -> None:
    fields = (("Host", case.host),) if case.host else ()
    explanation = explain(
        SNAPSHOT, case.method, case.target, caller=caller_called(case.caller), fields=fields
    )
    assert (explanation.verdict, explanation.reason) == (case.verdict, case.reason)
    assert (explanation.route.id if explanation.route else "") == case.route
    assert explanation.exit_code == EXIT_CODES[case.verdict]
    assert (explanation.answer.status if explanation.answer else 200) == case.status
    assert bool(explanation.upstream_request) == (case.verdict == "allow")


def test_what_goes_upstream_is_the_very_request_with_the_identity() -> None:
    explanation = explain(
        SNAPSHOT,
        "GET",
        "/users/u2/video/7?x=%2e",
        caller=caller_called("editor"),
        fields=(("X-Auth-Subject", "forged"), ("X_Auth_Roles", "root"), ("Accept", "*/*")),
    )
    lines = explanation.upstream_request
    assert lines[0] == "GET /u2/video/7?x=%2e HTTP/1.1"
    assert "X-Auth-Subject: u2" in lines
    assert "X-Auth-Roles: editor" in lines
    assert "Accept: */*" in lines
    assert not any("forged" in line or "root" in line for line in lines)
    assert explanation.route is not None
    assert explanation.route.params == {"user": "u2"}
    assert explanation.route.endpoints == ["http://127.0.0.1:9002"]


@pytest.mark.parametrize("issuers", [True, False], ids=["issuers", "no-issuers"])
def test_a_bearer_token_goes_upstream_only_when_it_is_not_for_us(*, issuers: bool) -> None:
    tokens = "tokens: [{issuer: 'https://idp.example', audience: [api], algorithms: [ES256]}]\n"
    text = BASE + (tokens if issuers else "")
    text += "routes:\n  - {id: a, match: {path: /a}, upstream: notes, access: public}\n"
    fields = (("Authorization", "Bearer abc"), ("Cookie", "doorward=secret; other=1"))
    sent = explain(snapshot_of(text), "GET", "/a", caller=ABSENT, fields=fields).upstream_request
    assert ("Authorization: Bearer abc" in sent) is not issuers
    assert "Cookie: other=1" in sent


ACCESS = [
    ("editor", "/users/u2/video/7", [True, True, True, True, True]),
    ("admin", "/users/u2/video/7", [True, True, True, True, False]),
    ("editor-without-scope", "/users/u2/video/7", [True, True, True, False, None]),
    ("reader", "/users/u2/video/7", [True, False, None, None, None]),
    ("nobody", "/users/u2/video/7", [False, None, None, None, None]),
    ("editor", "/vault/x", [True, True, False, None]),
    ("editor-with-two-factors", "/vault/x", [True, True, True, True]),
    ("nobody", "/", [True]),
    ("nobody", "/hello", [True]),
    ("nobody", "/nothing", []),
]


@pytest.mark.parametrize(("caller", "path", "holds"), ACCESS)
def test_the_access_lines_end_with_the_one_that_decided(
    caller: str, path: str, holds: list[bool | None]
) -> None:
    explanation = explain(SNAPSHOT, "GET", path, caller=caller_called(caller))
    assert [line.holds for line in explanation.access] == holds


def test_a_challenge_shows_where_a_browser_is_sent() -> None:
    fields = (("Sec-Fetch-Mode", "navigate"),)
    explanation = explain(SNAPSHOT, "GET", "/notes/1", caller=ABSENT, fields=fields)
    assert explanation.answer is not None
    assert explanation.answer.status == 302
    shown = dict(explanation.answer.fields)
    assert shown["Location"].startswith("/.doorward/login?return_to=http%3A%2F%2F127.0.0.1%3A8080")


def test_an_absolute_url_gives_the_host() -> None:
    explanation = explain(SNAPSHOT, "GET", "http://APP.example.com/admin/x#top", caller=ABSENT)
    assert (explanation.host, explanation.path) == ("app.example.com", "/admin/x")
    assert explanation.route is not None
    assert explanation.route.id == "app-host"


@pytest.mark.parametrize(
    "url", ["/a b", "/ä", "http://", "", "?x", "http://[::1", "/\r\nX: y", "http://a/ \x00"]
)
def test_whatever_is_typed_is_explained_and_never_raised(url: str) -> None:
    assert explain(SNAPSHOT, "GET", url, caller=ABSENT).exit_code in (0, 5)


def test_a_method_that_is_none_is_explained_too() -> None:
    assert explain(SNAPSHOT, "FROB", "/", caller=ABSENT).reason == "bad_request"
    assert explain(SNAPSHOT, "G T", "/", caller=ABSENT).reason == "bad_request"


def test_the_gateways_own_paths_are_told_apart_from_no_route() -> None:
    explanation = explain(SNAPSHOT, "GET", "/.doorward/me", caller=ABSENT)
    assert "answers itself" in explanation.detail
    assert explanation.answer is None


def test_a_rewrite_that_leads_nowhere_is_what_a_live_request_would_meet() -> None:
    text = BASE + (
        "routes:\n  - {id: a, match: {path: /app/*}, upstream: notes, access: public,"
        " allow_encoded_slash: true, rewrite: {strip_prefix: /app}}\n"
    )
    snapshot = snapshot_of(text)
    good = explain(snapshot, "GET", "/app/x", caller=ABSENT)
    assert good.upstream_request[0] == "GET /x HTTP/1.1"
    bad = explain(snapshot, "GET", "/app/%2Fx", caller=ABSENT)
    assert bad.answer is not None
    assert bad.answer.status == 400


def test_a_request_that_goes_in_circles_is_what_a_live_request_would_meet() -> None:
    via = ("Via", ", ".join(["1.1 doorward"] * 20))
    text = BASE + "routes:\n  - {id: a, match: {path: /*}, upstream: notes, access: public}\n"
    bad = explain(snapshot_of(text), "GET", "/x", caller=ABSENT, fields=(via,))
    assert (bad.verdict, bad.upstream_request) == ("not-found", [])
    assert bad.answer is not None
    assert bad.answer.status == 508


def test_no_more_of_the_caller_is_shown_than_was_given() -> None:
    caller = Authenticated(Identity("u1", roles=("a",), claims={"department": "it"}))
    assert explain(SNAPSHOT, "GET", "/notes", caller=caller).caller == {
        "subject": "u1",
        "method": "session",
        "roles": ("a",),  # msgspec keeps tuples; JSON shows a list
        "claims": {"department": "it"},
    }
