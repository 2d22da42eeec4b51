import socket

import pytest

from config.model import Address
from gateway.io.listening import CannotListenError, address_of, listening_sockets


def test_all_sockets_share_one_port_and_each_takes_connections() -> None:
    listeners = listening_sockets(Address("127.0.0.1", 0), 2, setting="server.listen")
    address = address_of(listeners[0])
    assert address.port != 0
    assert address_of(listeners[1]) == address
    accepted = [0, 0]
    clients = [socket.create_connection((address.host, address.port)) for _ in range(40)]
    for number, listener in enumerate(listeners):
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            accepted[number] += 1
    assert sum(accepted) == 40
    assert all(accepted)
    for opened in (*listeners, *clients):
        opened.close()


def test_an_ipv6_address_is_listened_on() -> None:
    (listener,) = listening_sockets(Address("::1", 0), 1, setting="server.listen")
    assert str(address_of(listener)).startswith("[::1]:")
    listener.close()


def test_a_second_gateway_does_not_quietly_take_half_of_the_connections() -> None:
    (listener,) = listening_sockets(Address("127.0.0.1", 0), 1, setting="server.listen")
    with pytest.raises(CannotListenError, match=r"server\.listen: cannot listen on 127\.0\.0\.1:"):
        listening_sockets(address_of(listener), 1, setting="server.listen")
    listener.close()


def test_an_address_of_another_machine_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(CannotListenError, match=r"admin\.listen: cannot listen on 192\.0\.2\.1:80"):
        listening_sockets(Address("192.0.2.1", 80), 1, setting="admin.listen")
