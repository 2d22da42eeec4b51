"""The secret of an app on its way to a person and back."""

from base64 import b32decode
from pathlib import Path

import pytest

from auth.io.database import SqliteDatabase
from auth.login.account import Account
from auth.login.app_secret import new_secret, sealed_in, secret_again
from auth.login.factors import Factors

ADA = Account("ada-1", "ada", "Ada", "", (), (), "", False, 0, 0.0, 0.0)
BOB = Account("bob-1", "bob", "Bob", "", (), (), "", False, 0, 0.0, 0.0)
SITE = "app.example.com"


@pytest.fixture
def factors(tmp_path: Path) -> Factors:
    return Factors(SqliteDatabase(tmp_path / "accounts.sqlite3"), "k" * 32)


def test_what_is_typed_and_what_the_form_brings_back_are_one_secret(factors: Factors) -> None:
    shown = new_secret(factors, ADA, site=SITE)
    secret = factors.opened_secret("ada-1", sealed_in(shown.sealed))
    assert secret == b32decode(shown.typed.replace(" ", ""))
    assert shown.typed.replace(" ", "") in shown.uri
    assert new_secret(factors, ADA, site=SITE).typed != shown.typed


def test_a_form_that_comes_back_shows_the_same_secret_to_its_owner_and_to_nobody_else(
    factors: Factors,
) -> None:
    shown = new_secret(factors, ADA, site=SITE)
    assert secret_again(factors, ADA, shown.sealed, site=SITE).typed == shown.typed
    assert secret_again(factors, BOB, shown.sealed, site=SITE).typed != shown.typed


@pytest.mark.parametrize("form", ["", "x", "ä", "AAAA", "=" * 5])
def test_a_form_without_sense_shows_a_fresh_secret(factors: Factors, form: str) -> None:
    assert factors.opened_secret("ada-1", sealed_in(form)) is None
    assert secret_again(factors, ADA, form, site=SITE).typed
