"""Which forms are kept: those of a page of the very origin that was asked, and no others."""

from typing import Literal

import msgspec
import pytest

from auth.decision import Challenge, Deny, Reason
from auth.origins import Origins
from auth.policy import compile_rule
from config.model import AccessRule, Endpoint, Limits, Match, Route, Upstream
from gateway.head import RequestHead
from gateway.kept_forms import FORM_LIMIT, may_be_kept
from gateway.outcome import Outcome, Verdict
from gateway.precedence import compile_route
from gateway.reading import read_request_head
from gateway.routing import Matched
from tests.auth.login.conftest import configured

PUBLIC = "https://app.example.com"
CONFIGURATION = configured(hosts=("other.example.com",))
ORIGINS = Origins.of(CONFIGURATION)
RULE = AccessRule("signed-in")
FORM = {
    "Host": "app.example.com",
    "Origin": PUBLIC,
    "Cookie": "__Host-doorward=old-session",
    "Content-Type": "application/x-www-form-urlencoded",
    "Content-Length": "3",
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
}


def head(fields: dict[str, str], method: str = "POST", target: str = "/notes") -> RequestHead:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    raw = f"{method} {target} HTTP/1.1\r\n{lines}\r\n"
    return read_request_head(raw.encode(), scheme="http", limits=Limits())


def kept(
    request: RequestHead,
    *,
    verdict: Verdict | None = None,
    unauthenticated: Literal["auto", "redirect", "401"] = "auto",
    keep_forms: bool = True,
) -> bool:
    route = Route("notes", Match("/*"), "notes", RULE, unauthenticated=unauthenticated)
    upstream = Upstream("notes", (Endpoint("http", "127.0.0.1", 9001),))
    matched = Matched(compile_route(route, compile_rule(RULE), upstream), {})
    login = msgspec.structs.replace(CONFIGURATION.login, keep_forms=keep_forms)
    return may_be_kept(
        request,
        Outcome(verdict or Challenge(Reason.SESSION_EXPIRED), 1, matched),
        configuration=msgspec.structs.replace(CONFIGURATION, login=login),
        origins=ORIGINS,
        client=None,
    )


def test_a_form_of_a_page_of_ours_that_met_an_old_session_is_kept() -> None:
    assert kept(head(FORM))
    assert kept(head(FORM), unauthenticated="redirect")


def test_a_browser_that_says_less_is_believed_for_its_origin() -> None:
    """Over plain http, browsers send no Fetch Metadata."""
    less = {name: value for name, value in FORM.items() if not name.startswith("Sec-")}
    assert kept(head(less))
    assert not kept(head({**less, "Origin": ""}))


@pytest.mark.parametrize(
    "fields",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "https://other.example.com"},  # ours, and not the one that was asked
        {"Origin": f"{PUBLIC}:8443"},
        {"Origin": PUBLIC.replace("https", "http")},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=str,
)
def test_a_form_that_another_site_may_have_sent_is_not_kept(fields: dict[str, str]) -> None:
    assert not kept(head(FORM | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"Host": "elsewhere.example", "Origin": "https://elsewhere.example"},
        {"Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Dest": "iframe"},
        {"Accept": "application/json"},
        {"Authorization": "Bearer x"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "text/plain"},
        {"Content-Length": str(FORM_LIMIT + 1)},
        {"Content-Length": "0"},
        {"Expect": "100-continue"},
        {"Cookie": "other=1"},
        {"Cookie": ""},
    ],
    ids=str,
)
def test_what_no_person_waits_for_or_what_is_too_much_is_not_kept(fields: dict[str, str]) -> None:
    assert not kept(head(FORM | fields))


def test_a_browser_whose_session_cookie_is_gone_is_known_by_the_one_that_stays() -> None:
    assert kept(head(FORM | {"Cookie": "a=b; __Host-doorward-sign-in-device=xyz"}))


def test_only_a_form_is_kept_that_a_sign_in_would_let_through() -> None:
    assert not kept(head(FORM), verdict=Deny(Reason.ROLE_MISSING))
    assert not kept(head(FORM), unauthenticated="401")
    assert not kept(head(FORM), keep_forms=False)
    assert not kept(head(FORM, method="PUT"))
    assert not kept(head(FORM, target="/" + "a" * 2048))
