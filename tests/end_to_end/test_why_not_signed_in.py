"""What people are told who sign in and do not get in: by a real gateway, for each cause."""

import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import aiohttp
import pytest

from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.end_to_end.running import DOORWARD, Gateway, free_port

pytestmark = pytest.mark.wire

PASSWORD = "correct horse battery"
ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}", public_url: "https://127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
upstreams: {{app: "http://127.0.0.1:9"}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: app, access: {{groups: [editors]}}}}
"""
SESSION, RECENT = "__Host-doorward", "__Host-doorward-sign-in-recent"


class Answer(NamedTuple):
    status: int
    error: str
    text: str
    cookies: dict[str, str]


@pytest.fixture(scope="module")
def secure(valkey_process: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway for https that is reached over plain http, as behind a proxy that ends TLS."""
    valkey_process.flush()
    directory = tmp_path_factory.mktemp("secure")
    routes = ROUTES.format(port=free_port(), store=valkey_process.url)
    (directory / "routes.yaml").write_text(routes)
    add = [str(DOORWARD), "accounts", "add", "ada", "--password-stdin", "--config"]
    given = f"{PASSWORD}\n".encode()
    subprocess.run([*add, str(directory / "routes.yaml")], input=given, check=True)
    gateway = Gateway(directory, environment={})
    yield gateway
    gateway.stop()


def plain(gateway: Gateway) -> str:
    """Where it is reached; its `url` is what it takes itself for."""
    return gateway.url.replace("https:", "http:")


async def ask(
    gateway: Gateway,
    path: str,
    cookies: dict[str, str],
    form: dict[str, str] | None = None,
    origin: str = "",
) -> Answer:
    """Ask as a browser does; cookies by hand, for a client here would keep none of https."""
    fields = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    if cookies:
        fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    if form is not None:
        fields["Origin"] = origin or gateway.url
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
        http.request(
            "GET" if form is None else "POST",
            f"{plain(gateway)}{path}",
            data=form,
            headers=fields,
            allow_redirects=False,
        ) as answer,
    ):
        given = {name: morsel.value for name, morsel in answer.cookies.items()}
        page = PageReader(await answer.read())
        error = answer.headers.get("X-Doorward-Error", "")
        return Answer(answer.status, error, page.text, given)


async def sign_in(gateway: Gateway, cookies: dict[str, str], origin: str = "") -> Answer:
    form = {"username": "ada", "password": PASSWORD, "return_to": "/notes"}
    return await ask(gateway, "/.doorward/login", cookies, form, origin)


@pytest.mark.parametrize(
    ("kept", "cause"),
    [
        ({}, "does not send the session cookie back"),
        ({SESSION: "x" * 43}, "one store"),
    ],
    ids=["the cookie is lost", "another store"],
)
async def test_a_sign_in_that_goes_in_circles_is_told_why(
    secure: Gateway, kept: dict[str, str], cause: str
) -> None:
    cookies: dict[str, str] = {}
    for _ in range(3):
        signed_in = await sign_in(secure, cookies)
        assert (signed_in.status, SESSION in signed_in.cookies) == (303, True)
        cookies = {RECENT: signed_in.cookies[RECENT]} | kept
        back = await ask(secure, "/.doorward/login?return_to=%2Fnotes", cookies)
        cookies |= {RECENT: back.cookies.get(RECENT, "")}
    assert (back.status, back.error) == (400, "sign_in_loop")
    assert cause in back.text


@pytest.mark.parametrize(
    ("scheme", "cause"), [("http", "sent over https only"), ("https", "takes itself for https://")]
)
async def test_a_page_opened_elsewhere_than_public_url_says_is_told_so(
    secure: Gateway, scheme: str, cause: str
) -> None:
    origin = plain(secure) if scheme == "http" else "https://127.0.0.1:8443"
    answer = await sign_in(secure, {}, origin)
    assert (answer.status, answer.error) == (403, "foreign_form")
    assert SESSION not in answer.cookies
    assert cause in answer.text


async def test_who_is_not_in_the_group_is_told_so_and_sent_nowhere(secure: Gateway) -> None:
    signed_in = await sign_in(secure, {})
    answer = await ask(secure, "/notes", {SESSION: signed_in.cookies[SESSION]})
    assert (answer.status, answer.error) == (403, "forbidden")
    assert "the members of certain groups" in answer.text


async def test_a_sign_in_whose_state_is_lost_is_told_so(secure: Gateway) -> None:
    answer = await ask(secure, "/.doorward/second-factor", {}, {"code": "000000"})
    assert (answer.status, answer.error) == (400, "sign_in_expired")
