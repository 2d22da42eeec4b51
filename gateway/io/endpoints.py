"""The gateway's own addresses under `/.doorward/`, each exact.

How this works: one table of path to handler; anything else below the prefix is 404, so that no
side door opens by a prefix (oauth2-proxy CVE-2026-34457). The pages of the login service are
handed to it as plain values; its answers are written like all others.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from time import time
from typing import NoReturn
from urllib.parse import parse_qsl

import msgspec
from aiohttp import StreamReader

from auth.authentication import find_credentials
from auth.cookies import session_cookie
from auth.decision import Allow, Challenge, Deny, Reason
from auth.identity import Authenticated, Caller, Identity, Rejected
from auth.login.answers import (
    ACCOUNT_PATHS,
    AUTHORIZE_PATH,
    CONFIRM_PATH,
    FORGOT_PATH,
    FORM_PATH,
    REGISTER_PATH,
    SET_PASSWORD_PATH,
)
from auth.login.messages import LoginRequest
from auth.login.provider import CALLBACK_PATH
from auth.login.service import BACK_CHANNEL_PATH, FRONT_CHANNEL_PATH
from auth.ports import AccessTokenGone
from config.model import AccessRule
from gateway.answer import Answer
from gateway.authority import read_authority
from gateway.bad_request import BadRequest
from gateway.forward_auth import original_request
from gateway.forwarding import token_value
from gateway.head import Fields, RequestHead
from gateway.io.answering import CONTINUE
from gateway.io.exchange import Exchange
from gateway.kept_forms import FORM_LIMIT, FORM_TYPE
from gateway.outcome import Outcome, Unavailable, Verdict, Waiting
from gateway.pipeline import decide, decide_at_once
from gateway.responses import answer_forbidden, answer_outcome, answer_unauthenticated
from gateway.routing import NO_ROUTE, OWN_PREFIX, MethodNotAllowed

_MOST_FORM_FIELDS = 32

AUTH = f"{OWN_PREFIX}/auth"
ENDS_SESSIONS = frozenset(
    f"{OWN_PREFIX}/{name}"
    for name in ("logout", "sessions", "backchannel-logout", "frontchannel-logout")
)
"""What must work when nothing else is let in any more."""
_NOBODY = AccessRule(level="signed-in")
_PERSONAL = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)
_JSON = ("Content-Type", "application/json")

_Handler = Callable[[Exchange, StreamReader], Awaitable[Answer]]


class Endpoints:
    """Answers requests below `/.doorward`."""

    def __init__(self) -> None:
        self._handlers: Mapping[str, _Handler] = {
            AUTH: self._auth,
            f"{OWN_PREFIX}/me": self._me,
            f"{OWN_PREFIX}/jwks.json": self._jwks,
            f"{OWN_PREFIX}/login": self._login,
            f"{OWN_PREFIX}/logout": self._login,
            f"{OWN_PREFIX}/sessions": self._login,
            **dict.fromkeys(
                (FORGOT_PATH, SET_PASSWORD_PATH, REGISTER_PATH, CONFIRM_PATH), self._login
            ),
            **dict.fromkeys(ACCOUNT_PATHS, self._login),
            AUTHORIZE_PATH: self._login,
            CALLBACK_PATH: self._login,
            BACK_CHANNEL_PATH: self._login,
            FORM_PATH: self._login,
            FRONT_CHANNEL_PATH: self._login,
        }

    def answer_at_once(self, exchange: Exchange) -> Answer | None:
        """Return the answer if it can be had without waiting.

        That is the forward-auth decision about a caller who is known: it stands before every
        request of another proxy.

        Raises:
            BadRequest, AuthUnavailable: as `answer` does.
        """
        if exchange.head.target.path != AUTH:
            return None
        asked = _asked(exchange)
        state = exchange.generation.state
        step = decide_at_once(state.snapshot, asked, state.authenticator, exchange.event.started_at)
        if isinstance(step, Waiting) or _wants_access_token(step):
            return None
        return _auth_answer(exchange, asked, step)

    async def answer(self, exchange: Exchange, content: StreamReader) -> Answer:
        """Return the answer to *exchange*.

        Raises:
            BadRequest: what came makes no sense; AuthUnavailable: the store cannot be asked.
        """
        path = exchange.head.target.path
        handler = self._handlers.get(path)
        if handler is None and path.startswith(f"{CALLBACK_PATH}/"):
            handler = self._login  # which knows the providers, and answers 404 for any other
        if handler is None:
            return _outcome(exchange, NO_ROUTE)
        return await handler(exchange, content)

    async def _auth(self, exchange: Exchange, _: StreamReader) -> Answer:
        asked = _asked(exchange)
        state = exchange.generation.state
        outcome = await decide(
            state.snapshot, asked, state.authenticator, exchange.event.started_at
        )
        if not _wants_access_token(outcome):
            return _auth_answer(exchange, asked, outcome)
        assert outcome.matched is not None
        try:
            token = await state.login.access_token(session_cookie_of(exchange))
        except AccessTokenGone:
            gone = Challenge(Reason.ACCESS_TOKEN_GONE)
            gone_outcome = Outcome(gone, outcome.generation, outcome.matched)
            return _auth_answer(exchange, asked, gone_outcome)
        name = outcome.matched.route.route.access_token
        more = ((name, token_value(name, token)),) if token else ()
        return _auth_answer(exchange, asked, outcome, more)

    async def _me(self, exchange: Exchange, _: StreamReader) -> Answer:
        if exchange.method not in ("GET", "HEAD"):
            return _outcome(exchange, MethodNotAllowed(("GET", "HEAD")))
        caller = await _find_caller(exchange)
        if not isinstance(caller, Authenticated):
            return answer_unauthenticated(
                login=exchange.generation.snapshot.configuration.login,
                head=exchange.head,
                request_id=exchange.event.request_id,
                challenge=Challenge(Reason(caller.reason))
                if isinstance(caller, Rejected)
                else None,
                pages=exchange.generation.snapshot.pages,
            )
        refresh_if_due(exchange, caller.identity)
        return Answer(200, (_JSON, *_PERSONAL), msgspec.json.encode(_portrait(caller.identity)))

    async def _jwks(self, exchange: Exchange, _: StreamReader) -> Answer:
        if exchange.method not in ("GET", "HEAD"):
            return _outcome(exchange, MethodNotAllowed(("GET", "HEAD")))
        document = exchange.generation.state.signer.jwks(time())
        fields = (
            ("Content-Type", "application/jwk-set+json"),
            ("Cache-Control", "public, max-age=60"),
            ("X-Content-Type-Options", "nosniff"),
        )
        return Answer(200, fields, msgspec.json.encode(document))

    async def _login(self, exchange: Exchange, content: StreamReader) -> Answer:
        head, origin = exchange.head, exchange.origin
        assert origin is not None
        form = await _read_form(exchange, content)
        request = LoginRequest(
            method=head.method,
            path=head.target.path,
            query=_pairs(head.target.query),
            form=form,
            cookies=cookies_of(head.by_name.get("cookie", ())),
            fields={name: ", ".join(values) for name, values in head.by_name.items()},
            client_address=origin.address,
            caller=await _find_caller(exchange),
            origin=origin.origin,
            request_id=exchange.event.request_id,
        )
        answer = await exchange.generation.state.login.handle(request)
        return Answer(answer.status, answer.fields, answer.body, answer.error)


# Forward-auth -----------------------------------------------------------------------------------


def _asked(exchange: Exchange) -> RequestHead:
    assert exchange.origin is not None
    head, trusted = exchange.head, exchange.origin.trusted
    allow = exchange.generation.snapshot.table.allows_encoded_slash
    # The same head may come again (`HeadReader`); it then asks about the same request.
    known: tuple[bool, bool, RequestHead] | None = head.__dict__.get("asked")
    if known is not None and known[0] is trusted and known[1] is allow:
        return known[2]
    asked = original_request(head, trusted=trusted, allow_encoded_slash=allow)
    head.__dict__["asked"] = (trusted, allow, asked)
    return asked


def _wants_access_token(outcome: Outcome) -> bool:
    """Tell whether the upstream of *outcome* gets the access token of the caller's session."""
    matched, identity = outcome.matched, outcome.identity
    if matched is None or type(outcome.verdict) is not Allow or identity is None:
        return False
    return bool(matched.route.route.access_token and identity.session_digest)


def _auth_answer(
    exchange: Exchange, asked: RequestHead, outcome: Outcome, more: Fields = ()
) -> Answer:
    """Return 200 with the identity fields and *more*, 401 or 403.

    The asking proxy knows nothing else.
    """
    generation, event = exchange.generation, exchange.event
    verdict = outcome.verdict
    _note(exchange, outcome)
    if type(verdict) is Allow:
        told = _identity_fields(exchange, outcome, verdict.identity)
        return Answer(200, told + more + _PERSONAL)
    if isinstance(verdict, Challenge):
        return answer_unauthenticated(
            login=generation.snapshot.configuration.login,
            head=asked,
            request_id=event.request_id,
            challenge=verdict,
            pages=generation.snapshot.pages,
        )
    if isinstance(verdict, Deny | Unavailable):
        return _outcome(exchange, verdict, outcome)
    return answer_forbidden(
        outcome.reason,
        _NOBODY,
        head=asked,
        request_id=event.request_id,
        pages=generation.snapshot.pages,
    )


def _identity_fields(exchange: Exchange, outcome: Outcome, identity: Identity | None) -> Fields:
    if identity is None:
        return ()
    generation = exchange.generation
    assertion = generation.state.signer.assertion_for(
        identity, outcome.upstream, exchange.event.started_at
    )
    return _fields_of(generation.blocks.block(identity, assertion))


@lru_cache(maxsize=2048)
def _fields_of(block: bytes) -> Fields:
    """Return the fields that *block* holds, one a line; a block is used for many requests."""
    lines = (line.partition(": ") for line in block.decode("ascii").split("\r\n"))
    return tuple((name, value) for name, _, value in lines if name)


def _note(exchange: Exchange, outcome: Outcome) -> None:
    event, identity = exchange.event, outcome.identity
    event.route, event.decision, event.reason = outcome.route, outcome.decision, outcome.reason
    if identity is not None:
        event.subject, event.tenant = identity.subject, identity.tenant
        event.auth = identity.method
        refresh_if_due(exchange, identity)


def refresh_if_due(exchange: Exchange, identity: Identity) -> None:
    """Have the session that *exchange* came with brought up to date, beside it, if that is due."""
    if not 0 < identity.refresh_at <= exchange.event.started_at:
        return
    exchange.generation.state.login.refresh(session_cookie_of(exchange))


def session_cookie_of(exchange: Exchange) -> str:
    """Return the session cookie of *exchange*, whose caller has proven to have one."""
    name = exchange.generation.snapshot.configuration.session.cookie_name
    cookie = session_cookie(exchange.head.by_name.get("cookie", ()), name)
    assert isinstance(cookie, str)
    return cookie


# Parts of requests and answers ------------------------------------------------------------------


def _outcome(exchange: Exchange, verdict: Verdict, outcome: Outcome | None = None) -> Answer:
    snapshot = exchange.generation.snapshot
    outcome = outcome or Outcome(verdict, snapshot.generation)
    exchange.event.reason = outcome.reason
    return answer_outcome(
        outcome,
        exchange.head,
        login=snapshot.configuration.login,
        origins=snapshot.origins,
        request_id=exchange.event.request_id,
        pages=snapshot.pages,
    )


async def _find_caller(exchange: Exchange) -> Caller:
    """Return who asks; notes it for the log."""
    state, fields, event = exchange.generation.state, exchange.head.by_name, exchange.event
    configuration = state.snapshot.configuration
    assert exchange.origin is not None
    asked = read_authority(exchange.origin.host, exchange.origin.scheme)
    credentials = find_credentials(
        fields.get("cookie", ()),
        fields.get("authorization", ()),
        configuration.session.cookie_name,
        issuers_configured=bool(configuration.tokens),
        # As the browser knows it: a proxy in front may ask us for the decision under another name.
        host=asked.host,
    )
    if isinstance(credentials, Rejected):
        caller: Caller = credentials
    else:
        caller = await state.authenticator.authenticate(credentials, event.started_at)
    if isinstance(caller, Authenticated):
        event.subject, event.tenant = caller.identity.subject, caller.identity.tenant
        event.auth = caller.identity.method
    elif isinstance(caller, Rejected):
        event.reason = caller.reason
    else:
        event.reason = Reason.NO_CREDENTIAL
    return caller


def _portrait(identity: Identity) -> dict[str, object]:
    """Return what a caller is told about themselves; nothing that could be used as a credential."""
    return {
        "subject": identity.subject,
        "name": identity.name,
        "tenant": identity.tenant,
        "email": identity.email,
        "roles": identity.roles,
        "groups": identity.groups,
        "scopes": identity.scopes,
        "method": identity.method,
        "issuer": identity.issuer,
        "auth_time": identity.auth_time,
        "amr": identity.amr,
        "acr": identity.acr,
        "expires_at": int(identity.expires_at),
    }


async def _read_form(exchange: Exchange, content: StreamReader) -> Mapping[str, str]:
    """Return the fields of the form that *exchange* brings; empty for any other content."""
    head = exchange.head
    if not head.has_body:
        return {}
    if (head.content_length or 0) > FORM_LIMIT:
        raise BadRequest(413, "The form is too large.")
    if head.field("content-type").partition(";")[0].strip().lower() != FORM_TYPE:
        return {}
    if head.expects_continue and exchange.client.content_unread:
        exchange.client.write(CONTINUE)
    read = await read_form(exchange, content)
    if read is None:
        raise BadRequest(413, "The form is too large.")
    return _pairs(read.decode("latin-1"))


async def read_form(exchange: Exchange, content: StreamReader) -> bytes | None:
    """Return the whole *content* of *exchange*; None if it is too large for a form."""
    read = bytearray()
    while not content.at_eof():
        piece = await content.readany()
        read += piece
        exchange.event.bytes_in += len(piece)
        if len(read) > FORM_LIMIT:
            return None
    return bytes(read)


def _pairs(text: str) -> Mapping[str, str]:
    """Return the names and values of a query or form, of which none may come twice."""
    try:
        found = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FORM_FIELDS
        )
    except ValueError:
        _refuse()
    pairs = dict(found)
    if len(pairs) != len(found):
        _refuse()
    return pairs


def _refuse() -> NoReturn:
    raise BadRequest(400, "The form or the query is malformed, or has a name twice.")


def cookies_of(values: Iterable[str]) -> Mapping[str, str]:
    """Return the cookies by name; one that came twice is left out, nobody can say which is ours."""
    cookies: dict[str, str] = {}
    twice: set[str] = set()
    for pair in ";".join(values).split(";"):
        name, separator, value = pair.strip(" \t").partition("=")
        if separator and name in cookies:
            twice.add(name)
        elif separator:
            cookies[name] = value
    return {name: value for name, value in cookies.items() if name not in twice}
