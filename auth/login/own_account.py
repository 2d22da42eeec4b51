"""A person's own account: what there is, who may change it, recovery codes.

What they change is in the modules beside this one (`own_password`, `own_authenticator`,
`own_passkeys`), which all ask here who it is. A stolen session must not become somebody else's
account: whatever changes how one gets in wants a sign-in of the last minutes, with the second
factor if there is one, and gives the session a new id.
"""

from collections.abc import Callable
from urllib.parse import urlencode

from auth.decision import StepUp
from auth.identity import Identity
from auth.io.account_events import AccountEvents
from auth.login.account import Account
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
from auth.login.factors import Factors, OwnFactors
from auth.login.messages import LoginAnswer
from auth.login.pages import moment
from auth.login.second_factor import show_codes
from auth.login.visit import Visit
from auth.return_url import safe_return_url

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
TOO_MANY = Problem(
    429, "too_many_attempts", "Too many attempts.", "Please try again in a few minutes."
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
        credentials: Credentials,
        factors: Factors,
        beginnings: Beginnings,
        events: AccountEvents,
        clock: Callable[[], float],
    ) -> None:
        """Take what an account touches; *credentials* are who knows whose session it is."""
        self._answers = answers
        self._credentials = credentials
        self._factors = factors
        self._beginnings = beginnings
        self._events = events
        self._clock = clock

    # Overview ---------------------------------------------------------------------------------

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: what there is, and where to change it.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        found = await self.find(visit, ACCOUNT_PATH)
        return found if isinstance(found, LoginAnswer) else await self.overview(visit, *found)

    async def overview(  # noqa: PLR0913 - the parts of an answer
        self,
        visit: Visit,
        account: Account,
        own: OwnFactors,
        *,
        notice: str = "",
        problem: Problem | None = None,
        fields: Fields = (),
    ) -> LoginAnswer:
        """Return the page of *account*, which has *own*, with what was done or went wrong."""
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
            return await self.overview(visit, account, own, problem=FOREIGN)
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

    async def strengthened(
        self, visit: Visit, account: Account, methods: tuple[str, ...]
    ) -> Fields:
        """Give the session a new id: from now on it is one with *methods* too, two factors.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        identity = caller_of(visit)
        amr = tuple(dict.fromkeys((*identity.amr, *methods, MFA)))
        begun = await self._beginnings.begin(visit, account, amr, float(identity.auth_time))
        return begun[1] if begun else ()

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


def caller_of(visit: Visit) -> Identity:
    """Return who asks, on a page that nobody sees without a session."""
    assert visit.identity is not None
    return visit.identity
