"""The database of the accounts: a port, and SQLite behind it (PostgreSQL: `auth.io.postgres`).

How this works. Statements are plain SQL that both databases understand, with named parameters
(`:subject`); whoever uses the port does not know which one is behind it. The words of the schema
are those of SQLite's STRICT tables: TEXT, INTEGER (64 bits), REAL (64 bits) and BLOB. A schema is
a sequence of versions, each a few statements; a database knows which it has, and is given the rest
when it is opened, by one of the processes that open it. Everything here blocks: call it in threads.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

_PATIENCE = 5.0
"""Seconds to wait for other processes that have the database."""

Row = tuple[Any, ...]
Versions = Sequence[Sequence[str]]
"""The statements that lead to version 1, to version 2, and so on."""


class DatabaseUnavailable(Exception):
    """The database could not be asked, or would not do it; the text is fit for a log."""


class Taken(Exception):
    """A value that may be there once is there already; nothing of the piece of work was done."""


class DatabaseTooNew(Exception):
    """A newer version of this program has written the database."""


class Connection(Protocol):
    """One piece of work on the database."""

    def execute(self, statement: str, /, **values: object) -> list[Row]:
        """Run *statement* with *values* for its parameters, and return the rows it gives.

        Raises:
            DatabaseUnavailable, Taken
        """
        ...


class Database(Protocol):
    """Where accounts live. Threads: any."""

    @property
    def name(self) -> str:
        """What messages call it; without a password."""
        ...

    def prepare(self, versions: Versions) -> None:
        """Bring the schema up to date, keeping what is there; any number of processes at once.

        Raises:
            DatabaseUnavailable, DatabaseTooNew
        """
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """Give a connection to read with."""
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """Give a connection whose statements count together, or not at all when one raises."""
        ...

    def close(self) -> None:
        """Let go of connections; nothing is under way any more."""
        ...


class SqliteDatabase:
    """A file, created (0600) when it is missing; several processes may have it open at once.

    A connection for each piece of work costs a fraction of a millisecond beside a hash of tens,
    belongs to one thread, and finds a file that was put back from a backup.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """See `Database.name`."""
        return str(self._path)

    def prepare(self, versions: Versions) -> None:
        """See `Database.prepare`."""
        try:
            # Before SQLite does, so that nobody but the owner can ever read it. Not by opening it:
            # to close a file lets go of all the locks that this process has on it.
            os.mknod(self._path, 0o600)
        except FileExistsError:
            pass
        except OSError as error:
            raise DatabaseUnavailable(str(error)) from error
        until = time.monotonic() + _PATIENCE
        while not self._keep_log_ahead():
            if time.monotonic() > until:
                raise DatabaseUnavailable(f"others have had it for {_PATIENCE} s")
            time.sleep(0.01)
        with self.writing() as connection:  # of several processes one does it
            ((version,),) = connection.execute("PRAGMA user_version")
            if version > len(versions):
                raise DatabaseTooNew(
                    f"{self.name} was written by a newer Doorward (version {version})"
                )
            for statements in versions[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(versions)}")

    def _keep_log_ahead(self) -> bool:
        """Let readers and a writer not wait for each other (WAL), which the file remembers.

        False: SQLite, which does not wait for it, met others that do the same to a new file.
        """
        try:
            with self.reading() as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        except DatabaseUnavailable as error:
            if getattr(error.__cause__, "sqlite_errorcode", 0) != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """See `Database.reading`."""
        try:
            raw = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None)
        except sqlite3.Error as error:
            raise DatabaseUnavailable(str(error)) from error
        try:
            connection = _SqliteConnection(raw)
            connection.execute("PRAGMA synchronous = FULL")  # who was disabled stays so
            yield connection
        finally:
            raw.close()  # rolls back what was not committed

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """See `Database.writing`."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")  # waits for another writer now, not half-way
            yield connection
            connection.execute("COMMIT")

    def close(self) -> None:
        """See `Database.close`."""


class _SqliteConnection:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, /, **values: object) -> list[Row]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorname in {
                "SQLITE_CONSTRAINT_UNIQUE",
                "SQLITE_CONSTRAINT_PRIMARYKEY",
            }:
                raise Taken(str(error)) from error
            raise DatabaseUnavailable(str(error)) from error
        except sqlite3.Error as error:
            raise DatabaseUnavailable(str(error)) from error


def open_database(url: str, file: Path) -> Database:
    """Return the database at *url* (`postgresql://…`), or *file* where *url* is empty.

    Raises:
        DatabaseUnavailable: what PostgreSQL needs is not installed, or *url* makes no sense.
    """
    if not url:
        return SqliteDatabase(file)
    try:
        from auth.io.postgres import PostgresDatabase  # noqa: PLC0415 - an extra that may be missing
    except ImportError as error:
        raise DatabaseUnavailable(
            "accounts in PostgreSQL need an extra: pip install 'doorward[postgresql]'"
        ) from error
    return PostgresDatabase(url)
