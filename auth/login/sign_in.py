"""Signing in: the page with the ways to do it, and the form it sends."""

import math
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from auth.decision import step_up_in
from auth.login.account import MAX_LOGIN, Account
from auth.login.accounts import SignInQueueFull
from auth.login.answers import (
    AUTHENTICATOR_PATH,
    FORGOT_PATH,
    LOGIN_PATH,
    PASSKEYS_PATH,
    REGISTER_PATH,
    Answers,
    Problem,
    patience,
)
from auth.login.beginning import MFA, PHR, Beginnings, Credentials
from auth.login.circles import Circles
from auth.login.messages import LoginAnswer
from auth.login.passkey_ceremony import NOT_SHOWN, PasskeyCeremony
from auth.login.provider_sign_in import ProviderSignIn
from auth.login.second_factor import SecondFactor
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.ports import AuthUnavailable
from auth.return_url import safe_return_url
from auth.wording import phrase
from config.model import Configuration, Provider

_ELSEWHERE = Problem(
    404,
    "no_sign_in_here",
    "People do not sign in here",
    "This gateway has another place to sign in; start from the page you want to see.",
)
_FOREIGN = Problem(
    403,
    "foreign_form",
    "That form did not come from this page.",
    "Please sign in here.",
)
_INSECURE = Problem(
    403,
    "foreign_form",
    "This page cannot sign you in.",
    "You have opened it as %(origin)s, and the cookie of your session is sent over https only. "
    "Open %(public)s instead.",
)
_MISPLACED = Problem(
    403,
    "foreign_form",
    "This page cannot sign you in.",
    "You have opened it as %(origin)s, but this site takes itself for %(public)s. Open that "
    "instead; if that is wrong, whoever looks after this site must set its public_url.",
)
_INCOMPLETE = Problem(
    400, "form_incomplete", "Something is missing.", "Please fill in both fields."
)
_WRONG = Problem(
    401,
    "sign_in_failed",
    "The user name or the password is wrong.",
    "Check both and try again.",
)
_NO_DOMAIN = Problem(
    400,
    "domain_unknown",
    "Nobody signs in here with an address of that domain.",
    "Check it, or choose another way.",
)
_CANNOT = Problem(
    403,
    "cannot_step_up",
    "Your account cannot prove enough",
    "The page that you want to see asks for a way to sign in that there is none of for your "
    "account. Ask whoever looks after it.",
)
_BUSY = Problem(
    503, "overloaded", "Too many people are signing in right now.", "Please try again in a moment."
)


class SignIn:
    """The sign-in of people with an account of our own."""

    def __init__(  # noqa: PLR0913 - what a sign-in touches
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        accounts: Credentials,
        throttle: Throttle | None,
        clock: Callable[[], float],
        beginnings: Beginnings,
        second_factor: SecondFactor | None = None,
        at_providers: ProviderSignIn | None = None,
        passkeys: PasskeyCeremony | None = None,
    ) -> None:
        """Take what a sign-in needs; without *throttle* attempts are not counted."""
        self._settings = configuration.session
        self._login = configuration.login
        self._circles = Circles(self._settings, public_url=configuration.server.public_url)
        self._beginnings = beginnings
        self._second_factor = second_factor
        self._at_providers = at_providers
        self._passkeys = passkeys
        self._return_parameter = configuration.login.return_parameter
        self._public = configuration.server.public_url
        self._answers = answers
        self._accounts = accounts
        self._throttle = throttle
        self._clock = clock

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the ways to sign in, or the way to the provider that was chosen.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        if not self._answers.serves_sign_in:
            return self._answers.error_page(visit, _ELSEWHERE)
        fields, circle = self._circles.note_return(visit, self._clock())
        if circle:
            again = f"{LOGIN_PATH}?{urlencode(visit.request.query)}"
            return self._answers.error_page(visit, circle, fields=fields, again=again)
        wanted = visit.request.query.get(self._return_parameter) or "/"
        return_to = safe_return_url(wanted, origins=visit.return_origins)
        stronger = await self._step_up(visit, return_to)
        if stronger is not None:
            return stronger
        provider = self._chosen(visit)
        if provider is None or self._at_providers is None or visit.request.method != "GET":
            return self._form(visit, return_to, fields=fields)
        begun = await self._at_providers.begin(visit, provider, return_to)
        if isinstance(begun, Problem):
            return self._form(visit, return_to, begun, fields=(*fields, ("Retry-After", "5")))
        return msgspec.structs.replace(begun, fields=(*begun.fields, *fields))

    def _chosen(self, visit: Visit) -> Provider | None:
        """Return the provider that was chosen; the only way there is needs no choice.

        Whoever is signed in is asked all the same: a new sign-in ends the session they have.
        """
        providers = self._login.providers
        if "provider" in visit.request.query:
            named = self._named(visit)
            return named[0] if len(named) == 1 else None
        if visit.identity is not None:
            # Asked for more than they have shown: where they have shown it.
            issuer = visit.identity.claims.get("iss")
            asked = step_up_in(visit.request.query) or "prompt" in visit.request.query
            return next((each for each in providers if asked and each.issuer == issuer), None)
        if len(providers) == 1 and not self._answers.takes_passwords:
            return providers[0]
        return None

    def _named(self, visit: Visit) -> tuple[Provider, ...]:
        """Return the providers that the query names, with commas between."""
        names = visit.request.query.get("provider", "").split(",")
        return tuple(each for each in self._login.providers if each.id in names)

    def _find_by_address(self, visit: Visit) -> LoginAnswer:
        """Answer an e-mail address: on to the provider that its domain signs in at.

        By a page of ours: browsers hold redirects of a form against `form-action` (CSP).
        """
        address = visit.request.form["email"].strip()
        _, _, domain = address.rpartition("@")
        provider = next(
            (each for each in self._login.providers if domain.lower() in each.domains), None
        )
        if provider is None:
            return self._form(visit, visit.return_to, _NO_DOMAIN)
        asked = {
            "provider": provider.id,
            self._return_parameter: visit.return_to,
            "login_hint": address,
        }
        onward = f"{LOGIN_PATH}?{urlencode(asked)}"
        return self._answers.page(visit, "onward", {"onward": onward, "is_in": False})

    async def submit(self, visit: Visit) -> LoginAnswer:
        """Answer POST: a new session, or the form again with what was wrong.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked; no cookie was touched.
        """
        if "email" in visit.request.form and self._answers.serves_sign_in:
            return self._find_by_address(visit)
        if not self._answers.takes_passwords:
            return self._answers.error_page(visit, _ELSEWHERE)
        if not visit.may_sign_in:
            return self._refuse(visit, self._foreign(visit))
        if "challenge" in visit.request.form or "credential" in visit.request.form:
            return await self._by_passkey(visit)
        login = visit.request.form.get("username", "").strip()
        password = visit.request.form.get("password", "")
        if not login or not password:
            return self._refuse(visit, _INCOMPLETE)
        address = visit.request.client_address
        wait = await self._throttle.take(login, address) if self._throttle else 0.0
        if wait > 0:
            return self._refuse(visit, patience(wait), retry_after=math.ceil(wait))
        try:
            account = await self._accounts.sign_in(login, password)
        except SignInQueueFull as full:
            await self._forgive(login, address)
            return self._refuse(visit, _BUSY, retry_after=full.retry_after)
        except AuthUnavailable:
            await self._forgive(login, address)  # nobody can tell whether it was wrong
            raise
        if account is None:
            return self._refuse(visit, _WRONG)
        await self._forgive(login, address)
        return await self._go_on(visit, account)

    async def _by_passkey(self, visit: Visit) -> LoginAnswer:
        """Answer a sign-in with a passkey alone: with its options first, then with a session."""
        if self._passkeys is None or not self._answers.has_accounts:
            return self._refuse(visit, NOT_SHOWN)
        if "challenge" in visit.request.form:
            return await self._passkeys.ask_anybody(visit)
        signed_in = await self._passkeys.signed_in(visit)
        if signed_in is None:
            return self._refuse(visit, NOT_SHOWN)
        account, amr = signed_in
        return await self._begin(visit, account, amr, NOT_SHOWN)

    async def _go_on(self, visit: Visit, account: Account) -> LoginAnswer:
        """Begin a session for *account*, or ask for the second factor that it has or must have."""
        amr = ("pwd",)
        if self._second_factor is not None:
            own = await self._second_factor.of(account)
            if own.are_there or own.required:
                wait = await self._wait(account)
                if wait > 0:
                    return self._refuse(visit, patience(wait), retry_after=math.ceil(wait))
                now = round(self._clock(), 3)
                return await self._second_factor.ask(visit, account, amr, visit.return_to, now)
        return await self._begin(visit, account, amr, _WRONG)

    async def _begin(
        self, visit: Visit, account: Account, amr: tuple[str, ...], changed: Problem
    ) -> LoginAnswer:
        """Begin a session for *account*; *changed* is said if it was changed meanwhile."""
        wait = await self._wait(account)
        if wait > 0:
            return self._refuse(visit, patience(wait), retry_after=math.ceil(wait))
        begun = await self._beginnings.begin(visit, account, amr)
        if begun is None:
            return self._refuse(visit, changed)
        record, fields = begun
        return self._beginnings.arrive(visit, record, visit.return_to, fields)

    async def _wait(self, account: Account) -> float:
        """Count a session of *account*; return 0, or the seconds until one may begin."""
        return await self._throttle.take_session(account.subject) if self._throttle else 0.0

    async def _step_up(self, visit: Visit, return_to: str) -> LoginAnswer | None:
        """Return the way to a stronger session than the one at hand; None: sign in anew."""
        identity, asked = visit.identity, visit.step_up
        if identity is None or asked is None or not identity.session_digest:
            return None
        strong = asked.is_strong_enough(identity.acr, identity.amr)
        if strong or asked.is_too_old(self._clock() - identity.auth_time):
            return None
        account = await self._accounts.of_session(identity)
        if self._second_factor is None or account is None:
            return None
        own = await self._second_factor.of(account)
        query = urlencode({"return_to": return_to})
        if MFA in asked.acr_values:
            if own.are_there:
                return await self._second_factor.step_up(visit, account, return_to)
            return self._answers.redirect(f"{AUTHENTICATOR_PATH}?{query}")
        if PHR not in asked.acr_values or not self._answers.offers_passkeys(visit):
            return self._answers.error_page(visit, _CANNOT)
        if own.passkeys:
            step_up = self._second_factor.step_up
            return await step_up(visit, account, return_to, only_passkeys=True)
        return self._answers.redirect(f"{PASSKEYS_PATH}?{query}")

    def _foreign(self, visit: Visit) -> Problem:
        """Return what is told to whoever sends a form that must not sign anybody in."""
        origin, public = visit.misplaced, self._public
        if not origin:
            return _FOREIGN
        insecure = public.startswith("https:") and not origin.startswith("https:")
        problem = _INSECURE if insecure else _MISPLACED
        return msgspec.structs.replace(problem, values={"origin": origin, "public": public})

    async def _forgive(self, login: str, address: str) -> None:
        if self._throttle:
            await self._throttle.put_back(login, address)

    def _refuse(self, visit: Visit, problem: Problem, *, retry_after: int = 0) -> LoginAnswer:
        fields: tuple[tuple[str, str], ...] = ()
        if retry_after:
            fields = (("Retry-After", str(retry_after)),)
        if problem.status == 401:
            fields = (*fields, self._answers.challenge)
        if visit.prefers(unless_told="page") == "json":
            return self._answers.problem(problem, fields=fields)
        return self._form(visit, visit.return_to, problem, fields=fields)

    def _choice(self, visit: Visit, provider: Provider, return_to: str) -> "_Choice":
        query = visit.request.query
        more = {name: query[name] for name in ("acr_values", "max_age", "prompt") if name in query}
        asked = {"provider": provider.id, self._return_parameter: return_to, **more}
        # A link, not a form: browsers hold redirects of a form against `form-action` (CSP).
        return _Choice(provider.label, f"{LOGIN_PATH}?{urlencode(asked)}")

    def _form(
        self,
        visit: Visit,
        return_to: str,
        problem: Problem | None = None,
        *,
        fields: tuple[tuple[str, str], ...] = (),
    ) -> LoginAnswer:
        form = visit.request.form
        username = form.get("username", "").strip()[:MAX_LOGIN]
        faults = {"username": "", "password": ""}
        if problem is _INCOMPLETE:
            if not username:
                faults["username"] = visit.wording.say(phrase("Enter your user name."))
            if not form.get("password"):
                faults["password"] = visit.wording.say(phrase("Enter your password."))
        values: dict[str, object] = {
            "action": LOGIN_PATH,
            "return_to": return_to,
            "once_more": visit.identity is not None and visit.step_up is not None,
            "username": username,
            "username_limit": MAX_LOGIN,
            "faults": faults,
            "wrong": problem is _WRONG,
            "email": form.get("email", "").strip()[:MAX_LOGIN],
            "faulty": ("email",) if problem is _NO_DOMAIN else (),
            "takes_passwords": self._answers.takes_passwords,
            "forgot_path": FORGOT_PATH if self._answers.offers_reset else "",
            "register_path": REGISTER_PATH if self._answers.offers_registration else "",
            "providers": [
                self._choice(visit, each, return_to)
                for each in self._named(visit) or self._login.providers
            ],
            "by_address": any(each.domains for each in self._login.providers),
        }
        return self._answers.page(
            visit,
            "login",
            values,
            fields=fields,
            problem=problem,
            with_passkeys=self._passkeys is not None and self._answers.has_accounts,
        )


class _Choice(NamedTuple):
    """A provider as the page shows it."""

    label: str
    url: str
