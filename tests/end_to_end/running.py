"""A running `doorward run`, as an operator starts it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOORWARD = Path(sys.executable).parent / "doorward"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
READY_SECONDS = 60.0

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Arguments with which a headless Chromium keeps to itself."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Gateway:
    """A running `doorward run`, and what it has said so far."""

    def __init__(self, directory: Path, *arguments: str, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.access_log = directory / "access.log"
        self.process = subprocess.Popen(
            [str(DOORWARD), "run", "--config", str(directory / "routes.yaml"), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "DOORWARD_ACCESS_LOG": str(self.access_log), **environment},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._said(r"Public address: (\S+)")
        self.admin_url = self._said(r"Admin address: +(\S+)")
        self._said(r"Ctrl-C stops it")

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def _said(self, pattern: str) -> str:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for line in tuple(self.lines):
                if found := re.search(pattern, line):
                    return found[1] if found.re.groups else found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.stop()
        raise AssertionError(f"the gateway never said {pattern!r}:\n{''.join(self.lines)}")

    @property
    def demo_password(self) -> str:
        """The password of the demo accounts, as printed."""
        return self._said(r"Demo sign-in: +demo +password (\S+)")

    def reload(self) -> None:
        """Ask for a reload, as `kill -HUP` does."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        with suppress(RuntimeError):
            self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.returncode


StartGateway = Callable[..., Gateway]
