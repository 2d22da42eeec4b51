import os
from pathlib import Path

import pytest

from config.document import MAXIMUM_SIZE
from config.io.files import load_configuration
from config.model import Configuration
from config.problem import Problem
from tests.config.reading_support import MINIMAL


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routes.yaml"
    path.write_text(MINIMAL)
    return path


def loaded(path: Path, **environment: str) -> Configuration:
    result = load_configuration(path, environment)
    assert isinstance(result, Configuration), result
    return result


def refused(path: Path, **environment: str) -> list[Problem]:
    result = load_configuration(path, environment)
    assert isinstance(result, list)
    return result


def test_a_file_is_loaded_and_its_addresses_are_moved(file: Path) -> None:
    assert loaded(file).server.listen.port == 8080
    assert loaded(file, DOORWARD_LISTEN="127.0.0.1:9").server.listen.port == 9


def test_auto_workers_are_counted(file: Path) -> None:
    file.write_text(MINIMAL + "server: {workers: auto}\n")
    assert loaded(file).server.workers == len(os.sched_getaffinity(0))


def test_secrets_come_from_files_beside_the_route_file(file: Path) -> None:
    (file.parent / "token").write_text("t0ken\n")
    file.write_text(MINIMAL + "admin: {token: '${file:token}'}\n")
    token = loaded(file).admin.token
    assert token is not None
    assert token.value == "t0ken"


@pytest.mark.parametrize(
    ("content", "part"), [(None, "No such file"), (b"\xff", "no UTF-8"), (b"x" * 2**21, "1 MiB")]
)
def test_a_secret_that_cannot_be_read_is_told(file: Path, content: bytes | None, part: str) -> None:
    if content is not None:
        (file.parent / "token").write_bytes(content)
    file.write_text(MINIMAL + "admin: {token: '${file:token}'}\n")
    (problem,) = refused(file)
    assert (problem.line, problem.column) == (9, 17)
    assert part in problem.message


def test_a_path_that_no_file_can_have_is_told(file: Path) -> None:
    file.write_text(MINIMAL + 'admin: {token: "${file:a\\0b}"}\n')
    assert "cannot be read" in refused(file)[0].message


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path / "none.yaml")
    assert problem == Problem(1, 1, "the file cannot be read: No such file or directory")
    (problem,) = refused(tmp_path)
    assert problem.message == "the file cannot be read: Is a directory"


def test_a_file_that_is_no_utf8_is_told_at_the_place(file: Path) -> None:
    file.write_bytes("a: 1\né: ".encode() + b"\xff\n")
    assert refused(file) == [Problem(2, 4, "the file is not valid UTF-8 here")]


def test_a_huge_file_is_not_taken_into_memory(file: Path) -> None:
    with file.open("wb") as target:
        target.truncate(MAXIMUM_SIZE * 40)
    (problem,) = refused(file)
    assert "larger than" in problem.message
