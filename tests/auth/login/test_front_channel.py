"""Signing out in a frame of the provider's page."""

from typing import NamedTuple

import pytest

from auth.login.messages import LoginAnswer
from config.model import Login
from tests.auth.login.conftest import Browser, Site, configured, field, sign_in_at
from tests.conftest import Valkey
from tests.providers.lying import LyingProvider

PATH = "/.doorward/frontchannel-logout"


class Frame(NamedTuple):
    """What a frame of another site sends: no cookie of ours."""

    site: Site

    async def open(self, **query: str) -> LoginAnswer:
        fields = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe"}
        return await self.site.browser().send("GET", PATH, query=query, fields=fields)


async def signed_in(site: Site, lying: LyingProvider, sid: str = "session-1") -> Browser:
    lying.claims = {"sid": sid}
    await sign_in_at(lying, browser := site.browser())
    assert await site.is_alive(browser.session)
    return browser


async def test_it_ends_what_hangs_on_the_session_and_nothing_else(
    corp_site: Site, lying: LyingProvider
) -> None:
    both = [await signed_in(corp_site, lying) for _ in range(2)]
    other = await signed_in(corp_site, lying, "session-2")
    answer = await Frame(corp_site).open(iss=lying.issuer, sid="session-1")
    assert answer.status == 200
    assert [await corp_site.is_alive(each.session) for each in both] == [False, False]
    assert await corp_site.is_alive(other.session)


async def test_only_the_providers_own_page_may_frame_it_and_nobody_keeps_it(
    corp_site: Site, lying: LyingProvider
) -> None:
    answer = await Frame(corp_site).open(iss=lying.issuer, sid="session-1")
    policy = f"default-src 'none'; frame-ancestors {lying.issuer}"
    assert field(answer, "content-security-policy") == policy
    assert field(answer, "cache-control") == "no-store"
    assert field(answer, "x-frame-options") == ""
    refused = await Frame(corp_site).open(iss="https://evil.example", sid="session-1")
    assert field(refused, "content-security-policy").endswith("frame-ancestors 'none'")


@pytest.mark.parametrize("sid", ["", "session-2", "*", "session-1\n", "x" * 300])
async def test_without_a_sid_that_is_known_nothing_ends_and_nothing_is_written(
    corp_site: Site, lying: LyingProvider, valkey: Valkey, sid: str
) -> None:
    """A page of anybody's can open the frame: forced logout, and a store full of marks."""
    browser = await signed_in(corp_site, lying)
    before = set(valkey.client.keys("*"))
    await Frame(corp_site).open(iss=lying.issuer, sid=sid)
    await Frame(corp_site).open(iss=lying.issuer)
    await Frame(corp_site).open(sid="session-1")
    assert await corp_site.is_alive(browser.session)
    assert set(valkey.client.keys("*")) <= before


async def test_a_sid_of_one_provider_ends_nothing_of_another(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    other = lying.configured(id="other", namespace="other", issuer="https://other.example")
    login = Login(providers=(lying.configured(), other))
    corp_site.service = corp_site.service.reconfigured(configured(login=login))
    assert (await Frame(corp_site).open(iss=other.issuer, sid="session-1")).status == 200
    assert await corp_site.is_alive(browser.session)


async def test_the_cookie_of_whoever_opens_it_counts_for_nothing(
    corp_site: Site, lying: LyingProvider
) -> None:
    browser = await signed_in(corp_site, lying)
    answer = await browser.get(PATH, {"iss": lying.issuer})
    assert (answer.status, answer.error) == (400, "front_channel_refused")
    assert await corp_site.is_alive(browser.session)


async def test_no_other_method_does_it(corp_site: Site, lying: LyingProvider) -> None:
    browser = await signed_in(corp_site, lying)
    answer = await browser.send("HEAD", PATH, query={"iss": lying.issuer, "sid": "session-1"})
    assert answer.status == 405
    assert await corp_site.is_alive(browser.session)
