"""The accounts of the bundled login service: one SQLite file, shared by every process of a host.

How this works. Everything that a sign-in costs (reading the row, argon2id, writing a stronger
hash) is one function that runs in a small pool of threads, so the event loop never waits for it
(argon2 releases the interpreter lock). The pool and its queue are bounded: each hash takes 64 MiB
and tens of milliseconds, and whoever sends more sign-ins than that is told to come back.

A name nobody has, and an account that is disabled, cost the same as a wrong password: exactly one
verification with the same parameters. Every change of what lets somebody in (password, disabling)
raises the account's `revision`; a sign-in that was under way looks at it again after its session
exists (`is_current`), so a session cannot slip past the ending that follows such a change.
"""

import asyncio
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import BoundedSemaphore

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from auth.login.account import (
    MAX_LOGIN,
    Account,
    AccountError,
    canonical_login,
    checked_list,
    checked_login,
    checked_text,
)
from auth.login.passwords import check_new_password, decoy_hash, normalised
from auth.ports import AuthUnavailable

__all__ = ["Account", "AccountError", "Accounts", "SignInQueueFull"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE accounts (
    subject TEXT PRIMARY KEY,
    login TEXT NOT NULL,
    canonical_login TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    tenant TEXT NOT NULL,
    roles TEXT NOT NULL,
    groups TEXT NOT NULL,
    email TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    changed_at REAL NOT NULL
) STRICT
"""
_SELECT = (
    "SELECT subject, login, name, tenant, roles, groups, email, disabled, revision, created_at,"
    " changed_at, password_hash FROM accounts "
)
_INSERT = (
    "INSERT INTO accounts (subject, login, canonical_login, name, tenant, roles, groups, email,"
    " password_hash, disabled, revision, created_at, changed_at) VALUES (:subject, :login,"
    " :canonical_login, :name, :tenant, :roles, :groups, :email, :password_hash, :disabled,"
    " :revision, :created_at, :changed_at)"
)
_STRENGTHEN = "UPDATE accounts SET password_hash = ? WHERE subject = ? AND password_hash = ?"
_REPLACE_HASH = (
    "UPDATE accounts SET password_hash = ?, revision = revision + 1, changed_at = ?"
    " WHERE subject = ?"
)
_SET_DISABLED = (
    "UPDATE accounts SET disabled = ?, revision = revision + 1, changed_at = ? WHERE subject = ?"
)


class SignInQueueFull(Exception):
    """More sign-ins are under way than this process takes on; `retry_after` is in seconds."""

    retry_after = 2


class Accounts:
    """The accounts in the file at `path`, which is created (0600) when it is missing.

    Several processes may have it open at once. Threads: any; the async methods: one event loop.

    Raises:
        AccountError: the file cannot be opened, or a newer version has written it.
    """

    def __init__(
        self,
        path: Path,
        *,
        hasher: PasswordHasher | None = None,
        at_once: int = 2,
        waiting: int = 30,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file; *at_once* sign-ins are checked in parallel while *waiting* more queue.

        The default *hasher* is argon2id with the second recommended parameters of RFC 9106
        section 4: 3 passes over 64 MiB in 4 lanes.
        """
        self._path = path
        self._hasher = hasher or PasswordHasher()
        self._decoy = decoy_hash(self._hasher)
        self._clock = clock
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="sign-in")
        self._slots = BoundedSemaphore(at_once + waiting)
        try:
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise AccountError(f"cannot open the accounts in {path}: {error}") from error

    def close(self) -> None:
        """Let go of the threads; sign-ins that wait are cancelled."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def sign_in(self, login: str, password: str) -> Account | None:
        """Return the account if *password* is its password and it may sign in.

        None says that it is not so and not why: the name is unknown, the password is wrong or
        the account is disabled, in the same time.

        Raises:
            SignInQueueFull: too many are under way.
            AuthUnavailable: the file could not be read.
        """
        if not self._slots.acquire(blocking=False):
            raise SignInQueueFull
        # Freed when the thread is done with it, not when we are: a client that goes away does not
        # stop a hash that runs.
        work = self._threads.submit(self._check, login, password)
        work.add_done_callback(lambda _: self._slots.release())
        try:
            return await asyncio.wrap_future(work)
        except sqlite3.Error as error:
            raise AuthUnavailable("the accounts cannot be read") from error

    async def is_current(self, account: Account) -> bool:
        """Tell whether *account* may still sign in with what it signed in with."""
        try:
            now = await asyncio.to_thread(self._revision, account.subject)
        except sqlite3.Error as error:
            raise AuthUnavailable("the accounts cannot be read") from error
        return now == (account.revision, False)

    def find(self, login: str) -> Account:
        """Return the account that signs in as *login*; raise `AccountError` if there is none."""
        found = self._with_hash(login)
        if found is None:
            raise AccountError(f"there is no account {login!r}; `doorward accounts list` shows all")
        return found[0]

    def all(self) -> list[Account]:
        """Return every account, by login name."""
        with self._connection() as connection:
            rows = connection.execute(_SELECT + "ORDER BY canonical_login")
            return [_account(row) for row in rows]

    def add(  # noqa: PLR0913 - one argument for each thing that is known of a person
        self,
        login: str,
        password: str,
        *,
        name: str = "",
        tenant: str = "",
        roles: Iterable[str] = (),
        groups: Iterable[str] = (),
        email: str = "",
    ) -> Account:
        """Create an account with a new subject and return it.

        Raises:
            AccountError: the name is taken or cannot be one, or a value has control characters.
            UnsuitablePassword: too short, too long, or the login name.
        """
        login = checked_login(login)
        check_new_password(password, login=login)
        now = self._clock()
        account = Account(
            subject=str(uuid.uuid4()),
            login=login,
            name=checked_text("name", name) or login,
            tenant=checked_text("tenant", tenant),
            roles=checked_list("role", roles),
            groups=checked_list("group", groups),
            email=checked_text("e-mail address", email),
            disabled=False,
            revision=0,
            created_at=now,
            changed_at=now,
        )
        row = msgspec.structs.asdict(account) | {
            "canonical_login": canonical_login(login),
            "roles": _packed(account.roles),
            "groups": _packed(account.groups),
            "password_hash": self._hash(password),
        }
        try:
            with self._connection() as connection:
                connection.execute(_INSERT, row)
        except sqlite3.IntegrityError:
            raise AccountError(
                f"there is already an account {login!r}; `doorward accounts list` shows all"
            ) from None
        return account

    def set_password(self, login: str, password: str) -> Account:
        """Give the account of *login* another password and return it."""
        account = self.find(login)
        check_new_password(password, login=account.login)
        return self._change(account, _REPLACE_HASH, self._hash(password))

    def set_disabled(self, login: str, *, disabled: bool) -> Account:
        """Let the account of *login* sign in no more, or again, and return it."""
        return self._change(self.find(login), _SET_DISABLED, int(disabled))

    def _check(self, login: str, password: str) -> Account | None:
        """Verify exactly one hash, whoever it is; runs in a thread of the pool."""
        text = normalised(password)
        if text is None:
            return None  # says something about the password, nothing about the name
        found = self._with_hash(login)
        account, stored = found or (None, self._decoy)
        try:
            self._hasher.verify(stored, text)
        except (VerificationError, InvalidHashError):
            return None
        if account is None or account.disabled:
            return None
        if self._hasher.check_needs_rehash(stored):
            self._strengthen(account, stored, text)
        return account

    def _strengthen(self, account: Account, stored: str, text: bytes) -> None:
        """Replace a hash whose parameters are no longer ours, unless it was replaced meanwhile."""
        # A full or read-only disk keeps nobody out: the old hash still holds.
        with suppress(sqlite3.Error), self._connection() as connection:
            connection.execute(_STRENGTHEN, (self._hasher.hash(text), account.subject, stored))

    def _hash(self, password: str) -> str:
        text = normalised(password)
        assert text is not None, "check_new_password let it through"
        return self._hasher.hash(text)

    def _with_hash(self, login: str) -> tuple[Account, str] | None:
        if len(login) > MAX_LOGIN or not login.isprintable():
            return None  # no account has such a name
        with self._connection() as connection:
            cursor = connection.execute(
                _SELECT + "WHERE canonical_login = ?", (canonical_login(login),)
            )
            row = cursor.fetchone()
        return (_account(row), str(row[-1])) if row else None

    def _revision(self, subject: str) -> tuple[int, bool] | None:
        statement = "SELECT revision, disabled FROM accounts WHERE subject = ?"
        with self._connection() as connection:
            row = connection.execute(statement, (subject,)).fetchone()
        return (row[0], bool(row[1])) if row else None

    def _change(self, account: Account, statement: str, value: str | int) -> Account:
        with self._connection() as connection:
            connection.execute(statement, (value, self._clock(), account.subject))
        return self.find(account.login)

    def _prepare(self) -> None:
        """Create the file before SQLite does, so that nobody but the owner can ever read it."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")  # of several processes one creates the table
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise AccountError(
                    f"{self._path} was written by a newer Doorward (version {version}); update"
                )
            if version == 0:
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open the file for one piece of work, committed when it ends well.

        A connection a call costs a fraction of a millisecond beside a hash of tens, belongs to one
        thread, and finds a file that was put back from a backup.
        """
        connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")  # who was disabled stays so
            yield connection
            if connection.in_transaction:
                connection.execute("COMMIT")
        finally:
            connection.close()  # rolls back what was not committed


def _account(row: tuple[object, ...]) -> Account:
    values = dict(zip(Account.__struct_fields__, row[:-1], strict=True))
    values["disabled"] = bool(values["disabled"])
    for name in ("roles", "groups"):
        values[name] = msgspec.json.decode(str(values[name]))
    return msgspec.convert(values, Account)


def _packed(values: tuple[str, ...]) -> str:
    return msgspec.json.encode(values).decode()
