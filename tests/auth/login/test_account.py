"""What may stand in an account."""

from typing import Any

import pytest

from auth.login.account import (
    Account,
    AccountError,
    canonical_login,
    checked_account,
    checked_email,
    checked_list,
    checked_login,
    checked_text,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ada", "ADA"), ("ada", " ada "), ("ada", "\uff41da"), ("stra\u00dfe", "STRASSE")],
)
def test_names_that_look_alike_to_a_person_are_one(one: str, other: str) -> None:
    assert canonical_login(one) == canonical_login(other)


def test_names_that_differ_are_two() -> None:
    assert canonical_login("ada") != canonical_login("ad\u0430")  # a Cyrillic letter


def test_canonical_names_stay_canonical() -> None:
    for name in ("Straße", "İstanbul", "ǅ", "ﬁx", "\uff21da", "\u017f"):
        assert canonical_login(canonical_login(name)) == canonical_login(name)


@pytest.mark.parametrize("login", ["ada", "Ada.Lovelace+x@example.com", "\u0430\u0434\u0430"])
def test_a_login_name_is_kept_as_it_was_written(login: str) -> None:
    assert checked_login(f" {login} ") == login


@pytest.mark.parametrize(
    "login", ["", "  ", "a b", "a\u00a0b", "a\nb", "a\u200bb", "\x1b[2J", "\udc80", "x" * 257]
)
def test_what_cannot_be_typed_or_shown_is_no_login_name(login: str) -> None:
    with pytest.raises(AccountError, match="login name"):
        checked_login(login)


def test_a_text_may_have_spaces_and_no_control_characters() -> None:
    assert checked_text("name", " Ada Lovelace ") == "Ada Lovelace"
    with pytest.raises(AccountError, match="the name has control characters"):
        checked_text("name", "Ada\r\nX-Role: admin")


def test_a_list_has_each_value_once_in_its_order() -> None:
    assert checked_list("role", ["b", " a ", "", "b"]) == ("b", "a")


def test_a_comma_would_be_two_values_upstream() -> None:
    with pytest.raises(AccountError, match="comma"):
        checked_list("role", ["member,admin"])


@pytest.mark.parametrize("address", ["a@b.example", " Ada@Example.com "])
def test_an_address_is_kept_without_outer_spaces(address: str) -> None:
    assert checked_email(address) == address.strip()


@pytest.mark.parametrize("address", ["", "a", "a@b, c@d", "a@b\nBcc: c@d"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AccountError, match="no e-mail address"):
        checked_email(address)


def made(login: str = "ada", **changed: Any) -> Account:
    known: dict[str, Any] = {
        "subject": "u-1",
        "name": "Ada Lovelace",
        "tenant": "acme",
        "email": "ada@example.com",
        "roles": ["editor", " editor "],
        "groups": ["maths"],
    }
    return checked_account(login, **(known | changed))


def test_an_account_is_made_of_checked_values() -> None:
    account = made(created_at=1_795_345_561.0)
    assert (account.name, account.roles, account.groups) == (
        "Ada Lovelace",
        ("editor",),
        ("maths",),
    )
    assert (account.created_at, account.changed_at, account.disabled) == (
        1_795_345_561.0,
        1_795_345_561.0,
        False,
    )


def test_who_has_no_name_is_called_by_the_login() -> None:
    assert made("ada", name=" ").name == "ada"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"subject": ""}, "subject is empty"),
        ({"subject": "u" * 257}, "longer than 256"),
        ({"subject": "u\n1"}, "subject has control characters"),
        ({"tenant": "a\0"}, "tenant has control characters"),
        ({"email": "a\x7f@b"}, "e-mail address has control characters"),
        ({"groups": ["a,b"]}, "comma"),
        ({"roles": [f"role-{number}" for number in range(1000)]}, "give fewer of them"),
        ({"name": "é" * 3000}, "give fewer of them"),
    ],
)
def test_what_backends_could_not_be_told_makes_no_account(
    changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(AccountError, match=says):
        made(**changed)
