"""Signing out at the provider as well."""

import asyncio
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from auth.session import digest
from config.model import Login
from tests.auth.login.conftest import Browser, Site, configured, sign_in_at
from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.providers.lying import LyingProvider

LOGOUT = "/.doorward/logout"


async def onward(browser: Browser) -> str:
    """Sign out and return where it goes on."""
    answer = await browser.post(LOGOUT, {})
    assert answer.status == 200
    page = PageReader(answer.body)
    assert "Your session on app.example.com has ended." in page.text
    refresh = [*page.all("meta", **{"http-equiv": "refresh"})]
    return refresh[0].attributes["content"].removeprefix("0; url=") if refresh else ""


async def test_it_goes_on_at_the_provider_after_it_is_done_here(
    corp_site: Site, lying: LyingProvider
) -> None:
    await sign_in_at(lying, browser := corp_site.browser())
    session = browser.session
    url = await onward(browser)
    assert not await corp_site.is_alive(session)
    assert url.startswith(f"{lying.issuer}/end?")
    asked = parse_qs(urlsplit(url).query)
    assert asked["client_id"] == ["gateway"]
    assert asked["post_logout_redirect_uri"] == ["https://app.example.com/.doorward/logout"]
    assert asked["id_token_hint"][0].count(".") == 2

    back = await browser.get(LOGOUT, {"state": asked["state"][0]})
    assert "Here, and where you signed in" in PageReader(back.body).text


async def test_a_state_that_is_not_this_browsers_is_a_question_as_ever(
    corp_site: Site, lying: LyingProvider
) -> None:
    await sign_in_at(lying, browser := corp_site.browser())
    state = parse_qs(urlsplit(await onward(browser)).query)["state"][0]
    other = corp_site.browser()
    back = await other.get(LOGOUT, {"state": state})
    assert "Sign out?" in PageReader(back.body).text


async def test_its_state_is_good_for_no_form(corp_site: Site, lying: LyingProvider) -> None:
    await sign_in_at(lying, browser := corp_site.browser())
    state = parse_qs(urlsplit(await onward(browser)).query)["state"][0]
    form = {"username": "ada", "password": "correct horse battery", "token": state}
    assert (await browser.post("/.doorward/login", form, {})).status == 403


async def test_a_program_is_told(corp_site: Site, lying: LyingProvider) -> None:
    await sign_in_at(lying, browser := corp_site.browser())
    fields = {"origin": "https://app.example.com", "accept": "application/json"}
    told = json.loads((await browser.post(LOGOUT, {}, fields)).body)
    assert told["continue_at"].startswith(f"{lying.issuer}/end?")


@pytest.mark.parametrize("why", ["not wanted", "no endpoint", "provider gone", "tokens gone"])
async def test_it_may_end_here(
    corp_site: Site, lying: LyingProvider, valkey: Valkey, why: str
) -> None:
    if why == "no endpoint":
        del lying.metadata["end_session_endpoint"]
    await sign_in_at(lying, browser := corp_site.browser())
    if why == "not wanted":
        login = Login(providers=(lying.configured(end_session=False),))
        corp_site.service = corp_site.service.reconfigured(configured(login=login))
    if why == "provider gone":
        login = Login(providers=(lying.configured(id="other"),))
        corp_site.service = corp_site.service.reconfigured(configured(login=login))
    if why == "tokens gone":
        valkey.client.delete(f"doorward:provider-tokens:{{{digest(browser.session)}}}")
    assert await onward(browser) == ""


async def test_whoever_signed_in_with_a_password_is_not_sent_anywhere(corp_site: Site) -> None:
    browser = corp_site.browser()
    await browser.sign_in()
    assert await onward(browser) == ""


async def test_a_provider_that_is_down_does_not_keep_anybody_signed_in(
    corp_site: Site, lying: LyingProvider
) -> None:
    await sign_in_at(lying, browser := corp_site.browser())
    session = browser.session
    lying.statuses["/.well-known/openid-configuration"] = 500
    login = Login(providers=(lying.configured(scopes=("openid",)),))  # a client that knows nothing
    corp_site.service = corp_site.service.reconfigured(configured(login=login))
    assert await onward(browser) == ""
    assert not await corp_site.is_alive(session)


async def test_a_provider_that_is_slow_does_not_keep_anybody_waiting(
    corp_site: Site, lying: LyingProvider
) -> None:
    await sign_in_at(lying, browser := corp_site.browser())
    lying.waits = {"/.well-known/openid-configuration"}
    lying.pause.clear()
    login = Login(providers=(lying.configured(scopes=("openid",)),))  # a client that knows nothing
    corp_site.service = corp_site.service.reconfigured(configured(login=login))
    async with asyncio.timeout(8):  # less than the provider has for its answer
        assert await onward(browser) == ""


async def test_an_id_token_too_long_for_an_address_is_left_out(
    corp_site: Site, lying: LyingProvider
) -> None:
    lying.claims["long"] = "x" * 5000
    await sign_in_at(lying, browser := corp_site.browser())
    asked = parse_qs(urlsplit(await onward(browser)).query)
    assert "id_token_hint" not in asked
    assert asked["client_id"] == ["gateway"]
