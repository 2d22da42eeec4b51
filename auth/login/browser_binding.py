"""A sign-in that leaves this origin and comes back: bound to the browser that began it.

How this works (RFC 9700 section 4.7). Each has a state, which travels, and a random value, which
stays in a cookie of this browser that is named after the state: several tabs do not meet, and
another browser that is given the way back has no such cookie.
"""

import re
import secrets

from auth.cookies import sign_in_cookie_prefix
from auth.io.provider_records import SIGN_IN_SECONDS
from auth.login.answers import Fields, Problem
from auth.login.visit import Visit
from auth.session import digest
from config.model import SessionSettings

NO_STATE = Problem(
    400,
    "sign_in_incomplete",
    "This page is the end of a sign-in",
    "It cannot be opened by itself, from a bookmark for instance. Please sign in again.",
)
NO_COOKIE = Problem(
    400,
    "sign_in_cookie_missing",
    "This sign-in did not begin in this browser",
    "A cookie that was set when it began has not come back. Allow cookies for this site, finish in "
    "the window where you began, and within ten minutes. Then sign in again.",
)
EXPIRED = Problem(
    400,
    "sign_in_expired",
    "This sign-in is over",
    "It was finished before, or took longer than ten minutes. Please sign in again.",
)
_LONGEST_STATE = 256
"""Characters of a `state` that is looked at."""
_MOST_UNDER_WAY = 20
"""Sign-ins that one browser may have under way: more tabs than most have open, and less than 2 KiB
of cookies. Beyond, the oldest is forgotten."""


class BrowserBinding:
    """Gives a browser the cookies of its sign-ins, and takes them back."""

    def __init__(self, settings: SessionSettings) -> None:
        """Take the settings of the cookies."""
        self._prefix = sign_in_cookie_prefix(settings.cookie_name)
        self._secure = "; Secure" if settings.secure else ""
        # Others live below the prefix too, under words: what knows a device, what counts circles.
        self._own = re.compile(rf"{re.escape(self._prefix)}[0-9a-f]{{12}}")

    def begin(self, visit: Visit) -> tuple[str, str, Fields]:
        """Return the state and the value of a new sign-in, and the fields that set its cookie."""
        state, value = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        cookie = self._cookie(self._name(state), value, SIGN_IN_SECONDS)
        return state, value, (*self._abandoned(visit), ("Set-Cookie", cookie))

    def value(self, visit: Visit, state: str) -> str:
        """Return the value that this browser has for *state*; empty if it has none."""
        return visit.request.cookies.get(self._name(state), "")

    def end(self, state: str) -> Fields:
        """Return the fields that take the cookie of *state* back."""
        return (("Set-Cookie", self._cookie(self._name(state), "", 0)),)

    def _name(self, state: str) -> str:
        return f"{self._prefix}{digest(state)[:12]}"

    def _abandoned(self, visit: Visit) -> Fields:
        names = [name for name in visit.request.cookies if self._own.fullmatch(name)]
        # Browsers send the oldest first (RFC 6265 section 5.4): most likely an abandoned one.
        oldest = names[: max(0, len(names) + 1 - _MOST_UNDER_WAY)]
        return tuple(("Set-Cookie", self._cookie(name, "", 0)) for name in oldest)

    def _cookie(self, name: str, value: str, max_age: int) -> str:
        # Lax: it must come back with a redirect from another site.
        return f"{name}={value}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{self._secure}"


def returned_state(visit: Visit) -> str:
    """Return the state that *visit* brings back; empty if it brings none."""
    state = visit.request.query.get("state", "")
    return state if len(state) <= _LONGEST_STATE else ""
