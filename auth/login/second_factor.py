"""The second half of a sign-in: a code, after the password. No session exists before it.

How this works. After the first factor the store remembers who showed it (`auth.io.unfinished`),
under a cookie that only this browser has. What comes of it, a session, is made here and nowhere
else: whoever goes straight to the address they wanted is not signed in. The same page makes a
session that there is a stronger one (step-up), under a new id; it must still be the very session
that asked. Whoever must have a second factor and has none sets one up here, an app or a passkey.
"""

import math
import secrets

from auth.cookies import sign_in_cookie_prefix
from auth.io.account_events import AccountEvents, Factor
from auth.io.unfinished import UNFINISHED_SECONDS, UnfinishedSignIn, UnfinishedSignIns
from auth.login.account import Account
from auth.login.answers import LOGIN_PATH, SECOND_FACTOR_PATH, Answers, Fields, Problem
from auth.login.app_secret import LONGEST_CODE, sealed_in, secret_again
from auth.login.beginning import MFA, Beginnings, Credentials
from auth.login.factors import Factors, FactorsChanged, OwnFactors
from auth.login.messages import LoginAnswer
from auth.login.passkey_ceremony import NOT_MADE, NOT_SHOWN, PasskeyCeremony
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from config.model import Configuration

_CODE = ("otp",)
"""`amr` of a code, be it an app's or a recovery code."""

_NEEDED = Problem(
    401,
    "second_factor_needed",
    "A second factor is needed.",
    "Send `code` or `recovery_code` to %(path)s, with the cookie of this answer.",
    {"path": SECOND_FACTOR_PATH},
)
_OVER = Problem(
    400,
    "sign_in_expired",
    "This sign-in is over",
    "It was finished before, or took longer than ten minutes. Please sign in again.",
)
_FOREIGN = Problem(
    403, "foreign_form", "That form did not come from this page.", "Please enter the code here."
)
_WRONG = Problem(
    401,
    "second_factor_failed",
    "That code is not right.",
    "Each code works once. Wait for the next one, and see whether the clock of your phone is "
    "right.",
)
_WRONG_RECOVERY = Problem(
    401,
    "second_factor_failed",
    "That recovery code is not right.",
    "Each one works once. Check it, or take another one.",
)
_TOO_MANY = Problem(
    429, "too_many_attempts", "Too many attempts.", "Please try again in a few minutes."
)
FACTORS_CHANGED = Problem(
    409,
    "factors_changed",
    "Your second factors were changed meanwhile.",
    "Nothing was done. If it was not you, tell whoever looks after this site.",
)


_FAULTY = {_WRONG.title: ("code",), _WRONG_RECOVERY.title: ("recovery_code",)}


class SecondFactor:
    """The page that asks for it."""

    def __init__(  # noqa: PLR0913 - what a sign-in touches
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        accounts: Credentials,
        factors: Factors,
        unfinished: UnfinishedSignIns,
        beginnings: Beginnings,
        throttle: Throttle | None,
        events: AccountEvents,
        passkeys: PasskeyCeremony,
    ) -> None:
        self._settings = configuration.session
        self._cookie_name = f"{sign_in_cookie_prefix(self._settings.cookie_name)}second-factor"
        self._answers = answers
        self._accounts = accounts
        self._factors = factors
        self._unfinished = unfinished
        self._beginnings = beginnings
        self._throttle = throttle
        self._events = events
        self._passkeys = passkeys

    async def of(self, account: Account) -> OwnFactors:
        """Return what *account* has.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        return await self._factors.ask(self._factors.of, account)

    async def ask(
        self, visit: Visit, account: Account, amr: tuple[str, ...], return_to: str, now: float
    ) -> LoginAnswer:
        """Remember that *account* showed *amr* just now, and send the browser to the page.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        sign_in = UnfinishedSignIn(account, amr, now, return_to)
        return await self._keep(visit, sign_in)

    async def step_up(
        self, visit: Visit, account: Account, return_to: str, *, only_passkeys: bool = False
    ) -> LoginAnswer:
        """Send the browser to the page to make the session at hand, *account*'s, a stronger one.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        identity = visit.identity
        assert identity is not None
        sign_in = UnfinishedSignIn(
            account,
            identity.amr,
            float(identity.auth_time),
            return_to,
            only_passkeys=only_passkeys,
            session_digest=identity.session_digest,
        )
        return await self._keep(visit, sign_in)

    async def _keep(self, visit: Visit, sign_in: UnfinishedSignIn) -> LoginAnswer:
        binding = secrets.token_urlsafe(32)
        await self._unfinished.keep(binding, sign_in)
        fields: Fields = (("Set-Cookie", self._cookie(binding, UNFINISHED_SECONDS)),)
        if visit.prefers(unless_told="page") == "json":
            return self._answers.problem(_NEEDED, fields=(*fields, self._answers.challenge))
        return self._answers.redirect(SECOND_FACTOR_PATH, fields=fields)

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the question for a code, or what to set an app up with.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        found = await self._find(visit)
        if found is None:
            return self._answers.redirect(LOGIN_PATH)
        return await self._page(visit, *found)

    async def submit(self, visit: Visit) -> LoginAnswer:
        """Answer POST: a session, or the page again with what was wrong.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        found = await self._find(visit)
        if found is None:
            return self._over(visit)
        sign_in, account = found
        if not visit.may_sign_in:
            return await self._refuse(visit, found, _FOREIGN)
        own = await self.of(account)
        if "challenge" in visit.request.form:
            return await self._ask_for_passkey(visit, account, own)
        wait = await self._throttle.take_code(account.subject) if self._throttle else 0.0
        if wait > 0:
            return await self._refuse(visit, found, _TOO_MANY, wait=wait)
        enrolled = not own.are_there
        if not enrolled and "secret" in visit.request.form:  # another form was faster
            return await self._refuse(visit, found, FACTORS_CHANGED)
        try:
            shown = await (
                self._set_up(visit, account, own) if enrolled else self._use(visit, *found)
            )
        except FactorsChanged:
            return await self._refuse(visit, found, FACTORS_CHANGED)
        if not shown:
            return await self._refuse(visit, found, _failed(visit, enrolled=enrolled))
        if self._throttle:
            await self._throttle.put_back_code(account.subject)
        # Of several requests with one cookie, one makes a session.
        if await self._unfinished.take(self._binding(visit)) != sign_in:
            return self._over(visit)
        return await self._complete(visit, sign_in, account, shown, enrolled=enrolled)

    async def _ask_for_passkey(
        self, visit: Visit, account: Account, own: OwnFactors
    ) -> LoginAnswer:
        if own.are_there:
            return await self._passkeys.ask_for_one_of(visit, account.subject, own.passkeys)
        return await self._passkeys.ask_for_new(visit, account, ())

    async def _complete(
        self,
        visit: Visit,
        sign_in: UnfinishedSignIn,
        account: Account,
        shown: tuple[str, ...],
        *,
        enrolled: bool,
    ) -> LoginAnswer:
        """Begin the session; whoever has *enrolled* a factor just now sees recovery codes first."""
        amr = tuple(dict.fromkeys((*sign_in.amr, *shown, MFA)))
        begun = await self._beginnings.begin(visit, account, amr, sign_in.auth_time)
        if begun is None:
            return self._over(visit)
        record, fields = begun
        fields = (*fields, ("Set-Cookie", self._cookie("", 0)))
        if not enrolled:
            return self._beginnings.arrive(visit, record, sign_in.return_to, fields)
        codes = await self._factors.ask(self._factors.renew_recovery_codes, account.subject)
        made: Factor = "passkey" if _by_passkey(visit) else "totp"
        await self._events.factor_added(account.subject, made)
        await self._events.factor_added(account.subject, "recovery_codes")
        return show_codes(self._answers, visit, codes, sign_in.return_to, fields=fields)

    async def _find(self, visit: Visit) -> tuple[UnfinishedSignIn, Account] | None:
        """Return the sign-in of this browser and its account, as long as both hold."""
        sign_in = await self._unfinished.find(self._binding(visit))
        if sign_in is None:
            return None
        if sign_in.session_digest:
            identity = visit.identity  # the session is alive, or there would be none
            if identity is None or identity.session_digest != sign_in.session_digest:
                return None
        account = await self._accounts.current(sign_in.account)
        return None if account is None else (sign_in, account)

    async def _use(
        self, visit: Visit, sign_in: UnfinishedSignIn, account: Account
    ) -> tuple[str, ...]:
        """Return the `amr` of what was shown; empty: nothing that is good."""
        form, factors = visit.request.form, self._factors
        if _by_passkey(visit):
            return await self._passkeys.shown(visit, account.subject)
        if sign_in.only_passkeys:
            return ()
        code = form.get("code", "")[:LONGEST_CODE]
        recovery = form.get("recovery_code", "")[:LONGEST_CODE]
        if recovery:
            good = await factors.ask(factors.use_recovery_code, account.subject, recovery)
        else:
            good = await factors.ask(factors.use_totp, account.subject, code)
        return _CODE if good else ()

    async def _set_up(self, visit: Visit, account: Account, seen: OwnFactors) -> tuple[str, ...]:
        """Return the `amr` of the factor that *account* has from now on; empty: none."""
        form, factors = visit.request.form, self._factors
        if _by_passkey(visit):
            passkey = await self._passkeys.made(visit, account, seen)
            # That somebody verified the user was asked for when it was made.
            return passkey.methods(user_verified=True) if passkey else ()
        sealed, code = sealed_in(form.get("secret", "")), form.get("code", "")[:LONGEST_CODE]
        good = await factors.ask(factors.set_up_totp, account, sealed, code, seen)
        return _CODE if good else ()

    async def _page(
        self,
        visit: Visit,
        sign_in: UnfinishedSignIn,
        account: Account,
        problem: Problem | None = None,
        fields: Fields = (),
    ) -> LoginAnswer:
        own = await self.of(account)
        values: dict[str, object] = {
            "action": SECOND_FACTOR_PATH,
            "login": account.login,
            "own": own,
            "wrong": problem is _WRONG,
            "faulty": _FAULTY.get(problem.title, ()) if problem else (),
        }
        if own.are_there:
            values["takes_codes"] = not sign_in.only_passkeys
            return self._answers.page(
                visit, "second_factor", values, problem=problem, fields=fields, with_passkeys=True
            )
        back = visit.request.form.get("secret", "")
        values["secret"] = secret_again(self._factors, account, back, site=self._answers.site)
        values["return_to"] = ""
        values["must"] = True
        return self._answers.page(
            visit, "authenticator", values, problem=problem, fields=fields, with_passkeys=True
        )

    async def _refuse(
        self,
        visit: Visit,
        found: tuple[UnfinishedSignIn, Account],
        problem: Problem,
        *,
        wait: float = 0.0,
    ) -> LoginAnswer:
        fields: Fields = (("Retry-After", str(math.ceil(wait))),) if wait else ()
        if problem.status == 401:
            fields = (*fields, self._answers.challenge)
        if visit.prefers(unless_told="page") == "json":
            return self._answers.problem(problem, fields=fields)
        return await self._page(visit, *found, problem, fields)

    def _over(self, visit: Visit) -> LoginAnswer:
        if visit.prefers(unless_told="page") == "json":
            return self._answers.problem(_OVER)
        return self._answers.error_page(visit, _OVER, again=LOGIN_PATH)

    def _binding(self, visit: Visit) -> str:
        return visit.request.cookies.get(self._cookie_name, "")

    def _cookie(self, value: str, max_age: int) -> str:
        secure = "; Secure" if self._settings.secure else ""
        # Lax: a link of another site may lead to a page that asks for more.
        attributes = f"; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{secure}"
        return f"{self._cookie_name}={value}{attributes}"


def _by_passkey(visit: Visit) -> bool:
    """Tell whether a passkey is sent; without a script the field is there, and empty."""
    return bool(visit.request.form.get("credential"))


def _failed(visit: Visit, *, enrolled: bool) -> Problem:
    """Return what was wrong with the form, which is to set a factor up or to show one."""
    if _by_passkey(visit):
        return NOT_MADE if enrolled else NOT_SHOWN
    return _WRONG_RECOVERY if not enrolled and visit.request.form.get("recovery_code") else _WRONG


def show_codes(
    answers: Answers,
    visit: Visit,
    codes: tuple[str, ...],
    return_to: str,
    *,
    fields: Fields = (),
) -> LoginAnswer:
    """Return the recovery codes, which are shown this once, and the way on to *return_to*."""
    if visit.prefers(unless_told="page") == "json":
        told = {"recovery_codes": codes, "return_to": return_to}
        return answers.json(told, fields=fields)
    values = {"codes": codes, "return_to": return_to}
    return answers.page(visit, "recovery_codes", values, fields=fields)
