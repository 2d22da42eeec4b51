"""Signing out: a question, and the answer that is given only when it is true everywhere."""

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import msgspec

from auth.cookies import clear_cookie
from auth.login.answers import LOGOUT_PATH, Answers, Fields, Problem
from auth.login.circles import Circles
from auth.login.messages import LoginAnswer
from auth.login.visit import Visit
from auth.ports import Ended, SessionStore
from auth.session import SessionRecord
from config.model import Configuration

_FOREIGN = Problem(
    403,
    "foreign_form",
    "That request did not come from this page.",
    "Nothing has been ended. To sign out, press the button here.",
)
_FOREIGN_PROGRAM = msgspec.structs.replace(
    _FOREIGN,
    # No phrases: programs get English.
    title="That request did not come from this origin.",
    detail="Nothing has been ended. Send the gateway's own origin in `Origin`, or a bearer token.",
)
_RETURNED = {"returned": True, "ended": 0, "everywhere": False, "signed_in_as": ""}
_NOTHING = Ended(ended=0, acknowledged=0, of=0, waited_ms=0.0)


class Onward(msgspec.Struct, frozen=True):
    """Where signing out goes on: at the provider called *label*."""

    url: str
    label: str


FindOnward = Callable[[Visit, SessionRecord | None], Awaitable[Onward | None]]


class SignOut:
    """The end of a session, or of all of a person's."""

    def __init__(
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        store: SessionStore,
        find_onward: FindOnward | None = None,
    ) -> None:
        """Take what signing out needs; *find_onward* says where it goes on, after it is done."""
        self._settings = configuration.session
        self._circles = Circles(self._settings, public_url=configuration.server.public_url)
        self._find_onward = find_onward
        self._answers = answers
        self._store = store

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: ask, and end nothing. Anybody can make a browser follow a link.

        Who comes back from signing out at a provider is told so, at the site where they began.
        """
        if visit.left_site:
            back = urlencode({"state": visit.request.query["state"]})
            fields = self._circles.forget(visit)
            return self._answers.away(f"{visit.left_site}{LOGOUT_PATH}?{back}", fields=fields)
        if visit.has_returned and visit.identity is None:
            return self._answers.page(visit, "signed_out", _RETURNED)
        return self._answers.page(visit, "logout", {})

    async def submit(self, visit: Visit) -> LoginAnswer:
        """Answer POST: end what there is, and say how that went.

        When this returns, no gateway on the store admits what was ended (`SessionStore.end`).

        Raises:
            AuthUnavailable: the store cannot be asked; nobody knows, and the cookie stays.
        """
        if not visit.may_change_sessions:
            return self._refuse(visit)
        asked = visit.request
        everywhere = "1" in (asked.form.get("everywhere"), asked.query.get("everywhere"))
        record = await live_session(self._store, visit)
        ended = await self._end(visit, record, everywhere=everywhere)
        onward = await self._find_onward(visit, record) if self._find_onward else None
        cleared = ("Set-Cookie", clear_cookie(self._settings))
        fields: Fields = (cleared, *self._circles.forget(visit))
        if visit.prefers(unless_told="json") == "json":
            told = msgspec.structs.asdict(ended)
            if onward:
                told["continue_at"] = onward.url
            return self._answers.json(told, fields=fields)
        # Personal pages that upstreams let the browser keep are gone too, also behind "back".
        fields = (*fields, ("Clear-Site-Data", '"cache"'))
        values = {
            "ended": ended.ended,
            "everywhere": everywhere and ended.ended,
            "signed_in_as": "",
            "onward": onward,
        }
        return self._answers.page(visit, "signed_out", values, fields=fields)

    async def _end(self, visit: Visit, record: SessionRecord | None, *, everywhere: bool) -> Ended:
        if everywhere:
            subject = visit.identity.subject if visit.identity else record and record.subject
            if subject:
                return await self._store.end_subject(subject, reason="signed_out_everywhere")
        if record:
            return await self._store.end(visit.session_digest, reason="signed_out")
        if visit.session_digest:
            # It has ended, as far as the store knows: by a second click, a repeated request, or
            # somebody's DEL, a moment ago. What we answer must be true everywhere all the same. For
            # a cookie that is no session nothing is written: strangers could fill the store.
            return await self._store.settle()
        return _NOTHING

    def _refuse(self, visit: Visit) -> LoginAnswer:
        if visit.prefers(unless_told="json") == "json":
            return self._answers.problem(_FOREIGN_PROGRAM)
        return self._answers.page(visit, "logout", {}, problem=_FOREIGN)


async def live_session(store: SessionStore, visit: Visit) -> SessionRecord | None:
    """Return the record of the session whose cookie was presented, if it is alive.

    The store is asked again although the caller was looked up: a cookie beside a bearer token, or
    one that a gateway no longer trusts its copy of, is still a session to end.

    Raises:
        AuthUnavailable: the store cannot be asked.
    """
    if not visit.session_digest:
        return None
    found = await store.find(visit.session_digest)
    return None if isinstance(found, str) else found
