"""Signing out that a provider asks for (OpenID Connect Back-Channel Logout 1.0).

Answered with 200 only when no gateway on the store admits the sessions any more, and with 400 in
every other case (section 2.8), also when the store does not answer: the provider shall try again.
But for 429: a source of bad tokens is not listened to for a while, so that nobody makes us check
forged signatures on and on.
"""

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress

from auth.decision import Reason
from auth.id_token import LOGOUT_TOKEN_TYPES, LogoutNotice, RefusedToken, check_logout_token
from auth.io.provider_client import Providers, ProviderUnavailable
from auth.io.provider_records import ProviderRecords, ProviderSession
from auth.login.answers import Answers
from auth.login.messages import LoginAnswer
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.ports import AuthUnavailable, SessionStore
from auth.tokens import issuer_of, read_token
from config.model import Configuration, Provider

_log = logging.getLogger(__name__)

_REASON = "provider_signed_out"


class BackChannel:
    """Obeys logout tokens."""

    def __init__(  # noqa: PLR0913 - what an ending touches
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
        self._providers = [
            each for each in configuration.login.providers if each.protocol == "openid"
        ]
        self._answers = answers
        self._store = store
        self._clients = providers
        self._records = records
        self._throttle = throttle
        self._clock = clock

    async def submit(self, visit: Visit) -> LoginAnswer:
        """Answer the provider's POST. Never raises: what fails is a 400."""
        request, address = visit.request.request_id, visit.request.client_address
        try:
            wait = await self._throttle.take_logout_token(address) if self._throttle else 0.0
            if wait > 0:
                return self._turn_away(wait)
            provider, notice = await self._verify(visit.request.form.get("logout_token", ""))
            ended = await self._obey(provider, notice)
            await self._forgive(address)
        except RefusedToken as error:
            _log.warning("logout token refused (request %s): %s", request, error)
            return self._refuse("invalid_request", str(error))
        except (ProviderUnavailable, AuthUnavailable) as error:
            _log.warning("logout token not obeyed (request %s): %s", request, error)
            if isinstance(error, ProviderUnavailable):  # its keys could not be asked for
                with suppress(AuthUnavailable):
                    await self._forgive(address)
            return self._refuse("temporarily_unavailable", "try again")
        _log.info("provider %s ended %d sessions (request %s)", provider.id, ended, request)
        return LoginAnswer(200, (("Cache-Control", "no-store"),))

    async def _verify(self, token: str) -> tuple[Provider, LogoutNotice]:
        """Return whose token it is and what it says.

        Cheap things first (RFC 8725): nothing is asked of anybody for a token that names an issuer
        or client that we do not know.
        """
        read = read_token(token, types=LOGOUT_TOKEN_TYPES)
        if isinstance(read, Reason):
            raise RefusedToken(f"it is no good: {read}")
        fault = RefusedToken("its issuer is none of the providers")
        for provider in self._providers:
            if provider.issuer != issuer_of(read):
                continue
            try:
                check_logout_token(read.claims, provider.issuer, provider.client_id, self._clock())
            except RefusedToken as error:  # perhaps it is for another client of ours there
                fault = error
                continue
            _, claims = await self._clients.client(provider).verify(token, types=LOGOUT_TOKEN_TYPES)
            notice = check_logout_token(claims, provider.issuer, provider.client_id, self._clock())
            return provider, notice
        raise fault

    async def _obey(self, provider: Provider, notice: LogoutNotice) -> int:
        """End what *notice* names, everywhere; return how many sessions that were."""
        live_for = max(notice.expires_at - self._clock(), 0.0)
        if not await self._records.begin_logout(provider.issuer, notice.jti, live_for):
            raise RefusedToken("it has been obeyed before")
        session = ProviderSession(provider.issuer, notice.sub, notice.sid)
        if not notice.sid:
            names = [session.person_name]
        elif notice.sub:
            # And those it has no name for, because its ID tokens bring no sid.
            names = [session.own_name, ProviderSession(provider.issuer, notice.sub).own_name]
        else:
            names = [session.own_name]
        now = self._clock()
        noted = [await self._records.mark_ended(name, now) for name in names]
        digests = set().union(*noted)
        endings = (self._store.end(digest, reason=_REASON) for digest in digests)
        ended = sum(each.ended for each in await asyncio.gather(*endings))
        await self._records.finish_logout(provider.issuer, notice.jti, live_for)
        return ended

    async def _forgive(self, address: str) -> None:
        if self._throttle:
            await self._throttle.put_back_logout_token(address)

    def _turn_away(self, wait: float) -> LoginAnswer:
        told = {"error": "too_many_attempts", "error_description": "too many bad logout tokens"}
        later = (("Retry-After", str(math.ceil(wait))),)
        return self._answers.json(told, status=429, error="too_many_attempts", fields=later)

    def _refuse(self, error: str, detail: str) -> LoginAnswer:
        """Return what section 2.8 asks for, with the members of RFC 6749 section 5.2."""
        told = {"error": error, "error_description": detail}
        return self._answers.json(told, status=400, error=error)
