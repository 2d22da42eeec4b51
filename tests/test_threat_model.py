"""Every defence that the threat model names has its test."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "threat-model.md").read_text()
ROWS = [line for line in TEXT.splitlines() if re.match(r"\| [STRIDE] \|", line)]


def test_no_threat_stands_without_a_test() -> None:
    assert len(ROWS) > 50
    assert [row for row in ROWS if "`tests/" not in row.split("|")[4]] == []


def test_every_letter_of_stride_has_been_thought_of() -> None:
    assert {row[2] for row in ROWS} == set("STRIDE")
