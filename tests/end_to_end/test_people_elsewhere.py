"""People of a directory, and of our own accounts in PostgreSQL: real gateways, real servers."""

import asyncio
import subprocess
import time
from base64 import b32decode
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from auth.login.throttle import PAIR, StoreThrottle
from auth.login.totp import code_of, current_step
from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.end_to_end.running import DOORWARD, Gateway, free_port
from tests.ldap_server import Directory
from tests.postgres import Postgres

pytestmark = pytest.mark.wire

PASSWORD = "correct horse battery"
ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
login: {login}
upstreams: {{app: "http://127.0.0.1:{backend}"}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: app, access: signed-in}}
  - {{id: groups, match: {{path: /group/*}}, upstream: app, access: {{groups: [editors]}}}}
  - {{id: roles, match: {{path: /role/*}}, upstream: app, access: {{roles: [editor]}}}}
"""


class Place(NamedTuple):
    """A directory of one gateway."""

    path: Path

    def start(self) -> Gateway:
        return Gateway(self.path, environment={})


def placed(path: Path, valkey: Valkey, login: str, backend: int) -> Place:
    path.mkdir()
    (path / "routes.yaml").write_text(
        ROUTES.format(port=free_port(), store=valkey.tcp_url, login=login, backend=backend)
    )
    return Place(path)


async def sign_in(http: aiohttp.ClientSession, gateway: Gateway, login: str, password: str) -> int:
    async with http.post(
        f"{gateway.url}/.doorward/login",
        data={"username": login, "password": password},
        headers={"Accept": "application/json"},
    ) as answer:
        return answer.status


async def status_of(http: aiohttp.ClientSession, gateway: Gateway, path: str) -> int:
    async with http.get(f"{gateway.url}{path}") as answer:
        return answer.status


async def set_up_an_app(http: aiohttp.ClientSession, gateway: Gateway) -> int:
    """Set an app up where the sign-in asks for it."""
    url = f"{gateway.url}/.doorward/second-factor"
    async with http.get(url) as answer:
        page = PageReader(await answer.read())
    secret = b32decode(page.text_of(page.one("code")).replace(" ", ""))
    form = page.inputs() | {"code": code_of(secret, current_step(time.time()))}
    async with http.post(url, data=form, headers={"Origin": gateway.url}) as answer:
        return answer.status


def client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


async def answer(_: web.Request) -> web.Response:
    return web.Response(text="here")


async def test_a_group_of_a_directory_opens_a_route(
    tmp_path: Path, valkey: Valkey, directory: Directory
) -> None:
    application = web.Application()
    application.router.add_get("/{any:.*}", answer)
    async with TestServer(application) as backend:
        assert backend.port is not None
        login = (
            f"{{ldap: {{url: '{directory.tls_url}', ca_file: {directory.ca_file},"
            " base: 'ou=people,dc=example,dc=com', group_base: 'ou=groups,dc=example,dc=com',"
            " roles: {'cn=editors,ou=groups,dc=example,dc=com': editor}}}"
        )
        place = placed(tmp_path / "a", valkey, login, backend.port)
        gateway = await asyncio.to_thread(place.start)
        try:
            async with client() as ada, client() as bob:
                assert await sign_in(ada, gateway, "ada", "wrong") == 401
                assert await sign_in(ada, gateway, "ada", "") == 400
                assert await status_of(ada, gateway, "/") == 401
                assert await sign_in(ada, gateway, "ada", PASSWORD) == 200
                assert await sign_in(bob, gateway, "bob", PASSWORD) == 200
                for path in ("/group/1", "/role/1"):
                    assert await status_of(ada, gateway, path) == 200
                    assert await status_of(bob, gateway, path) == 403
            require = [str(DOORWARD), "accounts", "require-factor", "ada", "--config"]
            await asyncio.to_thread(
                subprocess.run, [*require, str(place.path / "routes.yaml")], check=True
            )
            async with client() as ada:
                assert await sign_in(ada, gateway, "ada", PASSWORD) == 401
                assert await status_of(ada, gateway, "/group/1") == 401
                assert await set_up_an_app(ada, gateway) == 200
                assert await status_of(ada, gateway, "/group/1") == 200
        finally:
            await asyncio.to_thread(gateway.stop)


async def drain(valkey: Valkey, number: int) -> None:
    """Take so many tokens of ada's bucket with the address of the tests."""
    async with Redis.from_url(valkey.url, protocol=2) as commands:
        throttle = StoreThrottle(commands)
        for _ in range(number):
            assert await throttle.take("ada", "127.0.0.1") == 0.0


async def test_guessing_at_two_gateways_is_stopped_as_at_one_and_accounts_are_shared(
    tmp_path: Path, valkey: Valkey, postgres: Postgres
) -> None:
    """Lockout over two gateways, with their accounts in one PostgreSQL."""
    url = postgres.new_url()
    login = f"{{database: '{url}', factor_key: {'k' * 32}}}"
    application = web.Application()
    application.router.add_get("/{any:.*}", answer)
    async with TestServer(application) as backend:
        assert backend.port is not None
        places = [placed(tmp_path / name, valkey, login, backend.port) for name in "ab"]
        add = [str(DOORWARD), "accounts", "add", "ada", "--password-stdin"]
        config = ["--config", str(places[0].path / "routes.yaml")]
        await asyncio.to_thread(
            subprocess.run, [*add, *config], input=f"{PASSWORD}\n".encode(), check=True
        )
        one, two = await asyncio.gather(*(asyncio.to_thread(each.start) for each in places))
        try:
            async with client() as http:
                assert await sign_in(http, one, "ada", PASSWORD) == 200
                assert await status_of(http, two, "/") == 200
                await drain(valkey, PAIR.size - 1)  # as if so many guesses had been wrong before
                assert await sign_in(http, one, "ada", "wrong") == 401
                assert await sign_in(http, two, "ada", "wrong") == 429
                for gateway in (one, two):
                    assert await sign_in(http, gateway, "ada", PASSWORD) == 429
        finally:
            await asyncio.gather(*(asyncio.to_thread(each.stop) for each in (one, two)))
