"""New connections: accepted in numbers, and turned away for next to nothing where there is no room.

How this works: the loop's own servers are not used, because uvloop's accept one connection in a
turn of the loop (libuv 1.45 and later). A turn is long when there is a lot to do, so under load
new clients would wait for seconds in the kernel's queue, and beyond it be dropped, while those who
are connected are served. Here up to `ACCEPTED_A_TURN` are taken each turn. Who is over a limit is
turned away on the bare socket, before a transport, a parser or a TLS handshake is paid for.
"""

import asyncio
import logging
import socket
import ssl
import struct
from functools import partial
from typing import TYPE_CHECKING

from auth.decision import Reason
from auth.io.tasks import stop
from gateway.io.answering import answer_bytes
from gateway.responses import answer_error

if TYPE_CHECKING:
    from gateway.io.connection import Server
    from gateway.io.serving import Serving

ACCEPTED_A_TURN = 64
"""So that those who are connected get their turn: 64 new ones cost a few milliseconds."""

HANDSHAKE_SECONDS = 10.0
"""Time limit of a TLS handshake."""

PAUSE_SECONDS = 1.0
"""How long nothing is accepted when there is no descriptor or memory for it, as in asyncio."""

_RESET = struct.pack("ii", 1, 0)

_log = logging.getLogger(__name__)


class Acceptor:
    """Accepts from *listener*, which listens already, until it is closed."""

    def __init__(
        self,
        listener: socket.socket,
        serving: "Serving",
        server: "Server",
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Begin; *server* makes the protocols, with *tls* behind a handshake."""
        self._listener = listener
        self._serving = serving
        self._server = server
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept)

    def stop(self) -> None:
        """Accept nothing more."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def close(self) -> None:
        """Stop, and give up the handshakes that are under way."""
        self.stop()
        await stop(*self._beginning)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_A_TURN):
            try:
                peer, address = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:  # it left while it was waiting
                continue
            except OSError as error:
                _log.error("connections cannot be accepted (%s); later again", error.strerror)
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(
                    PAUSE_SECONDS, self._loop.add_reader, self._listener, self._accept
                )
                return
            network = self._serving.take(address[0])
            if network is None:
                self._turn_away(peer)
                continue
            task = self._loop.create_task(self._begin(peer, address[0], network))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, peer: socket.socket, remote: str, network: str) -> None:
        timeout = HANDSHAKE_SECONDS if self._tls else None
        try:
            await self._loop.connect_accepted_socket(
                partial(self._server.protocol, remote, network),
                peer,
                ssl=self._tls,
                ssl_handshake_timeout=timeout,
            )
        except OSError:  # ssl.SSLError is one: a stranger's handshake is no news
            self._serving.give_back(network)
        except BaseException:
            self._serving.give_back(network)
            raise

    def _turn_away(self, peer: socket.socket) -> None:
        """Answer if that is cheap, and drop the connection otherwise."""
        lingering = self._serving.turned_away
        if lingering.full or self._tls is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            peer.close()
            return
        answer = answer_error(Reason.OVERLOADED, request_id="", close=True)
        data, _ = answer_bytes(answer, method="GET", keep=False)
        peer.setblocking(False)
        try:
            peer.send(data)
        except OSError:
            peer.close()
            return
        lingering.take(peer)
