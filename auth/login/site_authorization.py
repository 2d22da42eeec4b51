"""Handing a session on to another site: the half at the origin where people sign in.

How this works (ADR 0008; in the way of RFC 6749 section 4.1 and RFC 7636). Several sites share one
sign-in, and no cookie reaches two of them. A site sends a browser without a session here
(`auth.login.site_sign_in`), with a state and the digest of a value that only this browser has:

1. Who is not signed in here, or not as the site's route asks, signs in first and comes back.
2. The session's record gets the key of the site's cookie, and every gateway has heard of it before
   the browser goes on: nobody is refused for a copy that does not know the site yet.
3. The browser takes a code back to `/.doorward/callback` of the site: one of those that the route
   file lists, and no other. The code is good once, for a minute, there, and in that browser.
"""

import math
import re
from collections.abc import Callable
from urllib.parse import urlencode

import msgspec

from auth.decision import AGAIN, step_up_in
from auth.io.site_codes import HandedOn, SiteCodes
from auth.login.answers import AUTHORIZE_PATH, ONWARD, Answers, Problem, patience
from auth.login.messages import LoginAnswer
from auth.login.provider import CALLBACK_PATH
from auth.login.provider_tokens import site_key
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.origins import Origins, host_of
from auth.ports import SessionStore
from auth.return_url import origin_in, safe_return_url
from auth.session import SessionRecord, digest
from auth.site_cookie import site_secret
from config.model import Configuration

_UNKNOWN_SITE = Problem(
    400,
    "site_unknown",
    "Nobody is handed on to that site",
    "Start from the page that you want to see.",
)
_CHALLENGE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_STATE = re.compile(r"[A-Za-z0-9_-]{22,128}", re.ASCII)
_ANEW = ("prompt", AGAIN)
"""What asks for a sign-in though there is a session."""

_BY_PAGE = "page"
"""The parameter of who comes from the sign-in page: browsers hold every redirect of a form against
its `form-action` (CSP), also the one to the site. A page of ours begins anew."""


class _Asked(msgspec.Struct, frozen=True):
    """What a site wants."""

    site: str
    return_to: str
    state: str
    challenge: str


class SiteAuthorization:
    """Hands sessions on."""

    def __init__(  # noqa: PLR0913 - what handing on touches
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        store: SessionStore,
        codes: SiteCodes,
        throttle: Throttle | None,
        clock: Callable[[], float],
    ) -> None:
        self._sites = frozenset(configuration.login.sites)
        self._origin = Origins.of(configuration).public
        self._cookie_name = configuration.session.cookie_name
        self._return_parameter = configuration.login.return_parameter
        self._answers = answers
        self._store = store
        self._codes = codes
        self._throttle = throttle
        self._clock = clock

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: on to the site with a code, or to the sign-in page and back here.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        asked = self._read(visit) if visit.origin == self._origin else None
        if asked is None:
            return self._answers.error_page(visit, _UNKNOWN_SITE)
        cookie = self._own_cookie(visit)
        anew = any(name in visit.request.query for name in _ANEW)
        if not cookie or anew or not self._is_enough(visit):
            return self._to_sign_in(visit, asked)
        assert visit.identity is not None
        subject = visit.identity.subject
        wait = await self._throttle.take_session(subject) if self._throttle else 0.0
        if wait > 0:
            fields = (("Retry-After", str(math.ceil(wait))),)
            return self._answers.error_page(visit, patience(wait), fields=fields)
        secret = site_secret(cookie, host_of(asked.site))
        if not await self._introduce(visit.session_digest, asked.site, cookie, secret):
            return self._to_sign_in(visit, asked)
        handed_on = HandedOn(
            visit.session_digest, asked.site, asked.challenge, secret, asked.return_to
        )
        taken = urlencode({"code": await self._codes.give(handed_on), "state": asked.state})
        onward = f"{asked.site}{CALLBACK_PATH}?{taken}"
        if _BY_PAGE not in visit.request.query:
            return self._answers.away(onward)
        return self._answers.page(visit, "onward", {"onward": onward, "is_in": True})

    def _read(self, visit: Visit) -> _Asked | None:
        """Return what is asked for; None if it makes no sense, or is for a site that is not ours.

        Anybody can write it. The site is that of the page to return to.
        """
        query = visit.request.query
        return_to = safe_return_url(query.get(self._return_parameter, ""), origins=self._sites)
        site = origin_in(return_to)
        state, challenge = query.get("state", ""), query.get("code_challenge", "")
        if site not in self._sites:
            return None
        if not _STATE.fullmatch(state) or not _CHALLENGE.fullmatch(challenge):
            return None
        return _Asked(site, return_to, state, challenge)

    def _own_cookie(self, visit: Visit) -> str:
        """Return the cookie value of the session that began here, if it is alive.

        Not of a bearer token, and not a site's: that one opens the session at its site, and must
        not become the key to all others.
        """
        cookie, identity = visit.request.cookies.get(self._cookie_name, ""), visit.identity
        is_own = identity is not None and identity.session_digest == digest(cookie)
        return cookie if cookie and is_own else ""

    def _is_enough(self, visit: Visit) -> bool:
        """Return whether the session is as strong and as recent as the site's route asks."""
        asked, identity = step_up_in(visit.request.query), visit.identity
        if asked is None or identity is None:
            return True
        return asked.is_strong_enough(identity.acr, identity.amr) and not asked.is_too_old(
            self._clock() - identity.auth_time
        )

    def _to_sign_in(self, visit: Visit, asked: _Asked) -> LoginAnswer:
        """Send the browser to sign in and back here."""
        query = visit.request.query
        # Without what asks for it anew, or they would be sent to sign in again and again. It is a
        # wish; what must be, `max_age` and `acr_values`, stays.
        back = {
            self._return_parameter: asked.return_to,
            "state": asked.state,
            "code_challenge": asked.challenge,
            _BY_PAGE: "1",
            **{name: query[name] for name in ("acr_values", "max_age") if name in query},
        }
        more = {name: query[name] for name in ONWARD if name in query}
        return self._answers.to_sign_in(
            origin=visit.origin, path=f"{AUTHORIZE_PATH}?{urlencode(back)}", more=more
        )

    async def _introduce(self, name: str, site: str, cookie: str, secret: str) -> bool:
        """Have the session's record know the key of the *site*, everywhere.

        Returns:
            Whether the session is alive.
        """
        host, key = host_of(site), digest(secret)
        record = await self._store.find(name)
        if isinstance(record, str):
            return False
        if host in record.sites and record.sites[host].key == key:
            return True
        given = site_key(cookie, secret)

        def change(old: SessionRecord) -> SessionRecord:
            return msgspec.structs.replace(old, sites={**old.sites, host: given})

        if not await self._store.update(name, change):
            return False
        # A gateway may hold a copy from before for the rest of its lease, and would refuse.
        await self._store.settle()
        return True
