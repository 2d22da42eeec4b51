"""nginx, Caddy, Traefik and Envoy ask the forward-auth endpoint, configured as `deploy/` shows."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from auth.session import SessionRecord, digest, encode_record, session_key
from tests.conftest import Valkey
from tests.end_to_end.backend import Backend, running_backend, sent_fields
from tests.end_to_end.running import ROOT, StartGateway, free_port

pytestmark = pytest.mark.wire

ROUTES = """\
version: 1
server:
  listen: 127.0.0.1:{port}
  public_url: http://127.0.0.1:{front}
  trusted_proxies: [127.0.0.1/32]
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
upstreams: {{notes: "{backend}"}}
routes:
  - {{id: public, match: {{path: /public/*}}, upstream: notes, access: public}}
  - {{id: all, match: {{path: /*}}, upstream: notes, access: signed-in}}
  - {{id: admin, match: {{path: /admin/*}}, upstream: notes, access: {{roles: [admin]}}}}
"""


def program(name: str) -> str | None:
    """Return where *name* is: beside the interpreter, or on the PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def adapted(name: str, directory: Path, ports: dict[str, int], *, before: str = ":") -> Path:
    """Return a copy of the example *name* with its ports replaced, which have *before* them."""
    text = (ROOT / "deploy" / "forward-auth" / name).read_text()
    for example, port in ports.items():
        assert f"127.0.0.1{before}{example}" in text
        text = text.replace(f"127.0.0.1{before}{example}", f"127.0.0.1{before}{port}")
    copy = directory / name
    copy.write_text(text)
    return copy


def command(proxy: str, executable: str, directory: Path, ports: dict[str, int]) -> list[str]:
    """Return the command that runs *proxy* on its example."""
    if proxy == "nginx":
        return [
            executable,
            "-p",
            str(directory),
            "-c",
            str(adapted("nginx.conf", directory, ports)),
        ]
    if proxy == "caddy":
        file = adapted("Caddyfile", directory, ports)
        return [executable, "run", "--config", str(file), "--adapter", "caddyfile"]
    if proxy == "envoy":
        file = adapted("envoy.yaml", directory, ports, before=", port_value: ")
        return [executable, "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1"]
    front = ports.pop("8090")
    dynamic = adapted("traefik.yaml", directory, ports)
    static = directory / "static.yaml"
    static.write_text(
        f"entryPoints: {{web: {{address: '127.0.0.1:{front}'}}}}\n"
        f"providers: {{file: {{filename: {dynamic}}}}}\n"
        "global: {checkNewVersion: false, sendAnonymousUsage: false}\n"
    )
    return [executable, f"--configFile={static}"]


@contextmanager
def running(arguments: list[str], directory: Path) -> Iterator[None]:
    """Run a proxy for as long as the block lasts."""
    with (directory / "proxy.log").open("wb") as log:
        process = subprocess.Popen(
            arguments,
            cwd=directory,
            stdout=log,
            stderr=log,
            env={**os.environ, "XDG_DATA_HOME": str(directory), "HOME": str(directory)},
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A backend that tells what it was sent."""
    async with running_backend() as started:
        yield started


@pytest.mark.parametrize("proxy", ["nginx", "caddy", "traefik", "envoy"])
async def test_a_proxy_that_asks_gets_the_gateways_decision(
    proxy: str, start_gateway: StartGateway, backend: Backend, valkey: Valkey, tmp_path: Path
) -> None:
    executable = program(proxy)
    if executable is None:
        assert "CI" not in os.environ, f"{proxy} must be there in CI"
        pytest.skip(f"{proxy} is not installed")
    front, port = free_port(), free_port()
    start_gateway(ROUTES.format(port=port, front=front, store=valkey.url, backend=backend.url))
    now = time.time()
    record = SessionRecord(
        v=1, subject="u1", roles=("member",), created_at=now, expires_at=now + 60
    )
    valkey.client.set(session_key(digest("a" * 43)), encode_record(record), ex=60)
    cookie = {"Cookie": f"doorward={'a' * 43}"}
    forged = {"X-Auth-Subject": "root", "X-Auth-Roles": "admin", "X-Forwarded-Uri": "/public/x"}
    forged["X-Access-Token"] = "somebody's"
    ports = {"8090": front, "8080": port, "9001": int(backend.url.rpartition(":")[2])}
    url = f"http://127.0.0.1:{front}"

    with running(command(proxy, executable, tmp_path, ports), tmp_path):
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
            await answering(client, f"{url}/public/x", tmp_path)
            async with client.get(f"{url}/x", headers={**cookie, **forged}) as allowed:
                told = sent_fields(await allowed.text())
            async with client.get(f"{url}/public/x", headers=forged) as public:
                told_of_nobody = sent_fields(await public.text())
            async with client.get(f"{url}/x", headers=forged, allow_redirects=False) as absent:
                pass
            async with client.get(f"{url}/admin/x", headers={**cookie, **forged}) as denied:
                pass
            sent = client.post(f"{url}/x?y=%2Fpublic%2Fx", data=b"content", headers=cookie)
            async with sent as posted:
                told_of_content = sent_fields(await posted.text())
            async with client.post(f"{url}/x?/public/x", data=b"content") as unknown:
                pass
            async with client.get(f"{url}/.doorward/me", headers=cookie) as me:
                subject = (await me.json())["subject"]

    assert (allowed.status, public.status, absent.status, denied.status) == (200, 200, 401, 403)
    assert (told["x-auth-subject"], told["x-auth-roles"]) == ("u1", "member")
    assert (posted.status, told_of_content["x-auth-subject"]) == (200, "u1")
    assert unknown.status == 401
    assert told["x-auth-assertion"].count(".") == 2
    assert not told.get("x-access-token"), "a client's own"
    assert not told_of_nobody.get("x-access-token")
    assert not told_of_nobody.get("x-auth-subject")
    assert not told_of_nobody.get("x-auth-roles")
    assert subject == "u1"


async def answering(client: aiohttp.ClientSession, url: str, directory: Path) -> None:
    """Wait until *url* is answered with 200."""
    deadline, status = time.monotonic() + 30, 0
    while status != 200:
        log = (directory / "proxy.log").read_text
        assert time.monotonic() < deadline, f"{status} from {url}\n{log()[-1500:]}"
        try:
            async with client.get(url) as response:
                status = response.status
        except aiohttp.ClientError:
            status = 0
