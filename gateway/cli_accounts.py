"""`doorward accounts`: who can sign in with the bundled login service."""

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
import msgspec

from auth.io.account_events import AccountEvents
from auth.io.address import StoreURLError
from auth.io.database import DatabaseUnavailable
from auth.io.embedded import EmbeddedStore, EmbeddedStoreError, embedded_url
from auth.io.mail_sending import NotSent, send_letter
from auth.io.session_store import open_session_store
from auth.login.accounts import Account, AccountError, Accounts, access_of
from auth.login.assembly import open_accounts
from auth.login.elsewhere import KnownPeople
from auth.login.factors import Factors, OwnFactors
from auth.login.mailing import password_letter
from auth.login.one_time import Purpose
from auth.login.passwords import MAX_BYTES, UnsuitablePassword
from auth.ports import AuthUnavailable, Ended
from config.io.files import load_configuration
from config.io.places import data_directory
from config.model import Configuration

_config_option = click.option(
    "--config",
    "route_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("routes.yaml"),
    show_default=True,
    help="The route file; it says where the accounts are.",
)
_subject_option = click.option(
    "--subject", default="", help="Whoever has this subject, instead of LOGIN."
)
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
@_config_option
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
    with _opened(route_file) as book:
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
@_config_option
def change_password(
    login: str, *, keep_sessions: bool, password_stdin: bool, route_file: Path
) -> None:
    """Give the account LOGIN another password, and end its sessions."""
    with _opened(route_file) as book:
        book.find(login)  # before a password is asked for in vain
        account = book.set_password(login, _password(from_stdin=password_stdin))
    click.echo(f"changed the password of {account.login}")
    told: _Telling = [lambda events: events.password_changed(account.subject)]
    reason = "" if keep_sessions else "password_changed"
    _end_sessions(account.subject, route_file, reason=reason, telling=told)


@accounts.command("invite")
@click.argument("login")
@_person_options
@click.option("--email", default="", help="The e-mail address. Default: LOGIN, if it is one.")
@_link_options
@_config_option
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
    with _opened(route_file) as book:
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
@_config_option
def reset(login: str, *, language: str, print_link: bool, route_file: Path) -> None:
    """Send LOGIN a link to set another password; until it is used, the old one counts."""
    with _opened(route_file) as book:
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
@_config_option
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
    with _opened(route_file) as book:
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
        _end_sessions(new.subject, route_file, reason="account_changed")


@accounts.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all accounts.")
@_config_option
def list_accounts(*, as_json: bool, route_file: Path) -> None:
    """Show every account."""
    with _opened(route_file) as book:
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
    _show_table(rows)


@accounts.command("disable")
@click.argument("login")
@_config_option
def disable_account(login: str, *, route_file: Path) -> None:
    """Let LOGIN sign in no more, and end its sessions."""
    with _opened(route_file) as book:
        account = book.set_disabled(login, disabled=True)
    click.echo(f"disabled {account.login}")
    _end_sessions(account.subject, route_file, reason="account_disabled")


@accounts.command("enable")
@click.argument("login")
@_config_option
def enable_account(login: str, *, route_file: Path) -> None:
    """Let LOGIN sign in again."""
    with _opened(route_file) as book:
        account = book.set_disabled(login, disabled=False)
    click.echo(f"enabled {account.login}")


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
    loaded = _loaded(route_file)
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


@accounts.command("reset-factors")
@click.argument("login", required=False)
@_subject_option
@_config_option
def reset_factors(login: str | None, *, subject: str, route_file: Path) -> None:
    """Forget every second factor of LOGIN, who lost them, and end the sessions."""
    if bool(login) == bool(subject):
        raise click.UsageError("name an account or a --subject")
    with _opened(route_file) as book:
        subject = subject or _subject_of(login or "", book, route_file)
        removed = Factors(book.database, "").reset(subject)
        way_in = _way_in(book, subject)
    click.echo(f"{login or subject} {way_in}")
    told: _Telling = [
        partial(AccountEvents.factor_removed, subject=subject, factor=each) for each in removed
    ]
    _end_sessions(subject, route_file, reason="factors_reset", telling=told)


@accounts.command("require-factor")
@click.argument("login", required=False)
@_subject_option
@click.option("--role", default="", help="Everybody with this role, instead of LOGIN.")
@click.option("--off", is_flag=True, help="No more.")
@_config_option
def require_factor(
    login: str | None, *, subject: str, role: str, off: bool, route_file: Path
) -> None:
    """Have LOGIN, or everybody with a role, sign in with a second factor from now on."""
    if sum(map(bool, (login, subject, role))) != 1:
        raise click.UsageError("name an account, a --subject or a --role")
    with _opened(route_file) as book:
        if login:
            subject = _subject_of(login, book, route_file)
        kind, name = ("role", role) if role else ("subject", subject)
        Factors(book.database, "").require(kind, name, required=not off)
    said = "is required no more" if off else "is required from the next sign-in on"
    click.echo(f"a second factor {said}: {login or f'{kind} {name}'}")


@accounts.command("passkeys")
@click.argument("login", required=False)
@_subject_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all of them.")
@_config_option
def list_passkeys(login: str | None, *, subject: str, as_json: bool, route_file: Path) -> None:
    """Show the passkeys of LOGIN."""
    if bool(login) == bool(subject):
        raise click.UsageError("name an account or a --subject")
    with _opened(route_file) as book:
        subject = subject or _subject_of(login or "", book, route_file)
        passkeys = Factors(book.database, "").passkeys.of(subject)
    if as_json:
        told = [
            {
                "id": each.id,
                "name": each.name,
                "created_at": each.created_at,
                "used_at": each.used_at or None,
                "synced": each.backup_eligible,
                "transports": each.transports,
                "aaguid": each.aaguid,
            }
            for each in passkeys
        ]
        click.echo(msgspec.json.encode({"passkeys": told}))
        return
    rows = [("NAME", "ADDED", "USED", "KEY", "ID")]
    rows += [
        (
            each.name,
            _day(each.created_at),
            _day(each.used_at) if each.used_at else "never",
            "synchronised" if each.backup_eligible else "of one device",
            each.id,
        )
        for each in passkeys
    ]
    _show_table(rows)


@accounts.command("remove-passkey")
@click.argument("names", nargs=-1, required=True, metavar="[LOGIN] ID")
@_subject_option
@_config_option
def remove_passkey(names: tuple[str, ...], *, subject: str, route_file: Path) -> None:
    """Forget the passkey ID (see `passkeys`) of LOGIN, who lost it, and end the sessions."""
    if len(names) + bool(subject) != 2:
        raise click.UsageError("name an account or a --subject, and the ID of a passkey")
    login, id_ = names[0] if not subject else "", names[-1]
    with _opened(route_file) as book:
        subject = subject or _subject_of(login, book, route_file)
        passkeys = Factors(book.database, "").passkeys
        if not passkeys.discard(subject, id_):
            raise AccountError(f"there is no passkey {id_!r} of {login or subject}")
        way_in = "" if passkeys.of(subject) else f"; {login or subject} {_way_in(book, subject)}"
    click.echo(f"removed the passkey{way_in}")
    told: _Telling = [partial(AccountEvents.factor_removed, subject=subject, factor="passkey")]
    _end_sessions(subject, route_file, reason="factors_reset", telling=told)


def _way_in(book: Accounts, subject: str) -> str:
    """Return how *subject*, who has lost factors, signs in from now on."""
    account = book.find_subject(subject)
    own = Factors(book.database, "").of(account) if account else OwnFactors()
    if own.passwordless:
        login = account.login if account else subject
        return f"has no password: send a link with `doorward accounts reset {login}`"
    if own.are_there:
        return "signs in with the password and the other second factor"
    return "signs in with the password alone"


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _show_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _subject_of(login: str, book: Accounts, route_file: Path) -> str:
    """Return whom *login* means: an account of ours, or somebody whose password is not ours."""
    settings = _loaded(route_file).login
    if settings.user_service or settings.ldap:
        return KnownPeople(book.database).subject_of(login)
    return book.find(login).subject


@contextmanager
def _opened(route_file: Path) -> Iterator[Accounts]:
    """Open the accounts; say what went wrong in one line."""
    login = _loaded(route_file).login
    try:
        book = open_accounts(login, data_directory(route_file))
    except (AccountError, OSError) as error:
        raise click.ClickException(str(error)) from error
    try:
        yield book
    except (AccountError, UnsuitablePassword) as error:
        raise click.ClickException(str(error)) from error
    except DatabaseUnavailable as error:
        raise click.ClickException(f"the accounts cannot be used: {error}") from error
    finally:
        book.close()


def _loaded(route_file: Path) -> Configuration:
    """Return what the route file says; without it nobody knows where the accounts are."""
    loaded = load_configuration(route_file)
    if isinstance(loaded, Configuration):
        return loaded
    raise click.ClickException(
        f"nothing was done: {route_file} has problems (see `doorward check {route_file}`)"
    )


def _password(*, from_stdin: bool) -> str:
    if not from_stdin:
        return str(click.prompt("Password", hide_input=True, confirmation_prompt="Once more"))
    # Read as bytes, so that a line in another encoding is told and not guessed.
    line = sys.stdin.buffer.readline(MAX_BYTES * 2).removesuffix(b"\n").removesuffix(b"\r")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise click.ClickException("the password on standard input is not UTF-8") from None


_Telling = Sequence[Callable[[AccountEvents], Awaitable[None]]]
"""What is written to the stream of events."""


def _end_sessions(subject: str, route_file: Path, *, reason: str, telling: _Telling = ()) -> None:
    """End the sessions of *subject*, or say why that did not happen and what to do.

    The account is changed already, so nobody signs in meanwhile; what is left is left to the
    operator, with exit status 1. Without a *reason* the sessions go on. *telling* is done last.
    """
    loaded = _loaded(route_file)
    try:
        with _store_url(loaded, route_file) as url:
            ended = asyncio.run(_end(url, loaded, subject, reason=reason, telling=telling))
    except (AuthUnavailable, EmbeddedStoreError, StoreURLError) as error:
        if not reason:
            click.echo(f"other services were not told: {error}", err=True)
            return
        raise click.ClickException(
            f"its sessions go on: {error}; mend that, then run"
            f" `doorward sessions revoke --subject {subject}`"
        ) from None
    if ended is None:
        return
    number = "1 session" if ended.ended == 1 else f"{ended.ended} sessions"
    click.echo(f"ended {number}, confirmed by {ended.acknowledged} of {ended.of} workers")


@contextmanager
def _store_url(configuration: Configuration, route_file: Path) -> Iterator[str]:
    """Yield where the store is; an embedded one that does not run is started for as long."""
    url = configuration.store.url.value
    if url != "embedded":
        yield url
        return
    directory = data_directory(route_file)
    try:
        url = embedded_url(directory)
    except EmbeddedStoreError:
        # The gateway is stopped, and will find its sessions again when it starts.
        store = EmbeddedStore(directory)
        try:
            yield store.start()
        finally:
            store.stop()
    else:
        yield url


async def _end(
    url: str, configuration: Configuration, subject: str, *, reason: str, telling: _Telling
) -> Ended | None:
    store = await open_session_store(url, configuration.session, worker=False)
    try:
        ended = await store.end_subject(subject, reason=reason) if reason else None
        events = AccountEvents(store.commands)
        for tell in telling:
            await tell(events)
        return ended
    finally:
        await store.close()
