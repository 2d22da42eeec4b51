"""Notes in SQLite, one set per subject."""

import sqlite3
from typing import NamedTuple


class Note(NamedTuple):
    """One note of one person."""

    id: int
    text: str
    written_at: str
    """UTC, ISO 8601."""


class Notes:
    """The notes of everybody; each method sees one subject's only."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path)
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, subject TEXT NOT NULL,"
            " text TEXT NOT NULL, written_at TEXT NOT NULL DEFAULT (datetime('now')))"
        )
        self._database.execute("CREATE INDEX IF NOT EXISTS note_subject ON note (subject)")

    def add(self, subject: str, text: str) -> Note:
        """Write a note down and return it."""
        with self._database:
            row = self._database.execute(
                "INSERT INTO note (subject, text) VALUES (?, ?) RETURNING id, text, written_at",
                (subject, text),
            ).fetchone()
        return Note(*row)

    def of(self, subject: str) -> list[Note]:
        """Return the notes of *subject*, newest first."""
        rows = self._database.execute(
            "SELECT id, text, written_at FROM note WHERE subject = ? ORDER BY id DESC", (subject,)
        )
        return [Note(*row) for row in rows]

    def remove(self, subject: str, note: int) -> None:
        """Forget a note, if it is *subject*'s."""
        with self._database:
            self._database.execute("DELETE FROM note WHERE id = ? AND subject = ?", (note, subject))

    def count_by_subject(self) -> list[tuple[str, int]]:
        """Return how many notes each subject has."""
        rows = self._database.execute(
            "SELECT subject, count(*) FROM note GROUP BY subject ORDER BY subject"
        )
        return [(subject, count) for subject, count in rows]

    def close(self) -> None:
        """Close the file."""
        self._database.close()
