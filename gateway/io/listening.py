"""The listening sockets, one per worker on one port, made and kept open by the supervisor."""

import socket

from config.model import Address

BACKLOG = 1024
"""Connections that may wait in the kernel while a dead worker is being replaced."""

# A peer that vanished without a FIN: noticed after 30 + 3 * 10 s.
KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 30),
    (socket.TCP_KEEPINTVL, 10),
    (socket.TCP_KEEPCNT, 3),
)
"""Options of TCP, of clients' connections and of upstreams'."""


class CannotListenError(Exception):
    """The address cannot be used; the message says what to do."""


def listening_sockets(address: Address, count: int, *, setting: str) -> tuple[socket.socket, ...]:
    """Return *count* sockets that listen on *address*; the kernel spreads connections over them.

    They stay open in the supervisor, so that what waits in a worker's queue survives the worker.
    With port 0 all of them get the same free port. *setting* is how the operator calls the address.

    Raises:
        CannotListenError: somebody else listens there, or the address is not one of this machine.
    """
    sockets: list[socket.socket] = []
    try:
        family, *_, resolved = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With SO_REUSEPORT a second gateway would quietly take half of the connections, so ask
        # first without it.
        with _socket(family) as probe:
            probe.bind(resolved)
            taken = probe.getsockname()
        for _ in range(count):
            listener = _socket(family)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(taken)
            listener.listen(BACKLOG)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise CannotListenError(
            f"{setting}: cannot listen on {address} ({error.strerror or error}): "
            "stop what listens there, or choose another address"
        ) from error
    return tuple(sockets)


def address_of(listener: socket.socket) -> Address:
    """Return where *listener* really listens (its port is never 0)."""
    host, port, *_ = listener.getsockname()
    return Address(host, port)


def _socket(family: socket.AddressFamily | int) -> socket.socket:
    created = socket.socket(family, socket.SOCK_STREAM)
    created.setblocking(False)
    created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return created
