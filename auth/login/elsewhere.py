"""People whose passwords are checked elsewhere: by a directory, or by a service of the operator's.

How this works. Whether a password is right, and who that is, is theirs to say (`PasswordCheck`),
and they are asked at every sign-in. The second factors are ours, kept under the subject that they
tell. Our database has the subject and the login name of everybody who has signed in so, and nothing
else: an administrator names people by what they type, and a session of somebody else's, a
provider's for one, has no account here.
"""

import time
from collections.abc import Callable
from typing import Protocol

from auth.identity import Identity
from auth.io.database import Database
from auth.login.account import Account, AccountError, canonical_login
from auth.login.accounts import Accounts

_NOTE = (
    "INSERT INTO people_elsewhere (subject, login, canonical_login, seen_at)"
    " VALUES (:subject, :login, :canonical_login, :now) ON CONFLICT (subject) DO UPDATE"
    " SET login = :login, canonical_login = :canonical_login, seen_at = :now"
)


class PasswordCheck(Protocol):
    """Who knows whether a password is right."""

    async def sign_in(self, login: str, password: str) -> Account | None:
        """Return who signs in, or None; raise `SignInQueueFull` or `AuthUnavailable`."""
        ...


class KnownPeople:
    """Those who have signed in so, in *database*. The methods block, as those of `Accounts` do."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def note(self, account: Account) -> None:
        """Remember the subject and the login name of *account*, who is signing in."""
        if self.login_of(account.subject) == account.login:
            return  # most sign-ins: nothing is written
        with self._database.writing() as connection:
            connection.execute(
                _NOTE,
                subject=account.subject,
                login=account.login,
                canonical_login=canonical_login(account.login),
                now=self._clock(),
            )

    def login_of(self, subject: str) -> str | None:
        """Return the name that *subject* signed in with last; None for somebody unknown."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT login FROM people_elsewhere WHERE subject = :subject", subject=subject
            )
        return str(rows[0][0]) if rows else None

    def subject_of(self, login: str) -> str:
        """Return the subject of whoever signs in as *login*.

        A name that was given to somebody else means them, once they have signed in.

        Raises:
            AccountError: nobody has signed in with that name.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT subject FROM people_elsewhere WHERE canonical_login = :login"
                " ORDER BY seen_at DESC",
                login=canonical_login(login),
            )
        if not rows:
            raise AccountError(
                f"nobody has signed in as {login!r} yet; name them by --subject, as the service "
                "or directory tells it"
            )
        return str(rows[0][0])


class PeopleElsewhere:
    """Signs them in, and knows them again. See `auth.login.beginning.Credentials`."""

    def __init__(self, check: PasswordCheck, accounts: Accounts) -> None:
        """Ask *check* for passwords; the database of *accounts* has what is remembered."""
        self._check = check
        self._accounts = accounts
        self._known = KnownPeople(accounts.database)

    async def sign_in(self, login: str, password: str) -> Account | None:
        """See `Credentials`; also notes who it was."""
        account = await self._check.sign_in(login, password)
        if account is not None:
            found = account
            await self._accounts.ask(lambda: self._known.note(found))
        return account

    async def current(self, account: Account) -> Account | None:
        """Return *account*: they were asked minutes ago, and have no way to tell us of a change."""
        return account

    async def of_session(self, identity: Identity) -> Account | None:
        """See `Credentials`: somebody who was signed in by a password that was checked so."""
        if "pwd" not in identity.amr or "iss" in identity.claims:
            return None  # of a provider, or of another login service
        login = await self._accounts.ask(lambda: self._known.login_of(identity.subject))
        if login is None:
            return None
        return Account(
            subject=identity.subject,
            login=login,
            name=identity.name,
            tenant=identity.tenant,
            roles=identity.roles,
            groups=identity.groups,
            email=identity.email,
            disabled=False,
            revision=0,
            created_at=0.0,
            changed_at=0.0,
        )
