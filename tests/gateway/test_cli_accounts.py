"""`doorward accounts`, on real files and a real embedded store."""

import asyncio
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from auth.login.factors import Factors
from auth.login.one_time import OneTimeLinks
from gateway.cli import cli
from tests.conftest import Valkey
from tests.gateway.account_commands import (
    PASSWORD,
    ROUTES,
    Doorward,
    accounts_of,
    begin_session,
    count_sessions,
    signs_in,
)
from tests.mail import running_mailbox


def test_an_account_is_added_with_all_there_is_to_say(doorward: Doorward, directory: Path) -> None:
    result = doorward(
        *("add", "ada", "--password-stdin", "--name", "Ada Lovelace", "--tenant", "acme"),
        *("--roles", "editor, admin", "--groups", "maths", "--email", "ada@example.com"),
    )
    assert result.exit_code == 0, result.output
    (account,) = accounts_of(directory).all()
    assert account.subject in result.output
    assert (account.name, account.tenant, account.email) == (
        "Ada Lovelace",
        "acme",
        "ada@example.com",
    )
    assert (account.roles, account.groups) == (("editor", "admin"), ("maths",))
    assert signs_in(directory, "ada", PASSWORD)


def test_the_password_is_asked_for_twice_and_not_shown(doorward: Doorward, directory: Path) -> None:
    result = doorward("add", "ada", given=f"{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 0
    assert PASSWORD not in result.output
    assert signs_in(directory, "ada", PASSWORD)


def test_without_a_terminal_the_password_is_not_read_in_the_open(directory: Path) -> None:
    """A session of its own has none, as a job or a container has none."""
    command = [sys.executable, "-m", "gateway", "accounts", "add", "ada", "--config", "routes.yaml"]
    run = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        input=f"{PASSWORD}\n{PASSWORD}\n",
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.count("\n") == 1
    assert "--password-stdin" in run.stderr


@pytest.mark.parametrize("end", ["\n", "\r\n", "", "\nignored\n"])
def test_the_password_on_standard_input_is_its_first_line(
    doorward: Doorward, directory: Path, end: str
) -> None:
    assert doorward("add", "ada", "--password-stdin", given=PASSWORD + end).exit_code == 0
    assert signs_in(directory, "ada", PASSWORD)


@pytest.mark.parametrize(
    ("arguments", "given", "says"),
    [
        (("add", "eve", "--password-stdin"), "short\n", "at least 8 characters"),
        (("add", "eve", "--password-stdin"), "", "at least 8 characters"),
        (("add", "eve", "--password-stdin"), "x" * 3000, "longer than 1024 bytes"),
        (("add", "ADA", "--password-stdin"), PASSWORD, "already an account 'ADA'"),
        (("add", "a b", "--password-stdin"), PASSWORD, "spaces or control characters"),
        (("passwd", "eve", "--password-stdin"), PASSWORD, "no account 'eve'"),
        (("passwd", "ada", "--password-stdin"), "short", "at least 8 characters"),
        (("disable", "eve"), "", "no account 'eve'"),
        (("delete", "eve", "--yes"), "", "no account 'eve'"),
        (("enable", "eve"), "", "no account 'eve'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_told_in_one_line(
    doorward: Doorward, arguments: tuple[str, ...], given: str, says: str
) -> None:
    doorward("add", "ada", "--password-stdin")
    result = doorward(*arguments, given=given)
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_a_password_in_another_encoding_is_told(directory: Path) -> None:
    arguments = ["accounts", "add", "ada", "--password-stdin"]
    config = ["--config", str(directory / "routes.yaml")]
    result = CliRunner().invoke(cli, [*arguments, *config], input=b"gr\xfc\xdfe gr\xfc\xdfe\n")
    assert (result.exit_code, "not UTF-8" in result.stderr) == (1, True)


def test_the_list_shows_everybody_and_no_hash(doorward: Doorward) -> None:
    doorward("add", "bob", "--password-stdin")
    doorward("add", "ada", "--password-stdin", "--roles", "editor,admin")
    doorward("disable", "bob")
    lines = doorward("list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["LOGIN", "ada", "bob"]
    assert "editor,admin" in lines[1]
    assert "disabled" in lines[2]
    told = json.loads(doorward("list", "--json").stdout)["accounts"]
    assert [(each["login"], each["disabled"]) for each in told] == [("ada", False), ("bob", True)]
    assert "argon2" not in doorward("list", "--json").stdout


def test_the_accounts_are_their_owners_only(doorward: Doorward, directory: Path) -> None:
    doorward("add", "ada", "--password-stdin")
    data = directory / ".doorward"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "accounts.sqlite3").stat().st_mode) == 0o600


def test_a_disabled_account_is_out_until_it_is_enabled(doorward: Doorward, directory: Path) -> None:
    doorward("add", "ada", "--password-stdin")
    assert doorward("disable", "ada").exit_code == 0
    assert not signs_in(directory, "ada", PASSWORD)
    assert doorward("enable", "ada").exit_code == 0
    assert signs_in(directory, "ada", PASSWORD)


def with_mail(directory: Path, mail: str) -> None:
    (directory / "routes.yaml").write_text(ROUTES % "embedded" + f"login: {{mail: {mail}}}\n")


def link_in(text: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:8080/\.doorward/set-password\?token=(\S+)", text)
    assert found, text
    return found[1]


def test_an_invitation_makes_an_account_and_prints_its_link_where_no_mail_is_set(
    doorward: Doorward, directory: Path
) -> None:
    result = doorward("invite", "ada", "--name", "Ada", "--tenant", "acme", "--roles", "editor")
    assert result.exit_code == 0, result.output
    assert "login.mail is not set" in result.stderr
    book = accounts_of(directory)
    OneTimeLinks(book).set_password(link_in(result.stdout), PASSWORD)
    (account,) = book.all()
    assert (account.name, account.tenant, account.roles) == ("Ada", "acme", ("editor",))
    assert signs_in(directory, "ada", PASSWORD)


def test_a_second_invitation_changes_nothing_of_the_account(
    doorward: Doorward, directory: Path
) -> None:
    doorward("invite", "ada", "--roles", "editor")
    before = accounts_of(directory).find("ada")
    result = doorward("invite", "ada", "--roles", "admin")
    assert (result.exit_code, accounts_of(directory).find("ada")) == (0, before)
    assert link_in(result.stdout)


async def test_an_invitation_is_sent_where_mail_is_set(doorward: Doorward, directory: Path) -> None:
    async with running_mailbox() as mailbox:
        smtp = f"{{server: '{mailbox.address}', security: none}}"
        with_mail(directory, f"{{from: no-reply@example.com, smtp: {smtp}}}")
        result = await asyncio.to_thread(doorward, "invite", "ada@example.com", "--language", "de")
        assert result.exit_code == 0, result.output
        assert "token=" not in result.output  # a terminal's log is nobody's mailbox
        mailbox.refusal = "550 nobody"
        refused = await asyncio.to_thread(doorward, "reset", "ada@example.com")
        printed = await asyncio.to_thread(doorward, "reset", "ada@example.com", "--print")
    (message,) = mailbox.messages
    assert message["To"] == "ada@example.com"
    assert "Sie" in message.get_content()
    link_in(message.get_content())
    assert refused.exit_code == 1
    assert "was not sent" in refused.stderr
    assert "--print" in refused.stderr
    assert link_in(printed.stdout)


def test_a_reset_leaves_the_password_until_its_link_is_used(
    doorward: Doorward, directory: Path
) -> None:
    doorward("add", "ada", "--password-stdin")
    result = doorward("reset", "ada")
    assert signs_in(directory, "ada", PASSWORD)
    OneTimeLinks(accounts_of(directory)).set_password(link_in(result.stdout), "another good one")
    assert not signs_in(directory, "ada", PASSWORD)


def test_a_disabled_account_is_not_reset(doorward: Doorward) -> None:
    doorward("add", "ada", "--password-stdin")
    doorward("disable", "ada")
    result = doorward("reset", "ada")
    assert (result.exit_code, "is disabled" in result.stderr) == (1, True)


def test_everything_but_the_subject_may_change(doorward: Doorward, directory: Path) -> None:
    doorward("add", "ada", "--password-stdin", "--roles", "editor", "--email", "ada@example.com")
    before = accounts_of(directory).find("ada")
    result = doorward(
        *("change", "ada", "--login", "lovelace", "--name", "Ada L.", "--tenant", "acme"),
        *("--roles", "admin,editor", "--groups", "", "--email", "al@example.com"),
    )
    assert result.exit_code == 0, result.output
    (after,) = accounts_of(directory).all()
    assert after.subject == before.subject
    assert (after.login, after.name, after.tenant) == ("lovelace", "Ada L.", "acme")
    assert (after.roles, after.groups, after.email) == (("admin", "editor"), (), "al@example.com")
    assert signs_in(directory, "lovelace", PASSWORD)
    assert not signs_in(directory, "ada", PASSWORD)


def test_what_is_not_said_stays(doorward: Doorward, directory: Path) -> None:
    doorward("add", "ada", "--password-stdin", "--roles", "editor", "--name", "Ada")
    doorward("change", "ada", "--email", "ada@example.com")
    after = accounts_of(directory).find("ada")
    assert (after.name, after.roles, after.email) == ("Ada", ("editor",), "ada@example.com")


def test_a_login_name_that_somebody_has_is_not_taken(doorward: Doorward) -> None:
    doorward("add", "ada", "--password-stdin")
    doorward("add", "bob", "--password-stdin")
    result = doorward("change", "bob", "--login", "ADA")
    assert (result.exit_code, "already an account" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (("--roles", "viewer"), 0),
        (("--tenant", "acme"), 0),
        (("--groups", "a"), 0),
        (("--roles", "viewer", "--keep-sessions"), 1),
        (("--name", "Ada L."), 1),
        (("--roles", "editor"), 1),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if isinstance(value, tuple) else "",
)
def test_sessions_end_when_what_somebody_may_do_changes(
    doorward: Doorward, directory: Path, valkey: Valkey, change: tuple[str, ...], left: int
) -> None:
    (directory / "routes.yaml").write_text(ROUTES % valkey.tcp_url)
    doorward("add", "ada", "--password-stdin", "--roles", "editor")
    subject = accounts_of(directory).find("ada").subject
    asyncio.run(begin_session(valkey.tcp_url, subject))
    result = doorward("change", "ada", *change)
    assert result.exit_code == 0, result.output
    assert asyncio.run(count_sessions(valkey.tcp_url, subject)) == left


def test_a_deleted_account_is_forgotten_with_all_that_let_it_in_and_its_sessions_end(
    doorward: Doorward, directory: Path, valkey: Valkey
) -> None:
    (directory / "routes.yaml").write_text(ROUTES % valkey.tcp_url)
    doorward("add", "ada", "--password-stdin")
    doorward("add", "bob", "--password-stdin")
    doorward("require-factor", "ada")
    doorward("reset", "ada", "--print")
    subject, other = (accounts_of(directory).find(name).subject for name in ("ada", "bob"))
    factors = Factors(accounts_of(directory).database, "k" * 32)
    factors.renew_recovery_codes(subject)
    for each in (subject, other):
        asyncio.run(begin_session(valkey.tcp_url, each))
    refused = doorward("delete", "ada", given="n\n")
    assert (refused.exit_code, signs_in(directory, "ada", PASSWORD)) == (1, True)
    result = doorward("delete", "ada", "--yes")
    assert (result.exit_code, subject in result.stdout) == (0, True)
    assert not signs_in(directory, "ada", PASSWORD)
    assert asyncio.run(count_sessions(valkey.tcp_url, subject)) == 0
    assert asyncio.run(count_sessions(valkey.tcp_url, other)) == 1
    with closing(sqlite3.connect(directory / ".doorward" / "accounts.sqlite3")) as database:
        kept = "\n".join(database.iterdump())
    assert subject not in kept
    assert other in kept
    doorward("add", "ada", "--password-stdin")
    assert accounts_of(directory).find("ada").subject != subject
