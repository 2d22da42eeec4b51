"""Signing in that goes in circles: noticed, stopped, and the cause named.

How this works. A browser that was just signed in and stands before the sign-in page again did not
get in with its session; where a provider signs people in without asking, it would go on so for
ever. Each sign-in is counted in a cookie of a minute; at the fourth arrival we stop and say why, as
far as the request tells: what became of the session cookie since. Nothing is guarded by the count,
so it needs no proof: whoever changes it only hides a page of advice from themselves.
"""

import re

import msgspec

from auth.cookies import sign_in_cookie_prefix
from auth.decision import Reason
from auth.identity import Authenticated, Rejected
from auth.login.answers import Problem
from auth.login.visit import Visit
from config.model import SessionSettings

_MOST = 3
"""Sign-ins within `_WITHIN` that are no circle: a person who looks around, several tabs at once."""
_WITHIN = 60
"""Seconds."""
_VALUE = re.compile(r"([0-9]{1,3})\.([0-9]{1,12})")

_CIRCLE = Problem(400, "sign_in_loop", "Signing in goes in circles")
_NO_COOKIE = (
    "You were signed in several times just now, but your browser does not send the session cookie "
    "back. Allow cookies for this site; if they are allowed, the site must be reached by {public}, "
    "as its public_url says."
)
_CAUSES = {
    Reason.COOKIE_AMBIGUOUS: (
        "Your browser sends two session cookies of one name, so neither counts. Delete the cookies "
        "of this site and of its parent domain, and sign in again."
    ),
    Reason.SESSION_UNKNOWN: (
        "The session that just began is not known here. Whoever looks after this site should see "
        "whether all of its gateways use one store, and whether the store loses what it is given."
    ),
    Reason.SESSION_EXPIRED: (
        "The session that just began is taken for expired. Whoever looks after this site should "
        "compare the clocks of its gateways."
    ),
    Reason.SESSION_ENDED: (
        "The session that just began was ended at once. Something signs you out again and again, a "
        "page that is open in another tab perhaps."
    ),
    Reason.SESSION_MALFORMED: (
        "The session that just began cannot be read. Whoever looks after this site should see "
        "whether all of its gateways are of one version."
    ),
}
_SENT_BACK = (
    "You are signed in as {name}, and the page that you want to see sends you back here all the "
    "same. Signing in again will not help; ask whoever looks after that page."
)
_UNKNOWN = "You were signed in several times just now, and none of these sessions was accepted."


class Circles:
    """Counts the sign-ins of a browser."""

    def __init__(self, settings: SessionSettings, *, public_url: str) -> None:
        """Take the settings of the cookies, and where the site wants to be reached."""
        # Below the prefix that no upstream sees.
        self.cookie_name = f"{sign_in_cookie_prefix(settings.cookie_name)}recent"
        self._attributes = "; Secure" if settings.secure else ""
        self._public_url = public_url

    def note(self, visit: Visit, now: float) -> tuple[str, str]:
        """Return the field that counts one more sign-in, at *now* (epoch seconds)."""
        count, since = self._recent(visit, now)
        return self._cookie(f"{count + 1}.{since}", _WITHIN)

    def forget(self) -> tuple[str, str]:
        """Return the field that begins the count anew."""
        return self._cookie("", 0)

    def find_problem(self, visit: Visit, now: float) -> Problem | None:
        """Return what is wrong if this browser goes in circles."""
        count, _ = self._recent(visit, now)
        if count < _MOST:
            return None
        return msgspec.structs.replace(_CIRCLE, detail=self._cause(visit))

    def _cause(self, visit: Visit) -> str:
        caller = visit.request.caller
        if isinstance(caller, Authenticated):
            identity = caller.identity
            return _SENT_BACK.format(name=identity.name or identity.subject)
        if isinstance(caller, Rejected):
            return _CAUSES.get(Reason(caller.reason), _UNKNOWN)
        return _NO_COOKIE.format(public=self._public_url)

    def _recent(self, visit: Visit, now: float) -> tuple[int, int]:
        """Return how many sign-ins there were, and since when; none if that is long ago."""
        found = _VALUE.fullmatch(visit.request.cookies.get(self.cookie_name, ""))
        if found and 0 <= now - int(found[2]) < _WITHIN:
            return int(found[1]), int(found[2])
        return 0, int(now)

    def _cookie(self, value: str, max_age: int) -> tuple[str, str]:
        attributes = f"; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{self._attributes}"
        return "Set-Cookie", f"{self.cookie_name}={value}{attributes}"
