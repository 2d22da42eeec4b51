"""The same bytes to aiohttp, Node and nginx behind the gateway: they must see the same requests.

What gets through is written anew in one plain way, so that three servers that read HTTP each in
its own lenient way cannot disagree about how many requests there were, or for what.
"""

import asyncio
import base64
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from config.model import Endpoint, Limits, Upstream
from tests.end_to_end.running import free_port
from tests.gateway.io.harness import ALL, Gateway, configuration, gateway
from tests.wire.vectors import given, own

pytestmark = [pytest.mark.wire, pytest.mark.asyncio(loop_scope="module")]

GIVEN, OWN = given("smuggling"), own("smuggling")
PATHS = [
    base64.b64decode(case.get("raw_path_b64") or case.get("raw_b64", ""))
    for case in given("path_bypass") + own("path_bypass")
]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
NODE = shutil.which("node")
NODE_SERVER = """
require("http").createServer((request, response) => {
  console.log(request.method + " " + request.url);
  request.on("error", () => {});
  request.resume().on("end", () => response.end("ok"));
}).listen(0, "127.0.0.1", function () { console.log("port " + this.address().port); });
"""
NGINX_CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  log_format seen "$request_method $request_uri";
  access_log {directory}/access.log seen;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  large_client_header_buffers 8 64k;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 ok; }}
  }}
}}
"""


def missing(program: str | None, name: str) -> None:
    """Skip for want of *program*; in CI, where it was to be installed, fail."""
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")


class Backend:
    """A server that somebody else wrote, a gateway in front of it, and what the server saw."""

    def __init__(self, name: str, port: int, seen: "Seen") -> None:
        self.name = name
        self.port = port
        self._seen = seen
        self.gateway: Gateway

    async def targets(self, mark: str) -> list[str]:
        """Ask for *mark*; return what the server saw since the last one."""
        request = f"GET {mark} HTTP/1.1\r\nHost: app.example.com\r\n\r\n"
        assert (await self.gateway.ask(request.encode())).status == 200
        async with asyncio.timeout(10):
            while f"GET {mark}" not in (lines := self._seen.lines()):
                await asyncio.sleep(0.005)
        self._seen.forget()
        return lines[: lines.index(f"GET {mark}")]


class Seen:
    """Lines of method and target."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        self._lines.append(line)

    def lines(self) -> list[str]:
        return list(self._lines)

    def forget(self) -> None:
        self._lines.clear()


class SeenInFile(Seen):
    """Lines that a program appends to a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        self._read = 0

    def lines(self) -> list[str]:
        return self._file.read_text().splitlines()[self._read :]

    def forget(self) -> None:
        self._read = len(self._file.read_text().splitlines())


@asynccontextmanager
async def aiohttp_backend(_: Path) -> AsyncIterator[Backend]:
    seen = Seen()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        seen.add(f"{request.method} {request.raw_path}")
        await request.read()
        return web.Response(text="ok")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Backend("aiohttp", runner.addresses[0][1], seen)
    await runner.cleanup()


@asynccontextmanager
async def node_backend(_: Path) -> AsyncIterator[Backend]:
    assert NODE is not None
    seen = Seen()
    process = await asyncio.create_subprocess_exec(
        NODE, "-e", NODE_SERVER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int((await process.stdout.readline()).split()[1])

    async def read(output: asyncio.StreamReader) -> None:
        while line := await output.readline():
            seen.add(line.decode().rstrip("\n"))

    reading = asyncio.create_task(read(process.stdout))
    yield Backend("node", port, seen)
    process.kill()
    await process.wait()
    await reading


@asynccontextmanager
async def nginx_backend(directory: Path) -> AsyncIterator[Backend]:
    assert NGINX is not None
    port = free_port()
    configuration_file = directory / "nginx.conf"
    configuration_file.write_text(NGINX_CONFIGURATION.format(directory=directory, port=port))
    process = await asyncio.create_subprocess_exec(
        NGINX,
        "-p",
        str(directory),
        "-c",
        str(configuration_file),
        "-e",
        str(directory / "start.log"),
    )
    async with asyncio.timeout(10):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.02)
    yield Backend("nginx", port, SeenInFile(directory / "access.log"))
    process.kill()
    await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backends(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[Backend]]:
    missing(NGINX, "nginx")
    missing(NODE, "node")
    async with AsyncExitStack() as stack:
        found = []
        for make in (aiohttp_backend, node_backend, nginx_backend):
            backend = await stack.enter_async_context(make(tmp_path_factory.mktemp("backend")))
            endpoint = Endpoint("http", "127.0.0.1", backend.port)
            settings = configuration(
                {"app": Upstream("app", (endpoint,))}, [ALL], limits=Limits(head_timeout=0.3)
            )
            backend.gateway = await stack.enter_async_context(gateway(settings))
            found.append(backend)
        yield found


async def say(backend: Backend, parts: list[bytes]) -> None:
    client = await backend.gateway.connect()
    backend.gateway.clients.clear()
    with suppress(ConnectionError, RuntimeError):
        for part in parts:
            await client.send(part)
            await asyncio.sleep(0)
        client.writer.write_eof()
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(5):
            await client.reader.read()
    await client.close()


async def seen_by_all(backends: list[Backend], parts: list[bytes]) -> dict[str, list[str]]:
    await asyncio.gather(*(say(backend, parts) for backend in backends))
    marks = await asyncio.gather(*(backend.targets("/clean") for backend in backends))
    return {backend.name: seen for backend, seen in zip(backends, marks, strict=True)}


@pytest.mark.parametrize("lines", [False, True], ids=["whole", "by lines"])
@pytest.mark.parametrize("case", GIVEN, ids=[case["name"] for case in GIVEN])
async def test_three_servers_see_the_same_requests(
    backends: list[Backend], case: dict[str, Any], *, lines: bool
) -> None:
    raw = base64.b64decode(case["raw_b64"])
    await check(backends, case, re.split(rb"(?<=\r\n)", raw) if lines else [raw])


@pytest.mark.parametrize("case", OWN, ids=[case["name"] for case in OWN])
async def test_three_servers_see_the_same_requests_in_our_vectors(
    backends: list[Backend], case: dict[str, Any]
) -> None:
    await check(backends, case, [base64.b64decode(case["raw_b64"])])


async def check(backends: list[Backend], case: dict[str, Any], parts: list[bytes]) -> None:
    seen = await seen_by_all(backends, parts)
    assert seen["aiohttp"] == seen["node"] == seen["nginx"]
    smuggled = [target for target in seen["nginx"] if "/smuggled" in target]
    assert not smuggled or case["n_upstream"] == 1


TARGETS = [
    *(
        "/a?b=c&d=[1]|{2}",
        "/%41%7e%2D",
        "/a%20b",
        "/%C3%A9",
        "/a/../b",
        "//a",
        "/a?x=%zz",
        "/a??b#",
    ),
    *(
        "/a?%00",
        "/a;b",
        "/a%3bb",
        "/a%2fb",
        "/%e2%82%ac?%e2",
        "/a:b@c,d=e!$&'()*+",
        "/a?b=http://c//d",
    ),
    *("http://app.example.com/x/./y?z", "/.well-known/a", "/..", "/a/%2e%2e/b", "/a?/../b"),
]


@pytest.mark.parametrize("target", TARGETS)
async def test_three_servers_see_the_same_target(backends: list[Backend], target: str) -> None:
    raw = f"GET {target} HTTP/1.1\r\nHost: app.example.com\r\n\r\n".encode()
    seen = await seen_by_all(backends, [raw])
    assert seen["aiohttp"] == seen["node"] == seen["nginx"]
    assert len(seen["nginx"]) <= 1


async def test_three_servers_see_the_same_target_of_every_path(backends: list[Backend]) -> None:
    """One conversation for all of them: what is refused closes it, and another one goes on."""
    for path in PATHS:
        raw = b"GET %b HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n" % path
        seen = await seen_by_all(backends, [raw])
        assert seen["aiohttp"] == seen["node"] == seen["nginx"], path
        assert len(seen["nginx"]) <= 1, path
