"""Signing out in a frame of the provider's page (OpenID Connect Front-Channel Logout 1.0).

The request comes through the person's browser, signed by nobody and, in a frame of another site,
without our cookie. So it ends exactly one thing: the sessions of ours that hang on the session at
the provider that it names, by `iss` and `sid`. Whoever knows a `sid` may end that session; without
one, or for one that nothing hangs on, nothing happens and nothing is written. Where a provider
offers back-channel logout too, that is the better one: it is signed, and works without a browser.
"""

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from auth.io.provider_records import ProviderRecords, ProviderSession
from auth.login.messages import LoginAnswer
from auth.login.visit import Visit
from auth.ports import SessionStore
from auth.tokens import is_fit_text
from config.model import Configuration

_log = logging.getLogger(__name__)

_REASON = "provider_signed_out"
_PAGE = b'<!DOCTYPE html>\n<html lang="en"><title>Signed out</title></html>\n'
"""Nobody sees it."""


class FrontChannel:
    """Obeys the frames of providers' pages."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        store: SessionStore,
        records: ProviderRecords,
        clock: Callable[[], float],
    ) -> None:
        providers = configuration.login.providers
        self._issuers = {each.issuer for each in providers if each.protocol == "openid"}
        self._store = store
        self._records = records
        self._clock = clock

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer the frame; with 200 when no gateway admits the sessions any more.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        query = visit.request.query
        issuer, sid = query.get("iss", ""), query.get("sid", "")
        if issuer not in self._issuers or not is_fit_text(sid):
            request = visit.request.request_id
            _log.warning("front-channel logout refused (request %s): no iss and sid", request)
            return _answer(400, "'none'")
        name = ProviderSession(issuer, "", sid).own_name
        digests = await self._records.end_noted(name, self._clock())
        endings = (self._store.end(digest, reason=_REASON) for digest in digests)
        ended = sum(each.ended for each in await asyncio.gather(*endings))
        _log.info("%s ended %d sessions by the front channel", issuer, ended)
        parts = urlsplit(issuer)
        return _answer(200, f"{parts.scheme}://{parts.netloc}")


def _answer(status: int, frames: str) -> LoginAnswer:
    """Return the page, for the frames of *frames*; the only page of ours that may be in one."""
    error = "" if status == 200 else "front_channel_refused"
    fields = (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Security-Policy", f"default-src 'none'; frame-ancestors {frames}"),
        ("Referrer-Policy", "no-referrer"),
        *((("X-Doorward-Error", error),) if error else ()),
    )
    return LoginAnswer(status, fields, _PAGE if status == 200 else b"", error)
