"""`doorward accounts`, of second factors, on real files and a real embedded store."""

import json
import re
from contextlib import closing
from pathlib import Path

from auth.login.account import checked_account
from auth.login.accounts import Accounts
from auth.login.elsewhere import KnownPeople
from auth.login.factors import Factors, OwnFactors
from auth.login.passkey import Passkey
from tests.auth.login.conftest import keep_passkey
from tests.gateway.account_commands import ROUTES, Doorward, accounts_of


def own_factors(directory: Path, login: str) -> OwnFactors:
    with closing(Accounts(directory / ".doorward" / "accounts.sqlite3")) as book:
        return Factors(book.database, "").of(book.find(login))


def test_a_second_factor_is_required_of_a_person_or_a_role_and_no_more(
    doorward: Doorward, directory: Path
) -> None:
    doorward("add", "ada", "--roles", "editor", "--password-stdin")
    for whom in (("ada",), ("--role", "editor")):
        assert doorward("require-factor", *whom).exit_code == 0
        assert own_factors(directory, "ada").required
        assert doorward("require-factor", *whom, "--off").exit_code == 0
        assert not own_factors(directory, "ada").required
    assert doorward("require-factor").exit_code == 2
    assert doorward("require-factor", "nobody").exit_code == 1


def test_of_people_elsewhere_a_factor_is_required_by_name_or_subject(
    doorward: Doorward, directory: Path
) -> None:
    service = "login: {user_service: {url: 'https://users.example.com/check'}}\n"
    (directory / "routes.yaml").write_text(ROUTES % "embedded" + service)
    doorward("add", "ada", "--password-stdin")  # an account of ours, which is not who is meant
    result = doorward("require-factor", "ada")
    assert (result.exit_code, "--subject" in result.output) == (1, True)
    person = checked_account(
        "ada", subject="u-7", name="Ada", tenant="", email="", roles=(), groups=()
    )
    with closing(accounts_of(directory)) as book:
        KnownPeople(book.database).note(person)
        factors = Factors(book.database, "k" * 32)
        for whom in (("ada",), ("--subject", "u-7")):
            assert doorward("require-factor", *whom).exit_code == 0
            assert factors.of(person).required
            assert doorward("require-factor", *whom, "--off").exit_code == 0
            assert not factors.of(person).required
            factors.renew_recovery_codes("u-7")
            assert doorward("reset-factors", *whom).exit_code == 0
            assert factors.of(person) == OwnFactors()
    assert doorward("require-factor", "ada", "--subject", "u-7").exit_code == 2
    assert doorward("reset-factors").exit_code == 2


def test_who_lost_their_second_factors_is_rid_of_them(doorward: Doorward, directory: Path) -> None:
    doorward("add", "ada", "--password-stdin")
    with closing(Accounts(directory / ".doorward" / "accounts.sqlite3")) as book:
        Factors(book.database, "").renew_recovery_codes(book.find("ada").subject)
    assert own_factors(directory, "ada").recovery_codes == 10
    result = doorward("reset-factors", "ada")
    assert result.exit_code == 0, result.output
    assert "ended 0 sessions" in result.output
    assert own_factors(directory, "ada") == OwnFactors()


# Passkeys ----------------------------------------------------------------------------------------


def with_passkeys(directory: Path, *names: str) -> None:
    with closing(accounts_of(directory)) as book:
        subject = book.find("ada").subject
        for number, name in enumerate(names):
            passkey = Passkey(
                id=f"id-{number}",
                subject=subject,
                name=name,
                public_key=b"",
                sign_count=0,
                transports=("usb",),
                aaguid="",
                backup_eligible=bool(number),
                backed_up=False,
                created_at=1_795_345_561.0 + number,
                used_at=1_795_445_561.0 if number else 0.0,
            )
            keep_passkey(book.database, passkey)


def test_the_passkeys_of_an_account_are_shown(doorward: Doorward, directory: Path) -> None:
    doorward("add", "ada", "--password-stdin")
    with_passkeys(directory, "Stick", "My phone")
    shown = doorward("passkeys", "ada").output.splitlines()
    assert [re.split(r"  +", line) for line in shown] == [
        ["NAME", "ADDED", "USED", "KEY", "ID"],
        ["Stick", "2026-11-22", "never", "of one device", "id-0"],
        ["My phone", "2026-11-22", "2026-11-23", "synchronised", "id-1"],
    ]
    told = json.loads(doorward("passkeys", "ada", "--json").output)["passkeys"]
    assert [(each["id"], each["used_at"] is None) for each in told] == [
        ("id-0", True),
        ("id-1", False),
    ]
    assert doorward("passkeys").exit_code == 2
    assert doorward("passkeys", "bob").exit_code == 1


def test_a_lost_passkey_is_removed_and_the_sessions_end(
    doorward: Doorward, directory: Path
) -> None:
    doorward("add", "ada", "--password-stdin")
    with_passkeys(directory, "Stick", "My phone")
    assert doorward("remove-passkey", "ada", "other").exit_code == 1
    assert doorward("remove-passkey", "ada").exit_code == 2
    result = doorward("remove-passkey", "ada", "id-0")
    assert result.exit_code == 0, result.output
    assert "removed the passkey\n" in result.output
    assert "ended 0 sessions" in result.output
    assert [each.id for each in own_factors(directory, "ada").passkeys] == ["id-1"]
    assert "password alone" in doorward("remove-passkey", "ada", "id-1").output


def test_who_has_no_password_and_loses_the_passkeys_is_to_get_a_link(
    doorward: Doorward, directory: Path
) -> None:
    doorward("add", "ada", "--password-stdin")
    for command in (("remove-passkey", "ada", "id-0"), ("reset-factors", "ada")):
        with_passkeys(directory, "Stick")
        with closing(accounts_of(directory)) as book:
            factors, account = Factors(book.database, ""), book.find("ada")
            factors.renew_recovery_codes(account.subject)
            if not factors.of(account).passwordless:
                factors.remove_password(account)
        result = doorward(*command)
        assert result.exit_code == 0, result.output
        assert "`doorward accounts reset ada`" in result.output
        assert own_factors(directory, "ada").passkeys == ()
