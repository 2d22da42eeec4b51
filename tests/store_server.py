"""Which Redis or Valkey the tests run: the one that a gateway would, or another by environment.

`DOORWARD_TEST_SERVER=/path/to/redis-server` has every test, and every gateway that a test starts,
run that one instead of what stands on the PATH or came with the wheel.
"""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import redis.asyncio

from auth.io.address import parse_store_url
from auth.io.embedded import find_server
from auth.io.locating import command_client

CHOSEN = os.environ.get("DOORWARD_TEST_SERVER", "")


def put_first(server: str, directory: Path) -> str:
    """Return a PATH on which *server* is what a gateway finds: by a link in *directory*."""
    # The name that is looked for first. In Debian the server is the file redis-check-rdb as well,
    # and does what its name says.
    (directory / "valkey-server").symlink_to(Path(server).resolve())
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


@cache
def described(server: str) -> str:
    """Return what *server* says of itself, as "Valkey server v=8.1.4"."""
    command = [server, "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return said.partition(" sha=")[0]


def version(server: str) -> tuple[int, ...]:
    """Return the version of *server*, as (7, 0, 15)."""
    found = re.search(r" v=(\d+)\.(\d+)\.(\d+)", described(server))
    assert found, f"{server} says of itself: {described(server)}"
    return tuple(map(int, found.groups()))


def with_debugging() -> tuple[str, ...]:
    """Return the options with which the server takes DEBUG; before 7.0 it always does."""
    return ("--enable-debug-command", "yes") if version(find_server()) >= (7,) else ()


def tracks() -> bool:
    """Whether the server is one that a gateway keeps copies of (`auth.io.link`)."""
    return version(find_server()) >= (6, 2, 7)


def find_server_with_tls() -> str | None:
    """Return the path of a server that was built with TLS; the wheel's was not.

    Debian's is in the package redis-tools; it needs no other.
    """
    for each in (find_server(), shutil.which("redis-check-rdb")):
        if each is not None and b"SSL_CTX_new" in Path(each).read_bytes():
            return each
    return None


def nowhere() -> redis.asyncio.Redis:
    """Return a client, such as gateways have, of a store that nobody runs."""
    return command_client(parse_store_url("unix:///nowhere/store.sock"))
