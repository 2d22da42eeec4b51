"""The vectors that the wire tests send: the given corpora, and those we thought of ourselves.

`tests/corpora/NAME.jsonl` came from outside and stays as it came; `tests/corpora/own/NAME.jsonl`
is ours, in the same form, with the bytes readable: `raw` is text whose characters are bytes.
"""

import base64
import json
from pathlib import Path
from typing import Any

CORPORA = Path(__file__).parents[1] / "corpora"


def given(name: str) -> list[dict[str, Any]]:
    """Return the vectors of the given corpus called *name*."""
    return _read(CORPORA / f"{name}.jsonl")


def own(name: str) -> list[dict[str, Any]]:
    """Return our own vectors of the kind *name*; their `raw` becomes `raw_b64`."""
    vectors = _read(CORPORA / "own" / f"{name}.jsonl")
    for vector in vectors:
        for key in [key for key in vector if key in ("raw", "after")]:
            vector[f"{key}_b64"] = base64.b64encode(vector[key].encode("latin-1")).decode()
    return vectors


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
