"""The bundled login service: values in, values out. `gateway.io.endpoints` brings the requests."""

import time
from collections.abc import Callable

from auth.login.accounts import Accounts
from auth.login.answers import LOGIN_PATH, LOGOUT_PATH, SESSIONS_PATH, Answers, Problem
from auth.login.messages import LoginAnswer, LoginRequest
from auth.login.own_sessions import OwnSessions
from auth.login.provenance import FormTokens
from auth.login.sign_in import SignIn
from auth.login.sign_out import SignOut
from auth.login.throttle import Throttle
from auth.login.visit import Visit, Visits
from auth.ports import SessionStore
from config.model import Configuration

PATHS = frozenset({LOGIN_PATH, LOGOUT_PATH, SESSIONS_PATH})
_METHODS = ("GET", "HEAD", "POST")

_NO_PAGE = Problem(404, "no_route", "There is nothing here", "Nothing has this address.")
_METHOD = Problem(
    405, "method_not_allowed", "That cannot be done here", "This page takes GET and POST."
)


class LoginService:
    """Answers what is asked under `PATHS`, for one configuration.

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
    ) -> None:
        """Put the service together.

        *secret* (32 bytes or more) is the same on every gateway of the store, so that any of them
        takes a form that another one showed. *clock* tells epoch seconds. Without *throttle*,
        failed attempts are not limited.
        """
        self.accounts = accounts
        self._store, self._clock = store, clock
        self._secret, self._throttle = secret, throttle
        self._visits = Visits(settings, FormTokens(secret))
        self._answers = answers = Answers(settings)
        self._sign_in = SignIn(
            settings, answers, store=store, accounts=accounts, throttle=throttle, clock=clock
        )
        self._sign_out = SignOut(settings, answers, store=store)
        self._sessions = OwnSessions(settings, answers, store=store, clock=clock)

    def reconfigured(self, settings: Configuration) -> "LoginService":
        """Return the service for other *settings*, with the same accounts, store and secret."""
        return LoginService(
            settings,
            self._store,
            self.accounts,
            self._secret,
            self._clock,
            throttle=self._throttle,
        )

    def close(self) -> None:
        """Let go of the accounts; for the last of the services that share them."""
        self.accounts.close()

    async def handle(self, request: LoginRequest) -> LoginAnswer:
        """Answer *request*.

        Raises:
            AuthUnavailable: the store or the accounts cannot be asked. Answer 503 with
                `Retry-After`, and leave every cookie alone.
        """
        visit = self._visits.receive(request)
        if request.path not in PATHS:
            return self._answers.error_page(visit, _NO_PAGE)
        if request.method not in _METHODS:
            allow = (("Allow", ", ".join(_METHODS)),)
            return self._answers.error_page(visit, _METHOD, fields=allow)
        if request.method == "POST":
            return await self._submit(visit)
        return await self._show(visit)

    async def _show(self, visit: Visit) -> LoginAnswer:
        if visit.request.path == LOGIN_PATH:
            return self._sign_in.show(visit)
        if visit.request.path == LOGOUT_PATH:
            return self._sign_out.show(visit)
        return await self._sessions.show(visit)

    async def _submit(self, visit: Visit) -> LoginAnswer:
        if visit.request.path == LOGIN_PATH:
            return await self._sign_in.submit(visit)
        if visit.request.path == LOGOUT_PATH:
            return await self._sign_out.submit(visit)
        return await self._sessions.submit(visit)
