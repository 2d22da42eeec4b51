"""The command `doorward`, and the commands that only need the route file.

Exit codes: 1 for a route file with problems, 2 for a wrong use of the command line, and for
`explain` 0, 3, 4 or 5 by what the request would come to.
"""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import click
import msgspec

from auth.identity import ABSENT, Authenticated, Caller, Identity
from config.io.files import load_configuration
from config.io.named_files import find_exposed
from config.problem import Problem
from config.schema import SCHEMA
from gateway.explain import explain as explain_request
from gateway.explanation_text import render_explanation
from gateway.io import build
from gateway.loopholes import find_loopholes
from gateway.route_listing import render_routes
from gateway.snapshot import Snapshot, build_snapshot, examine_routes

DEFAULT_FILE = "routes.yaml"

config_option = click.option(
    "--config",
    "file",
    default=DEFAULT_FILE,
    show_default=True,
    type=click.Path(path_type=Path),
    help="The route file.",
)


class _Commands(click.Group):
    """The commands of this module, and others that are imported when they are asked for.

    So `doorward check` loads neither the store's client nor the server.
    """

    elsewhere: ClassVar[dict[str, str]] = {
        "run": "gateway.cli_operations",
        "sessions": "gateway.cli_operations",
        "tokens": "gateway.cli_operations",
        "keys": "gateway.cli_operations",
        "accounts": "gateway.cli_accounts",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *self.elsewhere})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command called *cmd_name*: in its module it has this name too."""
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        command = getattr(import_module(self.elsewhere[cmd_name]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command that is named; whatever is wrong with it is one line on stderr."""
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            context = error.ctx if isinstance(error, click.UsageError) else None
            more = f" (more: {context.command_path} --help)" if context else ""
            click.echo(f"Error: {' '.join(error.format_message().split())}{more}", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("Error: nothing has been done, for it was broken off", err=True)
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(build.describe(), prog_name="doorward")
def cli() -> None:
    """Doorward: who is calling, may they, and a logout that has happened."""


@cli.command()
@click.argument("file", default=DEFAULT_FILE, type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check the route FILE and run its own tests.

    Every problem is printed on a line of its own, as FILE:LINE:COLUMN: message.
    """
    snapshot = _build(file)
    if isinstance(snapshot, list):
        for problem in snapshot:
            click.echo(problem.at(str(file)))
        sys.exit(1)
    configuration = snapshot.configuration
    for note in [*find_exposed(configuration.private_files), *find_loopholes(snapshot.table)]:
        click.echo(note.at(str(file)))
    counted = [
        _count(len(configuration.routes), "route"),
        _count(len(configuration.upstreams), "upstream"),
        _count(len(configuration.tests), "test"),
    ]
    click.echo(f"{file}: good ({', '.join(counted)})")


@cli.command()
@click.argument("method")
@click.argument("url")
@config_option
@click.option("--subject", help="Who is signed in; without it, nobody is.")
@click.option("--roles", default="", help="The caller's roles, with commas.")
@click.option("--groups", default="", help="The caller's groups, with commas.")
@click.option("--scopes", default="", help="The caller's scopes, with commas.")
@click.option("--tenant", default="", help="The caller's tenant.")
@click.option("--acr", default="", help="How the caller signed in, mfa for instance.")
@click.option("--claims", default="", help="The caller's other claims, a JSON object.")
@click.option("--header", "headers", multiple=True, help="A field of the request, 'Name: value'.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(  # noqa: PLR0913 - one parameter for each option
    *,
    method: str,
    url: str,
    file: Path,
    subject: str | None,
    roles: str,
    groups: str,
    scopes: str,
    tenant: str,
    acr: str,
    claims: str,
    headers: tuple[str, ...],
    as_json: bool,
) -> None:
    r"""Say what the gateway would do with a request, and why.

    URL is absolute, or a path on the host of public_url.

    \b
    Exit code: 0 allowed, 3 challenged, 4 denied, 5 no route.
    """
    described = {
        "--roles": roles,
        "--groups": groups,
        "--scopes": scopes,
        "--tenant": tenant,
        "--acr": acr,
        "--claims": claims,
    }
    for option, value in described.items():
        if value and subject is None:
            raise click.UsageError(f"{option} describes a caller: add --subject")
    caller: Caller = ABSENT
    if subject is not None:
        caller = Authenticated(
            Identity(
                subject=subject,
                roles=_split(roles),
                groups=_split(groups),
                scopes=_split(scopes),
                tenant=tenant,
                acr=acr,
                claims=_read_claims(claims),
            )
        )
    fields = tuple(_read_field(header) for header in headers)
    snapshot = require_snapshot(file)
    explanation = explain_request(snapshot, method.upper(), url, caller=caller, fields=fields)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(explanation), indent=2, ensure_ascii=False))
    else:
        click.echo(render_explanation(explanation))
    sys.exit(explanation.exit_code)


@cli.command()
@config_option
def routes(file: Path) -> None:
    """Print the route table in matching order: the first line that fits takes the request."""
    click.echo(render_routes(require_snapshot(file).table))


@cli.command()
def schema() -> None:
    """Print the JSON Schema of routes.yaml, for editors to complete from."""
    click.echo(json.dumps(SCHEMA, indent=2, ensure_ascii=False))


def main() -> None:
    """Run the command line."""
    cli(prog_name="doorward")


def require_snapshot(file: Path) -> Snapshot:
    """Return the snapshot of *file*; with problems, print them on stderr and exit with 1."""
    snapshot = _build(file)
    if isinstance(snapshot, list):
        for problem in snapshot:
            click.echo(problem.at(str(file)), err=True)
        sys.exit(1)
    return snapshot


def _build(file: Path) -> Snapshot | list[Problem]:
    if not file.is_file():
        raise click.ClickException(f"{file} is no file: name the route file, or write one there")
    configuration = load_configuration(file, examine=examine_routes)
    if isinstance(configuration, list):
        return configuration
    return build_snapshot(configuration, generation=1)


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _read_claims(text: str) -> dict[str, object]:
    if not text:
        return {}
    try:
        claims = json.loads(text)
    except json.JSONDecodeError as error:
        raise click.UsageError(f"--claims is no JSON: {error}") from error
    if not isinstance(claims, dict):
        raise click.UsageError('--claims must be a JSON object, such as {"department": "it"}')
    return claims


def _read_field(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.UsageError(f"--header {text!r} is no field: write 'Name: value'")
    return name.strip(), value.strip()


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
