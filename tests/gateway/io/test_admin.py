import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from auth.io.session_store import open_session_store
from config.model import Address, Admin, Configuration, Secret
from config.problem import Problem
from gateway.io.admin import AdminServer
from gateway.io.supervisor import RunSettings, Supervisor
from tests.conftest import Valkey
from tests.gateway.io.supervised import configuration, gateway, live

TOKEN = "an-admin-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def with_token(token: str | None) -> Configuration:
    admin = Admin(Address("127.0.0.1", 0), Secret(token) if token else None)
    return msgspec.structs.replace(configuration(workers=1), admin=admin)


class Outcome:
    """What the next reload finds."""

    loaded: Configuration | list[Problem] = with_token(TOKEN)


@asynccontextmanager
async def quiet_admin(directory: Path, valkey: Valkey) -> AsyncIterator[aiohttp.ClientSession]:
    """The admin address of a gateway whose workers have not been started."""
    supervisor = Supervisor(
        live(with_token(TOKEN)),
        RunSettings(file=directory / "routes.yaml", data_directory=directory),
        load=list,
        store_url=valkey.url,
        listeners=(),
    )
    async with serving(supervisor, valkey) as client:
        yield client


@asynccontextmanager
async def serving(supervisor: Supervisor, valkey: Valkey) -> AsyncIterator[aiohttp.ClientSession]:
    store = await open_session_store(valkey.url, configuration().session, worker=False)
    server = AdminServer(supervisor, store)
    address = await server.start(Address("127.0.0.1", 0))
    try:
        async with aiohttp.ClientSession(f"http://{address}") as client:
            yield client
    finally:
        await server.close()
        await store.close()


@asynccontextmanager
async def admin(
    directory: Path, valkey: Valkey, *, token: str | None = TOKEN
) -> AsyncIterator[tuple[aiohttp.ClientSession, Outcome]]:
    outcome = Outcome()
    outcome.loaded = with_token(token)
    async with gateway(directory, workers=1, load=lambda: outcome.loaded) as running:
        await running.supervisor.reloader.reload()
        async with serving(running.supervisor, valkey) as client:
            yield client, outcome


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_health_and_metrics_need_no_token_and_no_known_host(
    tmp_path: Path, valkey: Valkey, path: str
) -> None:
    async with admin(tmp_path, valkey, token=None) as (client, _):
        answer = await client.get(path, headers={"Host": "doorward-admin.default.svc:8081"})
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/api/status"),
        ("GET", "/api/routes"),
        ("GET", "/api/sessions?subject=u1"),
        ("POST", "/api/sessions"),
        ("DELETE", "/api/sessions?subject=u1"),
        ("POST", "/api/tokens/revoke"),
        ("POST", "/api/explain"),
        ("POST", "/api/reload"),
        ("GET", "/api/nothing"),
        ("GET", "//healthz"),
        ("GET", "/healthz/../api/status"),
        ("GET", "/healthz%2f..%2fapi/status"),
    ],
)
async def test_everything_else_needs_the_token(
    tmp_path: Path, valkey: Valkey, method: str, path: str
) -> None:
    async with quiet_admin(tmp_path, valkey) as client:
        url = URL(f"{client._base_url}".rstrip("/") + path, encoded=True)
        without = await client.request(method, url)
        assert without.status == 401
        assert without.content_type == "application/problem+json"
        assert "Bearer" in without.headers["WWW-Authenticate"]
        wrong = await client.request(method, url, headers={"Authorization": "Bearer no"})
        assert wrong.status == 401
        from_elsewhere = await client.request(
            method, url, headers={**BEARER, "Origin": "https://evil.example"}
        )
        assert from_elsewhere.status == 403


async def test_without_a_configured_token_the_api_is_closed_and_says_how_to_open_it(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with admin(tmp_path, valkey, token=None) as (client, _):
        answer = await client.get("/api/status", headers={"Authorization": "Bearer "})
        assert answer.status == 403
        assert "admin.token" in (await answer.json(content_type=None))["detail"]


async def test_readiness_follows_the_store_and_not_a_refused_file(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with admin(tmp_path, valkey) as (client, outcome):
        outcome.loaded = [Problem(1, 2, "no good")]
        refused = await client.post("/api/reload", headers=BEARER)
        assert refused.status == 422
        problem = await refused.json(content_type=None)
        assert problem["problems"] == [f"{tmp_path}/routes.yaml:1:2: no good"]
        ready = await client.get("/readyz")
        assert ready.status == 200
        assert (await ready.json())["config"]["last_reload_ok"] is False
        (tmp_path / "store-lost").touch()
        unready = await client.get("/readyz")
        assert unready.status == 503
        assert (await unready.json())["store"]["ok"] is False
        assert (await client.get("/healthz")).status == 200


async def test_a_reload_over_the_api_goes_live(tmp_path: Path, valkey: Valkey) -> None:
    async with admin(tmp_path, valkey) as (client, _):
        answer = await client.post("/api/reload", headers=BEARER)
        assert (answer.status, (await answer.json())["generation"]) == (200, 3)
        status = await (await client.get("/api/status", headers=BEARER)).json()
        assert status["generation"] == 3
        assert [worker["generation"] for worker in status["workers"]] == [3]
        assert status["store"]["ok"] is True
        assert status["lease"]["configured"] == 0.5


async def test_a_session_is_created_listed_and_ended(tmp_path: Path, valkey: Valkey) -> None:
    async with admin(tmp_path, valkey) as (client, _):
        body = {"subject": "u1", "roles": ["editor"], "expires_at": time.time() + 60}
        created = await client.post("/api/sessions", json=body, headers=BEARER)
        assert created.status == 201
        session = await created.json()
        assert session["cookie"]["name"] == "doorward"
        assert len(session["cookie"]["value"]) >= 22  # 128 bits
        listed = await client.get("/api/sessions?subject=u1", headers=BEARER)
        text = await listed.text()
        (found,) = (await listed.json())["sessions"]
        assert (found["id"], found["roles"]) == (session["id"], ["editor"])
        assert session["cookie"]["value"] not in text
        ended = await client.delete(f"/api/sessions?id={session['id']}", headers=BEARER)
        assert (await ended.json()).keys() == {"ended", "acknowledged", "of", "waited_ms"}
        assert (await ended.json())["ended"] == 1
        left = await client.get("/api/sessions?subject=u1", headers=BEARER)
        assert (await left.json())["sessions"] == []


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", ""),
        ("GET", "?subject="),
        ("GET", "?id=" + "0" * 64),
        ("DELETE", ""),
        ("DELETE", "?all=1"),
        ("DELETE", "?subject=u1&id=" + "0" * 64),
        ("DELETE", "?subject=u1&subject=u2"),
        ("DELETE", "?id=xyz"),
        ("DELETE", "?id=" + "A" * 64),
    ],
)
async def test_sessions_are_named_by_exactly_one_thing(
    tmp_path: Path, valkey: Valkey, method: str, query: str
) -> None:
    async with quiet_admin(tmp_path, valkey) as client:
        answer = await client.request(method, f"/api/sessions{query}", headers=BEARER)
        assert answer.status == 400
        assert answer.content_type == "application/problem+json"


async def test_a_record_that_is_none_creates_nothing(tmp_path: Path, valkey: Valkey) -> None:
    async with quiet_admin(tmp_path, valkey) as client:
        for body in (b"{}", b"nonsense", b'{"subject":"u1","sub":"u2"}'):
            answer = await client.post("/api/sessions", data=body, headers=BEARER)
            assert answer.status == 400
        large = await client.post("/api/sessions", data=b"x" * 70_000, headers=BEARER)
        assert large.status == 413
        assert not valkey.client.keys("doorward:session:*")


async def test_the_metrics_are_what_prometheus_reads(tmp_path: Path, valkey: Valkey) -> None:
    async with admin(tmp_path, valkey) as (client, _):
        text = await (await client.get("/metrics")).text()
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert samples["doorward_config_generation"] == 2
        assert samples["doorward_workers"] == 1
        assert samples["doorward_build_info"] == 1


async def test_explain_answers_as_the_pipeline_would(tmp_path: Path, valkey: Valkey) -> None:
    async with quiet_admin(tmp_path, valkey) as client:
        question = {"method": "GET", "url": "/x"}
        answer = await client.post("/api/explain", json=question, headers=BEARER)
        assert (await answer.json())["verdict"] == "allow"
        for fields in ({"X-Auth-Subject": "root"}, [["X-Auth-Subject", "root"]]):
            answer = await client.post(
                "/api/explain", json=question | {"headers": fields}, headers=BEARER
            )
            assert "root" not in json.dumps((await answer.json())["upstream_request"])
        wrong = await client.post("/api/explain", json={"metod": "GET"}, headers=BEARER)
        assert wrong.status == 400


async def test_the_dashboard_shows_routes_and_runs_nothing(tmp_path: Path, valkey: Valkey) -> None:
    async with admin(tmp_path, valkey) as (client, _):
        auth = {"Authorization": aiohttp.encode_basic_auth("operator", TOKEN)}
        page = await client.get("/", headers=auth)
        assert page.status == 200
        text = await page.text()
        assert "<td>notes</td>" in text
        assert TOKEN not in text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert page.headers["X-Frame-Options"] == "DENY"
        asked = await client.get("/")
        assert "Basic" in ", ".join(asked.headers.getall("WWW-Authenticate"))
        written = await client.post("/api/reload", headers=auth)
        assert written.status == 403


async def test_the_list_of_routes_is_in_matching_order(tmp_path: Path, valkey: Valkey) -> None:
    async with quiet_admin(tmp_path, valkey) as client:
        routes = (await (await client.get("/api/routes", headers=BEARER)).json())["routes"]
        assert [(route["id"], route["access"]["level"]) for route in routes] == [
            ("notes", "public")
        ]


async def test_a_wrong_method_says_which_are_right(tmp_path: Path, valkey: Valkey) -> None:
    async with quiet_admin(tmp_path, valkey) as client:
        answer = await client.delete("/api/status", headers=BEARER)
        assert answer.status == 405
        assert "GET" in answer.headers["Allow"]
