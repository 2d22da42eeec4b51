"""A real cluster on loopback for tests: three primaries, replicas if a test asks for them."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

from auth.io.embedded import find_server
from auth.slots import SLOTS, slot_of, slot_of_tag
from config.model import Certificate

_PATIENCE = 20.0
NODE_TIMEOUT_MS = 500
# A busy machine must not look like a dead server: that would be a failover nobody asked for.
PATIENT_NODE_TIMEOUT_MS = 10_000


class Server:
    """One server process of the cluster."""

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        tls: Certificate | None = None,
        node_timeout_ms: int = NODE_TIMEOUT_MS,
    ) -> None:
        self.port = port
        self._node_timeout_ms = node_timeout_ms
        options: dict[str, Any] = (
            {} if tls is None else {"ssl": True, "ssl_ca_certs": tls.cert_file}
        )
        self.client = redis.Redis("127.0.0.1", port, protocol=2, socket_timeout=5, **options)
        self._tls = tls
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start the process; what it knew of the cluster it knows again."""
        self._directory.mkdir(exist_ok=True)
        command = [find_server(), "--bind", "127.0.0.1"]
        if self._tls is None:
            command += ["--port", str(self.port)]
        else:
            command += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            command += [
                "--tls-cert-file",
                self._tls.cert_file,
                "--tls-key-file",
                self._tls.key_file,
            ]
            command += ["--tls-ca-cert-file", self._tls.cert_file, "--tls-cluster", "yes"]
        command += ["--dir", str(self._directory), "--save", "", "--appendonly", "no"]
        command += ["--cluster-enabled", "yes"]  # its bus is 10,000 ports higher
        command += ["--cluster-node-timeout", str(self._node_timeout_ms)]
        # A shard that is down takes its own slots with it, and no others.
        command += ["--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"]
        command += ["--cluster-replica-validity-factor", "0"]
        # One that gave its last slot away stays what it is.
        command += ["--cluster-allow-replica-migration", "no", *options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(redis.RedisError):
                if self.client.ping():
                    return
            assert time.monotonic() < until
            time.sleep(0.01)

    @property
    def node(self) -> str:
        return str(self.command("CLUSTER", "MYID").decode())

    def command(self, *command: str | int) -> Any:
        """Send *command* to this server, whichever slots it has."""
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        """End the process at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def close(self) -> None:
        self.client.close()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


class Cluster:
    """Three primaries, each with a third of the slots, and as many *replicas*."""

    def __init__(
        self,
        directory: Path,
        *,
        replicas: bool = False,
        tls: Certificate | None = None,
        node_timeout_ms: int = NODE_TIMEOUT_MS,
    ) -> None:
        ports = _free_ports(6 if replicas else 3)
        servers = [
            Server(directory / str(port), port, tls=tls, node_timeout_ms=node_timeout_ms)
            for port in ports
        ]
        self.primaries = servers[:3]
        self.replicas = servers[3:]

    @property
    def servers(self) -> list[Server]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.servers)

    def start(self) -> None:
        """Start the servers and wait until they agree."""
        for server in self.servers:
            server.start()
        bounds = [SLOTS * third // 3 for third in range(4)]
        for number, server in enumerate(self.primaries):
            server.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            server.command("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
        for server in self.servers[1:]:
            server.command("CLUSTER", "MEET", "127.0.0.1", self.primaries[0].port)
        self._await(lambda: all(self._knows_all(server) for server in self.servers))
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            replica.command("CLUSTER", "REPLICATE", primary.node)
        self._await(lambda: all(_is_in_step(replica) for replica in self.replicas))
        self.await_agreement()

    def await_agreement(self) -> None:
        """Wait until every server says the same of every slot."""

        def agree() -> bool:
            said = {
                str(sorted(map(str, each.command("CLUSTER", "SLOTS")))) for each in self.servers
            }
            states = [each.command("CLUSTER", "INFO") for each in self.servers]
            return len(said) == 1 and all(b"cluster_state:ok" in each for each in states)

        self._await(agree)

    def _knows_all(self, server: Server) -> bool:
        info = server.command("CLUSTER", "INFO")
        return f"cluster_known_nodes:{len(self.servers)}".encode() in info

    def _await(self, is_so: Any) -> None:
        until = time.monotonic() + _PATIENCE
        while not is_so():
            assert time.monotonic() < until, "the cluster does not come together"
            time.sleep(0.02)

    def owner(self, slot: int) -> Server:
        """Return the primary that has *slot*, as it says itself."""
        for server in self.primaries:
            own = server.command("CLUSTER", "NODES").decode().split("myself")[1].splitlines()[0]
            for word in own.split(" ")[6:]:
                first, _, last = word.partition("-")
                if not word.startswith("[") and int(first) <= slot <= int(last or first):
                    return server
        raise AssertionError(f"nobody has the slot {slot}")

    def at(self, key: str) -> redis.Redis:
        """Return a plain client of the server that has *key*."""
        return self.owner(slot_of(key)).client

    def move(self, slot: int, target: Server) -> None:
        """Give *slot* to *target* as the documentation says."""
        source = self.begin_move(slot, target)
        self.move_keys(slot, source, target)
        self.end_move(slot, source, target)

    def begin_move(self, slot: int, target: Server) -> Server:
        """Mark the slot at both ends; from now on what is not there is asked for at *target*."""
        source = self.owner(slot)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node)
        return source

    def move_keys(self, slot: int, source: Server, target: Server) -> None:
        while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.client.execute_command(  # type: ignore[no-untyped-call]
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys
            )

    def end_move(self, slot: int, source: Server, target: Server) -> None:
        """Tell everybody, the new owner first."""
        node = target.node
        others = [each for each in self.primaries if each not in (source, target)]
        for server in (target, source, *others):
            server.command("CLUSTER", "SETSLOT", slot, "NODE", node)

    def lose_replication(self, number: int) -> None:
        """Have the replica of shard *number* stand still, and not be sent what is written now."""
        self.replicas[number].signal(signal.SIGSTOP)
        # What its kernel has received it will read; so it must not receive any more.
        self.primaries[number].command("CLIENT", "KILL", "TYPE", "replica")

    def fail_over(self, number: int) -> None:
        """End the primary of shard *number* at once, and have its replica elected."""
        primary, replica = self.primaries[number], self.replicas[number]
        primary.kill()
        replica.signal(signal.SIGCONT)
        # Not TAKEOVER: the other primaries vote, as they do when they notice for themselves.
        replica.command("CLUSTER", "FAILOVER", "FORCE")
        self._await(lambda: b"myself,master" in replica.command("CLUSTER", "NODES"))
        self.primaries[number], self.replicas[number] = replica, primary

    def revive(self, number: int) -> None:
        """Start the server of shard *number* that was killed; it is a replica from now on."""
        self.replicas[number].start()
        self._await(lambda: _is_in_step(self.replicas[number]))
        self.await_agreement()

    def spare(self, directory: Path) -> Server:
        """Start one more primary; it has no slot yet."""
        server = Server(directory, _free_ports(1)[0])
        server.start()
        self.primaries.append(server)
        server.command("CLUSTER", "MEET", "127.0.0.1", self.primaries[0].port)
        self._await(lambda: all(self._knows_all(each) for each in self.servers))
        self._await(lambda: b"cluster_state:ok" in server.command("CLUSTER", "INFO"))
        return server

    def forget(self, server: Server) -> None:
        """Take what `spare` started out of the cluster."""
        node = server.node
        self.primaries.remove(server)
        server.close()
        for each in self.servers:
            each.command("CLUSTER", "FORGET", node)

    def flush(self) -> None:
        for server in self.primaries:
            server.command("FLUSHALL")

    def close(self) -> None:
        for server in self.servers:
            server.close()


def _is_in_step(replica: Server) -> bool:
    replication: dict[str, object] = replica.client.info("replication")
    return replication.get("master_link_status") == "up"


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now, and whose cluster bus port (10,000 above) is too."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            probe, bus = (stack.enter_context(socket.socket()) for _ in range(2))
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + 10_000))
                found.append(port)
    return found


async def in_thread(function: Any, *arguments: Any) -> Any:
    """Do what blocks beside the loop."""
    return await asyncio.to_thread(function, *arguments)


def shard_of(tag: str) -> int:
    """Return the number of the primary that has *tag* before anything is moved."""
    return slot_of_tag(tag) * 3 // SLOTS
