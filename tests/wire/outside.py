"""A gateway that runs as a process of its own, and what a test may do to it from outside."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time

from tests.end_to_end.running import Gateway as Process
from tests.end_to_end.running import free_port
from tests.gateway.io.harness import Message, RawClient, Upstreams

TOKEN = "operators-token-0123456789"
IDENTITY = "{X-Auth-User: subject, X-Auth-Groups: groups, X-Auth-Email: email}"


class Outside:
    """A running `doorward run`."""

    def __init__(self, process: Process, port: int, admin_port: int) -> None:
        self.process = process
        self.port = port
        self.admin = f"http://127.0.0.1:{admin_port}"

    async def connect(self) -> RawClient:
        return RawClient(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self, request: bytes) -> Message:
        """Send *request* on a connection of its own and return the answer."""
        client = await self.connect()
        try:
            await client.send(request)
            return await client.receive(head_only=request.startswith(b"HEAD"))
        finally:
            await client.close()

    async def sign_in(self, subject: str, **more: object) -> str:
        """Begin a session as a login service does; return the cookie's value."""
        now = int(time())
        record = {"v": 1, "subject": subject, "created_at": now, "expires_at": now + 3600, **more}
        request = urllib.request.Request(
            f"{self.admin}/api/sessions",
            data=json.dumps(record).encode(),
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )

        def send() -> str:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return str(json.load(answer)["cookie"]["value"])

        return await asyncio.to_thread(send)


@asynccontextmanager
async def outside(
    directory: Path, backend: Upstreams, routes: str, *, server: str = "", more: str = ""
) -> AsyncIterator[Outside]:
    """Run a gateway in front of *backend*, with the given *routes*, as long as the block lasts."""
    port, admin_port = free_port(), free_port()
    (directory / "routes.yaml").write_text(
        f"""\
version: 1
server:
  listen: 127.0.0.1:{port}
  {server or f"public_url: http://127.0.0.1:{port}"}
admin: {{listen: 127.0.0.1:{admin_port}, token: {TOKEN}}}
identity: {{headers: {IDENTITY}}}
upstreams: {{app: "http://127.0.0.1:{backend.port}"}}
routes:
{routes}
{more}
"""
    )
    process = await asyncio.to_thread(Process, directory, environment={})
    try:
        yield Outside(process, port, admin_port)
    finally:
        assert await asyncio.to_thread(process.stop) == 0
