"""`doorward accounts`: who can sign in with the bundled login service."""

import asyncio
import secrets
import sys
import warnings
from collections.abc import Callable
from getpass import GetPassWarning
from pathlib import Path

import click
import msgspec

from auth.io.mail_sending import NotSent, send_letter
from auth.login.accounts import Account, AccountError, Accounts, access_of
from auth.login.mailing import password_letter
from auth.login.one_time import Purpose
from auth.login.passwords import MAX_BYTES
from gateway.cli_account_store import (
    Telling,
    config_option,
    configuration_of,
    end_sessions,
    opened_accounts,
)
from gateway.cli_factors import list_passkeys, remove_passkey, require_factor, reset_factors
from gateway.columns import in_columns

_password_option = click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from the first line of standard input, and do not ask.",
)


def _link_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--print", "print_link", is_flag=True, help="Print the link, and send nothing."
    )(command)
    return click.option("--language", default="en", help="Of the letter, such as de.")(command)


def _person_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--groups", default="", metavar="A,B", help="Groups, separated by commas."),
        click.option("--roles", default="", metavar="A,B", help="Roles, separated by commas."),
        click.option("--tenant", default="", help="The organisation the person belongs to."),
        click.option("--name", default="", help="The name that pages and upstreams show."),
    ):
        command = option(command)
    return command


@click.group()
def accounts() -> None:
    """Accounts of the bundled login service."""


@accounts.command("add")
@click.argument("login")
@_person_options
@click.option("--email", default="", help="The e-mail address.")
@_password_option
@config_option
def add_account(  # noqa: PLR0913 - one argument for each option
    login: str,
    *,
    name: str,
    tenant: str,
    roles: str,
    groups: str,
    email: str,
    password_stdin: bool,
    route_file: Path,
) -> None:
    """Create the account LOGIN; asks for its password."""
    with opened_accounts(route_file) as book:
        account = book.add(
            login,
            _password(from_stdin=password_stdin),
            name=name,
            tenant=tenant,
            roles=roles.split(","),
            groups=groups.split(","),
            email=email,
        )
    click.echo(f"added {account.login}, subject {account.subject}")


@accounts.command("passwd")
@click.argument("login")
@click.option("--keep-sessions", is_flag=True, help="Let the sessions there are go on.")
@_password_option
@config_option
def change_password(
    login: str, *, keep_sessions: bool, password_stdin: bool, route_file: Path
) -> None:
    """Give the account LOGIN another password, and end its sessions."""
    with opened_accounts(route_file) as book:
        book.find(login)  # before a password is asked for in vain
        account = book.set_password(login, _password(from_stdin=password_stdin))
    click.echo(f"changed the password of {account.login}")
    told: Telling = [lambda events: events.password_changed(account.subject)]
    reason = "" if keep_sessions else "password_changed"
    end_sessions(account.subject, route_file, reason=reason, telling=told)


@accounts.command("invite")
@click.argument("login")
@_person_options
@click.option("--email", default="", help="The e-mail address. Default: LOGIN, if it is one.")
@_link_options
@config_option
def invite(  # noqa: PLR0913 - one argument for each option
    login: str,
    *,
    name: str,
    tenant: str,
    roles: str,
    groups: str,
    email: str,
    language: str,
    print_link: bool,
    route_file: Path,
) -> None:
    """Create the account LOGIN, and send a link with which its owner sets a password.

    An account that is there already gets another invitation, and stays as it is.
    """
    with opened_accounts(route_file) as book:
        try:
            account = book.find(login)
        except AccountError:
            account = book.add(
                login,
                None,
                name=name,
                tenant=tenant,
                roles=roles.split(","),
                groups=groups.split(","),
                email=email or (login if "@" in login else ""),
            )
            click.echo(f"added {account.login}, subject {account.subject}")
        _hand_over_link(
            Purpose.INVITATION, account, book, route_file, language=language, print_link=print_link
        )


@accounts.command("reset")
@click.argument("login")
@_link_options
@config_option
def reset(login: str, *, language: str, print_link: bool, route_file: Path) -> None:
    """Send LOGIN a link to set another password; until it is used, the old one counts."""
    with opened_accounts(route_file) as book:
        account = book.find(login)
        if account.disabled:
            raise AccountError(f"{account.login} is disabled; `doorward accounts enable` it first")
        _hand_over_link(
            Purpose.RESET, account, book, route_file, language=language, print_link=print_link
        )


@accounts.command("change")
@click.argument("login")
@click.option("--login", "new_login", help="Another login name; the subject stays.")
@click.option("--name", help="The name that pages and upstreams show.")
@click.option("--tenant", help="The organisation the person belongs to.")
@click.option("--roles", metavar="A,B", help="All roles from now on, separated by commas.")
@click.option("--groups", metavar="A,B", help="All groups from now on, separated by commas.")
@click.option("--email", help="The e-mail address.")
@click.option("--keep-sessions", is_flag=True, help="Let the sessions there are go on.")
@config_option
def change_account(  # noqa: PLR0913 - one argument for each option
    login: str,
    *,
    new_login: str | None,
    name: str | None,
    tenant: str | None,
    roles: str | None,
    groups: str | None,
    email: str | None,
    keep_sessions: bool,
    route_file: Path,
) -> None:
    """Change what is given of the account LOGIN; an empty value takes it away.

    Tenant, roles and groups decide what somebody may do: when one changes, the sessions end.
    """
    with opened_accounts(route_file) as book:
        old = book.find(login)
        new = book.change(
            login,
            new_login=new_login,
            name=name,
            tenant=tenant,
            roles=None if roles is None else roles.split(","),
            groups=None if groups is None else groups.split(","),
            email=email,
        )
    click.echo(f"changed {new.login}")
    if access_of(new) != access_of(old) and not keep_sessions:
        end_sessions(new.subject, route_file, reason="account_changed")


@accounts.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all accounts.")
@config_option
def list_accounts(*, as_json: bool, route_file: Path) -> None:
    """Show every account."""
    with opened_accounts(route_file) as book:
        everybody = book.all()
    if as_json:
        click.echo(msgspec.json.encode({"accounts": everybody}))
        return
    rows = [("LOGIN", "NAME", "TENANT", "ROLES", "STATE", "SUBJECT")]
    rows += [
        (
            each.login,
            each.name,
            each.tenant,
            ",".join(each.roles),
            "disabled" if each.disabled else "active",
            each.subject,
        )
        for each in everybody
    ]
    click.echo(in_columns(rows))


@accounts.command("disable")
@click.argument("login")
@config_option
def disable_account(login: str, *, route_file: Path) -> None:
    """Let LOGIN sign in no more, and end its sessions."""
    with opened_accounts(route_file) as book:
        account = book.set_disabled(login, disabled=True)
    click.echo(f"disabled {account.login}")
    end_sessions(account.subject, route_file, reason="account_disabled")


@accounts.command("enable")
@click.argument("login")
@config_option
def enable_account(login: str, *, route_file: Path) -> None:
    """Let LOGIN sign in again."""
    with opened_accounts(route_file) as book:
        account = book.set_disabled(login, disabled=False)
    click.echo(f"enabled {account.login}")


@accounts.command("delete")
@click.argument("login")
@click.confirmation_option(prompt="Delete the account, its passkeys and codes, for good?")
@config_option
def delete_account(login: str, *, route_file: Path) -> None:
    """Forget LOGIN and everything that lets it in, and end its sessions.

    Its subject is never used again. To keep somebody out for a while: `disable`.
    """
    with opened_accounts(route_file) as book:
        account = book.delete(login)
    click.echo(f"deleted {account.login}, subject {account.subject}")
    end_sessions(account.subject, route_file, reason="account_deleted")


def _hand_over_link(  # noqa: PLR0913 - what a letter needs
    purpose: Purpose,
    account: Account,
    book: Accounts,
    route_file: Path,
    *,
    language: str,
    print_link: bool,
) -> None:
    """Send *account* a link, or print it when nothing says how to send one."""
    loaded = configuration_of(route_file)
    letter = password_letter(account, book, loaded, purpose=purpose, language=language)
    mail = loaded.login.mail
    if print_link or mail is None or not account.email:
        if not print_link:
            missing = "the account has no e-mail address" if mail else "login.mail is not set"
            click.echo(f"{missing}: give {account.login} this link", err=True)
        click.echo(letter.link)
        return
    try:
        asyncio.run(send_letter(mail, letter, letter_id=secrets.token_hex(8)))
    except NotSent as error:
        raise click.ClickException(
            f"the link was not sent: {error}; try again, or print it with --print"
        ) from error
    click.echo(f"sent a link to {account.email}")


def _password(*, from_stdin: bool) -> str:
    if not from_stdin:
        try:
            with warnings.catch_warnings():
                # Without a terminal `getpass` would read the password with a warning, and show it.
                warnings.simplefilter("error", GetPassWarning)
                return str(
                    click.prompt("Password", hide_input=True, confirmation_prompt="Once more")
                )
        except GetPassWarning:
            raise click.ClickException(
                "there is no terminal to ask for the password on: use --password-stdin"
            ) from None
    # Read as bytes, so that a line in another encoding is told and not guessed.
    line = sys.stdin.buffer.readline(MAX_BYTES * 2).removesuffix(b"\n").removesuffix(b"\r")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise click.ClickException("the password on standard input is not UTF-8") from None


for _command in (reset_factors, require_factor, list_passkeys, remove_passkey):
    accounts.add_command(_command)
