"""What a person may change about their own account: password, authenticator app, recovery codes.

A stolen session must not become somebody else's account: whatever changes how one gets in wants a
sign-in of the last minutes, with the second factor if there is one, and gives the session a new id.
"""

import math
from collections.abc import Callable
from urllib.parse import urlencode

from auth.decision import StepUp
from auth.identity import Identity
from auth.io.account_events import AccountEvents
from auth.login.account import Account
from auth.login.accounts import Accounts, SignInQueueFull
from auth.login.answers import (
    ACCOUNT_PATH,
    AUTHENTICATOR_PATH,
    PASSKEYS_PATH,
    PASSWORD_PATH,
    RECOVERY_CODES_PATH,
    Answers,
    Fields,
    Problem,
)
from auth.login.beginning import MFA, PHR, Beginnings, Credentials
from auth.login.factors import Factors, LastFactor, OwnFactors
from auth.login.messages import LoginAnswer
from auth.login.pages import moment
from auth.login.passwords import MIN_CHARACTERS, UnsuitablePassword
from auth.login.second_factor import LONGEST_CODE, sealed_in, secret_again, show_codes
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.ports import SessionStore
from auth.return_url import safe_return_url
from auth.wording import phrase

RECENT = 600.0
"""Seconds after a sign-in in which somebody may change how they get in."""

_NOT_SIGNED_IN = Problem(401, "unauthenticated", "Please sign in", "Only you can see your account.")
_NOT_OURS = Problem(
    404,
    "no_account_here",
    "Your account is kept elsewhere",
    "You sign in with another service; change your password and your second factor there.",
)
_NOT_RECENT = Problem(
    403,
    "recent_sign_in_needed",
    "Please sign in again first.",
    "Whoever wants to change this must have signed in within the last ten minutes.",
)
_NOT_BY_PASSKEY = Problem(
    403,
    "passkey_needed",
    "Please sign in with your passkey first.",
    "That shows that you can get in with it.",
)
FOREIGN = Problem(
    403,
    "foreign_form",
    "That request did not come from this page.",
    "Nothing has been changed. Use the form here.",
)
_UNCLEAR = Problem(400, "form_incomplete", "Something is missing.", "Please fill in every field.")
_WRONG_PASSWORD = Problem(
    403, "wrong_password", "Your current password is not that.", "Check it and try again."
)
_DIFFERENT = Problem(
    400, "passwords_differ", "The new password was typed in two ways.", "Type the same twice."
)
_UNSUITABLE = Problem(
    400,
    "unsuitable_password",
    "That password cannot be used.",
    "It needs %(characters)s characters or more, and may not be your user name. A few words make "
    "a good one.",
    {"characters": MIN_CHARACTERS},
)
_WRONG_CODE = Problem(
    400,
    "second_factor_failed",
    "That code is not right.",
    "Enter the code that the app shows now, and see whether the clock of your phone is right.",
)
_TOO_MANY = Problem(
    429, "too_many_attempts", "Too many attempts.", "Please try again in a few minutes."
)
_BUSY = Problem(
    503, "overloaded", "Too many people are signing in right now.", "Please try again in a moment."
)
MUST = Problem(
    403,
    "second_factor_required",
    "Your account must have a second factor.",
    "Set another one up before you remove this one.",
)
CHANGED = Problem(
    409, "account_changed", "Your account was changed meanwhile.", "Please sign in again."
)


class OwnAccount:
    """The caller's own account."""

    def __init__(  # noqa: PLR0913 - what an account touches
        self,
        answers: Answers,
        *,
        store: SessionStore,
        accounts: Accounts,
        credentials: Credentials,
        factors: Factors,
        beginnings: Beginnings,
        throttle: Throttle | None,
        events: AccountEvents,
        clock: Callable[[], float],
    ) -> None:
        """Take what an account touches; *credentials* are *accounts*, or who is asked instead."""
        self._answers = answers
        self._store = store
        self._accounts = accounts
        self._credentials = credentials
        self._factors = factors
        self._beginnings = beginnings
        self._throttle = throttle
        self._events = events
        self._clock = clock

    # Overview ---------------------------------------------------------------------------------

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: what there is, and where to change it.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        found = await self.find(visit, ACCOUNT_PATH)
        return found if isinstance(found, LoginAnswer) else await self._overview(visit, *found)

    async def _overview(  # noqa: PLR0913 - the parts of an answer
        self,
        visit: Visit,
        account: Account,
        own: OwnFactors,
        *,
        notice: str = "",
        problem: Problem | None = None,
        fields: Fields = (),
    ) -> LoginAnswer:
        if visit.prefers(unless_told="page") == "json":
            if problem:
                return self._answers.problem(problem, fields=fields)
            told = {
                "login": account.login,
                "name": account.name,
                "authenticator_since": own.totp_since or None,
                "passkeys": len(own.passkeys),
                "passwordless": own.passwordless,
                "recovery_codes": own.recovery_codes,
                "second_factor_required": own.required,
            }
            return self._answers.json(told, fields=fields)
        now = self._clock()
        values: dict[str, object] = {
            "login": account.login,
            "own": own,
            "totp_since": moment(own.totp_since, now, visit.wording) if own.totp_since else None,
            "password_path": PASSWORD_PATH if self._answers.has_accounts else "",
            "authenticator_path": AUTHENTICATOR_PATH,
            "recovery_codes_path": RECOVERY_CODES_PATH,
            "passkeys_path": PASSKEYS_PATH if self._answers.party or own.passkeys else "",
            "notice": notice,
        }
        return self._answers.page(visit, "account", values, problem=problem, fields=fields)

    # Password ---------------------------------------------------------------------------------

    async def show_password(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the form.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        found = await self._find_for_password(visit)
        return found if isinstance(found, LoginAnswer) else self._password_page(visit, *found)

    async def change_password(self, visit: Visit) -> LoginAnswer:
        """Answer POST: another password, and the end of all other sessions.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        found = await self._find_for_password(visit)
        if isinstance(found, LoginAnswer):
            return found
        account, own = found
        refused = await self._refused(visit, account, own)
        if refused is not None:
            wait = "60" if refused.status in (429, 503) else ""
            fields: Fields = (("Retry-After", wait),) if wait else ()
            return self._password_page(visit, account, own, refused, fields)
        new = visit.request.form.get("new_password", "")
        try:
            changed = await self._factors.ask(self._accounts.set_password, account.login, new)
        except UnsuitablePassword:
            return self._password_page(visit, account, own, _UNSUITABLE)
        await self._events.password_changed(account.subject)
        identity = _identity(visit)
        await self._store.end_subject(
            account.subject, reason="password_changed", keep=identity.session_digest
        )
        begun = await self._beginnings.begin(visit, changed, identity.amr)
        if begun is None:
            return self._answers.error_page(visit, CHANGED)
        notice = visit.wording.say(
            phrase("Your password is changed, and all your other sessions have ended.")
        )
        return await self._overview(visit, changed, own, notice=notice, fields=begun[1])

    async def _find_for_password(self, visit: Visit) -> tuple[Account, OwnFactors] | LoginAnswer:
        """Return as `find`; whoever has no password to show must have signed in just now."""
        found = await self.find(visit, PASSWORD_PATH)
        if isinstance(found, LoginAnswer) or not found[1].passwordless:
            return found
        return await self.find(visit, PASSWORD_PATH, recent=True)

    async def _refused(self, visit: Visit, account: Account, own: OwnFactors) -> Problem | None:
        """Return why it is not done; None if the current password is right and all is there."""
        if not visit.may_change_sessions:
            return FOREIGN
        form = visit.request.form
        current, new = form.get("password", ""), form.get("new_password", "")
        if not (current or own.passwordless) or not new or not form.get("new_password_again"):
            return _UNCLEAR
        if new != form["new_password_again"]:
            return _DIFFERENT
        if own.passwordless:
            return None
        address = visit.request.client_address
        if self._throttle and await self._throttle.take(account.login, address) > 0:
            return _TOO_MANY
        try:
            right = await self._accounts.sign_in(account.login, current) is not None
        except SignInQueueFull:
            right = False
            if self._throttle:
                await self._throttle.put_back(account.login, address)
            return _BUSY
        if right and self._throttle:
            await self._throttle.put_back(account.login, address)
        return None if right else _WRONG_PASSWORD

    def _password_page(
        self,
        visit: Visit,
        account: Account,
        own: OwnFactors,
        problem: Problem | None = None,
        fields: Fields = (),
    ) -> LoginAnswer:
        if problem and visit.prefers(unless_told="page") == "json":
            return self._answers.problem(problem, fields=fields)
        values = {
            "action": PASSWORD_PATH,
            "login": account.login,
            "own": own,
            "wrong": problem is _WRONG_PASSWORD,
            "unfit": problem in (_UNSUITABLE, _DIFFERENT),
        }
        return self._answers.page(visit, "password", values, problem=problem, fields=fields)

    # Authenticator app ------------------------------------------------------------------------

    async def show_authenticator(self, visit: Visit) -> LoginAnswer:
        """Answer GET: what to set an app up with.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        found = await self.find(visit, AUTHENTICATOR_PATH, recent=True)
        if isinstance(found, LoginAnswer):
            return found
        return self._authenticator_page(visit, *found)

    async def change_authenticator(self, visit: Visit) -> LoginAnswer:
        """Answer POST: set the app up, replace it, or with `remove` forget it.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        found = await self.find(visit, AUTHENTICATOR_PATH, recent=True)
        if isinstance(found, LoginAnswer):
            return found
        account, own = found
        if not visit.may_change_sessions:
            return self._authenticator_page(visit, account, own, FOREIGN)
        if visit.request.form.get("remove") == "1":
            return await self._remove_authenticator(visit, account, own)
        factors, form = self._factors, visit.request.form
        wait = await self._throttle.take_code(account.subject) if self._throttle else 0.0
        if wait > 0:
            fields: Fields = (("Retry-After", str(math.ceil(wait))),)
            return self._authenticator_page(visit, account, own, _TOO_MANY, fields)
        sealed, code = sealed_in(form.get("secret", "")), form.get("code", "")[:LONGEST_CODE]
        if not await factors.ask(factors.set_up_totp, account.subject, sealed, code):
            return self._authenticator_page(visit, account, own, _WRONG_CODE)
        if self._throttle:
            await self._throttle.put_back_code(account.subject)
        await self._events.factor_added(account.subject, "totp")
        fields = await self.strengthened(visit, account, ("otp",))
        return_to = self.return_to(visit, ACCOUNT_PATH)
        if own.recovery_codes:
            return self._answers.redirect(return_to, fields=fields)
        codes = await self.new_codes(account)
        return show_codes(self._answers, visit, codes, return_to, fields=fields)

    async def strengthened(
        self, visit: Visit, account: Account, methods: tuple[str, ...]
    ) -> Fields:
        """Give the session a new id: from now on it is one with *methods* too, two factors.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        identity = _identity(visit)
        amr = tuple(dict.fromkeys((*identity.amr, *methods, MFA)))
        begun = await self._beginnings.begin(visit, account, amr, float(identity.auth_time))
        return begun[1] if begun else ()

    async def _remove_authenticator(
        self, visit: Visit, account: Account, own: OwnFactors
    ) -> LoginAnswer:
        try:
            await self._factors.ask(self._factors.remove_totp, account)
        except LastFactor:
            return await self._overview(visit, account, own, problem=MUST)
        await self._events.factor_removed(account.subject, "totp")
        own = await self._factors.ask(self._factors.of, account)
        notice = visit.wording.say(phrase("The authenticator app is removed."))
        return await self._overview(visit, account, own, notice=notice)

    def _authenticator_page(
        self,
        visit: Visit,
        account: Account,
        own: OwnFactors,
        problem: Problem | None = None,
        fields: Fields = (),
    ) -> LoginAnswer:
        if problem and visit.prefers(unless_told="page") == "json":
            return self._answers.problem(problem, fields=fields)
        back = visit.request.form.get("secret", "")
        values = {
            "action": AUTHENTICATOR_PATH,
            "login": account.login,
            "own": own,
            "secret": secret_again(self._factors, account, back, site=self._answers.site),
            "wrong": problem is _WRONG_CODE,
            "must": False,
            "return_to": self.return_to(visit, ACCOUNT_PATH),
        }
        return self._answers.page(visit, "authenticator", values, problem=problem, fields=fields)

    # Recovery codes ---------------------------------------------------------------------------

    async def renew_recovery_codes(self, visit: Visit) -> LoginAnswer:
        """Answer POST: new codes, shown this once; the old ones are over.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        found = await self.find(visit, ACCOUNT_PATH, recent=True)
        if isinstance(found, LoginAnswer):
            return found
        account, own = found
        if not visit.may_change_sessions:
            return await self._overview(visit, account, own, problem=FOREIGN)
        if not own.are_there:
            return self._answers.redirect(AUTHENTICATOR_PATH)
        codes = await self.new_codes(account)
        return show_codes(self._answers, visit, codes, ACCOUNT_PATH)

    async def new_codes(self, account: Account) -> tuple[str, ...]:
        """Return new recovery codes of *account*; those that there were are over.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        codes = await self._factors.ask(self._factors.renew_recovery_codes, account.subject)
        await self._events.factor_added(account.subject, "recovery_codes")
        return codes

    # Who asks ---------------------------------------------------------------------------------

    async def find(
        self, visit: Visit, path: str, *, recent: bool = False
    ) -> tuple[Account, OwnFactors] | LoginAnswer:
        """Return the caller's account and its factors, or the answer to somebody without.

        With *recent* also for whoever has signed in too long ago, or without the second factor
        that there is: they are sent to do so, and back to *path*.
        """
        identity = visit.identity
        if identity is None or not identity.session_digest:
            return self._send_to_sign_in(visit, path, _NOT_SIGNED_IN, None)
        account = await self._credentials.of_session(identity)
        if account is None:
            return self._not_ours(visit)
        own = await self._factors.ask(self._factors.of, account)
        wanted = StepUp((MFA,) if own.are_there else (), RECENT)
        age = self._clock() - identity.auth_time
        enough = wanted.is_strong_enough(identity.acr, identity.amr) and not wanted.is_too_old(age)
        if recent and not enough:
            return self._send_to_sign_in(visit, path, _NOT_RECENT, wanted)
        return account, own

    def send_to_show_passkey(self, visit: Visit, path: str) -> LoginAnswer:
        """Send whoever has a passkey, but has not shown it, to do so, and back to *path*."""
        return self._send_to_sign_in(visit, path, _NOT_BY_PASSKEY, StepUp((PHR,), RECENT))

    def _send_to_sign_in(
        self, visit: Visit, path: str, problem: Problem, step_up: StepUp | None
    ) -> LoginAnswer:
        if visit.prefers(unless_told="json") == "json":
            fields = (self._answers.challenge,) if problem.status == 401 else ()
            return self._answers.problem(problem, fields=fields)
        asked = visit.request.query.get("return_to", "")
        if asked and visit.request.method == "GET":
            path = f"{path}?{urlencode({'return_to': asked})}"
        return self._answers.to_sign_in(origin=visit.origin, path=path, step_up=step_up)

    def _not_ours(self, visit: Visit) -> LoginAnswer:
        if visit.prefers(unless_told="page") == "json":
            return self._answers.problem(_NOT_OURS)
        return self._answers.error_page(visit, _NOT_OURS)

    def return_to(self, visit: Visit, path: str) -> str:
        """Return where a page that somebody was sent to leads back to: *path*, unless told."""
        asked = visit.request.query.get("return_to") or visit.request.form.get("return_to")
        return safe_return_url(asked or path, origins=visit.return_origins)


def _identity(visit: Visit) -> Identity:
    assert visit.identity is not None
    return visit.identity
