"""What commands on accounts open, on real files and a real embedded store."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from auth.io.embedded import EmbeddedStore
from gateway.cli import cli
from tests.gateway.account_commands import (
    PASSWORD,
    ROUTES,
    Doorward,
    accounts_of,
    begin_session,
    count_sessions,
    signs_in,
)
from tests.postgres import Postgres


def test_a_route_file_that_is_not_there_is_told_before_anything_is_made(tmp_path: Path) -> None:
    arguments = ["accounts", "list", "--config", str(tmp_path / "rotes.yaml")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "rotes.yaml" in result.stderr
    assert list(tmp_path.iterdir()) == []


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
    with (
        closing(sqlite3.connect(directory / ".doorward" / "accounts.sqlite3")) as connection,
        connection,
    ):
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
