"""The defences that `make mutants` takes out are all there, and there is one for every threat."""

import re
from pathlib import Path

import pytest

from tests.mutants.defences import ROOT, Defence, read_defences

DEFENCES = read_defences()
THREATS = [
    line.split("|")[2].strip()
    for line in (ROOT / "docs" / "threat-model.md").read_text().splitlines()
    if re.match(r"\| [STRIDE] \|", line)
]


@pytest.mark.parametrize("defence", DEFENCES, ids=[f"{d.file}-{d.test[6:]}" for d in DEFENCES])
def test_a_defence_can_be_taken_out(defence: Defence) -> None:
    text = (ROOT / defence.file).read_text()
    assert defence.taken_out_of(text) != text
    file, _, name = defence.test.partition("::")
    assert re.search(rf"^ *(async )?def {name or 'test_'}", (ROOT / file).read_text(), re.MULTILINE)


def test_every_threat_has_a_defence_whose_loss_is_noticed() -> None:
    assert [threat for threat in THREATS if threat not in {d.threat for d in DEFENCES}] == []


def test_no_defence_stands_against_a_threat_that_nobody_wrote_down() -> None:
    assert [d.threat for d in DEFENCES if d.threat not in THREATS] == []


def test_a_defence_that_is_not_where_the_list_says_is_told() -> None:
    with pytest.raises(ValueError, match="0 times"):
        DEFENCES[0].taken_out_of(Path(__file__).name)
