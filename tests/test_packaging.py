"""What is installed from a wheel is whole: templates, catalogues, and the demo."""

import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.end_to_end.running import ROOT, free_port

SOURCES = ("config", "auth", "gateway", "examples")
BUILD = (
    "import setuptools.build_meta as backend, sys; to = sys.argv[1]; "
    "backend.build_wheel(to); backend.build_sdist(to)"
)
READY_SECONDS = 60.0


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build in a copy, since building leaves things behind; return where the wheel is unpacked."""
    directory = tmp_path_factory.mktemp("package")
    tree = directory / "tree"
    for name in SOURCES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-c", BUILD, str(directory)]
    done = subprocess.run(command, cwd=tree, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is absent from the `packages` configuration" not in done.stderr
    (source,) = directory.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        assert any(name.endswith("/examples/notes/static/notes.js") for name in archive.getnames())
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "site")
    return directory / "site"


def test_every_file_of_the_packages_is_in_the_wheel(built: Path) -> None:
    names = {
        path.relative_to(ROOT).as_posix()
        for source in SOURCES
        for path in (ROOT / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    installed = {
        name.replace("examples/notes/", "gateway/notes/")
        for name in names - {"examples/__init__.py"}
    }
    assert installed == {
        path.relative_to(built).as_posix()
        for path in built.rglob("*")
        if path.is_file() and ".dist-info" not in str(path)
    }


def test_the_demo_of_a_wheel_signs_people_in_in_their_language(built: Path, tmp_path: Path) -> None:
    port = free_port()
    routes = (
        (ROOT / "routes.yaml").read_text("utf-8").replace("127.0.0.1:9001", f"127.0.0.1:{port}")
    )
    (tmp_path / "routes.yaml").write_text(routes, "utf-8")
    gateway = subprocess.Popen(
        [sys.executable, "-P", "-c", "from gateway.cli import main; main()", "run", "--demo"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": str(built),
            "DOORWARD_LISTEN": f"127.0.0.1:{free_port()}",
            "DOORWARD_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        },
    )
    said: list[str] = []
    try:
        assert gateway.stdout is not None
        for line in gateway.stdout:
            said.append(line)
            if "Ctrl-C stops it" in line:
                break
        (where,) = [line.split()[-1] for line in said if "Public address" in line]
        asked = urllib.request.Request(
            f"{where}/.doorward/login", headers={"Accept-Language": "de", "Accept": "text/html"}
        )
        with urllib.request.urlopen(asked, timeout=READY_SECONDS) as answer:
            page = answer.read().decode()
        assert "Anmelden" in page
        with urllib.request.urlopen(where, timeout=READY_SECONDS) as answer:
            assert "<html" in answer.read().decode(), "the front page of the demo"
    except (ValueError, OSError) as error:
        raise AssertionError("".join(said)) from error
    finally:
        gateway.terminate()
        gateway.communicate()
    assert gateway.returncode == 0
