"""ID tokens and logout tokens, claim by claim (OIDC Core 3.1.3.7, Back-Channel Logout 1.0 2.6)."""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from auth.id_token import (
    LOGOUT_EVENT,
    Expected,
    RefusedToken,
    check_id_token,
    check_logout_token,
    check_refreshed_token,
)
from tests.providers.lying import REMOVED

NOW = 1_790_000_000.0
ISSUER = "https://idp.example.com"
EXPECTED = Expected(ISSUER, "gateway", "the-nonce")
ACCESS_TOKEN = "an-access-token"
USUAL: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "gateway",
    "sub": "ada",
    "iat": NOW,
    "exp": NOW + 300,
    "nonce": "the-nonce",
}
LOGOUT: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "gateway",
    "iat": NOW,
    "exp": NOW + 120,
    "jti": "once",
    "sid": "s-1",
    "events": {LOGOUT_EVENT: {}},
}


def changed(claims: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: each for name, each in (claims | changes).items() if each is not REMOVED}


def check(claims: dict[str, Any], *, algorithm: str = "RS256", now: float = NOW) -> None:
    check_id_token(claims, EXPECTED, now, algorithm=algorithm, access_token=ACCESS_TOKEN)


def at_hash(algorithm: str) -> str:
    digest = hashlib.new(algorithm, ACCESS_TOKEN.encode()).digest()
    return urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["gateway"]},
        {"aud": ["gateway", "other"], "azp": "gateway"},
        {"azp": "gateway"},
        {"sid": "s-1", "auth_time": NOW - 900},
        {"exp": NOW - 29, "iat": NOW - 300},
        {"iat": NOW + 29},
        {"at_hash": at_hash("sha256")},
    ],
    ids=str,
)
def test_the_answer_to_our_request_is_taken(changes: dict[str, Any]) -> None:
    check(changed(USUAL, **changes))


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [("RS256", "sha256"), ("ES384", "sha384"), ("PS512", "sha512"), ("EdDSA", "sha512")],
)
def test_the_access_token_is_hashed_as_the_token_is_signed(algorithm: str, digest: str) -> None:
    check(changed(USUAL, at_hash=at_hash(digest)), algorithm=algorithm)
    with pytest.raises(RefusedToken, match="at_hash"):
        check(changed(USUAL, at_hash=at_hash("sha1")), algorithm=algorithm)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"iss": "https://idp.example.com.evil"}, "issuer"),
        ({"iss": REMOVED}, "issuer"),
        ({"aud": "other"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": REMOVED}, "audience"),
        ({"aud": {"gateway": 1}}, "audience"),
        ({"aud": ["gateway", "other"]}, "another client"),
        ({"aud": ["gateway", "other"], "azp": "other"}, "another client"),
        ({"azp": "other"}, "another client"),
        ({"azp": ["gateway"]}, "another client"),
        ({"nonce": REMOVED}, "nonce"),
        ({"nonce": "another"}, "nonce"),
        ({"nonce": ["the-nonce"]}, "nonce"),
        ({"nonce": ""}, "nonce"),
        ({"events": {}}, "event"),
        ({"sub": REMOVED}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "a\r\nb"}, "sub"),
        ({"sub": "x" * 257}, "sub"),
        ({"sid": 1}, "sid"),
        ({"auth_time": "yesterday"}, "auth_time"),
        ({"exp": REMOVED}, "exp"),
        ({"iat": REMOVED}, "iat"),
        ({"exp": str(NOW + 300)}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": 1e300}, "exp"),
        ({"nbf": "soon"}, "no time"),
        ({"exp": NOW + 8 * 86_400}, "too long"),
        ({"exp": NOW - 60}, "before its iat"),
        ({"exp": NOW - 31, "iat": NOW - 300}, "expired"),
        ({"iat": NOW + 31}, "future"),
        ({"nbf": NOW + 31}, "future"),
        ({"at_hash": "x"}, "at_hash"),
        ({"at_hash": 1}, "at_hash"),
    ],
    ids=str,
)
def test_anything_else_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(RefusedToken, match=why):
        check(changed(USUAL, **changes))


STRONG = Expected(ISSUER, "gateway", "the-nonce", acr_values=("mfa", "hwk"), max_age=60.0)


def check_strong(claims: dict[str, Any]) -> None:
    check_id_token(claims, STRONG, NOW, algorithm="RS256", access_token=ACCESS_TOKEN)


@pytest.mark.parametrize("acr", ["mfa", "hwk"])
def test_a_sign_in_that_is_as_strong_as_asked_for_is_taken(acr: str) -> None:
    check_strong(changed(USUAL, acr=acr, auth_time=NOW - 60))


@pytest.mark.parametrize(
    "changes",
    [
        {"auth_time": NOW},
        {"acr": "pwd", "auth_time": NOW},
        {"acr": ["mfa"], "auth_time": NOW},
        {"acr": "mfa"},
        {"acr": "mfa", "auth_time": NOW - 91},
    ],
    ids=str,
)
def test_a_weaker_or_older_one_is_refused_although_it_was_asked_for(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(RefusedToken) as caught:
        check_strong(changed(USUAL, **changes))
    assert caught.value.too_weak


@pytest.mark.parametrize(
    ("now", "off"), [(NOW - 400, 400), (NOW + 900, -900)], ids=["ahead", "behind"]
)
def test_a_clock_that_is_off_is_told_by_how_much(now: float, off: float) -> None:
    with pytest.raises(RefusedToken) as caught:
        check(USUAL, now=now)
    assert caught.value.clock_off == off


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, ("", "s-1")),
        ({"sid": REMOVED, "sub": "ada"}, ("ada", "")),
        ({"sub": "ada"}, ("ada", "s-1")),
        ({"events": {LOGOUT_EVENT: {}, "other": {}}}, ("", "s-1")),
        ({"aud": ["gateway"]}, ("", "s-1")),
    ],
    ids=str,
)
def test_a_logout_token_names_a_session_or_a_person(
    changes: dict[str, Any], named: tuple[str, str]
) -> None:
    notice = check_logout_token(changed(LOGOUT, **changes), ISSUER, "gateway", NOW)
    assert (notice.sub, notice.sid) == named
    assert (notice.jti, notice.expires_at) == ("once", NOW + 120)


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": REMOVED},
        {"exp": REMOVED},
        {"exp": NOW - 31, "iat": NOW - 200},
        {"exp": NOW + 2 * 86_400},
        {"iat": NOW + 31},
        {"jti": REMOVED},
        {"jti": 1},
        {"jti": ""},
        {"events": REMOVED},
        {"events": []},
        {"events": LOGOUT_EVENT},
        {"events": {}},
        {"events": {LOGOUT_EVENT: None}},
        {"events": {LOGOUT_EVENT: []}},
        {"events": {LOGOUT_EVENT + "/": {}}},
        {"sid": REMOVED},
        {"sid": ""},
        {"sid": 1},
        {"sid": "s-1", "sub": 1},
        {"nonce": "n"},
        {"nonce": None},
        {"iss": "https://other.example.com"},
        {"aud": "other"},
        {"aud": ["gateway", "other"]},
    ],
    ids=str,
)
def test_no_other_token_is_a_logout_token(changes: dict[str, Any]) -> None:
    with pytest.raises(RefusedToken):
        check_logout_token(changed(LOGOUT, **changes), ISSUER, "gateway", NOW)


def test_an_id_token_is_no_logout_token_and_the_reverse() -> None:
    with pytest.raises(RefusedToken):
        check_logout_token(USUAL | {"jti": "1", "sid": "s"}, ISSUER, "gateway", NOW)
    with pytest.raises(RefusedToken):
        check(LOGOUT | {"sub": "ada", "nonce": "the-nonce"})


def check_again(claims: dict[str, Any], before: dict[str, Any]) -> None:
    check_refreshed_token(
        claims,
        before,
        issuer=ISSUER,
        client_id="gateway",
        now=NOW,
        algorithm="RS256",
        access_token=ACCESS_TOKEN,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nonce": REMOVED},
        {"auth_time": 7},
        {"at_hash": at_hash("sha256")},
    ],
    ids=str,
)
def test_an_id_token_that_came_with_a_refresh_is_taken(changes: dict[str, Any]) -> None:
    check_again(changed(USUAL, **changes), USUAL)
    check_again(changed(USUAL, **changes), {"sub": "ada"})


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "bob"},
        {"sub": REMOVED},
        {"iss": "https://other.example.com"},
        {"aud": "other"},
        {"azp": "other"},
        {"auth_time": 8},
        {"nonce": "another"},
        {"exp": NOW - 31, "iat": NOW - 200},
        {"iat": NOW + 31},
        {"at_hash": "x"},
        {"events": {LOGOUT_EVENT: {}}},
    ],
    ids=str,
)
def test_a_refresh_brings_no_other_person_and_no_other_sign_in(changes: dict[str, Any]) -> None:
    """OIDC Core section 12.2."""
    with pytest.raises(RefusedToken):
        check_again(changed(USUAL, **changes), USUAL | {"auth_time": 7})
