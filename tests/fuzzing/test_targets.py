"""The fuzzers' rules, held to the vectors, to what was once found, and to a while of hypothesis."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzing.conversation import conversation, stop
from tests.fuzzing.seeds import seeds
from tests.fuzzing.targets import PURE

FINDINGS = Path(__file__).parent / "findings"
TARGETS = {**PURE, "conversation": conversation}
EXAMPLES = 2000 if os.environ.get("CI") else 200
PIECES = {name: sorted({seed for seed in seeds(name) if len(seed) < 2000}) for name in TARGETS}
BITS = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b",",
            b";",
            b"=",
            b'"',
            b"\\",
            b"%",
            b"/",
            b".",
        ),
        *(
            b"%2e",
            b"%2F",
            b"%00",
            b"//",
            b"..",
            b"\0",
            b"\x7f",
            b"\xe9",
            b"_",
            b"-",
            b"0",
            b"chunked",
        ),
    ]
)
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), BITS | st.binary(max_size=3)))


def edited(seed: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, cut, put in edits[:4]:
        at = int(place * len(seed))
        seed = seed[:at] + put + seed[at + cut :]
    return seed


def findings() -> list[Path]:
    return sorted(FINDINGS.glob("*-*"))


@pytest.mark.parametrize("name", PURE)
def test_every_vector_keeps_the_rules(name: str) -> None:
    for seed in seeds(name):
        PURE[name](seed)


@pytest.mark.parametrize("finding", findings(), ids=lambda path: path.name)
def test_what_was_found_once_is_not_found_again(finding: Path) -> None:
    TARGETS[finding.name.partition("-")[0]](finding.read_bytes())


@pytest.mark.parametrize("name", PURE)
def test_edited_vectors_keep_the_rules(name: str) -> None:
    check(PURE[name], PIECES[name], EXAMPLES)


def test_edited_conversations_keep_the_rules() -> None:
    try:
        check(conversation, PIECES["conversation"], EXAMPLES // 4)
    finally:
        stop()


def check(target: Callable[[bytes], None], pieces: list[bytes], examples: int) -> None:
    source = st.sampled_from(pieces) if pieces else st.just(b"")

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), deadline=None)
    @given(source, EDITS)
    def run(seed: bytes, edits: list[tuple[float, int, bytes]]) -> None:
        target(edited(seed, edits))

    run()
