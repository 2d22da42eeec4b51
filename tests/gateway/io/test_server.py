import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from auth.session import digest
from config.model import AccessRule
from gateway.io.connection import GOODBYE_SECONDS
from gateway.io.server import FORGET_SECONDS, ServerState
from gateway.io.tls import Certificates
from tests.gateway.io.harness import (
    ALL,
    OK,
    PRIVATE,
    Gateway,
    Upstreams,
    answering,
    configuration,
    gateway,
    one_upstream,
    route,
    snapshot_of,
    upstream,
)
from tests.gateway.io.test_tls import make_certificate

pytestmark = pytest.mark.wire

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def with_cookie(target: bytes, cookie: str) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\nCookie: doorward=%b\r\n\r\n" % (target, cookie.encode())


class Streaming:
    """Sends the head and one chunk, then a chunk each time it is told to, until told to end."""

    def __init__(self) -> None:
        self.more = asyncio.Event()
        self.end = False

    async def __call__(
        self, backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            await backend.read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not self.end:
                writer.write(b"1\r\nx\r\n")
                await self.more.wait()
                self.more.clear()
            writer.write(b"0\r\n\r\n")


def replaced(running: Gateway, state: ServerState, **more: object) -> ServerState:
    return ServerState(
        snapshot=more.pop("snapshot", state.snapshot),  # type: ignore[arg-type]
        authenticator=running.state.authenticator,
        signer=running.state.signer,
        login=running.state.login,
    )


async def test_a_reload_changes_the_next_request_and_keeps_the_connections() -> None:
    async with upstream() as backend:
        old = configuration(one_upstream(backend), [ALL])
        new = configuration(one_upstream(backend), [route("other", "/other")])
        async with gateway(old) as running:
            client = await running.connect()
            await client.send(GET)
            assert (await client.receive()).status == 200

            running.server.replace_snapshot(
                replaced(running, running.state, snapshot=snapshot_of(new, 2))
            )
            await client.send(GET)
            assert (await client.receive()).status == 404
            await client.send(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.receive()).status == 200
            assert backend.connections == 1
            assert [event.generation for event in running.events] == [1, 2, 2]


async def test_a_changed_upstream_gets_new_connections_and_the_old_ones_are_closed() -> None:
    async with (
        upstream(answering(OK)) as old,
        upstream(answering(OK)) as new,
        gateway(configuration(one_upstream(old), [ALL])) as running,
    ):
        await running.ask(GET)
        running.server.replace_snapshot(
            replaced(
                running,
                running.state,
                snapshot=snapshot_of(configuration(one_upstream(new), [ALL]), 2),
            )
        )
        await running.ask(GET)

        assert (old.connections, new.connections) == (1, 1)
        await asyncio.wait_for(old.lost.wait(), 2)


async def test_a_request_under_way_keeps_its_generation() -> None:
    streaming = Streaming()
    async with (
        upstream(streaming) as backend,
        upstream() as other,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET)
        await client.reader.readuntil(b"x\r\n")
        running.server.replace_snapshot(
            replaced(
                running,
                running.state,
                snapshot=snapshot_of(configuration(one_upstream(other), [PRIVATE]), 2),
            )
        )
        streaming.end = True
        streaming.more.set()

        assert await client.reader.readexactly(5) == b"0\r\n\r\n"
        assert running.events[-1].generation == 1


async def test_a_request_that_waits_for_the_store_keeps_its_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()
    async with (
        upstream() as old,
        upstream() as new,
        gateway(configuration(one_upstream(old), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1", cached=False)
        find = running.sessions.find

        async def slowly(session_digest: str, *, serve_cached: float = 0.0) -> object:
            asked.set()
            await go_on.wait()
            return await find(session_digest, serve_cached=serve_cached)

        monkeypatch.setattr(running.sessions, "find", slowly)
        client = await running.connect()
        await client.send(with_cookie(b"/private/x", cookie))
        await asked.wait()
        admins = AccessRule(level="signed-in", roles=frozenset({"admin"}))
        settings = configuration(one_upstream(new), [route("all", "/*", access=admins)])
        running.server.replace_snapshot(
            replaced(running, running.state, snapshot=snapshot_of(settings, 2))
        )
        go_on.set()

        assert (await client.receive()).status == 200
        assert (len(old.requests), len(new.requests)) == (1, 0)
        assert (running.events[-1].generation, running.events[-1].route) == (1, "private")
        await client.send(with_cookie(b"/private/x", cookie))
        assert (await client.receive()).status == 403


async def test_reloads_under_load_fail_no_request_and_never_mix_generations() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    async with upstream(answering(head + b"one")) as one, upstream(answering(head + b"two")) as two:
        first = configuration(one_upstream(one), [route("one", "/*")])
        second = configuration(one_upstream(two), [route("two", "/*")])
        async with gateway(first) as running:
            states = [
                replaced(running, running.state, snapshot=snapshot_of(each, number))
                for number, each in ((2, second), (3, first))
            ]
            client = await running.connect()
            contents = []
            for number in range(200):
                running.server.replace_snapshot(states[number % 2])
                await client.send(GET)
                contents.append((await client.receive()).content)

            assert contents == [b"two", b"one"] * 100
            routes = [event.route for event in running.events]
            assert routes == ["two", "one"] * 100


async def test_draining_finishes_what_is_under_way_and_closes_the_rest() -> None:
    streaming = Streaming()
    async with (
        upstream(streaming) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        idle = await running.connect()
        busy = await running.connect()
        await busy.send(GET)
        await busy.reader.readuntil(b"x\r\n")
        draining = asyncio.create_task(running.server.drain(5))

        assert await idle.at_end(1)
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset
            await asyncio.open_connection("127.0.0.1", running.port)
        streaming.end = True
        streaming.more.set()
        assert await busy.reader.readexactly(5) == b"0\r\n\r\n"
        await asyncio.wait_for(draining, 2)


async def test_a_request_that_comes_while_draining_is_answered_and_told_to_close() -> None:
    began = asyncio.Event()
    go_on = asyncio.Event()

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            await backend.read_head(reader)
            began.set()
            await go_on.wait()
            writer.write(OK)

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET)
        await began.wait()
        draining = asyncio.create_task(running.server.drain(5))
        await asyncio.sleep(0.02)
        go_on.set()
        answer = await client.receive()

        assert answer.content == b"ok"
        assert answer.fields["connection"] == "close"
        await asyncio.wait_for(draining, 2)


async def test_a_tls_client_that_never_says_goodbye_does_not_hold_up_the_draining(
    tmp_path: Path,
) -> None:
    certificates = Certificates([make_certificate(tmp_path, "one", "app.example.com")])
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def ask_and_fall_silent(port: int) -> ssl.SSLSocket:
        client = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 5))
        client.sendall(GET)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        return client

    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL]), tls=certificates.context) as running,
    ):
        with await asyncio.to_thread(ask_and_fall_silent, running.port):
            await asyncio.wait_for(running.server.drain(20), GOODBYE_SECONDS + 5)


async def test_draining_has_an_end() -> None:
    async with (
        upstream(Streaming()) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET)
        await client.reader.readuntil(b"x\r\n")
        await asyncio.wait_for(running.server.drain(0.1), 2)

        assert await client.at_end(1)
        assert running.events[-1].error == "draining"


async def test_what_streams_for_an_ended_session_is_aborted_and_for_others_goes_on() -> None:
    async with (
        upstream(Streaming()) as backend,
        gateway(configuration(one_upstream(backend), [ALL, PRIVATE])) as running,
    ):
        ended, alive = running.sessions.sign_in("u1"), running.sessions.sign_in("u2")
        clients = []
        for request in (with_cookie(b"/private/x", ended), with_cookie(b"/private/x", alive), GET):
            client = await running.connect()
            await client.send(request)
            await client.reader.readuntil(b"x\r\n")
            clients.append(client)
        assert running.server.close_sessions({digest(ended)}) == 1

        assert await clients[0].at_end(0.5)  # no last chunk
        assert not await clients[1].at_end(0.1)
        assert not await clients[2].at_end(0.1)
        assert running.events[-1].error == "session_ended"
        assert running.events[-1].subject == "u1"


async def test_everybody_out_ends_every_session_and_no_public_request() -> None:
    async with (
        upstream(Streaming()) as backend,
        gateway(configuration(one_upstream(backend), [ALL, PRIVATE])) as running,
    ):
        clients = []
        for request in (with_cookie(b"/private/x", running.sessions.sign_in("u1")), GET):
            client = await running.connect()
            await client.send(request)
            await client.reader.readuntil(b"x\r\n")
            clients.append(client)

        assert running.server.close_sessions(None) == 1
        assert await clients[0].at_end(0.5)
        assert not await clients[1].at_end(0.1)


async def test_the_answer_that_reports_the_logout_still_arrives() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        began.set()
        await go_on.wait()
        writer.write(OK)

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        client = await running.connect()
        await client.send(with_cookie(b"/private/my-own-logout", cookie))
        await began.wait()
        running.server.close_sessions({digest(cookie)})
        go_on.set()

        assert (await client.receive()).content == b"ok"


async def test_a_stream_that_begins_after_its_session_ended_does_not_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.io.exchange.ENDED_SESSION_SECONDS", 0.1)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        began.set()
        await go_on.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await reader.read()

    async with (
        upstream(behave) as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("u1")
        client = await running.connect()
        await client.send(with_cookie(b"/private/events", cookie))
        await began.wait()
        running.server.close_sessions({digest(cookie)})
        go_on.set()
        answer = await client.receive()

        assert not answer.complete
        await asyncio.wait_for(backend.lost.wait(), 2)


async def test_a_client_that_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.io.server.WRITE_STALL_SECONDS", 0.2)
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 50_000_000
    async with (
        upstream(answering(big)) as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        client.transport.pause_reading()
        await client.send(GET)

        await asyncio.wait_for(backend.lost.wait(), 5)
        assert running.events[-1].error == "client_closed"
        assert running.server.counters["connections"] == 0


async def test_counters_say_what_is_open() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET)
        await client.receive()

        counters = running.server.counters
        assert (counters["connections"], counters["upstream_connections"]) == (1.0, 1.0)
        assert (counters["connections_refused"], counters["requests_shed"]) == (0.0, 0.0)


async def test_a_closed_server_leaves_no_task_and_no_socket() -> None:
    before = asyncio.all_tasks()
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(GET)
        await client.receive()
        await running.server.close()
        await asyncio.sleep(0.05)

        assert set(running.server.counters.values()) == {0.0}
        assert asyncio.all_tasks() - before - backend.tasks == set()


async def test_an_observer_that_fails_harms_no_request() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        running.fails = True

        assert (await running.ask(GET)).status == 200
        assert (await running.ask(GET)).status == 200


async def test_an_idle_connection_forgets_the_cookie_that_its_client_sent() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        client = await running.connect()
        await client.send(with_cookie(b"/", "secret-of-the-client"))
        await client.reader.readuntil(b"\r\n\r\n")
        (connection,) = running.server._serving.connections
        now = asyncio.get_running_loop().time()

        running.server.sweep(now)
        assert b"secret-of-the-client" in repr(connection._heads._remembered).encode()
        running.server.sweep(now + FORGET_SECONDS + 1)
        assert connection._heads._remembered is None
