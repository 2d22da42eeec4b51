"""The passkeys of the accounts, in their database. Every method blocks. New ones: `Factors`.

There is nothing in it that could be used by whoever reads it: public keys, and counters. The
counter is compared and written by one statement, so that of an authenticator and a copy of it one
is found out, on whatever gateway they come.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from auth.io.database import Connection, Database, Row, Taken
from auth.login.passkey import MOST_PASSKEYS, Passkey

if TYPE_CHECKING:
    from auth.login.ceremonies import Assertion

_COLUMNS = (
    "id, subject, name, public_key, sign_count, transports, aaguid, backup_eligible, backed_up,"
    " created_at, used_at"
)
_SELECT = f"SELECT {_COLUMNS} FROM passkeys "  # noqa: S608 - our own names
_INSERT = (
    f"INSERT INTO passkeys ({_COLUMNS}) VALUES (:id, :subject, :name, :public_key, :sign_count,"  # noqa: S608 - the same
    " :transports, :aaguid, :backup_eligible, :backed_up, :created_at, :used_at)"
)
# WebAuthn section 6.1.1: an authenticator that counts, counts on.
_USE = (
    "UPDATE passkeys SET sign_count = :count, backed_up = :backed_up, used_at = :now"
    " WHERE id = :id AND (sign_count < :count OR (sign_count = 0 AND :count = 0)) RETURNING id"
)
REMOVE = "DELETE FROM passkeys WHERE id = :id AND subject = :subject RETURNING id"
_RENAME = "UPDATE passkeys SET name = :name WHERE id = :id AND subject = :subject RETURNING id"


class PasskeyRefused(Exception):
    """A new passkey cannot be kept: it is there already, or there are too many."""


class Passkeys:
    """Those in *database*; *clock* tells epoch seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self.database = database
        self._clock = clock

    def now(self) -> float:
        """Return the time, epoch seconds."""
        return self._clock()

    def of(self, subject: str) -> tuple[Passkey, ...]:
        """Return those of *subject*, the oldest first."""
        with self.database.reading() as connection:
            return passkeys_of(connection, subject)

    def find(self, id_: str) -> Passkey | None:
        """Return the one with the credential ID *id_*, whosever it is."""
        with self.database.reading() as connection:
            rows = connection.execute(_SELECT + "WHERE id = :id", id=id_)
        return _passkey(rows[0]) if rows else None

    def rename(self, subject: str, id_: str, name: str) -> bool:
        """Call a passkey of *subject* by another name; False if there is no such one."""
        with self.database.writing() as connection:
            return bool(connection.execute(_RENAME, id=id_, subject=subject, name=name))

    def discard(self, subject: str, id_: str) -> bool:
        """Forget a passkey of *subject*, for an administrator: whatever is left then.

        Returns:
            False if there is no such one. Its owner's own wish: `Factors.remove_passkey`.
        """
        with self.database.writing() as connection:
            return bool(connection.execute(REMOVE, id=id_, subject=subject))

    def note_use(self, shown: "Assertion") -> bool:
        """Note that a passkey was *shown*; False if its counter did not go on.

        Then there may be two authenticators with one key, and nobody knows which one this is.
        """
        with self.database.writing() as connection:
            used = connection.execute(
                _USE,
                id=shown.id,
                count=shown.sign_count,
                backed_up=int(shown.backed_up),
                now=self._clock(),
            )
        return bool(used)


def add_passkey(connection: Connection, passkey: Passkey) -> None:
    """Keep *passkey*.

    Raises:
        PasskeyRefused: somebody has it (WebAuthn section 7.1 step 26), or its owner has many.
    """
    if len(passkeys_of(connection, passkey.subject)) >= MOST_PASSKEYS:
        raise PasskeyRefused("there are too many")
    row = msgspec.structs.asdict(passkey) | {
        "transports": " ".join(passkey.transports),
        "backup_eligible": int(passkey.backup_eligible),
        "backed_up": int(passkey.backed_up),
    }
    try:
        connection.execute(_INSERT, **row)
    except Taken as error:
        raise PasskeyRefused("it is there already") from error


def passkeys_of(connection: Connection, subject: str) -> tuple[Passkey, ...]:
    """Return the passkeys of *subject*, the oldest first."""
    rows = connection.execute(_SELECT + "WHERE subject = :subject", subject=subject)
    return tuple(sorted(map(_passkey, rows), key=lambda each: (each.created_at, each.id)))


def _passkey(row: Row) -> Passkey:
    values = dict(zip(Passkey.__struct_fields__, row, strict=True))
    values["public_key"] = bytes(values["public_key"])
    values["transports"] = tuple(str(values["transports"]).split())
    for name in ("backup_eligible", "backed_up"):
        values[name] = bool(values[name])
    return Passkey(**values)
