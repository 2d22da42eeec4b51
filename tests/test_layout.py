"""The tests mirror the packages, and the documents name what there is."""

import re
from pathlib import Path

import pytest

from auth.decision import Reason

ROOT = Path(__file__).parents[1]
PACKAGES = ("config", "auth", "gateway")

RECORDS_ONLY = {
    "config/model.py",
    "config/problem.py",
    "auth/decision.py",
    "auth/identity.py",
    "auth/ports.py",
    "auth/login/messages.py",
    "gateway/answer.py",
    "gateway/bad_request.py",
    "gateway/events.py",
    "gateway/__main__.py",
}
"""Modules of records and protocols, without behaviour of their own."""


def modules() -> list[str]:
    """Return every module of the packages, as a path from the root."""
    found = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    names = [path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py"]
    return sorted(set(names) - RECORDS_ONLY)


@pytest.mark.parametrize("module", modules())
def test_a_module_has_a_test_file_of_its_own(module: str) -> None:
    path = Path(module)
    own = ROOT / "tests" / path.parent / f"test_{path.stem}.py"

    assert own.exists(), f"{module} has no {own.relative_to(ROOT)}"


def test_every_link_between_documents_leads_somewhere() -> None:
    documents = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)} -> {target}"
        for document in documents
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]

    assert broken == []


def test_every_reason_is_documented() -> None:
    text = (ROOT / "docs" / "reasons.md").read_text()

    assert [reason for reason in Reason if f"`{reason}`" not in text] == []


def test_no_lock_file_names_an_index_or_lacks_a_hash() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        text = lock.read_text()
        pins = len(re.findall(r"^[a-z0-9][^\s]*==", text, re.MULTILINE))

        assert "://" not in text, lock.name
        assert "--index" not in text
        assert pins
        assert len(re.findall(r"== *\S+ \\\n +--hash=sha256:", text)) == pins
