"""How the admin address answers: JSON, and errors as `application/problem+json` (RFC 9457)."""

import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from auth.ports import AuthUnavailable

_log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def json_answer(value: object, *, status: int = 200) -> web.Response:
    """Return *value* as JSON."""
    return web.Response(
        status=status, body=msgspec.json.encode(value), content_type="application/json"
    )


def problem_answer(status: int, title: str, detail: str, **more: object) -> web.Response:
    """Return an error with *more* members beside those of RFC 9457."""
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return web.Response(
        status=status, body=msgspec.json.encode(problem), content_type="application/problem+json"
    )


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what handlers raise into JSON, and keep every answer out of caches and frames."""
    try:
        answer = await handler(request)
    except web.HTTPException as error:
        answer = problem_answer(error.status, error.reason, error.text or error.reason)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
    except AuthUnavailable as outage:
        answer = problem_answer(503, "Service Unavailable", "The session store does not answer.")
        answer.headers["Retry-After"] = str(outage.retry_after)
    except Exception:  # noqa: BLE001 - whatever it was is logged here
        _log.exception("%s %s failed", request.method, request.path)
        answer = problem_answer(500, "Internal Server Error", "The log has the details.")
    answer.headers.setdefault(
        "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
    )
    answer.headers.update(
        {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Server": "doorward",  # not which version of what answers
        }
    )
    return answer
