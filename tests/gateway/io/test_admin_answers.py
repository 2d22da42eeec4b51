import json
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from auth.ports import AuthUnavailable
from gateway.io.admin_answers import answer_errors, json_answer


async def answer_to(error: Exception | None) -> web.Response:
    async def handler(_: web.Request) -> web.StreamResponse:
        if error is not None:
            raise error
        return json_answer({"fine": True})

    answer = await answer_errors(make_mocked_request("GET", "/api/x"), handler)
    assert isinstance(answer, web.Response)
    return answer


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (web.HTTPNotFound(), 404),
        (web.HTTPBadRequest(text="say which"), 400),
        (AuthUnavailable("redis://:secret@host is out", retry_after=3), 503),
        (RuntimeError("secret"), 500),
    ],
)
async def test_an_error_is_a_problem_document_without_secrets(
    error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "gateway.io.admin_answers")
    answer = await answer_to(error)
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["status"] == status
    assert b"secret" not in answer.body
    assert answer.headers.get("Retry-After", "3") == "3"


async def test_no_answer_may_be_cached_framed_or_sniffed() -> None:
    answer = await answer_to(None)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
