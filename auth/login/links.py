"""The pages behind links: asking for one, setting a password, signing up.

How this works. Whoever asks is answered the same, whatever they typed: it goes into a queue, and
`auth.login.mailing` looks it up elsewhere. Looking at a link uses up nothing (mail scanners do that
before the person does); only the form behind it does. When a password was set, every session of the
account has ended, everywhere, before the answer; nobody is signed in by a link, so that a second
factor is still asked for, and a link leads nowhere but to the sign-in page.
"""

import math
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple

import msgspec

from auth.io.account_events import AccountEvents
from auth.io.mail_queue import MailQueue, Wanted
from auth.login.account import MAX_LOGIN, Account, AccountError, checked_email, checked_text
from auth.login.accounts import Accounts, SignInQueueFull
from auth.login.answers import (
    CONFIRM_PATH,
    FORGOT_PATH,
    LOGIN_PATH,
    REGISTER_PATH,
    SET_PASSWORD_PATH,
    Answers,
    Fields,
    Problem,
    patience,
)
from auth.login.messages import LoginAnswer
from auth.login.one_time import PASSWORDS, REGISTRATION, Issued, LinkIsOver, OneTimeLinks
from auth.login.passwords import MAX_BYTES, MIN_CHARACTERS, UnsuitablePassword
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.ports import SessionStore
from auth.wording import phrase
from config.model import Configuration

_NOT_HERE = Problem(
    404, "not_offered", "That is not offered here", "Ask whoever looks after this site."
)
_FOREIGN = Problem(
    403, "foreign_form", "That form did not come from this page.", "Please use the form here."
)
_INCOMPLETE = Problem(
    400, "form_incomplete", "Something is missing.", "Please fill in every field."
)
_BUSY = Problem(
    503, "overloaded", "Too many people are at it right now.", "Please try again in a moment."
)
_OVER = Problem(
    410,
    "link_over",
    "This link is no good any more",
    "It was used, has expired, or another one took its place. Please ask for a new one.",
)
_DIFFER = Problem(
    400, "passwords_differ", "The two passwords differ.", "Please type the same one twice."
)
_UNSUITABLE = Problem(
    400,
    "unsuitable_password",
    "That password cannot be used.",
    "It needs %(least)s characters or more and %(most)s bytes or fewer, and must not be the user "
    "name.",
    {"least": MIN_CHARACTERS, "most": MAX_BYTES},
)
_NO_ADDRESS = Problem(
    400,
    "unsuitable_address",
    "That is no e-mail address.",
    "Please write it like name@example.com.",
)
_WRONG_DOMAIN = Problem(
    400,
    "unsuitable_address",
    "That e-mail address cannot be used here.",
    "Please take one of %(domains)s.",
)

PublishAccount = Callable[[Account], None]
"""Tells other services of a new account; blocks, and raises `AuthUnavailable`."""

_Kind = Literal["reset", "registration"]
_Act = Callable[[str], Awaitable[LoginAnswer]]


class _BehindLink(NamedTuple):
    """A page behind a link, where a password is chosen."""

    find: Callable[["Links", str], str]
    """Returns the login name that a link's secret is for; blocks, and raises `LinkIsOver`.

    Of the class: a bound method kept by what it is bound to is a circle, which waits for the
    garbage collector, and that comes rarely in a worker.
    """
    action: str
    """Where its form goes."""
    is_new: bool
    """Whether there is no account yet."""


class Links:
    """What people do with links, and to get one."""

    def __init__(  # noqa: PLR0913 - what the pages touch
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        store: SessionStore,
        accounts: Accounts,
        queue: MailQueue,
        throttle: Throttle | None,
        publish: PublishAccount,
        events: AccountEvents,
    ) -> None:
        """Take what the pages need; *publish* tells other services of a new account."""
        self._registration = configuration.login.registration
        self._answers = answers
        self._store = store
        self._accounts = accounts
        self._links = OneTimeLinks(accounts)
        self._queue = queue
        self._throttle = throttle
        self._publish = publish
        self._events = events
        self._password = _BehindLink(Links._account_of, SET_PASSWORD_PATH, is_new=False)
        self._confirmation = _BehindLink(Links._confirmed, CONFIRM_PATH, is_new=True)

    # Asking for a link ---------------------------------------------------------------------------

    async def show_forgot(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the form that asks for a link."""
        if not self._answers.offers_reset:
            return self._answers.error_page(visit, _NOT_HERE)
        return self._forgot(visit)

    async def submit_forgot(self, visit: Visit) -> LoginAnswer:
        """Answer POST: the same, whoever was named.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        if not self._answers.offers_reset:
            return self._answers.error_page(visit, _NOT_HERE)
        name = visit.request.form.get("username", "").strip()[:MAX_LOGIN]
        if not visit.may_change_sessions:
            return self._forgot(visit, _FOREIGN)
        if not name:
            return self._forgot(visit, _INCOMPLETE)
        problem, fields = await self._ask(visit, "reset", name)
        if problem:
            return self._forgot(visit, problem, fields)
        return self._done(
            visit,
            phrase("Look into your mailbox"),
            phrase(
                "If there is an account of that name with an e-mail address, a link to set a new "
                "password is on its way there."
            ),
        )

    async def show_registration(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the form to sign up."""
        if not self._answers.offers_registration:
            return self._answers.error_page(visit, _NOT_HERE)
        return self._sign_up(visit)

    async def submit_registration(self, visit: Visit) -> LoginAnswer:
        """Answer POST: the same, whether or not somebody has the address.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        registration = self._registration
        if not self._answers.offers_registration or registration is None:
            return self._answers.error_page(visit, _NOT_HERE)
        form = visit.request.form
        if not visit.may_change_sessions:
            return self._sign_up(visit, _FOREIGN)
        try:
            email = checked_email(form.get("email", ""))
            name = checked_text("name", form.get("name", ""))[:MAX_LOGIN]
        except AccountError:
            return self._sign_up(visit, _NO_ADDRESS)
        domain = email.rpartition("@")[2].lower()
        if registration.domains and domain not in registration.domains:
            domains = visit.wording.listed(registration.domains, "or")
            wrong = msgspec.structs.replace(_WRONG_DOMAIN, values={"domains": domains})
            return self._sign_up(visit, wrong)
        problem, fields = await self._ask(visit, "registration", email, name)
        if problem:
            return self._sign_up(visit, problem, fields)
        return self._done(
            visit,
            phrase("Look into your mailbox"),
            phrase("A message with the next step is on its way to the address that you gave."),
        )

    async def _ask(
        self, visit: Visit, kind: _Kind, to: str, name: str = ""
    ) -> tuple[Problem | None, Fields]:
        address = visit.request.client_address
        wait = await self._throttle.take_letter(to, address) if self._throttle else 0.0
        if wait > 0:
            return patience(wait), (("Retry-After", str(math.ceil(wait))),)
        wanted = Wanted(
            id=secrets.token_hex(8),
            kind=kind,
            to=to,
            name=name,
            language=visit.wording.language,
            asked_at=round(time.time(), 3),
        )
        if not await self._queue.put(wanted):
            return _BUSY, (("Retry-After", "60"),)
        return None, ()

    # Behind a link -------------------------------------------------------------------------------

    async def show_password(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the form that sets a password, for a link that is good.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        return await self._show(visit, self._password)

    async def submit_password(self, visit: Visit) -> LoginAnswer:
        """Answer POST: a new password, and no session that began with the old one.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked.
        """
        secret = visit.request.form.get("link", "")

        async def set_password(password: str) -> LoginAnswer:
            # Asked first, so that a store that is out leaves everything as it was.
            await self._store.settle()
            account = await self._accounts.in_turn(
                lambda: self._links.set_password(secret, password)
            )
            await self._store.end_subject(account.subject, reason="password_reset")
            await self._events.password_changed(account.subject)
            return self._done(
                visit,
                phrase("Your password is set"),
                phrase("All sessions have ended, on all devices. Sign in with the new password."),
                sign_in=True,
            )

        return await self._submit(visit, self._password, secret, set_password)

    async def show_confirmation(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the form that makes the account, for a link that is good.

        Raises:
            AuthUnavailable: the accounts cannot be asked.
        """
        return await self._show(visit, self._confirmation)

    async def submit_confirmation(self, visit: Visit) -> LoginAnswer:
        """Answer POST: a new account.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked; there is no account then.
        """
        secret, registration = visit.request.form.get("link", ""), self._registration

        async def register(password: str) -> LoginAnswer:
            if registration is None:
                raise LinkIsOver
            await self._accounts.in_turn(
                lambda: self._links.register(
                    secret,
                    password,
                    tenant=registration.tenant,
                    roles=registration.roles,
                    publish=self._publish,
                )
            )
            return self._done(
                visit,
                phrase("Your account is ready"),
                phrase("Sign in with your e-mail address and the password that you chose."),
                sign_in=True,
            )

        return await self._submit(visit, self._confirmation, secret, register)

    def _account_of(self, secret: str) -> str:
        issued = self._links.find(secret, PASSWORDS)
        account = self._accounts.find_subject(issued.subject)
        if account is None:
            raise LinkIsOver
        return account.login

    def _confirmed(self, secret: str) -> str:
        issued: Issued = self._links.find(secret, REGISTRATION)
        return issued.email

    async def _show(self, visit: Visit, page: _BehindLink) -> LoginAnswer:
        """Show the form of *page* to whoever has a good link; looking uses up nothing."""
        if not self._answers.has_accounts:
            return self._answers.error_page(visit, _NOT_HERE)
        secret = visit.request.query.get("token", "")
        try:
            username = await self._accounts.ask(lambda: page.find(self, secret))
        except LinkIsOver:
            return self._over(visit, is_new=page.is_new)
        return self._choose_password(visit, page, secret, username)

    async def _submit(self, visit: Visit, page: _BehindLink, secret: str, act: _Act) -> LoginAnswer:
        """Do *act* with the form's password, or show *page* again with what was wrong."""
        if not self._answers.has_accounts:
            return self._answers.error_page(visit, _NOT_HERE)
        form = visit.request.form
        password = form.get("password", "")
        problem: Problem | None = None
        fields: Fields = ()
        try:
            username = await self._accounts.ask(lambda: page.find(self, secret))
            if not visit.may_change_sessions:
                problem = _FOREIGN
            elif not password:
                problem = _INCOMPLETE
            elif form.get("again", password) != password:
                problem = _DIFFER
            else:
                return await act(password)
        except LinkIsOver:
            return self._over(visit, is_new=page.is_new)
        except UnsuitablePassword:
            problem = _UNSUITABLE
        except SignInQueueFull as full:
            problem, fields = _BUSY, (("Retry-After", str(full.retry_after)),)
        return self._choose_password(visit, page, secret, username, problem, fields)

    # Pages ---------------------------------------------------------------------------------------

    def _forgot(
        self, visit: Visit, problem: Problem | None = None, fields: Fields = ()
    ) -> LoginAnswer:
        values: dict[str, object] = {
            "action": FORGOT_PATH,
            "username": visit.request.form.get("username", "").strip()[:MAX_LOGIN],
            "faulty": ("username",) if problem is _INCOMPLETE else (),
            "username_limit": MAX_LOGIN,
        }
        return self._form(visit, "forgot_password", values, problem, fields)

    def _sign_up(
        self, visit: Visit, problem: Problem | None = None, fields: Fields = ()
    ) -> LoginAnswer:
        form = visit.request.form
        values: dict[str, object] = {
            "action": REGISTER_PATH,
            "email": form.get("email", "").strip()[:MAX_LOGIN],
            "name": form.get("name", "").strip()[:MAX_LOGIN],
            "faulty": ("email",) if problem and problem.code == _NO_ADDRESS.code else (),
            "limit": MAX_LOGIN,
        }
        return self._form(visit, "register", values, problem, fields)

    def _choose_password(  # noqa: PLR0913, PLR0917 - what the form shows
        self,
        visit: Visit,
        page: _BehindLink,
        secret: str,
        username: str,
        problem: Problem | None = None,
        fields: Fields = (),
    ) -> LoginAnswer:
        values = {
            "action": page.action,
            "link": secret,
            "username": username,
            "least": MIN_CHARACTERS,
            "is_new": page.is_new,
            "faulty": ("password", "again") if problem and problem.status == 400 else (),
        }
        return self._form(visit, "set_password", values, problem, fields)

    def _form(
        self,
        visit: Visit,
        page: str,
        values: dict[str, object],
        problem: Problem | None,
        fields: Fields,
    ) -> LoginAnswer:
        if problem and visit.prefers(unless_told="page") == "json":
            return self._answers.problem(problem, fields=fields)
        return self._answers.page(visit, page, values, problem=problem, fields=fields)

    def _over(self, visit: Visit, *, is_new: bool) -> LoginAnswer:
        if visit.prefers(unless_told="page") == "json":
            return self._answers.problem(_OVER)
        again = REGISTER_PATH if is_new else FORGOT_PATH
        offered = self._answers.offers_registration if is_new else self._answers.offers_reset
        way_on = phrase("Ask for a new link")
        return self._answers.error_page(visit, _OVER, again=again if offered else "", way_on=way_on)

    def _done(
        self, visit: Visit, heading: str, explanation: str, *, sign_in: bool = False
    ) -> LoginAnswer:
        if visit.prefers(unless_told="page") == "json":
            return self._answers.json({"done": heading})
        values = {
            "heading": visit.wording.say(heading),
            "explanation": visit.wording.say(explanation),
            "sign_in": LOGIN_PATH if sign_in else "",
        }
        return self._answers.page(visit, "done", values)
