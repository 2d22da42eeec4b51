"""Browsers are asked for passkeys, and what they bring back is judged: with challenges and limits.

How this works. A form of ours sends `challenge=1` by a script, gets options with a challenge as
JSON and a cookie that binds it to this browser, has the authenticator sign, and then is sent as any
other form, with the answer in `credential`. So a page, a redirect and an error are what they are
everywhere else. A challenge is for one browser, one purpose, one person and one use, good or bad.

Whoever signs in with a passkey alone says no name, and gets the same answer whatever was wrong.
"""

import logging
import math
import secrets
from collections.abc import Callable, Iterable

import msgspec

from auth.cookies import sign_in_cookie_prefix
from auth.io.account_events import AccountEvents
from auth.io.challenges import CHALLENGE_SECONDS, Challenge, Challenges
from auth.login.account import Account, AccountError, checked_text
from auth.login.accounts import Accounts
from auth.login.answers import Answers, Fields, Problem, patience
from auth.login.device import device_of, told_device
from auth.login.factors import Factors, OwnFactors
from auth.login.messages import LoginAnswer
from auth.login.passkey import LONGEST_NAME, Passkey, RelyingParty
from auth.login.passkeys import PasskeyRefused
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.wording import phrase
from config.model import Configuration

_log = logging.getLogger("doorward.login")

_ALONE, _SECOND, _NEW = "sign-in", "second-factor", "new"

NOT_SHOWN = Problem(
    401, "passkey_failed", "That passkey did not let you in.", "Try again, or choose another way."
)
NOT_MADE = Problem(
    400,
    "passkey_failed",
    "That passkey could not be added.",
    "Nothing has been changed. Try again.",
)
_NOT_HERE = Problem(
    404, "not_offered", "That is not offered here", "Ask whoever looks after this site."
)


_Options = Callable[[RelyingParty], object]


class PasskeyCeremony:
    """The two ceremonies, for one configuration."""

    def __init__(  # noqa: PLR0913 - what a ceremony touches
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        accounts: Accounts,
        factors: Factors,
        challenges: Challenges,
        throttle: Throttle | None,
        events: AccountEvents,
    ) -> None:
        self._settings = configuration.session
        self._cookie_name = f"{sign_in_cookie_prefix(self._settings.cookie_name)}passkey"
        self._answers = answers
        self._accounts = accounts
        self._factors = factors
        self._challenges = challenges
        self._throttle = throttle
        self._events = events

    def is_offered(self, visit: Visit) -> bool:
        """Tell whether a browser where *visit* comes from can use our passkeys."""
        return self._answers.offers_passkeys(visit)

    async def script(self, _: Visit) -> LoginAnswer:
        """Answer with the script of the pages that know passkeys."""
        return self._answers.script()

    # Asking ---------------------------------------------------------------------------------------

    async def ask_anybody(self, visit: Visit) -> LoginAnswer:
        """Answer with the options for a sign-in with a passkey alone.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        return await self._ask_to_show(visit, Challenge(_fresh(), _ALONE), ())

    async def ask_for_one_of(
        self, visit: Visit, subject: str, passkeys: Iterable[Passkey]
    ) -> LoginAnswer:
        """Answer with the options to show one of *passkeys*, which are *subject*'s.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        return await self._ask_to_show(visit, Challenge(_fresh(), _SECOND, subject), passkeys)

    async def ask_for_new(
        self, visit: Visit, account: Account, known: Iterable[Passkey]
    ) -> LoginAnswer:
        """Answer with the options to make another passkey for *account*.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        challenge = Challenge(_fresh(), _NEW, account.subject)

        def options(party: RelyingParty) -> object:
            from auth.login.ceremonies import creation_options  # noqa: PLC0415 - costly to import

            return creation_options(
                party,
                challenge.value,
                subject=account.subject,
                login=account.login,
                known=known,
            )

        return await self._ask(visit, challenge, options)

    async def _ask_to_show(
        self, visit: Visit, challenge: Challenge, allowed: Iterable[Passkey]
    ) -> LoginAnswer:
        def options(party: RelyingParty) -> object:
            from auth.login.ceremonies import request_options  # noqa: PLC0415 - costly to import

            return request_options(party, challenge.value, allowed=allowed)

        return await self._ask(visit, challenge, options)

    async def _ask(self, visit: Visit, challenge: Challenge, options: _Options) -> LoginAnswer:
        party, throttle = self._answers.party, self._throttle
        if party is None or not self.is_offered(visit):
            return self._answers.problem(_NOT_HERE)
        wait = await throttle.take_beginning(visit.request.client_address) if throttle else 0.0
        if wait > 0:
            fields: Fields = (("Retry-After", str(math.ceil(wait))),)
            return self._answers.problem(patience(wait), fields=fields)
        binding = secrets.token_urlsafe(32)
        await self._challenges.keep(binding, challenge)
        told = await self._factors.ask(options, party)
        fields = (("Set-Cookie", self._cookie(binding, CHALLENGE_SECONDS)),)
        return self._answers.json(told, fields=fields)

    # Judging --------------------------------------------------------------------------------------

    async def signed_in(self, visit: Visit) -> tuple[Account, tuple[str, ...]] | None:
        """Return who has signed in with a passkey alone, and its `amr`; None for nobody.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        used = await self._used(visit, await self._taken(visit, _ALONE))
        if used is None:
            return None
        passkey, methods = used
        account = await self._factors.ask(self._accounts.find_subject, passkey.subject)
        return None if account is None or account.disabled else (account, methods)

    async def shown(self, visit: Visit, subject: str) -> tuple[str, ...]:
        """Return the `amr` of the passkey that *subject* has shown after a password; empty: none.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        challenge = await self._taken(visit, _SECOND, subject)
        used = await self._used(visit, challenge, subject)
        return used[1] if used else ()

    async def made(self, visit: Visit, account: Account, seen: OwnFactors) -> Passkey | None:
        """Return the passkey that was made for *account*, which has it now; None if that failed.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
            FactorsChanged: there is more than what was *seen*.
        """
        challenge = await self._taken(visit, _NEW, account.subject)
        party, factors = self._answers.party, self._factors
        if challenge is None or party is None:
            return None
        form = visit.request.form
        try:
            made = await factors.ask(
                _made, party, challenge, form["credential"], factors.passkeys.now()
            )
            name = passkey_name(visit, form.get("name", ""))
            passkey = msgspec.structs.replace(made, subject=account.subject, name=name)
            await factors.ask(factors.add_passkey, account, passkey, seen)
        except (_Refused, PasskeyRefused) as refused:
            _log.info("no passkey was added for %s: %.300r", account.subject, str(refused))
            return None
        return passkey

    async def _used(
        self, visit: Visit, challenge: bytes | None, subject: str = ""
    ) -> tuple[Passkey, tuple[str, ...]] | None:
        """Return the passkey that was shown for *challenge*, and its `amr`.

        It must be *subject*'s; without one it is the only factor.
        """
        party, factors = self._answers.party, self._factors
        if challenge is None or party is None:
            return None
        response = visit.request.form["credential"]
        try:
            return await factors.ask(_use, factors, party, challenge, response, subject)
        except _Copied as copied:
            _log.warning("a passkey of %s was refused: its counter did not go on", copied)
            await self._events.passkey_refused(str(copied))
        except _Refused as refused:
            request_id = visit.request.request_id
            _log.info("request %s shows no passkey: %.300r", request_id, str(refused))
        return None

    async def _taken(self, visit: Visit, purpose: str, subject: str = "") -> bytes | None:
        binding = visit.request.cookies.get(self._cookie_name, "")
        return await self._challenges.take(binding, purpose=purpose, subject=subject)

    def _cookie(self, value: str, max_age: int) -> str:
        secure = "; Secure" if self._settings.secure else ""
        # Strict: only forms of our own pages need it.
        attributes = f"; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Strict{secure}"
        return f"{self._cookie_name}={value}{attributes}"


class _Refused(Exception):
    """It is not taken; the text says why, in words of a stranger perhaps."""


class _Copied(Exception):
    """Its counter did not go on; the text is whose it is."""


# In a thread: they ask the database, and the first one imports the library.


def _use(
    factors: Factors, party: RelyingParty, challenge: bytes, response: str, subject: str
) -> tuple[Passkey, tuple[str, ...]]:
    """Return the passkey that *response* shows, and its `amr`; note that it was used."""
    from auth.login import ceremonies  # noqa: PLC0415 - costly to import

    try:
        passkey = factors.passkeys.find(ceremonies.presented_id(response))
        if passkey is None or subject not in ("", passkey.subject):
            raise _Refused("it is not known, or somebody else's")
        shown = ceremonies.shown_assertion(party, challenge, response, passkey, alone=not subject)
    except ceremonies.NotShown as error:
        raise _Refused(str(error)) from error
    if not factors.passkeys.note_use(shown):
        if factors.passkeys.find(passkey.id) is None:
            raise _Refused("it was removed just now")
        raise _Copied(passkey.subject)
    return passkey, passkey.methods(user_verified=shown.user_verified)


def _made(party: RelyingParty, challenge: bytes, response: str, now: float) -> Passkey:
    """Return the passkey that *response* shows to be made; nobody has it yet."""
    from auth.login import ceremonies  # noqa: PLC0415 - costly to import

    try:
        return ceremonies.made_passkey(party, challenge, response, now=now)
    except ceremonies.NotShown as error:
        raise _Refused(str(error)) from error


def _fresh() -> bytes:
    """Return a new challenge (WebAuthn section 13.4.3: 16 bytes or more)."""
    return secrets.token_bytes(32)


def passkey_name(visit: Visit, typed: str) -> str:
    """Return what a passkey is called: as *typed*, else after the device."""
    try:
        name = checked_text("name", typed)[:LONGEST_NAME]
    except AccountError:
        name = ""
    return name or suggested_name(visit)


def suggested_name(visit: Visit) -> str:
    """Return what a passkey that is made now might be called: after the device."""
    device = device_of(visit.request.fields.get("user-agent", ""))
    return told_device(device, visit.wording) or visit.wording.say(phrase("Passkey"))
