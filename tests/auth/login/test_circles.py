"""A browser that is signed in again and again, and why."""

import re
from collections.abc import Iterable

import pytest

from auth.decision import Reason
from auth.identity import ABSENT, Authenticated, Caller, Identity, Rejected
from auth.login.circles import Circles
from auth.login.messages import LoginAnswer, LoginRequest
from auth.login.provenance import FormTokens
from auth.login.visit import Visit, Visits
from config.model import Login
from tests.auth.login.conftest import (
    PUBLIC,
    Browser,
    Site,
    configured,
    cookies_of,
    field,
    sign_in_at,
)
from tests.auth.login.page_reader import PageReader
from tests.providers.lying import LyingProvider

LOGIN = "/.doorward/login"
COUNT = "__Host-doorward-sign-in-recent"


async def bounce(browser: Browser, times: int, *, caller: Caller = ABSENT) -> LoginAnswer:
    """Sign in and come back at once without getting in, so many *times*; return the last answer."""
    answer = await browser.get(LOGIN)
    for _ in range(times):
        await browser.sign_in()
        browser.cookies.pop("__Host-doorward", None)
        answer = await browser.send("GET", LOGIN, query={"return_to": "/notes"}, caller=caller)
    return answer


def words(answer: LoginAnswer) -> str:
    return PageReader(answer.body).text


@pytest.mark.parametrize("times", [0, 1, 2])
async def test_a_return_or_two_are_no_circle(site: Site, times: int) -> None:
    assert (await bounce(site.browser(), times)).status == 200


async def test_whoever_signs_out_and_in_again_is_in_no_circle(site: Site) -> None:
    browser = site.browser()
    for _ in range(6):
        await browser.sign_in()
        await browser.post("/.doorward/logout", {})
        assert (await browser.get(LOGIN)).status == 200


async def test_whoever_comes_back_later_is_in_no_circle(site: Site) -> None:
    browser = site.browser()
    for _ in range(6):
        await browser.sign_in()
        returns, _, at = browser.cookies[COUNT].partition(".")
        browser.cookies[COUNT] = f"{returns}.{int(at) - 3100}"
        assert (await browser.get(LOGIN)).status == 200
        assert COUNT not in browser.cookies


@pytest.mark.parametrize(
    ("caller", "cause"),
    [
        (ABSENT, "does not send the session cookie back"),
        (Rejected(Reason.COOKIE_AMBIGUOUS), "two session cookies"),
        (Rejected(Reason.SESSION_UNKNOWN), "one store"),
        (Rejected(Reason.SESSION_EXPIRED), "clocks"),
        (Rejected(Reason.SESSION_ENDED), "ended at once"),
        (Rejected(Reason.SESSION_MALFORMED), "one version"),
        (Rejected(Reason.CREDENTIALS_CONFLICT), "none of these sessions was accepted"),
        (Authenticated(Identity("u", name="Ada")), "signed in as Ada, and the page"),
        (Authenticated(Identity("u-1")), "signed in as u-1, and the page"),
    ],
    ids=str,
)
async def test_a_circle_is_stopped_and_its_cause_named(
    site: Site, caller: Caller, cause: str
) -> None:
    answer = await bounce(site.browser(), 3, caller=caller)
    assert (answer.status, answer.error) == (400, "sign_in_loop")
    assert cause in words(answer)
    assert "request-1" in words(answer)


@pytest.mark.parametrize("seconds", [-3600, -6, 4200])
async def test_clocks_that_differ_are_named_with_about_how_much(site: Site, seconds: int) -> None:
    """The sign-in is noted by one gateway, and the return by another one whose clock is off."""
    browser = site.browser()
    for _ in range(3):
        await browser.sign_in()
        returns, _, at = browser.cookies[COUNT].partition(".")
        browser.cookies[COUNT] = f"{returns}.{int(at) - seconds * 1000}"
        expired = Rejected(Reason.SESSION_EXPIRED)
        answer = await browser.send("GET", LOGIN, caller=expired)
    assert (answer.status, answer.error) == (400, "sign_in_loop")
    told = re.search(r"differ by about (\d+) seconds", words(answer))
    assert told is not None
    least = abs(seconds) - (600 if seconds > 0 else 0)
    assert abs(int(told[1]) - least) <= 60  # a slow machine


@pytest.mark.parametrize("seconds", [-4, 0])
async def test_clocks_that_are_nearly_equal_are_not_blamed(site: Site, seconds: int) -> None:
    browser = site.browser()
    for _ in range(3):
        await browser.sign_in()
        returns, _, at = browser.cookies[COUNT].partition(".")
        browser.cookies[COUNT] = f"{returns}.{int(at) - seconds * 1000}"
        expired = Rejected(Reason.SESSION_EXPIRED)
        answer = await browser.send("GET", LOGIN, caller=expired)
    assert "differ by about" not in words(answer)


async def test_the_address_that_the_site_wants_is_told(site: Site) -> None:
    assert "https://app.example.com" in words(await bounce(site.browser(), 3))


async def test_no_provider_is_asked_once_it_is_stopped(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = corp_site.browser()
    for _ in range(3):
        assert (await sign_in_at(lying, browser)).status == 303
        browser.cookies.pop("__Host-doorward")
    answer = await browser.get(LOGIN, {"provider": "corp"})
    assert answer.error == "sign_in_loop"
    assert field(answer, "location") == ""


async def test_trying_again_begins_to_count_anew(site: Site) -> None:
    browser = site.browser()
    page = PageReader((await bounce(browser, 3)).body)
    (again,) = (each for each in page.all("a") if page.text_of(each) == "Try again")
    assert again.attributes["href"] == "/.doorward/login?return_to=%2Fnotes"
    assert COUNT not in browser.cookies
    assert (await browser.get(LOGIN)).status == 200


@pytest.mark.parametrize(
    "value", ["", "9", "9.", "x.y", "99.1", "9.999999999999999", "9.1", "\u0669.1"]
)
async def test_a_count_that_is_old_or_makes_no_sense_counts_for_nothing(
    site: Site, value: str
) -> None:
    browser = site.browser()
    browser.cookies[COUNT] = value
    assert (await browser.get(LOGIN)).status == 200


def attributes(cookies: Iterable[str]) -> set[str]:
    (cookie,) = (each for each in cookies if each.startswith(COUNT))
    return set(cookie.split("; ")[1:])


async def test_the_count_lasts_as_long_as_a_sign_in_may_take_and_reaches_no_script(
    site: Site,
) -> None:
    browser = site.browser()
    form = {"username": "ada", "password": "correct horse battery"}
    cookies = cookies_of(await browser.post(LOGIN, form))
    assert attributes(cookies) == {"Max-Age=600", "Path=/", "HttpOnly", "SameSite=Lax", "Secure"}


async def test_a_program_gets_the_session_cookie_and_no_other(site: Site) -> None:
    form = {"username": "ada", "password": "correct horse battery"}
    assert len(cookies_of(await site.browser().post(LOGIN, form, {}))) == 1


# One who is let on at once, because they are signed in --------------------------------------------

SHOP, HELP = "https://shop.example.org", "https://help.example.org"
SITES = configured(login=Login(sites=(SHOP, HELP)))
CIRCLES = Circles(SITES.session, public_url=PUBLIC)
NOW = 1_795_345_561.0


def visit(cookie: str = "", *, origin: str = PUBLIC) -> Visit:
    """Return a visit of a browser that has *cookie*, the value of a field that was set."""
    name, _, value = cookie.partition(";")[0].partition("=")
    request = LoginRequest(
        method="GET",
        path="/.doorward/authorize",
        query={},
        form={},
        cookies={name: value} if cookie else {},
        fields={},
        client_address="192.0.2.1",
        caller=ABSENT,
        origin=origin,
    )
    return Visits(SITES, FormTokens(b"s" * 32)).receive(request)


def passed(times: int, *, goal: str, apart: float = 0.1) -> tuple[str, float]:
    """Let a browser on to *goal* so many *times*; return its cookie, and when that was."""
    cookie, now = "", NOW
    for _ in range(times):
        now += apart
        cookie = CIRCLES.note_pass(visit(cookie), now, goal=goal)[1]
    return cookie, now


def test_a_page_that_sends_people_back_on_and_on_is_a_circle() -> None:
    cookie, now = passed(3, goal=f"{SHOP}/cart")
    _, problem = CIRCLES.note_return(visit(cookie), now, goal=f"{SHOP}/cart")
    assert problem is not None
    assert problem.code == "sign_in_loop"


def test_who_goes_on_to_another_page_begins_to_count_anew() -> None:
    cookie, now = passed(3, goal=f"{SHOP}/cart")
    fields, problem = CIRCLES.note_return(visit(cookie), now, goal=f"{HELP}/")
    assert problem is None
    assert re.search(rf"{COUNT}=1\.", dict(fields)["Set-Cookie"])


def test_who_comes_again_after_a_while_is_in_no_circle() -> None:
    cookie, now = passed(5, goal=f"{SHOP}/cart", apart=60.0)
    assert CIRCLES.note_return(visit(cookie), now, goal=f"{SHOP}/cart")[1] is None


def test_a_site_whose_cookie_does_not_stay_is_named() -> None:
    cookie, now = passed(3, goal=f"{SHOP}/cart")
    _, problem = CIRCLES.note_return(visit(cookie, origin=SHOP), now, goal=f"{SHOP}/cart")
    assert problem is not None
    assert problem.values == {"site": SHOP}
