"""A gateway and other people's emulators of Google, Entra, Okta and GitHub: `make test-providers`.

The services themselves cannot be reached by a test. `emulate` (npm) is somebody else's reading of
them, not ours. It has their own addresses here, with TLS, so that what we know of each by its
address is used: in a network and with an /etc/hosts of our own, which `make` makes (`unshare`).
"""

import asyncio
import json
import os
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from html import unescape
from http.server import ThreadingHTTPServer
from urllib.parse import urljoin

import aiohttp
import pytest

from tests.conftest import Valkey
from tests.end_to_end.running import Gateway, free_port
from tests.end_to_end.test_sign_in_at_a_provider import Backend
from tests.gateway.io.test_tls import make_certificate
from tests.providers.running import CLIENT_SECRET, ROOT, Person

pytestmark = [pytest.mark.wire, pytest.mark.timeout(120)]

TENANT = "7d1a4a5e-3b0c-4a55-9a3c-0f0a7b8f2c11"
HOSTS = {
    "accounts.google.com": "google",
    "login.microsoftonline.com": "microsoft",
    "acme.okta.com": "okta",
    "github.com": "github",
    "api.github.com": "github",
}
BASES = {
    "google": "https://accounts.google.com",
    "microsoft": "https://login.microsoftonline.com",
    "okta": "https://acme.okta.com",
    "github": "https://github.com",
}
# As `docs/sign-in.md` has them.
ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
login:
  accounts: false
  providers:
    - {{id: google, label: Google, issuer: "https://accounts.google.com", client_id: gateway,
       client_secret: "{secret}", own_callback: true,
       scopes: [openid, profile, email, offline_access]}}
    - {{id: entra, label: Entra, issuer: "https://login.microsoftonline.com/{tenant}/v2.0",
       client_id: gateway, client_secret: "{secret}", own_callback: true}}
    - {{id: okta, label: Okta, issuer: "https://acme.okta.com/oauth2/default", client_id: gateway,
       client_secret: "{secret}", own_callback: true, scopes: [openid, profile, email, groups]}}
    - {{id: github, label: GitHub, protocol: github, issuer: "https://github.com",
       client_id: gateway, client_secret: "{secret}"}}
identity: {{headers: standard, include: [name, email, groups]}}
upstreams: {{app: "http://127.0.0.1:{backend}"}}
routes:
  - {{id: google, match: {{path: /google/*}}, upstream: app, providers: [google],
     access: {{tenants: [acme.com]}}}}
  - {{id: entra, match: {{path: /entra/*}}, upstream: app, providers: [entra],
     access: {{tenants: ["{tenant}"]}}}}
  - {{id: okta, match: {{path: /okta/*}}, upstream: app, providers: [okta],
     access: {{groups: [editors]}}}}
  - {{id: github, match: {{path: /github/*}}, upstream: app, providers: [github],
     access: signed-in}}
"""


def seeds(origin: str) -> dict[str, dict[str, object]]:
    """Return who is known to each service, and the gateway at *origin* as its client."""

    def client(provider: str) -> dict[str, object]:
        callback = f"{origin}/.doorward/callback/{provider}"
        return {
            "client_id": "gateway",
            "client_secret": CLIENT_SECRET,
            "name": "Doorward",
            "redirect_uris": [callback],
        }

    ada = {"email": "ada@acme.com", "name": "Ada Lovelace"}
    bob = {"email": "bob@gmail.com", "name": "Bob"}
    microsoft = {"oid": "00000000-0000-0000-0000-00000000ada1", "tenant_id": TENANT}
    return {
        # Without clients it asks for no secret: it announces HTTP Basic and does not read it.
        "google": {"users": [ada | {"hd": "acme.com"}, bob]},
        "microsoft": {"users": [ada | microsoft], "oauth_clients": [client("entra")]},
        "okta": {
            "users": [
                {
                    "okta_id": "00uada",
                    "login": "ada@acme.com",
                    "first_name": "Ada",
                    "last_name": "Lovelace",
                }
            ],
            "groups": [{"okta_id": "00geditors", "name": "editors"}],
            "group_memberships": [{"group_okta_id": "00geditors", "user_okta_id": "00uada"}],
            "authorization_servers": [{"id": "default", "name": "default"}],
            "oauth_clients": [client("okta") | {"auth_server_id": "default"}],
        },
        "github": {
            "users": [{"login": "ada", "name": "Ada Lovelace", "email": "ada@acme.com"}],
            "oauth_apps": [client("github")],
        },
    }


@pytest.fixture(scope="module")
def emulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The services at their own addresses; an origin for the gateway, and who signed them."""
    modules = os.environ.get("DOORWARD_EMULATORS")
    if not modules:
        pytest.skip("needs DOORWARD_EMULATORS and a network of its own: `make test-providers`")
    node = shutil.which("node")
    assert node is not None, "the emulators need node"
    origin = f"http://127.0.0.1:{free_port()}"
    ports = {service: free_port() for service in BASES}
    seed = seeds(origin)
    settings = {
        each: {"port": ports[each], "baseUrl": BASES[each], "seed": seed[each]} for each in BASES
    }
    certificate = make_certificate(tmp_path_factory.mktemp("tls"), "services", *HOSTS)
    with subprocess.Popen(
        [node, str(ROOT / "tests/providers/emulators/server.mjs"), modules, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert any(line.strip() == "ready" for line in process.stdout), "no emulators"
            loop = asyncio.new_event_loop()
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate.cert_file, certificate.key_file)
            front = loop.run_until_complete(_front(context, ports))
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            yield origin, certificate.cert_file
            loop.call_soon_threadsafe(front.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
        finally:
            process.kill()


async def _front(context: ssl.SSLContext, ports: dict[str, int]) -> asyncio.Server:
    """Take TLS for all the services at port 443, and hand it on by the name that was asked for."""
    asked: dict[object, str] = {}

    def note(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: object) -> None:
        asked[connection] = name or ""

    context.sni_callback = note

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = asked.pop(writer.get_extra_info("ssl_object"), "")
        behind, ahead = await asyncio.open_connection("127.0.0.1", ports[HOSTS[name]])
        await asyncio.gather(_copy(reader, ahead), _copy(behind, writer), return_exceptions=True)

    return await asyncio.start_server(relay, "127.0.0.1", 443, ssl=context)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@pytest.fixture(scope="module")
def origin(
    emulators: tuple[str, str], valkey_process: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    origin, authority = emulators
    with ExitStack() as stack:
        backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        backend.daemon_threads = True
        thread = threading.Thread(target=backend.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(backend.server_close)
        stack.callback(backend.shutdown)
        home = tmp_path_factory.mktemp("gateway")
        routes = ROUTES.format(
            port=origin.rpartition(":")[2],
            store=valkey_process.tcp_url,
            secret=CLIENT_SECRET,
            tenant=TENANT,
            backend=backend.server_address[1],
        )
        (home / "routes.yaml").write_text(routes)
        gateway = Gateway(home, environment={"SSL_CERT_FILE": authority})
        stack.callback(gateway.stop)
        yield origin


@pytest.fixture
async def person(emulators: tuple[str, str]) -> AsyncIterator[Person]:
    context = ssl.create_default_context(cafile=emulators[1])
    person = Person(connector=aiohttp.TCPConnector(ssl=context))
    yield person
    await person.close()


async def sign_in(person: Person, url: str, name: str) -> tuple[int, dict[str, str], str]:
    """Go to *url*, press the service's button for *name*; what the backend got, or the page."""
    page = await person.visit(url)
    text = page.body.decode()
    forms = re.findall(r'<form[^>]*action="([^"]+)"[^>]*>(.*?)</form>', text, re.DOTALL)
    (action, inside) = next(each for each in forms if name in each[1])
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', inside)
    form = {key: unescape(value) for key, value in fields}
    arrived = await person.visit(urljoin(page.url, unescape(action)), form=form)
    got = json.loads(arrived.body)["fields"] if arrived.status == 200 else {}
    return arrived.status, got, page.url


async def test_google_says_the_domain_of_a_company_and_others_are_kept_out(
    origin: str, person: Person
) -> None:
    status, fields, page = await sign_in(person, f"{origin}/google/1", "ada@acme.com")
    assert status == 200
    assert "access_type=offline" in page
    assert "offline_access" not in page
    assert fields["x-auth-subject"].startswith("google:")
    assert fields["x-auth-tenant"] == "acme.com"
    assert (fields["x-auth-name"], fields["x-auth-email"]) == ("Ada Lovelace", "ada@acme.com")


async def test_somebody_at_google_who_is_of_no_company_is_refused(
    origin: str, person: Person
) -> None:
    status, _, _ = await sign_in(person, f"{origin}/google/1", "bob@gmail.com")
    assert status == 403


async def test_entra_says_the_tenant_and_the_person_in_it(origin: str, person: Person) -> None:
    status, fields, _ = await sign_in(person, f"{origin}/entra/1", "ada@acme.com")
    assert status == 200
    assert fields["x-auth-tenant"] == TENANT
    assert fields["x-auth-subject"].startswith("entra:")
    assert fields["x-auth-name"] == "Ada Lovelace"
    assert "x-auth-email" not in fields  # it says of no address that it is verified


async def test_groups_of_okta_open_a_route(origin: str, person: Person) -> None:
    status, fields, _ = await sign_in(person, f"{origin}/okta/1", "ada@acme.com")
    assert status == 200
    assert fields["x-auth-subject"] == "okta:00uada"
    assert "editors" in fields["x-auth-groups"].split(",")


async def test_github_says_a_number_and_the_address_that_it_has_verified(
    origin: str, person: Person
) -> None:
    status, fields, page = await sign_in(person, f"{origin}/github/1", "ada")
    assert status == 200
    assert page.startswith("https://github.com/login/oauth/authorize?")
    assert re.fullmatch(r"github:\d+", fields["x-auth-subject"])
    assert (fields["x-auth-name"], fields["x-auth-email"]) == ("Ada Lovelace", "ada@acme.com")
