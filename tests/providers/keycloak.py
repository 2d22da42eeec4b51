"""A real Keycloak with a realm of ours, as a process; `make test-providers` fetches it."""

import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.end_to_end.running import free_port
from tests.providers.running import CLIENT_SECRET, Arrived, Person

READY_SECONDS = 600.0
PASSWORD = "correct horse battery"
_ADMIN = {"username": "admin", "password": "a password for the tests"}
_REALM = Path(__file__).with_name("keycloak-realm.json")


class Keycloak:
    """The running server, with the realm `corp`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.issuer = f"{url}/realms/corp"

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        """Ask the admin API; *path* is below the server's `/admin/realms`."""
        async with aiohttp.ClientSession() as session:
            form = _ADMIN | {"grant_type": "password", "client_id": "admin-cli"}
            url = f"{self.url}/realms/master/protocol/openid-connect/token"
            async with session.post(url, data=form) as answer:
                answer.raise_for_status()
                token = (await answer.json())["access_token"]
            fields = {"Authorization": f"Bearer {token}"}
            url = f"{self.url}/admin/realms{path}"
            async with session.request(method, url, json=body, headers=fields) as answer:
                answer.raise_for_status()
                content = await answer.read()
        return msgspec.json.decode(content) if content else None

    async def user_id(self, name: str) -> str:
        """Return the id of a person of the realm, which is their `sub`."""
        (user,) = await self.admin("GET", f"/corp/users?exact=true&username={name}")
        return str(user["id"])

    async def import_realm(self, origins: list[str]) -> None:
        """Put the realm there, with a client for gateways at *origins*; told by the first."""
        text = _REALM.read_text(encoding="utf-8").replace("SECRET", CLIENT_SECRET)
        realm = msgspec.json.decode(text.replace("PASSWORD", PASSWORD))
        (client,) = realm["clients"]
        client["redirectUris"] = [f"{origin}/.doorward/callback" for origin in origins]
        client["attributes"] |= {
            "backchannel.logout.url": f"{origins[0]}/.doorward/backchannel-logout",
            "post.logout.redirect.uris": f"{origins[0]}/.doorward/logout",
        }
        await self.admin("POST", "", realm)


@contextmanager
def keycloak() -> Iterator[Keycloak]:
    """Run Keycloak from the directory DOORWARD_KEYCLOAK; skips the test without."""
    running = os.environ.get("DOORWARD_KEYCLOAK_URL")
    if running:  # somebody's who works on these tests: it takes its time to start
        yield Keycloak(running)
        return
    home = os.environ.get("DOORWARD_KEYCLOAK")
    if not home:
        pytest.skip("needs DOORWARD_KEYCLOAK: `make test-providers` fetches it")
    assert shutil.which("java"), "Keycloak needs Java 17 or newer"
    port = free_port()
    environment: Mapping[str, str] = os.environ | {
        "KC_BOOTSTRAP_ADMIN_USERNAME": _ADMIN["username"],
        "KC_BOOTSTRAP_ADMIN_PASSWORD": _ADMIN["password"],
        "JAVA_OPTS_APPEND": "-Xmx512m",
    }
    command = [
        f"{home}/bin/kc.sh",
        "start-dev",
        "--db=dev-mem",
        "--http-host=127.0.0.1",
        f"--http-port={port}",
        "--cache=local",
        "--log-level=warn",
    ]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as process:
        try:
            server = Keycloak(f"http://127.0.0.1:{port}")
            _wait_until_ready(server, process)
            yield server
        finally:
            process.terminate()


def _wait_until_ready(server: Keycloak, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "Keycloak ended"
        try:
            with urllib.request.urlopen(f"{server.url}/realms/master", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError("Keycloak is not ready")


async def sign_in(person: Person, url: str, name: str, *, stay_on: str = "") -> Arrived:
    """Go to *url*, and fill in Keycloak's page as *name*."""
    arrived = await person.visit(url, stay_on=stay_on)
    found = re.search(rb'<form[^>]*id="kc-form-login"[^>]*action="([^"]+)"', arrived.body)
    if found is None:
        return arrived
    form = {"username": name, "password": PASSWORD, "credentialId": ""}
    return await person.visit(unescape(found[1].decode()), form=form, stay_on=stay_on)
