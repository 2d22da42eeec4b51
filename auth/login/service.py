"""The bundled login service: values in, values out. `gateway.io.endpoints` brings the requests."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

from auth.io.account_events import AccountEvents
from auth.io.challenges import Challenges
from auth.io.kept_forms import KeptForms
from auth.io.mail_queue import MailQueue
from auth.io.provider_client import Providers
from auth.io.provider_records import ProviderRecords
from auth.io.site_codes import SiteCodes
from auth.io.unfinished import UnfinishedSignIns
from auth.io.user_service import UserServiceCheck
from auth.login.accounts import Accounts
from auth.login.answers import (
    ACCOUNT_PATH,
    AUTHENTICATOR_PATH,
    AUTHORIZE_PATH,
    CONFIRM_PATH,
    FORGOT_PATH,
    FORM_PATH,
    LOGIN_PATH,
    LOGOUT_PATH,
    PASSKEY_SCRIPT_PATH,
    PASSKEYS_PATH,
    PASSWORD_PATH,
    RECOVERY_CODES_PATH,
    REGISTER_PATH,
    SECOND_FACTOR_PATH,
    SESSIONS_PATH,
    SET_PASSWORD_PATH,
    Answers,
    Fields,
    Problem,
)
from auth.login.back_channel import BackChannel
from auth.login.beginning import Beginnings, Credentials
from auth.login.elsewhere import PasswordCheck, PeopleElsewhere
from auth.login.factors import Factors
from auth.login.front_channel import FrontChannel
from auth.login.kept_form import KeptFormPage
from auth.login.known_devices import KnownDevices
from auth.login.links import Links, PublishAccount
from auth.login.look import Look
from auth.login.messages import LoginAnswer, LoginRequest, SentForm, WayBack
from auth.login.own_account import OwnAccount
from auth.login.own_authenticator import OwnAuthenticator
from auth.login.own_passkeys import OwnPasskeys
from auth.login.own_password import OwnPassword
from auth.login.own_sessions import OwnSessions
from auth.login.pages import Pages, pages_of
from auth.login.passkey_ceremony import PasskeyCeremony
from auth.login.provenance import FormTokens
from auth.login.provider import CALLBACK_PATH, callback_path
from auth.login.provider_refresh import ProviderRefresh, RefreshesUnderWay
from auth.login.provider_sign_in import ProviderSignIn
from auth.login.provider_sign_out import ProviderSignOut
from auth.login.second_factor import SecondFactor
from auth.login.sign_in import SignIn
from auth.login.sign_out import FindOnward, SignOut
from auth.login.site_authorization import SiteAuthorization
from auth.login.site_sign_in import SiteSignIn
from auth.login.throttle import Throttle
from auth.login.visit import Visit, Visits
from auth.ports import AuthUnavailable, SessionStore, TooManySessions
from auth.session import digest
from auth.site_cookie import is_site_cookie
from config.model import Configuration, Login

_log = logging.getLogger(__name__)

_LAST_REFRESHES = 2.0
"""Seconds that providers get for what they are doing when the service ends."""
BACK_CHANNEL_PATH = "/.doorward/backchannel-logout"
FRONT_CHANNEL_PATH = "/.doorward/frontchannel-logout"

_AT_EVERY_SITE = (LOGOUT_PATH, SESSIONS_PATH, FORM_PATH, BACK_CHANNEL_PATH, FRONT_CHANNEL_PATH)
"""What sites whose people sign in elsewhere answer themselves."""

_AT_SIGN_IN = Problem(
    404,
    "no_sign_in_here",
    "People do not sign in here",
    "This gateway has another place to sign in; start from the page you want to see.",
)
_NO_PAGE = Problem(404, "no_route", "There is nothing here", "Nothing has this address.")
_FULL = Problem(
    403,
    "too_many_sessions",
    "You are signed in on too many devices",
    "Sign out on one of them, and then sign in here.",
)
_METHOD = Problem(
    405, "method_not_allowed", "That cannot be done here", "This address takes other methods."
)
_Handler = Callable[[Visit], Awaitable[LoginAnswer]]


class AtProviders(NamedTuple):
    """What signing in at providers needs besides their settings."""

    clients: Providers
    records: ProviderRecords
    refreshes: RefreshesUnderWay


class ByMail(NamedTuple):
    """What links need besides their settings."""

    queue: MailQueue
    publish: PublishAccount


class AtHand(NamedTuple):
    """What second factors need besides their settings."""

    factors: Factors
    unfinished: UnfinishedSignIns
    challenges: Challenges


class LoginService:
    """Answers what is asked under the service's paths, for one configuration.

    A reload makes another one with `reconfigured`; accounts, store and secret stay.
    """

    def __init__(  # noqa: PLR0913 - the parts of the service
        self,
        settings: Configuration,
        store: SessionStore,
        accounts: Accounts,
        secret: bytes,
        clock: Callable[[], float] = time.time,
        *,
        throttle: Throttle | None = None,
        at_providers: AtProviders | None = None,
        by_mail: ByMail | None = None,
        known_devices: KnownDevices | None = None,
        second_factors: AtHand | None = None,
        events: AccountEvents | None = None,
        pages: Pages | None = None,
        kept_forms: KeptForms | None = None,
        site_codes: SiteCodes | None = None,
    ) -> None:
        """Put the service together.

        *secret* (32 bytes or more) is the same on every gateway of the store, so that any of them
        takes a form that another one showed. *clock* tells epoch seconds. Without *throttle*,
        failed attempts are not limited; without *at_providers* nobody signs in at a provider;
        without *by_mail* nobody sets a password by a link; without *known_devices* no device
        is new; without *second_factors* nobody is asked for one; without *events* nobody is told
        of changes of accounts; without *kept_forms* no form is kept; without *site_codes* no
        session is handed on to another site. *pages* are those of `open_pages`, if they are
        compiled already.
        """
        self.accounts = accounts
        self._store, self._clock = store, clock
        self._secret, self._throttle = secret, throttle
        self._known_devices, self._settings = known_devices, settings.session
        self._second_factors = second_factors
        self._site_codes = site_codes
        self._events = events or AccountEvents()
        self._answers = answers = Answers(settings, pages or open_pages(settings))
        self._at_providers, self._by_mail = at_providers, by_mail
        self._refuse_at_site = _refusing(answers, _AT_SIGN_IN)
        self._visits = Visits(settings, FormTokens(secret), answers.wordings)
        self._refresh: ProviderRefresh | None = None
        self._handlers: dict[str, dict[str, _Handler]] = {}
        provider_sign_in, find_onward = self._open_providers(settings)
        check = password_check_of(settings.login)
        credentials = PeopleElsewhere(check, accounts) if check else accounts
        beginnings = Beginnings(settings, answers, store=store, accounts=credentials, clock=clock)
        second_factor, passkeys = self._open_factors(settings, beginnings, credentials)
        sign_in = SignIn(
            settings,
            answers,
            accounts=credentials,
            beginnings=beginnings,
            second_factor=second_factor,
            throttle=throttle,
            clock=clock,
            at_providers=provider_sign_in,
            passkeys=passkeys,
        )
        sign_out = SignOut(settings, answers, store=store, find_onward=find_onward)
        sessions = OwnSessions(settings, answers, store=store, clock=clock)
        self._handlers |= {
            LOGIN_PATH: _page(sign_in.show, sign_in.submit),
            LOGOUT_PATH: _page(sign_out.show, sign_out.submit),
            SESSIONS_PATH: _page(sessions.show, sessions.submit),
        }

        self._kept_forms = kept_forms
        self._kept_form_page: KeptFormPage | None = None
        if kept_forms is not None:
            self._open_forms(settings, kept_forms)
        if by_mail is not None:
            self._open_links(settings, by_mail)
        self._at_sites = self._open_sites(settings, site_codes)

    def _open_sites(
        self, settings: Configuration, codes: SiteCodes | None
    ) -> dict[str, dict[str, _Handler]]:
        """Return what is answered at the sites whose people sign in here."""
        if codes is None or not settings.login.sites:
            return {}
        store, clock = self._store, self._clock
        authorization = SiteAuthorization(
            settings,
            self._answers,
            store=store,
            codes=codes,
            throttle=self._throttle,
            clock=clock,
        )
        sign_in = SiteSignIn(settings, self._answers, store=store, codes=codes, clock=clock)
        # GET alone: HEAD would use up a code, or have one made that nobody takes.
        self._handlers[AUTHORIZE_PATH] = {"GET": authorization.show}
        return {
            LOGIN_PATH: _page(sign_in.begin, self._refuse_at_site),
            CALLBACK_PATH: {"GET": sign_in.finish},
            **{path: self._handlers[path] for path in _AT_EVERY_SITE if path in self._handlers},
        }

    def _open_forms(self, settings: Configuration, kept_forms: KeptForms) -> None:
        page = self._kept_form_page = KeptFormPage(
            settings.session, self._answers, forms=kept_forms, throttle=self._throttle
        )
        self._handlers[FORM_PATH] = {"GET": page.show, "POST": page.discard}

    def _open_links(self, settings: Configuration, by_mail: ByMail) -> None:
        links = Links(
            settings,
            self._answers,
            store=self._store,
            accounts=self.accounts,
            queue=by_mail.queue,
            throttle=self._throttle,
            publish=by_mail.publish,
            events=self._events,
        )
        self._handlers |= {
            FORGOT_PATH: _page(links.show_forgot, links.submit_forgot),
            SET_PASSWORD_PATH: _page(links.show_password, links.submit_password),
            REGISTER_PATH: _page(links.show_registration, links.submit_registration),
            CONFIRM_PATH: _page(links.show_confirmation, links.submit_confirmation),
        }

    def _open_providers(
        self, settings: Configuration
    ) -> tuple[ProviderSignIn | None, FindOnward | None]:
        if self._at_providers is None or not settings.login.providers:
            return None, None
        clients, records, refreshes = self._at_providers
        self._refresh = ProviderRefresh(
            settings,
            store=self._store,
            providers=clients,
            records=records,
            clock=self._clock,
            under_way=refreshes,
        )
        sign_in = ProviderSignIn(
            settings,
            self._answers,
            store=self._store,
            providers=clients,
            records=records,
            throttle=self._throttle,
            clock=self._clock,
        )
        back_channel = BackChannel(
            settings,
            self._answers,
            store=self._store,
            providers=clients,
            records=records,
            throttle=self._throttle,
            clock=self._clock,
        )
        for provider in settings.login.providers:
            # GET alone: a code is for one use, and HEAD would use it up.
            self._handlers[callback_path(provider)] = {"GET": sign_in.finish}
        self._handlers[BACK_CHANNEL_PATH] = {"POST": back_channel.submit}
        front_channel = FrontChannel(
            settings, store=self._store, records=records, clock=self._clock
        )
        self._handlers[FRONT_CHANNEL_PATH] = {"GET": front_channel.show}
        sign_out = ProviderSignOut(settings, providers=clients, records=records)
        return sign_in, sign_out.find_onward

    def _open_factors(
        self, settings: Configuration, beginnings: Beginnings, credentials: Credentials
    ) -> tuple[SecondFactor | None, PasskeyCeremony | None]:
        if self._second_factors is None or not self._answers.takes_passwords:
            return None, None
        factors, unfinished, challenges = self._second_factors
        passkeys = PasskeyCeremony(
            settings,
            self._answers,
            accounts=self.accounts,
            factors=factors,
            challenges=challenges,
            throttle=self._throttle,
            events=self._events,
        )
        second_factor = SecondFactor(
            settings,
            self._answers,
            accounts=credentials,
            factors=factors,
            unfinished=unfinished,
            beginnings=beginnings,
            throttle=self._throttle,
            events=self._events,
            passkeys=passkeys,
        )
        own = OwnAccount(
            self._answers,
            credentials=credentials,
            factors=factors,
            beginnings=beginnings,
            events=self._events,
            clock=self._clock,
        )
        own_authenticator = OwnAuthenticator(
            self._answers,
            own_account=own,
            factors=factors,
            throttle=self._throttle,
            events=self._events,
        )
        own_passkeys = OwnPasskeys(
            self._answers,
            own_account=own,
            ceremony=passkeys,
            store=self._store,
            factors=factors,
            beginnings=beginnings,
            events=self._events,
            clock=self._clock,
        )
        self._handlers |= {
            SECOND_FACTOR_PATH: _page(second_factor.show, second_factor.submit),
            ACCOUNT_PATH: {"GET": own.show, "HEAD": own.show},
            AUTHENTICATOR_PATH: _page(own_authenticator.show, own_authenticator.change),
            RECOVERY_CODES_PATH: {"POST": own.renew_recovery_codes},
            PASSKEYS_PATH: _page(own_passkeys.show, own_passkeys.submit),
            PASSKEY_SCRIPT_PATH: {"GET": passkeys.script, "HEAD": passkeys.script},
        }
        if self._answers.has_accounts:
            own_password = OwnPassword(
                self._answers,
                own_account=own,
                store=self._store,
                accounts=self.accounts,
                factors=factors,
                beginnings=beginnings,
                throttle=self._throttle,
                events=self._events,
            )
            self._handlers[PASSWORD_PATH] = _page(own_password.show, own_password.change)
        return second_factor, passkeys

    def reconfigured(self, settings: Configuration, pages: Pages | None = None) -> "LoginService":
        """Return the service for other *settings*, with the same accounts, store and secret."""
        return LoginService(
            settings,
            self._store,
            self.accounts,
            self._secret,
            self._clock,
            throttle=self._throttle,
            at_providers=self._at_providers,
            by_mail=self._by_mail,
            known_devices=self._known_devices,
            second_factors=self._second_factors,
            site_codes=self._site_codes,
            events=self._events,
            pages=pages,
            kept_forms=self._kept_forms,
        )

    async def close(self) -> None:
        """Let go of accounts and providers; for the last of the services that share them."""
        if self._at_providers is not None:
            await self._at_providers.refreshes.settle(_LAST_REFRESHES)
            await self._at_providers.clients.close()
        self.accounts.close()

    def refresh(self, cookie: str) -> None:
        """Have the session of *cookie*, for which that is due, brought up to date; do not wait."""
        if self._refresh is not None:
            self._refresh.begin(cookie)

    async def access_token(self, cookie: str) -> str:
        """Return the provider's access token of a session; see `ProviderRefresh.access_token`."""
        return await self._refresh.access_token(cookie) if self._refresh else ""

    async def keep_form(self, sent: SentForm) -> WayBack | None:
        """Keep *sent*, which met no session; None if it cannot be. See `KeptFormPage.keep`."""
        return await self._kept_form_page.keep(sent) if self._kept_form_page else None

    async def handle(self, request: LoginRequest) -> LoginAnswer:
        """Answer *request*.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked. Answer 503 with
                `Retry-After`, and leave every cookie alone.
        """
        visit = self._visits.receive(request)
        handlers = (self._at_sites if visit.site else self._handlers).get(request.path)
        if handlers is None:
            return await self._elsewhere(visit)
        handler = handlers.get(request.method)
        if handler is None:
            allow = (("Allow", ", ".join(handlers)),)
            return self._nothing(visit, _METHOD, allow)
        try:
            answer = await handler(visit)
        except TooManySessions:
            return self._full(visit)
        return await self._remember_device(visit, answer)

    async def _elsewhere(self, visit: Visit) -> LoginAnswer:
        """Answer what is not here: at a site, the page of that name where people sign in."""
        request = visit.request
        if not visit.site or request.path not in self._handlers:
            return self._nothing(visit, _NO_PAGE)
        if request.method not in ("GET", "HEAD"):
            return await self._refuse_at_site(visit)
        query = f"?{urlencode(request.query)}" if request.query else ""
        return self._answers.away(f"{visit.sign_in_origin}{request.path}{query}")

    def _nothing(self, visit: Visit, problem: Problem, fields: Fields = ()) -> LoginAnswer:
        """Answer what is not done here: with a page to those who ask for one, as everywhere."""
        if visit.prefers(unless_told="json") == "json":
            return self._answers.problem(problem, fields=fields)
        return self._answers.error_page(visit, problem, fields=fields)

    def _full(self, visit: Visit) -> LoginAnswer:
        """Answer a sign-in for which there is no room."""
        if visit.prefers(unless_told="page") == "json":
            return self._answers.problem(_FULL)
        return self._answers.error_page(visit, _FULL, again=LOGIN_PATH)

    async def _remember_device(self, visit: Visit, answer: LoginAnswer) -> LoginAnswer:
        """Return *answer* with the device's own cookie if it begins a session."""
        begins = f"{self._settings.cookie_name}="
        values = [v for name, v in answer.fields if name == "Set-Cookie" and v.startswith(begins)]
        value = values[0].removeprefix(begins).partition(";")[0] if values else ""
        # A site's cookie begins nothing: the session did, where people sign in.
        if not value or is_site_cookie(value) or self._known_devices is None:
            return answer
        try:
            record = await self._store.find(digest(value))
        except AuthUnavailable:
            return answer  # the session has begun; an outage now must not take it back
        if isinstance(record, str):
            return answer
        session = digest(value)
        fields = await self._known_devices.note(visit, self._settings, record, session)
        return msgspec.structs.replace(answer, fields=(*answer.fields, *fields))


def open_pages(settings: Configuration) -> Pages:
    """Return the pages of the site; if they are new, a tenth of a second of work, off the loop."""
    return pages_of(Look.of(settings), on_fault=_note_fault)


def _note_fault(name: str, error: Exception) -> None:
    """Tell the operator of a page of theirs that could not be shown; ours was, in its place."""
    _log.error(
        "your own page %s.html could not be shown: %s: %s", name, type(error).__name__, error
    )


def password_check_of(login: Login) -> PasswordCheck | None:
    """Return who checks passwords instead of our own accounts, if *login* names somebody.

    Raises:
        AuthUnavailable: what LDAP needs is not installed.
    """
    if login.user_service is not None:
        return UserServiceCheck(login.user_service)
    if login.ldap is None:
        return None
    try:
        from auth.io.ldap_directory import LdapCheck  # noqa: PLC0415 - an extra that may be missing
    except ImportError as error:
        _log.error("login.ldap needs an extra: pip install 'doorward[ldap]'")
        raise AuthUnavailable("login.ldap needs an extra: doorward[ldap]") from error
    return LdapCheck(login.ldap)


def _refusing(answers: Answers, problem: Problem) -> _Handler:
    # No method of the service, whose table it goes into: see `links._BehindLink`.
    async def refuse(visit: Visit) -> LoginAnswer:
        if visit.prefers(unless_told="page") == "json":
            return answers.problem(problem)
        return answers.error_page(visit, problem)

    return refuse


def _page(show: _Handler, submit: _Handler) -> dict[str, _Handler]:
    return {"GET": show, "HEAD": show, "POST": submit}
