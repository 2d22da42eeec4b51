"""A relay between a gateway and the store that fails in chosen ways."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Gate:
    """One direction: while it is held, bytes gather; released, they go on in one piece."""

    def __init__(self) -> None:
        self._held = False
        self._gathered: dict[asyncio.StreamWriter, bytearray] = {}

    def hold(self) -> None:
        self._held = True

    def release(self) -> None:
        self._held = False
        for writer, data in self._gathered.items():
            writer.write(bytes(data))
        self._gathered.clear()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._held:
                self._gathered.setdefault(writer, bytearray()).extend(data)
            else:
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError


class Relay:
    """Listens on a port of its own and passes bytes on to *port*, until told otherwise."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.to_store = Gate()
        self.from_store = Gate()
        self.refuse = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuse:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers |= {writer, store_writer}
            with contextlib.suppress(ConnectionError):
                await asyncio.gather(
                    self.to_store.pass_on(reader, store_writer),
                    self.from_store.pass_on(store_reader, writer),
                )
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            for each in (writer, store_writer):
                each.transport.abort()
                self._writers.discard(each)
            self._tasks.discard(task)
