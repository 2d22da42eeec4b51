"""A form that met no session: kept, and offered again to whoever has signed in. Never sent by us.

How this works. The gateway hands over a form that a page of this very origin sent and that nobody's
session let through (`gateway.kept_forms` says which). It waits in the store under a cookie of its
own; the way back from the sign-in leads to a page that shows it. What is sent again is a form of
that page, by the browser, when the person says so: the backend sees a form of this site, as it
would have before, and a form that another site sent never gets so far. The first person who looks
at it is the only one who may.
"""

import re
import secrets
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from auth.cookies import sign_in_cookie_prefix
from auth.io.kept_forms import FORM_SECONDS, KeptForm, KeptForms
from auth.login.answers import FORM_PATH, Answers, Fields, Problem
from auth.login.messages import LoginAnswer, SentForm, WayBack
from auth.login.throttle import Throttle
from auth.login.visit import Visit
from auth.session import digest
from config.model import SessionSettings

_MOST_FIELDS = 200
"""Of a form that is kept."""
_MOST_AT_ONCE = 5
"""Forms of one browser; with one more, the oldest is given up."""
_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""What a page cannot hold in a field and send as it was."""
_SECRET = re.compile(
    r"pass|pwd|secret|token|csrf|otp|pin|code|cvc|cvv|card|iban|key|auth|ssn", re.IGNORECASE
)
"""In a field's name: its value is not shown."""
_LONGEST_SHOWN = 200
"""Characters of a value that the page shows."""

_GONE = Problem(
    404,
    "form_not_kept",
    "There is nothing to send",
    "What you had entered is not kept any more, or was somebody else's. Please enter it again.",
)
_NOT_SIGNED_IN = Problem(
    401, "unauthenticated", "Please sign in", "What you sent is shown to you when you have."
)
_FOREIGN = Problem(
    403, "foreign_form", "That request did not come from this page.", "Nothing has been changed."
)


class _Field(NamedTuple):
    """A field as the page shows it."""

    name: str
    value: str
    shown: str
    """Empty: it is not shown."""


class KeptFormPage:
    """Takes forms, and shows them to whom they belong."""

    def __init__(
        self,
        settings: SessionSettings,
        answers: Answers,
        *,
        forms: KeptForms,
        throttle: Throttle | None,
    ) -> None:
        # Below the prefix that no upstream sees.
        self._prefix = f"{sign_in_cookie_prefix(settings.cookie_name)}form-"
        self._secure = "; Secure" if settings.secure else ""
        self._answers = answers
        self._forms = forms
        self._throttle = throttle

    async def keep(self, sent: SentForm) -> WayBack | None:
        """Keep *sent*; None if it is not fit to be sent again as it was, or too many are kept.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        pairs = _pairs(sent.content)
        if not pairs:
            return None
        if self._throttle and await self._throttle.take_form(sent.client_address) > 0:
            return None
        binding = secrets.token_urlsafe(32)
        await self._forms.keep(binding, KeptForm(sent.target, pairs, sent.subject))
        name = _id_of(binding)
        cookie = ("Set-Cookie", self._cookie(name, binding, FORM_SECONDS))
        return WayBack(f"{FORM_PATH}?id={name}", (*self._given_up(sent.cookies), cookie))

    async def show(self, visit: Visit) -> LoginAnswer:
        """Answer GET: what will be sent, where, and the buttons.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        identity = visit.identity
        name = visit.request.query.get("id", "")
        if identity is None or not identity.session_digest:
            return self._send_to_sign_in(visit, name)
        found = await self._find(visit, name)
        if found is None:
            return self._refuse(visit, _GONE)
        binding, form = found
        if not form.subject:
            await self._forms.claim(binding, form, identity.subject)
        path, _, query = form.target.partition("?")
        values: dict[str, object] = {
            "action": FORM_PATH,
            "form_id": name,
            # Absolute: whatever the path is, it stays on this origin.
            "send_to": f"{visit.origin}{form.target}",
            "path": path,
            "has_query": bool(query),
            "sent_fields": [_shown(*pair) for pair in form.pairs],
        }
        return self._answers.page(visit, "kept_form", values)

    async def discard(self, visit: Visit) -> LoginAnswer:
        """Answer POST: forget the form.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        if not visit.may_change_sessions:
            return self._refuse(visit, _FOREIGN)
        name = visit.request.form.get("id", "")
        found = await self._find(visit, name) if visit.identity else None
        if found is None:
            return self._refuse(visit, _GONE)
        await self._forms.discard(found[0])
        return self._answers.redirect("/", fields=(("Set-Cookie", self._cookie(name, "", 0)),))

    async def _find(self, visit: Visit, name: str) -> tuple[str, KeptForm] | None:
        """Return the form *name* of this browser, with its cookie, if it is the caller's."""
        assert visit.identity is not None
        binding = visit.request.cookies.get(f"{self._prefix}{name}", "")
        form = await self._forms.find(binding)
        if form is None or form.subject not in ("", visit.identity.subject):
            return None
        return binding, form

    def _send_to_sign_in(self, visit: Visit, name: str) -> LoginAnswer:
        if visit.prefers(unless_told="json") == "json":
            return self._answers.problem(_NOT_SIGNED_IN, fields=(self._answers.challenge,))
        path = f"{FORM_PATH}?id={name}" if _ID.fullmatch(name) else "/"
        return self._answers.to_sign_in(origin=visit.origin, path=path)

    def _refuse(self, visit: Visit, problem: Problem) -> LoginAnswer:
        if visit.prefers(unless_told="page") == "json":
            return self._answers.problem(problem)
        return self._answers.error_page(visit, problem)

    def _given_up(self, cookies: Mapping[str, str]) -> Fields:
        names = [
            name.removeprefix(self._prefix)
            for name in cookies
            if name.startswith(self._prefix) and _ID.fullmatch(name.removeprefix(self._prefix))
        ]
        # Browsers send the oldest first (RFC 6265 section 5.4).
        oldest = names[: max(0, len(names) + 1 - _MOST_AT_ONCE)]
        return tuple(("Set-Cookie", self._cookie(name, "", 0)) for name in oldest)

    def _cookie(self, name: str, value: str, max_age: int) -> str:
        # Lax: the way back from a provider begins on its site.
        attributes = f"; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{self._secure}"
        return f"{self._prefix}{name}={value}{attributes}"


def _pairs(content: bytes) -> tuple[tuple[str, str], ...]:
    """Return the fields of the form *content*; empty if a page could not send them as they were.

    Pages of ours are UTF-8 (WHATWG URL, `application/x-www-form-urlencoded`).
    """
    try:
        found = parse_qsl(
            content.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        return ()
    if any(_UNFIT.search(text) for pair in found for text in pair):
        return ()
    return tuple(found)


def _shown(name: str, value: str) -> _Field:
    if _SECRET.search(name):
        return _Field(name, value, "")
    text = " ".join(value.split())
    short = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    return _Field(name, value, short or "\N{EN DASH}")


def _id_of(binding: str) -> str:
    return digest(binding)[:12]
