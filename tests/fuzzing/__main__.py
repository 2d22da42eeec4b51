"""Run one fuzzer: `python -m tests.fuzzing TARGET SECONDS`, or `list` for the names.

What it has learnt stays in `.fuzz/TARGET`, so that the next run goes on from there. An input that
breaks a rule is written to `.fuzz/findings/`; put it beside the others in `tests/fuzzing/findings/`
as `TARGET-what-it-shows`, and the tests replay it for ever.
"""

import importlib
import sys
from pathlib import Path

from tests.fuzzing.seeds import dictionary, seeds

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".fuzz"
LONGEST = 120
"""Seconds of wall time for one input: more than a machine with other things to do needs, and than a
conversation waits by itself, which then says for what."""


def main() -> None:
    """Fuzz until the time is over or a rule is broken."""
    fuzzer = importlib.import_module("atheris")  # not in the lock: `make fuzz` installs it
    name, seconds = sys.argv[1], sys.argv[2]
    with fuzzer.instrument_imports(include=["auth", "gateway"]):
        targets = importlib.import_module("tests.fuzzing.targets")
        conversation = importlib.import_module("tests.fuzzing.conversation")
    # Without atheris's hook into `re`: it knows no possessive repetition.
    known = {**targets.PURE, "conversation": conversation.conversation}
    corpus, findings = WORK / name, WORK / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    words = WORK / "words.dict"
    words.write_text(dictionary())
    options = (
        f"-dict={words}",
        f"-max_total_time={seconds}",
        f"-artifact_prefix={findings}/{name}-",
        "-max_len=4096",
        f"-timeout={LONGEST}",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        "-verbosity=1",
    )
    fuzzer.Setup([name, *options, str(corpus)], known[name])
    fuzzer.Fuzz()


if __name__ == "__main__":
    main()
