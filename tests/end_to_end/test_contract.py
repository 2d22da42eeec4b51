"""Sentences of the contract that nothing smaller holds us to, on one running gateway."""

import asyncio
import hashlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import aiohttp
import jwt
import pytest
import pytest_asyncio

from tests.conftest import Valkey
from tests.end_to_end.backend import Backend, running_backend, sent_fields
from tests.end_to_end.running import DOORWARD, Gateway, free_port

pytestmark = [pytest.mark.wire, pytest.mark.asyncio(loop_scope="module")]

TOKEN = {"Authorization": "Bearer an-admin-token-of-the-tests"}
ROUTES = """\
version: 1
server: {{listen: 127.0.0.1:0, workers: 2}}
admin: {{listen: 127.0.0.1:0, token: an-admin-token-of-the-tests}}
store: {{url: "{store}"}}
identity: {{headers: standard, include: [name, email, groups]}}
upstreams: {{backend: "{backend}", dead: "http://127.0.0.1:{dead}"}}
routes:
  - {{id: public, match: {{path: /public/*}}, upstream: backend, access: public}}
  - {{id: optional, match: {{path: /optional/*}}, upstream: backend, access: optional}}
  - {{id: all, match: {{path: /*}}, upstream: backend, access: signed-in}}
  - {{id: editors, match: {{path: /edit/*}}, upstream: backend, access: {{roles: [editor]}}}}
  - {{id: programs, match: {{path: /api/*}}, upstream: backend, access: signed-in,
     unauthenticated: 401}}
  - {{id: dead, match: {{path: /dead}}, upstream: dead, access: public}}
"""


class Pair:
    """Two gateways of two workers each, on one store."""

    def __init__(self, gateways: tuple[Gateway, Gateway], client: aiohttp.ClientSession) -> None:
        self.gateways = gateways
        self.url = gateways[0].url
        self.admin_url = gateways[0].admin_url
        self.client = client

    async def ask(
        self, path: str, method: str = "GET", data: str | None = None, **fields: str
    ) -> aiohttp.ClientResponse:
        """Return the answer of the first gateway, read; fields with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        url = path if path.startswith("http") else f"{self.url}{path}"
        async with self.client.request(
            method, url, headers=named, data=data, allow_redirects=False
        ) as response:
            await response.read()
            return response

    async def statuses(self, cookie: str, path: str = "/x") -> set[int]:
        """Return what any worker of either gateway says to *cookie*."""
        answers = [
            await self.ask(f"{gateway.url}{path}", Cookie=f"doorward={cookie}", Connection="close")
            for gateway in self.gateways
            for _ in range(4)
        ]
        return {answer.status for answer in answers}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def backend() -> AsyncIterator[Backend]:
    """A backend that tells what it was sent."""
    async with running_backend() as running:
        yield running


@pytest.fixture(scope="module")
def gateways(
    tmp_path_factory: pytest.TempPathFactory, valkey_process: Valkey, backend: Backend
) -> Iterator[tuple[Gateway, Gateway]]:
    """Start both once for the module."""
    text = ROUTES.format(store=valkey_process.tcp_url, backend=backend.url, dead=free_port())
    running = []
    for name in ("first", "second"):
        directory = tmp_path_factory.mktemp(name)
        (directory / "routes.yaml").write_text(text)
        running.append(Gateway(directory, environment={}))
    first, second = running
    yield first, second
    for gateway in running:
        gateway.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def pair(gateways: tuple[Gateway, Gateway]) -> AsyncIterator[Pair]:
    """Both gateways, and a client that keeps no cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        yield Pair(gateways, client)


def write(
    store: Valkey, cookie: str, members: Mapping[str, object] | None = None, *, ttl: int = 600
) -> str:
    """Write a record with the required members and *members* by hand; return the digest."""
    now = int(time.time())
    record = {"v": 1, "subject": "u1", "created_at": now, "expires_at": now + 600}
    record |= members or {}
    name = hashlib.sha256(cookie.encode()).hexdigest()
    store.client.set(f"doorward:session:{{{name}}}", json.dumps(record), ex=ttl)
    return name


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({}, 200),
        ({"unknown": [1]}, 200),
        ({"v": 2}, 401),
        ({"v": "1"}, 401),
        ({"subject": ""}, 401),
        ({"subject": 7}, 401),
        ({"roles": "editor"}, 401),
        ({"expires_at": 1}, 401),
        ({"created_at": None}, 401),
    ],
    ids=str,
)
async def test_a_record_is_a_session_or_it_is_not(
    pair: Pair, valkey: Valkey, members: dict[str, object], status: int
) -> None:
    write(valkey, "a" * 43, members)
    assert await pair.statuses("a" * 43) == {status}


async def test_a_record_that_is_replaced_or_deleted_by_hand_takes_effect(
    pair: Pair, valkey: Valkey
) -> None:
    cookie = "b" * 43
    name = write(valkey, cookie)
    assert await pair.statuses(cookie, "/edit/x") == {403}
    write(valkey, cookie, {"roles": ["editor"]})
    await asyncio.sleep(0.5)  # one lease
    assert await pair.statuses(cookie, "/edit/x") == {200}
    valkey.client.delete(f"doorward:session:{{{name}}}")
    await asyncio.sleep(0.5)
    assert await pair.statuses(cookie, "/edit/x") == {401}


async def test_a_key_ends_when_its_writer_said(pair: Pair, valkey: Valkey) -> None:
    write(valkey, "c" * 43, ttl=1)
    assert await pair.statuses("c" * 43) == {200}
    await asyncio.sleep(1.1)
    assert await pair.statuses("c" * 43) == {401}


async def test_who_signs_out_everywhere_can_be_signed_in_again_in_the_same_second(
    pair: Pair, valkey: Valkey
) -> None:
    for cookie in ("d" * 43, "e" * 43):
        write(valkey, cookie)
    async with asyncio.timeout(5):  # the store was emptied: a worker is back with its next beat
        while valkey.client.hlen("doorward:workers") < 1 + 4:
            await asyncio.sleep(0.02)
    signed_out = await pair.ask(
        "/.doorward/logout?everywhere=1", "POST", Cookie=f"doorward={'d' * 43}", Origin=pair.url
    )
    write(valkey, "f" * 43)
    told = await signed_out.json()
    assert (told["ended"], told["acknowledged"], told["of"]) == (2, 4, 4)
    assert await pair.statuses("d" * 43) == await pair.statuses("e" * 43) == {401}
    assert await pair.statuses("f" * 43) == {200}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 403),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://elsewhere.example", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Authorization": "Bearer anything"}, 200),
    ],
    ids=str,
)
async def test_only_the_gateways_own_pages_sign_out(
    pair: Pair, valkey: Valkey, fields: dict[str, str], status: int
) -> None:
    write(valkey, "g" * 43)
    answer = await pair.ask("/.doorward/logout", "POST", **fields, Cookie=f"doorward={'g' * 43}")
    assert answer.status == status
    assert ("X-Doorward-Error" in answer.headers) == (status == 403)
    assert await pair.statuses("g" * 43) == {401 if status == 200 else 200}


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("GET", "/x", {"Sec-Fetch-Mode": "navigate"}, 302),
        ("HEAD", "/x", {"Accept": "text/html"}, 302),
        ("GET", "/x", {"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, 401),
        ("POST", "/x", {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}, 401),
        ("GET", "/x", {"Accept": "*/*"}, 401),
        ("GET", "/api/x", {"Sec-Fetch-Mode": "navigate", "Accept": "text/html"}, 401),
        ("GET", "/.doorward/me", {}, 401),
        ("POST", "/.doorward/me", {}, 405),
        ("DELETE", "/.doorward/login", {}, 405),
        ("GET", "/.doorward/nothing", {}, 404),
        ("GET", "/dead", {}, 502),
    ],
)
async def test_every_answer_of_the_gateways_own_is_marked_and_of_the_promised_kind(
    pair: Pair, method: str, path: str, fields: dict[str, str], status: int
) -> None:
    answer = await pair.ask(path, method, **fields)
    assert answer.status == status
    assert answer.headers["X-Doorward-Error"]
    assert ("Location" in answer.headers) == (status == 302)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert ("Allow" in answer.headers) == (status == 405)
    if status == 401:
        assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "changed", "kind"),
    [
        ("/x", {}, "text/html"),
        ("/x", {"Cookie": "other=1"}, "application/problem+json"),
        ("/x", {"Origin": "http://other.example"}, "application/problem+json"),
        ("/x", {"Origin": "null"}, "application/problem+json"),
        ("/x", {"Accept": "*/*"}, "application/problem+json"),
        ("/x", {"Accept": "application/json, text/html;q=0.9"}, "application/problem+json"),
        ("/x", {"Content-Type": "application/json"}, "application/problem+json"),
        ("/x", {"Sec-Fetch-Mode": "cors"}, "application/problem+json"),
        ("/x", {"Sec-Fetch-Site": "same-site"}, "application/problem+json"),
        ("/api/x", {}, "application/problem+json"),
    ],
    ids=str,
)
async def test_only_to_a_form_of_our_own_page_is_a_401_a_page(
    pair: Pair, path: str, changed: dict[str, str], kind: str
) -> None:
    """Contract section 4 has no other: a person who sent it must read where it is (issue 6)."""
    fields = {
        "Origin": pair.url,
        "Cookie": f"doorward={'o' * 43}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    }
    answer = await pair.ask(path, "POST", data="note=1", **(fields | changed))
    assert (answer.status, answer.content_type) == (401, kind)
    assert answer.headers["X-Doorward-Error"] == "unauthenticated"
    assert "WWW-Authenticate" in answer.headers
    assert ("Set-Cookie" in answer.headers) == (kind == "text/html")


@pytest.mark.parametrize(
    "name",
    ["X-Auth-Subject", "x_auth_subject", "X.Auth.Subject", "X-Auth_Roles", "X_Auth_Assertion",
     "X-Forwarded-User", "X_Forwarded_For", "X-Forwarded-Prefix", "Forwarded", "X_Real_Ip",
     "X-Request_Id"],
)  # fmt: skip
async def test_a_clients_own_copy_never_arrives(pair: Pair, valkey: Valkey, name: str) -> None:
    write(valkey, "h" * 43)
    for cookie in ("", f"doorward={'h' * 43}"):
        async with pair.client.get(
            f"{pair.url}/optional/x", headers={name: "forged", "Cookie": cookie}
        ) as answer:
            assert answer.status == 200
            assert "forged" not in await answer.text()


async def test_the_assertion_says_what_was_promised_and_either_gateways_keys_prove_it(
    pair: Pair, valkey: Valkey
) -> None:
    members = {"tenant": "acme", "roles": ["a", "b"], "scopes": ["s"], "amr": ["pwd"]}
    name = write(valkey, "i" * 43, members)
    answer = await pair.ask(f"{pair.url}/x", Cookie=f"doorward={'i' * 43}")
    fields = sent_fields(await answer.text())
    keys = await (await pair.ask(f"{pair.gateways[1].url}/.doorward/jwks.json")).json(
        content_type=None
    )
    token = fields["x-auth-assertion"]
    key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["ES256"], audience="backend", issuer=pair.url)
    assert fields["x-auth-roles"] == "a,b"
    assert (claims["sub"], claims["tenant"], claims["sid"]) == ("u1", "acme", name)
    assert (claims["roles"], claims["scopes"], claims["amr"]) == (["a", "b"], ["s"], ["pwd"])
    assert 0 < claims["exp"] - claims["iat"] <= 60
    assert {"jti", "auth_time"} <= set(claims)


async def test_a_session_made_by_the_api_after_the_end_of_all_the_others_is_good(
    pair: Pair,
) -> None:
    api = f"{pair.admin_url}/api/sessions"
    for _ in range(2):
        async with pair.client.delete(f"{api}?subject=u9", headers=TOKEN) as ended:
            assert ended.status == 200
        record = {"v": 1, "subject": "u9", "created_at": int(time.time())}
        async with pair.client.post(api, headers=TOKEN, json=record) as created:
            cookie = (await created.json())["cookie"]
        assert await pair.statuses(cookie["value"]) == {200}


async def test_every_metric_has_our_prefix(pair: Pair) -> None:
    async with pair.client.get(f"{pair.admin_url}/metrics") as answer:
        samples = [line for line in (await answer.text()).splitlines() if not line.startswith("#")]
    assert len(samples) > 50
    assert all(line.startswith("doorward_") for line in samples)


LOG_KEYS = (
    *("time", "request_id", "method", "host", "path", "status", "duration_ms", "route"),
    *("upstream", "subject", "tenant", "auth", "decision", "reason", "generation"),
    *("bytes_in", "bytes_out", "remote", "error"),
)


async def test_a_line_of_the_access_log_has_the_promised_keys(pair: Pair) -> None:
    await pair.ask("/public/of-the-log?secret=1")
    log = pair.gateways[0].access_log
    async with asyncio.timeout(5):
        while "of-the-log" not in (log.read_text() if log.exists() else ""):
            await asyncio.sleep(0.05)
    lines = log.read_text().splitlines()
    assert all(tuple(json.loads(line)) == LOG_KEYS for line in lines)
    assert "secret" not in log.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--wrokers", "2"],
        ["sessions", "list", "--subject", "u", "--config", "store-out.yaml"],
        ["run", "--config", "nowhere.yaml"],
        ["run", "--config", "no-certificate.yaml"],
        ["explain", "GET"],
    ],
    ids=" ".join,
)
async def test_a_mistake_is_one_line_that_says_what_to_do(
    tmp_path: Path, arguments: list[str]
) -> None:
    text = ROUTES.format(store="redis://127.0.0.1:1", backend="http://127.0.0.1:1", dead=1)
    (tmp_path / "store-out.yaml").write_text(text)
    tls = "workers: 1, tls: {certificates: [{cert_file: a.pem, key_file: a.key}]}"
    (tmp_path / "no-certificate.yaml").write_text(text.replace("workers: 2", tls))
    (tmp_path / "a.key").write_text("")
    run = await asyncio.to_thread(
        subprocess.run,
        [str(DOORWARD), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
        timeout=60,
    )
    said = [line for line in run.stderr.splitlines() if not line.startswith("time=")]
    assert run.returncode in (1, 2)
    assert len(said) == 1
