"""What a deployer relies on, seen from outside: sign in, pass through, sign out."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import websockets
from yarl import URL

from auth.session import SessionRecord, digest, encode_record, session_key
from tests.conftest import Valkey
from tests.end_to_end.backend import BLOCK, Backend, running_backend, sent_fields
from tests.end_to_end.running import Gateway, StartGateway, free_port

pytestmark = pytest.mark.wire

ROUTES = """\
version: 1
server:
  listen: 127.0.0.1:{port}
  public_url: http://127.0.0.1:{port}
  limits: {{body: 2GiB}}
admin: {{listen: "127.0.0.1:0", token: an-admin-token-of-the-tests}}
store: {{url: "{store}"}}
upstreams: {{backend: {{endpoints: ["{backend}"], timeouts: {{idle: 120s}}}}}}
routes:
  - {{id: public, match: {{path: /public/*}}, upstream: backend, access: public}}
  - {{id: all, match: {{path: /*}}, upstream: backend, access: signed-in}}
  - {{id: editors, match: {{path: /edit/*}}, upstream: backend, access: {{roles: [editor]}}}}
"""
NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A backend that tells what it was sent."""
    async with running_backend() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that keeps no cookies and follows nothing."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def routes(backend: Backend, store: Valkey) -> str:
    """Return the route file, on a free port."""
    return ROUTES.format(port=free_port(), store=store.url, backend=backend.url)


def write_session(store: Valkey, value: str, subject: str, *roles: str) -> dict[str, str]:
    """Write a session as a login service of one's own would; return the cookie field."""
    now = time.time()
    record = SessionRecord(
        v=1, subject=subject, name="Ada", roles=roles, created_at=now, expires_at=now + 600
    )
    store.client.set(session_key(digest(value)), encode_record(record), ex=600)
    return {"Cookie": f"doorward={value}"}


async def status(client: aiohttp.ClientSession, url: str, fields: dict[str, str]) -> int:
    """Return the status of a GET."""
    async with client.get(url, headers=fields, allow_redirects=False) as response:
        await response.read()
        return response.status


async def test_two_gateways_on_one_store_know_of_each_others_logout(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    first = start_gateway(routes(backend, valkey), name="first")
    second = start_gateway(routes(backend, valkey), name="second")
    cookie = write_session(valkey, "a" * 43, "u1")
    for _ in range(2):  # the second time from the cache
        assert await status(client, f"{first.url}/x", cookie) == 200
        assert await status(client, f"{second.url}/x", cookie) == 200

    logout = f"{first.url}/.doorward/logout"
    async with client.post(logout, headers={**cookie, "Origin": first.url}) as response:
        answered = await response.json()
    after = await status(client, f"{second.url}/x", cookie)

    assert (response.status, answered["ended"]) == (200, 1)
    assert answered["acknowledged"] == answered["of"] == 2
    assert after == 401
    assert await status(client, f"{first.url}/x", cookie) == 401


async def test_a_record_deleted_by_hand_is_gone_on_every_gateway(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    cookie = write_session(valkey, "b" * 43, "u1")
    assert await status(client, f"{gateway.url}/x", cookie) == 200

    valkey.client.delete(session_key(digest("b" * 43)))
    await asyncio.sleep(0.6)  # one lease, and a little: nobody promised less for a bare DEL

    assert await status(client, f"{gateway.url}/x", cookie) == 401


async def test_the_backend_is_told_by_the_gateway_alone(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    cookie = write_session(valkey, "c" * 43, "u1", "editor")
    forged = {"X_Auth_Subject": "root", "x-auth-roles": "admin", "X-Forwarded-For": "10.0.0.1"}

    address = URL(f"{gateway.url}/edit/%7Ea?b=%2F", encoded=True)
    async with client.get(address, headers={**cookie, **forged}) as signed:
        seen = await signed.text()
    async with client.get(f"{gateway.url}/public/x", headers=forged) as anonymous:
        unsigned = sent_fields(await anonymous.text())

    fields = sent_fields(seen)
    assert json.loads(seen)["target"] == "/edit/~a?b=%2F"
    assert (fields["x-auth-subject"], fields["x-auth-roles"]) == ("u1", "editor")
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert "doorward" not in fields.get("cookie", "")
    assert fields["x-auth-assertion"].count(".") == 2
    assert not {name for name in unsigned if name.replace("_", "-").startswith("x-auth")}


async def test_who_is_not_signed_in_is_sent_to_sign_in_or_told_so(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    member = write_session(valkey, "d" * 43, "u1")

    page = client.get(f"{gateway.url}/x?y=1", headers=NAVIGATION, allow_redirects=False)
    async with page as navigation, client.get(f"{gateway.url}/x") as fetch:
        problem = await fetch.json(content_type="application/problem+json")
    async with client.get(f"{gateway.url}/edit/x", headers={**member, **NAVIGATION}) as denied:
        reason = await denied.text()

    assert navigation.status == 302
    assert navigation.headers["Location"].startswith("/.doorward/login?return_to=http%3A%2F%2F")
    assert (fetch.status, problem["status"]) == (401, 401)
    assert "WWW-Authenticate" in fetch.headers
    assert denied.status == 403
    assert "editor" in reason
    assert all(r.headers["X-Doorward-Error"] for r in (navigation, fetch, denied))


async def test_a_store_that_is_gone_is_an_outage_and_ends_nobodys_session(
    start_gateway: StartGateway,
    backend: Backend,
    own_valkey: Valkey,
    client: aiohttp.ClientSession,
) -> None:
    gateway = start_gateway(routes(backend, own_valkey))
    cookie = write_session(own_valkey, "e" * 43, "u1")
    assert await status(client, f"{gateway.url}/x", cookie) == 200

    os.kill(own_valkey.pid, signal.SIGSTOP)
    await asyncio.sleep(0.6)
    started = time.monotonic()
    async with client.get(f"{gateway.url}/x", headers={**cookie, **NAVIGATION}) as response:
        outage = response
    waited = time.monotonic() - started
    public = await status(client, f"{gateway.url}/public/x", cookie)
    os.kill(own_valkey.pid, signal.SIGCONT)
    async with asyncio.timeout(5):
        while await status(client, f"{gateway.url}/x", cookie) != 200:
            await asyncio.sleep(0.05)

    assert outage.status == 503
    assert "Retry-After" in outage.headers
    assert "Set-Cookie" not in outage.headers
    assert waited < 10
    assert public == 200


async def test_a_bad_route_file_never_goes_live_and_costs_no_request(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    text = routes(backend, valkey)
    gateway = start_gateway(text)
    file = gateway.directory / "routes.yaml"
    statuses: list[int] = []
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            statuses.append(await status(client, f"{gateway.url}/public/x", {}))

    loads = [asyncio.create_task(load()) for _ in range(4)]
    file.write_text(text + "  - {id: public, match: {path: nothing}, upstrem: backend}\n")
    gateway.reload()
    await said(gateway, "routes.yaml:13:")
    file.write_text(
        text + "  - {id: more, match: {path: /more}, upstream: backend, access: public}\n"
    )
    gateway.reload()
    async with asyncio.timeout(20):
        while await status(client, f"{gateway.url}/more", {}) != 200:
            await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*loads)

    assert set(statuses) == {200}
    assert len(statuses) > 20
    assert await status(client, f"{gateway.admin_url}/readyz", {}) == 200


async def said(gateway: Gateway, text: str) -> None:
    """Wait until the gateway has said *text*."""
    async with asyncio.timeout(20):
        while not any(text in line for line in tuple(gateway.lines)):
            await asyncio.sleep(0.05)


async def test_an_event_arrives_when_it_is_sent(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    cookie = write_session(valkey, "f" * 43, "u1")

    async with client.get(f"{gateway.url}/tick", headers=cookie) as stream, asyncio.timeout(5):
        for event in ("one", "two", "three"):
            backend.send_event(event)
            assert await stream.content.readline() == f"data: {event}\n".encode()
            await stream.content.readline()


async def test_a_websocket_passes_messages_of_a_mebibyte_both_ways(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    cookie = write_session(valkey, "g" * 43, "u1")
    address = gateway.url.replace("http", "ws") + "/repeat"
    large = BLOCK * 16

    async with websockets.connect(
        address, additional_headers=cookie, max_size=None, proxy=None
    ) as socket:
        for message in ("hello", b"\x00", large):
            await socket.send(message)
            assert await socket.recv() == message


def resident(pid: int) -> int:
    """Return the resident bytes of each process of the gateway, the largest of them."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # somebody's, that ended
            text = (entry / "stat").read_text()
            if int(text.rpartition(")")[2].split()[1]) == pid or int(entry.name) == pid:
                found.append(int((entry / "statm").read_text().split()[1]) * 4096)
    return max(found)


MIB = 1024 * 1024
LARGE = 1024 if "DOORWARD_SOAK" in os.environ else 256
"""MiB."""


async def test_large_transfers_arrive_whole_and_are_not_kept_in_memory(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    cookie = write_session(valkey, "h" * 43, "u1")
    await status(client, f"{gateway.url}/pour?mib=8", cookie)
    before = resident(gateway.process.pid)
    expected = hashlib.sha256()
    for _ in range(LARGE * 16):
        expected.update(BLOCK)

    got, length = hashlib.sha256(), 0
    async with client.get(f"{gateway.url}/pour?mib={LARGE}", headers=cookie) as down:
        async for block in down.content.iter_any():
            got.update(block)
            length += len(block)

    async def content() -> AsyncIterator[bytes]:
        for _ in range(LARGE * 16):
            yield BLOCK

    sized = {**cookie, "Content-Length": str(LARGE * MIB)}
    async with client.post(f"{gateway.url}/swallow", headers=sized, data=content()) as up:
        swallowed = await up.json()
    async with client.post(f"{gateway.url}/swallow", headers=cookie, data=content()) as up:
        swallowed_chunked = await up.json()

    assert (length, got.digest()) == (LARGE * MIB, expected.digest())
    assert swallowed == {"length": LARGE * MIB, "sha256": expected.hexdigest()}
    assert swallowed_chunked == swallowed
    assert resident(gateway.process.pid) - before < 16 * MIB


async def test_a_client_that_stops_reading_stops_the_upstreams_sending(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    cookie = write_session(valkey, "i" * 43, "u1")

    async with client.get(f"{gateway.url}/pour?mib=512", headers=cookie) as response:
        await response.content.readexactly(1000)
        poured = -1
        async with asyncio.timeout(20):
            while poured != backend.poured:
                poured = backend.poured
                await asyncio.sleep(0.5)

    assert poured < 64 * MIB


async def test_an_administrator_creates_lists_and_ends_sessions(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    api = f"{gateway.admin_url}/api/sessions"
    token = {"Authorization": "Bearer an-admin-token-of-the-tests"}
    record = {"v": 1, "subject": "u7", "roles": ["editor"]}

    assert await status(client, f"{api}?subject=u7", {}) == 401
    async with client.post(api, headers=token, json=record) as created:
        cookie = (await created.json())["cookie"]
    mine = {"Cookie": f"{cookie['name']}={cookie['value']}"}
    assert created.status == 201
    assert await status(client, f"{gateway.url}/edit/x", mine) == 200
    async with client.get(f"{api}?subject=u7", headers=token) as listed:
        text = await listed.text()
    async with client.delete(f"{api}?subject=u7", headers=token) as ended:
        assert (await ended.json())["ended"] == 1

    assert digest(cookie["value"]) in text
    assert cookie["value"] not in text
    assert await status(client, f"{gateway.url}/edit/x", mine) == 401


async def test_the_access_log_has_one_line_a_request_and_no_secret(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    cookie = write_session(valkey, "j" * 43, "u1")
    await status(client, f"{gateway.url}/x?token=hush", cookie)
    await status(client, f"{gateway.url}/edit/x?token=hush", cookie)
    gateway.stop()

    text = gateway.access_log.read_text()
    allowed, denied = (json.loads(line) for line in text.splitlines())
    assert allowed["decision"] == "allow"
    assert (allowed["route"], allowed["subject"], allowed["auth"]) == ("all", "u1", "session")
    assert (denied["decision"], denied["reason"]) == ("deny", "role_missing")
    assert "hush" not in text
    assert "j" * 43 not in text
    assert "j" * 43 not in "".join(gateway.lines)


async def test_sigterm_ends_everything_and_leaves_nothing_behind(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey, client: aiohttp.ClientSession
) -> None:
    gateway = start_gateway(routes(backend, valkey))
    cookie = write_session(valkey, "k" * 43, "u1")
    slow = asyncio.create_task(status(client, f"{gateway.url}/pour?mib=64", cookie))
    await asyncio.sleep(0.05)

    code = await asyncio.to_thread(gateway.stop)

    assert code == 0
    assert await slow == 200
    with pytest.raises(aiohttp.ClientConnectionError):
        await status(client, f"{gateway.url}/public/x", {})
