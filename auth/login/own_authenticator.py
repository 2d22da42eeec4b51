"""A person's own authenticator app: set up, replaced, removed."""

import math

from auth.io.account_events import AccountEvents
from auth.login.account import Account
from auth.login.answers import ACCOUNT_PATH, AUTHENTICATOR_PATH, Answers, Fields, Problem
from auth.login.app_secret import LONGEST_CODE, sealed_in, secret_again
from auth.login.factors import Factors, FactorsChanged, LastFactor, OwnFactors
from auth.login.messages import LoginAnswer
from auth.login.own_account import FOREIGN, MUST, TOO_MANY, OwnAccount
from auth.login.second_factor import FACTORS_CHANGED, show_codes
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.wording import phrase

_WRONG_CODE = Problem(
    400,
    "second_factor_failed",
    "That code is not right.",
    "Enter the code that the app shows now, and see whether the clock of your phone is right.",
)


class OwnAuthenticator:
    """The authenticator app of the caller's own account."""

    def __init__(
        self,
        answers: Answers,
        *,
        own_account: OwnAccount,
        factors: Factors,
        throttle: Throttle | None,
        events: AccountEvents,
    ) -> None:
        self._answers = answers
        self._own_account = own_account
        self._factors = factors
        self._throttle = throttle
        self._events = events

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: what to set an app up with.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        found = await self._own_account.find(visit, AUTHENTICATOR_PATH, recent=True)
        if isinstance(found, LoginAnswer):
            return found
        return self._page(visit, *found)

    async def change(self, visit: Visit) -> LoginAnswer:
        """Answer POST: set the app up, replace it, or with `remove` forget it.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        found = await self._own_account.find(visit, AUTHENTICATOR_PATH, recent=True)
        if isinstance(found, LoginAnswer):
            return found
        account, own = found
        if not visit.may_change_sessions:
            return self._page(visit, account, own, FOREIGN)
        if visit.request.form.get("remove") == "1":
            return await self._remove(visit, account, own)
        factors, form = self._factors, visit.request.form
        since = str(own.totp_since)
        if form.get("replaces", since) != since:  # a page that is older than the app there is
            return await self._changed(visit, account)
        wait = await self._throttle.take_code(account.subject) if self._throttle else 0.0
        if wait > 0:
            fields: Fields = (("Retry-After", str(math.ceil(wait))),)
            return self._page(visit, account, own, TOO_MANY, fields)
        sealed, code = sealed_in(form.get("secret", "")), form.get("code", "")[:LONGEST_CODE]
        try:
            good = await factors.ask(factors.set_up_totp, account, sealed, code, own)
        except FactorsChanged:
            return await self._changed(visit, account)
        if not good:
            return self._page(visit, account, own, _WRONG_CODE)
        if self._throttle:
            await self._throttle.put_back_code(account.subject)
        await self._events.factor_added(account.subject, "totp")
        fields = await self._own_account.strengthened(visit, account, ("otp",))
        return_to = self._own_account.return_to(visit, ACCOUNT_PATH)
        if own.recovery_codes:
            return self._answers.redirect(return_to, fields=fields)
        codes = await self._own_account.new_codes(account)
        return show_codes(self._answers, visit, codes, return_to, fields=fields)

    async def _changed(self, visit: Visit, account: Account) -> LoginAnswer:
        """Show the page as things are now: what it would replace is not what it was."""
        own = await self._factors.ask(self._factors.of, account)
        return self._page(visit, account, own, FACTORS_CHANGED)

    async def _remove(self, visit: Visit, account: Account, own: OwnFactors) -> LoginAnswer:
        try:
            await self._factors.ask(self._factors.remove_totp, account)
        except LastFactor:
            return await self._own_account.overview(visit, account, own, problem=MUST)
        await self._events.factor_removed(account.subject, "totp")
        own = await self._factors.ask(self._factors.of, account)
        notice = visit.wording.say(phrase("The authenticator app is removed."))
        return await self._own_account.overview(visit, account, own, notice=notice)

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
        back = visit.request.form.get("secret", "")
        values = {
            "action": AUTHENTICATOR_PATH,
            "login": account.login,
            "own": own,
            "secret": secret_again(self._factors, account, back, site=self._answers.site),
            "wrong": problem is _WRONG_CODE,
            "must": False,
            "return_to": self._own_account.return_to(visit, ACCOUNT_PATH),
        }
        return self._answers.page(visit, "authenticator", values, problem=problem, fields=fields)
