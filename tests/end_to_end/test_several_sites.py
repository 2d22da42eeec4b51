"""Two gateways on one store, with TLS: one sign-in for sites of two domains, and one sign-out."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest
from playwright.async_api import BrowserContext, expect

from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.end_to_end.running import Gateway
from tests.end_to_end.sites import (
    HELP,
    LOGIN,
    PASSWORD,
    SHOP,
    Sites,
    a_browser,
    places,
    running_sites,
)

pytestmark = pytest.mark.wire

ROUTES = f"""
session: {{lease: 2s}}
login: {{sites: [{SHOP}, {HELP}]}}
routes:
  - {{id: shop, match: {{hosts: [shop.example.com], path: /*}}, upstream: app, access: signed-in}}
  - {{id: help, match: {{hosts: [help.example.org], path: /*}}, upstream: app, access: signed-in}}
"""
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


@pytest.fixture(scope="module")
def setting(valkey_process: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    valkey_process.flush()
    directory = tmp_path_factory.mktemp("sites")
    where, store = places(directory), valkey_process.tcp_url
    with running_sites(directory, where, store=store, rest=ROUTES) as running:
        yield running


@asynccontextmanager
async def person(
    setting: Sites, ports: Mapping[str, int] | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps cookies by host, and finds the gateways."""
    connector = setting.connector(ports)
    async with aiohttp.ClientSession(connector=connector, headers=NAVIGATION) as http:
        yield http


async def sign_in(http: aiohttp.ClientSession, wanted: str) -> tuple[str, list[str]]:
    """Open *wanted*, sign in where that leads; return where that ends, and the URLs on the way."""
    async with http.get(wanted) as answer:
        page, at = PageReader(await answer.read()), answer.url
        seen = [str(each.url) for each in answer.history]
    assert f"{at.scheme}://{at.host}" == LOGIN
    form = page.inputs() | {"username": "ada", "password": PASSWORD}
    async with http.post(at, data=form, headers={"Origin": LOGIN}) as answer:
        text = PageReader(await answer.read())
        links = [*text.all("a", **{"class": "button full"})]
        assert links, (answer.status, str(answer.url), text.text)
        (link,) = links
        seen += [str(each.url) for each in (*answer.history, answer)]
    async with http.get(link.attributes["href"]) as answer:
        assert json.loads(await answer.read())["target"] == answer.url.raw_path_qs
        seen += [str(each.url) for each in (*answer.history, answer)]
        return str(answer.url), seen


async def status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url, headers={"Sec-Fetch-Mode": "cors"}) as answer:
        return answer.status


async def all_said(setting: Sites, gateway: Gateway, site: str) -> str:
    """Ask for one thing more of *site* at *gateway*; return all it has said and logged by then."""
    last = f"/nothing-{secrets.token_hex(8)}"
    async with person(setting) as http:
        assert await status(http, f"{site}{last}") == 401
    async with asyncio.timeout(10):  # lines are written in batches
        while last not in (text := gateway.access_log.read_text()):
            await asyncio.sleep(0.05)
    return "".join(gateway.lines) + text


async def test_one_sign_in_serves_the_sites_of_two_gateways_and_a_sign_out_ends_all_of_them(
    setting: Sites,
) -> None:
    async with person(setting) as http:
        wanted = f"{SHOP}/cart?item=7&note=a%20b"
        arrived, seen = await sign_in(http, wanted)
        assert arrived == wanted
        async with http.get(f"{HELP}/topic?q=1") as answer:  # nobody is asked anything
            assert (str(answer.url), answer.status) == (f"{HELP}/topic?q=1", 200)
            seen += [str(each.url) for each in answer.history]
        for _ in range(3):  # so that both have their copies
            assert [await status(http, each) for each in (SHOP, HELP)] == [200, 200]
        fields = {"Origin": HELP, "Accept": "application/json"}
        async with http.post(f"{HELP}/.doorward/logout", headers=fields) as answer:
            told = await answer.json()
        assert told["ended"] == 1
        assert [await status(http, each) for each in (SHOP, HELP)] == [401, 401]
        async with http.get(f"{SHOP}/") as answer:
            assert answer.url.host == urlsplit(LOGIN).netloc  # it asks for a password again
    codes = [url for url in seen if "code=" in url]
    assert len(codes) == 2
    for gateway, site in zip(setting.gateways, (SHOP, HELP), strict=True):
        said = await all_said(setting, gateway, site)
        assert "/.doorward/callback" in said
        for url in codes:
            assert urlsplit(url).query.partition("&")[0].removeprefix("code=") not in said


async def test_a_code_that_is_shown_to_both_gateways_at_once_is_good_at_one(
    setting: Sites,
) -> None:
    async with person(setting) as http:
        await sign_in(http, f"{SHOP}/")
        for _ in range(5):
            url = f"{HELP}/"
            while "/.doorward/callback?" not in url:
                async with http.get(url, allow_redirects=False) as answer:
                    url = answer.headers["Location"]
                    url = str(answer.url.join(type(answer.url)(url, encoded=True)))
            cookies = http.cookie_jar.filter_cookies(answer.url.with_host("help.example.org"))
            kept = {"Cookie": "; ".join(f"{name}={each.value}" for name, each in cookies.items())}
            first = {"help.example.org": setting.ports["shop.example.com"]}
            async with person(setting, first) as one, person(setting) as two:
                answers = await asyncio.gather(
                    *(
                        each.get(url, headers=kept, allow_redirects=False)
                        for each in (one, two)
                        for _ in range(4)
                    )
                )
            got = [answer.status for answer in answers]
            assert sorted(got) == [303, *[400] * 7]
            cookie = [c for a in answers for c in a.cookies if c == "__Host-doorward"]
            assert cookie == ["__Host-doorward"]


@pytest.fixture
async def browser(setting: Sites) -> AsyncIterator[BrowserContext]:
    async with a_browser(setting) as context:
        yield context


@pytest.mark.browser
async def test_a_real_browser_goes_from_one_site_to_the_other_and_is_signed_out_of_both(
    browser: BrowserContext,
) -> None:
    """`__Host-` cookies, `SameSite`, and `form-action` over redirects, as a browser takes them."""
    shop, another, help_ = [await browser.new_page() for _ in range(3)]
    await shop.goto(f"{SHOP}/cart?item=7")
    await another.goto(f"{SHOP}/wishes")
    for tab, url in ((shop, f"{SHOP}/cart?item=7"), (another, f"{SHOP}/wishes")):
        await tab.get_by_label("User name").fill("ada")
        await tab.get_by_label("Password").fill(PASSWORD)
        await tab.get_by_role("button", name="Sign in", exact=True).click()
        await expect(tab).to_have_url(url)
    await help_.goto(f"{HELP}/topic")
    await expect(help_).to_have_url(f"{HELP}/topic")
    await expect(help_.locator("body")).to_contain_text('"target": "/topic"')
    names = {
        (each["name"], each["domain"], each["secure"], each["httpOnly"])
        for each in await browser.cookies()
        if each["name"] == "__Host-doorward"
    }
    hosts = (urlsplit(each).netloc for each in (LOGIN, SHOP, HELP))
    assert names == {("__Host-doorward", host, True, True) for host in hosts}

    await shop.goto(f"{SHOP}/.doorward/logout")
    await shop.get_by_role("button", name="Sign out", exact=True).click()
    await expect(shop.get_by_role("heading", level=1)).to_have_text("You are signed out")
    await help_.goto(f"{HELP}/topic")
    await expect(help_.get_by_label("Password")).to_be_visible()
