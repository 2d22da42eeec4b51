import asyncio
import json
from ipaddress import ip_network

import jwt
import msgspec
import pytest

from auth.decision import Reason
from auth.identity import Absent, Authenticated
from auth.ports import AccessTokenGone, AuthUnavailable
from tests.gateway.io.harness import (
    ALL,
    PRIVATE,
    SIGNED_IN,
    configuration,
    gateway,
    one_upstream,
    route,
    snapshot_of,
    upstream,
)

pytestmark = pytest.mark.wire

LOOPBACK = (ip_network("127.0.0.0/8"),)


def get(path: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    lines = b"".join(field + b"\r\n" for field in (b"Host: a", *fields))
    return b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, lines)


def form(path: bytes, content: bytes, *fields: bytes) -> bytes:
    return (
        get(
            path,
            b"Content-Type: application/x-www-form-urlencoded",
            b"Content-Length: %d" % len(content),
            *fields,
            method=b"POST",
        )
        + content
    )


async def test_me_says_who_the_caller_is() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        cookie = running.sessions.sign_in("u1", name="Ada", roles=("member",), cached=False)
        answer = await running.ask(get(b"/.doorward/me", b"Cookie: doorward=" + cookie.encode()))

        assert answer.status == 200
        assert answer.fields["cache-control"] == "no-store"
        me = json.loads(answer.content)
        assert (me["subject"], me["name"], me["roles"]) == ("u1", "Ada", ["member"])
        assert cookie not in answer.content.decode()
        assert backend.connections == 0
        assert running.events[-1].subject == "u1"


@pytest.mark.parametrize("cookie", [b"", b"Cookie: doorward=nobody-knows-this-0123456789"])
async def test_me_is_401_without_an_identity(cookie: bytes) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        fields = [b"Accept: text/html", *([cookie] if cookie else [])]
        answer = await running.ask(get(b"/.doorward/me", *fields))

        assert answer.status == 401
        assert "www-authenticate" in answer.fields


async def test_me_is_503_when_the_store_is_out() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        cookie = running.sessions.sign_in("u1", cached=False)
        running.sessions.out = True
        answer = await running.ask(get(b"/.doorward/me", b"Cookie: doorward=" + cookie.encode()))

        assert answer.status == 503
        assert "retry-after" in answer.fields
        assert "set-cookie" not in answer.fields


async def test_the_published_keys_verify_the_assertion_that_upstreams_get() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1", roles=("member",))
        keys = jwt.PyJWKSet.from_json(
            (await running.ask(get(b"/.doorward/jwks.json"))).content.decode()
        )
        await running.ask(get(b"/private/x", b"Cookie: doorward=" + cookie.encode()))

        assertion = backend.requests[0].partition(b"X-Auth-Assertion: ")[2].partition(b"\r\n")[0]
        claims = jwt.decode(
            assertion,
            keys.keys[0].key,
            algorithms=["ES256"],
            audience="app",
            issuer="http://127.0.0.1:8080",
        )
        assert claims["sub"] == "u1"
        assert claims["roles"] == ["member"]


@pytest.mark.parametrize("path", [b"/.doorward/me", b"/.doorward/jwks.json"])
async def test_what_is_only_read_takes_no_other_method(path: bytes) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        answer = await running.ask(get(path, method=b"DELETE"))

        assert answer.status == 405
        assert answer.fields["allow"] == "GET, HEAD"
        head = await running.ask(get(path, method=b"HEAD"))
        assert head.content == b""
        assert int(head.fields["content-length"]) > 0


@pytest.mark.parametrize(
    "path",
    [b"/.doorward", b"/.doorward/", b"/.doorward/me/", b"/.doorward/auth/x", b"/.doorward/x"],
)
async def test_anything_else_below_the_prefix_is_404_and_never_routed(path: bytes) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        assert (await running.ask(get(path))).status == 404
        assert backend.connections == 0


# The login service ------------------------------------------------------------------------------


async def test_the_login_service_gets_plain_values() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        answer = await running.ask(
            form(
                b"/.doorward/login?return_to=%2Fnotes",
                b"username=ada&password=p%26w+d%C3%A9&empty=",
                b"Cookie: doorward=unknown-unknown-0123; csrf=1; twice=1; twice=2",
                b"Origin: http://a",
            )
        )

        assert answer.content == b"/.doorward/login"
        (asked,) = running.login.asked
        assert asked.method == "POST"
        assert asked.query == {"return_to": "/notes"}
        assert asked.form == {"username": "ada", "password": "p&w dé", "empty": ""}
        assert asked.cookies == {"doorward": "unknown-unknown-0123", "csrf": "1"}
        assert asked.fields["origin"] == "http://a"
        assert asked.client_address == "127.0.0.1"
        assert asked.origin == "http://a"
        assert running.events[-1].bytes_in > 0


@pytest.mark.parametrize("signed_in", [True, False])
async def test_the_login_service_is_told_who_asks(*, signed_in: bool) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        fields = [b"Cookie: doorward=" + cookie.encode()] if signed_in else []
        await running.ask(get(b"/.doorward/sessions", *fields))

        assert isinstance(running.login.asked[0].caller, Authenticated if signed_in else Absent)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (form(b"/.doorward/login", b"x=" + b"y" * 70_000), 413),
        (
            get(
                b"/.doorward/login",
                b"Content-Type: application/x-www-form-urlencoded",
                b"Transfer-Encoding: chunked",
                method=b"POST",
            )
            + b"11170\r\n"
            + b"x" * 70_000
            + b"\r\n0\r\n\r\n",
            413,
        ),
        (form(b"/.doorward/login", b"a=1&a=2"), 400),
        (form(b"/.doorward/login", b"a=%ff"), 400),
        (form(b"/.doorward/login", b"&".join(b"f%d=1" % n for n in range(100))), 400),
        (get(b"/.doorward/login?a=1&a=2"), 400),
    ],
    ids=["big", "big-chunked", "twice", "not-utf8", "many", "query-twice"],
)
async def test_a_form_beyond_its_bounds_is_refused(request_: bytes, status: int) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        assert (await running.ask(request_)).status == status
        assert running.login.asked == []


async def test_content_of_another_type_is_no_form() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        content = b'{"username":"ada"}'
        await running.ask(
            get(
                b"/.doorward/login",
                b"Content-Type: application/json",
                b"Content-Length: %d" % len(content),
                method=b"POST",
            )
            + content
        )

        assert running.login.asked[0].form == {}


async def test_a_form_is_asked_for_when_the_client_waits_to_be() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        request = form(b"/.doorward/login", b"a=1", b"Expect: 100-continue")
        await client.send(request[:-3])
        assert (await client.receive()).status == 100
        await client.send(request[-3:])
        assert (await client.receive()).status == 200
        await client.send(get(b"/.doorward/sessions"))  # the connection is still good
        assert (await client.receive()).status == 200


# Forms that met no session ----------------------------------------------------------------------

SENT = (
    b"Host: 127.0.0.1:8080",
    b"Accept: text/html",
    b"Cookie: doorward=a-session-that-is-over; other=1",
    b"Content-Type: application/x-www-form-urlencoded",
)


def sent_form(framing: bytes, content: bytes, origin: bytes = b"http://127.0.0.1:8080") -> bytes:
    lines = (b"POST /private/notes?a=b HTTP/1.1", *SENT, b"Origin: " + origin, framing)
    return b"\r\n".join((*lines, b"", content))


async def test_a_form_that_met_no_session_is_kept_and_goes_nowhere() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        answer = await running.ask(sent_form(b"Content-Length: 9", b"text=milk"))
        assert (answer.status, answer.fields["set-cookie"]) == (401, "k=v")
        assert b"/.doorward/login?return_to=" in answer.content
        (sent,) = running.login.kept
        assert (sent.target, sent.content, sent.subject) == ("/private/notes?a=b", b"text=milk", "")
        assert sent.cookies["other"] == "1"
        assert backend.connections == 0
        assert running.events[-1].bytes_in == len(sent.content)

        evil = b"http://evil.example"
        foreign = await running.ask(sent_form(b"Content-Length: 9", b"text=milk", evil))
        assert (foreign.status, foreign.fields["content-type"]) == (401, "application/problem+json")
        assert len(running.login.kept) == 1


@pytest.mark.parametrize("trouble", ["keeps", "out"])
async def test_a_form_that_cannot_be_kept_is_answered_as_any_other(trouble: str) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        setattr(running.login, trouble, trouble == "out")
        answer = await running.ask(sent_form(b"Content-Length: 9", b"text=milk"))
        assert (answer.status, answer.fields["content-type"]) == (401, "application/problem+json")


async def test_a_form_in_chunks_is_kept_up_to_its_bound() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        chunked = b"Transfer-Encoding: chunked"
        small = sent_form(chunked, b"3\r\na=b\r\n0\r\n\r\n")
        assert (await running.ask(small)).status == 401
        assert [each.content for each in running.login.kept] == [b"a=b"]
        large = sent_form(chunked, b"11170\r\n" + b"x" * 70_000 + b"\r\n0\r\n\r\n")
        assert (await running.ask(large)).status == 401
        assert len(running.login.kept) == 1


# Forward-auth -----------------------------------------------------------------------------------


def asked_about(path: bytes, *fields: bytes) -> bytes:
    return get(
        b"/.doorward/auth",
        b"X-Forwarded-Method: GET",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: app.example",
        b"X-Forwarded-Uri: " + path,
        *fields,
    )


ROUTES = [
    route("public", "/public/*"),
    PRIVATE,
    route("posts", "/posts", methods=("POST",)),
]


@pytest.mark.parametrize("cached", [True, False])
async def test_forward_auth_allows_with_the_identity_fields(*, cached: bool) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), ROUTES, trusted_proxies=LOOPBACK)) as running,
    ):
        cookie = running.sessions.sign_in("u1", roles=("member", "x"), cached=cached)
        answer = await running.ask(
            asked_about(b"/private/x", b"Cookie: doorward=" + cookie.encode())
        )

        assert answer.status == 200
        assert answer.fields["x-auth-subject"] == "u1"
        assert answer.fields["x-auth-roles"] == "member,x"
        assert answer.fields["x-auth-assertion"].count(".") == 2
        assert answer.fields["cache-control"] == "no-store"
        assert backend.connections == 0
        assert running.events[-1].route == "private"


@pytest.mark.parametrize(
    ("path", "status"),
    [(b"/public/x", 200), (b"/private/x", 401), (b"/nowhere", 403), (b"/posts", 403)],
)
async def test_forward_auth_decides_as_a_live_request_would(path: bytes, status: int) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), ROUTES, trusted_proxies=LOOPBACK)) as running,
    ):
        # A navigation would be redirected; the asking proxy cannot do anything with a redirect.
        answer = await running.ask(asked_about(path, b"Sec-Fetch-Mode: navigate"))

        assert answer.status == status
        assert "x-auth-subject" not in answer.fields
        assert "location" not in answer.fields


async def test_forward_auth_is_for_trusted_proxies_only() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), ROUTES)) as running,
    ):
        assert (await running.ask(asked_about(b"/public/x"))).status == 403


TOKEN_ROUTES = [
    route("one", "/one/*", access=SIGNED_IN, access_token="Authorization"),
    route("two", "/two/*", access=SIGNED_IN, access_token="X-Access-Token"),
    PRIVATE,
]


@pytest.mark.parametrize("cached", [True, False])
async def test_forward_auth_gives_the_access_token_where_the_route_asks_for_it(
    *, cached: bool
) -> None:
    async with (
        upstream() as backend,
        gateway(
            configuration(one_upstream(backend), TOKEN_ROUTES, trusted_proxies=LOOPBACK)
        ) as running,
    ):
        cookie = running.sessions.sign_in("u1", cached=cached)
        line = b"Cookie: doorward=" + cookie.encode()
        one, two, private = [
            await running.ask(asked_about(path, line))
            for path in (b"/one/x", b"/two/x", b"/private/x")
        ]
        token = f"token-of-{cookie}"
        assert (one.status, two.status, private.status) == (200, 200, 200)
        assert one.fields["authorization"] == f"Bearer {token}"
        assert two.fields["x-access-token"] == token
        assert (two.fields["x-auth-subject"], two.fields["cache-control"]) == ("u1", "no-store")
        assert token not in str([*private.fields.values(), one.fields.get("x-access-token")])


@pytest.mark.parametrize(
    ("trouble", "status", "reason"),
    [
        (AccessTokenGone(), 401, "access_token_gone"),
        (AuthUnavailable("out", reason=Reason.PROVIDER_UNAVAILABLE), 503, "provider_unavailable"),
    ],
)
async def test_forward_auth_lets_nobody_through_without_the_access_token(
    trouble: Exception, status: int, reason: str
) -> None:
    async with (
        upstream() as backend,
        gateway(
            configuration(one_upstream(backend), TOKEN_ROUTES, trusted_proxies=LOOPBACK)
        ) as running,
    ):
        running.login.token_trouble = trouble
        line = b"Cookie: doorward=" + running.sessions.sign_in("u1").encode()
        answer = await running.ask(asked_about(b"/two/x", line))
        assert (answer.status, running.events[-1].reason) == (status, reason)
        assert "x-auth-subject" not in answer.fields
        assert (await running.ask(asked_about(b"/two/x"))).status == 401


async def test_forward_auth_fails_closed_when_the_store_is_out() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), ROUTES, trusted_proxies=LOOPBACK)) as running,
    ):
        cookie = running.sessions.sign_in("u1", cached=False)
        running.sessions.out = True
        answer = await running.ask(
            asked_about(b"/private/x", b"Cookie: doorward=" + cookie.encode())
        )

        assert answer.status == 503
        await asyncio.sleep(0)


async def test_a_question_that_comes_again_is_judged_by_who_may_ask_now() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), ROUTES, trusted_proxies=LOOPBACK)) as running,
    ):
        client = await running.connect()
        for _ in range(3):
            await client.send(asked_about(b"/public/x"))
            assert (await client.receive()).status == 200
        nobody = snapshot_of(configuration(one_upstream(backend), ROUTES), 2)
        running.server.replace_snapshot(msgspec.structs.replace(running.state, snapshot=nobody))
        await client.send(asked_about(b"/public/x"))

        assert (await client.receive()).status == 403
