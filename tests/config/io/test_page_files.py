from base64 import b64decode
from pathlib import Path

import pytest

from config.io.files import load_configuration
from config.io.page_files import MAXIMUM_FILE, MAXIMUM_LOGO
from config.model import Configuration, PageSettings
from config.problem import Problem
from tests.config.reading_support import MINIMAL

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
PNG = b"\x89PNG\r\n\x1a\n..."


def load(directory: Path, pages: str) -> Configuration | list[Problem]:
    file = directory / "routes.yaml"
    file.write_text(f"{MINIMAL}pages: {pages}\n")
    return load_configuration(file, {})


def good(directory: Path, pages: str) -> PageSettings:
    loaded = load(directory, pages)
    assert isinstance(loaded, Configuration), loaded
    return loaded.pages


def bad(directory: Path, pages: str) -> list[str]:
    loaded = load(directory, pages)
    assert isinstance(loaded, list)
    return [problem.at("routes.yaml") for problem in loaded]


def test_without_the_key_nothing_is_read(tmp_path: Path) -> None:
    assert good(tmp_path, "{}") == PageSettings()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("logo.svg", SVG, "image/svg+xml"),
        ("logo.SVG", b"\xef\xbb\xbf\n" + SVG, "image/svg+xml"),
        ("logo.png", PNG, "image/png"),
        ("logo.webp", b"RIFF....WEBP", "image/webp"),
    ],
)
def test_the_logo_becomes_part_of_the_page(
    tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(content)
    head, _, data = good(tmp_path, f"{{logo: {name}}}").logo.partition(",")
    assert head == f"data:{kind};base64"
    assert b64decode(data) == content


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("logo.gif", b"GIF89a", ".svg, .png, .webp"),
        ("logo.png", SVG, "no PNG"),
        ("logo.svg", PNG, "no SVG"),
        ("logo.svg", None, "No such file"),
        ("logo.svg", b"<" * (MAXIMUM_LOGO + 1), "32 KiB"),
    ],
    ids=["kind", "no-png", "no-svg", "missing", "large"],
)
def test_a_logo_that_cannot_be_shown_is_a_problem_at_its_key(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (problem,) = bad(tmp_path, f"{{logo: {name}}}")
    line = MINIMAL.count("\n") + 1
    assert problem.startswith(f"routes.yaml:{line}:15: pages.logo: ")
    assert words in problem


def test_templates_style_and_catalogues_are_read_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("login.html", "style.css", "fr.po", "README.md", ".html~"):
        (folder / name).write_text(name)
    pages = good(tmp_path, "{folder: own}")
    assert dict(pages.files) == {name: name for name in ("fr.po", "login.html", "style.css")}
    assert pages.folder == str(folder)


def test_a_folder_that_is_not_there_is_a_problem_at_its_key(tmp_path: Path) -> None:
    (problem,) = bad(tmp_path, "{folder: own}")
    assert problem.startswith(f"routes.yaml:{MINIMAL.count(chr(10)) + 1}:17: pages.folder: ")


def test_a_file_that_cannot_be_read_is_a_problem_of_that_file(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "a.html").write_bytes(b"x" * (MAXIMUM_FILE + 1))
    (folder / "b.html").mkdir()
    (folder / "c.po").write_bytes(b"\n\n\xff")
    problems = bad(tmp_path, "{folder: own}")
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        f"{folder}/{place}" for place in ("a.html:1:1", "b.html:1:1", "c.po:3:1")
    ]
