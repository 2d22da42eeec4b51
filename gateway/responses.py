"""The answers the gateway gives itself: the one place with the status codes of refusals.

Every one carries `X-Doorward-Error: CODE`, is never stored by a cache, tells a program what is
wrong as `application/problem+json` (RFC 9457) and a person as a small page, and names the request
id that finds it in the access log. What a caller did wrong with a credential is in the log only.
"""

from http import HTTPStatus
from urllib.parse import quote

import msgspec

from auth.decision import AGAIN, Allow, Challenge, Deny, Reason, StepUp
from auth.login.answers import Link
from auth.login.messages import WayBack
from auth.origins import Origins
from auth.return_url import MAX_LENGTH, written_out
from auth.wording import ENGLISH, Values, Wording, phrase
from config.model import AccessRule, Login, Route
from gateway.answer import Answer
from gateway.authority import read_authority
from gateway.bad_request import BadRequest
from gateway.forwarded import Client
from gateway.head import RequestHead
from gateway.navigation import is_navigation, wants_page
from gateway.outcome import Outcome, Unavailable
from gateway.page import PLAIN, Page, RefusalPages
from gateway.routing import OWN_PREFIX, EncodedSlash, MethodNotAllowed, NoRoute

UNAUTHENTICATED = "unauthenticated"
INSUFFICIENT = "insufficient_user_authentication"
"""Signed in, and not as the route asks (RFC 9470 section 3)."""
FORBIDDEN = "forbidden"
REALM = "doorward"


class Words(msgspec.Struct, frozen=True):
    """What an error is called, for programs (status, title, detail) and for people (heading)."""

    status: int
    title: str
    heading: str
    detail: str
    values: Values = {}
    """For the detail. Heading and detail are for the catalogues (`auth.wording`)."""
    is_technical: bool = False
    """Whether the detail is in no catalogue: about HTTP, for whoever writes programs."""


# RFC 9110 15.5 and 15.6. Which of the two sides failed is the difference between 500, which is us,
# and 502 or 504, which are about the upstream.
_ERRORS: dict[str, Words] = {
    Reason.BAD_REQUEST: Words(
        400, "Bad Request", "That request makes no sense", "The request is malformed."
    ),
    UNAUTHENTICATED: Words(
        401, "Unauthorized", "Please sign in", "This address is for people who are signed in."
    ),
    INSUFFICIENT: Words(
        401,
        "Unauthorized",
        "Please prove once more who you are",
        "This address asks for a stronger or a more recent sign-in than yours.",
    ),
    FORBIDDEN: Words(403, "Forbidden", "You may not see this", "You have no access to this."),
    Reason.NO_ROUTE: Words(
        404,
        "Not Found",
        "There is nothing here",
        "Nothing has this address. It may have moved, or there is a slip in it.",
    ),
    Reason.METHOD_NOT_ALLOWED: Words(
        405,
        "Method Not Allowed",
        "That cannot be done here",
        "This address does not take that method.",
    ),
    Reason.INTERNAL: Words(
        500, "Internal Server Error", "Something went wrong", "The gateway made a mistake."
    ),
    Reason.UPSTREAM_UNREACHABLE: Words(
        502,
        "Bad Gateway",
        "The service cannot be reached",
        "The service did not take the connection.",
    ),
    Reason.UPSTREAM_PROTOCOL: Words(
        502,
        "Bad Gateway",
        "The service gave no proper answer",
        "The service's answer is malformed.",
    ),
    Reason.UPSTREAM_TRUNCATED: Words(
        502, "Bad Gateway", "The service broke off", "The service closed before it had answered."
    ),
    Reason.STORE_UNAVAILABLE: Words(
        503,
        "Service Unavailable",
        "We cannot check your sign-in right now",
        "The session store does not answer. You have not been signed out: please try again.",
    ),
    Reason.KEYS_UNAVAILABLE: Words(
        503,
        "Service Unavailable",
        "We cannot check your sign-in right now",
        "The keys of the token's issuer cannot be had at the moment: please try again.",
    ),
    Reason.PROVIDER_UNAVAILABLE: Words(
        503,
        "Service Unavailable",
        "Your sign-in provider does not answer",
        "This page needs something from where you signed in. Please try again in a moment.",
    ),
    Reason.OVERLOADED: Words(
        503, "Service Unavailable", "Too busy at the moment", "Please try again in a moment."
    ),
    Reason.DRAINING: Words(
        503,
        "Service Unavailable",
        "Back in a moment",
        "The gateway is restarting: please try again.",
    ),
    Reason.UPSTREAM_TIMEOUT: Words(
        504, "Gateway Timeout", "The service took too long", "The service did not answer in time."
    ),
}

_NO_RULE = phrase("A rule for this address does not let you in.")
_MISSING: dict[Reason, str] = {
    Reason.GROUP_MISSING: phrase(
        "This is for the members of certain groups, and you are in none of them."
    ),
    Reason.TENANT_MISMATCH: phrase("This belongs to an organisation that is not yours."),
    Reason.CONDITION_FALSE: _NO_RULE,
    Reason.CONDITION_FAILED: _NO_RULE,
}

_START = Link("/", phrase("Start page"))
_KEPT = Words(
    401,
    "Unauthorized",
    "Please sign in again",
    "What you sent did not arrive, because your sign-in is over. It is kept for 15 minutes: when "
    "you have signed in, you see it, and decide whether it is sent.",
)
_STEP_UP = frozenset((Reason.ACR_MISSING, Reason.AUTH_TIME_TOO_OLD))

# Names that RFC 9110 has changed and the standard library of Python 3.11 has not.
_TITLES = {413: "Content Too Large", 414: "URI Too Long"}


def answer_outcome(  # noqa: PLR0913 - everything a redirect is made of
    outcome: Outcome,
    head: RequestHead,
    *,
    login: Login,
    origins: Origins,
    request_id: str,
    client: Client | None = None,
    pages: RefusalPages = PLAIN,
    kept: WayBack | None = None,
) -> Answer:
    """Return the answer to a request that may not go on.

    *client* is what trusted proxies say about who asked, and for which authority. *pages* are the
    site's own. *kept* says where its form waits for its sender to sign in.

    Raises:
        TypeError: the verdict is an `Allow`; it is for `gateway.forwarding`.
    """
    verdict = outcome.verdict
    if isinstance(verdict, Challenge):
        assert outcome.matched is not None
        return _answer_challenge(
            verdict,
            outcome.matched.route.route,
            head,
            login=login,
            origins=origins,
            request_id=request_id,
            client=client,
            pages=pages,
            kept=kept,
        )
    if isinstance(verdict, Deny):
        assert outcome.matched is not None
        rule = outcome.matched.route.policy.rule
        return answer_forbidden(verdict.reason, rule, head=head, request_id=request_id, pages=pages)
    if isinstance(verdict, Unavailable):
        return answer_error(
            verdict.reason,
            head=head,
            request_id=request_id,
            retry_after=verdict.retry_after,
            pages=pages,
        )
    if isinstance(verdict, MethodNotAllowed):
        allow = ("Allow", ", ".join(verdict.allowed))
        return _answer(Reason.METHOD_NOT_ALLOWED, head, request_id, pages, fields=(allow,))
    if isinstance(verdict, NoRoute):
        return _answer(Reason.NO_ROUTE, head, request_id, pages)
    if isinstance(verdict, EncodedSlash):
        refused = BadRequest(400, "The path has an encoded slash, which this route does not take.")
        return answer_bad_request(refused, head=head, request_id=request_id, pages=pages)
    assert isinstance(verdict, Allow)
    raise TypeError("an allowed request is forwarded, not answered")


def answer_error(  # noqa: PLR0913 - the parts of an answer
    reason: Reason,
    *,
    request_id: str,
    head: RequestHead | None = None,
    retry_after: int = 1,
    close: bool = False,
    pages: RefusalPages = PLAIN,
) -> Answer:
    """Return the answer to something that failed: the store, an upstream, the gateway itself.

    *head* is None when it could not be read. *retry_after* (seconds) goes with 503 only.
    """
    fields: tuple[tuple[str, str], ...] = ()
    if _ERRORS[reason].status == 503:
        fields = (("Retry-After", str(max(1, retry_after))),)
    return _answer(reason, head, request_id, pages, fields=fields, close=close)


def answer_bad_request(
    refused: BadRequest,
    *,
    request_id: str,
    head: RequestHead | None = None,
    pages: RefusalPages = PLAIN,
) -> Answer:
    """Return the answer to a request that breaks the rules of HTTP or ours.

    Nothing in it is the client's words. The connection closes: after a request that was not
    understood, nobody can say where the next one begins.
    """
    status = refused.status
    title = _TITLES.get(status) or HTTPStatus(status).phrase
    words = Words(status, title, _ERRORS[Reason.BAD_REQUEST].heading, "%(detail)s")
    words = msgspec.structs.replace(words, values={"detail": refused.detail}, is_technical=True)
    return _answer(
        Reason.BAD_REQUEST, head, request_id, pages, words=words, fields=refused.fields, close=True
    )


def answer_unauthenticated(
    *,
    login: Login,
    head: RequestHead,
    request_id: str,
    challenge: Challenge | None = None,
    pages: RefusalPages | None = PLAIN,
) -> Answer:
    """Return 401 with the ways to authenticate (RFC 9110 11.6.1), and never which check failed.

    *challenge* says why, and what the sign-in must come to (RFC 9470). Without *pages* it is a
    problem for programs, whatever *head* accepts.
    """
    step_up = challenge.step_up if challenge else None
    reason = challenge.reason if challenge else Reason.NO_CREDENTIAL
    code, error = UNAUTHENTICATED, ""
    if reason.startswith("token_"):  # there was a bearer token, and it was no good (RFC 6750 3.1)
        error = ', error="invalid_token"'
    elif reason in _STEP_UP:
        code, error = INSUFFICIENT, f', error="{INSUFFICIENT}"'
    asked = step_up.parameters if step_up else {}
    error += "".join(f', {name}="{value}"' for name, value in asked.items())
    url = _login_url(login, asked)
    fields = (
        ("WWW-Authenticate", f'Bearer realm="{REALM}"{error}'),
        ("WWW-Authenticate", f'Cookie realm="{REALM}", form-action="{url}"'),
    )
    link = Link(url, phrase("Sign in"))
    more = {"login_url": url, **asked}
    shown_to = head if pages else None
    return _answer(
        code, shown_to, request_id, pages or PLAIN, fields=fields, more=more, links=(link,)
    )


def answer_forbidden(
    reason: Reason,
    rule: AccessRule,
    *,
    head: RequestHead,
    request_id: str,
    pages: RefusalPages = PLAIN,
) -> Answer:
    """Return 403, saying what is asked for as far as that is no secret; never a redirect."""
    wording = pages.wording_for(head) if wants_page(head) else ENGLISH
    detail, values = _what_is_missing(reason, rule, wording)
    words = msgspec.structs.replace(_ERRORS[FORBIDDEN], detail=detail, values=values)
    links = (
        _START,
        Link(f"{OWN_PREFIX}/logout", phrase("Sign out and use another account")),
    )
    more = {"reason": str(reason)}
    return _answer(FORBIDDEN, head, request_id, pages, words=words, more=more, links=links)


def asked_origin(head: RequestHead, *, origins: Origins, client: Client | None) -> str:
    """Return the origin of ours that *head* asks for; empty if it is none of ours.

    *client* is what trusted proxies say about who asked, and for which authority.
    """
    host, authority = _asked_host(head, client)
    return origins.of_request(host, authority) if origins.is_own(host) else ""


def _asked_host(head: RequestHead, client: Client | None) -> tuple[str, str]:
    """Return the host that the client asked for, and the authority."""
    if client is not None and client.host != head.authority:  # a trusted proxy's word
        return read_authority(client.host, client.scheme).host, client.host
    return head.host, head.authority


def _sign_in_location(  # noqa: PLR0913 - everything a redirect is made of
    head: RequestHead,
    *,
    login: Login,
    origins: Origins,
    client: Client | None,
    step_up: StepUp | None,
    route: Route,
    kept: WayBack | None,
    again: bool,
) -> str:
    """Return where people sign in, with the way back to this very request.

    *step_up* goes along as `acr_values` and `max_age` (OpenID Connect Core 3.1.2.1), and what
    *route* says of where and how to sign in for it as `provider` and `prompt`. With *kept* the way
    back is to the form that came with the request. *again*: also who has a session must sign in; a
    site whose people sign in elsewhere says so there.
    """
    host, authority = _asked_host(head, client)
    origin = origins.of_request(host, authority)
    # On a host that is not ours a cookie would be of no use: sign in where people shall return to.
    base = "" if origins.is_own(host) or not login.url.startswith("/") else origin
    back = f"{origin}{kept.path if kept else written_out(head.target.text)}"
    if len(back) > MAX_LENGTH:  # would not be honoured: come back to the page without its query
        back = f"{origin}{head.target.path}"
    asked = {login.return_parameter: back, **(step_up.parameters if step_up else {})}
    if route.providers:
        asked["provider"] = ",".join(route.providers)
    if route.prompt:
        asked["prompt"] = route.prompt
    if again and origin in origins.sites:
        asked[AGAIN] = "1"
    return f"{base}{_login_url(login, asked)}"


def _answer_challenge(  # noqa: PLR0913 - everything a redirect is made of
    verdict: Challenge,
    route: Route,
    head: RequestHead,
    *,
    login: Login,
    origins: Origins,
    request_id: str,
    client: Client | None,
    pages: RefusalPages,
    kept: WayBack | None,
) -> Answer:
    # A bearer token that was too weak stays so, however its sender signs in elsewhere.
    by_token = verdict.reason in _STEP_UP and "authorization" in head.by_name
    redirects = not by_token and (
        route.unauthenticated == "redirect"
        or (route.unauthenticated == "auto" and kept is None and is_navigation(head))
    )
    if not redirects and kept is None:
        return answer_unauthenticated(
            login=login, head=head, request_id=request_id, challenge=verdict, pages=None
        )
    location = _sign_in_location(
        head,
        login=login,
        origins=origins,
        client=client,
        step_up=verdict.step_up,
        route=route,
        kept=kept,
        again=verdict.reason is Reason.ACCESS_TOKEN_GONE,
    )
    if not redirects:
        assert kept is not None
        return _answer_kept(verdict, kept, location, head, request_id, pages)
    # RFC 9110 15.4.4: after a POST only 303 says that the page is to be fetched with GET.
    status = 302 if head.method in ("GET", "HEAD") else 303
    cookies = kept.fields if kept else ()
    fields = (("Location", location), *cookies, *_fixed_fields(UNAUTHENTICATED))
    return Answer(status, fields, b"", UNAUTHENTICATED)


def _answer_kept(  # noqa: PLR0913, PLR0917 - the parts of an answer
    verdict: Challenge,
    kept: WayBack,
    location: str,
    head: RequestHead,
    request_id: str,
    pages: RefusalPages,
) -> Answer:
    """Return 401 with a page that says where the form is: it has not been sent on."""
    code = INSUFFICIENT if verdict.reason in _STEP_UP else UNAUTHENTICATED
    fields = (
        ("WWW-Authenticate", f'Bearer realm="{REALM}"'),
        ("WWW-Authenticate", f'Cookie realm="{REALM}", form-action="{location}"'),
        *kept.fields,
    )
    links = (Link(location, phrase("Sign in")), _START)
    return _answer(code, head, request_id, pages, words=_KEPT, fields=fields, links=links)


def _login_url(login: Login, asked: dict[str, str]) -> str:
    """Return where people sign in, with *asked* in the query."""
    if not asked:
        return login.url
    joint = "&" if "?" in login.url else "?"
    return (
        login.url + joint + "&".join(f"{key}={quote(text, safe='')}" for key, text in asked.items())
    )


def _what_is_missing(reason: Reason, rule: AccessRule, wording: Wording) -> tuple[str, Values]:
    """Say it in a sentence. Names of roles and scopes are no secret; groups and tenants may be."""
    if reason == Reason.ROLE_MISSING:
        roles = wording.listed(sorted(rule.roles), "or")
        text = phrase("This is for people with the role %(roles)s, which you do not have.")
        return text, {"roles": roles}
    if reason == Reason.SCOPE_MISSING:
        scopes = wording.listed(sorted(rule.scopes), "standard")
        text = phrase("This needs the permission %(scopes)s, and your sign-in lacks it.")
        return text, {"scopes": scopes}
    return _MISSING.get(reason, _ERRORS[FORBIDDEN].detail), {}


def _answer(  # noqa: PLR0913 - every part of an answer has a name here
    code: str,
    head: RequestHead | None,
    request_id: str,
    pages: RefusalPages,
    *,
    words: Words | None = None,
    fields: tuple[tuple[str, str], ...] = (),
    more: dict[str, str] | None = None,
    links: tuple[Link, ...] = (_START,),
    close: bool = False,
) -> Answer:
    words = words or _ERRORS[code]
    kind: tuple[tuple[str, str], ...]
    if head is not None and wants_page(head):
        wording = pages.wording_for(head)
        page = Page(
            words.status,
            wording.say(words.heading),
            wording.say(words.detail, **words.values),
            tuple(Link(link.url, wording.say(link.text)) for link in links),
            request_id,
            detail_language=ENGLISH.language if words.is_technical else "",
            asked=head.authority,
        )
        body, kind = pages.render(page, wording)
    else:
        problem = {
            "type": "about:blank",
            "title": words.title,
            "status": words.status,
            "detail": ENGLISH.say(words.detail, **words.values),
            "code": code,
            **(more or {}),
            "request_id": request_id,
        }
        body = msgspec.json.encode(problem)
        kind = (
            ("Content-Type", "application/problem+json"),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
        )
    return Answer(words.status, (*kind, *fields, *_fixed_fields(code)), body, code, close)


def _fixed_fields(code: str) -> tuple[tuple[str, str], ...]:
    return (
        ("X-Doorward-Error", code),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        # Not `no-referrer`: a form would then say `Origin: null`, which the sign-out must refuse.
        ("Referrer-Policy", "same-origin"),
    )
