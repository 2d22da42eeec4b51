"""How strong a sign-in was; the beginning itself is in the tests of those who begin."""

import pytest

from auth.login.beginning import OURS, acr_of


@pytest.mark.parametrize(
    ("amr", "acr"),
    [
        (("pwd",), ""),
        (("pwd", "otp"), ""),
        (("pwd", "otp", "mfa"), "mfa"),
        (("pwd", "pop", "mfa"), "phr"),
        (("pop", "user", "mfa"), "phr"),
        (("pop",), ""),
    ],
)
def test_two_factors_and_a_passkey_have_names(amr: tuple[str, ...], acr: str) -> None:
    assert acr_of(amr) == acr
    assert acr in {"", *OURS}
