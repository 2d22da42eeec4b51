"""A real OpenID provider as a process, and a person with a browser who signs in there."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import aiohttp
import pytest
from yarl import URL

from tests.auth.login.page_reader import PageReader

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".venv" / "oidc-provider"
CLIENT_SECRET = "a-client-secret+with/odd:characters"


def registered(origins: Sequence[str], **more: object) -> dict[str, object]:
    """A client as the provider knows it, for gateways at *origins*."""
    return {
        "client_id": "gateway",
        "client_secret": CLIENT_SECRET,
        "redirect_uris": [f"{origin}/.doorward/callback" for origin in origins],
        "post_logout_redirect_uris": [f"{origin}/.doorward/logout" for origin in origins],
        **more,
    }


class OidcProvider:
    """The running provider."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.issuer = process.stdout.readline().strip()
        assert self.issuer.startswith("http://127.0.0.1:"), "the provider did not start"

    def kill(self) -> None:
        """End it, as a crash would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def oidc_provider(
    clients: Sequence[Mapping[str, object]], *, ca_file: str = "", **options: float
) -> Iterator[OidcProvider]:
    """Run the provider with *clients* and *options* (see `server.mjs`); it trusts *ca_file*.

    Skips the test where it is not installed, but not in CI.
    """
    node = shutil.which("node")
    if node is None or not (MODULES / "node_modules" / "oidc-provider").is_dir():
        if os.environ.get("CI"):
            pytest.fail("the OpenID provider is not installed: node and npm are needed")
        pytest.skip("needs node and npm, for a real OpenID provider (`make test` installs it)")
    command = [node, "--no-warnings", str(Path(__file__).with_name("server.mjs"))]
    with subprocess.Popen(
        [*command, str(MODULES), json.dumps(clients), json.dumps(options)],
        env={**os.environ, **({"NODE_EXTRA_CA_CERTS": ca_file} if ca_file else {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield OidcProvider(process)
        finally:
            process.kill()


class Arrived:
    """Where a browser has come to."""

    def __init__(self, url: str, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.url = url
        self.status = response.status
        self.fields = response.headers
        self.body = body

    @property
    def page(self) -> PageReader:
        return PageReader(self.body)


class Person:
    """Somebody with a browser: keeps cookies, follows redirects, fills in forms.

    As in a browser, cookies belong to a host and not to a port: all servers of a test share them.
    And loopback is safe: what is `Secure` comes back to *safe_origins* without TLS.
    """

    def __init__(self, *safe_origins: str, connector: aiohttp.BaseConnector | None = None) -> None:
        self.jar = aiohttp.CookieJar(
            unsafe=True, quote_cookie=False, treat_as_secure_origin=[*map(URL, safe_origins)]
        )
        self._session = aiohttp.ClientSession(cookie_jar=self.jar, connector=connector)

    async def close(self) -> None:
        await self._session.close()

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.key: cookie.value for cookie in self.jar}

    async def visit(
        self,
        url: str,
        *,
        stay_on: str = "",
        form: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> Arrived:
        """Go to *url* and wherever it leads; stop before leaving *stay_on* (an origin)."""
        for _ in range(20):
            method = "GET" if form is None else "POST"
            sent = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", **(fields or {})}
            if form is not None:
                sent["Origin"] = "/".join(url.split("/", 3)[:3])
            async with self._session.request(
                method, url, data=form, headers=sent, allow_redirects=False
            ) as response:
                arrived = Arrived(url, response, await response.read())
            if response.status not in (301, 302, 303):
                return arrived
            url, form = urljoin(url, response.headers["Location"]), None
            if stay_on and not url.startswith(stay_on):
                arrived.url = url
                return arrived
        raise AssertionError(f"redirected in circles, at last to {url}")

    async def post(self, url: str, form: Mapping[str, str], fields: Mapping[str, str]) -> Arrived:
        """Send *form* with these *fields* as they are, and stay there."""
        sent = self._session.post(url, data=form, headers=fields, allow_redirects=False)
        async with sent as response:
            return Arrived(url, response, await response.read())

    async def sign_in(self, url: str, name: str, *, stay_on: str = "") -> Arrived:
        """Go to *url*, and fill in every form on the way as *name*."""
        arrived = await self.visit(url, stay_on=stay_on)
        while arrived.status == 200 and "/interaction/" in arrived.url:
            form = {"name": name} if b'name="name"' in arrived.body else {"go": "on"}
            arrived = await self.visit(arrived.url, stay_on=stay_on, form=form)
        return arrived

    async def sign_out(self, url: str) -> Arrived:
        """Go to the provider's sign-out at *url*, and say yes to its question."""
        arrived = await self.visit(url)
        found = re.search(
            rb'action="([^"]+)".*?name="xsrf" value="([^"]+)"', arrived.body, re.DOTALL
        )
        assert found is not None, arrived.body
        form = {"xsrf": found[2].decode(), "logout": "yes"}
        return await self.visit(found[1].decode(), form=form)
