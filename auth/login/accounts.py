"""The accounts of the bundled login service, in a database that every process shares.

How this works. Everything that a sign-in costs (reading the row, argon2id, writing a stronger
hash) is one function that runs in a small pool of threads, so the event loop never waits for it
(argon2 releases the interpreter lock). The pool and its queue are bounded: each hash takes 64 MiB
and tens of milliseconds, and whoever sends more sign-ins than that is told to come back.

A name nobody has, and an account that is disabled, cost the same as a wrong password: exactly one
verification with the same parameters. Every change of what lets somebody in (password, disabling)
raises the account's `revision`; a sign-in that was under way looks at it again after its session
exists (`current`), so a session cannot slip past the ending that follows such a change.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore
from typing import TypeVar

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from auth.identity import Identity
from auth.io.database import (
    Connection,
    Database,
    DatabaseTooNew,
    DatabaseUnavailable,
    Row,
    SqliteDatabase,
    Taken,
)
from auth.login.account import (
    MAX_LOGIN,
    Account,
    AccountError,
    canonical_login,
    checked_account,
    checked_list,
    checked_login,
    checked_size,
    checked_text,
)
from auth.login.passwords import check_new_password, decoy_hash, normalised
from auth.login.schema import VERSIONS
from auth.ports import AuthUnavailable

__all__ = ["Account", "AccountError", "Accounts", "SignInQueueFull"]

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
_STRENGTHEN = (
    "UPDATE accounts SET password_hash = :new WHERE subject = :subject AND password_hash = :old"
)
_REPLACE_HASH = (
    "UPDATE accounts SET password_hash = :value, revision = revision + 1, changed_at = :now"
    " WHERE subject = :subject"
)
_SET_DISABLED = (
    "UPDATE accounts SET disabled = :value, revision = revision + 1, changed_at = :now"
    " WHERE subject = :subject"
)

_CHANGE = (
    "UPDATE accounts SET login = :login, canonical_login = :canonical_login, name = :name,"
    " tenant = :tenant, roles = :roles, groups = :groups, email = :email, changed_at = :changed_at,"
    " revision = revision + :raised WHERE subject = :subject"
)
_FORGET = (
    # First, so that whoever changes something of the account waits, and then finds none.
    "DELETE FROM accounts WHERE subject = :subject",
    "DELETE FROM totp_secrets WHERE subject = :subject",
    "DELETE FROM recovery_codes WHERE subject = :subject",
    "DELETE FROM passkeys WHERE subject = :subject",
    "DELETE FROM one_time_tokens WHERE subject = :subject",
    "DELETE FROM required_factors WHERE kind = 'subject' AND name = :subject",
)
_T = TypeVar("_T")


class SignInQueueFull(Exception):
    """More sign-ins are under way than this process takes on; `retry_after` is in seconds."""

    retry_after = 2


class Accounts:
    """The accounts in `database`; a path is the SQLite file there, created when it is missing.

    Several processes may have it open at once. Threads: any; the async methods: one event loop.
    The methods that block raise `DatabaseUnavailable` when the database cannot be asked.

    Raises:
        AccountError: it cannot be opened, or a newer version has written it.
    """

    def __init__(
        self,
        database: Database | Path,
        *,
        hasher: PasswordHasher | None = None,
        at_once: int = 2,
        waiting: int = 30,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open them; *at_once* sign-ins are checked in parallel while *waiting* more queue.

        The default *hasher* is argon2id with the second recommended parameters of RFC 9106
        section 4: 3 passes over 64 MiB in 4 lanes.
        """
        self.database = SqliteDatabase(database) if isinstance(database, Path) else database
        self._hasher = hasher or PasswordHasher()
        self._decoy = decoy_hash(self._hasher)
        self._clock = clock
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="sign-in")
        self._slots = BoundedSemaphore(at_once + waiting)
        try:
            self.database.prepare(VERSIONS)
        except DatabaseTooNew as error:
            raise AccountError(f"{error}; update") from error
        except DatabaseUnavailable as error:
            raise AccountError(
                f"cannot open the accounts in {self.database.name}: {error}"
            ) from error

    def close(self) -> None:
        """Let go of the threads and the database; sign-ins that wait are cancelled."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.database.close()

    async def sign_in(self, login: str, password: str) -> Account | None:
        """Return the account if *password* is its password and it may sign in.

        None says that it is not so and not why: the name is unknown, the password is wrong or
        the account is disabled, in the same time.

        Raises:
            SignInQueueFull: too many are under way.
            AuthUnavailable: the database could not be read.
        """
        return await self.in_turn(lambda: self._check(login, password))

    async def ask(self, question: Callable[[], _T]) -> _T:
        """Return what *question* returns, which blocks and does not hash.

        Raises:
            AuthUnavailable: the database could not be asked.
        """
        try:
            return await asyncio.to_thread(question)
        except DatabaseUnavailable as error:
            raise AuthUnavailable("the accounts cannot be asked") from error

    async def in_turn(self, work: Callable[[], _T]) -> _T:
        """Return what *work* returns, which blocks, and hashes; it waits with the sign-ins.

        Raises:
            SignInQueueFull: too many are under way.
            AuthUnavailable: the database could not be asked.
        """
        if not self._slots.acquire(blocking=False):
            raise SignInQueueFull
        # Freed when the thread is done with it, not when we are: a client that goes away does not
        # stop a hash that runs.
        doing = self._threads.submit(work)
        doing.add_done_callback(lambda _: self._slots.release())
        try:
            return await asyncio.wrap_future(doing)
        except DatabaseUnavailable as error:
            raise AuthUnavailable("the accounts cannot be asked") from error

    async def current(self, account: Account) -> Account | None:
        """Return *account* as it is now; None if what it showed before lets nobody in any more."""
        now = await self.ask(lambda: self.find_subject(account.subject))
        if now is None or now.disabled or now.revision != account.revision:
            return None
        return now

    async def of_session(self, identity: Identity) -> Account | None:
        """Return the account of whoever has the session; None without one, or a disabled one."""
        found = await self.ask(lambda: self.find_subject(identity.subject))
        return None if found is None or found.disabled else found

    def find(self, login: str) -> Account:
        """Return the account that signs in as *login*; raise `AccountError` if there is none."""
        found = self._with_hash(login)
        if found is None:
            raise AccountError(f"there is no account {login!r}; `doorward accounts list` shows all")
        return found[0]

    def find_subject(self, subject: str) -> Account | None:
        """Return the account of *subject*, if there is one."""
        with self.database.reading() as connection:
            rows = connection.execute(_SELECT + "WHERE subject = :subject", subject=subject)
        return _account(rows[0]) if rows else None

    def find_named(self, name: str) -> Account | None:
        """Return the account that a person means by *name*: a login name, else an e-mail address.

        An address that several accounts have means none of them.
        """
        found = self._with_hash(name)
        if found is not None:
            return found[0]
        address = canonical_login(name)
        if "@" not in address:
            return None
        with self.database.reading() as connection:
            # Both sides folded here would need every row; addresses that differ in the case of
            # letters beyond ASCII are for the administrator.
            rows = connection.execute(_SELECT + "WHERE lower(email) = :address", address=address)
        return _account(rows[0]) if len(rows) == 1 else None

    def uses_address(self, address: str) -> bool:
        """Tell whether any account has the e-mail *address*, or signs in with it."""
        with self.database.reading() as connection:
            rows = connection.execute(
                "SELECT 1 FROM accounts"
                " WHERE canonical_login = :address OR lower(email) = :address",
                address=canonical_login(address),
            )
        return bool(rows)

    def all(self) -> list[Account]:
        """Return every account, by login name."""
        with self.database.reading() as connection:
            rows = connection.execute(_SELECT)
        everybody = [_account(row) for row in rows]
        # Here and not there: a database sorts by a locale of its own.
        return sorted(everybody, key=lambda account: canonical_login(account.login))

    def add(  # noqa: PLR0913 - one argument for each thing that is known of a person
        self,
        login: str,
        password: str | None,
        *,
        name: str = "",
        tenant: str = "",
        roles: Iterable[str] = (),
        groups: Iterable[str] = (),
        email: str = "",
    ) -> Account:
        """Create an account with a new subject and return it.

        Without a *password* nobody signs in with it until one is set (`auth.login.one_time`).

        Raises:
            AccountError: the name is taken or cannot be one, or a value has control characters.
            UnsuitablePassword: too short, too long, or the login name.
        """
        account, row = self.drafted(
            login, password, name=name, tenant=tenant, roles=roles, groups=groups, email=email
        )
        with self.database.writing() as connection:
            self.insert(connection, row)
        return account

    def drafted(  # noqa: PLR0913 - as `add`
        self,
        login: str,
        password: str | None,
        *,
        name: str = "",
        tenant: str = "",
        roles: Iterable[str] = (),
        groups: Iterable[str] = (),
        email: str = "",
    ) -> tuple[Account, dict[str, object]]:
        """Return an account as `add` makes it, and the row for `insert`; nothing is written yet."""
        login = checked_login(login)
        if password is not None:
            check_new_password(password, login=login)
        account = checked_account(
            login,
            subject=str(uuid.uuid4()),
            name=name,
            tenant=tenant,
            email=email,
            roles=roles,
            groups=groups,
            created_at=self._clock(),
        )
        row = msgspec.structs.asdict(account) | {
            "canonical_login": canonical_login(login),
            "roles": _packed(account.roles),
            "groups": _packed(account.groups),
            "password_hash": "" if password is None else self.hashed(password),
            "disabled": 0,
        }
        return account, row

    def insert(self, connection: Connection, row: dict[str, object]) -> None:
        """Write the *row* of a new account; raise `AccountError` if its login name is taken."""
        try:
            connection.execute(_INSERT, **row)
        except Taken:
            raise _taken(str(row["login"])) from None

    def set_password(self, login: str, password: str) -> Account:
        """Give the account of *login* another password and return it."""
        account = self.find(login)
        check_new_password(password, login=account.login)
        return self._change(account, _REPLACE_HASH, self.hashed(password))

    def set_disabled(self, login: str, *, disabled: bool) -> Account:
        """Let the account of *login* sign in no more, or again, and return it."""
        return self._change(self.find(login), _SET_DISABLED, int(disabled))

    def delete(self, login: str) -> Account:
        """Forget the account of *login* and all that hangs on it; return it as it was.

        Its subject is never used again: whoever gets the login name is somebody else.
        """
        account = self.find(login)
        with self.database.writing() as connection:
            for statement in _FORGET:
                connection.execute(statement, subject=account.subject)
        return account

    def change(  # noqa: PLR0913 - one argument for each thing that may change
        self,
        login: str,
        *,
        new_login: str | None = None,
        name: str | None = None,
        tenant: str | None = None,
        roles: Iterable[str] | None = None,
        groups: Iterable[str] | None = None,
        email: str | None = None,
    ) -> Account:
        """Change what is given of the account of *login* and return it; the subject stays.

        Raises:
            AccountError: there is no such account, the new name is taken or cannot be one, or a
                value has control characters, or all together are too large.
        """
        old = self.find(login)
        now = self._clock()
        new = msgspec.structs.replace(
            old,
            login=old.login if new_login is None else checked_login(new_login),
            name=old.name if name is None else checked_text("name", name) or old.login,
            tenant=old.tenant if tenant is None else checked_text("tenant", tenant),
            roles=old.roles if roles is None else checked_list("role", roles),
            groups=old.groups if groups is None else checked_list("group", groups),
            email=old.email if email is None else checked_text("e-mail address", email),
            changed_at=now,
        )
        checked_size(new)
        row = msgspec.structs.asdict(new) | {
            "canonical_login": canonical_login(new.login),
            "roles": _packed(new.roles),
            "groups": _packed(new.groups),
            # A sign-in that is under way would bring what somebody may do no more, and links may
            # be out at an address that is theirs no more.
            "raised": int(access_of(new) != access_of(old) or new.email != old.email),
        }
        try:
            with self.database.writing() as connection:
                connection.execute(_CHANGE, **row)
        except Taken:
            raise _taken(new.login) from None
        return self.find(new.login)

    def _check(self, login: str, password: str) -> Account | None:
        """Verify exactly one hash, whoever it is; runs in a thread of the pool."""
        text = normalised(password)
        if text is None:
            return None  # says something about the password, nothing about the name
        found = self._with_hash(login)
        account, stored = found or (None, "")
        stored = stored or self._decoy  # no account, or one without a password
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
        with suppress(DatabaseUnavailable), self.database.writing() as connection:
            connection.execute(
                _STRENGTHEN, new=self._hasher.hash(text), subject=account.subject, old=stored
            )

    def hashed(self, password: str) -> str:
        """Return what is kept of *password*, which `check_new_password` has seen; takes long."""
        text = normalised(password)
        assert text is not None, "check_new_password let it through"
        return self._hasher.hash(text)

    def _with_hash(self, login: str) -> tuple[Account, str] | None:
        if len(login) > MAX_LOGIN or not login.isprintable():
            return None  # no account has such a name
        with self.database.reading() as connection:
            rows = connection.execute(
                _SELECT + "WHERE canonical_login = :login", login=canonical_login(login)
            )
        return (_account(rows[0]), str(rows[0][-1])) if rows else None

    def _change(self, account: Account, statement: str, value: str | int) -> Account:
        with self.database.writing() as connection:
            connection.execute(statement, value=value, now=self._clock(), subject=account.subject)
        return self.find(account.login)


def access_of(account: Account) -> tuple[object, ...]:
    """Return what of *account* decides what it may do."""
    return (account.tenant, account.roles, account.groups)


def _taken(login: str) -> AccountError:
    return AccountError(
        f"there is already an account {login!r}; `doorward accounts list` shows all"
    )


def _account(row: Row) -> Account:
    values = dict(zip(Account.__struct_fields__, row[:-1], strict=True))
    values["disabled"] = bool(values["disabled"])
    for name in ("roles", "groups"):
        values[name] = msgspec.json.decode(str(values[name]))
    return msgspec.convert(values, Account)


def _packed(values: tuple[str, ...]) -> str:
    return msgspec.json.encode(values).decode()
