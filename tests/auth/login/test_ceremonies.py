"""What is asked of browsers, and what they may give back."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from auth.login.ceremonies import (
    NotShown,
    creation_options,
    made_passkey,
    presented_id,
    request_options,
    shown_assertion,
)
from auth.login.passkey import Passkey, RelyingParty, user_handle
from tests.auth.login.authenticator import Authenticator, decoded, encoded

ORIGIN = "https://app.example.com"
PARTY = RelyingParty("app.example.com", ORIGIN, "Example")
CHALLENGE, OTHER = b"c" * 32, b"o" * 32


def creation(known: tuple[Passkey, ...] = ()) -> dict[str, Any]:
    return creation_options(PARTY, CHALLENGE, subject="u1", login="ada", known=known)


def registered(authenticator: Authenticator) -> Passkey:
    made = made_passkey(PARTY, CHALLENGE, authenticator.create(creation()), now=7.0)
    return msgspec.structs.replace(made, subject="u1", name="Key")


def shows(authenticator: Authenticator, passkey: Passkey, *, alone: bool = True) -> None:
    response = authenticator.get(request_options(PARTY, CHALLENGE))
    shown_assertion(PARTY, CHALLENGE, response, passkey, alone=alone)


def edited(response: str, *path: str, value: object) -> str:
    told = json.loads(response)
    place = told
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return json.dumps(told)


def test_a_new_passkey_can_be_the_only_factor() -> None:
    told = creation()
    assert told["authenticatorSelection"]["residentKey"] == "required"
    assert told["authenticatorSelection"]["userVerification"] == "required"
    assert (told["rp"], told["attestation"]) == ({"name": "Example", "id": PARTY.id}, "none")
    assert decoded(told["user"]["id"]) == user_handle("u1")
    assert told["user"]["name"] == "ada"


def test_whoever_signs_in_is_asked_without_a_list_which_would_tell_who_has_one() -> None:
    told = request_options(PARTY, CHALLENGE)
    assert not told.get("allowCredentials")
    assert told["userVerification"] == "required"


def test_after_a_password_the_passkeys_of_that_account_are_asked_for() -> None:
    passkey = registered(Authenticator(ORIGIN))
    told = request_options(PARTY, CHALLENGE, allowed=[passkey])
    (allowed,) = told["allowCredentials"]
    assert allowed["id"] == passkey.id
    # What browsers may not know yet is left out.
    assert allowed["transports"] == ["internal", "hybrid"]
    assert creation((passkey,))["excludeCredentials"] == [allowed]


def test_a_passkey_is_made_and_shown() -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    assert (passkey.id, passkey.created_at) == (encoded(authenticator.id), 7.0)
    assert (passkey.backup_eligible, passkey.backed_up) == (False, False)
    response = authenticator.get(request_options(PARTY, CHALLENGE))
    assert presented_id(response) == passkey.id
    shown = shown_assertion(PARTY, CHALLENGE, response, passkey, alone=True)
    assert (shown.id, shown.sign_count, shown.user_verified) == (passkey.id, 1, True)


def test_a_synced_one_says_so() -> None:
    passkey = registered(Authenticator(ORIGIN, synced=True))
    assert (passkey.backup_eligible, passkey.backed_up) == (True, True)


def test_as_a_second_factor_it_need_not_know_who_is_there() -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    authenticator.verifies = False
    authenticator.handle = b""
    shows(authenticator, passkey, alone=False)


HOSTILE: dict[str, Callable[[Authenticator], None]] = {
    "another origin": lambda a: setattr(a, "origin", "https://app.example.com.evil.example"),
    "a subdomain": lambda a: setattr(a, "origin", "https://x.app.example.com"),
    "another port": lambda a: setattr(a, "origin", "https://app.example.com:8443"),
    "plain http": lambda a: setattr(a, "origin", "http://app.example.com"),
    "another rp": lambda a: setattr(a, "rp_id", "example.com"),
    "a frame of another origin": lambda a: setattr(a, "cross_origin", True),
    "nobody verified": lambda a: setattr(a, "verifies", False),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_passkey_is_made_by(name: str) -> None:
    authenticator = Authenticator(ORIGIN)
    HOSTILE[name](authenticator)
    with pytest.raises(NotShown):
        registered(authenticator)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_passkey_is_shown_by(name: str) -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    HOSTILE[name](authenticator)
    with pytest.raises(NotShown):
        shows(authenticator, passkey)


def test_another_challenge_is_not_answered() -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    response = authenticator.get(request_options(PARTY, OTHER))
    with pytest.raises(NotShown, match="challenge"):
        shown_assertion(PARTY, CHALLENGE, response, passkey, alone=True)
    with pytest.raises(NotShown, match="challenge"):
        made_passkey(PARTY, OTHER, authenticator.create(creation()), now=7.0)


def test_another_key_does_not_sign_for_it() -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    authenticator.key = Authenticator(ORIGIN).key
    with pytest.raises(NotShown):
        shows(authenticator, passkey)


def test_the_only_factor_names_its_owner() -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    for handle in (b"u2", b""):
        authenticator.handle = handle
        with pytest.raises(NotShown, match="user handle"):
            shows(authenticator, passkey)


def test_a_passkey_that_was_made_when_the_handle_was_the_subject_still_lets_its_owner_in() -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    authenticator.handle = b"u1"
    shows(authenticator, passkey)


def test_an_assertion_is_no_registration_and_the_other_way_round() -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    made = authenticator.create(creation())
    shown = authenticator.get(request_options(PARTY, CHALLENGE))
    with pytest.raises(NotShown):
        made_passkey(PARTY, CHALLENGE, shown, now=7.0)
    with pytest.raises(NotShown):
        shown_assertion(PARTY, CHALLENGE, made, passkey, alone=True)


def test_an_assertion_of_one_passkey_shows_no_other_one() -> None:
    """Two with the same key, so that the signature is good."""
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    other = msgspec.structs.replace(passkey, id=encoded(b"j" * 32))
    response = authenticator.get(request_options(PARTY, CHALLENGE))
    with pytest.raises(NotShown, match="another"):
        shown_assertion(PARTY, CHALLENGE, response, other, alone=True)


@pytest.mark.parametrize(
    "response",
    ["", "{", "[]", "null", "7", "{}", '{"id": 7}', '"x"', "\x00", '{"id":"a","rawId":"a"}'],
)
def test_what_makes_no_sense_shows_nothing(response: str) -> None:
    passkey = registered(Authenticator(ORIGIN))
    with pytest.raises(NotShown):
        presented_id(response)
    with pytest.raises(NotShown):
        made_passkey(PARTY, CHALLENGE, response, now=7.0)
    with pytest.raises(NotShown):
        shown_assertion(PARTY, CHALLENGE, response, passkey, alone=True)


@pytest.mark.parametrize("part", ["clientDataJSON", "authenticatorData", "signature"])
@pytest.mark.parametrize("value", ["", "AAAA", "!", 7, None, encoded(b"\xff" * 200)])
def test_no_part_of_it_can_be_something_else(part: str, value: object) -> None:
    authenticator = Authenticator(ORIGIN)
    passkey = registered(authenticator)
    response = authenticator.get(request_options(PARTY, CHALLENGE))
    with pytest.raises(NotShown):
        shown_assertion(
            PARTY, CHALLENGE, edited(response, "response", part, value=value), passkey, alone=True
        )


@pytest.mark.parametrize("part", ["clientDataJSON", "attestationObject"])
@pytest.mark.parametrize("value", ["", "AAAA", "!", 7, None, encoded(b"\xff" * 200)])
def test_no_part_of_a_new_one_can_be_something_else(part: str, value: object) -> None:
    response = Authenticator(ORIGIN).create(creation())
    with pytest.raises(NotShown):
        made_passkey(PARTY, CHALLENGE, edited(response, "response", part, value=value), now=7.0)
