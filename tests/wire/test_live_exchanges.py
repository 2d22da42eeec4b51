"""What goes on for a while ends with the right to it: its session, its token, its route's rule."""

import asyncio
from collections.abc import Sequence
from time import time

import pytest
from msgspec.structs import replace

from auth.authentication import Authenticator
from auth.identity import Authenticated, Caller, Identity
from auth.revocation import TokenRef, token_ref
from auth.session import digest
from config.model import AccessRule, Route, TokenIssuer
from tests.gateway.io.harness import (
    ALL,
    PRIVATE,
    Gateway,
    RawClient,
    configuration,
    gateway,
    one_upstream,
    route,
    snapshot_of,
    upstream,
)
from tests.gateway.io.test_server import Streaming, with_cookie

pytestmark = pytest.mark.wire


async def streams_of(running: Gateway, *requests: bytes) -> list[RawClient]:
    """Return clients whose answers have begun and go on."""
    clients = []
    for request in requests:
        client = await running.connect()
        await client.send(request)
        await client.reader.readuntil(b"x\r\n")
        clients.append(client)
    return clients


def expire(running: Gateway, cookie: str, *, after: float) -> None:
    """Have the session end by itself in *after* seconds."""
    records = running.sessions.records
    records[digest(cookie)] = replace(records[digest(cookie)], expires_at=time() + after)


async def test_a_stream_is_cut_when_its_session_expires() -> None:
    async with (
        upstream(Streaming()) as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        brief, long = running.sessions.sign_in("u1"), running.sessions.sign_in("u2")
        expire(running, brief, after=0.3)
        expiring, staying = await streams_of(
            running, with_cookie(b"/private/x", brief), with_cookie(b"/private/x", long)
        )

        assert not await expiring.at_end(0.1)
        assert await expiring.at_end(0.3)
        assert running.events[-1].error == "session_expired"
        assert not await staying.at_end(0.1)


async def test_an_upload_is_cut_when_its_session_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.io.exchange.ENDED_SESSION_SECONDS", 0.1)

    async def take(backend: object, reader: asyncio.StreamReader, writer: object) -> None:
        await reader.read()

    async with (
        upstream(take) as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        expire(running, cookie, after=0.2)
        client = await running.connect()
        begun = with_cookie(b"/private/x", cookie).replace(b"GET", b"POST", 1)
        await client.send(begun.replace(b"\r\n\r\n", b"\r\nContent-Length: 100\r\n\r\nbegun"))

        assert not await client.at_end(0.1)
        assert await client.at_end(0.5)
        assert running.events[-1].error == "session_expired"


async def test_a_stream_that_has_ended_is_watched_no_more() -> None:
    streaming = Streaming()
    async with (
        upstream(streaming) as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        (client,) = await streams_of(running, with_cookie(b"/private/x", cookie))
        (exchange,) = running.server._serving.exchanges
        assert exchange._expiry is not None
        assert not exchange._expiry.cancelled()
        streaming.end = True
        streaming.more.set()
        await client.reader.readuntil(b"0\r\n\r\n")
        assert exchange._expiry.cancelled()


async def test_a_short_answer_leaves_no_timer_behind() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        expire(running, cookie, after=0.2)
        client = await running.connect()
        await client.send(with_cookie(b"/private/x", cookie))
        assert (await client.receive()).complete
        await asyncio.sleep(0.25)

        assert [event.error for event in running.events] == [""]
        assert not await client.at_end(0.05)


@pytest.mark.parametrize(
    ("routes", "goes_on"),
    [
        ([PRIVATE], True),
        ([route("private", "/private/*", access=AccessRule("signed-in", frozenset({"r"})))], False),
        ([route("private", "/private/*")], True),
        ([route("other", "/other/*")], False),
        ([route("private", "/private/*", methods=("POST",), access=PRIVATE.access)], False),
    ],
    ids=["unchanged", "asks for a role", "public by now", "no route any more", "another method"],
)
async def test_a_reload_ends_what_it_would_not_let_in(
    routes: Sequence[Route],
    goes_on: bool,  # noqa: FBT001 - a table's column
) -> None:
    async with (
        upstream(Streaming()) as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        (client,) = await streams_of(running, with_cookie(b"/private/x", cookie))
        snapshot = snapshot_of(configuration(one_upstream(backend), routes), generation=2)
        running.server.replace_snapshot(replace(running.state, snapshot=snapshot))

        assert await client.at_end(0.2) is not goes_on
        if not goes_on:
            assert running.events[-1].error == "access_revoked"


@pytest.mark.parametrize(
    ("silent_for", "serve_cached", "goes_on"),
    [(4.9, 0.0, True), (5.1, 0.0, False), (59.0, 60.0, True), (61.0, 60.0, False)],
    ids=["a restart", "too long", "a patient route", "too long for that one too"],
)
async def test_a_stream_ends_when_nobody_can_say_whether_its_session_lives(
    silent_for: float,
    serve_cached: float,
    goes_on: bool,  # noqa: FBT001 - a table's column
) -> None:
    routes = [replace(PRIVATE, serve_cached=serve_cached), ALL]
    async with (
        upstream(Streaming()) as backend,
        gateway(configuration(one_upstream(backend), routes)) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        client, nobodys = await streams_of(
            running, with_cookie(b"/private/x", cookie), with_cookie(b"/public", cookie)
        )
        running.server.watch_store(lambda _: silent_for)
        running.server.sweep(asyncio.get_running_loop().time())

        assert await client.at_end(0.2) is not goes_on
        assert not await nobodys.at_end(0.05)
        if not goes_on:
            assert running.events[-1].error == "store_unavailable"


class OneToken:
    """Knows one bearer token."""

    def __init__(self, identity: Identity) -> None:
        self.caller = Authenticated(identity)

    def peek(self, token: str) -> Caller:
        return self.caller

    async def verify(self, token: str, *, serve_cached: float = 0.0) -> Caller:
        return self.caller


@pytest.mark.parametrize("ending", ["revoked", "expired", "another's", "all sessions"])
async def test_a_stream_of_a_bearer_token_ends_with_the_token_alone(ending: str) -> None:
    issuer = TokenIssuer("https://idp.example", ("api",), ("ES256",), jwks_file="none.json")
    expires_at = time() + (0.2 if ending == "expired" else 60)

    def named(jti: str) -> TokenRef:
        return token_ref(
            issuer=issuer.issuer, subject="u1", jti=jti, issued_at=time(), expires_at=expires_at
        )

    identity = Identity(
        "u1", method="bearer", issuer=issuer.issuer, token=named("t1"), expires_at=expires_at
    )
    async with upstream(Streaming()) as backend:
        settings = replace(configuration(one_upstream(backend), [PRIVATE]), tokens=(issuer,))
        async with gateway(settings) as running:
            authenticator = Authenticator(
                running.sessions,
                OneToken(identity),
                cookie_name="doorward",
            )
            running.server.replace_snapshot(replace(running.state, authenticator=authenticator))
            request = b"GET /private/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a.b.c\r\n\r\n"
            (client,) = await streams_of(running, request)
            assert running.server.live_tokens() == [identity.token]
            assert running.server.live_sessions() == set()
            if ending == "all sessions":
                running.server.close_sessions(None)
            elif ending != "expired":
                revoked = named("t1" if ending == "revoked" else "t2")
                running.server.close_sessions({revoked.name})

            assert await client.at_end(0.4) is (ending in ("revoked", "expired"))
