"""A double of GitHub, as a server of one's own has it, by what its documentation says.

Without OpenID Connect: no discovery, no ID token, no `iss`; refusals come with status 200, people
are numbered, and addresses are at a place of their own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from aiohttp.test_utils import TestServer

from config.model import Provider, Secret

SECRET = "its-secret"
CODE = "the-code"


class GitHub:
    """Its answers, which a test may change."""

    def __init__(self, server: TestServer) -> None:
        self.issuer = str(server.make_url("")).rstrip("/")
        self.user: dict[str, Any] = {
            "id": 583231,
            "login": "octocat",
            "name": "The Octocat",
            "email": "whatever-they-like@example.com",
        }
        self.emails: list[dict[str, Any]] | int = [
            {"email": "old@example.com", "primary": False, "verified": True},
            {"email": "octocat@example.com", "primary": True, "verified": True},
        ]
        """Or the status with which they are refused."""
        self.error = ""
        self.forms: list[dict[str, str]] = []

    def configured(self, **more: Any) -> Provider:
        """What a route file would say of it."""
        usual: dict[str, Any] = {"id": "github", "label": "GitHub", "namespace": "github"}
        usual |= {"own_callback": True, "scopes": ("read:user", "user:email")}
        rest = {"issuer": self.issuer, "client_id": "gateway", "client_secret": Secret(SECRET)}
        return Provider(**usual | rest | {"protocol": "github"} | more)

    def authorize(self, location: str) -> dict[str, str]:
        """Take the browser that comes to *location*; return the query it goes back with."""
        assert location.startswith(f"{self.issuer}/login/oauth/authorize?")
        asked = dict(parse_qsl(urlsplit(location).query))
        assert asked["code_challenge_method"] == "S256"
        return {"code": CODE, "state": asked["state"]}

    async def token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        assert request.headers["Accept"] == "application/json"  # else it answers with a form
        if self.error or form["code"] != CODE or form["client_secret"] != SECRET:
            return web.json_response({"error": self.error or "bad_verification_code"})
        scope = "read:user,user:email"
        return web.json_response({"access_token": "gho_1", "token_type": "bearer", "scope": scope})

    async def api(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer gho_1"
        assert request.headers["User-Agent"]  # it refuses requests without
        if request.path.endswith("/emails"):
            if isinstance(self.emails, int):
                return web.json_response({"message": "Not Found"}, status=self.emails)
            return web.json_response(self.emails)
        return web.json_response(self.user)


@asynccontextmanager
async def github() -> AsyncIterator[GitHub]:
    """Run one on loopback."""
    app = web.Application()
    server = TestServer(app)
    double: GitHub | None = None

    async def token(request: web.Request) -> web.Response:
        assert double is not None
        return await double.token(request)

    async def api(request: web.Request) -> web.Response:
        assert double is not None
        return await double.api(request)

    app.router.add_post("/login/oauth/access_token", token)
    app.router.add_get("/api/v3/user", api)
    app.router.add_get("/api/v3/user/emails", api)
    await server.start_server()
    double = GitHub(server)
    try:
        yield double
    finally:
        await server.close()
