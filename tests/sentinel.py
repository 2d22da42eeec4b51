"""A store that a real Sentinel watches: a primary, a replica, and passwords everywhere."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

from auth.io.embedded import EmbeddedStore, find_server
from config.model import Certificate
from tests.end_to_end.running import free_port

PASSWORD = "a-password-of-the-store"
SENTINEL_PASSWORD = "a-password-of-sentinel"
_PATIENCE = 30.0
# Nobody may do anything without a name, but be asked whether the server is up.
# Without TRACKING it would have no cache: before 7.0 the whole of CLIENT is an administrator's.
_RIGHTS = "~doorward:* resetchannels &doorward:* +@all -@admin +info +client|tracking"
_USERS = (
    ("default", "on", "nopass", "resetkeys", "-@all", "+ping"),
    ("doorward", "on", f">{PASSWORD}", *_RIGHTS.split()),
    ("replica", "on", f">{PASSWORD}", "+psync", "+replconf", "+ping"),
    ("admin", "on", f">{PASSWORD}", "~*", "&*", "+@all"),
)


class WatchedStore:
    """Two servers and one sentinel; either server may be the primary. Start it on a main thread."""

    def __init__(
        self, directory: Path, *, tls: Certificate | None = None, down_after: float = 0.5
    ) -> None:
        self._directory = directory
        self._down_after = round(down_after * 1000)
        self._tls = tls
        self._ports = [free_port(), free_port()]
        self._sentinel_port = free_port()
        self._servers: list[EmbeddedStore] = []
        self._sentinel: subprocess.Popen[bytes] | None = None
        self._primary = 0
        self._clients = [self._client(port) for port in self._ports]

    def start(self) -> str:
        """Start everything, wait until the replica follows, and return the store's URL."""
        self._servers = [self._launch(0), self._launch(1, replica_of=0)]
        configuration = self._directory / "sentinel.conf"
        configuration.write_text(
            f"{self._listening(self._sentinel_port)}bind 127.0.0.1\ndir {self._directory}\n"
            f"requirepass {SENTINEL_PASSWORD}\n"
            f"sentinel monitor main 127.0.0.1 {self._ports[0]} 1\n"
            "sentinel auth-user main admin\n"
            f"sentinel auth-pass main {PASSWORD}\n"
            f"logfile {self._directory / 'sentinel.log'}\n"
            f"sentinel down-after-milliseconds main {self._down_after}\n"
            "sentinel failover-timeout main 3000\n"
        )
        self._sentinel = subprocess.Popen(
            [find_server(), str(configuration), "--sentinel"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait("sentinel finds the replica", self._knows_replica)
        query = f"sentinel_password={SENTINEL_PASSWORD}" + ("&tls=true" if self._tls else "")
        where = f"127.0.0.1:{self._sentinel_port}/main"
        return f"redis+sentinel://doorward:{PASSWORD}@{where}?{query}"

    def stop(self) -> None:
        """Stop everything."""
        for client in self._clients:
            client.close()
        if self._sentinel is not None:
            self._sentinel.terminate()
            self._sentinel.wait()
        for server in self._servers:
            server.stop()

    @property
    def primary(self) -> redis.Redis:
        """A client of the primary, as its administrator."""
        return self._clients[self._primary]

    @property
    def replica(self) -> redis.Redis:
        """A client of the replica, as its administrator."""
        return self._clients[1 - self._primary]

    @property
    def pid(self) -> int:
        """The primary's process."""
        found = self._servers[self._primary].pid
        assert found is not None
        return found

    @property
    def port(self) -> int:
        """The primary's port."""
        return self._ports[self._primary]

    def lose_replication(self) -> None:
        """From now on the replica hears of nothing; gateways notice nothing of that."""
        self.primary.acl_setuser("replica", enabled=False)
        command: Any = self.primary.execute_command
        command("CLIENT", "KILL", "TYPE", "replica")

    def kill_primary(self) -> None:
        """End the primary at once."""
        os.kill(self.pid, signal.SIGKILL)
        self._servers[self._primary].stop()
        self._primary = 1 - self._primary

    def promoted(self) -> bool:
        """Whether the other server is the primary by now."""
        role: Any = self.primary.role()
        return bool(role[0] == b"master")

    def revive(self) -> None:
        """Start the server that was killed, as a replica of the one that took over."""
        follower = 1 - self._primary
        self._servers[follower] = self._launch(follower, replica_of=self._primary)

    def wait_promoted(self) -> None:
        """Wait until Sentinel has made the other server the primary."""
        self._wait("the failover", self.promoted)

    @property
    def failovers(self) -> int:
        """How many there have been, also such as nobody asked for."""
        return (self._directory / "sentinel.log").read_text().count("+switch-master")

    def wait_in_step(self) -> None:
        """Wait until Sentinel knows a replica that follows the primary."""
        self._wait("the replica", self._knows_replica)

    def client(self) -> redis.asyncio.Redis:
        """Return a client of the server that is the primary now, as its administrator."""
        return redis.asyncio.Redis(
            port=self.port, username="admin", password=PASSWORD, protocol=2, socket_timeout=5
        )

    def _launch(self, number: int, *, replica_of: int | None = None) -> EmbeddedStore:
        options = ["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
        options += ["--masteruser", "replica", "--masterauth", PASSWORD]
        for line in self._listening(self._ports[number]).splitlines():
            name, value = line.split(" ", 1)
            options += [f"--{name}", value]
        for user in _USERS:
            options += ["--user", *user]
        if replica_of is not None:
            options += ["--replicaof", "127.0.0.1", str(self._ports[replica_of])]
        server = EmbeddedStore(self._directory / str(number), options=tuple(options))
        server.start()
        return server

    def _listening(self, port: int) -> str:
        """Return the lines of a configuration that listens on *port*, with TLS or without."""
        if self._tls is None:
            return f"port {port}\n"
        cert, key = self._tls.cert_file, self._tls.key_file
        files = f"tls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {cert}\n"
        return f"port 0\ntls-port {port}\n{files}tls-auth-clients no\ntls-replication yes\n"

    def _client(self, port: int, **options: Any) -> redis.Redis:
        options = {"username": "admin", "password": PASSWORD, "socket_timeout": 5, **options}
        if self._tls is not None:
            options |= {"ssl": True, "ssl_ca_certs": self._tls.cert_file}
        return redis.Redis(host="127.0.0.1", port=port, protocol=2, **options)

    def _knows_replica(self) -> bool:
        port, password = self._sentinel_port, SENTINEL_PASSWORD
        with self._client(port, username=None, password=password) as sentinel:
            (replica,) = sentinel.sentinel_slaves("main")
            master: Any = sentinel.sentinel_get_master_addr_by_name("main")
        follows = replica["master-link-status"] == "ok" and replica["port"] != self.port
        return bool(follows and master[1] == self.port)

    @staticmethod
    def _wait(what: str, condition: Callable[[], bool]) -> None:
        until, problem = time.monotonic() + _PATIENCE, ""
        while True:
            try:
                if condition():
                    return
            except (redis.RedisError, ValueError) as error:
                problem = str(error)
            assert time.monotonic() < until, f"{what} took too long: {problem}"
            time.sleep(0.05)


@contextmanager
def watched_store(directory: Path, *, tls: Certificate | None = None) -> Iterator[WatchedStore]:
    """Make a store that is stopped when the block ends."""
    store = WatchedStore(directory, tls=tls)
    try:
        yield store
    finally:
        store.stop()
