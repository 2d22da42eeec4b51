"""How the service says things, apart from the pages."""

import msgspec
import pytest

from auth.identity import ABSENT, Authenticated, Caller, Identity
from auth.login.answers import Answers, Problem, patience
from auth.login.messages import LoginRequest
from auth.login.provenance import FormTokens
from auth.login.visit import Visit, Visits
from auth.wording import ENGLISH
from config.model import Ldap, Login, Mail, Provider, Registration
from tests.auth.login.conftest import PUBLIC, configured, field

PROBLEM = Problem(404, "no_such_thing", "There is none", "Look elsewhere.")


def test_a_problem_is_told_to_programs_as_rfc_9457_has_it() -> None:
    answer = Answers(configured()).problem(PROBLEM)
    assert (answer.status, answer.error) == (404, "no_such_thing")
    assert field(answer, "content-type") == "application/problem+json"
    assert field(answer, "x-doorward-error") == "no_such_thing"
    assert msgspec.json.decode(answer.body) == {
        "title": "There is none",
        "status": 404,
        "code": "no_such_thing",
        "detail": "Look elsewhere.",
    }


def test_a_problem_without_advice_has_no_detail() -> None:
    answer = Answers(configured()).problem(Problem(404, "no_such_thing", "There is none", ""))
    assert set(msgspec.json.decode(answer.body)) == {"title", "status", "code"}


def test_json_is_no_error_and_is_not_kept() -> None:
    answer = Answers(configured()).json({"a": 1})
    assert (answer.status, answer.error, answer.body) == (200, "", b'{"a":1}')
    assert field(answer, "x-doorward-error") == ""
    assert field(answer, "cache-control") == "no-store"


def test_a_redirect_drops_the_form_that_was_sent() -> None:
    """303: with 302 or 307 a browser could send the password on (RFC 9700 section 4.12)."""
    assert Answers(configured()).redirect("/notes").status == 303


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/.doorward/login", "/.doorward/login?rd=https%3A%2F%2Fa%2Fx%3Fb%26c"),
        ("https://sso.example/in?v=1", "https://sso.example/in?v=1&rd=https%3A%2F%2Fa%2Fx%3Fb%26c"),
    ],
)
def test_the_way_back_is_one_parameter(url: str, location: str) -> None:
    answers = Answers(configured(login=Login(url=url, return_parameter="rd")))
    answer = answers.to_sign_in(origin="https://a", path="/x?b&c")
    assert field(answer, "location") == location


def test_a_challenge_names_where_to_sign_in() -> None:
    name, value = Answers(configured()).challenge
    assert (name, value) == (
        "WWW-Authenticate",
        'Cookie realm="doorward", form-action="/.doorward/login"',
    )


@pytest.mark.parametrize(
    ("wait", "advice"),
    [
        (0.2, "Please try again in a minute."),
        (60.0, "Please try again in a minute."),
        (60.1, "Please try again in 2 minutes."),
    ],
)
def test_who_must_wait_is_told_for_how_long_in_whole_minutes(wait: float, advice: str) -> None:
    problem = patience(wait)
    assert problem.status == 429
    assert problem.in_words(ENGLISH)[1] == advice


DIRECTORY = Ldap("ldaps://ldap.example.com")
CORP = Provider("corp", "Corp", "https://idp.example.com", "gateway")
MAIL = Mail("door@example.com")


@pytest.mark.parametrize(
    ("login", "serves", "passwords", "accounts", "reset", "registration"),
    [
        (Login(), True, True, True, False, False),
        (Login(accounts=False), False, False, False, False, False),
        (Login(accounts=False, providers=(CORP,)), True, False, False, False, False),
        (Login(url="https://sso.example.com/in"), False, False, False, False, False),
        (Login(accounts=False, ldap=DIRECTORY), True, True, False, False, False),
        (Login(mail=MAIL), True, True, True, True, False),
        (Login(mail=MAIL, registration=Registration()), True, True, True, True, True),
        (Login(registration=Registration()), True, True, True, False, False),
        (Login(mail=MAIL, ldap=DIRECTORY, accounts=False), True, True, False, False, False),
    ],
    ids=["own", "none", "provider", "elsewhere", "ldap", "mail", "all", "no mail", "ldap mail"],
)
def test_what_is_offered_is_what_the_settings_allow(
    login: Login,
    *,
    serves: bool,
    passwords: bool,
    accounts: bool,
    reset: bool,
    registration: bool,
) -> None:
    answers = Answers(configured(login=login))
    assert answers.serves_sign_in is serves
    assert answers.takes_passwords is passwords
    assert answers.has_accounts is accounts
    assert answers.offers_reset is reset
    assert answers.offers_registration is registration


# Pages -------------------------------------------------------------------------------------------


DONE = {"heading": "Done", "explanation": "It is done.", "sign_in": ""}


def visit(
    *, caller: Caller = ABSENT, cookies: dict[str, str] | None = None, origin: str = PUBLIC
) -> Visit:
    request = LoginRequest(
        method="GET",
        path="/.doorward/login",
        query={},
        form={},
        cookies=cookies or {},
        fields={},
        client_address="192.0.2.1",
        caller=caller,
        origin=origin,
        request_id="request-1",
    )
    return Visits(configured(hosts=("*.example.com",)), FormTokens(b"s" * 32)).receive(request)


def test_a_page_gives_a_new_browser_the_cookie_that_its_forms_need_and_no_script_reads_it() -> None:
    first = visit()
    answer = Answers(configured()).page(first, "done", DONE)
    cookie, _, attributes = field(answer, "set-cookie").partition("; ")
    name, _, value = cookie.partition("=")
    assert value == first.nonce
    assert attributes == "Path=/.doorward/; HttpOnly; SameSite=Lax; Secure"
    again = Answers(configured()).page(visit(cookies={name: value}), "done", DONE)
    assert field(again, "set-cookie") == ""


def test_a_page_says_its_language_and_who_is_signed_in() -> None:
    ada = Authenticated(Identity("u-1", name="Ada"))
    answer = Answers(configured()).page(visit(caller=ada), "logout", {})
    assert field(answer, "content-language") == "en"
    assert b"as <strong>Ada</strong>" in answer.body
    assert b"You are not signed in" in Answers(configured()).page(visit(), "logout", {}).body


def test_a_problem_gives_its_page_status_and_code() -> None:
    answer = Answers(configured()).page(visit(), "done", DONE, problem=PROBLEM)
    assert (answer.status, answer.error) == (404, "no_such_thing")
    assert field(answer, "x-doorward-error") == "no_such_thing"


@pytest.mark.parametrize("again", ["", "/.doorward/login"])
def test_an_error_page_has_its_reference_and_a_way_on(again: str) -> None:
    answer = Answers(configured()).error_page(visit(), PROBLEM, again=again)
    assert (answer.status, answer.error) == (404, "no_such_thing")
    for part in (b"There is none", b"Look elsewhere.", b"request-1", b'href="/"'):
        assert part in answer.body
    assert (b"Try again" in answer.body) is bool(again)


@pytest.mark.parametrize(
    ("origin", "asked", "runs"),
    [
        (PUBLIC, True, True),
        (PUBLIC, False, False),
        ("https://other.example.com", True, False),
    ],
)
def test_our_script_runs_where_passkeys_are_used_and_nowhere_else(
    origin: str, *, asked: bool, runs: bool
) -> None:
    answers = Answers(configured())
    answer = answers.page(visit(origin=origin), "done", DONE, with_passkeys=asked)
    policy = field(answer, "content-security-policy")
    assert (f"{PUBLIC}/.doorward/passkeys.js" in policy) is runs
    assert answers.offers_passkeys(visit(origin=origin)) is (origin == PUBLIC)


def test_the_script_is_javascript_that_nobody_sniffs() -> None:
    answer = Answers(configured()).script()
    assert field(answer, "content-type") == "text/javascript; charset=utf-8"
    assert field(answer, "x-content-type-options") == "nosniff"
    assert b"navigator.credentials" in answer.body


def test_who_is_sent_away_does_not_say_from_where() -> None:
    """RFC 9700 section 4.2.4: a code in the URL must not go on in a Referer."""
    answer = Answers(configured()).away("https://shop.example.org/.doorward/callback?code=c")
    assert (answer.status, field(answer, "referrer-policy")) == (303, "no-referrer")


def test_a_site_without_https_gets_a_form_cookie_that_browsers_keep() -> None:
    plain = configured(public_url="http://127.0.0.1:8080")
    answer = Answers(plain).page(visit(), "done", DONE)
    assert "Secure" not in field(answer, "set-cookie")
