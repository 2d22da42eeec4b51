"""`doorward accounts` on a route file of the test's own."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import cli
from tests.gateway.account_commands import PASSWORD, ROUTES, Doorward


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
