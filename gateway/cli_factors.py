"""`doorward accounts`, of second factors: requiring them, and what to do when somebody lost one."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click
import msgspec

from auth.io.account_events import AccountEvents
from auth.login.accounts import AccountError, Accounts
from auth.login.elsewhere import KnownPeople
from auth.login.factors import Factors, OwnFactors
from gateway.cli_account_store import (
    Telling,
    config_option,
    configuration_of,
    end_sessions,
    opened_accounts,
)
from gateway.columns import in_columns

_subject_option = click.option(
    "--subject", default="", help="Whoever has this subject, instead of LOGIN."
)


@click.command("reset-factors")
@click.argument("login", required=False)
@_subject_option
@config_option
def reset_factors(login: str | None, *, subject: str, route_file: Path) -> None:
    """Forget every second factor of LOGIN, who lost them, and end the sessions."""
    if bool(login) == bool(subject):
        raise click.UsageError("name an account or a --subject")
    with opened_accounts(route_file) as book:
        subject = subject or _subject_of(login or "", book, route_file)
        removed = Factors(book.database, "").reset(subject)
        way_in = _way_in(book, subject)
    click.echo(f"{login or subject} {way_in}")
    told: Telling = [
        partial(AccountEvents.factor_removed, subject=subject, factor=each) for each in removed
    ]
    end_sessions(subject, route_file, reason="factors_reset", telling=told)


@click.command("require-factor")
@click.argument("login", required=False)
@_subject_option
@click.option("--role", default="", help="Everybody with this role, instead of LOGIN.")
@click.option("--off", is_flag=True, help="No more.")
@config_option
def require_factor(
    login: str | None, *, subject: str, role: str, off: bool, route_file: Path
) -> None:
    """Have LOGIN, or everybody with a role, sign in with a second factor from now on."""
    if sum(map(bool, (login, subject, role))) != 1:
        raise click.UsageError("name an account, a --subject or a --role")
    with opened_accounts(route_file) as book:
        if login:
            subject = _subject_of(login, book, route_file)
        kind, name = ("role", role) if role else ("subject", subject)
        Factors(book.database, "").require(kind, name, required=not off)
    said = "is required no more" if off else "is required from the next sign-in on"
    click.echo(f"a second factor {said}: {login or f'{kind} {name}'}")


@click.command("passkeys")
@click.argument("login", required=False)
@_subject_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all of them.")
@config_option
def list_passkeys(login: str | None, *, subject: str, as_json: bool, route_file: Path) -> None:
    """Show the passkeys of LOGIN."""
    if bool(login) == bool(subject):
        raise click.UsageError("name an account or a --subject")
    with opened_accounts(route_file) as book:
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
    click.echo(in_columns(rows))


@click.command("remove-passkey")
@click.argument("names", nargs=-1, required=True, metavar="[LOGIN] ID")
@_subject_option
@config_option
def remove_passkey(names: tuple[str, ...], *, subject: str, route_file: Path) -> None:
    """Forget the passkey ID (see `passkeys`) of LOGIN, who lost it, and end the sessions."""
    if len(names) + bool(subject) != 2:
        raise click.UsageError("name an account or a --subject, and the ID of a passkey")
    login, id_ = names[0] if not subject else "", names[-1]
    with opened_accounts(route_file) as book:
        subject = subject or _subject_of(login, book, route_file)
        passkeys = Factors(book.database, "").passkeys
        if not passkeys.discard(subject, id_):
            raise AccountError(f"there is no passkey {id_!r} of {login or subject}")
        way_in = "" if passkeys.of(subject) else f"; {login or subject} {_way_in(book, subject)}"
    click.echo(f"removed the passkey{way_in}")
    told: Telling = [partial(AccountEvents.factor_removed, subject=subject, factor="passkey")]
    end_sessions(subject, route_file, reason="factors_reset", telling=told)


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


def _subject_of(login: str, book: Accounts, route_file: Path) -> str:
    """Return whom *login* means: an account of ours, or somebody whose password is not ours."""
    settings = configuration_of(route_file).login
    if settings.user_service or settings.ldap:
        return KnownPeople(book.database).subject_of(login)
    return book.find(login).subject
