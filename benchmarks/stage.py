"""Where the proxies under test stand: an upstream, a store, an auth server, and their processes."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import doorward
from benchmarks.measure import OTHER_CORE, pinned
from benchmarks.peers import Ground, Peer


class Stage:
    """An upstream, a store with a session in it, and room for proxies."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.upstream, self.auth, self.store = free_port(), free_port(), free_port()
        self._grounds = 0

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator["Stage"]:
        """Start everything, and stop it at the end of the block."""
        with contextlib.ExitStack() as stack:
            base = Path(tempfile.mkdtemp(prefix="doorward-bench-"))
            base.chmod(0o755)  # nginx's workers are nobody
            stack.callback(shutil.rmtree, base, ignore_errors=True)
            stage = cls(base)
            backend = serve_backend(base / "backend", stage.upstream, stage.auth)
            stack.enter_context(running(backend, OTHER_CORE, base / "backend.log"))
            store = doorward.store_command(base / "store", stage.store)
            stack.enter_context(running(store, OTHER_CORE, base / "store.log"))
            wait_for(stage.upstream)
            wait_for(stage.store)
            doorward.fill_store(stage.store)
            yield stage

    def ground(self) -> Ground:
        """Return room for one more proxy."""
        self._grounds += 1
        directory = self.base / f"peer{self._grounds}"
        return Ground(directory, self.upstream, self.store, self.auth, free_port())


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, *, seconds: float = 30) -> None:
    """Return when somebody accepts connections on *port*; raise `TimeoutError` otherwise."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def wait_until_it_answers(url: str, fields: Mapping[str, str], *, seconds: float = 30) -> None:
    """Return when a GET of *url* is answered with 200; raise `TimeoutError` otherwise."""
    deadline = time.monotonic() + seconds
    request = urllib.request.Request(url, headers=dict(fields))  # noqa: S310 - a loopback address
    failure = ""
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=2):  # noqa: S310 - the same
                return
        except OSError as error:  # HTTPError is one
            failure = str(error)
        time.sleep(0.05)
    raise TimeoutError(f"no good answer from {url}: {failure}")


def signed_in(peer: Peer, port: int) -> Peer:
    """Return *peer*, which has been started, when it gives good answers on *port*.

    Raises:
        TimeoutError: it gives none. OSError, RuntimeError: nobody could sign in.
    """
    wait_for(port)
    if peer.sign_in is not None:
        peer = peer._replace(fields=peer.sign_in())
    wait_until_it_answers(f"http://127.0.0.1:{port}{peer.path}", peer.fields)
    return peer


@contextlib.contextmanager
def running(command: list[str], core: str, log: Path, **environment: str) -> Iterator[int]:
    """Run *command* pinned to *core* while the block lasts; yield its process id."""
    with log.open("ab") as sink:
        process = subprocess.Popen(
            pinned(command, core), stdout=sink, stderr=sink, env={**os.environ, **environment}
        )
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def serve_backend(directory: Path, port: int, auth_port: int) -> list[str]:
    """Write the upstream, nginx with a constant answer of 400 bytes, and an auth server's."""
    directory.mkdir(parents=True)
    body = json.dumps({"notes": ["milk"] * 44, "of": "u1", "padding": "x" * 12})
    (directory / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{port}; default_type application/json;
    location / {{ return 200 '{body}'; }}
    location = /public/big {{ alias {directory}/big; sendfile on; default_type text/plain; }} }}
  server {{ listen 127.0.0.1:{auth_port};
    location / {{ add_header X-Auth-Subject u1; add_header X-Auth-Roles editor,member;
      return 200 ''; }} }}
}}
"""
    )
    return ["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")]
