# ruff: noqa: T201 - a program that talks over its output
"""Many slow clients, as a program: `slow_clients.py PORT COUNT`.

It opens the connections, says `ready`, and sends a byte on some of them every second. For each
line on its standard input it says how many the gateway has closed; it ends with its input.
"""

import select
import socket
import sys
import threading
import time
from contextlib import suppress

BEGINNINGS = {
    "head": b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ",
    "body": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
    "form": b"POST /.doorward/login HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\nusername=",
    "read": b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n",
    "nothing": b"",
}
TALKING = ("head", "body", "form")


def main() -> None:
    port, count = map(int, sys.argv[1:])
    kinds = list(BEGINNINGS)
    clients: list[socket.socket] = []
    talking: list[socket.socket] = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        client.send(BEGINNINGS[kind])
        clients.append(client)
        if kind in TALKING:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            talking.append(client)

    over = threading.Event()

    def talk() -> None:
        while not over.wait(0.05):
            begin = time.monotonic()
            for at, client in enumerate(talking):
                with suppress(OSError):
                    client.send(b"x")
                if at % 30 == 29:  # spread over the second, as strangers are
                    time.sleep(0.9 * 30 / len(talking))
            over.wait(max(0.0, 1.0 - (time.monotonic() - begin)))

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(sum(map(is_closed, clients)), flush=True)
    over.set()


def is_closed(client: socket.socket) -> bool:
    # The end of what a client has not read lies behind it, so the kernel is asked instead.
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return bool(poll.poll(0))


if __name__ == "__main__":
    main()
