"""A person's own passkeys: added, named, removed; and the password that they can stand in for."""

from collections.abc import Callable

from auth.io.account_events import AccountEvents
from auth.login.account import Account, AccountError, checked_text
from auth.login.answers import PASSKEYS_PATH, Answers, Fields, Problem
from auth.login.beginning import PHR, Beginnings
from auth.login.factors import Factors, FactorsChanged, LastFactor, OwnFactors
from auth.login.messages import LoginAnswer
from auth.login.own_account import CHANGED, FOREIGN, MUST, OwnAccount
from auth.login.pages import moment
from auth.login.passkey import LONGEST_NAME, Passkey
from auth.login.passkey_ceremony import NOT_MADE, PasskeyCeremony, suggested_name
from auth.login.second_factor import FACTORS_CHANGED, show_codes
from auth.login.visit import Visit
from auth.ports import SessionStore
from auth.wording import phrase

_LAST = Problem(
    403,
    "last_passkey",
    "This passkey is your only way in.",
    "Add another one or set a password before you remove it.",
)
_NO_WAY_BACK = Problem(
    403,
    "last_factor",
    "Your password is needed still.",
    "You need a passkey and recovery codes before you can do without it.",
)
_NOT_OUR_PASSWORD = Problem(
    404,
    "no_account_here",
    "Your password is kept elsewhere.",
    "It is checked by another service, and cannot be removed here.",
)
_UNNAMED = Problem(400, "form_incomplete", "Something is missing.", "Please enter a name.")
_GONE = Problem(404, "no_such_passkey", "That passkey is not there any more.")


class OwnPasskeys:
    """The passkeys of the caller's own account."""

    def __init__(  # noqa: PLR0913 - what passkeys touch
        self,
        answers: Answers,
        *,
        own_account: OwnAccount,
        ceremony: PasskeyCeremony,
        store: SessionStore,
        factors: Factors,
        beginnings: Beginnings,
        events: AccountEvents,
        clock: Callable[[], float],
    ) -> None:
        self._answers = answers
        self._own_account = own_account
        self._ceremony = ceremony
        self._store = store
        self._factors = factors
        self._beginnings = beginnings
        self._events = events
        self._clock = clock

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: those there are, and the form to add one.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        found = await self._own_account.find(visit, PASSKEYS_PATH, recent=True)
        return found if isinstance(found, LoginAnswer) else self._page(visit, found[1])

    async def submit(self, visit: Visit) -> LoginAnswer:
        """Answer POST: options for a new passkey, or what the form wants done.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        found = await self._own_account.find(visit, PASSKEYS_PATH, recent=True)
        if isinstance(found, LoginAnswer):
            return found
        account, own = found
        form = visit.request.form
        if not visit.may_change_sessions:
            return self._page(visit, own, problem=FOREIGN)
        if "challenge" in form:
            return await self._ceremony.ask_for_new(visit, account, own.passkeys)
        if "credential" in form:
            return await self._add(visit, account, own)
        if "rename" in form:
            return await self._rename(visit, account, own)
        if "remove" in form:
            return await self._remove(visit, account, own)
        if form.get("alone") == "1":
            return await self._remove_password(visit, account, own)
        return self._page(visit, own)

    async def _add(self, visit: Visit, account: Account, own: OwnFactors) -> LoginAnswer:
        """Keep a passkey. From now on the session is one with it, under a new id."""
        try:
            passkey = await self._ceremony.made(visit, account, own)
        except FactorsChanged:
            return await self._again(visit, account, problem=FACTORS_CHANGED)
        if passkey is None:
            return self._page(visit, own, problem=NOT_MADE)
        await self._events.factor_added(account.subject, "passkey")
        # That somebody verified the user was asked for when it was made.
        fields = await self._own_account.strengthened(
            visit, account, passkey.methods(user_verified=True)
        )
        return_to = self._own_account.return_to(visit, PASSKEYS_PATH)
        if not own.recovery_codes:
            codes = await self._own_account.new_codes(account)
            return show_codes(self._answers, visit, codes, return_to, fields=fields)
        return self._answers.redirect(return_to, fields=fields)

    async def _rename(self, visit: Visit, account: Account, own: OwnFactors) -> LoginAnswer:
        form = visit.request.form
        try:
            name = checked_text("name", form.get("name", ""))[:LONGEST_NAME]
        except AccountError:
            name = ""
        if not name:
            return self._page(visit, own, problem=_UNNAMED)
        passkeys = self._factors.passkeys
        done = await self._factors.ask(passkeys.rename, account.subject, form["rename"], name)
        return await self._again(visit, account, problem=None if done else _GONE)

    async def _remove(self, visit: Visit, account: Account, own: OwnFactors) -> LoginAnswer:
        try:
            done = await self._factors.ask(
                self._factors.remove_passkey, account, visit.request.form["remove"]
            )
        except LastFactor:
            return self._page(visit, own, problem=_LAST if own.passwordless else MUST)
        if not done:
            return await self._again(visit, account, problem=_GONE)
        await self._events.factor_removed(account.subject, "passkey")
        notice = visit.wording.say(phrase("The passkey is removed."))
        return await self._again(visit, account, notice=notice)

    async def _remove_password(
        self, visit: Visit, account: Account, own: OwnFactors
    ) -> LoginAnswer:
        """Have passkeys alone let in; what the password began is over, but for this session.

        Only for whoever has shown a passkey for this session: one that was made under another host
        is of no use here, and there would be no way in.
        """
        if not self._answers.has_accounts:
            return self._page(visit, own, problem=_NOT_OUR_PASSWORD)
        identity = visit.identity
        assert identity is not None
        if own.may_lose_password and identity.acr != PHR:
            return self._own_account.send_to_show_passkey(visit, PASSKEYS_PATH)
        await self._store.settle()  # asked first, so that a store that is out changes nothing
        try:
            changed = await self._factors.ask(self._factors.remove_password, account)
        except LastFactor:
            return self._page(visit, own, problem=_NO_WAY_BACK)
        await self._events.password_changed(account.subject)
        await self._store.end_subject(
            account.subject, reason="password_changed", keep=identity.session_digest
        )
        begun = await self._beginnings.begin(
            visit, changed, identity.amr, float(identity.auth_time)
        )
        if begun is None:
            return self._answers.error_page(visit, CHANGED)
        notice = visit.wording.say(
            phrase("Your password is removed, and all your other sessions have ended.")
        )
        return await self._again(visit, changed, notice=notice, fields=begun[1])

    async def _again(
        self,
        visit: Visit,
        account: Account,
        *,
        notice: str = "",
        problem: Problem | None = None,
        fields: Fields = (),
    ) -> LoginAnswer:
        """Show the page as things are now."""
        own = await self._factors.ask(self._factors.of, account)
        return self._page(visit, own, notice=notice, problem=problem, fields=fields)

    def _page(
        self,
        visit: Visit,
        own: OwnFactors,
        *,
        notice: str = "",
        problem: Problem | None = None,
        fields: Fields = (),
    ) -> LoginAnswer:
        if visit.prefers(unless_told="page") == "json":
            if problem:
                return self._answers.problem(problem, fields=fields)
            told = {"passkeys": [_told(each) for each in own.passkeys]}
            return self._answers.json(told, fields=fields)
        now, wording = self._clock(), visit.wording
        party = self._answers.party
        values: dict[str, object] = {
            "action": PASSKEYS_PATH,
            "own": own,
            "passkeys": [
                {
                    "id": each.id,
                    "name": each.name,
                    "synced": each.backup_eligible,
                    "since": moment(each.created_at, now, wording),
                    "used": moment(each.used_at, now, wording) if each.used_at else None,
                }
                for each in own.passkeys
            ],
            "name_limit": LONGEST_NAME,
            "suggested": suggested_name(visit),
            "return_to": self._own_account.return_to(visit, PASSKEYS_PATH),
            "has_accounts": self._answers.has_accounts,
            "place": f"{party.origin}{PASSKEYS_PATH}" if party else "",
            "notice": notice,
        }
        return self._answers.page(
            visit, "passkeys", values, problem=problem, fields=fields, with_passkeys=True
        )


def _told(passkey: Passkey) -> dict[str, object]:
    return {
        "id": passkey.id,
        "name": passkey.name,
        "created_at": passkey.created_at,
        "used_at": passkey.used_at or None,
        "synced": passkey.backup_eligible,
    }
