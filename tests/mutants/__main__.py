"""See each defence fail: take it out, and its test must turn red.

`make mutants`, or `python -m tests.mutants [PART OF A THREAT OR FILE ...]`. Works in a copy of the
project, so nothing here is touched, and ends with the defences whose loss nobody noticed.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.mutants.defences import ROOT, Defence, read_defences

_SECONDS = 600
"""For one test file; where it takes longer, nothing has been seen, neither red nor green."""
_FAILED = 1
"""Pytest's exit status for "tests ran, and some failed"; others are no red."""


def main(words: list[str]) -> int:
    """Try the defences whose threat or file has one of *words* in it; all without any."""
    chosen = [
        each
        for each in read_defences()
        if not words or any(word in f"{each.threat} {each.file}" for word in words)
    ]
    for each in chosen:  # a list that is out of date is told at once, not half an hour later
        each.taken_out_of((ROOT / each.file).read_text())
    with tempfile.TemporaryDirectory(prefix="doorward-mutants-") as folder:
        copy = Path(folder) / "doorward"
        _copy_project(copy)
        green = [each for each in chosen if not _turns_red(copy, each)]
    print(f"{len(chosen) - len(green)} of {len(chosen)} defences were missed when taken out")  # noqa: T201 - a command
    return 1 if green or not chosen else 0


def _copy_project(copy: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")


def _turns_red(copy: Path, defence: Defence) -> bool:
    file = copy / defence.file
    before = file.read_text()
    try:
        file.write_text(defence.taken_out_of(before))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", defence.test]
        try:
            ended = subprocess.run(
                command,
                cwd=copy,
                env={"PATH": "/usr/sbin:/usr/bin:/bin", "PYTHONPATH": str(copy)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            )
            status, output = ended.returncode, ended.stdout.decode(errors="replace")
        except subprocess.TimeoutExpired:
            status, output = None, f"no end within {_SECONDS} s, which says nothing"
    finally:
        file.write_text(before)
    red = status == _FAILED
    last = output.strip().splitlines()[-1:] or ["nothing was printed"]
    print(f"{'red' if red else 'GREEN'}  {defence.file}  {defence.threat}: {last[0]}", flush=True)  # noqa: T201 - a command
    return red


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
