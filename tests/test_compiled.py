"""The compiled build is what `setup.py` says, and the default build is compiled nowhere."""

import importlib
import os
import re
import runpy
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED: dict[str, str] = runpy.run_path(str(ROOT / "setup.py"), run_name="listing")["COMPILED"]
WANTED = os.environ.get("DOORWARD_COMPILED") == "1"
"""Whether these tests run on the compiled build; `make test-compiled` sets it."""


def is_compiled(path: str) -> bool:
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert module.__spec__ is not None
    return isinstance(module.__spec__.loader, ExtensionFileLoader)


@pytest.mark.parametrize("path", LISTED)
def test_what_is_listed_is_compiled_in_that_build_alone(path: str) -> None:
    assert is_compiled(path) is WANTED


def test_a_process_that_is_started_is_of_the_same_build() -> None:
    """As a supervisor starts its workers: from somewhere else, with the same environment."""
    program = "import gateway.io.serving as it; print(it.__spec__.loader)"
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True).stdout
    assert ("ExtensionFileLoader" in said) is WANTED


@pytest.mark.parametrize("path", LISTED)
def test_no_class_is_listed_whose_options_would_be_lost(path: str) -> None:
    """mypyc drops `frozen=True` of a class with a metaclass, and compiles it all the same."""
    assert re.search(r"^class .*msgspec\.Struct", (ROOT / path).read_text(), re.MULTILINE) is None
