"""Which forms are kept that met no session: those that a page of this very origin sent.

How this works. What is kept is offered again after the sign-in, as a form of a page of ours; so a
form that another site made must never get there, or it would come to the backend as one of this
site (login CSRF that turns into CSRF). `Origin` must be the origin that was asked, to the letter: a
browser sends it with every POST, and no page can choose it. Where the browser says more (Fetch
Metadata), all of it must agree: a whole page is about to be shown, and not in a frame.
"""

from auth.cookies import session_cookie, sign_in_cookie_prefix
from auth.decision import Challenge
from auth.origins import Origins
from auth.return_url import MAX_LENGTH
from config.model import Configuration
from gateway.forwarded import Client
from gateway.head import RequestHead
from gateway.navigation import wants_page
from gateway.outcome import Outcome
from gateway.responses import asked_origin

FORM_LIMIT = 64 * 1024
"""Bytes of a form that is kept."""
FORM_TYPE = "application/x-www-form-urlencoded"


def may_be_kept(
    head: RequestHead,
    outcome: Outcome,
    *,
    configuration: Configuration,
    origins: Origins,
    client: Client | None,
) -> bool:
    """Return whether *head* brings a form that is to be kept for after the sign-in.

    *client* is what trusted proxies say about who asked, and for which authority.
    """
    if not isinstance(outcome.verdict, Challenge) or outcome.matched is None:
        return False
    route = outcome.matched.route.route
    return (
        configuration.login.keep_forms
        and route.unauthenticated in {"auto", "redirect"}
        and _is_form(head)
        and _is_of_this_origin(head, asked_origin(head, origins=origins, client=client))
        and _has_been_here(head, configuration.session.cookie_name)
    )


def _is_form(head: RequestHead) -> bool:
    """Return whether a browser sends a form in place of a page, and one that we can keep."""
    kind = head.field("content-type").partition(";")[0].strip().lower()
    return (
        head.method == "POST"
        and head.has_body
        and (head.content_length or 0) <= FORM_LIMIT
        and len(head.target.text) <= MAX_LENGTH
        and kind == FORM_TYPE
        and "authorization" not in head.by_name
        and not head.expects_continue
        and wants_page(head)
    )


def _is_of_this_origin(head: RequestHead, origin: str) -> bool:
    return (
        bool(origin)
        and head.field("origin") == origin
        and head.field("sec-fetch-site") in {"", "same-origin"}
        and head.field("sec-fetch-mode") in {"", "navigate"}
        and head.field("sec-fetch-dest") in {"", "document"}
    )


def _has_been_here(head: RequestHead, session_cookie_name: str) -> bool:
    """Return whether somebody has signed in with this browser before.

    A form for strangers needs no keeping, and what anybody may fill the store with is not kept.
    """
    values = head.by_name.get("cookie", ())
    if session_cookie(values, session_cookie_name) is not None:
        return True
    return any(f"{sign_in_cookie_prefix(session_cookie_name)}device=" in each for each in values)
