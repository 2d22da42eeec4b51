"""A real PostgreSQL that belongs to this test run, from wherever the distribution put it."""

import getpass
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import psycopg

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
INITDB = shutil.which("initdb") or (str(_BINARIES[-1]) if _BINARIES else None)
"""Debian keeps it off the PATH."""


class Postgres:
    """A server on a Unix socket, and schemas in it that keep tests apart."""

    def __init__(self, sockets: Path, process: "subprocess.Popen[bytes]") -> None:
        self._sockets = sockets
        self._process = process
        self._numbers = itertools.count()

    def new_url(self) -> str:
        """Return the URL of an empty database, as good as."""
        schema = f"test_{next(self._numbers)}"
        with psycopg.connect(self._url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}".encode())
        return self._url(options=f"-csearch_path={schema}")

    def wait(self) -> None:
        """Wait until it answers."""
        while True:
            assert self._process.poll() is None, "PostgreSQL ended"
            try:
                psycopg.connect(self._url()).close()
            except psycopg.OperationalError:
                continue  # starting up: a connection refused takes its own while
            return

    def _url(self, **parameters: str) -> str:
        where = {"host": str(self._sockets), "user": "doorward"} | parameters
        return f"postgresql:///postgres?{urlencode(where)}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server in a directory of its own, and stop it."""
    assert INITDB is not None
    # It refuses to run as root, and whoever it runs as must get through to its files.
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    account = pwd.getpwnam(user)
    with tempfile.TemporaryDirectory(prefix="doorward-pg-") as name:
        directory = Path(name)
        os.chown(directory, account.pw_uid, account.pw_gid)
        data = directory / "data"
        user_id, group_id = (account.pw_uid, account.pw_gid) if os.geteuid() == 0 else (None, None)
        options = ("--auth=trust", "--username=doorward", "--no-sync", "--encoding=UTF8")
        subprocess.run(
            [INITDB, "--pgdata", str(data), *options],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=directory,
            user=user_id,
            group=group_id,
        )
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    str(Path(INITDB).with_name("postgres")),
                    *("-D", str(data), "-k", str(directory)),
                    *("-c", "listen_addresses=", "-c", "fsync=off"),
                ],
                stderr=log,
                cwd=directory,
                user=user_id,
                group=group_id,
            )
        try:
            server = Postgres(directory, process)
            server.wait()
            yield server
        finally:
            process.terminate()
            process.wait(10)
