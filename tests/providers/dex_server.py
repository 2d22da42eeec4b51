"""A real Dex, with people of its own and of a directory; `make test-providers` builds it."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.end_to_end.running import free_port
from tests.ldap_server import Directory
from tests.providers.running import CLIENT_SECRET, Arrived, Person

READY_SECONDS = 60.0
PASSWORDS = {"local": "password", "ldap": "correct horse battery"}
"""By connector."""
LIFETIME = 6
"""Seconds that an access token is good for: after four and a half our gateways refresh."""
_HASH = "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"
"""Of "password"."""
_LDAPMODIFY = shutil.which("ldapmodify")


class Dex:
    """The running server."""

    def __init__(self, issuer: str, directory: Directory | None) -> None:
        self.issuer = issuer
        self.directory = directory

    def change_directory(self, ldif: str) -> None:
        """Change what the directory behind the connector `ldap` says."""
        assert self.directory is not None
        assert _LDAPMODIFY is not None, "ldapmodify is missing: install Debian's ldap-utils"
        who = ["-D", "cn=gateway,dc=example,dc=com", "-w", "gateway-password"]
        command = [_LDAPMODIFY, "-x", "-H", self.directory.url, *who]
        subprocess.run(command, input=ldif, text=True, check=True, capture_output=True)

    async def sign_in(
        self, person: Person, url: str, login: str, password: str = "", *, by: str = "local"
    ) -> Arrived:
        """Go to *url* and fill in Dex's pages on the way; stop where the password is refused."""
        arrived = await person.visit(url)
        if b"Log in with" in arrived.body:
            found = re.search(rf'href="([^"]+/auth/{by}[?/][^"]*)"'.encode(), arrived.body)
            assert found is not None, arrived.body
            arrived = await person.visit(urljoin(arrived.url, unescape(found[1].decode())))
        if b'name="password"' in arrived.body:
            found = re.search(rb'<form method="post" action="([^"]+)"', arrived.body)
            assert found is not None, arrived.body
            form = {"login": login, "password": password or PASSWORDS[by]}
            page = urljoin(arrived.url, unescape(found[1].decode()))
            arrived = await person.visit(page, form=form)
        if b"Grant Access" in arrived.body:
            found = re.search(rb'name="req" value="([^"]+)"', arrived.body)
            assert found is not None, arrived.body
            form = {"req": found[1].decode(), "approval": "approve"}
            arrived = await person.visit(arrived.url, form=form)
        return arrived


@contextmanager
def dex(origins: Sequence[str], directory: Directory | None, *, sessions: bool) -> Iterator[Dex]:
    """Run the program DOORWARD_DEX for gateways at *origins*; skips the test without.

    The first of them is told of sign-outs. *sessions*: whether Dex has any, which its flag
    `DEX_SESSIONS_ENABLED` says; it can sign out of them, and with them asks no connector again.
    """
    program = os.environ.get("DOORWARD_DEX")
    if not program:
        pytest.skip("needs DOORWARD_DEX: `make test-providers` builds it")
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/dex"
    with tempfile.TemporaryDirectory(prefix="doorward-dex-") as name:
        configuration = Path(name, "dex.yaml")  # JSON is YAML
        configuration.write_text(json.dumps(_configuration(issuer, port, origins, directory)))
        with subprocess.Popen(
            [program, "serve", str(configuration)],
            env=os.environ | {"DEX_SESSIONS_ENABLED": str(sessions).lower()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                _wait_until_ready(issuer, process)
                yield Dex(issuer, directory)
            finally:
                process.kill()


def _configuration(
    issuer: str, port: int, origins: Sequence[str], directory: Directory | None
) -> dict[str, object]:
    client = {
        "id": "gateway",
        "name": "Doorward",
        "secret": CLIENT_SECRET,
        "redirectURIs": [f"{origin}/.doorward/callback/dex" for origin in origins],
        "postLogoutRedirectURIs": [f"{origin}/.doorward/logout" for origin in origins],
        "backchannelLogoutURI": f"{origins[0]}/.doorward/backchannel-logout",
    }
    ada = {
        "email": "ada@example.com",
        "hash": _HASH,
        "username": "ada",
        "name": "Ada Lovelace",
        "groups": ["editors", "maths"],
        "userID": "08a8684b-db88-4b73-90a9-3cd1661f5466",
    }
    bob = {"email": "bob@example.com", "hash": _HASH, "username": "bob", "userID": "2"}
    return {
        "issuer": issuer,
        "storage": {"type": "memory"},
        "web": {"http": f"127.0.0.1:{port}"},
        "expiry": {"idTokens": f"{LIFETIME}s"},
        "enablePasswordDB": True,
        "staticPasswords": [ada, bob],
        "staticClients": [client],
        "connectors": [_connector(directory)] if directory is not None else [],
    }


def _connector(directory: Directory) -> dict[str, object]:
    people = {
        "baseDN": "ou=people,dc=example,dc=com",
        "filter": "(objectClass=inetOrgPerson)",
        "username": "uid",
        "idAttr": "uid",
        # Not everybody there has an address, and Dex wants one; it makes it of the name.
        "emailSuffix": "example.com",
        "nameAttr": "uid",
    }
    groups = {
        "baseDN": "ou=groups,dc=example,dc=com",
        "filter": "(objectClass=groupOfNames)",
        "userMatchers": [{"userAttr": "DN", "groupAttr": "member"}],
        "nameAttr": "cn",
    }
    settings = {
        "host": f"127.0.0.1:{directory.port}",
        "insecureNoSSL": True,
        "bindDN": "cn=gateway,dc=example,dc=com",
        "bindPW": "gateway-password",
        "userSearch": people,
        "groupSearch": groups,
    }
    return {"type": "ldap", "id": "ldap", "name": "Directory", "config": settings}


def _wait_until_ready(issuer: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "Dex ended"
        try:
            with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError("Dex is not ready")
