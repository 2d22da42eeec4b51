"""The beginning of a session for an account of our own, whatever it was proven with."""

import logging
from collections.abc import Callable
from typing import Protocol

from auth.cookies import set_cookie
from auth.identity import Identity
from auth.login.account import Account
from auth.login.answers import Answers, Fields
from auth.login.circles import Circles
from auth.login.messages import LoginAnswer
from auth.login.provenance import Provenance
from auth.login.sign_out import live_session
from auth.login.visit import Visit
from auth.ports import AuthUnavailable, SessionStore
from auth.return_url import origin_in
from auth.session import TOO_LARGE, SessionRecord, digest, fits_fields
from config.model import Configuration

_log = logging.getLogger(__name__)

MFA = "mfa"
"""`acr` of a sign-in with two factors; also what RFC 8176 calls it in `amr`."""
PHR = "phr"
"""`acr` of one that no phishing gets hold of (OpenID Connect EAP ACR Values 1.0 section 2): two
factors, one of them a passkey. It serves where `mfa` is asked for, which its `amr` has."""
_PASSKEY = frozenset({"hwk", "swk"})


def acr_of(amr: tuple[str, ...]) -> str:
    """Return how strong a sign-in with the methods *amr* of ours was; empty: one factor."""
    if MFA not in amr:
        return ""
    return MFA if _PASSKEY.isdisjoint(amr) else PHR


class Credentials(Protocol):
    """Who knows whether a password is right: our own accounts, or those who are asked instead."""

    async def sign_in(self, login: str, password: str) -> Account | None:
        """Return who signs in, or None; raise `SignInQueueFull` or `AuthUnavailable`."""
        ...

    async def current(self, account: Account) -> Account | None:
        """Return *account* as it is now, if what it showed a moment ago still lets it in.

        Raises:
            AuthUnavailable
        """
        ...

    async def of_session(self, identity: Identity) -> Account | None:
        """Return whose session *identity* has, if they have an account with these credentials.

        Raises:
            AuthUnavailable
        """
        ...


class Beginnings:
    """Begins sessions."""

    def __init__(
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        store: SessionStore,
        accounts: Credentials,
        clock: Callable[[], float],
    ) -> None:
        self._settings = configuration.session
        self._circles = Circles(self._settings, public_url=configuration.server.public_url)
        self._answers = answers
        self._store = store
        self._accounts = accounts
        self._clock = clock

    async def begin(
        self, visit: Visit, account: Account, amr: tuple[str, ...], auth_time: float = 0.0
    ) -> tuple[SessionRecord, Fields] | None:
        """Begin a session for *account*, in place of the one that was presented.

        *amr* says what was shown, and when (*auth_time*, epoch seconds; 0: just now).

        Returns:
            The record and the fields that give it to the browser; None if the account was changed
            meanwhile, so that what was shown counts no more.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked, or backends could not be
                told of the account.
        """
        # Session fixation (ASVS 7.2.4): a session from before the sign-in, the person's own or one
        # that somebody slipped them, is over. First, so that a failure leaves no session unknown.
        if await live_session(self._store, visit):
            await self._store.end(visit.session_digest, reason="signed_in_again")
        now = round(self._clock(), 3)
        record = SessionRecord(
            v=1,
            subject=account.subject,
            created_at=now,
            expires_at=now + self._settings.absolute_timeout,
            name=account.name,
            tenant=account.tenant,
            roles=account.roles,
            groups=account.groups,
            email=account.email,
            auth_time=auth_time or now,
            amr=amr,
            acr=acr_of(amr),
        )
        if not fits_fields(account):
            # Made elsewhere, or before there was a limit: nobody could use the session.
            _log.error("account %s: its name, roles and groups %s", account.subject, TOO_LARGE)
            raise AuthUnavailable("the account is larger than a session may be", retry_after=3600)
        cookie = await self._store.create(visit.stamped(record))
        if await self._accounts.current(account) is None:
            # Disabled, or given another password, while we were at it. Whoever did that ended the
            # account's sessions, perhaps before this one was there.
            await self._store.end(digest(cookie), reason="account_changed")
            return None
        max_age = int(self._settings.absolute_timeout)
        fields: Fields = (("Set-Cookie", set_cookie(self._settings, cookie, max_age)),)
        if visit.provenance is Provenance.OWN:  # programs go in no circles
            fields = (*fields, self._circles.note_sign_in(visit, now))
        return record, fields

    def arrive(
        self, visit: Visit, record: SessionRecord, return_to: str, fields: Fields
    ) -> LoginAnswer:
        """Answer a sign-in that is complete: on to *return_to*, or JSON for a program."""
        if visit.prefers(unless_told="page") == "page":
            if origin_in(return_to) in ("", visit.origin):
                return self._answers.redirect(return_to, fields=fields)
            # Browsers hold redirects of a form against its `form-action` (CSP), also those to
            # another origin of ours. A page begins anew.
            values = {"onward": return_to, "is_in": True}
            return self._answers.page(visit, "onward", values, fields=fields)
        told = {
            "subject": record.subject,
            "name": record.name,
            "expires_at": record.expires_at,
            "return_to": return_to,
        }
        return self._answers.json(told, fields=fields)
