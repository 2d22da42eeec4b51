"""Services are told of ended sessions by whole gateways, also when one is killed while telling."""

import asyncio
import signal
import time
from typing import Any

import aiohttp
import jwt
from aiohttp import web

from tests.conftest import Valkey
from tests.end_to_end.running import Gateway, StartGateway, free_port

_TOKEN = "an-admin-token-of-the-tests"
_ADMIN = {"Authorization": f"Bearer {_TOKEN}"}
ROUTES = """\
version: 1
server: {{listen: "127.0.0.1:{port}", public_url: "http://127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:{admin_port}", token: {token}}}
store: {{url: "{store}"}}
session: {{idle_timeout: 2s}}
upstreams: {{app: {{endpoints: ["{service}"], on_logout: /ended}}}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: app, access: signed-in}}
"""


class Service:
    """A backend that is told, and thinks about it for as long as it is made to."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.answers = asyncio.Event()
        self.url = ""

    async def hear(self, request: web.Request) -> web.Response:
        form = await request.post()
        token = str(form["logout_token"])
        await self.told.put(jwt.decode(token, options={"verify_signature": False}))
        await self.answers.wait()
        return web.Response()

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(40):
            return await self.told.get()


async def listening(service: Service) -> web.AppRunner:
    app = web.Application()
    app.add_routes([web.post("/ended", service.hear)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return runner


async def test_a_gateway_that_is_killed_while_it_tells_is_followed_by_the_other(
    start_gateway: StartGateway, own_valkey: Valkey
) -> None:
    service = Service()
    runner = await listening(service)
    try:
        async with aiohttp.ClientSession(headers=_ADMIN) as http:
            first, second = [
                await asyncio.to_thread(start, start_gateway, name, service.url, own_valkey.url)
                for name in ("first", "second")
            ]
            await leads(own_valkey)
            ended = await signed_in(http, second)
            expires = await signed_in(http, second, expires_at=time.time() + 1.5)
            async with http.delete(f"{second.admin_url}/api/sessions?id={ended}") as answer:
                assert (await answer.json())["ended"] == 1
            notice = await service.next()
            # The service has it, and has not answered: nobody has noted that it was delivered.
            first.process.send_signal(signal.SIGKILL)
            again = await service.next()
            assert again["sid"] == notice["sid"] == ended
            assert again["jti"] == notice["jti"]
            service.answers.set()
            # The first one was also the one that looked for what ends by itself.
            unused = await signed_in(http, second)
            assert [(await service.next())["sid"] for _ in range(2)] == [expires, unused]
            await confirmed(own_valkey)
            assert reasons(own_valkey) == {ended: "admin", expires: "expired", unused: "idle"}
            assert service.told.empty(), "each was told of once, but where a gateway died"
    finally:
        await runner.cleanup()


def start(start_gateway: StartGateway, name: str, service: str, store: str) -> Gateway:
    routes = ROUTES.format(
        port=free_port(), admin_port=free_port(), token=_TOKEN, store=store, service=service
    )
    return start_gateway(routes, name=name)


async def signed_in(http: aiohttp.ClientSession, gateway: Gateway, **fields: object) -> str:
    """Create a session as a login service does, and return its digest."""
    url = f"{gateway.admin_url}/api/sessions"
    async with http.post(url, json={"subject": "u1", **fields}) as answer:
        made = await answer.json()
        assert answer.status == 201, made
        digest: str = made["id"]
        return digest


async def leads(valkey: Valkey) -> None:
    """Wait until somebody leads: the first one, which was started before the second."""
    async with asyncio.timeout(20):
        while not (valkey.client.exists("doorward:events") and groups(valkey)):
            await asyncio.sleep(0.02)


def groups(valkey: Valkey) -> list[Any]:
    found: Any = valkey.client.xinfo_groups("doorward:events")
    return list(found)


async def confirmed(valkey: Valkey) -> None:
    """Wait until nothing is left to be told."""
    async with asyncio.timeout(20):
        while [group["pending"] for group in groups(valkey)] != [0]:
            await asyncio.sleep(0.02)


def reasons(valkey: Valkey) -> dict[str, str]:
    entries: Any = valkey.client.xrange("doorward:events")
    return {
        fields[b"session"].decode(): fields[b"reason"].decode()
        for _, fields in entries
        if fields[b"event"] == b"session.ended"
    }
