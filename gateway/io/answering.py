"""An answer of the gateway's own as the bytes that go to the client."""

from functools import lru_cache
from http import HTTPStatus
from time import time
from wsgiref.handlers import format_date_time

from gateway.answer import Answer

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


def http_date() -> str:
    """Return the present time as a Date field has it (RFC 9110 5.6.7)."""
    return _date_of(int(time()))


@lru_cache(maxsize=1)
def _date_of(second: int) -> str:
    return format_date_time(second)


def answer_bytes(answer: Answer, *, method: str, keep: bool) -> tuple[bytes, int]:
    """Return the whole message and how much of it is content.

    For HEAD the content is left out and its length announced (RFC 9110 9.3.2).

    Raises:
        ValueError: a field holds a line break; a bug of ours that must not become a split answer.
    """
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, '')}", f"Date: {http_date()}"]
    lines += [f"{name}: {value}" for name, value in answer.fields]
    if answer.status not in (204, 304):
        lines.append(f"Content-Length: {len(answer.body)}")
    if not keep:
        lines.append("Connection: close")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a field of an answer holds a line break")
    head = text.encode("latin-1") + b"\r\n\r\n"
    if method == "HEAD" or answer.status in (204, 304):
        return head, 0
    return head + answer.body, len(answer.body)
