"""The Dockerfile and what its build is given agree; no engine is needed to see that."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def copied() -> list[str]:
    """Return what the Dockerfile copies from the project."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_the_build_is_given_what_it_copies() -> None:
    rules = (ROOT / ".dockerignore").read_text().split()
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    assert set(copied()) == let_in
    assert all((ROOT / source).exists() for source in copied())


def test_the_image_is_the_compiled_build_and_carries_no_compiler() -> None:
    building, running = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert "DOORWARD_COMPILED=1" in building
    assert "setup.py" in copied()
    assert "gcc" in building
    assert "gcc" not in running
    assert "/opt/tools" not in running
