import asyncio
import re
from ipaddress import ip_network
from time import time

import pytest

from auth.decision import Reason
from auth.ports import AccessTokenGone, AuthUnavailable
from config.model import AccessRule
from gateway.io.connection import ClientConnection
from tests.gateway.io.harness import (
    ALL,
    PRIVATE,
    SIGNED_IN,
    configuration,
    gateway,
    one_upstream,
    route,
    upstream,
)

pytestmark = pytest.mark.wire

LOOPBACK = (ip_network("127.0.0.0/8"),)
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n"


def field(head: bytes, name: str) -> str:
    found = re.search(rf"\r\n{name}: ([^\r]*)\r\n", head.decode("latin-1"))
    return found[1] if found else ""


async def test_a_known_caller_is_served_without_asking_the_store() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        known = running.sessions.sign_in("u1")
        unknown = running.sessions.sign_in("u2", cached=False)
        for cookie, asked in ((known, 0), (unknown, 1), (known, 1), (unknown, 2)):
            line = b"Cookie: doorward=%b\r\n" % cookie.encode()
            assert (await running.ask(GET % (b"private/x", line))).status == 200
            assert running.sessions.asked == asked
        subjects = [field(head, "X-Auth-Subject") for head in backend.requests]
        assert subjects == ["u1", "u2", "u1", "u2"]


async def test_a_caller_who_is_looked_up_takes_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        lines = {
            subject: b"Cookie: doorward=%b\r\n"
            % running.sessions.sign_in(subject, cached=False).encode()
            for subject in ("u1", "u2")
        }
        assert (await running.ask(GET % (b"private/x", lines["u1"]))).status == 200
        running.sessions.answers_later = True
        monkeypatch.setattr(ClientConnection, "serve_waiting", lambda _: pytest.fail("a task"))
        client = await running.connect()
        # The second one waits until the first is answered: one exchange at a time.
        await client.send(GET % (b"private/1", lines["u2"]) + GET % (b"private/2", lines["u1"]))
        for subject in ("u2", "u1"):
            await running.sessions.came.wait()
            running.sessions.came.clear()
            (answer,) = running.sessions.waiting
            running.sessions.waiting.clear()
            answer()
            assert (await client.receive()).status == 200
            assert field(backend.requests[-1], "X-Auth-Subject") == subject


async def test_a_caller_the_store_does_not_know_is_told_so_without_a_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        running.sessions.answers_later = True
        monkeypatch.setattr(ClientConnection, "serve_waiting", lambda _: pytest.fail("a task"))
        client = await running.connect()
        await client.send(GET % (b"private/x", b"Cookie: doorward=made-up-0123456789abcdef\r\n"))
        await running.sessions.came.wait()
        running.sessions.waiting[0]()
        assert (await client.receive()).status == 401
        assert running.events[-1].reason == "session_unknown"
        assert backend.connections == 0


async def test_a_client_who_leaves_while_looked_up_reaches_no_upstream() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        line = b"Cookie: doorward=%b\r\n" % running.sessions.sign_in("u1", cached=False).encode()
        await running.ask(GET % (b"private/x", line))  # so that a connection idles
        running.sessions.answers_later = True
        client = await running.connect()
        await client.send(GET % (b"private/x", line))
        await running.sessions.came.wait()
        client.transport.abort()
        async with asyncio.timeout(5):
            while len(running.events) < 2:
                await asyncio.sleep(0.001)
        running.sessions.waiting[0]()
        assert running.events[-1].error == "client_closed"
        await running.ask(GET % (b"nowhere", b""))  # whatever was written has arrived
        assert len(running.events) == 3
        assert len(backend.requests) == 1


@pytest.mark.parametrize("failure", ["lost", "bug"])
async def test_a_look_up_that_fails_lets_nothing_through(
    monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        running.sessions.answers_later = True
        cookie = running.sessions.sign_in("u1", cached=False)
        running.sessions.out = failure == "lost"
        if failure == "bug":
            monkeypatch.setattr("auth.authentication.identity_of", fail)
        client = await running.connect()
        await client.send(GET % (b"private/x", b"Cookie: doorward=%b\r\n" % cookie.encode()))
        await running.sessions.came.wait()
        running.sessions.waiting[0]()
        answer = await client.receive()
        assert answer.status == (503 if failure == "lost" else 500)
        assert "set-cookie" not in answer.fields
        assert backend.connections == 0


async def test_many_callers_on_shared_upstream_connections_keep_their_identities() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE, ALL])) as running,
    ):
        cookies = {f"u{n}": running.sessions.sign_in(f"u{n}", cached=n % 2 == 0) for n in range(20)}

        async def ask(subject: str) -> None:
            for turn in range(5):
                line = b"Cookie: doorward=%b\r\n" % cookies[subject].encode()
                path = f"private/{subject}/{turn}".encode()
                assert (await running.ask(GET % (path, line))).status == 200
                await running.ask(GET % (f"{subject}".encode(), b""))

        await asyncio.gather(*(ask(subject) for subject in cookies))
        for head in backend.requests:
            target = head.split(b" ")[1].decode()
            expected = target.split("/")[2] if target.startswith("/private/") else ""
            assert field(head, "X-Auth-Subject") == expected
        assert backend.connections < len(backend.requests)


async def test_an_outage_is_503_and_leaves_the_cookie_alone() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE, ALL])) as running,
    ):
        cookie = running.sessions.sign_in("u1", cached=False)
        running.sessions.out = True
        line = b"Cookie: doorward=%b\r\n" % cookie.encode()
        answer = await running.ask(GET % (b"private/x", line))

        assert answer.status == 503
        assert "retry-after" in answer.fields
        assert "set-cookie" not in answer.fields
        assert backend.connections == 0
        assert (await running.ask(GET % (b"public", line))).status == 200
        running.sessions.out = False
        assert (await running.ask(GET % (b"private/x", line))).status == 200


@pytest.mark.parametrize("failure", [RuntimeError("a bug"), AuthUnavailable("out"), KeyError("x")])
@pytest.mark.parametrize("cached", [True, False])
async def test_whatever_fails_in_a_decision_lets_nothing_through(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, *, cached: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1", cached=cached)
        monkeypatch.setattr("auth.authentication.identity_of", fail)
        line = b"Cookie: doorward=%b\r\n" % cookie.encode()
        answer = await running.ask(GET % (b"private/x", line))

        assert answer.status in (500, 503)
        assert b"bug" not in answer.content
        assert backend.connections == 0
        assert running.events[-1].decision != "allow"


async def test_a_key_that_is_missing_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise AuthUnavailable("no key")

    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE, ALL])) as running,
    ):
        await running.ask(GET % (b"public", b""))  # so that a connection idles
        monkeypatch.setattr(running.state.signer, "assertion_for", fail)
        cookie = running.sessions.sign_in("u1")
        answer = await running.ask(
            GET % (b"private/x", b"Cookie: doorward=%b\r\n" % cookie.encode())
        )

        assert answer.status == 503
        assert len(backend.requests) == 1
        (endpoint_pool,) = running.server._generation.pools["app"].endpoints
        assert endpoint_pool.in_flight == 0


async def test_the_request_id_is_new_unless_a_trusted_proxy_gave_one() -> None:
    line = b"X-Request-Id: from-the-proxy\r\n"
    for trusted in (True, False):
        settings = {"trusted_proxies": LOOPBACK} if trusted else {}
        async with (
            upstream() as backend,
            gateway(configuration(one_upstream(backend), [ALL], **settings)) as running,  # type: ignore[arg-type]
        ):
            await running.ask(GET % (b"", line))
            sent = field(backend.requests[0], "X-Request-Id")
            assert (sent == "from-the-proxy") is trusted
            assert trusted or re.fullmatch(r"[0-9a-f]{32}", sent)
            assert running.events[-1].request_id == sent


async def test_a_trace_is_continued_or_begun() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
        await running.ask(GET % (b"", b"traceparent: %b\r\n" % trace.encode()))
        await running.ask(GET % (b"", b"traceparent: nonsense\r\n"))
        await running.ask(GET % (b"", b""))

        traces = [field(head, "traceparent") for head in backend.requests]
        assert traces[0] == trace
        assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", one) for one in traces)
        assert len(set(traces)) == 3


async def test_what_the_gateway_answers_itself_reaches_no_upstream() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        answer = await running.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.status == 204
        again = await running.ask(b"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
        assert again.status == 204
        assert backend.connections == 0


async def test_a_condition_on_the_request_is_asked_for_every_request() -> None:
    rule = AccessRule(level="signed-in", when="request.path.startsWith('/own/' + identity.subject)")
    async with (
        upstream() as backend,
        gateway(
            configuration(one_upstream(backend), [route("own", "/own/*", access=rule)])
        ) as running,
    ):
        line = b"Cookie: doorward=%b\r\n" % running.sessions.sign_in("u1").encode()
        paths = (b"own/u1/x", b"own/u2/x", b"own/u1/y", b"own/u2/y")
        statuses = [(await running.ask(GET % (path, line))).status for path in paths]

        assert statuses == [200, 403, 200, 403]


async def test_changed_roles_count_at_once() -> None:
    rule = AccessRule(level="signed-in", roles=frozenset({"editor"}))
    async with (
        upstream() as backend,
        gateway(
            configuration(one_upstream(backend), [route("edit", "/*", access=rule)])
        ) as running,
    ):
        line = b"Cookie: doorward=%b\r\n"
        for roles, status in ((("editor",), 200), ((), 403), (("editor", "admin"), 200)):
            cookie = running.sessions.sign_in("u1", roles=roles)  # the same session, changed
            answer = await running.ask(GET % (b"x", line % cookie.encode()))
            assert answer.status == status
        assert field(backend.requests[-1], "X-Auth-Roles") == "editor,admin"


async def test_the_use_of_a_session_that_is_due_is_told_to_the_login_service() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        due = running.sessions.sign_in("due", refresh_at=time() - 1)
        looked_up = running.sessions.sign_in("looked-up", refresh_at=time() - 1, cached=False)
        later = running.sessions.sign_in("later", refresh_at=time() + 1000)
        never = running.sessions.sign_in("never")
        for path in (b"private/x", b".doorward/me"):
            running.login.refreshed.clear()
            for cookie in (due, looked_up, later, never):
                line = b"Cookie: doorward=%b\r\n" % cookie.encode()
                assert (await running.ask(GET % (path, line))).status == 200
            assert running.login.refreshed == [due, looked_up]


async def test_whoever_is_refused_is_brought_up_to_date_as_well() -> None:
    rule = AccessRule(level="signed-in", roles=frozenset({"editor"}))
    editors = route("editors", "/edit/*", access=rule)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [editors])) as running,
    ):
        due = running.sessions.sign_in("due", refresh_at=time() - 1)
        line = b"Cookie: doorward=%b\r\n" % due.encode()
        assert (await running.ask(GET % (b"edit/x", line))).status == 403
        assert running.login.refreshed == [due]


TOKEN_ROUTES = [
    route("one", "/one/*", access=SIGNED_IN, access_token="Authorization"),
    route("two", "/two/*", access=SIGNED_IN, access_token="X-Access-Token"),
    route("rest", "/*", access=SIGNED_IN),
]


async def test_the_access_token_goes_where_the_route_asks_for_it_and_nowhere_else() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), TOKEN_ROUTES)) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        own = b"Cookie: doorward=%b\r\nAuthorization: Basic x\r\nX-Access-Token: mine\r\n"
        for path in (b"one/x", b"two/x", b"three"):
            answer = await running.ask(GET % (path, own % cookie.encode()))
            assert answer.status == 200
        one, two, rest = backend.requests
        token = f"token-of-{cookie}"
        assert field(one, "Authorization") == f"Bearer {token}"
        assert one.count(b"uthorization") == 1
        assert field(two, "X-Access-Token") == token
        assert two.lower().count(b"x-access-token") == 1
        assert field(two, "Authorization") == "Basic x"
        assert b"token-of" not in rest
        assert b"mine" not in one + two + rest


@pytest.mark.parametrize(
    ("trouble", "status", "reason"),
    [
        (AccessTokenGone(), 401, "access_token_gone"),
        (AuthUnavailable("out", reason=Reason.PROVIDER_UNAVAILABLE), 503, "provider_unavailable"),
        (AuthUnavailable("out"), 503, "store_unavailable"),
    ],
)
async def test_without_the_access_token_a_request_does_not_go_on(
    trouble: Exception, status: int, reason: str
) -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), TOKEN_ROUTES)) as running,
    ):
        running.login.token_trouble = trouble
        line = b"Cookie: doorward=%b\r\n" % running.sessions.sign_in("u1").encode()
        assert (await running.ask(GET % (b"one/x", line))).status == status
        assert running.events[-1].reason == reason
        assert backend.requests == []
        assert (await running.ask(GET % (b"three", line))).status == 200
