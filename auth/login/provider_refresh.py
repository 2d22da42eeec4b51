"""Sessions kept up to date with their provider, beside the requests that use them.

How this works. A session's record says from when on (`refresh_at`, a quarter of the access token's
life ahead of its end) a request is a reason to ask its provider for new tokens. That request goes
its way; a task beside it asks. Tokens are sealed with the cookie (`auth.sealing`), so only a
request can bring the key, and a session that nobody uses is not refreshed.

A refresh token may be good for one use. Over all gateways one gets the right to use it
(`ProviderRecords.claim_tokens`), and then there are four ways for it to end:

1. New tokens: put in the old ones' place first, then the record gets what the provider says of the
   person now. A crash in between costs a refresh, never a token.
2. `invalid_grant`, or a person whom the provider does not vouch for any more: the session ends.
3. The provider certainly has not heard us, or would not listen (wrong client secret): the claim is
   given back, and it is tried again in a while. The session goes on until its own limits.
4. Nobody knows whether the token was used: it never is again, by anybody. The session goes on until
   its own limits, without news; a route that passes the access token on has people sign in again
   when that has expired.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping

import msgspec

from auth.decision import Reason
from auth.id_token import ID_TOKEN_TYPES, RefusedToken, check_refreshed_token
from auth.io.provider_client import (
    ProviderClient,
    ProviderRefused,
    Providers,
    ProviderUnavailable,
    Tokens,
)
from auth.io.provider_records import Claim, ClaimedBefore, ProviderRecords
from auth.login.provider_profile import UnfitProfile, record_of, refreshed_claims
from auth.login.provider_tokens import (
    KeptTokens,
    kept_tokens,
    open_tokens,
    seal_tokens,
    tokens_secret_of,
)
from auth.ports import AccessTokenGone, AuthUnavailable, SessionStore
from auth.session import SessionRecord
from auth.site_cookie import is_site_cookie, read_cookie
from auth.tokens import UnverifiedToken, read_token
from config.model import Configuration, Provider

_log = logging.getLogger(__name__)

_MOST_AT_ONCE = 32
"""Refreshes of one worker that are with providers."""
_MOST_WAITING = 10_000
"""Beyond, a session waits for its next request."""
_CLAIMED_AGAIN = 1.0
"""Seconds until a worker looks again whether another one is done."""
_TRY_AGAIN = 30.0
"""Seconds until a provider that could not be reached is asked again."""
_LOST_AFTER = 120.0
"""Seconds after which whoever claimed a token is gone: twice as long as a provider may take."""
_LONGEST_WAIT = 10.0
"""Seconds that a request waits for an access token."""
_LOOK_AGAIN = 0.1
"""Seconds between two looks whether the token is there."""
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""What RFC 6749 appendix A.12 allows but spaces, which `Bearer` does not (RFC 6750 section 2.1)."""
_ENDED = "provider_refused"


class RefreshesUnderWay:
    """What a worker is refreshing; shared by the services of its generations."""

    def __init__(self) -> None:
        self.tasks: dict[str, asyncio.Task[None]] = {}
        """By the session's digest."""
        self.not_before: dict[str, float] = {}
        """Epoch seconds before which a session is left alone."""
        self.at_once = asyncio.Semaphore(_MOST_AT_ONCE)

    async def settle(self, seconds: float) -> None:
        """Wait for what is under way, but for *seconds* at most: a token would be lost with it."""
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=seconds)


class ProviderRefresh:
    """Refreshes sessions for one configuration."""

    def __init__(  # noqa: PLR0913 - what a refresh touches
        self,
        configuration: Configuration,
        *,
        store: SessionStore,
        providers: Providers,
        records: ProviderRecords,
        clock: Callable[[], float],
        under_way: RefreshesUnderWay,
    ) -> None:
        self._providers = {each.id: each for each in configuration.login.providers}
        self._store = store
        self._clients = providers
        self._records = records
        self._clock = clock
        self._under_way = under_way

    def begin(self, cookie: str) -> asyncio.Task[None] | None:
        """Refresh the session of *cookie* beside whatever is going on, unless that is under way.

        Returns:
            The task that does it; None if it is to be left alone for now.
        """
        name, now, under_way = read_cookie(cookie).session_digest, self._clock(), self._under_way
        task = under_way.tasks.get(name)
        if task is not None:
            return task
        if under_way.not_before.get(name, 0.0) > now or len(under_way.tasks) >= _MOST_WAITING:
            return None
        if len(under_way.not_before) > _MOST_WAITING:
            under_way.not_before.clear()
        under_way.not_before.pop(name, None)
        task = asyncio.create_task(self._run(cookie, name))
        under_way.tasks[name] = task
        task.add_done_callback(lambda _: under_way.tasks.pop(name, None))
        return task

    async def access_token(self, cookie: str) -> str:
        """Return the provider's access token for the session of *cookie*; empty if it has none.

        Waits for a refresh when it has expired, but no longer than a request can.

        Raises:
            AccessTokenGone: only a new sign-in brings another one.
            AuthUnavailable: the store, or the provider, does not answer.
        """
        name, deadline = read_cookie(cookie).session_digest, self._clock() + _LONGEST_WAIT
        known = await self._store.find(name) if is_site_cookie(cookie) else None
        secret = tokens_secret_of(cookie, known)
        while True:
            kept = open_tokens(secret, await self._records.read_tokens(name))
            if kept is None:
                return ""
            now = self._clock()
            if now < kept.expires_at:
                if not _TOKEN.fullmatch(kept.access_token):  # it would not be one field
                    raise AccessTokenGone
                return kept.access_token
            record = await self._store.find(name)
            if isinstance(record, str) or record.refresh_at == 0:
                raise AccessTokenGone
            task = self.begin(cookie)
            again_at = now if task else max(now, self._under_way.not_before.get(name, 0.0))
            if max(now, again_at) >= deadline:
                raise AuthUnavailable(
                    "the provider does not refresh an access token",
                    reason=Reason.PROVIDER_UNAVAILABLE,
                )
            if task is not None:
                await asyncio.wait([task], timeout=deadline - now)
            else:
                await asyncio.sleep(_LOOK_AGAIN)

    async def _run(self, cookie: str, name: str) -> None:
        try:
            async with self._under_way.at_once:
                await self._refresh(cookie, name)
        except AuthUnavailable as error:
            _log.warning("session %.8s was not refreshed: %s", name, error)
            self._wait(name, _CLAIMED_AGAIN)
        except Exception:  # noqa: BLE001 - a bug here must not become everybody's
            _log.exception("session %.8s was not refreshed", name)
            self._wait(name, _TRY_AGAIN)

    async def _refresh(self, cookie: str, name: str) -> None:
        now = self._clock()
        record = await self._store.find(name)
        if isinstance(record, str) or not 0 < record.refresh_at <= now:
            return  # it has ended, or somebody was quicker
        claim = await self._records.claim_tokens(name, now)
        if isinstance(claim, ClaimedBefore):
            if now - claim.since < _LOST_AFTER:
                self._wait(name, _CLAIMED_AGAIN)
            else:
                await self._give_up(name, "whoever was refreshing it is gone, and its token lost")
            return
        secret = tokens_secret_of(cookie, record)
        kept = open_tokens(secret, claim.sealed) if claim else None
        if claim is None or kept is None or not kept.refresh_token:
            await self._give_up(name, "there is no refresh token")
            return
        provider = self._providers.get(kept.provider)
        if provider is None:
            await self._records.release_tokens(claim)
            await self._give_up(name, "its provider is not in the route file any more")
            return
        if kept.refresh_at > now:
            # Somebody was quicker, and died before the record knew; or we read an old record.
            fresh = kept
        else:
            tokens = await self._ask(provider, claim, kept)
            if tokens is None:
                return
            fresh = _renewed(kept, tokens, now=self._clock())
            if not await self._records.commit_tokens(claim, seal_tokens(secret, fresh)):
                return  # signed out meanwhile
        await self._tell(record, provider, name, kept, fresh)
        await self._records.release_tokens(claim)

    async def _ask(self, provider: Provider, claim: Claim, kept: KeptTokens) -> Tokens | None:
        """Use the refresh token; deal with every answer but new tokens."""
        name = claim.name
        try:
            return await self._clients.client(provider).refresh(kept.refresh_token)
        except ProviderUnavailable as error:
            if not error.unheard:
                await self._give_up(name, f"its refresh token may have been used: {error}")
                return None
            _log.warning("provider %s, session %.8s: %s", provider.id, name, error)
        except ProviderRefused as error:
            if error.error == "invalid_grant":
                _log.info("provider %s has ended session %.8s: %s", provider.id, name, error)
                await self._store.end(name, reason=_ENDED)
                return None
            _log.error("provider %s, session %.8s: %s", provider.id, name, error)
        await self._records.release_tokens(claim)
        self._wait(name, _TRY_AGAIN)
        return None

    async def _tell(
        self,
        record: SessionRecord,
        provider: Provider,
        name: str,
        kept: KeptTokens,
        fresh: KeptTokens,
    ) -> None:
        """Put into the record what the provider says of the person with its *fresh* tokens."""
        try:
            claims = await self._claims(self._clients.client(provider), record, kept, fresh)
            _profile(record, claims, provider)
        except ProviderUnavailable as error:
            _log.warning("provider %s, session %.8s: no news: %s", provider.id, name, error)
            await self._set_refresh_at(name, fresh.refresh_at)
            return
        except (ProviderRefused, RefusedToken, UnfitProfile) as error:
            _log.warning("provider %s: session %.8s ends: %s", provider.id, name, error)
            await self._store.end(name, reason=_ENDED)
            return

        def change(old: SessionRecord) -> SessionRecord:
            told = _profile(old, claims, provider)
            return msgspec.structs.replace(told, refresh_at=fresh.refresh_at)

        await self._store.update(name, change)

    async def _claims(
        self, client: ProviderClient, record: SessionRecord, kept: KeptTokens, fresh: KeptTokens
    ) -> Mapping[str, object]:
        """Return the claims about the person as the provider gives them now."""
        if client.provider.protocol != "openid":
            return await client.profile(fresh.access_token)
        before = read_token(kept.id_token, types=ID_TOKEN_TYPES)
        signed: Mapping[str, object] = {}
        if fresh.is_signed:
            algorithm, signed = await client.verify(fresh.id_token, types=ID_TOKEN_TYPES)
            check_refreshed_token(
                signed,
                # It was checked when it came, and sealed since.
                before.claims if isinstance(before, UnverifiedToken) else {},
                issuer=client.provider.issuer,
                client_id=client.provider.client_id,
                now=self._clock(),
                algorithm=algorithm,
                access_token=fresh.access_token,
            )
        sub = str(record.claims.get("sub", ""))
        userinfo = await client.userinfo(fresh.access_token, sub)
        return refreshed_claims(record.claims, signed, userinfo)

    async def _give_up(self, name: str, why: str) -> None:
        """Have nobody try again."""
        _log.warning("session %.8s is not refreshed any more: %s", name, why)
        await self._set_refresh_at(name, 0.0)

    async def _set_refresh_at(self, name: str, at: float) -> None:
        await self._store.update(
            name, lambda record: msgspec.structs.replace(record, refresh_at=at)
        )

    def _wait(self, name: str, seconds: float) -> None:
        self._under_way.not_before[name] = self._clock() + seconds


def _renewed(kept: KeptTokens, tokens: Tokens, *, now: float) -> KeptTokens:
    return kept_tokens(
        kept.provider,
        # Neither need come again: OIDC Core section 12.2, RFC 6749 section 6.
        id_token=tokens.id_token or kept.id_token,
        is_signed=bool(tokens.id_token),
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token or kept.refresh_token,
        lifetime=tokens.lifetime,
        now=now,
    )


def _profile(
    record: SessionRecord, claims: Mapping[str, object], provider: Provider
) -> SessionRecord:
    """Return *record* with what *claims* say; raise `UnfitProfile`, also for somebody else."""
    told = record_of(
        {"exp": record.expires_at, **claims},
        provider,
        created_at=record.created_at,
        expires_at=record.expires_at,
    )
    if told.subject != record.subject:
        raise UnfitProfile("the provider speaks of somebody else now")
    return msgspec.structs.replace(
        told,
        auth_time=record.auth_time,
        amr=told.amr or record.amr,
        begun_on=record.begun_on,
        begun_from=record.begun_from,
        refresh_at=record.refresh_at,
        sites=record.sites,
    )
