"""Two gateways on one store, with TLS, whose people sign in once for the sites of two domains."""

import base64
import hashlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate
from playwright.async_api import BrowserContext, async_playwright

from config.model import Certificate
from tests.end_to_end.running import CHROMIUM, DOORWARD, QUIET, Gateway, free_port
from tests.end_to_end.test_sign_in_at_a_provider import Backend
from tests.gateway.io.test_tls import make_certificate, trusting

LOGIN, SHOP = "https://login.example.com", "https://shop.example.com"
HELP = "https://help.example.org"
HOSTS = tuple(urlsplit(each).netloc for each in (LOGIN, SHOP, HELP))
PASSWORD = "correct horse battery"
_SERVER = """
version: 1
server:
  listen: "127.0.0.1:{port}"
  public_url: {login}
  tls: {{certificates: [{{cert_file: "{cert}", key_file: "{key}"}}]}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
upstreams: {{app: "http://127.0.0.1:{backend}"}}
"""


class FormBackend(Backend):
    """Also has a page with a form, and answers with what it was sent by it."""

    def do_GET(self) -> None:  # noqa: N802 - the base class's name
        if self.path != "/write":
            super().do_GET()
            return
        body = (
            b'<!DOCTYPE html><form method="post" action="/notes"><label>Note '
            b'<input name="note"></label><button>Save</button></form>'
        )
        self._answer("text/html; charset=utf-8", body)

    def do_POST(self) -> None:  # noqa: N802 - the base class's name
        content = self.rfile.read(int(self.headers["Content-Length"])).decode()
        fields = {name.lower(): value for name, value in self.headers.items()}
        told = {"target": self.path, "content": content, "fields": fields}
        self._answer("application/json", json.dumps(told).encode())

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Sites(NamedTuple):
    """What the tests of a file share."""

    gateways: tuple[Gateway, Gateway]
    ports: Mapping[str, int]
    """Host name to the port of the gateway that serves it: the second one, for help alone."""
    certificate: Certificate

    def doorward(self, *arguments: str) -> str:
        """Run `doorward …` on the first gateway's route file, and return what it says."""
        config = ("--config", str(self.gateways[0].directory / "routes.yaml"))
        command = [str(DOORWARD), *arguments, *config]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def connector(self, ports: Mapping[str, int] | None = None) -> aiohttp.TCPConnector:
        """Return what leads a client to the gateways, or where *ports* says."""
        tls = trusting(self.certificate)
        return aiohttp.TCPConnector(resolver=Names(ports or self.ports), ssl=tls)


class Places(NamedTuple):
    """Where the gateways of a setting will be, before they are started."""

    ports: tuple[int, int]
    certificate: Certificate


def places(directory: Path) -> Places:
    """Choose ports, and make a certificate for the hosts and the address."""
    certificate = make_certificate(directory, "sites", *HOSTS, "127.0.0.1")
    return Places((free_port(), free_port()), certificate)


@contextmanager
def running_sites(
    directory: Path, where: Places, *, store: str, rest: str, people: tuple[str, ...] = ("ada",)
) -> Iterator[Sites]:
    """Run the gateways and their backend; *rest* is what the route file has beside the server."""
    with ExitStack() as stack:
        backend = ThreadingHTTPServer(("127.0.0.1", 0), FormBackend)
        backend.daemon_threads = True
        thread = threading.Thread(target=backend.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(backend.server_close)
        stack.callback(backend.shutdown)
        folders = [directory / name for name in "ab"]
        for folder, port in zip(folders, where.ports, strict=True):
            folder.mkdir()
            text = _SERVER.format(
                port=port,
                cert=where.certificate.cert_file,
                key=where.certificate.key_file,
                store=store,
                backend=backend.server_port,
                login=LOGIN,
            )
            (folder / "routes.yaml").write_text(text + rest)
        for person in people:
            config = ["--config", str(folders[0] / "routes.yaml")]
            add = [str(DOORWARD), "accounts", "add", person, "--password-stdin", *config]
            subprocess.run(add, input=f"{PASSWORD}\n".encode(), check=True)
        # One host's gateways share the file of the accounts; the two folders stand for it.
        (folders[1] / ".doorward").symlink_to(folders[0] / ".doorward")
        gateways = []
        for folder in folders:
            gateways.append(Gateway(folder, environment={}))
            stack.callback(gateways[-1].stop)
        served = dict(zip(HOSTS, (where.ports[0], *where.ports), strict=True))
        yield Sites((gateways[0], gateways[1]), served, where.certificate)


class Names(AbstractResolver):
    """Leads each host to its gateway, whatever port its URL has."""

    def __init__(self, ports: Mapping[str, int]) -> None:
        self._ports = ports

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        del port, family
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=self._ports[host],
                family=socket.AF_INET,
                proto=0,
                flags=0,
            )
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def a_browser(sites: Sites) -> AsyncIterator[BrowserContext]:
    """Run a real browser without a past, which finds the gateways and trusts them."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed")
    rules = ", ".join(f"MAP {host} 127.0.0.1:{port}" for host, port in sites.ports.items())
    arguments = (
        f"--host-resolver-rules={rules}",
        # Taken for a good one: a page whose certificate is an error may use no passkeys.
        f"--ignore-certificate-errors-spki-list={_key_digest(sites.certificate)}",
    )
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*QUIET, *arguments]
        )
        context = await chromium.new_context(locale="en-GB")
        context.set_default_timeout(15_000)
        yield context
        await chromium.close()


def _key_digest(certificate: Certificate) -> str:
    read = load_pem_x509_certificate(Path(certificate.cert_file).read_bytes())
    key = read.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()
