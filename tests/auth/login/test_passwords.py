"""What a password may be, and the hash that nobody has a password for."""

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import VerifyMismatchError

from auth.login.passwords import (
    MAX_BYTES,
    UnsuitablePassword,
    check_new_password,
    decoy_hash,
    normalised,
)


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("", "at least 8 characters"),
        ("1234567", "at least 8 characters"),
        ("é" * 7, "at least 8 characters"),
        ("x" * (MAX_BYTES + 1), "longer than 1024 bytes"),
        ("é" * (MAX_BYTES // 2 + 1), "longer than 1024 bytes"),
        ("Ada.Lovelace", "is the login name"),
        ("\uff41\uff44\uff41.lovelace", "is the login name"),
    ],
    ids=[
        "empty",
        "seven",
        "seven-accents",
        "long",
        "long-in-bytes",
        "login",
        "login-in-another-width",
    ],
)
def test_an_unsuitable_password_is_refused_with_a_reason(password: str, says: str) -> None:
    with pytest.raises(UnsuitablePassword, match=says):
        check_new_password(password, login="ada.lovelace")


@pytest.mark.parametrize(
    "password",
    ["12345678", "x" * MAX_BYTES, "correct horse battery", "пароль-пароль", "  spaces  "],
)
def test_any_other_password_is_taken(password: str) -> None:
    check_new_password(password, login="ada")


def test_two_ways_to_type_an_accent_are_one_password() -> None:
    assert normalised("caf\u00e9") == normalised("cafe\u0301")


def test_a_refusal_does_not_repeat_the_password() -> None:
    with pytest.raises(UnsuitablePassword) as refusal:
        check_new_password("hunter2", login="ada")
    assert "hunter2" not in str(refusal.value)


def test_a_decoy_has_the_parameters_of_a_real_hash_and_no_password() -> None:
    hasher = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    real, decoy = hasher.hash("secret"), decoy_hash(hasher)
    assert extract_parameters(decoy) == extract_parameters(real)
    assert len(decoy) == len(real)
    with pytest.raises(VerifyMismatchError):  # argon2 did the work, and found it different
        hasher.verify(decoy, "secret")


def test_every_decoy_is_another() -> None:
    assert decoy_hash(PasswordHasher()) != decoy_hash(PasswordHasher())
