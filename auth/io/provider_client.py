"""Talking to an OpenID provider: its metadata and keys, and the token and userinfo endpoints.

Metadata is kept for a while and used on while the provider cannot be reached; nobody waits for it
twice at the same time. But nobody is sent to a provider that has not answered lately: they would
see their browser's error, and no way back. A provider is only asked when somebody signs in or out,
or beside an ordinary request, never on its path: when it is down, those who are signed in do not
notice.
"""

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import msgspec

from auth.decision import Reason
from auth.id_token import RefusedToken
from auth.io.fetching import LoadError, WaryClient, read_bounded
from auth.io.jwks import IssuerKeys
from auth.io.tasks import stop
from auth.io.token_verifier import is_signed
from auth.login.provider import BegunSignIn, Metadata, MetadataError, known_metadata, read_metadata
from auth.login.provider_profile import profile_of
from auth.ports import AuthUnavailable
from auth.tokens import read_json_object, read_token
from config.model import Provider, TokenIssuer

_log = logging.getLogger(__name__)

LARGEST_ANSWER = 1024 * 1024
"""Bytes of anything a provider sends."""
_TIMEOUT = aiohttp.ClientTimeout(total=10.0, connect=3.0)
_FRESH_FOR = 300.0
"""Seconds until metadata is asked for again."""
_NEVER = float("-inf")
_HEARD_WITHIN = 30.0
"""Seconds since when a provider must have answered that people are sent to."""
_STALE_FOR = 86_400.0
_NOT_NOW = frozenset((429, 503))
"""Statuses that say that nothing was done (RFC 9110 section 15.6.4, RFC 6585 section 4)."""
_ASK_AGAIN = 2.0
"""Seconds between two attempts at a provider that does not answer."""
_PATIENCE = aiohttp.ClientTimeout(total=60.0, connect=3.0)
"""For a refresh, for which nobody waits: giving up on it would lose the refresh token."""
_LIFETIME = 3600.0
"""Seconds that an access token lives whose provider does not say (RFC 6749 section 5.1)."""


class ProviderUnavailable(Exception):
    """The provider does not answer, or not sensibly; the text is fit for a log.

    `unheard`: it is certain that it has not done what was asked.
    """

    def __init__(self, message: str, *, unheard: bool = False) -> None:
        super().__init__(message)
        self.unheard = unheard


class ProviderRefused(Exception):
    """The provider answered, and will not have it; the text is fit for a log.

    `error` is its code (RFC 6749 section 5.2), if it has one.
    """

    def __init__(self, message: str, *, error: str = "") -> None:
        super().__init__(message)
        self.error = error


class Tokens(msgspec.Struct, frozen=True):
    """What the token endpoint gave. Secret, all of it; what it did not give is empty."""

    id_token: str
    access_token: str
    refresh_token: str = ""
    lifetime: float = _LIFETIME
    """Seconds that the access token lives."""

    def __repr__(self) -> str:
        return "Tokens(…)"


class ProviderHttp(WaryClient):
    """Sends requests to providers.

    No redirect is followed, no cookie kept, no proxy taken from the environment, nothing
    decompressed; an answer above `LARGEST_ANSWER` or slower than ten seconds is an error.
    """

    def __init__(self) -> None:
        super().__init__(_TIMEOUT)

    async def __call__(self, url: str, /) -> bytes:
        """Return the content at *url*; raise `LoadError`."""
        try:
            status, content = await self.send("GET", url)
        except ProviderUnavailable as error:
            raise LoadError(str(error)) from error
        if status != 200:
            raise LoadError(f"{url} answered with status {status}")
        return content

    async def send(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        authorization: str = "",
        timeout: aiohttp.ClientTimeout = _TIMEOUT,  # noqa: ASYNC109 - aiohttp's own
    ) -> tuple[int, bytes]:
        """Return status and content of the answer; raise `ProviderUnavailable`."""
        fields = {"Authorization": authorization} if authorization else {}
        try:
            async with self._open().request(
                method, url, data=form, headers=fields, allow_redirects=False, timeout=timeout
            ) as response:
                return response.status, await read_bounded(response, url, largest=LARGEST_ANSWER)
        except LoadError as error:
            raise ProviderUnavailable(str(error)) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ProviderUnavailable(f"{url} cannot be reached", unheard=True) from error
        except TimeoutError as error:
            raise ProviderUnavailable(f"{url} did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ProviderUnavailable(f"{url} failed: {type(error).__name__}") from error


class ProviderClient:
    """One provider, as far as it can be asked.

    Args:
        provider: which, and who we are to it.
        http: sends the requests.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        provider: Provider,
        http: ProviderHttp,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self._http = http
        self._clock = clock
        self._metadata: Metadata | None = None
        self._asked_at = self._known_at = self._heard_at = _NEVER
        self._trouble = ""
        self._asking = asyncio.Lock()
        self._keys: IssuerKeys | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def metadata(self, *, must_answer: bool = False) -> Metadata:
        """Return what the provider says of itself.

        Raises:
            ProviderUnavailable: it cannot be asked, and nothing of it is known from before; with
                *must_answer* also if it did not answer just now, however much is known. A provider
                without metadata is not asked.
        """
        # Whoever comes while nothing is known yet waits for who is asking already.
        known = known_metadata(self.provider)
        if known is not None:
            return known
        if self._is_due(must_answer=must_answer) or self._metadata is None:
            async with self._asking:
                # Unless somebody who waited before us has asked.
                if self._is_due(must_answer=must_answer):
                    await self._ask()
        now = self._clock()
        is_silent = must_answer and now - self._heard_at > _HEARD_WITHIN
        if self._metadata is None or now - self._known_at > _STALE_FOR or is_silent:
            raise ProviderUnavailable(self._trouble, unheard=True)
        return self._metadata

    async def exchange(self, code: str, begun: BegunSignIn) -> Tokens:
        """Give *code* for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5).

        Raises:
            ProviderUnavailable, ProviderRefused
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": begun.redirect_uri,
            "code_verifier": begun.verifier,
        }
        tokens = await self._ask_for_tokens(form, _TIMEOUT)
        if not tokens.id_token and self.provider.protocol == "openid":
            raise ProviderRefused("the token endpoint gave no ID token")
        return tokens

    async def refresh(self, refresh_token: str) -> Tokens:
        """Give *refresh_token*, which may be good for one use, for new tokens (RFC 6749 section 6).

        Takes as long as a slow provider needs: up to a minute.

        Raises:
            ProviderUnavailable: if `unheard` it may be used again; else nobody can tell.
            ProviderRefused: `error` says whether it is the token that is no good.
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await self._ask_for_tokens(form, _PATIENCE)

    async def _ask_for_tokens(
        self, form: dict[str, str], patience: aiohttp.ClientTimeout
    ) -> Tokens:
        metadata = await self.metadata()
        status, content = await self._send(
            "POST", metadata.token_endpoint, form=self._proven(form, metadata),
            authorization=self._authorization(metadata), timeout=patience,
        )  # fmt: skip
        if status in _NOT_NOW:
            raise ProviderUnavailable(
                f"the token endpoint answered with status {status}", unheard=True
            )
        members = _members(content, "the token endpoint")
        # GitHub says with status 200 that it will not have it.
        if status != 200 or "error" in members:
            raise _refusal("the token endpoint", status, members)
        names = ("id_token", "access_token", "refresh_token")
        texts = {name: members.get(name, "") for name in names}
        if not all(isinstance(each, str) for each in texts.values()) or not texts["access_token"]:
            raise ProviderRefused("the token endpoint gave no access token")
        if str(members.get("token_type", "")).lower() != "bearer":
            raise ProviderRefused("the token endpoint gave a token that is not a bearer token")
        return Tokens(**texts, lifetime=_lifetime(members.get("expires_in")))

    async def userinfo(self, access_token: str, sub: str) -> Mapping[str, Any]:
        """Return the claims of the userinfo endpoint about *sub*; empty if there is none.

        Raises:
            ProviderUnavailable, ProviderRefused
        """
        url = (await self.metadata()).userinfo_endpoint
        if not url:
            return {}
        status, content = await self._send("GET", url, authorization=f"Bearer {access_token}")
        members = _members(content, "the userinfo endpoint")
        if status != 200:
            raise _refusal("the userinfo endpoint", status, members)
        if members.get("sub") != sub:  # OIDC Core 5.3.2: token substitution
            raise ProviderRefused("the userinfo endpoint speaks of somebody else")
        return members

    async def profile(self, access_token: str) -> Mapping[str, Any]:
        """Return what a provider without OpenID Connect says of whoever gave *access_token*.

        `sub`, `name`, `preferred_username`, `email` and `email_verified` are put in where GitHub
        calls them otherwise; its addresses are asked for extra, and only the verified one counts.

        Raises:
            ProviderUnavailable, ProviderRefused
        """
        url = (await self.metadata()).userinfo_endpoint
        status, content = await self._send("GET", url, authorization=f"Bearer {access_token}")
        members = _members(content, "the userinfo endpoint")
        if status != 200:
            raise _refusal("the userinfo endpoint", status, members)
        emails: bytes | None = None
        if self.provider.protocol == "github" and "user:email" in self.provider.scopes:
            status, emails = await self._send(
                "GET", f"{url}/emails", authorization=f"Bearer {access_token}"
            )
            if status != 200:  # the app may not read them: nobody has an address then
                emails = None
        return profile_of(self.provider, members, emails)

    async def verify(self, token: str, *, types: frozenset[str]) -> tuple[str, Mapping[str, Any]]:
        """Return the algorithm and claims of *token*, of which the provider is the signer.

        *types*: see `auth.tokens.read_token`. What the claims say is still to be checked.

        Raises:
            RefusedToken: malformed, not signed by this provider, or by an algorithm it does not
                announce; ProviderUnavailable: its keys cannot be had.
        """
        metadata = await self.metadata()
        read = read_token(token, types=types)
        if isinstance(read, Reason):
            raise RefusedToken(f"it is no good: {read}")
        signed = read.signed
        if signed.algorithm not in metadata.algorithms:
            raise RefusedToken("it is signed with an algorithm that the provider does not announce")
        try:
            key = await self._issuer_keys(metadata).find(signed.kid, signed.algorithm)
        except AuthUnavailable as error:
            raise ProviderUnavailable(str(error)) from error
        if key is None:
            raise RefusedToken("the provider has published no key of its kid")
        if not is_signed(signed, key):
            raise RefusedToken("its signature is wrong")
        return signed.algorithm, read.claims

    async def close(self) -> None:
        """Stop keeping the keys fresh."""
        await stop(self._refreshing)
        if self._keys is not None:
            await self._keys.close()

    async def _send(self, method: str, url: str, **more: Any) -> tuple[int, bytes]:
        """Send a request that the provider should answer; note if it does not."""
        try:
            return await self._http.send(method, url, **more)
        except ProviderUnavailable:
            self._heard_at = _NEVER
            raise

    def _is_due(self, *, must_answer: bool) -> bool:
        now = self._clock()
        due_at = self._known_at + _FRESH_FOR
        if must_answer:
            due_at = min(due_at, self._heard_at + _HEARD_WITHIN)
        return now > due_at and now - self._asked_at > _ASK_AGAIN

    async def _ask(self) -> None:
        try:
            self._metadata = await self._discover()
        except ProviderUnavailable as error:
            trouble = str(error)
            if trouble != self._trouble:
                _log.warning("provider %s: %s", self.provider.id, trouble)
            self._trouble = trouble
            # From its end: of those who waited for one that was slow nobody shall begin another.
            self._asked_at = self._clock()
            return
        self._trouble, self._known_at = "", self._clock()

    async def _discover(self) -> Metadata:
        url = self.provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
        status, content = await self._send("GET", url)
        if status < 500:
            self._heard_at = self._clock()
        if status != 200:
            raise ProviderUnavailable(f"{url} answered with status {status}")
        try:
            return read_metadata(content, self.provider.issuer)
        except MetadataError as error:
            raise ProviderUnavailable(f"{url}: {error}") from error

    def _issuer_keys(self, metadata: Metadata) -> IssuerKeys:
        if self._keys is None or self._keys.issuer.jwks_uri != metadata.jwks_uri:
            issuer = TokenIssuer(
                issuer=metadata.issuer,
                audience=(self.provider.client_id,),
                algorithms=metadata.algorithms,
                jwks_uri=metadata.jwks_uri,
            )
            if self._refreshing is not None:
                self._refreshing.cancel()
            self._keys = IssuerKeys(issuer, self._http)
            self._refreshing = asyncio.create_task(self._keys.keep_fresh())
        return self._keys

    def _authorization(self, metadata: Metadata) -> str:
        secret = self.provider.client_secret
        if secret is None or metadata.secret_in_form:
            return ""
        # RFC 6749 section 2.3.1: both are form-encoded first.
        pair = f"{quote_plus(self.provider.client_id)}:{quote_plus(secret.value)}"
        return f"Basic {b64encode(pair.encode()).decode()}"

    def _proven(self, form: dict[str, str], metadata: Metadata) -> dict[str, str]:
        """Return *form* with who we are, as far as the Authorization field does not say it."""
        secret = self.provider.client_secret
        if secret is None:
            return form | {"client_id": self.provider.client_id}
        if metadata.secret_in_form:
            return form | {"client_id": self.provider.client_id, "client_secret": secret.value}
        return form


class Providers:
    """The clients of all providers, made when they are first needed."""

    def __init__(self) -> None:
        self._http = ProviderHttp()
        self._clients: dict[str, ProviderClient] = {}
        self._retired: list[ProviderClient] = []

    def client(self, provider: Provider) -> ProviderClient:
        """Return the client of *provider*; another one when its settings have changed."""
        client = self._clients.get(provider.id)
        if client is None or client.provider != provider:
            if client is not None:
                self._retired.append(client)
            client = self._clients[provider.id] = ProviderClient(provider, self._http)
        return client

    async def close(self) -> None:
        """Close everything."""
        for client in (*self._clients.values(), *self._retired):
            await client.close()
        await self._http.close()


def _members(content: bytes, where: str) -> Mapping[str, Any]:
    try:
        return read_json_object(content)
    except ValueError as error:
        raise ProviderUnavailable(f"{where} did not answer with a JSON object") from error


def _refusal(where: str, status: int, members: Mapping[str, Any]) -> Exception:
    error = members.get("error")
    known = isinstance(error, str) and error.isascii() and error.isprintable()
    text = f"{where} answered with status {status}, error {str(error)[:100] if known else '?'}"
    # GitHub's word for too many requests is 403, with this message. It says nothing of the person.
    limited = status == 403 and "rate limit" in str(members.get("message", ""))
    if status >= 500 or status in _NOT_NOW or limited:
        return ProviderUnavailable(text)
    return ProviderRefused(text, error=str(error) if known else "")


def _lifetime(given: object) -> float:
    """Return how long a token lives that expires in *given* seconds; some send them as text."""
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 10:
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < 10**9:
        return _LIFETIME
    return float(given)
