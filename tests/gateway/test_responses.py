"""The answers that the gateway gives itself."""

import json
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest

from auth.decision import Allow, Challenge, Deny, Reason, StepUp
from auth.identity import Identity
from auth.login.answers import ONWARD
from auth.login.messages import WayBack
from auth.origins import Origins
from auth.policy import compile_rule
from auth.return_url import safe_return_url
from config.model import AccessRule, Endpoint, Limits, Login, Match, Route, Upstream
from config.names import query_parameter
from gateway.answer import Answer
from gateway.bad_request import BadRequest
from gateway.forwarded import Client
from gateway.head import RequestHead
from gateway.navigation import is_navigation
from gateway.outcome import Outcome, Unavailable, Verdict
from gateway.precedence import compile_route
from gateway.reading import read_request_head
from gateway.responses import (
    answer_bad_request,
    answer_error,
    answer_outcome,
)
from gateway.routing import ENCODED_SLASH, NO_ROUTE, Matched, MethodNotAllowed
from tests.auth.login.page_reader import PageReader

ORIGINS = Origins(
    public="http://127.0.0.1:8080",
    scheme="http",
    hosts=frozenset({"127.0.0.1", "app.example.com", "shop.example.org"}),
    suffixes=(),
    sites=frozenset({"http://shop.example.org"}),
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
RULE = AccessRule(
    "signed-in",
    roles=frozenset({"admin", "editor"}),
    scopes=frozenset({"notes.read", "notes.write"}),
    groups=frozenset({"secret-project"}),
    tenants=frozenset({"secret-customer"}),
    when="identity.email.endsWith('@secret.example')",
)


def head(
    method: str = "GET", target: str = "/notes/1?q=a&b", host: str = "127.0.0.1:8080", **fields: str
) -> RequestHead:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    raw = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n"
    return read_request_head(raw.encode(), scheme="http", limits=Limits())


def answer(
    verdict: Verdict,
    request: RequestHead,
    *,
    unauthenticated: Literal["auto", "redirect", "401"] = "auto",
    login: Login | None = None,
    client: Client | None = None,
    providers: tuple[str, ...] = (),
    prompt: str = "",
    kept: WayBack | None = None,
) -> Answer:
    route = Route(
        "notes",
        Match("/notes/*"),
        "notes",
        RULE,
        unauthenticated=unauthenticated,
        providers=providers,
        prompt=prompt,
    )
    upstream = Upstream("notes", (Endpoint("http", "127.0.0.1", 9001),))
    matched = Matched(compile_route(route, compile_rule(RULE), upstream), {})
    return answer_outcome(
        Outcome(verdict, 1, matched),
        request,
        login=login or Login(),
        origins=ORIGINS,
        request_id="r-1",
        client=client,
        kept=kept,
    )


def values(given: Answer, name: str) -> list[str]:
    return [value for field, value in given.fields if field.lower() == name.lower()]


def problem(given: Answer) -> dict[str, Any]:
    assert values(given, "content-type") == ["application/problem+json"]
    return dict(json.loads(given.body))


NOBODY = Challenge(Reason.NO_CREDENTIAL)
IDENTITY = Identity("u1")

NAVIGATIONS = [
    ("GET", {"Sec_Fetch_Mode": "navigate"}, True),
    ("HEAD", {"Sec_Fetch_Mode": "navigate"}, True),
    ("POST", {"Sec_Fetch_Mode": "navigate", "Accept": BROWSER}, False),
    # The browser's own word counts more than Accept.
    ("GET", {"Sec_Fetch_Mode": "cors", "Accept": BROWSER}, False),
    ("GET", {"Sec_Fetch_Mode": "websocket"}, False),
    ("GET", {"Accept": BROWSER}, True),
    ("GET", {"Accept": "TEXT/HTML"}, True),
    ("GET", {"Accept": "text/html;q=0"}, False),
    ("GET", {"Accept": "text/html;q=x"}, False),
    ("GET", {"Accept": "*/*"}, False),
    ("GET", {"Accept": "text/*"}, False),
    ("GET", {"Accept": "application/json"}, False),
    ("GET", {}, False),
]


@pytest.mark.parametrize(("method", "fields", "expected"), NAVIGATIONS)
def test_a_navigation_is_what_the_browser_says_it_is_else_who_asks_for_html(
    method: str, fields: dict[str, str], *, expected: bool
) -> None:
    request = head(method, **fields)
    assert is_navigation(request) is expected
    assert answer(NOBODY, request).status == (302 if expected else 401)


@pytest.mark.parametrize(
    ("unauthenticated", "method", "accept", "status"),
    [
        ("401", "GET", BROWSER, 401),
        ("redirect", "GET", "*/*", 302),
        ("redirect", "POST", "*/*", 303),
        ("auto", "POST", BROWSER, 401),
    ],
)
def test_a_route_may_settle_how_it_challenges(
    unauthenticated: Literal["auto", "redirect", "401"], method: str, accept: str, status: int
) -> None:
    request = head(method, Accept=accept)
    given = answer(NOBODY, request, unauthenticated=unauthenticated)
    assert given.status == status
    if status == 401:  # a problem, whatever the client accepts
        assert ("Content-Type", "application/problem+json") in given.fields


KEPT = WayBack("/.doorward/form?id=0123456789ab", (("Set-Cookie", "k=v"),))


def test_a_form_that_is_kept_is_told_with_401_and_the_way_to_it() -> None:
    request = head("POST", Accept=BROWSER, Sec_Fetch_Mode="navigate")
    given = answer(NOBODY, request, kept=KEPT)
    assert given.status == 401
    assert values(given, "x-doorward-error") == ["unauthenticated"]
    assert values(given, "set-cookie") == ["k=v"]
    assert len(values(given, "www-authenticate")) == 2
    page = PageReader(given.body)
    (link,) = (each for each in page.all("a") if page.text_of(each) == "Sign in")
    asked = parse_qs(urlsplit(link.attributes["href"]).query)
    assert asked == {"return_to": [f"http://127.0.0.1:8080{KEPT.path}"]}


def test_where_everybody_is_redirected_the_way_leads_to_the_kept_form() -> None:
    request = head("POST", Accept=BROWSER)
    given = answer(NOBODY, request, unauthenticated="redirect", kept=KEPT)
    assert (given.status, values(given, "set-cookie")) == (303, ["k=v"])
    asked = parse_qs(urlsplit(values(given, "location")[0]).query)
    assert asked == {"return_to": [f"http://127.0.0.1:8080{KEPT.path}"]}


RETURNS = [
    ("127.0.0.1:8080", "/.doorward/login", "/.doorward/login", "http://127.0.0.1:8080"),
    ("app.example.com", "/.doorward/login", "/.doorward/login", "http://app.example.com"),
    # Under a name that is not ours: sign in where the cookie will be of use.
    (
        "localhost:8080",
        "/.doorward/login",
        "http://127.0.0.1:8080/.doorward/login",
        "http://127.0.0.1:8080",
    ),
    (
        "evil.example",
        "https://login.example.com/in",
        "https://login.example.com/in",
        "http://127.0.0.1:8080",
    ),
]


@pytest.mark.parametrize(("host", "url", "where", "origin"), RETURNS)
def test_the_redirect_carries_the_absolute_url_of_the_request(
    host: str, url: str, where: str, origin: str
) -> None:
    given = answer(NOBODY, head(host=host, Accept=BROWSER), login=Login(url=url))
    (location,) = values(given, "location")
    assert location.partition("?")[0] == where
    assert parse_qs(urlsplit(location).query) == {"return_to": [f"{origin}/notes/1?q=a&b"]}
    assert given.body == b""


def test_the_redirect_believes_what_a_trusted_proxy_says_about_the_authority() -> None:
    client = Client("192.0.2.1", "http", "app.example.com", True, "192.0.2.1")
    given = answer(NOBODY, head(Accept=BROWSER), client=client)
    assert "http%3A%2F%2Fapp.example.com%2Fnotes" in values(given, "location")[0]


def test_a_login_url_with_a_query_of_its_own_keeps_it() -> None:
    login = Login(url="https://login.example.com/?app=notes", return_parameter="rd")
    (location,) = values(answer(NOBODY, head(Accept=BROWSER), login=login), "location")
    assert location.startswith("https://login.example.com/?app=notes&rd=http%3A%2F%2F127.0.0.1")


def test_a_query_too_long_to_come_back_with_is_left_behind() -> None:
    given = answer(NOBODY, head(target=f"/notes?q={'x' * 3000}", Accept=BROWSER))
    assert values(given, "location") == [
        "/.doorward/login?return_to=http%3A%2F%2F127.0.0.1%3A8080%2Fnotes"
    ]


def test_401_names_the_ways_to_authenticate_and_where_to_sign_in() -> None:
    given = answer(NOBODY, head())
    assert values(given, "www-authenticate") == [
        'Bearer realm="doorward"',
        'Cookie realm="doorward", form-action="/.doorward/login"',
    ]
    assert problem(given)["login_url"] == "/.doorward/login"


CREDENTIAL_FAULTS = [
    reason for reason in Reason if reason.startswith(("token_", "session_", "cookie_"))
]


@pytest.mark.parametrize("reason", CREDENTIAL_FAULTS)
def test_401_never_says_what_was_wrong_with_a_credential(reason: Reason) -> None:
    given = answer(Challenge(reason), head())
    said = repr(given.fields) + given.body.decode()
    assert reason.value not in said
    assert given.error == "unauthenticated"
    same = answer(Challenge(Reason.TOKEN_MALFORMED), head())
    if reason.startswith("token_"):
        assert given == same
        assert 'error="invalid_token"' in said


WORDS = [
    (Reason.ROLE_MISSING, "the role admin or editor"),
    (Reason.SCOPE_MISSING, "the permission notes.read and notes.write"),
    (Reason.GROUP_MISSING, "certain groups"),
    (Reason.TENANT_MISMATCH, "an organisation that is not yours"),
    (Reason.CONDITION_FALSE, "A rule for this address"),
    (Reason.CONDITION_FAILED, "A rule for this address"),
]


@pytest.mark.parametrize(("reason", "words"), WORDS, ids=[str(reason) for reason, _ in WORDS])
@pytest.mark.parametrize("accept", ["*/*", BROWSER], ids=["program", "person"])
def test_403_says_why_without_naming_groups_tenants_or_conditions(
    reason: Reason, words: str, accept: str
) -> None:
    given = answer(Deny(reason, "in detail: secret", IDENTITY), head(Accept=accept))
    assert given.status == 403
    text = given.body.decode()
    assert words in text
    assert "secret" not in text


GERMAN = {"Accept": BROWSER, "Accept_Language": "de-DE,de;q=0.9,en;q=0.8"}


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (Deny(Reason.ROLE_MISSING, "", IDENTITY), "mit der Rolle admin oder editor"),
        (Deny(Reason.SCOPE_MISSING, "", IDENTITY), "notes.read und notes.write"),
        (Deny(Reason.TENANT_MISMATCH, "", IDENTITY), "die nicht Ihre ist"),
        (NO_ROUTE, "Diese Adresse gibt es nicht"),
        (MethodNotAllowed(("GET",)), "Das geht hier nicht"),
        (Unavailable(Reason.STORE_UNAVAILABLE, 3), "Sie wurden nicht abgemeldet"),
        (ENCODED_SLASH, '<p class="lead" lang="en">The path has an encoded slash'),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_person_is_told_in_their_language_and_a_program_in_english(
    verdict: Verdict, words: str
) -> None:
    page = answer(verdict, head(**GERMAN))
    assert values(page, "content-language") == ["de"]
    assert '<html lang="de">' in page.body.decode()
    assert words in page.body.decode()
    told = answer(verdict, head(Accept="application/json", Accept_Language="de"))
    assert told == answer(verdict, head(Accept="application/json"))
    assert "%(" not in told.body.decode()


def test_a_link_is_in_the_language_of_the_page() -> None:
    page = answer(Deny(Reason.ROLE_MISSING, "", IDENTITY), head(**GERMAN)).body.decode()
    assert "Abmelden und ein anderes Konto benutzen" in page
    assert "Startseite" in page


def test_403_is_no_redirect_for_a_navigation_either_and_offers_the_way_out() -> None:
    given = answer(Deny(Reason.ROLE_MISSING, "", IDENTITY), head(Accept=BROWSER))
    assert (given.status, values(given, "location")) == (403, [])
    assert b'href="/.doorward/logout"' in given.body


def test_405_names_the_methods_that_are_taken() -> None:
    given = answer(MethodNotAllowed(("GET", "HEAD")), head("POST"))
    assert given.status == 405
    assert values(given, "allow") == ["GET, HEAD"]


def test_what_a_refusal_must_say_besides_is_said() -> None:
    refused = BadRequest(405, "TRACE is not allowed.", (("Allow", "GET, HEAD"),))
    given = answer_bad_request(refused, request_id="r-1")
    assert values(given, "allow") == ["GET, HEAD"]
    assert given.close


def test_a_dead_store_is_503_with_retry_after_and_leaves_the_cookie_alone() -> None:
    given = answer(Unavailable(Reason.STORE_UNAVAILABLE, 3), head(Accept=BROWSER))
    assert given.status == 503
    assert values(given, "retry-after") == ["3"]
    assert values(given, "set-cookie") == []


ERRORS = {
    Reason.STORE_UNAVAILABLE: 503,
    Reason.KEYS_UNAVAILABLE: 503,
    Reason.UPSTREAM_UNREACHABLE: 502,
    Reason.UPSTREAM_PROTOCOL: 502,
    Reason.UPSTREAM_TRUNCATED: 502,
    Reason.UPSTREAM_TIMEOUT: 504,
    Reason.OVERLOADED: 503,
    Reason.DRAINING: 503,
    Reason.INTERNAL: 500,
}


@pytest.mark.parametrize(("reason", "status"), ERRORS.items())
def test_every_failure_has_its_status_and_tells_that_the_gateway_wrote_it(
    reason: Reason, status: int
) -> None:
    given = answer_error(reason, request_id="r-1")
    assert given.status == problem(given)["status"] == status
    assert values(given, "x-doorward-error") == [reason.value]
    assert bool(values(given, "retry-after")) is (status == 503)


EVERY_ANSWER = [
    answer(NOBODY, head()),
    answer(NOBODY, head(Accept=BROWSER)),
    answer(Deny(Reason.ROLE_MISSING, "", IDENTITY), head()),
    answer(Deny(Reason.ROLE_MISSING, "", IDENTITY), head(Accept=BROWSER)),
    answer(NO_ROUTE, head()),
    answer(NO_ROUTE, head(Accept=BROWSER)),
    answer(MethodNotAllowed(("GET",)), head()),
    answer(ENCODED_SLASH, head()),
    answer_error(Reason.INTERNAL, request_id="r-1"),
    answer_bad_request(BadRequest(431, "The request head is too large."), request_id="r-1"),
]


@pytest.mark.parametrize("given", EVERY_ANSWER, ids=lambda given: f"{given.status}-{given.error}")
def test_every_answer_of_ours_is_marked_and_neither_stored_nor_guessed_about(given: Answer) -> None:
    assert values(given, "x-doorward-error") == [given.error]
    assert values(given, "cache-control") == ["no-store"]
    assert values(given, "x-content-type-options") == ["nosniff"]
    if given.body:
        (policy,) = values(given, "content-security-policy")
        assert policy.startswith("default-src 'none'")
        assert b"r-1" in given.body


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("application/json, text/html", True),
        ("application/json, text/html;q=0.9", False),
        ("*/*", False),
        ("application/problem+json", False),
    ],
)
def test_a_page_is_for_those_who_prefer_one(accept: str, *, html: bool) -> None:
    given = answer(NO_ROUTE, head(Accept=accept))
    assert (values(given, "content-type") == ["text/html; charset=utf-8"]) is html


def test_nothing_of_the_request_is_reflected() -> None:
    request = head(target="/canary-path?canary=query", Accept=BROWSER, Referer="canary")
    assert b"canary" not in answer(NO_ROUTE, request).body
    assert b"canary" not in answer(NO_ROUTE, head(target="/canary")).body


def test_a_malformed_request_closes_the_connection() -> None:
    refused = BadRequest(400, "The Host field is malformed.")
    given = answer_bad_request(refused, request_id="r-1")
    assert given.close
    assert problem(given)["detail"] == "The Host field is malformed."
    assert answer(ENCODED_SLASH, head()).status == 400


def test_a_query_comes_back_as_its_sender_meant_it_also_where_rfc_3986_has_no_place_for_it() -> (
    None
):
    """`?filter[name]=` of forms and links; browsers leave these characters as they are."""
    given = answer(NOBODY, head(target="/notes?filter[a]=b|c&d={e}^`", Accept=BROWSER))
    (location,) = values(given, "location")
    (back,) = parse_qs(urlsplit(location).query)["return_to"]
    assert safe_return_url(back, origins=frozenset({"http://127.0.0.1:8080"})) == back
    assert parse_qs(urlsplit(back).query) == {"filter[a]": ["b|c"], "d": ["{e}^`"]}


def test_an_allowed_request_is_never_answered_here() -> None:
    with pytest.raises(TypeError):
        answer(Allow(Reason.ALLOWED, IDENTITY), head())


STEP_UP = StepUp(("phr", "mfa"), 300.0)


def test_a_browser_takes_along_what_the_sign_in_must_come_to() -> None:
    for reason in (Reason.ACR_MISSING, Reason.AUTH_TIME_TOO_OLD, Reason.NO_CREDENTIAL):
        given = answer(Challenge(reason, STEP_UP), head(Accept=BROWSER))
        (location,) = values(given, "location")
        assert parse_qs(urlsplit(location).query) == {
            "return_to": ["http://127.0.0.1:8080/notes/1?q=a&b"],
            "acr_values": ["phr mfa"],
            "max_age": ["300"],
        }


def test_a_program_hears_what_the_sign_in_must_come_to() -> None:
    """RFC 9470 section 3."""
    given = answer(Challenge(Reason.ACR_MISSING, STEP_UP), head())
    url = "/.doorward/login?acr_values=phr%20mfa&max_age=300"
    told = problem(given)
    assert given.status == 401
    assert values(given, "www-authenticate") == [
        f'Bearer realm="doorward", error="{told["code"]}", acr_values="phr mfa", max_age="300"',
        f'Cookie realm="doorward", form-action="{url}"',
    ]
    assert told["code"] == given.error == "insufficient_user_authentication"
    assert (told["acr_values"], told["max_age"], told["login_url"]) == ("phr mfa", "300", url)


def test_who_sent_a_weak_token_is_not_sent_to_sign_in_by_cookie() -> None:
    request = head(Accept=BROWSER, Authorization="Bearer x")
    assert answer(Challenge(Reason.ACR_MISSING, STEP_UP), request).status == 401
    given = answer(Challenge(Reason.ACR_MISSING, STEP_UP), request, unauthenticated="redirect")
    assert given.status == 401


@pytest.mark.parametrize("ways", ["auto", "redirect"])
def test_the_way_to_sign_in_says_where_and_how_the_route_wants_it(
    ways: Literal["auto", "redirect"],
) -> None:
    request = head(Accept=BROWSER)
    back = "return_to=http%3A%2F%2F127.0.0.1%3A8080%2Fnotes%2F1%3Fq%3Da%26b"
    given = answer(
        Challenge(Reason.ACR_MISSING, STEP_UP),
        request,
        unauthenticated=ways,
        providers=("a", "b"),
        prompt="login",
    )
    (location,) = values(given, "location")
    asked = location.removeprefix("/.doorward/login?").split("&")
    assert set(asked) == {
        back, "acr_values=phr%20mfa", "max_age=300", "provider=a%2Cb", "prompt=login",
    }  # fmt: skip


@pytest.mark.parametrize("name", ONWARD)
def test_what_goes_beside_the_way_back_cannot_be_the_name_of_the_way_back(name: str) -> None:
    """It would be written over it: people would come back to the start page, or never."""
    with pytest.raises(ValueError, match="login page"):
        query_parameter(name)


@pytest.mark.parametrize("ways", ["auto", "redirect"])
def test_who_has_a_session_that_lacks_something_signs_in_again_also_for_a_site(
    ways: Literal["auto", "redirect"],
) -> None:
    """There a session would bring them back at once, and again."""

    def asked_again(reason: Reason, host: str) -> bool:
        request = head(Accept=BROWSER, host=host)
        (location,) = values(answer(Challenge(reason), request, unauthenticated=ways), "location")
        return parse_qs(urlsplit(location).query).get("again") == ["1"]

    assert asked_again(Reason.ACCESS_TOKEN_GONE, "shop.example.org")
    assert not asked_again(Reason.NO_CREDENTIAL, "shop.example.org")
    assert not asked_again(Reason.ACCESS_TOKEN_GONE, "app.example.com")
