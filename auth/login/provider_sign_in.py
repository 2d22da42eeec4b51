"""Signing in at a provider: the way there, and the way back.

The steps themselves are in `auth.login.provider`. What is done here about each failure: nothing is
retried by itself (a loop would be the result), the page says what the person can do, and the log
has the rest under the request's id.
"""

import logging
import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from auth.cookies import set_cookie
from auth.decision import StepUp, step_up_in
from auth.id_token import ID_TOKEN_TYPES, Expected, RefusedToken, check_id_token
from auth.io.provider_client import (
    ProviderClient,
    ProviderRefused,
    Providers,
    ProviderUnavailable,
    Tokens,
)
from auth.io.provider_records import ProviderRecords, ProviderSession
from auth.login.answers import LOGIN_PATH, Answers, Fields, Problem, patience
from auth.login.browser_binding import (
    EXPIRED,
    NO_COOKIE,
    NO_STATE,
    BrowserBinding,
    returned_state,
)
from auth.login.circles import Circles
from auth.login.messages import LoginAnswer
from auth.login.provider import (
    Answered,
    BegunSignIn,
    CallbackRefused,
    authorization_url,
    callback_path,
    longest_age,
    read_callback,
)
from auth.login.provider_profile import UnfitProfile, merged_claims, record_of
from auth.login.provider_tokens import kept_tokens, seal_tokens
from auth.login.sign_out import live_session
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.ports import SessionStore
from auth.return_url import safe_return_url
from auth.session import SessionRecord, digest
from auth.site_cookie import tokens_secret
from auth.tokens import is_fit_text
from config.model import Configuration, Provider

_log = logging.getLogger(__name__)

_UNREACHABLE = Problem(
    503,
    "provider_unreachable",
    "%(label)s does not answer right now.",
    "Please try again in a moment. Whoever is signed in already stays so.",
)
_DENIED = Problem(
    403,
    "provider_denied",
    "%(label)s did not sign you in",
    "You, or somebody who looks after %(label)s, said no. Try again, or ask them.",
)
_FAILED = Problem(
    502,
    "provider_failed",
    "The sign-in at %(label)s did not work",
    "Please try again. If it happens again, ask for help.",
)
_CLOCK = Problem(
    502,
    "provider_clock",
    "The clocks of %(label)s and of this site differ",
    "By about %(seconds)s seconds: too much to tell whether its answer is new. Somebody who looks "
    "after them must set one of them.",
)
_TOO_WEAK = Problem(
    403,
    "provider_too_weak",
    "%(label)s did not ask you for enough",
    "This site needs a stronger or a more recent sign-in there, with a second factor perhaps. Try "
    "again, or ask somebody who looks after %(label)s.",
)
_ENDED = Problem(
    403,
    "provider_session_ended",
    "You were signed out while you were signing in",
    "%(label)s has ended that session. Please sign in again.",
)
_TOO_MANY = Problem(
    429,
    "too_many_attempts",
    "Too many sign-ins were begun from your network.",
    "Please try again in a minute.",
)


class _Failure(Exception):
    """Ends the way back: what the person is told, and what the log gets.

    *seconds* go into the words, *retry_after* into a field.
    """

    def __init__(
        self, problem: Problem, detail: str, *, seconds: float = 0.0, retry_after: int = 0
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.seconds = seconds
        self.retry_after = retry_after


class ProviderSignIn:
    """The sign-in of people with an account at one of the configured providers."""

    def __init__(  # noqa: PLR0913 - what a sign-in touches
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        store: SessionStore,
        providers: Providers,
        records: ProviderRecords,
        throttle: Throttle | None,
        clock: Callable[[], float],
    ) -> None:
        self._session = configuration.session
        self._providers = {each.id: each for each in configuration.login.providers}
        self._return_parameter = configuration.login.return_parameter
        self._binding = BrowserBinding(configuration.session)
        self._circles = Circles(self._session, public_url=configuration.server.public_url)
        self._answers = answers
        self._store = store
        self._clients = providers
        self._records = records
        self._throttle = throttle
        self._clock = clock

    def find(self, name: str) -> Provider | None:
        """Return the provider with the id *name*."""
        return self._providers.get(name)

    async def begin(
        self, visit: Visit, provider: Provider, return_to: str
    ) -> LoginAnswer | Problem:
        """Send the browser to *provider*, to come back to *return_to* in the end.

        What the query asks for beyond the provider's settings goes along, and is demanded of the
        answer. Anybody can write a query: it can ask for more, never for less.

        Returns:
            What to say on the sign-in page, when the provider cannot be asked.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        try:
            metadata = await self._clients.client(provider).metadata(must_answer=True)
        except ProviderUnavailable as error:
            self._note(visit, provider, str(error))
            return _worded(_UNREACHABLE, provider)
        address = visit.request.client_address
        if self._throttle and await self._throttle.take_beginning(address) > 0:
            return _TOO_MANY
        asked = step_up_in(visit.request.query) or StepUp()
        begun = BegunSignIn(
            acr_values=asked.acr_values,
            max_age=asked.max_age,
            prompt=_known_prompt(visit.request.query.get("prompt", "")),
            login_hint=_fit_hint(visit.request.query.get("login_hint", "")),
            provider=provider.id,
            issuer=provider.issuer,
            client_id=provider.client_id,
            redirect_uri=f"{visit.origin}{callback_path(provider)}",
            return_to=return_to,
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            replaces=visit.session_digest,
        )
        state, binding, fields = self._binding.begin(visit)
        await self._records.begin(state, binding, begun)
        url = authorization_url(provider, metadata, begun, state)
        return self._answers.redirect(url, fields=fields)

    async def finish(self, visit: Visit) -> LoginAnswer:
        """Answer the browser that comes back: a new session, or a page that says what went wrong.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        state = returned_state(visit)
        if not state:
            return self._stray(visit, NO_STATE)
        binding = self._binding.value(visit, state)
        if not binding:
            return self._stray(visit, NO_COOKIE)
        fields = self._binding.end(state)
        begun = await self._records.take(state, binding)
        if begun is None:
            return self._stray(visit, EXPIRED, fields)
        provider = self.find(begun.provider)
        if provider is None or (provider.issuer, provider.client_id) != (
            begun.issuer,
            begun.client_id,
        ):  # the route file has changed meanwhile
            return self._stray(visit, EXPIRED, fields)
        return_to = safe_return_url(begun.return_to, origins=visit.return_origins)
        try:
            cookie = await self._receive(visit, provider, begun)
        except _Failure as failure:
            self._note(visit, provider, str(failure))
            problem = _worded(failure.problem, provider, seconds=failure.seconds)
            again = self._again(provider, return_to)
            if failure.retry_after:
                fields = (*fields, ("Retry-After", str(failure.retry_after)))
            return self._answers.error_page(visit, problem, fields=fields, again=again)
        max_age = int(self._session.absolute_timeout)
        fields = (
            *fields,
            ("Set-Cookie", set_cookie(self._session, cookie, max_age)),
            self._circles.note_sign_in(visit, self._clock()),
        )
        if self._session.same_site != "strict":
            return self._answers.redirect(return_to, fields=fields)
        # Browsers follow a redirect on behalf of the site that began it, the provider's, and leave
        # a strict cookie at home. A page of ours begins anew.
        return self._answers.page(
            visit, "onward", {"onward": return_to, "is_in": True}, fields=fields
        )

    async def _receive(self, visit: Visit, provider: Provider, begun: BegunSignIn) -> str:
        """Return the cookie value of the session that the provider's answer is good for."""
        client = self._clients.client(provider)
        try:
            answered = await self._read(visit, client, begun)
            # What ends from here on ends this session too: see `auth.io.provider_records`.
            asked_at = round(self._clock(), 3)
            tokens = await client.exchange(answered.code, begun)
            claims = await self._claims(client, begun, tokens)
            record = record_of(
                claims,
                provider,
                created_at=asked_at,
                expires_at=asked_at + self._session.absolute_timeout,
            )
        except ProviderUnavailable as error:
            raise _Failure(_UNREACHABLE, str(error), retry_after=5) from error
        except RefusedToken as error:
            problem = _TOO_WEAK if error.too_weak else _CLOCK if error.clock_off else _FAILED
            raise _Failure(
                problem, f"the ID token: {error}", seconds=abs(error.clock_off)
            ) from error
        except (ProviderRefused, CallbackRefused, UnfitProfile) as error:
            raise _Failure(_FAILED, str(error)) from error
        return await self._create(visit, provider, begun, record, tokens)

    async def _read(self, visit: Visit, client: ProviderClient, begun: BegunSignIn) -> Answered:
        metadata = await client.metadata()
        request, provider = visit.request, client.provider
        needs_iss = len(self._providers) > 1 and not provider.own_callback
        answered = read_callback(
            request.query, begun, metadata, path=request.path, needs_iss=needs_iss
        )
        if answered.error:
            detail = f"it answered {answered.error!r}: {answered.detail[:300]!r}"
            if answered.error == "temporarily_unavailable":
                raise ProviderUnavailable(detail)
            raise _Failure(_DENIED if answered.error == "access_denied" else _FAILED, detail)
        return answered

    async def _claims(
        self, client: ProviderClient, begun: BegunSignIn, tokens: Tokens
    ) -> dict[str, object]:
        provider = client.provider
        if provider.protocol != "openid":
            if begun.acr_values or begun.max_age is not None:
                raise RefusedToken("nothing it sends says how the person signed in", too_weak=True)
            claims = await client.profile(tokens.access_token)
            return {"exp": self._clock() + tokens.lifetime, **claims}
        algorithm, claims = await client.verify(tokens.id_token, types=ID_TOKEN_TYPES)
        expected = Expected(
            begun.issuer,
            begun.client_id,
            begun.nonce,
            acr_values=provider.acr_values,
            max_age=longest_age(provider, begun),
        )
        check_id_token(
            claims,
            expected,
            self._clock(),
            algorithm=algorithm,
            access_token=tokens.access_token,
        )
        if not _is_as_strong(claims, begun.acr_values):
            raise RefusedToken("its acr is none of those that the route asks for", too_weak=True)
        return merged_claims(claims, await client.userinfo(tokens.access_token, claims["sub"]))

    async def _create(
        self,
        visit: Visit,
        provider: Provider,
        begun: BegunSignIn,
        record: SessionRecord,
        tokens: Tokens,
    ) -> str:
        """Begin the session in place of those from before (ASVS 7.2.4), and note whose it is."""
        wait = await self._throttle.take_session(record.subject) if self._throttle else 0.0
        if wait > 0:
            detail = "too many sessions were begun with this account"
            raise _Failure(patience(wait), detail, retry_after=math.ceil(wait))
        presented = visit.session_digest if await live_session(self._store, visit) else ""
        for old in {presented, begun.replaces} - {""}:
            await self._store.end(old, reason="signed_in_again")
        live_for = self._session.absolute_timeout
        kept = kept_tokens(
            provider.id,
            id_token=tokens.id_token,
            is_signed=True,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            lifetime=tokens.lifetime,
            now=self._clock(),
        )
        record = msgspec.structs.replace(record, refresh_at=kept.refresh_at)
        cookie = await self._store.create(visit.stamped(record))
        name = digest(cookie)
        await self._records.keep_tokens(name, seal_tokens(tokens_secret(cookie), kept), live_for)
        claims = record.claims
        session = ProviderSession(provider.issuer, str(claims["sub"]), str(claims.get("sid", "")))
        if not await self._records.note_session(
            session, name, asked_at=record.created_at, live_for=live_for
        ):
            await self._store.end(name, reason="provider_session_ended")
            raise _Failure(_ENDED, "its session was ended during the sign-in")
        return cookie

    def _stray(self, visit: Visit, problem: Problem, fields: Fields = ()) -> LoginAnswer:
        """Answer a way back that leads from nowhere: an old tab, a bookmark, another browser."""
        if visit.identity is not None:
            return self._answers.redirect("/", fields=fields)
        again = LOGIN_PATH if self._answers.serves_sign_in else "/"
        return self._answers.error_page(visit, problem, fields=fields, again=again)

    def _again(self, provider: Provider, return_to: str) -> str:
        asked = {"provider": provider.id, self._return_parameter: return_to}
        return f"{LOGIN_PATH}?{urlencode(asked)}"

    def _note(self, visit: Visit, provider: Provider, detail: str) -> None:
        _log.warning(
            "sign-in at provider %s (request %s): %s",
            provider.id,
            visit.request.request_id,
            detail,
        )


def _is_as_strong(claims: Mapping[str, Any], acr_values: tuple[str, ...]) -> bool:
    """Tell whether the sign-in is one of *acr_values*, as the route will see it."""
    acr, amr = claims.get("acr"), claims.get("amr")
    methods = tuple(map(str, amr)) if isinstance(amr, list) else ()
    return StepUp(acr_values).is_strong_enough(acr if isinstance(acr, str) else "", methods)


def _known_prompt(asked: str) -> str:
    """Return *asked* if people can do what it asks for (OIDC Core 3.1.2.1); not `none`."""
    return asked if asked in {"login", "consent", "select_account"} else ""


def _fit_hint(asked: str) -> str:
    return asked if is_fit_text(asked) else ""


def _worded(problem: Problem, provider: Provider, *, seconds: float = 0.0) -> Problem:
    """Return *problem* with the provider's name in it."""
    values = {"label": provider.label, "seconds": f"{seconds:.0f}"}
    return msgspec.structs.replace(problem, values={**problem.values, **values})
