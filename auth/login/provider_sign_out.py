"""Signing out at the provider after signing out here (OpenID Connect RP-Initiated Logout 1.0)."""

import asyncio
import logging

from auth.io.provider_client import Providers, ProviderUnavailable
from auth.io.provider_records import ProviderRecords
from auth.login.answers import LOGOUT_PATH
from auth.login.provider import with_query
from auth.login.provider_tokens import open_tokens, tokens_secret_of
from auth.login.sign_out import Onward
from auth.login.visit import Visit
from auth.ports import AuthUnavailable
from auth.session import SessionRecord
from config.model import Configuration

_log = logging.getLogger(__name__)

_PATIENCE = 2.0
"""Seconds that a person who has been signed out waits to hear where it goes on."""
_LONGEST_HINT = 4096
"""Characters of an ID token that still fit in a URL."""


class ProviderSignOut:
    """Knows where the browser must go to be signed out at the provider as well."""

    def __init__(
        self, configuration: Configuration, *, providers: Providers, records: ProviderRecords
    ) -> None:
        self._cookie_name = configuration.session.cookie_name
        self._providers = {each.id: each for each in configuration.login.providers}
        self._clients = providers
        self._records = records

    async def find_onward(self, visit: Visit, record: SessionRecord | None) -> Onward | None:
        """Return where to go on for the session that was presented; None: it ends here.

        *record* is what it had when it was ended, if it was alive. Never raises: the session is
        over, and the person must be told so whatever else fails.
        """
        if not visit.session_digest:
            return None
        try:
            return await self._find_onward(visit, record)
        except (AuthUnavailable, ProviderUnavailable, TimeoutError) as error:
            why = str(error) or "it does not answer"
            _log.warning("no sign-out at the provider (%s): %s", visit.request.request_id, why)
            return None

    async def _find_onward(self, visit: Visit, record: SessionRecord | None) -> Onward | None:
        sealed = await self._records.take_tokens(visit.session_digest)
        cookie = visit.request.cookies.get(self._cookie_name, "")
        kept = open_tokens(tokens_secret_of(cookie, record), sealed)
        if kept is None:
            return None
        provider = self._providers.get(kept.provider)
        if provider is None or not provider.end_session:
            return None
        async with asyncio.timeout(_PATIENCE):
            metadata = await self._clients.client(provider).metadata()
        endpoint = metadata.end_session_endpoint
        if not endpoint:
            return None
        asked = {
            "client_id": provider.client_id,
            # From a site too: the provider need know one address. From there it goes on.
            "post_logout_redirect_uri": f"{visit.sign_in_origin}{LOGOUT_PATH}",
            "state": visit.return_token,
        }
        if len(kept.id_token) <= _LONGEST_HINT:
            asked["id_token_hint"] = kept.id_token
        return Onward(with_query(endpoint, asked), provider.label)
