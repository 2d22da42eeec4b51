"""Signing in that goes in circles: noticed, stopped, and the cause named.

How this works. A browser that stands before the sign-in page again within three seconds of being
signed in did not get in with its session; where a provider signs people in without asking, it would
go on so for ever. A cookie has the time of the last sign-in and how often that has happened in a
row; the third time we stop and say why, as far as the request tells: what became of the session
cookie since. Whoever signs in again later, or after signing out, is in no circle. The count guards
nothing, so it needs no proof: whoever changes it only hides advice from themselves.

At a site whose people sign in elsewhere that takes a moment and no click, and all tabs of a browser
do it at once when it starts: there only returns for one and the same page count.

The browser forgets the cookie after ten minutes by its own clock. So a sign-in that lies in the
future, or longer ago than that, was noted by a gateway with another clock: how long it really was
ago cannot be told then, and it counts as just now.
"""

import re

import msgspec

from auth.cookies import sign_in_cookie_prefix
from auth.decision import Reason
from auth.identity import Authenticated, Rejected
from auth.login.answers import Fields, Problem
from auth.login.visit import Visit
from auth.session import digest
from auth.wording import Values, phrase
from config.model import SessionSettings

_STOP_AT = 3
"""Returns in a row."""
_AT_ONCE = 3.0
"""Seconds from a sign-in to a return that nobody can have meant: two redirects, and slow ones."""
_REMEMBERED = 600
"""Seconds: as long as somebody may take at a provider."""
_CLOCKS = 5.0
"""Seconds that the clocks of two gateways may differ by without a word: they are never equal."""
_MOST_SKEW = 30 * 86_400.0
"""Seconds; what says more is no time that a gateway noted."""
_VALUE = re.compile(r"([0-9])\.([0-9]{1,15})(?:\.([0-9a-f]{8}))?", re.ASCII)

_CIRCLE = Problem(400, "sign_in_loop", "Signing in goes in circles")
_NO_COOKIE = phrase(
    "You were signed in several times just now, but your browser does not send the session cookie "
    "back. Allow cookies for this site; if they are allowed, the site must be reached by "
    "%(public)s, as its public_url says."
)
_NO_SITE_COOKIE = phrase(
    "You were signed in several times just now, but your browser does not send the cookie of this "
    "site back. Allow cookies for it; if they are allowed, it must be reached by %(site)s, as the "
    "gateway's list of sites says."
)
_SKEW = phrase(
    "The clocks of the gateways of this site differ by about %(seconds)s seconds or more, so a "
    "session that one begins is none to another. Whoever looks after this site must set them."
)
_CAUSES = {
    Reason.COOKIE_AMBIGUOUS: phrase(
        "Your browser sends two session cookies of one name, so neither counts. Delete the cookies "
        "of this site and of its parent domain, and sign in again."
    ),
    Reason.COOKIE_OF_OTHER_SITE: phrase(
        "The cookie that your browser sends is not the one that this site gave it. Delete the "
        "cookies of this site, and sign in again. If that does not help, a proxy before the "
        "gateway may change the host of requests."
    ),
    Reason.SESSION_UNKNOWN: phrase(
        "The session that just began is not known here. Whoever looks after this site should see "
        "whether all of its gateways use one store, and whether the store loses what it is given."
    ),
    Reason.SESSION_EXPIRED: phrase(
        "The session that just began is taken for expired. Whoever looks after this site should "
        "compare the clocks of its gateways."
    ),
    Reason.SESSION_ENDED: phrase(
        "The session that just began was ended at once. Something signs you out again and again, a "
        "page that is open in another tab perhaps."
    ),
    Reason.SESSION_MALFORMED: phrase(
        "The session that just began cannot be read. Whoever looks after this site should see "
        "whether all of its gateways are of one version."
    ),
}
_SENT_BACK = phrase(
    "You are signed in as %(name)s, and the page that you want to see sends you back here all the "
    "same. Signing in again will not help; ask whoever looks after that page."
)
_UNKNOWN = phrase(
    "You were signed in several times just now, and none of these sessions was accepted."
)


class Circles:
    """Notices when a browser comes back from signing in at once, again and again."""

    def __init__(self, settings: SessionSettings, *, public_url: str) -> None:
        """Take the settings of the cookies, and where the site wants to be reached."""
        # Below the prefix that no upstream sees.
        self.cookie_name = f"{sign_in_cookie_prefix(settings.cookie_name)}recent"
        self._attributes = "; Secure" if settings.secure else ""
        self._public_url = public_url

    def note_sign_in(self, visit: Visit, now: float) -> tuple[str, str]:
        """Return the field that remembers a sign-in at *now* (epoch seconds)."""
        returns, _, goal = self._recent(visit)
        return self._kept(returns, now, goal)

    def note_return(
        self, visit: Visit, now: float, *, goal: str = ""
    ) -> tuple[Fields, Problem | None]:
        """Return the fields that remember that *visit* came to sign in, and what is wrong if it is.

        *now* is in epoch seconds. With *goal*, a URL, returns for another page do not count.
        """
        if self.cookie_name not in visit.request.cookies:
            return (), None
        returns, signed_in_at, for_goal = self._recent(visit)
        skew = _skew_of(now - signed_in_at) if signed_in_at else 0.0
        if not skew and not 0 <= now - signed_in_at <= _AT_ONCE:
            return (self._cookie("", 0),), None
        name = _name_of(goal)
        if for_goal and for_goal != name:
            returns = 0
        if returns + 1 < _STOP_AT:
            return (self._kept(returns + 1, signed_in_at, name),), None
        detail, values = self._cause(visit, skew)
        problem = msgspec.structs.replace(_CIRCLE, detail=detail, values=values)
        return (self._cookie("", 0),), problem

    def note_pass(self, visit: Visit, now: float, *, goal: str) -> tuple[str, str]:
        """Return the field for one who is let on to *goal* at once, for they are signed in.

        As a return and a sign-in in one: a page that sends them back on and on is a circle too.
        """
        returns, signed_in_at, for_goal = self._recent(visit)
        name = _name_of(goal)
        is_again = for_goal == name and 0 <= now - signed_in_at <= _AT_ONCE
        return self._kept(returns + 1 if is_again else 1, now, name)

    def forget(self, visit: Visit) -> Fields:
        """Return the fields that begin the count anew: the person signed out."""
        return (self._cookie("", 0),) if self.cookie_name in visit.request.cookies else ()

    def _cause(self, visit: Visit, skew: float) -> tuple[str, Values]:
        caller = visit.request.caller
        if skew and isinstance(caller, Rejected) and caller.reason == Reason.SESSION_EXPIRED:
            return _SKEW, {"seconds": f"{skew:.0f}"}
        if isinstance(caller, Authenticated):
            identity = caller.identity
            return _SENT_BACK, {"name": identity.name or identity.subject}
        if isinstance(caller, Rejected):
            return _CAUSES.get(Reason(caller.reason), _UNKNOWN), {}
        if visit.site:
            return _NO_SITE_COOKIE, {"site": visit.site}
        return _NO_COOKIE, {"public": self._public_url}

    def _recent(self, visit: Visit) -> tuple[int, float, str]:
        """Return how often in a row this browser came back, when it was signed in, what for."""
        found = _VALUE.fullmatch(visit.request.cookies.get(self.cookie_name, ""))
        return (int(found[1]), int(found[2]) / 1000, found[3] or "") if found else (0, 0.0, "")

    def _kept(self, returns: int, signed_in_at: float, goal: str) -> tuple[str, str]:
        end = f".{goal}" if goal else ""
        return self._cookie(f"{min(returns, 9)}.{int(signed_in_at * 1000)}{end}", _REMEMBERED)

    def _cookie(self, value: str, max_age: int) -> tuple[str, str]:
        attributes = f"; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{self._attributes}"
        return "Set-Cookie", f"{self.cookie_name}={value}{attributes}"


def _name_of(goal: str) -> str:
    """Return the name of a page in the cookie; without its query, which may be new every time."""
    return digest(goal.partition("?")[0])[:8] if goal else ""


def _skew_of(ago: float) -> float:
    """Return by how many seconds clocks differ at least, if a sign-in was *ago* seconds ago.

    0: it may well have been so long ago.
    """
    if abs(ago) > _MOST_SKEW:
        return 0.0
    if ago < -_CLOCKS:
        return -ago
    return ago - _REMEMBERED if ago > _REMEMBERED + _CLOCKS else 0.0
