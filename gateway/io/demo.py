"""The demo of `make run`: the notes example as an upstream, and two accounts to sign in with."""

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from auth.login.accounts import AccountError
from auth.login.assembly import open_accounts
from config.model import Configuration, Endpoint, Login

PASSWORD_FILE = "demo-password"  # noqa: S105 - a file's name
UPSTREAM = "notes"
READY_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1


class DemoError(Exception):
    """The demo cannot run; the message says what to do."""


class DemoAccount(msgspec.Struct, frozen=True):
    """Somebody to sign in as."""

    login: str
    name: str
    roles: tuple[str, ...]


DEMO_ACCOUNTS = (
    DemoAccount("demo", "Demo Person", ("member",)),
    DemoAccount("admin", "Demo Admin", ("member", "admin")),
)


def add_demo_accounts(login: Login, data_directory: Path) -> str:
    """Create what is missing of the demo accounts; return the password they have.

    It is made once per data directory and kept there, readable by its owner only: an address that
    the outside can reach must not have a password that everybody knows.

    Raises:
        DemoError: the accounts cannot be opened.
    """
    file = data_directory / PASSWORD_FILE
    if not file.exists():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(12))
    password = file.read_text("utf-8").strip()
    try:
        accounts = open_accounts(login, data_directory)
        try:
            for account in DEMO_ACCOUNTS:
                with suppress(AccountError):  # it is there already
                    accounts.add(account.login, password, name=account.name, roles=account.roles)
        finally:
            accounts.close()
    except AccountError as error:
        raise DemoError(str(error)) from error
    return password


class DemoService:
    """The notes example as a child process that ends with this one."""

    def __init__(self, configuration: Configuration, data_directory: Path) -> None:
        upstream = configuration.upstreams.get(UPSTREAM)
        if upstream is None or upstream.endpoints[0].scheme != "http":
            raise DemoError(f"--demo needs an upstream {UPSTREAM!r} with an http address")
        self._endpoint = upstream.endpoints[0]
        self._data = data_directory / "notes.sqlite3"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the service and return when it takes connections.

        Raises:
            DemoError: somebody else has its port, or it ended at once.
        """
        address = f"{self._endpoint.host}:{self._endpoint.port}"
        if _answers(self._endpoint):
            raise DemoError(f"something else listens on {address}, where the demo should: stop it")
        parent = os.getpid()
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [
                # examples/notes, under the name that pyproject.toml gives it
                *(sys.executable, "-m", "gateway.notes"),
                *("--listen", address, "--data", str(self._data)),
            ],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the gateway, which stops us last
            preexec_fn=lambda: _end_with(parent),  # noqa: PLW1509 - one thread, before any loop
        )
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(self._endpoint):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise DemoError("the demo service did not start; see what it wrote above")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _answers(endpoint: Endpoint) -> bool:
    try:
        socket.create_connection((endpoint.host, endpoint.port), timeout=1).close()
    except OSError:
        return False
    return True


def _end_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent. Runs between fork and exec."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
