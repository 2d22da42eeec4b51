"""The admin address: health, readiness, metrics, and the API behind the admin token.

It runs in the supervisor, on a listener of its own, so that it answers when the workers are busy.
`docs/operations.md` has every answer.
"""

import logging
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from auth.identity import ABSENT, Authenticated, Caller, Identity
from auth.ports import SessionStore, TokenRevocations
from config.model import Address, Configuration, Route
from gateway.admin_access import AdminRequest, refusal_of
from gateway.admin_page import render_dashboard
from gateway.explain import explain
from gateway.io.admin_answers import Handler, answer_errors, json_answer, problem_answer
from gateway.io.admin_sessions import add_session_routes
from gateway.io.admin_tokens import add_token_routes
from gateway.io.build import COMPILED
from gateway.io.listening import address_of, listening_sockets
from gateway.io.metrics import Measurement, MeasurementCollector, key
from gateway.io.supervisor import Supervisor

_log = logging.getLogger(__name__)

BODY_LIMIT = 64 * 1024
"""Bytes; the largest thing that is sent here is a session record."""


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /api/explain` is asked: a request, and who would send it."""

    method: str
    url: str
    """Absolute, or a path on the host of `public_url`."""
    subject: str | None = None
    """None: nobody is signed in."""
    tenant: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    acr: str = ""
    claims: Mapping[str, object] = {}
    headers: Mapping[str, str] | tuple[tuple[str, str], ...] = ()
    """A mapping, or pairs where a name comes more than once."""


_decode_question = msgspec.json.Decoder(Question).decode


class AdminStore(SessionStore, TokenRevocations, Protocol):
    """What is administered."""


class AdminServer:
    """Answers on the admin address for *supervisor*, with sessions from *store*."""

    def __init__(self, supervisor: Supervisor, store: AdminStore) -> None:
        self._supervisor = supervisor
        self._store = store
        self._runner: web.AppRunner | None = None

    async def start(self, address: Address) -> Address:
        """Listen on *address*; return where, with the real port.

        Raises:
            gateway.io.listening.CannotListenError: the address is not to be had.
        """
        (listener,) = listening_sockets(address, 1, setting="admin.listen")
        self._runner = web.AppRunner(self._application(), access_log=None, keepalive_timeout=75)
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        return address_of(listener)

    async def close(self) -> None:
        """Stop listening and let running requests end."""
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def _configuration(self) -> Configuration:
        return self._supervisor.reloader.live.configuration

    def _application(self) -> web.Application:
        application = web.Application(
            middlewares=[answer_errors, self._guard], client_max_size=BODY_LIMIT
        )
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/", self._dashboard),
                web.get("/api/status", self._status),
                web.get("/api/routes", self._routes),
                web.post("/api/reload", self._reload),
                web.post("/api/explain", self._explain),
            ]
        )
        add_session_routes(application, self._store, lambda: self._configuration.session)
        add_token_routes(application, self._store, lambda: self._configuration)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in ("/healthz", "/readyz", "/metrics"):
            return await handler(request)
        fields = request.headers
        refusal = refusal_of(
            AdminRequest(
                method=request.method,
                path=request.path,
                host=fields.get("Host", ""),
                authorization=fields.get("Authorization", ""),
                origin=fields.get("Origin", ""),
                sec_fetch_site=fields.get("Sec-Fetch-Site", ""),
                sec_fetch_mode=fields.get("Sec-Fetch-Mode", ""),
            ),
            self._configuration.admin,
        )
        if refusal is None:
            return await handler(request)
        _log.warning("admin request from %s refused: %s", request.remote, refusal.detail)
        title = "Unauthorized" if refusal.status == 401 else "Forbidden"
        answer = problem_answer(refusal.status, title, refusal.detail)
        for challenge in refusal.challenges:
            answer.headers.add("WWW-Authenticate", challenge)
        return answer

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        supervisor = self._supervisor
        numbers = (await supervisor.measure()).numbers
        last = supervisor.reloader.last
        components: dict[str, dict[str, object]] = {
            "workers": {
                "ok": bool(supervisor.serving) and not supervisor.draining,
                "serving": len(supervisor.serving),
                "of": supervisor.slots,
                "draining": supervisor.draining,
            },
            "store": _store_state(numbers),
            # A file that was refused changes nothing: the generation before it goes on serving.
            "config": {
                "ok": True,
                "generation": supervisor.reloader.live.generation,
                "last_reload_ok": not last.problems,
            },
        }
        ready = all(component["ok"] for component in components.values())
        return json_answer({"ready": ready, **components}, status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        measurement = await self._supervisor.measure()
        measurement.numbers[build_info_key()] = 1.0
        return exposition(measurement, request.headers.get("Accept", ""))

    async def _dashboard(self, _request: web.Request) -> web.Response:
        status = await self._describe()
        page, policy = render_dashboard(status, self._routes_in_order())
        return web.Response(
            body=page,
            content_type="text/html",
            charset="utf-8",
            headers={"Content-Security-Policy": policy},
        )

    async def _status(self, _request: web.Request) -> web.Response:
        return json_answer(await self._describe())

    async def _describe(self) -> dict[str, object]:
        supervisor = self._supervisor
        reloader = supervisor.reloader
        numbers = (await supervisor.measure()).numbers
        return {
            "version": version("doorward"),
            "compiled": COMPILED,
            "generation": reloader.live.generation,
            "file": str(supervisor.settings.file),
            "started_at": round(supervisor.started_at, 3),
            "draining": supervisor.draining,
            "reload": {
                "at": round(reloader.last_at, 3),
                "ok": not reloader.last.problems,
                "problems": reloader.last.problems,
                "restart_needed": reloader.last.restart_needed,
            },
            "workers": [
                {
                    "slot": worker.slot,
                    "process": worker.pid,
                    "generation": worker.generation,
                    "alive": worker.alive,
                    "responsive": worker.responsive,
                    "uptime": round(time.monotonic() - worker.started_at, 1),
                }
                for worker in supervisor.workers
            ],
            "worker_restarts": supervisor.restarts,
            "store": _store_state(numbers),
            "lease": {
                "configured": self._configuration.session.lease,
                "age": round(numbers.get("lease_age_seconds", 0.0), 4),
            },
        }

    async def _routes(self, _request: web.Request) -> web.Response:
        return json_answer({"routes": self._routes_in_order()})

    def _routes_in_order(self) -> list[Route]:
        table = self._supervisor.reloader.live.snapshot.table
        return [compiled.route for compiled in table.in_matching_order()]

    async def _reload(self, _request: web.Request) -> web.Response:
        outcome = await self._supervisor.reloader.reload()
        if outcome.problems:
            return problem_answer(
                422,
                "Configuration Refused",
                f"The file has problems; generation {outcome.generation} stays in force.",
                generation=outcome.generation,
                problems=outcome.problems,
            )
        return json_answer(outcome)

    async def _explain(self, request: web.Request) -> web.Response:
        try:
            question = _decode_question(await request.read())
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise web.HTTPBadRequest(text=f"This is no question: {error}.") from error
        caller: Caller = ABSENT
        if question.subject is not None:
            caller = Authenticated(
                Identity(
                    subject=question.subject,
                    tenant=question.tenant,
                    roles=question.roles,
                    groups=question.groups,
                    scopes=question.scopes,
                    acr=question.acr,
                    claims=question.claims,
                )
            )
        fields = question.headers
        explanation = explain(
            self._supervisor.reloader.live.snapshot,
            question.method,
            question.url,
            caller=caller,
            fields=fields if isinstance(fields, tuple) else tuple(fields.items()),
        )
        return json_answer(explanation)


def build_info_key() -> str:
    """Return the key of the sample that says what is running."""
    return key("build_info", version("doorward"), platform.python_version(), aiohttp.__version__)


def exposition(measurement: Measurement, accept: str) -> web.Response:
    """Return *measurement* in the format that the scraper prefers."""
    registry = CollectorRegistry()
    registry.register(MeasurementCollector(measurement))
    encode, content_type = choose_encoder(accept)
    return web.Response(body=encode(registry), headers={"Content-Type": content_type})


def _store_state(numbers: dict[str, float]) -> dict[str, object]:
    """A store that no worker has a lease on: whatever is protected answers 503 here."""
    connected = int(numbers.get("store_connected", 0.0))
    return {"ok": connected > 0, "connected_workers": connected}
