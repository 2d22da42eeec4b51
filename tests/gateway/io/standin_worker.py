"""A worker with nothing in it: it answers every request with its process and its generation.

The lifecycle of processes is tested with it; `tests/wire` does the same with the real one.
"""

import asyncio
import os
import socket
import sys
from pathlib import Path

from gateway.io.control import (
    Command,
    Commit,
    Drain,
    Measure,
    Prepare,
    Result,
    Start,
    serve_commands,
)
from gateway.io.metrics import Measurement
from gateway.io.packing import unpack_configuration


class StandIn:
    def __init__(self) -> None:
        self.directory = Path()
        self.listener = -1
        self.generation = 0
        self.requests = 0
        self.server: asyncio.Server | None = None
        self.over = asyncio.Event()

    async def perform(self, command: Command) -> Result:
        match command:
            case Start():
                self.directory = Path(command.data_directory)
                self.listener = command.listener
            case Prepare():
                if (self.directory / f"refuse-{command.generation}").exists():
                    raise ValueError("this generation is not for us")
                unpack_configuration(command.configuration)
            case Commit():
                self.generation = command.generation
                if self.server is None:
                    await self.listen()
            case Measure():
                lost = (self.directory / "store-lost").exists()
                numbers = {"request_bytes": self.requests, "store_connected": not lost}
                return Measurement({name: float(number) for name, number in numbers.items()}, {})
            case Drain():
                if not (self.directory / "never-ends").exists():
                    self.over.set()
        return None

    async def listen(self) -> None:
        listener = socket.socket(fileno=self.listener)
        listener.setblocking(False)
        self.server = await asyncio.start_server(self.answer, sock=listener)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        body = f"{os.getpid()} {self.generation}".encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )
        await writer.drain()
        writer.close()


async def main() -> None:
    worker = StandIn()
    end = socket.socket(fileno=int(sys.argv[1]))
    end.setblocking(False)
    commands = asyncio.create_task(serve_commands(end, worker.perform))
    over = asyncio.create_task(worker.over.wait())
    await asyncio.wait((commands, over), return_when=asyncio.FIRST_COMPLETED)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
