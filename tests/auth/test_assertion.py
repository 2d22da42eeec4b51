import itertools
import json
import time
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from auth.assertion import AssertionSigner
from auth.identity import Identity
from auth.keys import KeyRing, signing_key
from auth.ports import AuthUnavailable
from config.model import Assertion

NOW = 1_800_000_000.4
SETTINGS = Assertion(ttl=60.0, issuer="http://127.0.0.1:8080")
FIRST = signing_key(ec.generate_private_key(ec.SECP256R1()), 0, 0)
SECOND = signing_key(ec.generate_private_key(ec.SECP256R1()), NOW, NOW + 30)
ALICE = Identity(
    subject="alice",
    tenant="acme",
    roles=("editor", "author"),
    scopes=("read",),
    auth_time=1_799_999_000,
    amr=("pwd", "mfa"),
    acr="mfa",
    session_digest="d" * 64,
    expires_at=NOW + 3600,
)


def signer(ring: KeyRing = KeyRing((FIRST,)), capacity: int = 100) -> AssertionSigner:  # noqa: B008 - frozen
    numbers = itertools.count()
    return AssertionSigner(SETTINGS, ring, new_id=lambda: f"id-{next(numbers)}", capacity=capacity)


def verified(assertion: str, signed_by: AssertionSigner, now: float = NOW) -> dict[str, Any]:
    keys = jwt.PyJWKSet.from_dict(signed_by.jwks(now))
    key = keys[jwt.get_unverified_header(assertion)["kid"]]
    decoded: dict[str, Any] = jwt.decode(
        assertion,
        key,
        algorithms=["ES256"],
        options={"verify_exp": False, "verify_aud": False, "verify_iat": False},
    )
    return decoded


def test_an_assertion_says_what_the_contract_says() -> None:
    signing = signer()
    assertion = signing.assertion_for(ALICE, "notes", NOW)
    assert jwt.get_unverified_header(assertion) == {
        "alg": "ES256",
        "kid": FIRST.kid,
        "typ": "JWT",
    }
    assert verified(assertion, signing) == {
        "iss": "http://127.0.0.1:8080",
        "aud": "notes",
        "sub": "alice",
        "iat": int(NOW),
        "exp": int(NOW) + 60,
        "jti": "id-0",
        "tenant": "acme",
        "roles": ["editor", "author"],
        "scopes": ["read"],
        "sid": "d" * 64,
        "amr": ["pwd", "mfa"],
        "acr": "mfa",
        "auth_time": 1_799_999_000,
    }


def test_what_is_not_known_is_not_said() -> None:
    signing = signer()
    bearer = Identity(subject="robot", method="bearer", expires_at=NOW + 100)
    claims = verified(signing.assertion_for(bearer, "notes", NOW), signing)
    assert "sid" not in claims
    assert "auth_time" not in claims
    assert "acr" not in claims
    assert claims["roles"] == []


def test_an_assertion_is_signed_once_and_used_for_half_of_its_life() -> None:
    signing = signer()
    first = signing.assertion_for(ALICE, "notes", NOW)
    assert signing.assertion_for(ALICE, "notes", NOW + 29.9) is first
    assert signing.signatures == 1
    later = signing.assertion_for(ALICE, "notes", NOW + 30)
    assert later != first
    assert signing.signatures == 2


def test_a_clock_that_was_set_back_does_not_keep_an_assertion_of_the_future() -> None:
    signing = signer()
    first = signing.assertion_for(ALICE, "notes", NOW)
    assert signing.assertion_for(ALICE, "notes", NOW - 3600) != first


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(ALICE, session_digest="e" * 64),
        msgspec.structs.replace(ALICE, roles=("editor",)),
        msgspec.structs.replace(ALICE, subject="bob"),
        msgspec.structs.replace(ALICE, session_digest="", subject="bob"),
    ],
)
def test_nobody_gets_the_assertion_of_another_identity(other: Identity) -> None:
    signing = signer()
    mine = signing.assertion_for(ALICE, "notes", NOW)
    theirs = signing.assertion_for(other, "notes", NOW)
    assert mine != theirs
    assert verified(theirs, signing)["sub"] == other.subject
    assert verified(theirs, signing)["roles"] == list(other.roles)


def test_an_equal_identity_read_anew_shares_the_assertion() -> None:
    signing = signer()
    again = msgspec.structs.replace(ALICE)
    assert signing.assertion_for(ALICE, "a", NOW) is signing.assertion_for(again, "a", NOW)


def test_each_upstream_gets_its_own_audience() -> None:
    signing = signer()
    for name in ("notes", "video"):
        assert verified(signing.assertion_for(ALICE, name, NOW), signing)["aud"] == name


def test_an_assertion_does_not_outlive_the_session() -> None:
    signing = signer()
    ending = msgspec.structs.replace(ALICE, expires_at=NOW + 10)
    claims = verified(signing.assertion_for(ending, "notes", NOW), signing)
    assert claims["exp"] <= NOW + 10
    assert signing.assertion_for(ending, "notes", NOW + 4) is signing.assertion_for(
        ending, "notes", NOW
    )
    signing.assertion_for(ending, "notes", NOW + 5)
    assert signing.signatures == 2


def test_the_memory_is_bounded() -> None:
    signing = signer(capacity=2)
    for name in ("a", "b", "c"):
        signing.assertion_for(ALICE, name, NOW)
    signing.assertion_for(ALICE, "c", NOW)
    signing.assertion_for(ALICE, "b", NOW)
    assert signing.signatures == 3
    signing.assertion_for(ALICE, "a", NOW)
    assert signing.signatures == 4


def test_nothing_is_held_of_those_who_are_gone() -> None:
    signing = signer(capacity=1000)
    for number in range(100):
        who = msgspec.structs.replace(ALICE, session_digest=f"{number:064}")
        signing.assertion_for(who, "notes", NOW)
    assert len(signing) == 100
    for number in range(100):
        assert signing.assertion_for(ALICE, f"notes-{number}", NOW + 30)
    assert len(signing) == 100
    # What can still be used is not forgotten with it.
    signing.assertion_for(ALICE, "another", NOW + 59)
    assert len(signing) == 101


def test_without_a_key_nothing_is_signed_and_with_one_it_is() -> None:
    signing = signer(KeyRing())
    with pytest.raises(AuthUnavailable):
        signing.assertion_for(ALICE, "notes", NOW)
    assert signing.jwks(NOW) == {"keys": []}
    signing.use(KeyRing((FIRST,)))
    assert verified(signing.assertion_for(ALICE, "notes", NOW), signing)["sub"] == "alice"


def test_a_rotation_is_published_before_it_signs_and_the_old_key_stays_known() -> None:
    signing = signer()
    before = signing.assertion_for(ALICE, "notes", NOW)
    signing.use(KeyRing((FIRST, SECOND)))
    published = json.dumps(signing.jwks(NOW))
    assert FIRST.kid in published
    assert SECOND.kid in published
    during = signing.assertion_for(ALICE, "video", NOW + 29)
    assert jwt.get_unverified_header(during)["kid"] == FIRST.kid
    after = signing.assertion_for(ALICE, "notes", NOW + 31)
    assert jwt.get_unverified_header(after)["kid"] == SECOND.kid
    for assertion in (before, during, after):
        assert verified(assertion, signing, NOW + 31)["sub"] == "alice"
    assert FIRST.kid not in json.dumps(signing.jwks(NOW + 30 + 3600))


def test_tokens_that_say_the_same_share_an_assertion_that_outlives_none_of_them() -> None:
    signing = signer()
    first = Identity("robot", "bearer", expires_at=NOW + 40)
    second = msgspec.structs.replace(first, expires_at=NOW + 50)
    ending = msgspec.structs.replace(first, expires_at=NOW + 10)
    shared = signing.assertion_for(first, "notes", NOW)
    assert signing.assertion_for(second, "notes", NOW) is shared
    assert signing.signatures == 1
    own = signing.assertion_for(ending, "notes", NOW)
    assert verified(own, signing)["exp"] <= NOW + 10
    assert signing.assertion_for(first, "notes", NOW) is own, "good for everybody, for a while"


@pytest.mark.parametrize(
    "part",
    [
        {"subject": "other"},
        {"tenant": "other"},
        {"roles": ("other",)},
        {"scopes": ("other",)},
        {"amr": ("other",)},
        {"acr": "other"},
        {"auth_time": 5},
        {"session_digest": "e" * 64},
    ],
    ids=lambda part: next(iter(part)),
)
def test_whoever_differs_in_what_is_said_gets_an_assertion_of_their_own(
    part: dict[str, Any],
) -> None:
    signing = signer()
    signing.assertion_for(ALICE, "notes", NOW)
    other = msgspec.structs.replace(ALICE, **part)
    [(name, value)] = part.items()
    claim = {"subject": "sub", "session_digest": "sid"}.get(name, name)
    said = verified(signing.assertion_for(other, "notes", NOW), signing)[claim]
    assert said == (list(value) if isinstance(value, tuple) else value)


def test_a_remembered_assertion_costs_less_than_five_microseconds() -> None:
    signing = signer()
    signing.assertion_for(ALICE, "notes", NOW)
    best = 1.0
    for _ in range(20):
        begun = time.process_time()
        for _ in range(500):
            signing.assertion_for(ALICE, "notes", NOW)
        best = min(best, (time.process_time() - begun) / 500)
    assert best < 5e-6
