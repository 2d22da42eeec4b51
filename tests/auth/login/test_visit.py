"""What a request says about the browser that sends it."""

from collections.abc import Mapping

import pytest

from auth.cookies import form_cookie_name
from auth.decision import StepUp
from auth.identity import ABSENT, Authenticated, Identity, Rejected
from auth.login.messages import LoginRequest
from auth.login.provenance import FormTokens
from auth.login.visit import Visit, Visits
from auth.session import SessionRecord, digest
from tests.auth.login.conftest import PUBLIC, SECRET, configured

TOKENS = FormTokens(SECRET)
NONCE = TOKENS.new_nonce()
FORM_COOKIE = {"__Secure-doorward-form": NONCE}
SESSION_COOKIE = {"__Host-doorward": "value"}


def visit(
    *,
    form: Mapping[str, str] | None = None,
    cookies: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
    hosts: tuple[str, ...] = (),
    origin: str = "",
) -> Visit:
    request = LoginRequest(
        method="POST",
        path="/.doorward/login",
        query={},
        form=form or {},
        cookies=cookies or {},
        fields=fields or {},
        client_address="192.0.2.1",
        caller=ABSENT,
        origin=origin,
    )
    return Visits(configured(hosts=hosts), TOKENS).receive(request)


GOOD = {"token": TOKENS.token(NONCE, "")}
GOOD_FOR_SESSION = {"token": TOKENS.token(NONCE, digest("value"))}
CASES: list[tuple[str, dict[str, str], dict[str, str], dict[str, str], bool, bool]] = [
    # name, fields, cookies, form, may sign in, may change sessions
    ("own-origin", {"origin": PUBLIC}, SESSION_COOKIE, {}, True, True),
    ("own-origin-bad-token", {"origin": PUBLIC}, SESSION_COOKIE, {"token": "x"}, True, True),
    ("foreign-origin", {"origin": "https://evil.example"}, {}, {}, False, False),
    ("foreign-with-token", {"origin": "https://evil.example"}, FORM_COOKIE, GOOD, False, False),
    ("null-with-token", {"origin": "null"}, FORM_COOKIE, GOOD, False, False),
    ("cross-site-with-token", {"sec-fetch-site": "cross-site"}, FORM_COOKIE, GOOD, False, False),
    ("typed", {"sec-fetch-site": "none"}, SESSION_COOKIE, {}, True, True),
    ("old-browser", {}, FORM_COOKIE, GOOD, True, True),
    ("old-browser-session", {}, FORM_COOKIE | SESSION_COOKIE, GOOD_FOR_SESSION, True, True),
    ("token-of-no-session", {}, FORM_COOKIE | SESSION_COOKIE, GOOD, False, False),
    ("no-token", {}, FORM_COOKIE, {}, True, False),
    ("only-session", {}, SESSION_COOKIE, {}, True, False),
    ("other-cookie", {"cookie": "a=b"}, {}, {}, True, False),
    ("empty-token", {}, {}, {"token": ""}, False, False),
    ("program", {}, {}, {}, True, False),
    ("bearer", {"authorization": "Bearer x"}, {}, {}, True, True),
    ("bearer-of-no-scheme", {"authorization": "Bearerx"}, {}, {}, True, False),
]


@pytest.mark.parametrize(
    ("fields", "cookies", "form", "may_sign_in", "may_change"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_who_may_sign_in_and_who_may_change_sessions(
    fields: dict[str, str],
    cookies: dict[str, str],
    form: dict[str, str],
    *,
    may_sign_in: bool,
    may_change: bool,
) -> None:
    judged = visit(fields={"host": "app.example.com"} | fields, cookies=cookies, form=form)
    assert (judged.may_sign_in, judged.may_change_sessions) == (may_sign_in, may_change)


def test_a_token_answers_for_the_browser_it_is_shown_to() -> None:
    shown = visit(cookies=SESSION_COOKIE)
    assert shown.nonce_is_new
    back = visit(
        cookies=SESSION_COOKIE | {"__Secure-doorward-form": shown.nonce},
        form={"token": shown.token},
    )
    assert back.token_is_good
    assert not back.nonce_is_new


@pytest.mark.parametrize(
    ("origin", "host", "return_to", "expected"),
    [
        ("", "app.example.com", f"{PUBLIC}/a", f"{PUBLIC}/a"),
        ("", "shop.example.com", "https://shop.example.com/a", "https://shop.example.com/a"),
        ("http://shop.example.com", "", "https://shop.example.com/a", "https://shop.example.com/a"),
        ("", "app.example.com", "https://shop.example.com/a", "https://shop.example.com/a"),
        ("", "app.example.com", "http://app.example.com/a", "/"),
        # A host that no route names is not ours, be it asked for or not.
        ("", "evil.example", "https://evil.example/a", "/"),
        ("", "[", f"{PUBLIC}/a", f"{PUBLIC}/a"),
    ],
)
def test_the_way_back_leads_to_a_host_of_ours(
    origin: str, host: str, return_to: str, expected: str
) -> None:
    judged = visit(
        origin=origin,
        fields={"host": host},
        form={"return_to": return_to},
        hosts=("shop.example.com",),
    )
    assert judged.return_to == expected


@pytest.mark.parametrize("caller", [ABSENT, Rejected("session_ended")])
def test_who_did_not_prove_it_is_nobody(caller: Rejected) -> None:
    request = LoginRequest("GET", "/", {}, {}, {}, {}, "", caller)
    assert Visits(configured(), TOKENS).receive(request).identity is None


def test_who_proved_it_is_known() -> None:
    identity = Identity(subject="u1")
    request = LoginRequest("GET", "/", {}, {}, {}, {}, "", Authenticated(identity))
    assert Visits(configured(), TOKENS).receive(request).identity == identity


def test_the_form_cookie_is_named_after_the_session_cookie() -> None:
    assert form_cookie_name("doorward") == "doorward-form"
    assert form_cookie_name("__Host-doorward") == "__Secure-doorward-form"


def test_a_record_says_where_it_was_begun() -> None:
    record = SessionRecord(v=1, subject="u1", created_at=1.0, expires_at=9.0)
    begun = visit(fields={"user-agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0"}).stamped(record)
    assert (begun.begun_on, begun.begun_from) == ("Firefox/Linux", "192.0.2.1")
    assert begun.subject == "u1"


def test_what_the_sign_in_must_come_to_is_read_from_link_and_form() -> None:
    assert visit().step_up is None
    assert visit(form={"acr_values": "mfa"}).step_up == StepUp(("mfa",))


def test_a_client_gets_what_it_prefers_or_what_suits_the_place() -> None:
    assert visit().prefers(unless_told="json") == "json"
    assert visit(fields={"accept": "text/html"}).prefers(unless_told="json") == "page"


def test_only_our_own_word_says_that_somebody_is_back_from_signing_out() -> None:
    """The `state` that a provider gives back is bound to the browser that was sent there."""

    def back(state: str) -> Visit:
        request = LoginRequest(
            "GET", "/.doorward/logout", {"state": state}, {}, FORM_COOKIE, {}, "", ABSENT
        )
        return Visits(configured(), TOKENS).receive(request)

    sent = back("")
    assert not sent.has_returned
    assert back(sent.return_token).has_returned
    assert not back(TOKENS.token(NONCE, "")).has_returned
