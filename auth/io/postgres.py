"""Accounts in PostgreSQL, shared by all gateways (the extra `postgresql`)."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

from auth.io.database import (
    Connection,
    DatabaseTooNew,
    DatabaseUnavailable,
    Row,
    Taken,
    Versions,
)

_PATIENCE = 5.0
"""Seconds for a connection, for a statement, and for a server that acknowledges nothing at all."""
_AT_ONCE = 8
"""Connections of one process; a sign-in holds one for a fraction of its time."""
_LOCK = 0x646F6F72
"""Whoever brings the schema up to date holds this advisory lock."""
_WORDS = {"INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA", "STRICT": ""}
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")


class PostgresDatabase:
    """The database at *url*, in libpq's form: `postgresql://user@host/name?sslmode=verify-full`.

    Connections are made when they are first needed and looked at before they are used, so a
    server that restarts costs nobody a sign-in.

    Raises:
        DatabaseUnavailable: *url* makes no sense to libpq.
    """

    def __init__(self, url: str, *, patience: float = _PATIENCE) -> None:
        self._patience = patience
        try:
            told = conninfo_to_dict(url)
            merged = make_conninfo(
                url,
                connect_timeout=int(_PATIENCE),  # whole seconds, two or more
                tcp_user_timeout=int(_PATIENCE * 1000),
                application_name=told.get("application_name") or "doorward",
            )
        except psycopg.Error as error:
            # Not its text: libpq repeats what it could not read, which may be the password.
            raise DatabaseUnavailable("login.database is no URL that libpq understands") from error
        self._name = f"PostgreSQL database {told.get('dbname', '')!s} at {told.get('host', '')!s}"
        self._pool = ConnectionPool[psycopg.Connection[Row]](
            merged,
            min_size=0,
            max_size=_AT_ONCE,
            timeout=patience,
            open=True,
            configure=self._configure,
            check=ConnectionPool.check_connection,
            # Poolers in between (PgBouncer) hand a session's prepared statements to another.
            kwargs={"prepare_threshold": None},
        )

    @property
    def name(self) -> str:
        """See `Database.name`."""
        return self._name

    def prepare(self, versions: Versions) -> None:
        """See `Database.prepare`."""
        with self.writing() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(:lock)", lock=_LOCK)
            connection.execute(
                "CREATE TABLE IF NOT EXISTS doorward_schema (version BIGINT NOT NULL)"
            )
            rows = connection.execute("SELECT max(version) FROM doorward_schema")
            version = int(rows[0][0] or 0)
            if version > len(versions):
                raise DatabaseTooNew(
                    f"the {self.name} was written by a newer Doorward (version {version})"
                )
            for statements in versions[version:]:
                for statement in statements:
                    connection.execute(_in_its_words(statement))
            if version < len(versions):
                connection.execute(
                    "INSERT INTO doorward_schema (version) VALUES (:version)", version=len(versions)
                )

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """See `Database.writing`."""
        try:
            with self._pool.connection() as connection:
                yield _PostgresConnection(connection)
        except psycopg.Error as error:  # the pool's, or of the commit
            raise DatabaseUnavailable(_told(error)) from error

    def reading(self) -> AbstractContextManager[Connection]:
        """See `Database.reading`."""
        return self.writing()

    def close(self) -> None:
        """See `Database.close`."""
        self._pool.close()

    def _configure(self, connection: psycopg.Connection[Row]) -> None:
        connection.execute(cast("Any", f"SET statement_timeout = {int(self._patience * 1000)}"))
        connection.commit()


class _PostgresConnection:
    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    def execute(self, statement: str, /, **values: object) -> list[Row]:
        try:
            # Our own text, of which no part comes from outside.
            cursor = self._connection.execute(cast("Any", _with_its_parameters(statement)), values)
            return cursor.fetchall() if cursor.description else []
        except psycopg.errors.UniqueViolation as error:
            raise Taken(_told(error)) from error
        except psycopg.Error as error:
            raise DatabaseUnavailable(_told(error)) from error


@lru_cache(maxsize=256)
def _with_its_parameters(statement: str) -> str:
    """Return *statement* with parameters as psycopg has them."""
    return _PARAMETER.sub(r"%(\1)s", statement.replace("%", "%%"))


def _in_its_words(statement: str) -> str:
    """Return a statement of the schema with PostgreSQL's names of the same types."""
    return re.sub(r"\b[A-Z]+\b", lambda word: _WORDS.get(word[0], word[0]), statement)


def _told(error: psycopg.Error) -> str:
    """Return what happened, in one line and without values: a detail repeats the row."""
    return error.diag.message_primary or type(error).__name__
