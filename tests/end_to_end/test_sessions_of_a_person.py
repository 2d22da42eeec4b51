"""How many sessions a person has, and on what: two real gateways on one store."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.conftest import Valkey
from tests.end_to_end.running import DOORWARD, Gateway, free_port

pytestmark = pytest.mark.wire

PASSWORD = "correct horse battery"
ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
session: {{max_sessions: 2}}
upstreams: {{app: "http://127.0.0.1:9"}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: app, access: signed-in}}
"""


class Pair(NamedTuple):
    one: Gateway
    two: Gateway


@pytest.fixture
def pair(valkey: Valkey, tmp_path: Path) -> Iterator[Pair]:
    routes = [tmp_path / name for name in "ab"]
    for each in routes:
        each.mkdir()
        text = ROUTES.format(port=free_port(), store=valkey.url)
        (each / "routes.yaml").write_text(text)
    add = [str(DOORWARD), "accounts", "add", "ada", "--password-stdin", "--config"]
    given = f"{PASSWORD}\n".encode()
    subprocess.run([*add, str(routes[0] / "routes.yaml")], input=given, check=True)
    # One host's gateways share the file of the accounts; the two folders stand for it.
    (routes[1] / ".doorward").symlink_to(routes[0] / ".doorward")
    one, two = (Gateway(each, environment={}) for each in routes)
    yield Pair(one, two)
    one.stop()
    two.stop()


def browser() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


async def sign_in(http: aiohttp.ClientSession, gateway: Gateway) -> None:
    form = {"username": "ada", "password": PASSWORD}
    fields = {"Origin": gateway.url, "Accept": "application/json"}
    async with http.post(f"{gateway.url}/.doorward/login", data=form, headers=fields) as answer:
        assert answer.status == 200


async def is_in(http: aiohttp.ClientSession, gateway: Gateway) -> bool:
    async with http.get(f"{gateway.url}/.doorward/me") as answer:
        return answer.status == 200


def told(valkey: Valkey, event: str) -> list[dict[str, str]]:
    entries: Any = valkey.client.xrange("doorward:events")
    texts = [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]
    return [each for each in texts if each["event"] == event]


async def test_a_session_too_many_ends_the_oldest_one_on_both_gateways_and_new_browsers_are_told(
    pair: Pair, valkey: Valkey
) -> None:
    async with browser() as first, browser() as second, browser() as third:
        await sign_in(first, pair.one)
        assert told(valkey, "session.new_device") == []  # there is no other one yet
        await sign_in(second, pair.two)
        for http in (first, second):
            assert await is_in(http, pair.one)
            assert await is_in(http, pair.two)
        await sign_in(third, pair.one)
        for gateway in pair:
            assert not await is_in(first, gateway)
            assert await is_in(second, gateway)
            assert await is_in(third, gateway)
        await sign_in(third, pair.two)  # in place of its own, in a browser that is known by now
        assert await is_in(second, pair.two)
    (ended,) = (
        each for each in told(valkey, "session.ended") if each["reason"] == "too_many_sessions"
    )
    new = told(valkey, "session.new_device")
    assert len(new) == 2
    assert {each["subject"] for each in new} == {ended["subject"]}
    assert ended["session"] not in {each["session"] for each in new}
