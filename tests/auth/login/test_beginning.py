"""How strong a sign-in was; the beginning itself is in the tests of those who begin."""

import pytest

from auth.login.beginning import acr_of


@pytest.mark.parametrize(
    ("amr", "acr"),
    [
        (("pwd",), ""),
        (("pwd", "otp"), ""),
        (("pwd", "otp", "mfa"), "mfa"),
    ],
)
def test_two_factors_have_a_name(amr: tuple[str, ...], acr: str) -> None:
    assert acr_of(amr) == acr
