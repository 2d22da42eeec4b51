"""Signing in at a site whose people sign in elsewhere: the way there, and the way back.

`auth.login.site_authorization` is the other half, and says how the two work together.
"""

from collections.abc import Callable
from urllib.parse import urlencode

from auth.cookies import set_cookie
from auth.io.site_codes import HandedOn, SiteCodes
from auth.login.answers import AUTHORIZE_PATH, LOGIN_PATH, ONWARD, Answers, Fields, Problem
from auth.login.browser_binding import (
    EXPIRED,
    NO_COOKIE,
    NO_STATE,
    BrowserBinding,
    returned_state,
)
from auth.login.circles import Circles
from auth.login.known_devices import mark_browser
from auth.login.messages import LoginAnswer
from auth.login.sign_out import live_session
from auth.login.visit import Visit
from auth.ports import SessionStore
from auth.return_url import origin_in, safe_return_url
from auth.session import digest
from auth.site_cookie import site_cookie
from config.model import Configuration

_LONGEST_CODE = 128
"""Characters of a code that is looked at."""


class SiteSignIn:
    """Sends browsers to where people sign in, and gives those that come back the site's cookie."""

    def __init__(
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        store: SessionStore,
        codes: SiteCodes,
        clock: Callable[[], float],
    ) -> None:
        self._settings = configuration.session
        self._return_parameter = configuration.login.return_parameter
        self._binding = BrowserBinding(self._settings)
        self._circles = Circles(self._settings, public_url=configuration.server.public_url)
        self._answers = answers
        self._store = store
        self._codes = codes
        self._clock = clock

    async def begin(self, visit: Visit) -> LoginAnswer:
        """Answer GET: on to where people sign in. Nothing is kept but a cookie of this browser."""
        query, now = visit.request.query, self._clock()
        wanted = query.get(self._return_parameter) or "/"
        return_to = safe_return_url(wanted, origins=frozenset({visit.site}))
        if not origin_in(return_to):
            return_to = f"{visit.site}{return_to}"
        fields, circle = self._circles.note_return(visit, now, goal=return_to)
        if circle:
            again = f"{LOGIN_PATH}?{urlencode(query)}"
            return self._answers.error_page(visit, circle, fields=fields, again=again)
        if visit.identity is not None and not any(name in query for name in ONWARD):
            # Another tab was quicker.
            passed = self._circles.note_pass(visit, now, goal=return_to)
            return self._answers.away(return_to, fields=(passed,))
        state, verifier, bound = self._binding.begin(visit)
        asked = {
            self._return_parameter: return_to,
            "state": state,
            "code_challenge": digest(verifier),
            **{name: query[name] for name in ONWARD if name in query},
        }
        onward = f"{visit.sign_in_origin}{AUTHORIZE_PATH}?{urlencode(asked)}"
        return self._answers.away(onward, fields=(*bound, *fields))

    async def finish(self, visit: Visit) -> LoginAnswer:
        """Answer the browser that comes back with a code: the site's cookie, and the page wanted.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        state, code = returned_state(visit), visit.request.query.get("code", "")
        if not state or not 0 < len(code) <= _LONGEST_CODE:
            return self._stray(visit, NO_STATE)
        verifier = self._binding.value(visit, state)
        if not verifier:
            return self._stray(visit, NO_COOKIE)
        fields = self._binding.end(state)
        # Taken first, and judged then: whoever shows a code in the wrong place has used it up.
        handed_on = await self._codes.take(code)
        if handed_on is None or not _is_for(visit, handed_on, verifier):
            return self._stray(visit, EXPIRED, fields)
        name = handed_on.session_digest
        record = await self._store.find(name)
        if isinstance(record, str):  # signed out on the way
            return self._stray(visit, EXPIRED, fields)
        # As at every sign-in (ASVS 7.2.4): one from before, the person's or slipped to them, ends.
        if visit.session_digest != name and await live_session(self._store, visit):
            await self._store.end(visit.session_digest, reason="signed_in_again")
        value = site_cookie(name, handed_on.secret)
        max_age = max(0.0, record.expires_at - self._clock())
        fields = (
            *fields,
            ("Set-Cookie", set_cookie(self._settings, value, max_age)),
            self._circles.note_sign_in(visit, self._clock()),
            # The cookie ends with the session; a form that comes later is kept all the same.
            mark_browser(self._settings),
        )
        return_to = safe_return_url(handed_on.return_to, origins=frozenset({visit.site}))
        if self._settings.same_site != "strict":
            return self._answers.away(return_to, fields=fields)
        # As at a provider: browsers leave a strict cookie at home on a redirect that began at
        # another site. A page of ours begins anew.
        values = {"onward": return_to, "is_in": True}
        return self._answers.page(visit, "onward", values, fields=fields)

    def _stray(self, visit: Visit, problem: Problem, fields: Fields = ()) -> LoginAnswer:
        """Answer a way back that leads from nowhere: an old tab, a bookmark, another browser."""
        if visit.identity is not None:
            return self._answers.away("/", fields=fields)
        return self._answers.error_page(visit, problem, fields=fields, again=LOGIN_PATH)


def _is_for(visit: Visit, handed_on: HandedOn, verifier: str) -> bool:
    """Return whether the code was given for this site, to this browser."""
    return handed_on.site == visit.site and handed_on.challenge == digest(verifier)
