"""`rediss://`: the store's certificate is verified, and everything works through TLS.

The server of the wheel is built without TLS, so a terminator stands before it, as stunnel would.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from auth.io.session_store import RedisSessionStore, open_session_store
from auth.ports import AuthUnavailable
from auth.session import SessionRecord, digest
from tests.auth.io.conftest import SETTINGS, leased
from tests.auth.session_store_contract import record
from tests.conftest import Valkey
from tests.gateway.io.test_tls import make_certificate

pytestmark = pytest.mark.wire


@asynccontextmanager
async def terminator(context: ssl.SSLContext, target: int) -> AsyncIterator[int]:
    """Speak TLS on a port of its own, and pass what is inside on to *target*."""
    writers: set[asyncio.StreamWriter] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", target)
        writers.update((writer, inner_writer))
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))
        for each in (writer, inner_writer):
            each.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for each in writers:
            each.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def secure_port(
    valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[str, bool], "asyncio.Future[int]"]]:
    """Return what starts a TLS store for a host, trusted by us or not; it returns the port."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(host: str, trusted: bool) -> int:  # noqa: FBT001 - a table's column
            certificate = make_certificate(tmp_path, "store", host)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert_file, certificate.key_file)
            if trusted:  # how an operator has a CA of their own believed
                monkeypatch.setenv("SSL_CERT_FILE", certificate.cert_file)
            target = int(valkey.tcp_url.rpartition(":")[2])
            return await stack.enter_async_context(terminator(context, target))

        yield lambda host, trusted: asyncio.ensure_future(start(host, trusted))


async def opened(port: int, user: str = "") -> RedisSessionStore:
    url = f"rediss://{user}localhost:{port}"
    return await open_session_store(url, SETTINGS, worker=True)


async def test_a_store_with_tls_and_a_user_of_its_own_does_everything(
    valkey: Valkey, secure_port: Callable[[str, bool], "asyncio.Future[int]"]
) -> None:
    client: Any = valkey.client
    client.execute_command("ACL", "SETUSER", "door", "reset", "on", ">pä:ss", "~*", "&*", "+@all")
    store = await opened(await secure_port("localhost", True), "door:p%C3%A4%3Ass@")
    try:
        await leased(store)
        name = digest(await store.create(record()))
        assert isinstance(await store.find(name), SessionRecord)
        assert store.peek(name) is not None
        assert (await store.end(name, reason="logout")).acknowledged == 1
        assert store.peek(name) is None
        assert await store.commands.ping()
        users = {client["user"] for client in valkey.client.client_list()} - {"default"}
        assert users == {"door"}
    finally:
        await store.close()
        valkey.client.acl_deluser("door")


@pytest.mark.parametrize(
    ("host", "trusted", "user"),
    [("localhost", False, ""), ("elsewhere", True, ""), ("localhost", True, "door:wrong@")],
    ids=["nobody vouches for it", "for another host", "a wrong password"],
)
async def test_a_store_that_cannot_prove_itself_or_refuses_us_is_an_outage(
    secure_port: Callable[[str, bool], "asyncio.Future[int]"],
    host: str,
    trusted: bool,  # noqa: FBT001 - a table's column
    user: str,
) -> None:
    store = await opened(await secure_port(host, trusted), user)
    try:
        assert store.status()["connected"] is False
        async with asyncio.timeout(10):  # on a loaded machine the first try may be too slow
            while "TimeoutError" in (problem := str(store.status()["problem"])):
                await asyncio.sleep(0.02)
        assert ("certificate" in problem.lower()) is not bool(user)
        assert "wrong" not in problem.replace("WRONGPASS", "")
        with pytest.raises(AuthUnavailable):
            await store.find(digest("cookie"))
    finally:
        await store.close()


async def test_a_store_without_tls_is_never_spoken_to_in_clear(valkey: Valkey) -> None:
    """`rediss://` to a plain server: no fallback, and no password on the wire."""
    port = int(valkey.tcp_url.rpartition(":")[2])
    store = await opened(port, "door:secret@")
    try:
        assert store.status()["connected"] is False
        with pytest.raises(AuthUnavailable):
            await store.find(digest("cookie"))
    finally:
        await store.close()


async def test_a_store_with_tls_asked_in_clear_is_an_outage_within_a_second(
    secure_port: Callable[[str, bool], "asyncio.Future[int]"],
) -> None:
    port = await secure_port("localhost", True)
    store = await open_session_store(f"redis://localhost:{port}", SETTINGS, worker=True)
    try:
        async with asyncio.timeout(1.5):
            with pytest.raises(AuthUnavailable):
                await store.find(digest("cookie"))
    finally:
        await store.close()
