"""What every database of accounts must do, run for SQLite and for PostgreSQL."""

import threading
from collections.abc import Callable

import pytest

from auth.io.database import Database, DatabaseTooNew, DatabaseUnavailable, Taken

FIRST = ("CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",)
SECOND = (
    "ALTER TABLE people ADD COLUMN born_at REAL NOT NULL DEFAULT 0",
    "ALTER TABLE people ADD COLUMN visits INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE keys (id TEXT PRIMARY KEY, material BLOB NOT NULL) STRICT",
)
ADD = "INSERT INTO people (id, name) VALUES (:id, :name)"
NAMES = "SELECT id, name FROM people ORDER BY id"

Reopen = Callable[[], Database]
"""Opens the same database once more, as another process does."""


class DatabaseContract:
    """Inherit, and provide the fixtures `database` and `reopen`."""

    def test_what_was_written_is_there_for_others(self, database: Database, reopen: Reopen) -> None:
        database.prepare((FIRST,))
        with database.writing() as connection:
            connection.execute(ADD, id="1", name="Ada 100% :sure")
        with reopen().reading() as connection:
            assert connection.execute(NAMES) == [("1", "Ada 100% :sure")]

    def test_a_statement_without_rows_gives_none(self, database: Database) -> None:
        database.prepare((FIRST,))
        with database.writing() as connection:
            assert connection.execute(ADD, id="1", name="Ada") == []
            assert connection.execute(
                "DELETE FROM people WHERE id = :id RETURNING name", id="1"
            ) == [("Ada",)]

    def test_a_piece_of_work_that_raises_leaves_nothing(self, database: Database) -> None:
        database.prepare((FIRST,))

        def fail() -> None:
            with database.writing() as connection:
                connection.execute(ADD, id="1", name="Ada")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        with database.reading() as connection:
            assert connection.execute(NAMES) == []

    @pytest.mark.parametrize(("id_", "name"), [("1", "Bob"), ("2", "Ada")], ids=["key", "unique"])
    def test_a_value_that_is_taken_is_told_and_nothing_is_done(
        self, database: Database, id_: str, name: str
    ) -> None:
        database.prepare((FIRST,))
        with database.writing() as connection:
            connection.execute(ADD, id="1", name="Ada")

        def add() -> None:
            with database.writing() as connection:
                connection.execute(ADD, id="3", name="Eve")
                connection.execute(ADD, id=id_, name=name)

        with pytest.raises(Taken):
            add()
        with database.reading() as connection:
            assert connection.execute(NAMES) == [("1", "Ada")]

    @pytest.mark.parametrize(
        ("statement", "values"),
        [
            ("SELECT * FROM nothing_of_that_name", {}),
            ("SELEKT", {}),
            (ADD, {"id": "1", "name": None}),
        ],
        ids=["table", "syntax", "null"],
    )
    def test_what_cannot_be_done_is_an_outage(
        self, database: Database, statement: str, values: dict[str, object]
    ) -> None:
        database.prepare((FIRST,))
        with pytest.raises(DatabaseUnavailable), database.writing() as connection:
            connection.execute(statement, **values)

    def test_numbers_and_bytes_come_back_exactly(self, database: Database) -> None:
        database.prepare((FIRST, SECOND))
        material = bytes(range(256))
        with database.writing() as connection:
            connection.execute(ADD, id="1", name="Ada")
            connection.execute(
                "UPDATE people SET born_at = :at, visits = :visits", at=1795345561.123, visits=2**53
            )
            connection.execute(
                "INSERT INTO keys (id, material) VALUES (:id, :material)", id="1", material=material
            )
        with database.reading() as connection:
            assert connection.execute("SELECT born_at, visits FROM people") == [
                (1795345561.123, 2**53)
            ]
            assert connection.execute("SELECT material FROM keys") == [(material,)]

    def test_a_newer_schema_keeps_what_is_there(self, database: Database, reopen: Reopen) -> None:
        database.prepare((FIRST,))
        with database.writing() as connection:
            connection.execute(ADD, id="1", name="Ada")
        again = reopen()
        again.prepare((FIRST, SECOND))
        again.prepare((FIRST, SECOND))
        with again.reading() as connection:
            assert connection.execute("SELECT name, visits FROM people") == [("Ada", 0)]

    def test_a_schema_that_fails_half_way_is_not_there(self, database: Database) -> None:
        database.prepare((FIRST,))
        with pytest.raises(DatabaseUnavailable):
            database.prepare((FIRST, (*SECOND, "CREATE NONSENSE")))
        database.prepare((FIRST, SECOND))

    def test_a_database_of_a_newer_version_is_left_alone(self, database: Database) -> None:
        database.prepare((FIRST, SECOND))
        with pytest.raises(DatabaseTooNew, match="version 2"):
            database.prepare((FIRST,))

    def test_of_many_that_prepare_at_once_each_finds_it_prepared(self, reopen: Reopen) -> None:
        troubles: list[Exception] = []

        def prepare(number: int) -> None:
            try:
                database = reopen()
                database.prepare((FIRST, SECOND))
                with database.writing() as connection:
                    connection.execute(ADD, id=str(number), name=str(number))
            except Exception as error:  # noqa: BLE001 - told below
                troubles.append(error)

        threads = [threading.Thread(target=prepare, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert troubles == []
        with reopen().reading() as connection:
            assert len(connection.execute(NAMES)) == 6

    def test_of_two_that_take_the_same_row_one_gets_it(
        self, database: Database, reopen: Reopen
    ) -> None:
        """What makes a one-time token good for one use."""
        database.prepare((FIRST,))
        with database.writing() as connection:
            connection.execute(ADD, id="1", name="Ada")
        both_ready = threading.Barrier(2)
        taken: list[int] = []

        def take(mine: Database) -> None:
            both_ready.wait(10)
            with mine.writing() as connection:
                rows = connection.execute("DELETE FROM people WHERE id = :id RETURNING id", id="1")
            taken.append(len(rows))

        threads = [threading.Thread(target=take, args=(each,)) for each in (database, reopen())]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [0, 1]
