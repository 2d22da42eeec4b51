"""How the service says things, apart from the pages."""

import msgspec
import pytest

from auth.login.answers import Answers, Problem, patience
from auth.wording import ENGLISH
from config.model import Ldap, Login, Mail, Provider, Registration
from tests.auth.login.conftest import configured, field

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
