"""`/api/sessions`: list, create and end sessions; for operators and for login services."""

import time
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web

from auth.ports import SessionStore, SessionSummary, TooManySessions
from auth.session import MalformedRecord, SessionRecord, digest, encode_record, parse_record
from config.model import SessionSettings
from gateway.io.admin_answers import json_answer

CLOCK_SLACK = 60.0
"""Seconds by which another machine's clock may be ahead."""


class NewSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session record (docs/login.md) as it may be sent here: the times have defaults."""

    subject: str
    v: int = 1
    created_at: float | None = None
    expires_at: float | None = None
    name: str = ""
    tenant: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    email: str = ""
    auth_time: float | None = None
    amr: tuple[str, ...] = ()
    acr: str = ""
    claims: Mapping[str, object] = {}


class UnusableRecordError(ValueError):
    """What was sent is no session that could be created; the message says why."""


_decode = msgspec.json.Decoder(NewSession).decode


def new_record(body: bytes, settings: SessionSettings, now: float) -> SessionRecord:
    """Return the session that *body* asks for; *now* is epoch seconds.

    Raises:
        UnusableRecordError: it is no JSON of this form, or a session that would never be good.
    """
    try:
        wanted = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnusableRecordError(str(error)) from error
    if wanted.v != 1:
        raise UnusableRecordError("`v` must be 1")
    if not wanted.subject.strip():
        raise UnusableRecordError("`subject` must not be empty")
    created_at = now if wanted.created_at is None else wanted.created_at
    latest = created_at + settings.absolute_timeout
    expires_at = latest if wanted.expires_at is None else wanted.expires_at
    if not 0 <= created_at <= now + CLOCK_SLACK:
        raise UnusableRecordError("`created_at` must be in epoch seconds, and not in the future")
    if expires_at <= now:
        raise UnusableRecordError("`expires_at` has passed; it must be in epoch seconds")
    if expires_at > latest + CLOCK_SLACK:
        raise UnusableRecordError(
            "`expires_at` is later than session.absolute_timeout allows "
            f"({settings.absolute_timeout:g} s after `created_at`)"
        )
    record = SessionRecord(
        v=1,
        subject=wanted.subject,
        created_at=created_at,
        expires_at=expires_at,
        name=wanted.name,
        tenant=wanted.tenant,
        roles=wanted.roles,
        groups=wanted.groups,
        scopes=wanted.scopes,
        email=wanted.email,
        auth_time=created_at if wanted.auth_time is None else wanted.auth_time,
        amr=wanted.amr,
        acr=wanted.acr,
        claims=wanted.claims,
    )
    try:
        parse_record(encode_record(record))  # what a gateway will do with it
    except MalformedRecord as error:
        raise UnusableRecordError(str(error)) from error
    return record


def describe_session(summary: SessionSummary) -> dict[str, object]:
    """Return what lists show of a session: its digest, never what could be used as one."""
    described: dict[str, object] = msgspec.to_builtins(summary.record)
    described["sites"] = sorted(summary.record.sites)  # the hosts, not what opens it there
    return {"id": summary.digest, **described, "idle_expires_at": summary.idle_expires_at}


def add_session_routes(
    application: web.Application,
    store: SessionStore,
    settings: Callable[[], SessionSettings],
) -> None:
    """Answer `/api/sessions` in *application* from *store*."""

    async def list_sessions(request: web.Request) -> web.Response:
        ((_, subject),) = _selection(request, "subject")
        summaries = await store.sessions_of(subject)
        return json_answer({"sessions": [describe_session(summary) for summary in summaries]})

    async def end_sessions(request: web.Request) -> web.Response:
        ((by, value),) = _selection(request, "subject", "id")
        if by == "subject":
            ended = await store.end_subject(value, reason="admin")
        else:
            ended = await store.end(value, reason="admin")
        return json_answer(ended)

    async def create_session(request: web.Request) -> web.Response:
        try:
            record = new_record(await request.read(), settings(), time.time())
        except UnusableRecordError as error:
            raise web.HTTPBadRequest(text=f"This is no session record: {error}.") from error
        try:
            value = await store.create(record)
        except TooManySessions as error:
            raise web.HTTPConflict(text=f"No session was made: {error}.") from error
        cookie = {
            "name": settings().cookie_name,
            "value": value,
            "path": "/",
            "http_only": True,
            "secure": settings().secure,
            "same_site": settings().same_site,
        }
        created = {"cookie": cookie, "id": digest(value), "expires_at": record.expires_at}
        return json_answer(created, status=201)

    application.add_routes(
        [
            web.get("/api/sessions", list_sessions),
            web.delete("/api/sessions", end_sessions),
            web.post("/api/sessions", create_session),
        ]
    )


def _selection(request: web.Request, *names: str) -> list[tuple[str, str]]:
    """Return the one query parameter there must be."""
    given = [(name, value) for name, value in request.query.items() if value]
    if len(given) != 1 or given[0][0] not in names:
        wanted = " or ".join(f"?{name}=" for name in names)
        raise web.HTTPBadRequest(text=f"Say which sessions, with exactly one {wanted}.")
    by, value = given[0]
    if by == "id" and not (len(value) == 64 and set(value) <= set("0123456789abcdef")):
        raise web.HTTPBadRequest(
            text="An id is the session's digest, 64 lower-case hex digits, as lists show it."
        )
    return given
