"""Two gateways with two workers each, and a real provider whose refresh tokens are for one use.

A second use would not only be counted: `oidc-provider` then ends the whole sign-in (RFC 9700
section 4.14.2), and the person would be signed out here.
"""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Valkey
from tests.end_to_end.running import Gateway, free_port
from tests.end_to_end.test_sign_in_at_a_provider import Backend
from tests.providers.running import (
    CLIENT_SECRET,
    OidcProvider,
    Person,
    oidc_provider,
    registered,
)

pytestmark = pytest.mark.wire

ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}", workers: 2}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
login:
  accounts: false
  providers:
    - {{id: corp, issuer: "{issuer}", client_id: gateway, client_secret: "{secret}"}}
upstreams: {{app: "http://127.0.0.1:{backend}"}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: app, access: signed-in}}
"""
LIFETIME = 1
"""Seconds; the least that `oidc-provider` and the protocol know."""
DELAY = 400
"""Milliseconds that the provider takes at most."""

BUSY = frozenset(("overloaded", "store_unavailable"))


class Setting(NamedTuple):
    """Two gateways of one store, and where people sign in."""

    origins: tuple[str, str]
    gateways: list[Gateway]
    provider: OidcProvider


@pytest.fixture
def setting(valkey_process: Valkey, tmp_path: Path) -> Iterator[Setting]:
    ports = free_port(), free_port()
    origins = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
    valkey_process.flush()
    client = registered(origins, grant_types=["authorization_code", "refresh_token"])
    with ExitStack() as stack:
        backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        backend.daemon_threads = True
        thread = threading.Thread(target=backend.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(backend.server_close)
        stack.callback(backend.shutdown)
        provider = stack.enter_context(oidc_provider([client], lifetime=LIFETIME, delay=DELAY))
        gateways = []
        for port in ports:
            directory = tmp_path / str(port)
            directory.mkdir()
            routes = ROUTES.format(
                port=port,
                store=valkey_process.url,
                issuer=provider.issuer,
                secret=CLIENT_SECRET,
                backend=backend.server_address[1],
            )
            (directory / "routes.yaml").write_text(routes)
            gateways.append(Gateway(directory, environment={}))
            stack.callback(gateways[-1].stop)
        yield Setting(origins, gateways, provider)


async def uses(person: Person, provider: OidcProvider) -> Counter[int]:
    """How many refresh tokens came so often."""
    return Counter(json.loads((await person.visit(f"{provider.issuer}/used")).body))


async def refresh_under_load(setting: Setting, *, people: int, refreshes: int) -> Counter[int]:
    """Have *people* use both gateways until there were so many *refreshes*, all together."""
    persons = [Person() for _ in range(people)]
    watcher = Person()
    over = asyncio.Event()

    async def use(person: Person) -> None:
        arrived = await person.sign_in(f"{setting.origins[0]}/notes", "ada")
        assert arrived.status == 200, "".join(
            line for each in setting.gateways for line in each.lines if "warning" in line
        )
        while not over.is_set():
            both = (person.visit(f"{origin}/notes") for origin in setting.origins)
            for arrived in await asyncio.gather(*both):
                # Never a way back to the sign-in. What a busy machine sheds is another matter.
                shed = arrived.fields.get("X-Doorward-Error") in BUSY
                assert arrived.url.startswith(setting.origins), arrived.url
                assert arrived.status == 200 or shed, (arrived.status, arrived.body)

    tasks = [asyncio.create_task(use(person)) for person in persons]
    try:
        while sum((found := await uses(watcher, setting.provider)).values()) < refreshes:
            done, _ = await asyncio.wait(tasks, timeout=0.2, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
    finally:
        over.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        for person in (*persons, watcher):
            await person.close()
    return found


async def test_sessions_in_use_on_two_gateways_use_no_refresh_token_twice(
    setting: Setting,
) -> None:
    found = await refresh_under_load(setting, people=4, refreshes=12)
    assert set(found) == {1}, found


@pytest.mark.soak
async def test_in_a_thousand_refreshes_no_token_is_used_twice(setting: Setting) -> None:
    found = await refresh_under_load(setting, people=25, refreshes=1000)
    assert set(found) == {1}, found
    assert found[1] >= 1000
