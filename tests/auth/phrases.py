"""Every text that people read, found in the templates and the modules.

`python -m tests.auth.phrases de` brings the German catalogue up to date: it adds what is missing,
untranslated, and takes out what nobody says any more. Without a language it says which catalogues
lack something.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from babel.messages import Catalog
from babel.messages.pofile import write_po
from jinja2.ext import babel_extract

from auth.wording import read_catalogue

ROOT = Path(__file__).parents[2]
LANGUAGES = ROOT / "auth/languages"

_TEXTS = {
    "Problem": ((2, "title"), (3, "detail")),
    "Words": ((2, "heading"), (3, "detail")),
    "phrase": ((0, ""),),
    "counted": ((0, ""),),
}
"""Which arguments of a call are texts."""


class Phrase(NamedTuple):
    """A text, where it is said first, and what is said of several things."""

    text: str
    place: str
    plural: str = ""


@cache
def phrases() -> dict[str, Phrase]:
    """Return what has to be in every catalogue, by its text."""
    found: dict[str, Phrase] = {}
    for package in ("auth", "gateway"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for text, plural in _of_module(path):
                found.setdefault(text, Phrase(text, str(path.relative_to(ROOT)), plural))
    for path in sorted((ROOT / "auth/login/pages").glob("*.html")):
        for text, plural in _of_template(path):
            found.setdefault(text, Phrase(text, str(path.relative_to(ROOT)), plural))
    return found


def _of_module(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        for position, name in _TEXTS.get(called, ()):
            given = [*node.args[position : position + 1]]
            given += [each.value for each in node.keywords if each.arg == name]
            for text in filter(None, map(_constant, given)):
                yield text, _constant(node.args[1]) if called == "counted" else ""


def _constant(node: ast.expr) -> str:
    """Return the text that *node* is; one that is a value alone (`%(detail)s`) is none."""
    text = node.value if isinstance(node, ast.Constant) else ""
    return text if isinstance(text, str) and text != "%(detail)s" else ""


def _of_template(path: Path) -> Iterator[tuple[str, str]]:
    options = {"newstyle_gettext": "true", "trimmed": "true", "silent": "false"}
    with path.open("rb") as file:
        for _, _, message, _ in babel_extract(file, ("gettext", "ngettext", "_"), [], options):
            text, plural = message[:2] if isinstance(message, tuple) else (message, None)
            yield text or "", plural or ""


def lacking(language: str) -> list[str]:
    """Return what the catalogue of *language* has no translation for, or should not have."""
    catalogue = read_catalogue(language, (LANGUAGES / f"{language}.po").read_text("utf-8"))
    known: set[str] = set()
    for message in catalogue:
        strings = message.string if isinstance(message.string, tuple) else (message.string,)
        if message.id and not message.fuzzy and all(strings):
            known.add(message.id[0] if isinstance(message.id, tuple | list) else message.id)
    missing = [f"{each.place}: {text}" for text, each in phrases().items() if text not in known]
    return missing + [f"nobody says: {text}" for text in known - set(phrases())]


def update(language: str) -> None:
    """Bring the catalogue of *language* up to date."""
    path = LANGUAGES / f"{language}.po"
    old = read_catalogue(language, path.read_text(encoding="utf-8")) if path.exists() else None
    new = Catalog(locale=language, fuzzy=False)
    for text, place, plural in phrases().values():
        known = old.get(text) if old else None
        untranslated = ("",) * new.num_plurals if plural else ""
        string = known.string if known else untranslated
        new.add((text, plural) if plural else text, string, locations=[(place, 0)])
    written = BytesIO()
    write_po(written, new, omit_header=True, include_lineno=False, width=100)
    header = (
        'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n'
        f'"Language: {language}\\n"\n"Plural-Forms: {new.plural_forms}\\n"\n\n'
    )
    path.write_text(header + written.getvalue().decode(), encoding="utf-8")


def main() -> int:
    """Do what the arguments say; return the exit code."""
    for language in sys.argv[1:]:
        update(language)
    faults = {path: lacking(path.stem) for path in sorted(LANGUAGES.glob("*.po"))}
    for path, lacks in faults.items():
        for each in lacks:
            sys.stderr.write(f"{path.relative_to(ROOT)}: {each}\n")
        if lacks and not sys.argv[1:]:
            sys.stderr.write(f"run: python -m tests.auth.phrases {path.stem}, then translate\n")
    return 1 if any(faults.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
