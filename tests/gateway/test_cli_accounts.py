"""`doorward accounts`, on real files and a real embedded store."""

import asyncio
import json
import re
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from auth.io.embedded import EmbeddedStore
from auth.io.session_store import open_session_store
from auth.io.user_service import account_of
from auth.login.accounts import Accounts
from auth.login.elsewhere import KnownPeople
from auth.login.factors import Factors, OwnFactors
from auth.login.one_time import OneTimeLinks
from auth.login.passkey import Passkey
from auth.session import SessionRecord
from config.model import SessionSettings
from gateway.cli import cli
from tests.conftest import Valkey
from tests.mail import running_mailbox
from tests.postgres import Postgres

PASSWORD = "correct horse battery"
ROUTES = """\
version: 1
server: {listen: 127.0.0.1:8080, public_url: http://127.0.0.1:8080}
admin: {listen: 127.0.0.1:8081}
store: {url: %s}
upstreams: {notes: http://127.0.0.1:9001}
routes:
  - {id: all, match: {path: /*}, upstream: notes, access: signed-in}
"""

Doorward = Callable[..., Result]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "routes.yaml").write_text(ROUTES % "embedded")
    return tmp_path


@pytest.fixture
def doorward(directory: Path) -> Doorward:
    """Runs `doorward accounts …` on the route file of the directory."""

    def run(*arguments: str, given: str = f"{PASSWORD}\n") -> Result:
        config = ("--config", str(directory / "routes.yaml"))
        return CliRunner().invoke(cli, ["accounts", *arguments, *config], input=given)

    return run


def accounts_of(directory: Path) -> Accounts:
    return Accounts(directory / ".doorward" / "accounts.sqlite3")


def signs_in(directory: Path, login: str, password: str) -> bool:
    accounts = accounts_of(directory)
    try:
        return asyncio.run(accounts.sign_in(login, password)) is not None
    finally:
        accounts.close()


async def begin_session(url: str, subject: str) -> None:
    store = await open_session_store(url, SessionSettings("doorward", secure=False), worker=False)
    now = time.time()
    await store.create(SessionRecord(1, subject, created_at=now, expires_at=now + 600))
    await store.close()


async def count_sessions(url: str, subject: str) -> int:
    store = await open_session_store(url, SessionSettings("doorward", secure=False), worker=False)
    sessions = await store.sessions_of(subject)
    await store.close()
    return len(sessions)


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


def test_a_route_file_that_is_not_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    arguments = ["accounts", "list", "--config", str(tmp_path / "rotes.yaml")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "rotes.yaml" in result.stderr
    assert list(tmp_path.iterdir()) == []


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


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize(
    ("command", "kept"),
    [(("disable", "ada"), 0), (("passwd", "ada"), 0), (("passwd", "ada", "--keep-sessions"), 1)],
    ids=["disable", "passwd", "passwd-keep"],
)
def test_the_sessions_of_the_account_end_with_it(
    doorward: Doorward, directory: Path, command: tuple[str, ...], kept: int, *, running: bool
) -> None:
    doorward("add", "ada", "--password-stdin")
    (account,) = accounts_of(directory).all()
    store = EmbeddedStore(directory / ".doorward")
    url = store.start()
    try:
        asyncio.run(begin_session(url, account.subject))
        if not running:
            store.stop()
        stdin = ("--password-stdin",) if command[0] == "passwd" else ()
        result = doorward(*command, *stdin, given="another good one\n")
        assert result.exit_code == 0, result.output
        assert ("ended 1 session" in result.stdout) is not bool(kept)
        assert asyncio.run(count_sessions(store.start(), account.subject)) == kept
    finally:
        store.stop()


def test_sessions_that_could_not_be_ended_are_told_and_the_account_is_disabled(
    doorward: Doorward, directory: Path
) -> None:
    doorward("add", "ada", "--password-stdin")
    (directory / "routes.yaml").write_text(ROUTES % "redis://127.0.0.1:1")
    result = doorward("disable", "ada")
    assert result.exit_code == 1
    assert "disabled ada" in result.stdout
    assert "doorward sessions revoke --subject" in result.stderr
    assert not signs_in(directory, "ada", PASSWORD)


def test_a_file_that_cannot_be_used_is_told(doorward: Doorward, directory: Path) -> None:
    doorward("add", "ada", "--password-stdin")
    with sqlite3.connect(directory / ".doorward" / "accounts.sqlite3") as connection:
        connection.execute("ALTER TABLE accounts RENAME TO gone")
    result = doorward("list")
    assert (result.exit_code, "the accounts cannot be used" in result.stderr) == (1, True)


def test_nothing_is_done_while_the_route_file_has_problems(
    doorward: Doorward, directory: Path
) -> None:
    """It says where the accounts are: another place may have the same names."""
    doorward("add", "ada", "--password-stdin")
    (directory / "routes.yaml").write_text("version: 1\n")
    result = doorward("disable", "ada")
    assert result.exit_code == 1
    assert "nothing was done" in result.stderr
    assert signs_in(directory, "ada", PASSWORD)


def test_accounts_may_be_in_postgresql(
    doorward: Doorward, directory: Path, postgres: Postgres
) -> None:
    database = f"login: {{database: '{postgres.new_url()}', factor_key: {'k' * 32}}}\n"
    (directory / "routes.yaml").write_text(ROUTES % "embedded" + database)
    assert doorward("add", "ada", "--password-stdin").exit_code == 0
    assert "ada" in doorward("list").output
    assert not (directory / ".doorward" / "accounts.sqlite3").exists()


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
    person = account_of("ada", subject="u-7", name="Ada", tenant="", email="", roles=(), groups=())
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
            Factors(book.database, "").passkeys.add(passkey)


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
