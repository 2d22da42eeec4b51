"""What commands on accounts open: the route file, the accounts, and the store of their sessions."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from auth.io.account_events import AccountEvents
from auth.io.address import StoreURLError
from auth.io.database import DatabaseUnavailable
from auth.io.embedded import EmbeddedStore, EmbeddedStoreError, embedded_url
from auth.io.session_store import open_session_store
from auth.login.accounts import AccountError, Accounts
from auth.login.assembly import open_accounts
from auth.login.passwords import UnsuitablePassword
from auth.ports import AuthUnavailable, Ended
from config.io.files import load_configuration
from config.io.places import data_directory
from config.model import Configuration

config_option = click.option(
    "--config",
    "route_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("routes.yaml"),
    show_default=True,
    help="The route file; it says where the accounts are.",
)
Telling = Sequence[Callable[[AccountEvents], Awaitable[None]]]
"""What is written to the stream of events."""


@contextmanager
def opened_accounts(route_file: Path) -> Iterator[Accounts]:
    """Open the accounts; say what went wrong in one line."""
    login = configuration_of(route_file).login
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


def configuration_of(route_file: Path) -> Configuration:
    """Return what the route file says; without it nobody knows where the accounts are."""
    loaded = load_configuration(route_file)
    if isinstance(loaded, Configuration):
        return loaded
    raise click.ClickException(
        f"nothing was done: {route_file} has problems (see `doorward check {route_file}`)"
    )


def end_sessions(subject: str, route_file: Path, *, reason: str, telling: Telling = ()) -> None:
    """End the sessions of *subject*, or say why that did not happen and what to do.

    The account is changed already, so nobody signs in meanwhile; what is left is left to the
    operator, with exit status 1. Without a *reason* the sessions go on. *telling* is done last.
    """
    loaded = configuration_of(route_file)
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
    url: str, configuration: Configuration, subject: str, *, reason: str, telling: Telling
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
