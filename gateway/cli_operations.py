"""Commands that run the gateway or work on its store: `run`, `sessions`, `tokens`, `keys`."""

import asyncio
import json
import logging
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from auth.io.address import StoreURLError
from auth.io.embedded import EmbeddedStoreError, embedded_url
from auth.io.session_store import RedisSessionStore, open_session_store
from auth.io.signing_keys import SigningKeys
from auth.ports import AuthUnavailable, Ended
from config.io.files import load_configuration
from config.io.places import data_directory
from gateway.io.admin_sessions import describe_session

_T = TypeVar("_T")

_config_option = click.option(
    "--config",
    "file",
    default="routes.yaml",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The route file; its store is worked on.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@_config_option
@click.option("--workers", type=click.IntRange(1, 256), help="Instead of server.workers.")
@click.option("--demo", is_flag=True, help="Start the notes example and accounts to try it with.")
def run(*, file: Path, workers: int | None, demo: bool) -> None:
    """Run the gateway in the foreground.

    SIGHUP reloads the route file, as does changing it. SIGTERM and Ctrl-C drain and stop; once more
    stops at once. DOORWARD_LISTEN and DOORWARD_ADMIN_LISTEN replace the two addresses,
    DOORWARD_ACCESS_LOG (a path, or stdout) says where the access log goes.
    """
    # Only here: the other commands need neither the server nor what it loads.
    from gateway.io.application_log import start_logging  # noqa: PLC0415 - see above
    from gateway.io.running import CannotRunError, RunOptions, run_gateway  # noqa: PLC0415

    start_logging()
    options = RunOptions(
        file=file,
        workers=workers,
        demo=demo,
        access_log=os.environ.get("DOORWARD_ACCESS_LOG") or "stdout",
    )
    try:
        run_gateway(options, click.echo)
    except CannotRunError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(1)


@click.group()
def sessions() -> None:
    """List and end sessions."""


@sessions.command("list")
@click.option("--subject", required=True, help="Whose sessions.")
@_json_option
@_config_option
def list_sessions(*, subject: str, as_json: bool, file: Path) -> None:
    """List the live sessions of a subject, newest first."""
    summaries = _with_store(file, lambda store: store.sessions_of(subject))
    if as_json:
        found = [describe_session(summary) for summary in summaries]
        click.echo(json.dumps({"sessions": found}, indent=2, ensure_ascii=False))
        return
    for summary in summaries:
        record = summary.record
        click.echo(
            f"{summary.digest}  since {_moment(record.created_at)}  "
            f"until {_moment(record.expires_at)}  idle until {_moment(summary.idle_expires_at)}"
        )
    if not summaries:
        click.echo(f"no live sessions of {subject}", err=True)


@sessions.command()
@click.option("--subject", help="End all sessions of this subject.")
@click.option("--id", "session_digest", help="End the session with this digest.")
@click.option("--all", "everybody", is_flag=True, help="End every session there is.")
@_json_option
@_config_option
def revoke(
    *, subject: str | None, session_digest: str | None, everybody: bool, as_json: bool, file: Path
) -> None:
    """End sessions. When this returns, no gateway on the store admits them any more."""
    if (bool(subject), bool(session_digest), everybody).count(True) != 1:
        raise click.UsageError("say which sessions: one of --subject, --id and --all")

    def end(store: RedisSessionStore) -> Awaitable[Ended]:
        if subject:
            return store.end_subject(subject, reason="admin")
        if session_digest:
            return store.end(session_digest, reason="admin")
        return store.end_all(reason="admin")

    if session_digest and not re.fullmatch(r"[0-9a-f]{64}", session_digest):
        raise click.UsageError("--id takes the 64 hex digits that `doorward sessions list` prints")
    ended = _with_store(file, end)
    if as_json:
        click.echo(msgspec.json.encode(ended))
        return
    counted = "1 session" if ended.ended == 1 else f"{ended.ended} sessions"
    click.echo(
        f"ended {counted}; {ended.acknowledged} of {ended.of} workers confirmed "
        f"within {ended.waited_ms:.1f} ms"
    )


@click.group()
def tokens() -> None:
    """Take back bearer tokens before they expire."""


@tokens.command("revoke")
@click.option("--jti", default="", help="Refuse this one token.")
@click.option("--subject", default="", help="Refuse every token issued for this subject up to now.")
@click.option("--issuer", default="", help="Who made them; else every issuer of the file.")
@click.option("--expires-at", type=float, help="When the one token expires, epoch seconds.")
@_json_option
@_config_option
def revoke_bearer_tokens(  # noqa: PLR0913 - the command's options
    *,
    jti: str,
    subject: str,
    issuer: str,
    expires_at: float | None,
    as_json: bool,
    file: Path,
) -> None:
    """Refuse tokens. When this returns, no gateway on the store admits them any more.

    Sessions are ended by `doorward sessions revoke`, and neither command does the other's work.
    """
    from gateway.io.admin_tokens import (  # noqa: PLC0415 - it loads the server
        UnusableRevocationError,
        Unwanted,
        revoke_tokens,
    )

    loaded = load_configuration(file)
    issuers = [] if isinstance(loaded, list) else [each.issuer for each in loaded.tokens]
    unwanted = Unwanted(jti, subject, issuer, expires_at)
    try:
        ended = _with_store(
            file, lambda store: revoke_tokens(store, unwanted, issuers, time.time())
        )
    except UnusableRevocationError as error:
        said = str(error).replace("`jti`", "--jti").replace("`subject`", "--subject")
        said = said.replace("`issuer`", "--issuer").replace("`expires_at`", "--expires-at")
        raise click.UsageError(said) from error
    if as_json:
        click.echo(msgspec.json.encode(ended))
        return
    click.echo(
        f"refused from now on; {ended.acknowledged} of {ended.of} workers confirmed "
        f"within {ended.waited_ms:.1f} ms"
    )


@click.group()
def keys() -> None:
    """Keys that sign identity assertions; all gateways on the store share them."""


@keys.command("list")
@_json_option
@_config_option
def list_keys(*, as_json: bool, file: Path) -> None:
    """List the keys that are published, oldest first."""
    states = _with_store(file, lambda store: SigningKeys(store.commands).list())
    if as_json:
        click.echo(json.dumps({"keys": msgspec.to_builtins(states)}, indent=2))
        return
    for state in states:
        click.echo(f"{state.kid}  {state.state:<8}  since {_moment(state.created_at)}")
    if not states:
        click.echo("no keys yet; the first gateway that starts makes one", err=True)


@keys.command()
@_config_option
def rotate(*, file: Path) -> None:
    """Make a new key; those before it stay published while what they signed can be alive."""
    key = _with_store(file, lambda store: SigningKeys(store.commands).rotate())
    click.echo(f"{key.kid} signs from {_moment(key.active_at)} on")


def _with_store(file: Path, do: Callable[[RedisSessionStore], Awaitable[_T]]) -> _T:
    """Return what *do* makes of the store of *file*, or end with a line that says what to do."""
    loaded = load_configuration(file)
    if isinstance(loaded, list):
        for problem in loaded:
            click.echo(problem.at(str(file)), err=True)
        sys.exit(1)
    configuration = loaded
    try:
        url = configuration.store.url.value
        if url == "embedded":
            url = embedded_url(data_directory(file))
    except (EmbeddedStoreError, OSError) as error:
        raise click.ClickException(str(error)) from error

    # What the store's client has to say is in the error; without this it would be there twice.
    logging.getLogger().addHandler(logging.NullHandler())

    async def work() -> _T:
        store = await open_session_store(url, configuration.session, worker=False)
        try:
            return await do(store)
        finally:
            await store.close()

    try:
        return asyncio.run(work())
    except StoreURLError as error:
        raise click.ClickException(str(error)) from error
    except AuthUnavailable as error:
        raise click.ClickException(
            f"the session store does not answer ({error}): check store.url, and that it runs"
        ) from error


def _moment(epoch: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(epoch))
