"""A person changes their own password: with the one they have, and everything else ends."""

from auth.io.account_events import AccountEvents
from auth.login.account import Account, AccountError
from auth.login.accounts import Accounts, SignInQueueFull
from auth.login.answers import PASSWORD_PATH, Answers, Fields, Problem
from auth.login.beginning import Beginnings
from auth.login.factors import Factors, OwnFactors
from auth.login.messages import LoginAnswer
from auth.login.own_account import CHANGED, FOREIGN, TOO_MANY, OwnAccount, caller_of
from auth.login.passwords import MIN_CHARACTERS, UnsuitablePassword
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.ports import SessionStore
from auth.wording import phrase

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
_BUSY = Problem(
    503, "overloaded", "Too many people are signing in right now.", "Please try again in a moment."
)


class OwnPassword:
    """The password of the caller's own account."""

    def __init__(  # noqa: PLR0913 - what a password touches
        self,
        answers: Answers,
        *,
        own_account: OwnAccount,
        store: SessionStore,
        accounts: Accounts,
        factors: Factors,
        beginnings: Beginnings,
        throttle: Throttle | None,
        events: AccountEvents,
    ) -> None:
        self._answers = answers
        self._own_account = own_account
        self._store = store
        self._accounts = accounts
        self._factors = factors
        self._beginnings = beginnings
        self._throttle = throttle
        self._events = events

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the form.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        found = await self._find(visit)
        return found if isinstance(found, LoginAnswer) else self._page(visit, *found)

    async def change(self, visit: Visit) -> LoginAnswer:
        """Answer POST: another password, and the end of all other sessions.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        found = await self._find(visit)
        if isinstance(found, LoginAnswer):
            return found
        account, own = found
        refused = await self._refused(visit, account, own)
        if refused is not None:
            wait = "60" if refused.status in (429, 503) else ""
            fields: Fields = (("Retry-After", wait),) if wait else ()
            return self._page(visit, account, own, refused, fields)
        new = visit.request.form.get("new_password", "")
        # Asked first, so that a store that is out leaves everything as it was.
        await self._store.settle()
        try:
            changed = await self._accounts.in_turn(
                lambda: self._accounts.set_password(account.login, new)
            )
        except UnsuitablePassword:
            return self._page(visit, account, own, _UNSUITABLE)
        except SignInQueueFull:
            return self._page(visit, account, own, _BUSY, (("Retry-After", "60"),))
        except AccountError:  # renamed or deleted this very moment
            return self._answers.error_page(visit, CHANGED)
        await self._events.password_changed(account.subject)
        identity = caller_of(visit)
        await self._store.end_subject(
            account.subject, reason="password_changed", keep=identity.session_digest
        )
        begun = await self._beginnings.begin(visit, changed, identity.amr)
        if begun is None:
            return self._answers.error_page(visit, CHANGED)
        notice = visit.wording.say(
            phrase("Your password is changed, and all your other sessions have ended.")
        )
        return await self._own_account.overview(visit, changed, own, notice=notice, fields=begun[1])

    async def _find(self, visit: Visit) -> tuple[Account, OwnFactors] | LoginAnswer:
        """Return as `OwnAccount.find`; who has no password to show must have signed in just now."""
        found = await self._own_account.find(visit, PASSWORD_PATH)
        if isinstance(found, LoginAnswer) or not found[1].passwordless:
            return found
        return await self._own_account.find(visit, PASSWORD_PATH, recent=True)

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
            return TOO_MANY
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

    def _page(
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
            "least": MIN_CHARACTERS,
            "faulty": _faulty(visit, problem),
        }
        return self._answers.page(visit, "password", values, problem=problem, fields=fields)


def _faulty(visit: Visit, problem: Problem | None) -> tuple[str, ...]:
    """Return the fields of the form that *problem* is about."""
    if problem is _UNCLEAR:
        names = ("password", "new_password", "new_password_again")
        return tuple(name for name in names if not visit.request.form.get(name))
    if problem is _WRONG_PASSWORD:
        return ("password",)
    return ("new_password", "new_password_again") if problem in (_UNSUITABLE, _DIFFERENT) else ()
