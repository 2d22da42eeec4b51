"""A supervisor over stand-in workers, for tests."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from config.model import (
    AccessRule,
    Address,
    Admin,
    Assertion,
    Configuration,
    Endpoint,
    IdentityHeaders,
    Login,
    Match,
    Route,
    Secret,
    Server,
    SessionSettings,
    Store,
    Upstream,
)
from config.problem import Problem
from gateway.io.listening import address_of, listening_sockets
from gateway.io.reload import Live, build_live
from gateway.io.supervisor import RunSettings, Supervisor

STANDIN = (sys.executable, str(Path(__file__).with_name("standin_worker.py")))


def configuration(*, workers: int = 2, path: str = "/*") -> Configuration:
    return Configuration(
        server=Server(
            listen=Address("127.0.0.1", 0), public_url="http://127.0.0.1:8080", workers=workers
        ),
        admin=Admin(listen=Address("127.0.0.1", 0)),
        store=Store(url=Secret("embedded")),
        session=SessionSettings(cookie_name="doorward", secure=False),
        login=Login(),
        tokens=(),
        identity=IdentityHeaders(fields=(), assertion=Assertion()),
        upstreams={"notes": Upstream("notes", (Endpoint("http", "127.0.0.1", 9001),))},
        routes=(Route("notes", Match(path), "notes", AccessRule("public")),),
    )


def live(of: Configuration) -> Live:
    built = build_live(of, 1)
    assert isinstance(built, Live)
    return built


class Gateway:
    """A supervisor over stand-ins, and the address it serves."""

    def __init__(self, supervisor: Supervisor, address: Address) -> None:
        self.supervisor = supervisor
        self.address = address

    async def get(self) -> tuple[int, int]:
        """Send a request; return the process and the generation that answered."""
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await reader.read()
        writer.close()
        process, generation = answer.rpartition(b"\r\n\r\n")[2].split()
        return int(process), int(generation)


@asynccontextmanager
async def gateway(
    directory: Path,
    *,
    workers: int = 2,
    load: Callable[[], Configuration | list[Problem]] | None = None,
    drain_seconds: float = 5.0,
) -> AsyncIterator[Gateway]:
    file = directory / "routes.yaml"
    file.write_text("version: 1\n")
    listeners = listening_sockets(Address("127.0.0.1", 0), workers, setting="server.listen")
    address = address_of(listeners[0])
    supervisor = Supervisor(
        live(configuration(workers=workers)),
        RunSettings(
            file=file,
            data_directory=directory,
            worker_command=STANDIN,
            drain_seconds=drain_seconds,
        ),
        load=load or (lambda: configuration(workers=workers)),
        store_url="unix:///nowhere",
        listeners=listeners,
    )
    await supervisor.start()
    try:
        yield Gateway(supervisor, address)
    finally:
        await supervisor.stop()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)
