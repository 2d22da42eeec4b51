"""The list of defences and how each is taken out."""

import tomllib
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
_LIST = Path(__file__).with_name("defences.toml")


class Defence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of code that stands against a threat."""

    threat: str
    """As its row in `docs/threat-model.md` says it."""
    file: str
    takes_out: str
    """Text that stands exactly once in the file."""
    test: str
    """What must fail without it, as pytest takes it."""
    puts: str = ""
    also: tuple[tuple[str, str], ...] = ()
    """Further replacements, where the defence stands in two places."""

    def taken_out_of(self, text: str) -> str:
        """Return *text*, the file's, without the defence.

        Raises:
            ValueError: the defence is not there, or more than once.
        """
        for old, new in ((self.takes_out, self.puts), *self.also):
            if text.count(old) != 1:
                raise ValueError(f"{self.file}: {text.count(old)} times, not once: {old!r}")
            text = text.replace(old, new)
        return text


def read_defences() -> list[Defence]:
    """Return all of them, in the order of the list."""
    return msgspec.convert(tomllib.loads(_LIST.read_text())["defence"], list[Defence])
