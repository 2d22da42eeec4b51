"""Two gateways on one store, with TLS: one sign-in for sites of two domains, and one sign-out."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from http.server import ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from playwright.async_api import BrowserContext, async_playwright, expect

from config.model import Certificate
from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.end_to_end.running import CHROMIUM, DOORWARD, QUIET, Gateway, free_port
from tests.end_to_end.test_sign_in_at_a_provider import Backend
from tests.gateway.io.test_tls import make_certificate, trusting

pytestmark = pytest.mark.wire

LOGIN, SHOP = "https://login.example.com", "https://shop.example.com"
HELP = "https://help.example.org"
PASSWORD = "correct horse battery"
ROUTES = """
version: 1
server:
  listen: "127.0.0.1:{port}"
  public_url: {login}
  tls: {{certificates: [{{cert_file: "{cert}", key_file: "{key}"}}]}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
session: {{lease: 2s}}
login: {{sites: [{shop}, {help}]}}
upstreams: {{app: "http://127.0.0.1:{backend}"}}
routes:
  - {{id: shop, match: {{hosts: [shop.example.com], path: /*}}, upstream: app, access: signed-in}}
  - {{id: help, match: {{hosts: [help.example.org], path: /*}}, upstream: app, access: signed-in}}
"""
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}


class Setting(NamedTuple):
    """What the tests of this file share."""

    gateways: tuple[Gateway, Gateway]
    ports: Mapping[str, int]
    """Host name to the port of the gateway that serves it: the second one, for help alone."""
    certificate: Certificate


@pytest.fixture(scope="module")
def setting(valkey_process: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    valkey_process.flush()
    hosts = [urlsplit(each).netloc for each in (LOGIN, SHOP, HELP)]
    certificate = make_certificate(tmp_path_factory.mktemp("tls"), "sites", *hosts)
    with ExitStack() as stack:
        backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        backend.daemon_threads = True
        thread = threading.Thread(target=backend.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(backend.server_close)
        stack.callback(backend.shutdown)
        places, ports = [], (free_port(), free_port())
        for name, port in zip("ab", ports, strict=True):
            place = tmp_path_factory.mktemp(name)
            places.append(place)
            (place / "routes.yaml").write_text(
                ROUTES.format(
                    port=port,
                    cert=certificate.cert_file,
                    key=certificate.key_file,
                    store=valkey_process.tcp_url,
                    backend=backend.server_port,
                    login=LOGIN,
                    shop=SHOP,
                    help=HELP,
                )
            )
        config = ["--config", str(places[0] / "routes.yaml")]
        add = [str(DOORWARD), "accounts", "add", "ada", "--password-stdin", *config]
        subprocess.run(add, input=f"{PASSWORD}\n".encode(), check=True)
        gateways = []
        for place in places:
            gateways.append(Gateway(place, environment={}))
            stack.callback(gateways[-1].stop)
        served = dict(zip(hosts, (ports[0], ports[0], ports[1]), strict=True))
        yield Setting((gateways[0], gateways[1]), served, certificate)


class Names(AbstractResolver):
    """Leads each host to its gateway, whatever port its URL has."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del port, family
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=self._ports[host],
                family=socket.AF_INET,
                proto=0,
                flags=0,
            )
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def person(
    setting: Setting, ports: Mapping[str, int] | None = None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps cookies by host, and finds the gateways."""
    connector = aiohttp.TCPConnector(
        resolver=Names(ports or setting.ports), ssl=trusting(setting.certificate)
    )
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


async def all_said(setting: Setting, gateway: Gateway, site: str) -> str:
    """Ask for one thing more of *site* at *gateway*; return all it has said and logged by then."""
    last = f"/nothing-{secrets.token_hex(8)}"
    async with person(setting) as http:
        assert await status(http, f"{site}{last}") == 401
    async with asyncio.timeout(10):  # lines are written in batches
        while last not in (text := gateway.access_log.read_text()):
            await asyncio.sleep(0.05)
    return "".join(gateway.lines) + text


async def test_one_sign_in_serves_the_sites_of_two_gateways_and_a_sign_out_ends_all_of_them(
    setting: Setting,
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
    setting: Setting,
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
async def browser(setting: Setting) -> AsyncIterator[BrowserContext]:
    """A real browser without a past, which finds the gateways."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed")
    rules = ", ".join(f"MAP {host} 127.0.0.1:{port}" for host, port in setting.ports.items())
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*QUIET, f"--host-resolver-rules={rules}"]
        )
        context = await chromium.new_context(locale="en-GB", ignore_https_errors=True)
        context.set_default_timeout(15_000)
        yield context
        await chromium.close()


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
