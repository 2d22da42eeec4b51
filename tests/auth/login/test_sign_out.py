"""Signing out, against a real store."""

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from auth.identity import ABSENT, Authenticated, Identity, Rejected
from auth.io.session_store import open_session_store
from auth.ports import AuthUnavailable
from auth.session import SessionRecord, digest
from tests.auth.login.conftest import PUBLIC, Browser, Site, configured, cookies_of, field
from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey

LOGOUT = "/.doorward/logout"
JSON = {"origin": PUBLIC, "accept": "application/json"}


@pytest.fixture
async def browser(site: Site) -> Browser:
    """A browser in which Ada is signed in."""
    browser = site.browser()
    await browser.sign_in()
    return browser


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_following_a_link_ends_nothing(site: Site, browser: Browser, method: str) -> None:
    answer = await browser.send(method, LOGOUT, query={"everywhere": "1"})
    assert answer.status == 200
    assert "You are signed in to app.example.com as Ada Lovelace" in PageReader(answer.body).text
    assert await site.is_alive(browser.session)
    assert not any("__Host-doorward=" in cookie for cookie in cookies_of(answer))


async def test_the_button_of_the_page_signs_out(site: Site, browser: Browser) -> None:
    session = browser.session
    inputs = PageReader((await browser.get(LOGOUT)).body).inputs()
    answer = await browser.post(LOGOUT, inputs)
    assert answer.status == 200
    assert "You are signed out" in PageReader(answer.body).text
    assert browser.session == ""
    assert not await site.is_alive(session)


async def test_the_answer_says_how_the_ending_went(browser: Browser) -> None:
    told = msgspec.json.decode((await browser.post(LOGOUT, {}, JSON)).body)
    assert set(told) == {"ended", "acknowledged", "of", "waited_ms"}
    assert told["ended"] == 1
    assert told["acknowledged"] <= told["of"]
    assert told["waited_ms"] >= 0


@pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
async def test_a_program_gets_json(browser: Browser, accept: str) -> None:
    answer = await browser.post(LOGOUT, {}, JSON | {"accept": accept})
    assert field(answer, "content-type") == "application/json"


async def test_a_second_click_is_not_answered_before_the_first_is_true(
    site: Site, browser: Browser, valkey: Valkey
) -> None:
    """Another worker may still use its copy: the first click's answer is waiting for it."""
    session = browser.session
    other = await open_session_store(valkey.url, configured().session, worker=True)
    try:
        assert isinstance(await other.find(digest(session)), SessionRecord)
        connection = other._reader.link.connection
        assert connection is not None
        assert connection._transport is not None
        connection._transport.pause_reading()  # it hears nothing
        first = asyncio.create_task(browser.post(LOGOUT, {}, JSON))
        while await site.is_alive(session):
            await asyncio.sleep(0.001)
        assert not first.done()
        second = site.browser()
        second.cookies["__Host-doorward"] = session
        assert (await second.post(LOGOUT, {}, JSON)).status == 200
        assert other.peek(digest(session)) is None
        await first
    finally:
        await other.close()


async def test_the_cookie_is_cleared_as_it_was_set(browser: Browser) -> None:
    cookie, _ = cookies_of(await browser.post(LOGOUT, {}, JSON))
    name, *attributes = cookie.split("; ")
    assert name == "__Host-doorward="
    assert {"Path=/", "Max-Age=0", "Secure"} <= set(attributes)


async def test_only_this_session_ends(site: Site, browser: Browser) -> None:
    other = site.browser()
    await other.sign_in()
    await browser.post(LOGOUT, {}, JSON)
    assert await site.is_alive(other.session)


@pytest.mark.parametrize("part", ["form", "query"])
async def test_everywhere_ends_all_of_the_person_and_nobody_else(
    site: Site, browser: Browser, part: str
) -> None:
    other, stranger = site.browser(), site.browser()
    await other.sign_in()
    await stranger.sign_in(username="bob")
    everywhere = {"everywhere": "1"}
    answer = await (
        browser.send("POST", LOGOUT, form=everywhere, fields=JSON)
        if part == "form"
        else browser.send("POST", LOGOUT, query=everywhere, fields=JSON)
    )
    assert msgspec.json.decode(answer.body)["ended"] == 2
    assert not await site.is_alive(other.session)
    assert await site.is_alive(stranger.session)


@pytest.mark.parametrize("cookie", ["", "made-up", "ended"])
async def test_without_a_session_nothing_ends_and_the_cookie_goes(
    site: Site, browser: Browser, valkey: Valkey, cookie: str
) -> None:
    if cookie == "ended":
        cookie = browser.session
        await site.store.end(digest(cookie), reason="test")
    browser.cookies = {"__Host-doorward": cookie} if cookie else {}
    before = set(valkey.client.keys("*"))
    answer = await browser.post(LOGOUT, {"everywhere": "1"}, JSON)
    assert (answer.status, msgspec.json.decode(answer.body)["ended"]) == (200, 0)
    assert cookies_of(answer)
    # Strangers cannot fill the store with endings of sessions that never were.
    assert set(valkey.client.keys("*")) <= before


FOREIGN: dict[str, Mapping[str, str]] = {
    "nothing": {},
    "foreign-origin": {"origin": "https://evil.example"},
    "null-origin": {"origin": "null"},
    "plain-http-origin": {"origin": "http://app.example.com"},
    "foreign-origin-and-none": {"origin": "https://evil.example", "sec-fetch-site": "none"},
    "cross-site": {"sec-fetch-site": "cross-site"},
    "same-site": {"sec-fetch-site": "same-site"},
    "basic": {"authorization": "Basic YWRhOnB3"},
}


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("form", [{}, {"everywhere": "1"}], ids=["this", "everywhere"])
async def test_another_site_signs_nobody_out(
    site: Site, browser: Browser, fields: Mapping[str, str], form: dict[str, str]
) -> None:
    answer = await browser.post(LOGOUT, form, fields)
    assert (answer.status, answer.error) == (403, "foreign_form")
    assert field(answer, "x-doorward-error") == "foreign_form"
    assert await site.is_alive(browser.session)


async def test_who_is_refused_finds_a_button_that_works(site: Site, browser: Browser) -> None:
    """A page with `Referrer-Policy: no-referrer` has a sign-out button that says `null`."""
    session = browser.session
    refused = await browser.post(LOGOUT, {}, {"origin": "null"})
    await browser.post(LOGOUT, PageReader(refused.body).inputs())
    assert not await site.is_alive(session)


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": PUBLIC},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"host": "other.example.com", "origin": "https://other.example.com"},
        {"authorization": "Bearer token"},
        {"authorization": "bearer token", "origin": "https://evil.example"},
    ],
    ids=str,
)
async def test_the_persons_own_wish_is_heard(
    site: Site, browser: Browser, fields: Mapping[str, str]
) -> None:
    session = browser.session
    assert (await browser.post(LOGOUT, {}, fields)).status == 200
    assert not await site.is_alive(session)


async def test_an_old_browser_signs_out_with_the_token_of_the_page(
    site: Site, browser: Browser
) -> None:
    session = browser.session
    inputs = PageReader((await browser.get(LOGOUT)).body).inputs()
    assert (await browser.post(LOGOUT, inputs, {})).status == 200
    assert not await site.is_alive(session)


async def test_a_token_from_before_another_session_is_refused(site: Site, browser: Browser) -> None:
    """An attacker who plants their own form cookie has a token, but not for this session."""
    attacker = site.browser()
    inputs = PageReader((await attacker.get(LOGOUT)).body).inputs()
    browser.cookies |= attacker.cookies
    assert (await browser.post(LOGOUT, inputs, {})).status == 403
    assert await site.is_alive(browser.session)


async def test_a_bearer_token_ends_everything_of_its_subject(site: Site, browser: Browser) -> None:
    session, subject = browser.session, site.accounts.find("ada").subject
    program = site.browser()
    answer = await program.send(
        "POST",
        LOGOUT,
        form={"everywhere": "1"},
        fields={"authorization": "Bearer t", "accept": "application/json"},
        caller=Authenticated(Identity(subject=subject, method="bearer")),
    )
    assert msgspec.json.decode(answer.body)["ended"] == 1
    assert not await site.is_alive(session)


@pytest.mark.parametrize("caller", [ABSENT, Rejected("credentials_conflict")], ids=str)
async def test_a_session_ends_also_when_the_gateway_did_not_take_it(
    site: Site, browser: Browser, caller: Rejected
) -> None:
    session = browser.session
    await browser.send(
        "POST", LOGOUT, form={"everywhere": "1"}, fields={"origin": PUBLIC}, caller=caller
    )
    assert not await site.is_alive(session)


async def test_a_browser_drops_the_pages_it_kept(browser: Browser) -> None:
    answer = await browser.post(LOGOUT, {})
    assert field(answer, "clear-site-data") == '"cache"'


@pytest.mark.parametrize("form", [{}, {"everywhere": "1"}], ids=["this", "everywhere"])
async def test_a_store_that_is_gone_is_an_outage_and_clears_no_cookie(
    site: Site, browser: Browser, form: dict[str, str]
) -> None:
    caller = await site.caller(browser.session)
    await site.store.close()
    with pytest.raises(AuthUnavailable):
        await browser.send("POST", LOGOUT, form=form, fields={"origin": PUBLIC}, caller=caller)


async def test_a_program_from_elsewhere_is_told_what_would_count(
    site: Site, browser: Browser
) -> None:
    fields = {"origin": "https://evil.example", "accept": "application/json"}
    answer = await browser.post(LOGOUT, {}, fields)
    assert field(answer, "content-type") == "application/problem+json"
    assert "Origin" in msgspec.json.decode(answer.body)["detail"]
    assert await site.is_alive(browser.session)
