"""PostgreSQL, a real server of this run."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

from auth.io.database import Database, DatabaseUnavailable, open_database
from auth.io.postgres import PostgresDatabase
from tests.auth.io.database_contract import FIRST, DatabaseContract, Reopen
from tests.postgres import Postgres


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.new_url()


@pytest.fixture
def reopen(url: str, tmp_path: Path) -> Iterator[Reopen]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(open_database(url, tmp_path / "a.sqlite3")))


@pytest.fixture
def database(reopen: Reopen) -> Database:
    return reopen()


class TestPostgres(DatabaseContract):
    pass


def test_a_connection_that_the_server_closed_costs_nothing(database: Database, url: str) -> None:
    database.prepare((FIRST,))
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'doorward' AND pid <> pg_backend_pid()"
        )
    with database.reading() as connection:
        assert connection.execute("SELECT id FROM people") == []


def test_a_server_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    url = f"postgresql:///doorward?host={tmp_path}&user=doorward"
    with closing(PostgresDatabase(url, patience=0.2)) as database:
        with pytest.raises(DatabaseUnavailable), database.reading():
            pass
        with pytest.raises(DatabaseUnavailable):
            database.prepare((FIRST,))


def test_a_statement_that_takes_too_long_is_given_up(url: str) -> None:
    with (
        closing(PostgresDatabase(url, patience=0.1)) as database,
        pytest.raises(DatabaseUnavailable, match="statement timeout"),
        database.reading() as connection,
    ):
        connection.execute("SELECT pg_sleep(30)")


@pytest.mark.parametrize(
    "url", ["postgresql://u:hidden@h/%zz", "postgresql://u:hidden@h/d?hidden=1"]
)
def test_a_url_that_makes_no_sense_is_told_without_repeating_it(url: str) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        PostgresDatabase(url)
    assert "hidden" not in str(caught.value)
    assert "login.database" in str(caught.value)


def test_its_name_has_no_password() -> None:
    with closing(PostgresDatabase("postgresql://u:hidden@db.example.com/people")) as database:
        assert database.name == "PostgreSQL database people at db.example.com"


def test_a_message_repeats_no_value(database: Database) -> None:
    """PostgreSQL's details quote the row; it would be in the log."""
    database.prepare((FIRST,))
    with database.writing() as connection:
        connection.execute("INSERT INTO people (id, name) VALUES ('1', 'Ada')")
    with pytest.raises(Exception, match="duplicate key") as caught, database.writing() as other:
        other.execute("INSERT INTO people (id, name) VALUES ('2', 'Ada')")
    assert "Ada" not in str(caught.value)
