"""A real service that is asked about passwords."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from auth.io.user_service import UserServiceCheck
from auth.login.account import Account
from auth.ports import AuthUnavailable
from config.model import Secret, UserService

PASSWORD = "correct horse battery"
TOKEN = "a-token-of-the-service"
ADA = {
    "subject": "4b7c1f0e",
    "name": "Ada",
    "tenant": "acme",
    "email": "ada@example.com",
    "roles": ["editor"],
    "groups": ["maths"],
    "shoe_size": 38,
}


class People:
    """Knows ada; says `answer` instead when there is one."""

    def __init__(self) -> None:
        self.answer: web.Response | None = None
        self.asked: list[tuple[str, bytes]] = []
        self.stalls = False

    async def handle(self, request: web.Request) -> web.Response:
        content = await request.read()
        self.asked.append((request.headers.get("Authorization", ""), content))
        if self.stalls:
            await asyncio.sleep(30)
        if self.answer is not None:
            return self.answer
        asked = msgspec.json.decode(content)
        if asked == {"username": "ada", "password": PASSWORD}:
            return web.json_response(ADA)
        return web.Response(status=401)


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
async def check(people: People) -> AsyncIterator[UserServiceCheck]:
    application = web.Application()
    application.router.add_post("/check", people.handle)
    async with TestServer(application) as server:
        url = str(server.make_url("/check"))
        yield UserServiceCheck(UserService(url, Secret(TOKEN), timeout=0.5))


async def test_who_the_service_knows_signs_in(check: UserServiceCheck, people: People) -> None:
    assert await check.sign_in("ada", PASSWORD) == Account(
        "4b7c1f0e", "ada", "Ada", "acme", ("editor",), ("maths",), "ada@example.com",
        disabled=False, revision=0, created_at=0.0, changed_at=0.0,
    )  # fmt: skip
    assert people.asked[0][0] == f"Bearer {TOKEN}"


async def test_401_says_no(check: UserServiceCheck) -> None:
    assert await check.sign_in("ada", "wrong") is None
    assert await check.sign_in("nobody", PASSWORD) is None


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, ""),
        (200, "{}"),
        (200, '{"subject": ""}'),
        (200, '{"subject": 7}'),
        (200, '{"subject": "u", "roles": "admin"}'),
        (200, '{"subject": "u", "roles": ["a,b"]}'),
        (200, '{"subject": "u", "name": "a\\nb"}'),
        (200, '{"subject": "' + "u" * 300 + '"}'),
        (200, '{"subject": "u", "name": "' + "x" * 100_000 + '"}'),
        (201, '{"subject": "u"}'),
        (204, ""),
        (302, '{"subject": "u"}'),
        (403, '{"subject": "u"}'),
        (404, ""),
        (500, '{"subject": "u"}'),
    ],
)
async def test_anything_else_is_an_outage_and_lets_nobody_in(
    check: UserServiceCheck, people: People, status: int, text: str
) -> None:
    people.answer = web.Response(status=status, text=text, headers={"Location": "/check"})
    with pytest.raises(AuthUnavailable):
        await check.sign_in("ada", PASSWORD)
    assert len(people.asked) == 1  # no redirect was followed with the password


async def test_a_service_that_takes_too_long_is_an_outage(
    check: UserServiceCheck, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    people.stalls = True
    with pytest.raises(AuthUnavailable):
        await check.sign_in("ada", PASSWORD)
    assert "did not answer in time" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_service_that_is_not_there_is_an_outage() -> None:
    check = UserServiceCheck(UserService("http://127.0.0.1:1/check"))
    with pytest.raises(AuthUnavailable):
        await check.sign_in("ada", PASSWORD)
