"""A real gateway as processes, and a backend that says what it was told."""

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "an-admin-token-for-tests"
_ROUTES = """
version: 1
server: {{listen: "127.0.0.1:0", workers: {workers}}}
admin: {{listen: "127.0.0.1:0", token: {token}}}
store: {{url: embedded}}
upstreams:
  app: http://127.0.0.1:{backend}
routes:
  - {{id: public, match: {{path: /public/*}}, upstream: app, access: public}}
  - {{id: private, match: {{path: /private/*}}, upstream: app, access: signed-in}}
"""


class Answered:
    """A response that has been read."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.fields = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    *,
    body: object = None,
    **fields: str,
) -> Answered:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        content = None if body is None else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request(method, path, body=content, headers=named)
        return Answered(connection.getresponse())
    finally:
        connection.close()


class Backend(BaseHTTPRequestHandler):
    """Answers with the subject it was told.

    `/…/slow` waits until the test opens the gate, `/…/stream` does so after the first byte.
    """

    protocol_version = "HTTP/1.1"
    gate = threading.Event()
    reached = threading.Event()

    def do_GET(self) -> None:
        if self.path.endswith("/slow"):
            self.reached.set()
            self.gate.wait(20)
        body = (self.headers.get("X-Auth-Subject") or "nobody").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path.endswith("/stream"):
            self.wfile.write(body[:1])
            self.wfile.flush()
            self.reached.set()
            self.gate.wait(20)
            body = body[1:]
        with suppress(ConnectionError):  # the gateway has cut it, and a test sees that
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@contextmanager
def backend() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        Backend.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


class GatewayProcess:
    """`doorward run` in a directory of its own."""

    def __init__(self, directory: Path, backend_port: int, *, workers: int = 1) -> None:
        self.directory = directory
        self.file = directory / "routes.yaml"
        self.file.write_text(_ROUTES.format(workers=workers, token=TOKEN, backend=backend_port))
        self.errors = directory / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "--config", str(self.file)],
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                text=True,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self.access_log: list[dict[str, Any]] = []
        self._reading = threading.Thread(target=self._read_output)
        self._reading.start()
        self.port = self._await_port(r"is ready on http://127\.0\.0\.1:(\d+)")
        self.admin_port = self._await_port(r"Admin address: +http://127\.0\.0\.1:(\d+)")

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self.access_log.append(json.loads(line))
            else:
                self._lines.put(line)

    def _await_port(self, pattern: str) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                assert self.process.poll() is None, self.errors.read_text()
                continue
            if found := re.search(pattern, line):
                return int(found[1])
        raise AssertionError(f"no line like {pattern}: {self.errors.read_text()}")

    def admin(self, method: str, path: str, *, body: object = None) -> Answered:
        return request(self.admin_port, method, path, body=body, Authorization=f"Bearer {TOKEN}")

    def status(self) -> Any:
        return self.admin("GET", "/api/status").json

    def sign_in(self, subject: str) -> tuple[str, str]:
        """Create a session; return the value of `Cookie` and the session's digest."""
        answer = self.admin("POST", "/api/sessions", body={"subject": subject})
        assert answer.status == 201, answer.body
        cookie = answer.json["cookie"]
        return f"{cookie['name']}={cookie['value']}", answer.json["id"]

    def worker_pids(self) -> list[int]:
        return [worker["process"] for worker in self.status()["workers"]]

    def store_pid(self) -> int:
        return int((self.directory / ".doorward" / "store.pid").read_text())

    def wait(self) -> int:
        code = self.process.wait(30)
        self._reading.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()


def run_cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def is_running(process: int) -> bool:
    """Whether the process exists and is no zombie that only waits to be counted."""
    try:
        state = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def eventually(holds: Callable[[], bool], *, within: float = 15.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def takes_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
