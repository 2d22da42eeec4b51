"""`doorward explain` and a live request come to the same verdict, for the whole decision table."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from auth.session import digest, session_key
from gateway.cli import cli
from tests.conftest import Valkey
from tests.end_to_end.backend import Backend, running_backend
from tests.end_to_end.running import Gateway, StartGateway, free_port
from tests.gateway.decision_table import CALLERS, CASES, ROUTES, Case

pytestmark = pytest.mark.wire


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A backend that answers everything."""
    async with running_backend() as running:
        yield running


def explained(file: Path, case: Case, base: str) -> dict[str, object]:
    """Return what `doorward explain --json` says of *case*."""
    caller = CALLERS[case.caller] or {}
    url = f"{base}{case.target}"
    arguments = ["explain", case.method, url, "--config", str(file), "--json"]
    for name in ("subject", "tenant", "acr"):
        if name in caller:
            arguments += [f"--{name}", str(caller[name])]
    for name in ("roles", "groups", "scopes"):
        if value := caller.get(name):
            assert isinstance(value, list)
            arguments += [f"--{name}", ",".join(value)]
    result = CliRunner().invoke(cli, arguments)
    explanation = json.loads(result.stdout)
    assert isinstance(explanation, dict)
    codes = {"allow": 0, "challenge": 3, "deny": 4, "not-found": 5}
    assert result.exit_code == codes[explanation["verdict"]]
    return explanation


async def live(gateway: Gateway, case: Case) -> int:
    """Send *case* as raw bytes and return the status of the answer."""
    cookie = f"Cookie: doorward={case.caller}\r\n" if CALLERS[case.caller] else ""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"{case.method} {case.target} HTTP/1.1\r\nHost: {case.host or f'{host}:{port}'}\r\n"
        f"Connection: close\r\n{cookie}\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1])


async def test_explain_and_a_live_request_agree_on_the_whole_table(
    start_gateway: StartGateway, backend: Backend, valkey: Valkey
) -> None:
    port = free_port()
    text = (
        ROUTES.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
        .replace("127.0.0.1:8081", "127.0.0.1:0")
        .replace("url: embedded", f'url: "{valkey.url}"')
        .replace("http://127.0.0.1:9001", backend.url)
        .replace("http://127.0.0.1:9002", backend.url)
    )
    gateway = start_gateway(text)
    file = gateway.directory / "routes.yaml"
    now = time.time()
    for name, caller in CALLERS.items():
        if caller is not None:
            record = {"v": 1, "created_at": now, "expires_at": now + 600, **caller}
            valkey.client.set(session_key(digest(name)), json.dumps(record), ex=600)

    disagreeing = []
    for case in CASES:
        base = f"http://{case.host}" if case.host else gateway.url
        explanation = explained(file, case, base)
        status = await live(gateway, case)
        said = (explanation["verdict"], explanation["reason"])
        if (*said, status) != (case.verdict, case.reason, case.status):
            disagreeing.append((case, said, status))

    assert disagreeing == []
    assert len(CASES) >= 60
    log = [json.loads(line) for line in gateway.access_log.read_text().splitlines()]
    logged = [(line["reason"], line["route"]) for line in log]
    assert logged[: len(CASES)] == [(case.reason, case.route) for case in CASES][: len(logged)]
