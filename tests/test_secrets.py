"""What holds a secret does not show it: not in `repr`, not in an f-string, not in an error."""

import hmac
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from auth.authentication import Credentials, find_credentials
from auth.identity import ABSENT
from auth.io.address import parse_store_url
from auth.keys import KeyRing, signing_key
from auth.login.messages import LoginAnswer, LoginRequest
from auth.login.provenance import FormTokens
from auth.login.totp import code_of, current_step, matching_step
from config.model import Address, Admin, Limits, Provider, Secret, Store
from gateway.admin_access import AdminRequest, refusal_of
from gateway.answer import Answer
from gateway.reading import read_request_head

CANARY = "canary-7f3a9e"
KEY = signing_key(ec.generate_private_key(ec.SECP256R1()), created_at=0.0, active_at=0.0)


def credentials() -> Credentials:
    found = find_credentials(
        (f"doorward={CANARY}",), (f"Bearer {CANARY}",), "doorward", issuers_configured=True
    )
    assert isinstance(found, Credentials)
    return found


HOLDERS = {
    "a secret": Secret(CANARY),
    "a store": Store(Secret(f"redis://:{CANARY}@host")),
    "an admin": Admin(Address("127.0.0.1", 1), Secret(CANARY)),
    "a provider": Provider("a", "a", "https://a", "c", Secret(CANARY)),
    "an address": parse_store_url(f"redis://user:{CANARY}@host:6379/0"),
    "credentials": credentials(),
    "a request": read_request_head(
        f"GET /?code={CANARY} HTTP/1.1\r\nHost: a\r\nCookie: a={CANARY}\r\n\r\n".encode(),
        scheme="http",
        limits=Limits(),
    ),
    "an answer": Answer(200, (("Set-Cookie", f"a={CANARY}"),), CANARY.encode()),
    "a sign-in": LoginRequest(
        "POST",
        "/.doorward/login",
        {"code": CANARY},
        {"password": CANARY},
        {"a": CANARY},
        {"cookie": CANARY},
        "127.0.0.1",
        ABSENT,
    ),
    "the answer to a sign-in": LoginAnswer(303, (("Set-Cookie", f"a={CANARY}"),)),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS.keys())
def test_what_holds_a_secret_does_not_show_it(holder: object) -> None:
    for shown in (repr(holder), str(holder), f"{holder!r}", f"{[holder]}", f"{holder}"):
        assert CANARY not in shown


def test_a_key_does_not_show_its_number() -> None:
    secret = str(KEY.private_key.private_numbers().private_value)
    for shown in (repr(KEY), repr(KeyRing((KEY,))), f"{KEY}"):
        assert secret not in shown
        assert "PRIVATE" not in shown


ADMIN = Admin(Address("127.0.0.1", 1), Secret(CANARY))
ADMIN_REQUEST = AdminRequest("GET", "/api/status", "127.0.0.1:1", f"Bearer {CANARY}")
NONCE = FormTokens(b"s" * 32).new_nonce()
COMPARISONS: dict[str, Callable[[], bool]] = {
    "the admin token": lambda: refusal_of(ADMIN_REQUEST, ADMIN) is None,
    "a form's token": lambda: FormTokens(b"s" * 32).is_token(
        FormTokens(b"s" * 32).token(NONCE, ""), NONCE, ""
    ),
    "a code of an app": lambda: (
        matching_step(b"s" * 20, code_of(b"s" * 20, current_step(1e9)), 1e9) is not None
    ),
}


@pytest.mark.parametrize("what", COMPARISONS)
def test_a_secret_is_compared_in_constant_time_and_by_nothing_else(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The right one is taken, and is not when `hmac.compare_digest` alone says that it differs."""
    assert COMPARISONS[what]()
    monkeypatch.setattr(hmac, "compare_digest", lambda *_: False)
    assert not COMPARISONS[what]()
