"""What a passkey says of a sign-in, and where browsers offer passkeys."""

import pytest

from auth.login.passkey import Passkey, RelyingParty, user_handle


@pytest.mark.parametrize(
    ("eligible", "verified", "methods"),
    [
        (False, True, ("hwk", "user", "mfa")),
        (False, False, ("hwk", "user")),
        (True, True, ("swk", "user", "mfa")),
        (True, False, ("swk", "user")),
    ],
)
def test_a_key_that_may_be_copied_is_none_of_hardware_and_a_pin_makes_two_factors_of_one(
    *, eligible: bool, verified: bool, methods: tuple[str, ...]
) -> None:
    passkey = Passkey("i", "u1", "Key", b"", 0, (), "", eligible, backed_up=False, created_at=1.0)
    assert passkey.methods(user_verified=verified) == methods


@pytest.mark.parametrize(
    ("url", "id_", "origin"),
    [
        ("https://app.example.com", "app.example.com", "https://app.example.com"),
        ("https://app.example.com:443/x", "app.example.com", "https://app.example.com"),
        ("https://app.example.com:8443", "app.example.com", "https://app.example.com:8443"),
        ("http://localhost:8080", "localhost", "http://localhost:8080"),
        ("http://localhost", "localhost", "http://localhost"),
        ("http://a.localhost:1", "a.localhost", "http://a.localhost:1"),
    ],
)
def test_the_rp_id_is_the_host_and_the_origin_is_exact(url: str, id_: str, origin: str) -> None:
    assert RelyingParty.at(url, name="Site") == RelyingParty(id_, origin, "Site")


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.com",
        "http://127.0.0.1:8080",
        "https://192.0.2.1",
        "https://[2001:db8::1]",
        "http://localhost.example.com",
        "",
    ],
)
def test_where_browsers_offer_no_passkeys_nor_do_we(url: str) -> None:
    assert RelyingParty.at(url, name="Site") is None


def test_who_has_no_name_is_called_by_the_host() -> None:
    party = RelyingParty.at("https://app.example.com", name="")
    assert party is not None
    assert party.name == "app.example.com"


@pytest.mark.parametrize(
    "subject", ["u1", "uid=" + "ä" * 250, "4b7c1f0e-0000-4000-8000-000000000000"]
)
def test_an_authenticator_is_told_of_a_person_in_64_bytes_that_name_nobody(subject: str) -> None:
    handle = user_handle(subject)
    assert len(handle) <= 64
    assert subject.encode() not in handle
    assert handle == user_handle(subject) != user_handle(f"{subject}x")
