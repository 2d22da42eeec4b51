"""Bearer tokens through a running gateway: what the client, the backend and the log are told."""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from time import time
from typing import Any, NamedTuple

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from auth.authentication import Authenticator
from auth.decision import Reason
from auth.io.token_verifier import JwtVerifier
from auth.keys import public_jwk
from config.model import AccessRule, TokenIssuer
from tests.gateway.io.harness import (
    ALL,
    SIGNED_IN,
    Gateway,
    Message,
    Upstreams,
    configuration,
    gateway,
    one_upstream,
    route,
    upstream,
)

pytestmark = pytest.mark.wire

KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = "https://idp.example.com"
SCOPED = route(
    "scoped", "/scoped", access=AccessRule("signed-in", scopes=frozenset({"video.write"}))
)
ROUTES = (ALL, SCOPED, route("private", "/private", access=SIGNED_IN))


class Bench(NamedTuple):
    gateway: Gateway
    backend: Upstreams

    async def ask(self, path: str, *fields: str) -> Message:
        lines = "".join(f"{field}\r\n" for field in fields)
        request = f"GET {path} HTTP/1.1\r\nHost: app.example.com\r\n{lines}\r\n"
        return await self.gateway.ask(request.encode("latin-1"))

    @property
    def forwarded(self) -> str:
        return self.backend.requests[-1].decode("latin-1")

    @property
    def reason(self) -> str:
        return self.gateway.events[-1].reason


def token(key: ec.EllipticCurvePrivateKey = KEY, **changes: Any) -> str:
    now = int(time())
    claims = {"iss": ISSUER, "aud": "gw", "sub": "robot", "iat": now, "exp": now + 60, **changes}
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "k"})


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps({"keys": [{**public_jwk(KEY), "kid": "k"}]}))
    issuer = TokenIssuer(ISSUER, ("gw",), ("ES256",), jwks_file=str(jwks))
    verifier = JwtVerifier((issuer,))
    async with upstream() as backend:
        settings = configuration(one_upstream(backend), ROUTES)
        settings = msgspec.structs.replace(settings, tokens=(issuer,))
        async with gateway(settings) as running:
            name = settings.session.cookie_name
            authenticator = Authenticator(running.sessions, verifier, cookie_name=name)
            state = msgspec.structs.replace(running.state, authenticator=authenticator)
            running.server.replace_snapshot(state)
            yield Bench(running, backend)
    await verifier.close()


async def test_a_good_token_passes_and_ends_here(bench: Bench) -> None:
    for _ in range(2):  # verified, then remembered
        answer = await bench.ask("/private", f"Authorization: Bearer {token()}")
        assert answer.status == 200
        assert "X-Auth-Subject: robot\r\n" in bench.forwarded
        assert "X-Auth-Method: bearer\r\n" in bench.forwarded
        assert "authorization" not in bench.forwarded.lower()
    assert bench.gateway.events[-1].auth == "bearer"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (partial(token, exp=1000), Reason.TOKEN_EXPIRED),
        (partial(token, aud="other"), Reason.TOKEN_AUDIENCE),
        (partial(token, ec.generate_private_key(ec.SECP256R1())), Reason.TOKEN_SIGNATURE),
        (partial(token, iss="https://evil.example"), Reason.TOKEN_ISSUER_UNKNOWN),
        (lambda: "junk", Reason.TOKEN_MALFORMED),
        (
            lambda: jwt.encode({"iss": ISSUER}, "", algorithm="none"),
            Reason.TOKEN_MALFORMED,
        ),
    ],
    ids=["expired", "audience", "signature", "issuer", "junk", "unsigned"],
)
async def test_a_refusal_says_why_in_the_log_and_nowhere_else(
    bench: Bench, make: Callable[[], str], reason: Reason
) -> None:
    bad = make()  # now: made when the tests were collected it could be over by its turn
    answer = await bench.ask("/private", f"Authorization: Bearer {bad}")
    assert answer.status == 401
    assert b'WWW-Authenticate: Bearer realm="doorward", error="invalid_token"' in answer.head
    assert bench.reason == reason
    assert bench.backend.requests == []
    said = (answer.head + answer.content).decode("latin-1")
    assert reason.value not in said
    assert bad not in said


async def test_a_token_with_a_missing_scope_is_refused_for_good(bench: Bench) -> None:
    few, enough = token(scope="video.read"), token(scope="video.read video.write")
    assert (await bench.ask("/scoped", f"Authorization: Bearer {few}")).status == 403
    assert bench.reason == Reason.SCOPE_MISSING
    assert (await bench.ask("/scoped", f"Authorization: Bearer {enough}")).status == 200


async def test_a_cookie_and_a_token_must_name_the_same_subject(bench: Bench) -> None:
    mine = bench.gateway.sessions.sign_in("robot")
    other = bench.gateway.sessions.sign_in("alice")
    bearer = f"Authorization: Bearer {token()}"
    assert (await bench.ask("/private", f"Cookie: doorward={mine}", bearer)).status == 200
    assert (await bench.ask("/private", f"Cookie: doorward={other}", bearer)).status == 401
    assert bench.reason == Reason.CREDENTIALS_CONFLICT


async def test_another_scheme_belongs_to_the_backend(bench: Bench) -> None:
    cookie = bench.gateway.sessions.sign_in("alice")
    basic = "Authorization: Basic YTpi"
    assert (await bench.ask("/private", f"Cookie: doorward={cookie}", basic)).status == 200
    assert f"{basic}\r\n" in bench.forwarded


async def test_a_token_on_a_public_route_ends_here_too(bench: Bench) -> None:
    assert (await bench.ask("/anything", f"Authorization: bearer {token()}")).status == 200
    assert "authorization" not in bench.forwarded.lower()


async def test_without_issuers_a_token_belongs_to_the_backend() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), ROUTES)) as running,
    ):
        bench = Bench(running, backend)
        assert (await bench.ask("/anything", "Authorization: Bearer theirs")).status == 200
        assert "Authorization: Bearer theirs\r\n" in bench.forwarded
        cookie = running.sessions.sign_in("alice")
        fields = (f"Cookie: doorward={cookie}", "Authorization: Bearer theirs")
        assert (await bench.ask("/private", *fields)).status == 200
        assert "Authorization: Bearer theirs\r\n" in bench.forwarded
        assert (await bench.ask("/private", "Authorization: Bearer theirs")).status == 401
        assert bench.reason == Reason.NO_CREDENTIAL
