"""What is under way through a whole gateway ends with its session, within a lease and 100 ms."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import websockets

from auth.session import SessionRecord, digest, encode_record, new_cookie_value, session_key
from tests.conftest import Valkey
from tests.end_to_end.backend import Backend, running_backend
from tests.end_to_end.running import Gateway, StartGateway, free_port
from tests.faults.history import clock

pytestmark = [pytest.mark.wire, pytest.mark.alone]

LEASE = 0.5
WITHIN = LEASE + 0.1
ADMIN = {"Authorization": "Bearer an-admin-token-of-the-tests"}
ROUTES = """\
version: 1
server:
  listen: 127.0.0.1:{port}
  public_url: http://127.0.0.1:{port}
  workers: 2
  limits: {{body: 2GiB}}
admin: {{listen: "127.0.0.1:{admin_port}", token: an-admin-token-of-the-tests}}
store: {{url: "{store}"}}
session: {{lease: 500ms}}
upstreams: {{backend: "{backend}"}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: backend, access: signed-in}}
"""


class Running:
    """A gateway, what it stands in front of, and a session."""

    def __init__(self, gateway: Gateway, store: Valkey, http: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self.store = store
        self.http = http
        self.cookie = ""

    @property
    def fields(self) -> dict[str, str]:
        return {"Cookie": f"doorward={self.cookie}"}

    def sign_in(self, *, lives_for: float = 600.0) -> float:
        """Write the record of a new session; return when it expires, on the histories' clock."""
        self.cookie, now = new_cookie_value(), time.time()
        record = SessionRecord(1, "u1", now, now + lives_for)
        self.store.client.set(session_key(digest(self.cookie)), encode_record(record), ex=600)
        return clock() + lives_for

    async def log_out(self) -> float:
        url = f"{self.gateway.url}/.doorward/logout"
        async with self.http.post(
            url, headers={**self.fields, "Origin": self.gateway.url}
        ) as answer:
            assert (await answer.json())["ended"] == 1
        return clock()

    async def delete(self) -> float:
        await asyncio.to_thread(self.store.client.delete, session_key(digest(self.cookie)))
        return clock()

    async def reload(self) -> float:
        """Have the route ask for a role that the session lacks."""
        file = self.gateway.directory / "routes.yaml"
        file.write_text(file.read_text().replace("access: signed-in", "access: {roles: [admin]}"))
        url = f"{self.gateway.admin_url}/api/reload"
        async with self.http.post(url, headers=ADMIN) as answer:
            assert answer.status == 200
        return clock()

    # What can be under way; each begins, and returns what ends when it was cut.

    async def websocket(self) -> Awaitable[float]:
        url = self.gateway.url.replace("http:", "ws:")
        socket = await websockets.connect(f"{url}/repeat", additional_headers=self.fields)
        await socket.send("hello")
        assert await socket.recv() == "hello"

        async def be_closed() -> float:
            with pytest.raises(websockets.ConnectionClosed) as closing:
                await socket.recv()
            assert closing.value.rcvd is not None
            assert closing.value.rcvd.code == 1008
            return clock()

        return asyncio.create_task(be_closed())

    async def events(self, backend: Backend) -> Awaitable[float]:
        answer = await self.http.get(f"{self.gateway.url}/tick", headers=self.fields)
        for _ in range(5):  # those of earlier rounds notice only now that nobody listens
            backend.send_event("first")
        assert await answer.content.readuntil(b"\n\n") == b"data: first\n\n"

        async def be_cut() -> float:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()
            answer.close()
            return clock()

        return asyncio.create_task(be_cut())

    async def download(self) -> Awaitable[float]:
        answer = await self.http.get(f"{self.gateway.url}/pour?mib=1024", headers=self.fields)
        assert answer.status == 200

        async def read_slowly() -> None:  # it must not be over before
            while await answer.content.readany():
                await asyncio.sleep(0.01)

        async def be_cut() -> float:
            with pytest.raises(aiohttp.ClientPayloadError):
                await read_slowly()
            answer.close()
            return clock()

        return asyncio.create_task(be_cut())

    async def upload(self) -> Awaitable[float]:
        begun = asyncio.Event()

        async def trickle() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 1024
                begun.set()
                await asyncio.sleep(0.01)

        async def be_cut() -> float:
            url = f"{self.gateway.url}/swallow"
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await self.http.post(url, headers=self.fields, data=trickle())
            return clock()

        cut = asyncio.create_task(be_cut())
        await begun.wait()
        await asyncio.sleep(0.1)
        return cut


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with running_backend() as running:
        yield running


@pytest.fixture
async def running(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey
) -> AsyncIterator[Running]:
    routes = ROUTES.format(
        port=free_port(), admin_port=free_port(), store=valkey.url, backend=backend.url
    )
    gateway = await asyncio.to_thread(start_gateway, routes)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield Running(gateway, valkey, http)


Ending = Callable[[Running], Awaitable[float]]


async def test_all_that_is_under_way_ends_within_a_lease_and_100_ms(
    running: Running, backend: Backend, tmp_path: Path
) -> None:
    endings: dict[str, Ending] = {
        "logout": Running.log_out,
        "a bare DEL": Running.delete,
        "expiry": lambda _: _until(expires_at),
        "a reload": Running.reload,
    }
    took: dict[str, float] = {}
    for name, ending in endings.items():
        expires_at = running.sign_in(lives_for=2.5 if name == "expiry" else 600.0)
        cuts = {
            "websocket": await running.websocket(),
            "events": await running.events(backend),
            "download": await running.download(),
            "upload": await running.upload(),
        }
        ended_at = await ending(running)
        for kind, cut in cuts.items():
            at = await asyncio.wait_for(cut, WITHIN + 5)
            took[f"{kind} after {name}"] = at - ended_at
    print(took)  # noqa: T201 - the figures
    assert all(seconds <= WITHIN for seconds in took.values()), took


async def _until(moment: float) -> float:
    assert clock() < moment, "the machine was too slow to begin everything before"
    await asyncio.sleep(moment - clock())
    return moment
