"""What is kept of a provider's tokens, and who can open it."""

import pytest

from auth.login.provider_tokens import KeptTokens, kept_tokens, open_tokens, seal_tokens
from auth.sealing import seal


def kept(**changes: str) -> KeptTokens:
    texts = {"id_token": "i", "access_token": "a", "refresh_token": "r"} | changes
    return kept_tokens("corp", is_signed=True, lifetime=400, now=1000, **texts)


def test_new_tokens_are_due_a_quarter_of_their_life_ahead_of_the_end() -> None:
    assert (kept().refresh_at, kept().expires_at) == (1300, 1400)


def test_without_a_refresh_token_nothing_is_ever_due() -> None:
    assert (kept(refresh_token="").refresh_at, kept().provider) == (0, "corp")


def test_only_the_cookie_opens_them() -> None:
    sealed = seal_tokens("cookie", kept())
    assert open_tokens("cookie", sealed) == kept()
    assert open_tokens("another", sealed) is None
    assert open_tokens("cookie", None) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}"])
def test_what_nobody_can_read_is_nothing(content: bytes) -> None:
    assert open_tokens("cookie", seal("cookie", content, purpose="provider tokens")) is None


def test_they_do_not_show_themselves() -> None:
    shown = repr(kept(access_token="secret-1", refresh_token="secret-2", id_token="secret-3"))
    assert "secret" not in shown
