"""Two gateways on one store and a real Dex: `make test-providers`, no part of `make test`."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from http.server import ThreadingHTTPServer
from typing import NamedTuple

import pytest

from tests.conftest import Valkey
from tests.end_to_end.running import Gateway, free_port
from tests.end_to_end.test_sign_in_at_a_provider import Backend
from tests.gateway.io.test_tls import make_certificate
from tests.ldap_server import SLAPD, Directory, running_directory
from tests.providers.dex_server import LIFETIME, Dex, dex
from tests.providers.running import CLIENT_SECRET, Person

pytestmark = [pytest.mark.wire, pytest.mark.timeout(120)]

# As `docs/sign-in.md` has it; accounts of our own are the other way to sign in beside it.
ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
login:
  accounts: true
  providers:
    - id: dex
      label: Dex
      issuer: {issuer}
      client_id: gateway
      client_secret: "{secret}"
      own_callback: true
      scopes: [openid, profile, email, groups, offline_access]
identity: {{headers: standard, include: [name, email, groups]}}
upstreams: {{app: "http://127.0.0.1:{backend}"}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: app, access: signed-in, providers: [dex]}}
  - id: editors
    match: {{path: /edit/*}}
    upstream: app
    access: {{groups: [editors]}}
    providers: [dex]
"""


class Setting(NamedTuple):
    """Two gateways, of which Dex tells the first of sign-outs."""

    origins: tuple[str, str]
    dex: Dex
    gateways: list[Gateway]

    def lines(self) -> list[str]:
        """What the gateways have logged so far."""
        return [line for each in self.gateways for line in tuple(each.lines)]


@contextmanager
def running(
    valkey: Valkey,
    directories: pytest.TempPathFactory,
    directory: Directory | None,
    *,
    sessions: bool,
) -> Iterator[Setting]:
    ports = free_port(), free_port()
    origins = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    with ExitStack() as stack:
        server = stack.enter_context(dex(origins, directory, sessions=sessions))
        backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        backend.daemon_threads = True
        thread = threading.Thread(target=backend.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(backend.server_close)
        stack.callback(backend.shutdown)
        gateways: list[Gateway] = []
        for port in ports:
            home = directories.mktemp(f"gateway-{port}")
            routes = ROUTES.format(
                port=port,
                store=valkey.tcp_url,
                issuer=server.issuer,
                secret=CLIENT_SECRET,
                backend=backend.server_address[1],
            )
            (home / "routes.yaml").write_text(routes)
            gateways.append(Gateway(home, environment={}))
            stack.callback(gateways[-1].stop)
        yield Setting(origins, server, gateways)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory | None]:
    """A directory of this file's own, for it is changed; None without slapd."""
    if SLAPD is None:
        yield None
        return
    certificate = make_certificate(tmp_path_factory.mktemp("ldap"), "ldap", "127.0.0.1")
    with running_directory(certificate.cert_file, certificate.key_file) as directory:
        yield directory


@pytest.fixture(scope="module")
def setting(
    valkey_process: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Setting]:
    with running(valkey_process, tmp_path_factory, None, sessions=True) as made:
        yield made


@pytest.fixture(scope="module")
def plain(
    valkey_process: Valkey,
    people: Directory | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Setting]:
    """With a Dex as it is unless told otherwise: it has no sessions, and asks its directory."""
    with running(valkey_process, tmp_path_factory, people, sessions=False) as made:
        yield made


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    person = Person()
    yield person
    await person.close()


@pytest.fixture
async def other() -> AsyncIterator[Person]:
    other = Person()
    yield other
    await other.close()


async def statuses(person: Person, setting: Setting, path: str = "/.doorward/me") -> list[int]:
    fields = {"Accept": "application/json", "Sec-Fetch-Mode": "cors"}
    return [
        (await person.visit(f"{origin}{path}", fields=fields)).status for origin in setting.origins
    ]


async def until(person: Person, setting: Setting, path: str, status: int) -> None:
    """Use both gateways until *path* is answered with *status* by both."""
    try:
        async with asyncio.timeout(10 * LIFETIME):
            while await statuses(person, setting, path) != [status, status]:
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail("".join(setting.lines()))


async def test_a_group_opens_a_route_and_a_wrong_password_does_not(
    setting: Setting, person: Person, other: Person
) -> None:
    origin = setting.origins[0]
    refused = await setting.dex.sign_in(person, f"{origin}/edit/1?a=b", "ada@example.com", "not it")
    assert refused.url.startswith(setting.dex.issuer)
    assert b'id="login-error"' in refused.body
    assert await statuses(person, setting) == [401, 401]

    arrived = await setting.dex.sign_in(person, f"{origin}/edit/1?a=b", "ada@example.com")
    assert (arrived.status, arrived.url) == (200, f"{origin}/edit/1?a=b")
    fields = json.loads(arrived.body)["fields"]
    # Dex's `sub` is base64url of its own record of user and connector.
    assert fields["x-auth-subject"].startswith("dex:")
    assert (fields["x-auth-name"], fields["x-auth-email"]) == ("Ada Lovelace", "ada@example.com")
    assert set(fields["x-auth-groups"].split(",")) == {"editors", "maths"}
    assert await statuses(person, setting, "/edit/1") == [200, 200]

    arrived = await setting.dex.sign_in(other, f"{origin}/edit/1", "bob@example.com")
    assert arrived.status == 403
    assert await statuses(other, setting) == [200, 200]


async def test_signing_out_here_signs_out_there_and_at_the_other_gateway(
    setting: Setting, person: Person
) -> None:
    origin = setting.origins[0]
    await setting.dex.sign_in(person, f"{origin}/", "ada@example.com")
    page = await person.visit(f"{origin}/.doorward/logout", form={})
    (refresh,) = page.page.all("meta", **{"http-equiv": "refresh"})
    there = refresh.attributes["content"].removeprefix("0; url=")
    assert there.startswith(f"{setting.dex.issuer}/logout?")
    assert await statuses(person, setting) == [401, 401]
    back = await person.visit(there)
    assert back.url.startswith(f"{origin}/.doorward/logout?state=")
    assert "Here, and where you signed in" in back.page.text
    again = await person.visit(f"{origin}/")
    assert again.url.startswith(setting.dex.issuer)  # and there they are asked again
    assert again.status == 200


async def test_signing_out_there_ends_the_session_here(
    setting: Setting, person: Person, other: Person
) -> None:
    await setting.dex.sign_in(person, f"{setting.origins[1]}/", "ada@example.com")
    await setting.dex.sign_in(other, f"{setting.origins[1]}/", "ada@example.com")
    assert await statuses(person, setting) == await statuses(other, setting) == [200, 200]

    asked = await person.visit(f"{setting.dex.issuer}/logout")
    assert asked.status == 200
    await person.visit(f"{setting.dex.issuer}/logout", form={})
    # Dex's page does not wait for its logout token to arrive.
    await until(person, setting, "/.doorward/me", 401)
    assert await statuses(other, setting) == [200, 200]


async def test_whoever_is_gone_from_the_directory_stays_for_dex_calls_that_its_own_failure(
    plain: Setting, person: Person
) -> None:
    if plain.dex.directory is None:
        pytest.skip("needs slapd and ldap-utils of Debian")
    arrived = await plain.dex.sign_in(person, f"{plain.origins[0]}/", "bob", by="ldap")
    assert arrived.status == 200, arrived.body
    plain.dex.change_directory("dn: uid=bob,ou=people,dc=example,dc=com\nchangetype: delete\n")
    # 500 and not `invalid_grant`: nobody can tell it from a Dex that is out of order.
    async with asyncio.timeout(6 * LIFETIME):
        while not any("is not refreshed any more" in line for line in plain.lines()):
            assert await statuses(person, plain) == [200, 200]
            await asyncio.sleep(0.1)
    assert await statuses(person, plain) == [200, 200]


async def test_without_sessions_in_dex_signing_out_is_only_here(
    plain: Setting, person: Person
) -> None:
    origin = plain.origins[0]
    arrived = await plain.dex.sign_in(person, f"{origin}/", "ada@example.com")
    assert arrived.status == 200, arrived.body
    page = await person.visit(f"{origin}/.doorward/logout", form={})
    assert not [*page.page.all("meta", **{"http-equiv": "refresh"})]
    assert await statuses(person, plain) == [401, 401]


async def test_a_group_taken_away_in_the_directory_is_gone_after_a_refresh(
    plain: Setting, person: Person
) -> None:
    # The last test: with `storage: memory` this Dex stops answering at a session's second refresh.
    if plain.dex.directory is None:
        pytest.skip("needs slapd and ldap-utils of Debian")
    change = (
        "dn: cn=editors,ou=groups,dc=example,dc=com\nchangetype: modify\n{} member\nmember: {}\n"
    )
    ada = "uid=ada,ou=people,dc=example,dc=com"
    origin = plain.origins[0]
    # A group has one member at least.
    plain.dex.change_directory(change.format("add:", "cn=nobody"))

    arrived = await plain.dex.sign_in(person, f"{origin}/edit/1", "ada", by="ldap")
    assert arrived.status == 200, arrived.body
    fields = json.loads(arrived.body)["fields"]
    assert set(fields["x-auth-groups"].split(",")) == {"editors", "everybody"}

    plain.dex.change_directory(change.format("delete:", ada))
    await until(person, plain, "/edit/1", 403)
