"""Two gateways on one store and a real Keycloak: `make test-providers`, no part of `make test`."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from typing import NamedTuple

import pytest

from tests.conftest import Valkey
from tests.end_to_end.running import Gateway, free_port
from tests.end_to_end.test_sign_in_at_a_provider import Backend
from tests.providers.keycloak import Keycloak, keycloak, sign_in
from tests.providers.running import CLIENT_SECRET, Person

pytestmark = [pytest.mark.wire, pytest.mark.timeout(1200)]

ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
login:
  accounts: false
  providers:
    - {{id: corp, issuer: "{issuer}", client_id: gateway, client_secret: "{secret}"}}
identity: {{headers: standard, include: [name, email, groups]}}
upstreams: {{app: "http://127.0.0.1:{backend}"}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: app, access: signed-in}}
  - {{id: editors, match: {{path: /edit/*}}, upstream: app, access: {{roles: [editor]}}}}
"""


class Setting(NamedTuple):
    """Two gateways, of which Keycloak tells the first of sign-outs."""

    origins: tuple[str, str]
    keycloak: Keycloak


@pytest.fixture(scope="module")
def server() -> Iterator[Keycloak]:
    with keycloak() as running:
        yield running


@pytest.fixture
async def setting(
    server: Keycloak, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Setting]:
    ports = free_port(), free_port()
    origins = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    await server.import_realm([*origins])
    with ExitStack() as stack:
        backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        backend.daemon_threads = True
        thread = threading.Thread(target=backend.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(backend.server_close)
        stack.callback(backend.shutdown)
        for port in ports:
            directory = tmp_path_factory.mktemp(f"gateway-{port}")
            routes = ROUTES.format(
                port=port,
                store=valkey.tcp_url,
                issuer=server.issuer,
                secret=CLIENT_SECRET,
                backend=backend.server_address[1],
            )
            (directory / "routes.yaml").write_text(routes)
            stack.callback(Gateway(directory, environment={}).stop)
        yield Setting(origins, server)
    await server.admin("DELETE", "/corp")


@pytest.fixture
async def person(server: Keycloak) -> AsyncIterator[Person]:
    person = Person(server.url)
    yield person
    await person.close()


async def statuses(person: Person, setting: Setting, path: str = "/.doorward/me") -> list[int]:
    fields = {"Accept": "application/json", "Sec-Fetch-Mode": "cors"}
    return [
        (await person.visit(f"{origin}{path}", fields=fields)).status for origin in setting.origins
    ]


async def test_a_group_mapped_to_a_role_opens_a_route(setting: Setting, person: Person) -> None:
    arrived = await sign_in(person, f"{setting.origins[0]}/edit/1?a=b", "ada")
    assert (arrived.status, arrived.url) == (200, f"{setting.origins[0]}/edit/1?a=b")
    fields = {name.lower(): each for name, each in json.loads(arrived.body)["fields"].items()}
    assert fields["x-auth-subject"] == await setting.keycloak.user_id("ada")
    assert "editor" in fields["x-auth-roles"].split(",")
    assert (fields["x-auth-name"], fields["x-auth-email"]) == ("Ada Lovelace", "ada@example.com")
    assert fields["x-auth-groups"] == "maths"
    assert await statuses(person, setting, "/edit/1") == [200, 200]

    other = Person(setting.keycloak.url)
    assert (await sign_in(other, f"{setting.origins[0]}/edit/1", "bob")).status == 403
    assert await statuses(other, setting) == [200, 200]
    await other.close()


async def test_signing_out_all_sessions_of_a_person_in_the_admin_api_ends_ours(
    setting: Setting, person: Person
) -> None:
    await sign_in(person, f"{setting.origins[0]}/", "ada")
    other = Person(setting.keycloak.url)
    await sign_in(other, f"{setting.origins[1]}/", "bob")
    assert await statuses(person, setting) == await statuses(other, setting) == [200, 200]

    user = await setting.keycloak.user_id("ada")
    await setting.keycloak.admin("POST", f"/corp/users/{user}/logout")

    assert await statuses(person, setting) == [401, 401]
    assert await statuses(other, setting) == [200, 200]
    await other.close()


async def test_signing_out_here_signs_out_there(setting: Setting, person: Person) -> None:
    await sign_in(person, f"{setting.origins[0]}/", "ada")
    origin = setting.origins[0]
    page = await person.visit(f"{origin}/.doorward/logout", form={})
    (refresh,) = page.page.all("meta", **{"http-equiv": "refresh"})
    back = await person.visit(refresh.attributes["content"].removeprefix("0; url="))
    assert back.url.startswith(f"{origin}/.doorward/logout?state=")
    assert "Here, and where you signed in" in back.page.text
    assert b"kc-form-login" in (await person.visit(f"{origin}/")).body
