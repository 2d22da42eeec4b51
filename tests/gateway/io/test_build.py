"""Which build it is, where operators look for that."""

from importlib.machinery import ExtensionFileLoader
from importlib.metadata import version

from click.testing import CliRunner

from gateway import reading
from gateway.cli import cli
from gateway.io import build


def test_the_version_says_whether_it_is_compiled() -> None:
    said = CliRunner().invoke(cli, ["--version"]).stdout
    words = " (compiled)" if build.COMPILED else ""
    assert said == f"doorward, version {version('doorward')}{words}\n"


def test_the_build_is_that_of_the_modules_that_serve() -> None:
    assert reading.__spec__ is not None
    assert isinstance(reading.__spec__.loader, ExtensionFileLoader) is build.COMPILED
