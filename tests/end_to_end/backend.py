"""A backend that tells what it was sent, and sends what it is asked for."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web

BLOCK = bytes(range(256)) * 256


async def echo(request: web.Request) -> web.StreamResponse:
    """Answer with the request line, fields and content, as JSON."""
    seen = {
        "method": request.method,
        "target": request.raw_path,
        "fields": [[name, value] for name, value in request.headers.items()],
        "content": (await request.read()).decode("latin-1"),
    }
    return web.json_response(seen)


async def swallow(request: web.Request) -> web.Response:
    """Answer with the length and digest of the content."""
    length, content = 0, hashlib.sha256()
    async for block in request.content.iter_any():
        length += len(block)
        content.update(block)
    return web.json_response({"length": length, "sha256": content.hexdigest()})


async def pour(request: web.Request) -> web.StreamResponse:
    """Send as many MiB as the query asks for; `app["poured"]` counts what has been written."""
    response = web.StreamResponse()
    response.content_length = int(request.query["mib"]) * 1024 * 1024
    await response.prepare(request)
    for _ in range(response.content_length // len(BLOCK)):
        await response.write(BLOCK)
        request.app[POURED].append(len(BLOCK))
    return response


async def tick(request: web.Request) -> web.StreamResponse:
    """Send an event each time the test puts one into the queue."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        event = await request.app[EVENTS].get()
        await response.write(f"data: {event}\n\n".encode())


async def repeat(request: web.Request) -> web.WebSocketResponse:
    """Echo WebSocket messages."""
    socket = web.WebSocketResponse(max_msg_size=8 * 1024 * 1024)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


POURED = web.AppKey("poured", list[int])
EVENTS = web.AppKey("events", asyncio.Queue[str])


class Backend:
    """A running backend."""

    def __init__(self, app: web.Application, port: int) -> None:
        self._app = app
        self.url = f"http://127.0.0.1:{port}"

    @property
    def poured(self) -> int:
        """How many bytes `/pour` has handed to its socket."""
        written = self._app[POURED]
        return sum(written)

    def send_event(self, event: str) -> None:
        """Have `/tick` send *event*."""
        self._app[EVENTS].put_nowait(event)


@asynccontextmanager
async def running_backend() -> AsyncIterator[Backend]:
    """Run a backend on a free port for as long as the block lasts."""
    app = web.Application(client_max_size=1 << 31)
    app[POURED] = []
    app[EVENTS] = asyncio.Queue()
    app.add_routes(
        [
            web.post("/swallow", swallow),
            web.get("/pour", pour),
            web.get("/tick", tick),
            web.get("/repeat", repeat),
            web.route("*", "/{tail:.*}", echo),
        ]
    )
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Backend(app, runner.addresses[0][1])
    finally:
        await runner.cleanup()


def sent_fields(body: str) -> dict[str, str]:
    """Return the fields that `/` saw, by lower-case name."""
    return {name.lower(): value for name, value in json.loads(body)["fields"]}
