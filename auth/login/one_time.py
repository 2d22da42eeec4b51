"""Links that let somebody in once: an invitation, a forgotten password, an address to confirm.

How this works. A link carries 256 random bits; the database has their digest, the purpose, whose
account it is and the account's revision when the link was made, so that a link opens nothing but
what it was made for, and nothing at all once the account has changed in a way that lets others in
or keeps it out (a password, disabling). It is used up in the transaction that does what it is for:
of two who use it at once, one does. Using one takes back all others of the account.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable
from enum import StrEnum

import msgspec

from auth.io.database import Connection
from auth.login.account import Account, AccountError, canonical_login
from auth.login.accounts import Accounts
from auth.login.passwords import check_new_password


class Purpose(StrEnum):
    """What a link is good for."""

    INVITATION = "invitation"
    """To set the first password."""
    RESET = "reset"
    """To set another password."""
    REGISTRATION = "registration"
    """To show that an address is one's own, and to make an account."""


PASSWORDS = frozenset({Purpose.INVITATION, Purpose.RESET})
REGISTRATION = frozenset({Purpose.REGISTRATION})


class Issued(msgspec.Struct, frozen=True):
    """What a link that is good stands for. Times are epoch seconds."""

    purpose: Purpose
    subject: str
    """Whose account; empty: there is none yet."""
    revision: int
    email: str
    name: str
    expires_at: float


class LinkIsOver(Exception):
    """The link was used, has expired, was taken back or never was one: nobody is told which."""


_INSERT = (
    "INSERT INTO one_time_tokens (digest, purpose, subject, revision, email, name, expires_at)"
    " VALUES (:digest, :purpose, :subject, :revision, :email, :name, :expires_at)"
)
_COLUMNS = "purpose, subject, revision, email, name, expires_at"
_SET_HASH = (
    "UPDATE accounts SET password_hash = :password_hash, revision = revision + 1,"
    " changed_at = :now WHERE subject = :subject AND revision = :revision AND disabled = 0"
    " RETURNING login"
)


class OneTimeLinks:
    """The links of *accounts*, in their database. Every method blocks, as those of `Accounts` do.

    *clock* tells epoch seconds.
    """

    def __init__(self, accounts: Accounts, *, clock: Callable[[], float] = time.time) -> None:
        self._accounts = accounts
        self._clock = clock

    def make(self, purpose: Purpose, account: Account, *, lifetime: float) -> str:
        """Return the secret of a new link for *account*, good for *lifetime* seconds."""
        return self._insert(
            Issued(
                purpose,
                account.subject,
                account.revision,
                account.email,
                account.name,
                self._clock() + lifetime,
            )
        )

    def make_registration(self, email: str, name: str, *, lifetime: float) -> str:
        """Return the secret of a link that makes an account for whoever reads *email*."""
        return self._insert(
            Issued(Purpose.REGISTRATION, "", 0, email, name, self._clock() + lifetime)
        )

    def find(self, secret: str, purposes: frozenset[Purpose]) -> Issued:
        """Return what *secret* stands for, and use up nothing.

        Raises:
            LinkIsOver: it is no good for any of *purposes*.
        """
        with self._accounts.database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM one_time_tokens WHERE digest = :digest",  # noqa: S608 - ours
                digest=_digest_of(secret),
            )
            issued = self._good(rows, purposes)
            if issued.subject:
                of_now = connection.execute(
                    "SELECT revision FROM accounts WHERE subject = :subject AND disabled = 0",
                    subject=issued.subject,
                )
                if of_now != [(issued.revision,)]:
                    raise LinkIsOver
        return issued

    def set_password(self, secret: str, password: str) -> Account:
        """Use up *secret* to give its account *password*, and return the account.

        Raises:
            LinkIsOver: it is not good for that.
            UnsuitablePassword: *password* may not be used; the link still may.
        """
        issued = self.find(secret, PASSWORDS)
        account = self._accounts.find_subject(issued.subject)
        if account is None:
            raise LinkIsOver
        check_new_password(password, login=account.login)
        password_hash = self._accounts.hashed(password)  # before anything is locked
        with self._accounts.database.writing() as connection:
            issued = self._take(connection, secret, PASSWORDS)
            changed = connection.execute(
                _SET_HASH,
                password_hash=password_hash,
                now=self._clock(),
                subject=issued.subject,
                revision=issued.revision,
            )
            if not changed:
                raise LinkIsOver
            connection.execute(
                "DELETE FROM one_time_tokens WHERE subject = :subject", subject=issued.subject
            )
        return self._accounts.find(changed[0][0])

    def take_back(self, account: Account) -> None:
        """Make every link of *account* useless."""
        with self._accounts.database.writing() as connection:
            connection.execute(
                "DELETE FROM one_time_tokens WHERE subject = :subject", subject=account.subject
            )

    def register(
        self,
        secret: str,
        password: str,
        *,
        tenant: str,
        roles: Iterable[str],
        publish: Callable[[Account], None],
    ) -> Account:
        """Use up *secret*, and every other link of its address, to make its account.

        *publish* is called when nothing but the last step can fail; if it raises, nothing happens.

        Raises:
            LinkIsOver: it is not good for that, or somebody has the address by now.
            UnsuitablePassword: *password* may not be used; the link still may.
        """
        issued = self.find(secret, REGISTRATION)
        try:
            account, row = self._accounts.drafted(
                issued.email,
                password,
                name=issued.name,
                tenant=tenant,
                roles=roles,
                email=issued.email,
            )
            with self._accounts.database.writing() as connection:
                issued = self._take(connection, secret, REGISTRATION)
                self._accounts.insert(connection, row)
                connection.execute(
                    "DELETE FROM one_time_tokens WHERE purpose = :purpose AND email = :email",
                    purpose=Purpose.REGISTRATION.value,
                    email=issued.email,
                )
                publish(account)
        except AccountError as error:
            raise LinkIsOver from error
        return account

    def _insert(self, issued: Issued) -> str:
        secret = secrets.token_urlsafe(32)
        now = self._clock()
        with self._accounts.database.writing() as connection:
            connection.execute("DELETE FROM one_time_tokens WHERE expires_at <= :now", now=now)
            connection.execute(
                _INSERT,
                digest=_digest_of(secret),
                **msgspec.structs.asdict(issued)
                | {
                    "purpose": issued.purpose.value,
                    "email": canonical_login(issued.email),
                },
            )
        return secret

    def _take(self, connection: Connection, secret: str, purposes: frozenset[Purpose]) -> Issued:
        rows = connection.execute(
            f"DELETE FROM one_time_tokens WHERE digest = :digest RETURNING {_COLUMNS}",  # noqa: S608 - ours
            digest=_digest_of(secret),
        )
        return self._good(rows, purposes)  # raising puts it back

    def _good(self, rows: list[tuple[object, ...]], purposes: frozenset[Purpose]) -> Issued:
        if not rows:
            raise LinkIsOver
        issued = msgspec.convert(dict(zip(Issued.__struct_fields__, rows[0], strict=True)), Issued)
        if issued.purpose not in purposes or issued.expires_at <= self._clock():
            raise LinkIsOver
        return issued


def _digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
