"""What a worker serves with, put together: the store, the keys, the verifier, the login service.

The store connection, the signing keys and the accounts are opened once and stay for good.
A generation takes over what its part of the configuration leaves unchanged, so that a reload
forgets neither tokens seen before nor assertions already signed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from auth.assertion import AssertionSigner
from auth.authentication import Authenticator
from auth.io.session_store import RedisSessionStore, open_session_store
from auth.io.signing_keys import SigningKeys
from auth.io.tasks import stop
from auth.io.token_verifier import JwtVerifier
from auth.login.assembly import open_login_service
from auth.login.look import Look
from auth.login.messages import LoginAnswer, LoginRequest, SentForm, WayBack
from auth.login.pages import Pages
from auth.login.service import LoginService, open_pages
from auth.ports import AuthUnavailable
from auth.revocable_tokens import RevocableTokens
from config.model import Configuration
from gateway.io.generation import ServerState
from gateway.snapshot import build_snapshot

_log = logging.getLogger(__name__)

LAST_REQUESTS_SECONDS = 60.0
"""How long the verifier of a replaced generation still answers those who began with it."""


class Parts(msgspec.Struct, frozen=True, eq=False):
    """A generation that is ready to serve."""

    configuration: Configuration
    state: ServerState
    verifier: JwtVerifier | None
    signer: AssertionSigner
    pages: Pages
    """Of the login service."""


class LoginDesk:
    """Opens the login service when it is first needed and the store answers."""

    def __init__(self, store: RedisSessionStore, directory: Path) -> None:
        self._store = store
        self._directory = directory
        self._opening = asyncio.Lock()
        self._service: LoginService | None = None

    async def service(self, configuration: Configuration, pages: Pages) -> LoginService:
        """Return the service for *configuration*; raise `AuthUnavailable` if the store is out."""
        async with self._opening:
            if self._service is None:
                self._service = await open_login_service(
                    configuration, self._store, self._store.commands, self._directory, pages
                )
        return self._service.reconfigured(configuration, pages)

    async def close(self) -> None:
        """Close the accounts, and the connections to providers."""
        if self._service is not None:
            await self._service.close()


class LateLogin:
    """The login service of one generation. A worker starts without the store; this waits for it."""

    def __init__(self, desk: LoginDesk, configuration: Configuration, pages: Pages) -> None:
        self._desk = desk
        self._configuration = configuration
        self._pages = pages
        self._service: LoginService | None = None
        self._opening: asyncio.Task[None] | None = None

    async def handle(self, request: LoginRequest) -> LoginAnswer:
        """Answer *request*; raise `AuthUnavailable` when the store cannot be asked."""
        if self._service is None:
            self._service = await self._desk.service(self._configuration, self._pages)
        return await self._service.handle(request)

    async def access_token(self, cookie: str) -> str:
        """Return the provider's access token of the session; see `Login.access_token`."""
        if self._service is None:
            self._service = await self._desk.service(self._configuration, self._pages)
        return await self._service.access_token(cookie)

    async def keep_form(self, sent: SentForm) -> WayBack | None:
        """Keep a form that met no session; see `Login.keep_form`."""
        if self._service is None:
            self._service = await self._desk.service(self._configuration, self._pages)
        return await self._service.keep_form(sent)

    def refresh(self, cookie: str) -> None:
        """Have the session of *cookie* brought up to date, beside the request.

        The first time, all this does is to open the service: the session's next request will do.
        """
        if self._service is not None:
            self._service.refresh(cookie)
        elif self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        with contextlib.suppress(AuthUnavailable):
            self._service = await self._desk.service(self._configuration, self._pages)


class Assembly:
    """Makes the generations of one worker. Opened with the first configuration."""

    def __init__(self, store: RedisSessionStore, directory: Path) -> None:
        self.store = store
        self._keys = SigningKeys(store.commands)
        self._desk = LoginDesk(store, directory)
        self._retiring: set[asyncio.Task[None]] = set()
        self._current: Parts | None = None

    @classmethod
    async def open(
        cls, store_url: str, configuration: Configuration, directory: Path
    ) -> "Assembly":
        """Open what lives as long as the worker. A store that is out is tried again later."""
        store = await open_session_store(store_url, configuration.session, worker=True)
        assembly = cls(store, directory)
        await assembly._keys.start()
        return assembly

    def on_ended(self, callback: Callable[[frozenset[str] | None], None]) -> None:
        """Have *callback* told of the digests of ended sessions, None for all of them."""
        self.store.on_ended(callback)

    async def make(self, configuration: Configuration, generation: int) -> Parts:
        """Return everything for a generation; nothing that serves now is changed.

        Raises:
            ValueError: the configuration has problems. The supervisor has ruled that out.
        """
        snapshot = await asyncio.to_thread(build_snapshot, configuration, generation)
        if isinstance(snapshot, list):
            raise ValueError("; ".join(each.message for each in snapshot))  # noqa: TRY004 - a value
        current = self._current
        if current is not None and current.configuration.tokens == configuration.tokens:
            verifier = current.verifier
        else:
            verifier = JwtVerifier(configuration.tokens) if configuration.tokens else None
            if verifier is not None:
                await verifier.start()
        settings = configuration.identity.assertion
        if current is not None and current.configuration.identity.assertion == settings:
            signer = current.signer
        else:
            signer = self._keys.signer(settings)
        tokens = RevocableTokens(verifier, self.store) if verifier is not None else None
        authenticator = Authenticator(
            self.store, tokens, cookie_name=configuration.session.cookie_name
        )
        if current is not None and Look.of(current.configuration) == Look.of(configuration):
            pages = current.pages
        else:
            # Here and not at the first logout, which would have to wait for it, and the loop too.
            pages = await asyncio.to_thread(open_pages, configuration)
        login = LateLogin(self._desk, configuration, pages)
        state = ServerState(snapshot, authenticator, signer, login)
        return Parts(configuration, state, verifier, signer, pages)

    def use(self, parts: Parts) -> None:
        """Take note that *parts* serve from now on; what they replace ends in a while."""
        replaced, self._current = self._current, parts
        self.store.adopt(parts.configuration.session)
        if replaced is not None and replaced.verifier is not parts.verifier:
            self._retire(replaced.verifier, after=LAST_REQUESTS_SECONDS)

    def discard(self, parts: Parts) -> None:
        """Take note that *parts*, which have been made, will never serve."""
        if self._current is None or parts.verifier is not self._current.verifier:
            self._retire(parts.verifier, after=0.0)

    async def close(self) -> None:
        """Close everything."""
        await stop(*self._retiring)
        if self._current is not None and self._current.verifier is not None:
            await self._current.verifier.close()
        await self._desk.close()
        await self._keys.close()
        await self.store.close()

    def _retire(self, verifier: JwtVerifier | None, *, after: float) -> None:
        if verifier is None:
            return
        task = asyncio.create_task(_close_later(verifier, after))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _close_later(verifier: JwtVerifier, seconds: float) -> None:
    try:
        await asyncio.sleep(seconds)
    finally:
        await verifier.close()
