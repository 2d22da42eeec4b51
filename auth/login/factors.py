"""What lets somebody in beside a password: authenticator apps, passkeys, recovery codes.

How this works. All of it lies in the database of the accounts. What could be used by whoever reads
it is not there: the secret of an app is sealed with a key that the database does not have, of a
recovery code there is a hash. What counts once is counted by the database: an app's time step and a
recovery code are taken by one statement that only one of several requests can win, on whatever
gateway it is. Everything else changes under a lock of the account: of two who each remove one of
the last two ways in, one does, and a factor is added only to what whoever adds it has *seen*, so
that nobody who knows a password sets one up beside, or in place of, one that was set up meanwhile.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from auth.io.account_events import Factor
from auth.io.database import Connection, Database, DatabaseUnavailable
from auth.login.account import Account
from auth.login.passkey import Passkey
from auth.login.passkeys import REMOVE, Passkeys, add_passkey, passkeys_of
from auth.login.recovery_codes import code_digest, new_codes
from auth.login.totp import matching_step
from auth.ports import AuthUnavailable
from auth.sealing import seal, unseal

_T = TypeVar("_T")


class OwnFactors(msgspec.Struct, frozen=True):
    """What one account has."""

    totp_since: float = 0.0
    """When the app was set up, epoch seconds; 0: it was not."""
    recovery_codes: int = 0
    """Those that are left."""
    required: bool = False
    """Whether the account must have a second factor."""
    passkeys: tuple[Passkey, ...] = ()
    passwordless: bool = False
    """Whether passkeys alone let in: the account has no password."""

    @property
    def are_there(self) -> bool:
        """Whether a sign-in with a password must go on with a second factor."""
        return bool(self.totp_since or self.passkeys)

    def are_those_of(self, seen: "OwnFactors") -> bool:
        """Tell whether nothing that a second sign-in would be asked for has come since *seen*."""
        return self.totp_since == seen.totp_since and (seen.are_there or not self.are_there)

    @property
    def may_lose_password(self) -> bool:
        """Whether passkeys alone are enough, with a way back for whoever loses them."""
        return bool(self.passkeys and self.recovery_codes and not self.passwordless)

    @property
    def is_enough(self) -> bool:
        """Tell whether its owner can get in with this, and has what they must have."""
        has_first = bool(self.passkeys) or not self.passwordless
        return has_first and (self.are_there or not self.required)


_KEEP_TOTP = (
    "INSERT INTO totp_secrets (subject, sealed, last_step, created_at)"
    " VALUES (:subject, :sealed, :step, :now) ON CONFLICT (subject) DO UPDATE"
    " SET sealed = :sealed, last_step = :step, created_at = :now"
)
_USE_STEP = (
    "UPDATE totp_secrets SET last_step = :step WHERE subject = :subject AND last_step < :step"
    " RETURNING subject"
)
_USE_CODE = "DELETE FROM recovery_codes WHERE digest = :digest RETURNING subject"
_ADD_CODE = "INSERT INTO recovery_codes (digest, subject) VALUES (:digest, :subject)"
_OF_SUBJECT: dict[str, Factor] = {
    "totp_secrets": "totp",
    "recovery_codes": "recovery_codes",
    "passkeys": "passkey",
}
"""What of a subject each table keeps."""
# Nothing changes; whoever changes something else of theirs waits until we are done. Those whose
# passwords are checked elsewhere have a row there.
_LOCKS = (
    "UPDATE accounts SET revision = revision WHERE subject = :subject",
    "UPDATE people_elsewhere SET seen_at = seen_at WHERE subject = :subject",
)
_REMOVE_TOTP = "DELETE FROM totp_secrets WHERE subject = :subject"
_BECOME_PASSWORDLESS = (
    "UPDATE accounts SET password_hash = '', revision = revision + 1, changed_at = :now"
    " WHERE subject = :subject RETURNING revision"
)


class LastFactor(Exception):
    """Without it the owner of the account could not get in, or would lack what they must have."""


class FactorsChanged(Exception):
    """A second factor was set up meanwhile, by another form; nothing was done."""


class UnreadableSecret(Exception):
    """The secret of an app was sealed with another key than this gateway has."""


class Factors:
    """The second factors in *database*; *key* seals the secrets of apps.

    The plain methods block; those that begin with `ask_` wait in a thread, and raise
    `AuthUnavailable` when the database cannot be asked.
    """

    def __init__(
        self, database: Database, key: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._key = key
        self._clock = clock
        self.passkeys = Passkeys(database, clock=clock)

    async def ask(self, work: Callable[..., _T], /, *arguments: object) -> _T:
        """Return what *work* returns, one of the methods below.

        Raises:
            AuthUnavailable: the database could not be asked, or the secret not be read.
        """
        try:
            return await asyncio.to_thread(work, *arguments)
        except DatabaseUnavailable as error:
            raise AuthUnavailable("the accounts cannot be asked") from error
        except UnreadableSecret as error:
            raise AuthUnavailable(str(error)) from error

    def of(self, account: Account) -> OwnFactors:
        """Return what *account* has."""
        with self._database.reading() as connection:
            return _own_factors(connection, account)

    # The app ----------------------------------------------------------------------------------

    def sealed_secret(self, subject: str, secret: bytes) -> bytes:
        """Return *secret* so that only we can read it, and only for *subject*."""
        return seal(self._key, secret, purpose=_purpose(subject))

    def opened_secret(self, subject: str, sealed: bytes) -> bytes | None:
        """Return what `sealed_secret` was given; None if it is not ours or not for *subject*."""
        return unseal(self._key, sealed, purpose=_purpose(subject))

    def set_up_totp(self, account: Account, sealed: bytes, code: str, seen: OwnFactors) -> bool:
        """Take the app with the *sealed* secret, if *code* shows that *account*'s owner has it.

        It takes the place of the one in *seen*. The code is used up by that: it will not sign in.

        Raises:
            FactorsChanged
        """
        subject = account.subject
        secret = self.opened_secret(subject, sealed)
        now = self._clock()
        step = matching_step(secret, code, now) if secret else None
        if step is None:
            return False
        with self._adding(account, seen) as connection:
            connection.execute(_KEEP_TOTP, subject=subject, sealed=sealed, step=step, now=now)
        return True

    def use_totp(self, subject: str, code: str) -> bool:
        """Tell whether *code* is the app's now, and see to it that it never is again.

        Raises:
            UnreadableSecret
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT sealed FROM totp_secrets WHERE subject = :subject", subject=subject
            )
        if not rows:
            return False
        secret = self.opened_secret(subject, bytes(rows[0][0]))
        if secret is None:
            raise UnreadableSecret(f"the app of {subject} was set up under another factor key")
        step = matching_step(secret, code, self._clock())
        if step is None:
            return False
        with self._database.writing() as connection:
            return bool(connection.execute(_USE_STEP, subject=subject, step=step))

    def remove_totp(self, account: Account) -> None:
        """Forget the app of *account*; raise `LastFactor` if it must not."""
        with self._removing(account) as connection:
            connection.execute(_REMOVE_TOTP, subject=account.subject)

    # Passkeys, and the password they can stand in for -------------------------------------------

    def add_passkey(self, account: Account, passkey: Passkey, seen: OwnFactors) -> None:
        """Keep *passkey*, a new one of *account*, which has what was *seen*.

        Raises:
            FactorsChanged
            PasskeyRefused: see `add_passkey`.
        """
        with self._adding(account, seen) as connection:
            add_passkey(connection, passkey)

    def remove_passkey(self, account: Account, id_: str) -> bool:
        """Forget a passkey of *account*; False if it has no such one.

        Raises:
            LastFactor: it is the last one that is needed.
        """
        with self._removing(account) as connection:
            return bool(connection.execute(REMOVE, id=id_, subject=account.subject))

    def remove_password(self, account: Account) -> Account:
        """Have *account* sign in with passkeys alone, and return it as it is then.

        Raises:
            LastFactor: there is no passkey, or no recovery code for whoever loses it; or no
                password of ours, but one that is checked elsewhere.
        """
        with self._removing(account) as connection:
            if not _own_factors(connection, account).may_lose_password:
                raise LastFactor
            changed = connection.execute(
                _BECOME_PASSWORDLESS, subject=account.subject, now=self._clock()
            )
            if not changed:
                raise LastFactor
        return msgspec.structs.replace(account, revision=changed[0][0])

    @contextmanager
    def _locked(self, subject: str) -> Iterator[Connection]:
        """Give a connection that nobody else changes the factors of *subject* beside."""
        with self._database.writing() as connection:
            for lock in _LOCKS:
                connection.execute(lock, subject=subject)
            yield connection

    @contextmanager
    def _adding(self, account: Account, seen: OwnFactors) -> Iterator[Connection]:
        """Give a connection to add a factor with, if there is nothing yet that was not *seen*."""
        with self._locked(account.subject) as connection:
            if not _own_factors(connection, account).are_those_of(seen):
                raise FactorsChanged
            yield connection

    @contextmanager
    def _removing(self, account: Account) -> Iterator[Connection]:
        """Give a connection to take something away with; nothing is, if the rest is too little."""
        with self._locked(account.subject) as connection:
            yield connection
            if not _own_factors(connection, account).is_enough:
                raise LastFactor

    # Recovery codes ---------------------------------------------------------------------------

    def renew_recovery_codes(self, subject: str) -> tuple[str, ...]:
        """Return new codes, and forget those there were."""
        codes = new_codes()
        with self._locked(subject) as connection:
            connection.execute("DELETE FROM recovery_codes WHERE subject = :s", s=subject)
            for code in codes:
                connection.execute(_ADD_CODE, digest=code_digest(subject, code), subject=subject)
        return codes

    def use_recovery_code(self, subject: str, code: str) -> bool:
        """Tell whether *code* is one of *subject*'s, and use it up."""
        with self._database.writing() as connection:
            return bool(connection.execute(_USE_CODE, digest=code_digest(subject, code)))

    # For administrators -----------------------------------------------------------------------

    def reset(self, subject: str) -> tuple[Factor, ...]:
        """Forget every factor of *subject* but a password; return which they were."""
        removed: list[Factor] = []
        with self._database.writing() as connection:
            for table, factor in _OF_SUBJECT.items():
                forget = f"DELETE FROM {table} WHERE subject = :s RETURNING 1"  # noqa: S608 - ours
                if connection.execute(forget, s=subject):
                    removed.append(factor)
        return tuple(removed)

    def require(self, kind: str, name: str, *, required: bool) -> None:
        """Ask everybody whom *kind* (`subject` or `role`) and *name* mean for a factor, or not."""
        delete = "DELETE FROM required_factors WHERE kind = :kind AND name = :name"
        insert = "INSERT INTO required_factors (kind, name) VALUES (:kind, :name)"
        with self._database.writing() as connection:
            connection.execute(delete, kind=kind, name=name)
            if required:
                connection.execute(insert, kind=kind, name=name)

    def required(self) -> Iterable[tuple[str, str]]:
        """Return of whom a second factor is required: kind and name."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT kind, name FROM required_factors")
        return sorted((str(kind), str(name)) for kind, name in rows)


def _own_factors(connection: Connection, account: Account) -> OwnFactors:
    subject = account.subject
    since = connection.execute(
        "SELECT created_at FROM totp_secrets WHERE subject = :subject", subject=subject
    )
    ((codes,),) = connection.execute(
        "SELECT count(*) FROM recovery_codes WHERE subject = :subject", subject=subject
    )
    ((passwordless,),) = connection.execute(
        "SELECT count(*) FROM accounts WHERE subject = :subject AND password_hash = ''",
        subject=subject,
    )
    required = connection.execute("SELECT kind, name FROM required_factors")
    names = {("subject", subject), *(("role", role) for role in account.roles)}
    return OwnFactors(
        totp_since=since[0][0] if since else 0.0,
        recovery_codes=codes,
        required=any((kind, name) in names for kind, name in required),
        passkeys=passkeys_of(connection, subject),
        passwordless=bool(passwordless),
    )


def _purpose(subject: str) -> str:
    return f"totp secret of {subject}"
