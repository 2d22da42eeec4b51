"""Only the cookie of a session opens what was sealed for it."""

import pytest

from auth.sealing import seal, unseal
from auth.session import digest, new_cookie_value

COOKIE = new_cookie_value()


def test_the_cookie_opens_what_was_sealed() -> None:
    sealed = seal(COOKIE, b"content", purpose="tests")
    assert b"content" not in sealed
    assert unseal(COOKIE, sealed, purpose="tests") == b"content"


@pytest.mark.parametrize(
    "cookie",
    [digest(COOKIE), COOKIE[:-1], "", "\udcff"],
    ids=["its digest", "one byte less", "nothing", "no text"],
)
def test_nothing_else_opens_it(cookie: str) -> None:
    assert unseal(cookie, seal(COOKIE, b"content", purpose="tests"), purpose="tests") is None


def test_it_is_good_for_one_purpose() -> None:
    assert unseal(COOKIE, seal(COOKIE, b"content", purpose="tests"), purpose="others") is None


@pytest.mark.parametrize("position", [0, 11, 12, -1])
def test_a_changed_byte_is_noticed(position: int) -> None:
    sealed = bytearray(seal(COOKIE, b"content", purpose="tests"))
    sealed[position] ^= 1
    assert unseal(COOKIE, bytes(sealed), purpose="tests") is None


@pytest.mark.parametrize("sealed", [b"", b"short", bytes(12), bytes(28)])
def test_what_was_never_sealed_is_not_opened(sealed: bytes) -> None:
    assert unseal(COOKIE, sealed, purpose="tests") is None


def test_the_same_content_never_looks_the_same() -> None:
    assert seal(COOKIE, b"content", purpose="t") != seal(COOKIE, b"content", purpose="t")
