"""SQLite, real files."""

import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import pytest

from auth.io.database import (
    Database,
    DatabaseUnavailable,
    SqliteDatabase,
    open_database,
)
from tests.auth.io.database_contract import FIRST, DatabaseContract, Reopen


@pytest.fixture
def reopen(tmp_path: Path) -> Reopen:
    return lambda: SqliteDatabase(tmp_path / "a.sqlite3")


@pytest.fixture
def database(reopen: Reopen) -> Database:
    return reopen()


class TestSqlite(DatabaseContract):
    pass


def test_only_its_owner_can_read_the_file(database: Database, tmp_path: Path) -> None:
    database.prepare((FIRST,))
    with database.writing() as connection:
        connection.execute("INSERT INTO people (id, name) VALUES ('1', 'Ada')")
        for path in tmp_path.iterdir():  # the write-ahead log too
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_directory_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "nowhere" / "a.sqlite3")
    with pytest.raises(DatabaseUnavailable):
        database.prepare((FIRST,))
    with pytest.raises(DatabaseUnavailable), database.reading():
        pass


def test_a_file_that_is_locked_for_too_long_is_an_outage(
    database: Database, tmp_path: Path
) -> None:
    database.prepare((FIRST,))
    with closing(sqlite3.connect(tmp_path / "a.sqlite3", isolation_level=None)) as other:
        other.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN IMMEDIATE")
        with database.reading() as connection:  # a writer keeps no reader out
            assert connection.execute("SELECT id FROM people") == []
            connection.execute("PRAGMA busy_timeout = 1")
            with pytest.raises(DatabaseUnavailable, match="locked"):
                connection.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")


def test_without_a_url_it_is_the_file(tmp_path: Path) -> None:
    assert open_database("", tmp_path / "a.sqlite3").name == str(tmp_path / "a.sqlite3")


def test_a_missing_extra_is_told_with_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "auth.io.postgres", raising=False)
    with pytest.raises(DatabaseUnavailable, match=r"pip install 'doorward\[postgresql\]'"):
        open_database("postgresql://db/doorward", tmp_path / "a")
