"""A provider that says what a test has it say: for what a real one never does."""

import asyncio
import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa

from auth.id_token import LOGOUT_EVENT
from config.model import Provider, Secret

SECRET = "its+secret/with:odd characters"
CODE = "the-code"
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class _Removed:
    def __repr__(self) -> str:
        return "REMOVED"


REMOVED = _Removed()
"""In place of a claim: it is left out."""


class LyingProvider:
    """Its answers, all of which a test may change."""

    def __init__(self, server: TestServer) -> None:
        self.issuer = str(server.make_url("")).rstrip("/")
        self.metadata: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end",
            "jwks_uri": f"{self.issuer}/jwks",
            "id_token_signing_alg_values_supported": ["RS256"],
            "authorization_response_iss_parameter_supported": True,
        }
        self.claims: dict[str, Any] = {}
        """What an ID token says other than usual."""
        self.userinfo: dict[str, Any] = {"sub": "ada", "name": "Ada"}
        self.id_token = ""
        """Sent instead of the usual one, if it is not empty."""
        self.statuses: dict[str, int] = {}
        """By path: answered instead of 200."""
        self.moved: dict[str, str] = {}
        """By path: redirected to there (307) instead."""
        self.bodies: dict[str, bytes] = {}
        """By path: sent instead of the usual content."""
        self.seen: list[tuple[str, dict[str, str], dict[str, str]]] = []
        """Path, fields and form of every request."""
        self.lifetime: float = 0.0
        """Seconds that access tokens live; then there are refresh tokens too, each for one use."""
        self.used: list[str] = []
        """Every refresh token that came, as often as it came."""
        self.signs_again = True
        """Whether a refresh brings an ID token."""
        self.asked: dict[str, str] = {}
        """The parameters of the authorization request."""
        self.pause = asyncio.Event()
        """Cleared: those of `waits` wait for it."""
        self.pause.set()
        self.waits = {"/token"}
        self.made = 0
        """Tokens of either kind."""

    def configured(self, **more: Any) -> Provider:
        """What a route file would say of it."""
        usual: dict[str, Any] = {"id": "corp", "label": "Example Corp", "namespace": "corp"}
        rest = {"issuer": self.issuer, "client_id": "gateway", "client_secret": Secret(SECRET)}
        return Provider(**usual | rest | more)

    def authorize(self, location: str) -> dict[str, str]:
        """Take the browser that comes to *location*; return the query it goes back with."""
        self.asked = dict(parse_qsl(urlsplit(location).query))
        return {"code": CODE, "state": self.asked["state"], "iss": self.issuer}

    def signed(self, claims: dict[str, Any], *, key: Any = _KEY, **header: Any) -> str:
        """Return a token with those of *claims* that are not `REMOVED`."""
        kept = {name: value for name, value in claims.items() if value is not REMOVED}
        return jwt.encode(kept, key, algorithm="RS256", headers={"kid": "1"} | header)

    def usual_claims(self) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.issuer,
            "aud": "gateway",
            "sub": "ada",
            "sid": "session-1",
            "iat": now,
            "exp": now + 300,
            "nonce": self.asked.get("nonce", ""),
        }

    def logout_token(self, *, key: Any = _KEY, typ: str = "logout+jwt", **claims: Any) -> str:
        """Return a logout token that says what *claims* says, and the usual otherwise."""
        now = int(time.time())
        usual = {
            "iss": self.issuer,
            "aud": "gateway",
            "iat": now,
            "exp": now + 120,
            "jti": urlsafe_b64encode(
                hashlib.sha256(str(time.time_ns()).encode()).digest()
            ).decode(),
            "sid": "session-1",
            "events": {LOGOUT_EVENT: {}},
        }
        return self.signed(usual | claims, key=key, typ=typ)

    async def handle(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        fields = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.path, fields, form))
        if "refresh_token" in form:
            self.used.append(form["refresh_token"])
        if request.path in self.waits:
            await self.pause.wait()
        usual = {
            "/.well-known/openid-configuration": self.metadata,
            "/jwks": {"keys": [self._jwk()]},
            "/moved": self.metadata,
            "/userinfo": self.userinfo,
            "/token": self._tokens(form) if request.path == "/token" else {},
        }
        status = self.statuses.get(request.path, 200)
        if request.path in self.moved:
            return web.Response(status=307, headers={"Location": self.moved[request.path]})
        if request.path in self.bodies:
            return web.Response(status=status, body=self.bodies[request.path])
        return web.json_response(usual[request.path], status=status)

    def _tokens(self, form: dict[str, str]) -> dict[str, Any]:
        tokens: dict[str, Any] = {"access_token": "an-access-token", "token_type": "Bearer"}
        refreshes = form["grant_type"] == "refresh_token"
        if self.signs_again or not refreshes:
            claims = self.usual_claims() | ({"nonce": REMOVED} if refreshes else {})
            tokens["id_token"] = self.id_token or self.signed(claims | self.claims)
        if self.lifetime:
            self.made += 1
            tokens |= {
                "access_token": f"an-access-token-{self.made}",
                "refresh_token": f"a-refresh-token-{self.made}",
                "expires_in": self.lifetime,
            }
        return tokens

    def _jwk(self) -> dict[str, Any]:
        jwk: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(_KEY.public_key(), as_dict=True)
        return jwk | {"kid": "1", "use": "sig", "alg": "RS256"}


@asynccontextmanager
async def lying_provider() -> AsyncIterator[LyingProvider]:
    """Run one on loopback."""
    app = web.Application(client_max_size=1 << 22)
    server = TestServer(app)
    provider: LyingProvider | None = None

    async def handle(request: web.Request) -> web.Response:
        assert provider is not None
        return await provider.handle(request)

    app.router.add_route("*", "/{tail:.*}", handle)
    await server.start_server()
    provider = LyingProvider(server)
    try:
        yield provider
    finally:
        provider.pause.set()
        await server.close()
