"""A gateway with real sockets on both sides: raw clients, upstreams that do as they are told."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from time import time
from typing import cast

from cryptography.hazmat.primitives.asymmetric import ec

from auth.assertion import AssertionSigner
from auth.authentication import Authenticator
from auth.keys import KeyRing, signing_key
from auth.login.messages import LoginAnswer, LoginRequest, SentForm, WayBack
from auth.ports import AuthUnavailable, OnFound
from auth.session import SessionRecord, digest
from config.model import (
    AccessRule,
    Address,
    Admin,
    Assertion,
    Configuration,
    Endpoint,
    IdentityHeaders,
    IPNetwork,
    Limits,
    Login,
    Match,
    Route,
    Secret,
    Server,
    SessionSettings,
    Store,
    Upstream,
)
from gateway.events import ExchangeFinished
from gateway.io.server import GatewayServer, ServerState
from gateway.snapshot import Snapshot, build_snapshot
from tests.auth.session_double import NothingWritten

DEFAULT_LIMITS = Limits()
STANDARD = IdentityHeaders(
    fields=(
        ("X-Auth-Subject", "subject"),
        ("X-Auth-Tenant", "tenant"),
        ("X-Auth-Roles", "roles"),
        ("X-Auth-Scopes", "scopes"),
        ("X-Auth-Method", "method"),
    ),
    assertion=Assertion(issuer="http://127.0.0.1:8080"),
)
PUBLIC = AccessRule(level="public")
SIGNED_IN = AccessRule(level="signed-in")


def route(id_: str, path: str, upstream: str = "app", **more: object) -> Route:
    access = more.pop("access", PUBLIC)
    match = Match(path=path, methods=more.pop("methods", ()))  # type: ignore[arg-type]
    return Route(id=id_, match=match, upstream=upstream, access=access, **more)  # type: ignore[arg-type]


ALL = route("all", "/*")
PRIVATE = route("private", "/private/*", access=SIGNED_IN)


def configuration(
    upstreams: dict[str, Upstream],
    routes: Sequence[Route],
    *,
    limits: Limits = DEFAULT_LIMITS,
    trusted_proxies: tuple[IPNetwork, ...] = (),
    identity: IdentityHeaders = STANDARD,
) -> Configuration:
    return Configuration(
        server=Server(
            listen=Address("127.0.0.1", 0),
            public_url="http://127.0.0.1:8080",
            limits=limits,
            trusted_proxies=trusted_proxies,
        ),
        admin=Admin(Address("127.0.0.1", 0)),
        store=Store(Secret("embedded")),
        session=SessionSettings("doorward", secure=False),
        login=Login(),
        tokens=(),
        identity=identity,
        upstreams=upstreams,
        routes=tuple(routes),
    )


class Sessions(NothingWritten):
    """The port `SessionStore` as far as the data plane asks it; an outage can be made."""

    def __init__(self) -> None:
        self.records: dict[str, SessionRecord] = {}
        self.cached: set[str] = set()
        self.out = False
        self.asked = 0
        self.answers_later = False
        """Whether `ask` is answered: when the test calls what is `waiting`."""
        self.waiting: list[Callable[[], None]] = []
        self.came = asyncio.Event()
        """Set when something waits."""

    def sign_in(self, subject: str, *, cached: bool = True, **more: object) -> str:
        value = f"cookie-of-{subject}-0123456789abcdef"
        now = time()
        self.records[digest(value)] = SessionRecord(1, subject, now, now + 3600, **more)  # type: ignore[arg-type]
        if cached:
            self.cached.add(digest(value))
        return value

    def peek(self, session_digest: str) -> SessionRecord | None:
        return self.records.get(session_digest) if session_digest in self.cached else None

    def ask(self, session_digest: str, then: OnFound) -> None:
        if not self.answers_later:
            then(None)
            return
        found: SessionRecord | str | None = self.records.get(session_digest, "session_unknown")
        self.waiting.append(lambda: then(None if self.out else found))
        self.came.set()

    async def find(self, session_digest: str, *, serve_cached: float = 0.0) -> SessionRecord | str:
        self.asked += 1
        await asyncio.sleep(0)
        if self.out:
            raise AuthUnavailable("out")
        return self.records.get(session_digest, "session_unknown")


class EchoLogin:
    """A login service that says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[LoginRequest] = []
        self.refreshed: list[str] = []
        self.token_trouble: Exception | None = None
        self.kept: list[SentForm] = []
        self.keeps = True
        self.out = False

    async def keep_form(self, sent: SentForm) -> WayBack | None:
        if self.out:
            raise AuthUnavailable("out")
        self.kept.append(sent)
        return WayBack("/.doorward/form?id=1", (("Set-Cookie", "k=v"),)) if self.keeps else None

    async def access_token(self, cookie: str) -> str:
        if self.token_trouble is not None:
            raise self.token_trouble
        return f"token-of-{cookie}"

    def refresh(self, cookie: str) -> None:
        self.refreshed.append(cookie)

    async def handle(self, request: LoginRequest) -> LoginAnswer:
        self.asked.append(request)
        return LoginAnswer(200, (("Content-Type", "text/plain"),), request.path.encode())


class Upstreams:
    """A backend on a raw socket. *behave* gets each connection; what it reads is recorded."""

    def __init__(self, behave: "Behaviour") -> None:
        self.behave = behave
        self.requests: list[bytes] = []
        """Every request head that came, whole."""
        self.received = bytearray()
        """Every byte that came."""
        self.connections = 0
        self.lost = asyncio.Event()
        """Set when a connection ended."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self.behave(self, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            self.lost.set()
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def read_head(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.received += head
        self.requests.append(head)
        return head


Behaviour = Callable[[Upstreams, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(*answers: bytes) -> Behaviour:
    """Answer each request on a connection with the next of *answers*, the last for ever."""

    async def behave(
        upstream: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        at = 0
        while True:
            await upstream.read_head(reader)
            writer.write(answers[min(at, len(answers) - 1)])
            at += 1

    return behave


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def upstream(behave: Behaviour | None = None) -> AsyncIterator[Upstreams]:
    backend = Upstreams(behave or answering(OK))
    server = await asyncio.start_server(backend, "127.0.0.1", 0)
    backend.port = server.sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        server.close()
        for task in tuple(backend.tasks):
            task.cancel()
        if backend.tasks:
            await asyncio.wait(backend.tasks)


class Gateway:
    """A running gateway and what it told its observers."""

    def __init__(self, server: GatewayServer, port: int, state: ServerState) -> None:
        self.server = server
        self.port = port
        self.state = state
        self.fails = False
        """Whether its observer raises."""
        self.clients: list[RawClient] = []
        self.events: list[ExchangeFinished] = []
        self.sessions = Sessions()
        self.login = EchoLogin()

    async def connect(self) -> "RawClient":
        client = RawClient(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def ask(self, request: bytes) -> "Message":
        """Send *request* on a connection of its own and return the answer."""
        client = await self.connect()
        try:
            await client.send(request)
            return await client.receive(head_only=request.startswith(b"HEAD"))
        finally:
            await client.close()


class Message:
    """An answer as it came over the wire."""

    def __init__(self, head: bytes, content: bytes, *, complete: bool) -> None:
        self.head = head
        self.content = content
        self.complete = complete
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.fields = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
        }


class RawClient:
    """A client that writes bytes and reads answers strictly."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.transport = cast("asyncio.Transport", writer.transport)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, *, head_only: bool = False) -> Message:
        async with asyncio.timeout(30):
            head = await self.reader.readuntil(b"\r\n\r\n")
            message = Message(head, b"", complete=True)
            if head_only or message.status in (101, 204, 304) or message.status < 200:
                return message
            try:
                if message.fields.get("transfer-encoding") == "chunked":
                    await self._read_chunks(message)
                elif "content-length" in message.fields:
                    length = int(message.fields["content-length"])
                    message.content = await self.reader.readexactly(length)
                else:
                    message.content = await self.reader.read()
            except asyncio.IncompleteReadError as error:
                message.content += error.partial
                message.complete = False
            except ConnectionError:
                message.complete = False
            return message

    async def _read_chunks(self, message: Message) -> None:
        while True:
            size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
            data = await self.reader.readexactly(size + 2)
            if not size:
                return
            message.content += data[:-2]

    async def at_end(self, within: float = 5.0) -> bool:
        """Return whether the gateway closes the connection, with nothing more on it."""
        try:
            async with asyncio.timeout(within):
                return await self.reader.read(1) == b""
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def endpoint(port: int) -> Endpoint:
    return Endpoint("http", "127.0.0.1", port)


def one_upstream(backend: Upstreams, **more: object) -> dict[str, Upstream]:
    return {"app": Upstream("app", (endpoint(backend.port),), **more)}  # type: ignore[arg-type]


def snapshot_of(settings: Configuration, generation: int = 1) -> Snapshot:
    snapshot = build_snapshot(settings, generation)
    assert isinstance(snapshot, Snapshot), snapshot
    return snapshot


def state_of(settings: Configuration, sessions: Sessions, login: EchoLogin) -> ServerState:
    key = signing_key(ec.generate_private_key(ec.SECP256R1()), created_at=time(), active_at=0.0)
    ring = KeyRing((key,))
    count = iter(range(1_000_000))
    return ServerState(
        snapshot=snapshot_of(settings),
        authenticator=Authenticator(sessions, None, cookie_name=settings.session.cookie_name),
        signer=AssertionSigner(settings.identity.assertion, ring, new_id=lambda: str(next(count))),
        login=login,
    )


@asynccontextmanager
async def gateway(
    settings: Configuration, *, sweep_seconds: float = 0.05, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Gateway]:
    sessions, login = Sessions(), EchoLogin()
    state = state_of(settings, sessions, login)
    running: Gateway | None = None

    def observe(event: ExchangeFinished) -> None:
        if running is not None and running.fails:
            raise ValueError("an observer that fails")
        events.append(event)

    events: list[ExchangeFinished] = []
    server = GatewayServer(
        state,
        observers=(observe,),
        sweep_seconds=sweep_seconds,
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        await server.start([listener], tls=tls)
        running = Gateway(server, port, state)
        running.events, running.sessions, running.login = events, sessions, login
        try:
            yield running
        finally:
            await server.close()
            for client in running.clients:
                await client.close()
