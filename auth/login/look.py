"""What one site has of its own on the pages: name, logo, colours, templates, languages."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import msgspec

from auth.login.own_templates import Fault
from auth.wording import CatalogueError, Wordings, site_wordings
from config.colours import mixed, readable
from config.model import Configuration, PageSettings
from config.problem import Problem

_DIRECTORY = Path(__file__).with_name("pages")
_WHITE, _BLACK, _DEEP = "#ffffff", "#000000", "#10182c"
_HOVER = 0.2
"""How much darker or lighter a button is while it is pointed at."""


class Look(msgspec.Struct, frozen=True):
    """How the pages of one site look."""

    site: str
    """At the top of them; empty for whoever knows none."""
    style: str = ""
    """The style sheet; empty: ours."""
    logo: str = ""
    """A `data:` URL; empty: our door."""
    templates: Mapping[str, str] = {}
    """The operator's own, by file name."""

    @classmethod
    def of(cls, configuration: Configuration) -> "Look":
        """Return the look that *configuration* describes."""
        pages = configuration.pages
        files = dict(pages.files)
        site = pages.name or urlsplit(configuration.server.public_url).netloc
        style = files.get("style.css", our_style()) + _colours(pages)
        templates = {name: text for name, text in files.items() if name.endswith(".html")}
        return cls(site, style, pages.logo, templates)


def wordings_of(configuration: Configuration) -> Wordings:
    """Return the languages of *configuration*, which has been examined.

    Raises:
        CatalogueError, KeyError: it has not.
    """
    pages = configuration.pages
    return site_wordings(_catalogues(pages), default=pages.language)


def wording_problems(configuration: Configuration) -> list[Problem]:
    """Return what is wrong with the operator's catalogues and their choice of language."""
    pages = configuration.pages
    problems: list[Problem] = []
    good: dict[str, str] = {}
    for language, text in _catalogues(pages).items():
        try:
            site_wordings({language: text})
        except CatalogueError as error:
            problems.append(problem_of(pages, Fault(f"{language}.po", error.line, str(error))))
        else:
            good[language] = text
    if not problems:
        try:
            site_wordings(good, default=pages.language)
        except KeyError:
            known = ", ".join(site_wordings(good).languages)
            message = f"pages.language: there is {known}; another one needs a catalogue in folder"
            problems.append(Problem(*pages.place_of_language, message))
    return problems


def problem_of(pages: PageSettings, fault: Fault) -> Problem:
    """Return *fault* as a problem, at its place in the operator's file."""
    return Problem(fault.line, 1, fault.message, str(PurePosixPath(pages.folder, fault.file)))


def _catalogues(pages: PageSettings) -> dict[str, str]:
    return {name.removesuffix(".po"): text for name, text in pages.files if name.endswith(".po")}


@cache
def our_style() -> str:
    """Return Doorward's style sheet."""
    return (_DIRECTORY / "style.css").read_text(encoding="utf-8")


@cache
def passkey_script() -> str:
    """Return the script that pages with passkeys run."""
    return (_DIRECTORY / "passkeys.js").read_text(encoding="utf-8")


@cache
def our_templates() -> Mapping[str, str]:
    """Return Doorward's templates, by file name."""
    paths = sorted(_DIRECTORY.glob("*.html"))
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def _colours(pages: PageSettings) -> str:
    """Return the part of the style sheet that puts the operator's colours in.

    `config.checks` has seen that the accent can be read on our grounds, so white and our darkest
    colour, which stand out from it more than these do, can be read on it.
    """
    light = pages.accent
    dark = pages.accent_dark or (readable(light, dark=True) if light else "")
    parts = []
    if light:
        parts.append(_rule(light, mixed(light, _BLACK, _HOVER), _WHITE))
    if dark:
        rule = _rule(dark, mixed(dark, _WHITE, _HOVER), _DEEP)
        parts.append(f"@media (prefers-color-scheme: dark) {{ {rule} }}")
    return "".join(f"\n{part}\n" for part in parts)


def _rule(accent: str, strong: str, on: str) -> str:
    return f":root {{ --accent: {accent}; --accent-strong: {strong}; --on-accent: {on}; }}"
