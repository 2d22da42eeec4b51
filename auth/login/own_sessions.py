"""The caller's own sessions: a list, and buttons that end one or all others."""

from collections.abc import Callable, Sequence

import msgspec

from auth.cookies import clear_cookie
from auth.identity import Identity
from auth.login.answers import SESSIONS_PATH, Answers, Problem
from auth.login.device import told_device, told_place
from auth.login.messages import LoginAnswer
from auth.login.pages import Moment, moment
from auth.login.visit import Visit
from auth.ports import Ended, SessionStore, SessionSummary
from auth.wording import Wording, phrase
from config.model import Configuration

_NOT_SIGNED_IN = Problem(
    401, "unauthenticated", "Please sign in", "Only you can see your sessions."
)
_FOREIGN = Problem(
    403,
    "foreign_form",
    "That request did not come from this page.",
    "Nothing has been ended. Use the buttons here.",
)
_UNKNOWN = Problem(
    404, "no_such_session", "That session has already ended.", "It cannot be used any more."
)
_UNCLEAR = Problem(400, "form_incomplete", "Nothing was chosen.", "Use one of the buttons.")


class _Row(msgspec.Struct, frozen=True):
    """A session as the page shows it."""

    digest: str
    device: str
    place: str
    since: Moment
    seen: Moment | None
    until: Moment
    current: bool


class OwnSessions:
    """What a person sees of their sessions."""

    def __init__(
        self,
        configuration: Configuration,
        answers: Answers,
        *,
        store: SessionStore,
        clock: Callable[[], float],
    ) -> None:
        """Take what the list needs."""
        self._settings = configuration.session
        self._answers = answers
        self._store = store
        self._clock = clock

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: the list.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        identity = visit.identity
        if identity is None:
            return self._not_signed_in(visit)
        sessions = await self._store.sessions_of(identity.subject)
        if visit.prefers(unless_told="page") == "json":
            told = [self._told(each, identity) for each in sessions]
            return self._answers.json({"sessions": told})
        return self._list(visit, identity, sessions)

    async def submit(self, visit: Visit) -> LoginAnswer:
        """Answer POST: end the session `id`, or with `others` all but the one at hand.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        identity = visit.identity
        if identity is None:
            return self._not_signed_in(visit)
        if not visit.may_change_sessions:
            return await self._refuse(visit, identity, _FOREIGN)
        chosen = visit.request.form.get("id", "")
        if visit.request.form.get("others") == "1":
            keep = identity.session_digest
            ended = await self._store.end_subject(
                identity.subject, reason="ended_by_owner", keep=keep
            )
            return await self._done(
                visit, identity, ended, notice=_counted(visit.wording, ended.ended)
            )
        if not chosen:
            return await self._refuse(visit, identity, _UNCLEAR)
        sessions = await self._store.sessions_of(identity.subject)
        if chosen not in {each.digest for each in sessions}:
            # Also for a session of somebody else: nobody learns whether it is one.
            return await self._refuse(visit, identity, _UNKNOWN)
        ended = await self._store.end(chosen, reason="ended_by_owner")
        if chosen == identity.session_digest:
            return self._gone(visit, ended)
        return await self._done(
            visit, identity, ended, notice=visit.wording.say(phrase("That session has ended."))
        )

    def _gone(self, visit: Visit, ended: Ended) -> LoginAnswer:
        """Answer after the session at hand was ended."""
        fields = (("Set-Cookie", clear_cookie(self._settings)),)
        if visit.prefers(unless_told="json") == "json":
            return self._answers.json(msgspec.structs.asdict(ended), fields=fields)
        values = {"ended": ended.ended, "everywhere": False, "signed_in_as": ""}
        return self._answers.page(visit, "signed_out", values, fields=fields)

    async def _done(
        self, visit: Visit, identity: Identity, ended: Ended, *, notice: str
    ) -> LoginAnswer:
        if visit.prefers(unless_told="json") == "json":
            return self._answers.json(msgspec.structs.asdict(ended))
        sessions = await self._store.sessions_of(identity.subject)
        return self._list(visit, identity, sessions, notice=notice)

    async def _refuse(self, visit: Visit, identity: Identity, problem: Problem) -> LoginAnswer:
        if visit.prefers(unless_told="json") == "json":
            return self._answers.problem(problem)
        sessions = await self._store.sessions_of(identity.subject)
        return self._list(visit, identity, sessions, problem=problem)

    def _not_signed_in(self, visit: Visit) -> LoginAnswer:
        # As on a protected route: whoever does not ask for a page gets 401, no way to one.
        if visit.prefers(unless_told="json") == "json":
            return self._answers.problem(_NOT_SIGNED_IN, fields=(self._answers.challenge,))
        return self._answers.to_sign_in(origin=visit.origin, path=SESSIONS_PATH)

    def _list(
        self,
        visit: Visit,
        identity: Identity,
        sessions: Sequence[SessionSummary],
        *,
        notice: str = "",
        problem: Problem | None = None,
    ) -> LoginAnswer:
        rows = [self._row(each, identity, visit.wording) for each in sessions]
        rows.sort(key=lambda row: not row.current)  # this one first, then as they came
        values: dict[str, object] = {"sessions": rows, "notice": notice}
        return self._answers.page(visit, "sessions", values, problem=problem)

    def _row(self, summary: SessionSummary, identity: Identity, wording: Wording) -> _Row:
        now = self._clock()
        seen = self._seen_at(summary)
        return _Row(
            digest=summary.digest,
            device=told_device(summary.record.begun_on, wording),
            place=told_place(summary.record.begun_from, wording),
            since=moment(summary.record.created_at, now, wording),
            seen=moment(seen, now, wording) if seen else None,
            until=moment(summary.record.expires_at, now, wording),
            current=summary.digest == identity.session_digest,
        )

    def _told(self, summary: SessionSummary, identity: Identity) -> dict[str, object]:
        return {
            "id": summary.digest,
            "device": summary.record.begun_on,
            "address": summary.record.begun_from,
            "created_at": summary.record.created_at,
            "seen_at": self._seen_at(summary),
            "expires_at": summary.record.expires_at,
            "current": summary.digest == identity.session_digest,
        }

    def _seen_at(self, summary: SessionSummary) -> float | None:
        """Return about when the session was last used, as far as its idle expiry tells."""
        seen = summary.idle_expires_at - self._settings.idle_timeout
        if seen > self._clock():
            return None  # the idle limit was shortened since
        return max(seen, summary.record.created_at)


def _counted(wording: Wording, ended: int) -> str:
    if ended == 0:
        return wording.say(phrase("There was no other session."))
    return wording.counted(
        "One other session has ended.", "%(num)s other sessions have ended.", ended
    )
