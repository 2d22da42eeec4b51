"""Read what the operator's own pages are made of: the logo, templates and catalogues."""

from base64 import b64encode
from pathlib import Path

import msgspec

from config.model import Configuration, PageSettings
from config.problem import Problem

MAXIMUM_LOGO: int = 32 * 1024
"""Bytes. It stands in every page."""
MAXIMUM_FILE: int = 256 * 1024
"""Bytes of a template, a style sheet or a catalogue."""

_LOGOS = {
    ".svg": ("image/svg+xml", b"<"),
    ".png": ("image/png", b"\x89PNG\r\n\x1a\n"),
    ".webp": ("image/webp", b"RIFF"),
}
_KINDS = {".html", ".css", ".po"}


def read_page_files(configuration: Configuration) -> Configuration | list[Problem]:
    """Return *configuration* with the content of the files that `pages` names, or what is wrong."""
    pages = configuration.pages
    problems: list[Problem] = []
    logo = _read_logo(pages, problems) if pages.logo_file else ""
    files = _read_folder(pages, problems) if pages.folder else ()
    if problems:
        return problems
    pages = msgspec.structs.replace(pages, logo=logo, files=files)
    return msgspec.structs.replace(configuration, pages=pages)


def _read_logo(pages: PageSettings, problems: list[Problem]) -> str:
    """Return the logo as a `data:` URL: a page loads nothing."""
    path = Path(pages.logo_file)

    def report(why: str) -> str:
        problems.append(Problem(*pages.place_of_logo, f"pages.logo: {why}"))
        return ""

    if path.suffix.lower() not in _LOGOS:
        return report(f"it ends in none of {', '.join(_LOGOS)}")
    kind, beginning = _LOGOS[path.suffix.lower()]
    try:
        with path.open("rb") as file:
            content = file.read(MAXIMUM_LOGO + 1)
    except OSError as error:
        return report(f"the file cannot be read: {error.strerror}")
    if len(content) > MAXIMUM_LOGO:
        return report(f"it is larger than {MAXIMUM_LOGO // 1024} KiB, and would be in every page")
    if not content.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(beginning):
        return report(f"it is no {path.suffix[1:].upper()}")
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _read_folder(pages: PageSettings, problems: list[Problem]) -> tuple[tuple[str, str], ...]:
    """Return name and content of the files in the folder, sorted by name."""
    folder = Path(pages.folder)
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix in _KINDS)
    except OSError as error:
        message = f"pages.folder: it cannot be read: {error.strerror}"
        problems.append(Problem(*pages.place_of_folder, message))
        return ()
    found: list[tuple[str, str]] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                content = file.read(MAXIMUM_FILE + 1)
            if len(content) > MAXIMUM_FILE:
                problems.append(
                    Problem(1, 1, f"it is larger than {MAXIMUM_FILE // 1024} KiB", str(path))
                )
                continue
            found.append((path.name, content.decode()))
        except OSError as error:
            problems.append(Problem(1, 1, f"it cannot be read: {error.strerror}", str(path)))
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            problems.append(Problem(line, 1, "it is no UTF-8 here", str(path)))
    return tuple(found)
