"""The commands that only need the route file, as processes see them: words and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config.schema import SCHEMA
from gateway.cli import cli
from tests.gateway.decision_table import ROUTES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "routes.yaml"
    path.write_text(ROUTES)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_check_is_content_with_a_good_file(file: Path) -> None:
    result = run("check", file)
    assert result.exit_code == 0
    assert result.stdout == f"{file}: good (17 routes, 2 upstreams, 0 tests)\n"


def test_check_names_every_problem_with_its_place(file: Path) -> None:
    file.write_text(ROUTES.replace("access: optional", "acess: optional").replace("video:", "vid:"))
    result = run("check", file)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) >= 3
    for line in lines:
        place, _, message = line.removeprefix(f"{file}:").partition(": ")
        number, _, column = place.partition(":")
        assert int(number) > 0
        assert int(column) > 0
        assert message


def test_check_names_what_only_compiling_finds(file: Path) -> None:
    second = "  - id: again\n    match: {path: '/notes/{n}', methods: [DELETE]}\n"
    file.write_text(
        ROUTES.replace("{roles: [admin]}", "{when: identity.subjekt == 'x'}")
        + second
        + "    upstream: notes\n    access: public\n"
    )
    result = run("check", file)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{file}:40:")
    assert "'note-deletion' (line 33)" in lines[1]


def test_check_names_what_compiling_finds_beside_mistakes_of_form(file: Path) -> None:
    broken = ROUTES.replace("  listen: 127.0.0.1:8080", "  listne: 127.0.0.1:8080").replace(
        "{roles: [admin]}", "{when: identity.subjekt == 'x'}"
    )
    broken += "  - {id: again, match: {path: '/notes/{n}', methods: [DELETE]}, upstream: nots,"
    file.write_text(
        broken + " access: public}\n  - {id: open, match: {path: /o}, upstream: notes}\n"
    )
    result = run("check", file)
    assert result.exit_code == 1
    said = ["listne", "subjekt", "'note-deletion' (line 33)", "nots", '"access" is missing']
    for line, word in zip(result.stdout.splitlines(), said, strict=True):
        assert word in line


def test_check_names_what_is_wrong_with_a_page_of_ones_own(file: Path) -> None:
    own = file.parent / "own"
    own.mkdir()
    (own / "login.html").write_text("{% extends 'base.html' %}\n\n{{ nobody }}\n")
    (own / "fr.po").write_text('msgid "%(a)s"\nmsgstr "x"\n')
    file.write_text(f"{ROUTES}pages: {{folder: own, language: fr}}\n")
    result = run("check", file)
    assert result.exit_code == 1
    catalogue, template = result.stdout.splitlines()
    assert catalogue.startswith(f"{own}/fr.po:1:1: ")
    assert template == f"{own}/login.html:3:1: nobody gives 'nobody' to a page"
    (own / "login.html").write_text("{% extends 'base.html' %}\n")
    (own / "fr.po").write_text('msgid "Sign in"\nmsgstr "Se connecter"\n')
    assert run("check", file).exit_code == 0


def test_check_runs_the_files_tests(file: Path) -> None:
    file.write_text(f"{ROUTES}tests:\n  - {{request: GET /notes, expect: allow}}\n")
    result = run("check", file)
    assert result.exit_code == 1
    assert "test failed: GET /notes without a sign-in" in result.stdout


def test_check_notes_a_loophole_and_is_content(file: Path) -> None:
    file.write_text(ROUTES + "  - {id: all, match: {path: /*}, upstream: notes, access: public}\n")
    result = run("check", file)
    assert result.exit_code == 0
    assert "note: route 'notes' takes only GET, HEAD, POST; PUT /notes" in result.stdout


def test_check_names_a_secret_that_others_may_read_and_is_content(file: Path) -> None:
    (file.parent / "token").write_text("https://idp.example.com")
    (file.parent / "token").chmod(0o644)
    file.write_text(f"{ROUTES}tokens:\n  - {{issuer: '${{file:token}}', audience: [a]}}\n")
    result = run("check", file)
    assert result.exit_code == 0
    place = f"{file}:{ROUTES.count(chr(10)) + 2}:14"
    warning = f"{place}: warning: everybody on this machine may read {file.parent}/token, "
    assert result.stdout.startswith(warning)
    (file.parent / "token").chmod(0o600)
    assert "warning" not in run("check", file).stdout


EXPLAINED = [
    (["GET", "/"], 0),
    (["get", "/notes", "--subject", "u1"], 0),
    (["GET", "/notes"], 3),
    (["GET", "/admin/x", "--subject", "u1", "--roles", "editor, reader"], 4),
    (["GET", "/admin/x", "--subject", "u1", "--roles", "editor, admin"], 0),
    (["GET", "/space/x", "--subject", "u1", "--groups", "makers"], 0),
    (
        ["GET", "/users/u1/video/1", "--subject", "u1", "--roles", "admin", "--tenant", "acme"],
        4,
    ),
    (
        [
            *["GET", "/users/u1/video/1", "--subject", "u1", "--roles", "admin"],
            *["--tenant", "acme", "--scopes", "video.write,x"],
        ],
        0,
    ),
    (["GET", "/vault/x", "--subject", "u1", "--roles", "editor"], 3),
    (["GET", "/vault/x", "--subject", "u1", "--roles", "editor", "--acr", "mfa"], 0),
    (["GET", "/nothing"], 5),
    (["PUT", "/notes"], 5),
    (["GET", "/", "--header", "Host: a.tenant.example.com"], 3),
]


@pytest.mark.parametrize(("arguments", "code"), EXPLAINED)
def test_explain_exits_with_what_the_request_would_come_to(
    file: Path, arguments: list[str], code: int
) -> None:
    assert run("explain", *arguments, "--config", file).exit_code == code


def test_explain_prints_json_for_programs(file: Path) -> None:
    arguments = ["GET", "/notes", "--subject", "u1", "--claims", '{"a": [1]}', "--json"]
    said = json.loads(run("explain", *arguments, "--config", file).stdout)
    assert said["verdict"] == "allow"
    assert said["route"]["id"] == "notes"
    assert said["caller"]["claims"] == {"a": [1]}
    assert "X-Auth-Subject: u1" in said["upstream_request"]


MISTAKES = [
    (["check", "missing.yaml"], 1, "missing.yaml is no file"),
    (["routes", "--config", "missing.yaml"], 1, "missing.yaml is no file"),
    (["explain", "GET"], 2, "Missing argument 'URL'"),
    (["explain", "GET", "/", "--roles", "a"], 2, "--roles describes a caller: add --subject"),
    (["explain", "GET", "/", "--subject", "u", "--claims", "{"], 2, "--claims is no JSON"),
    (["explain", "GET", "/", "--subject", "u", "--claims", "[]"], 2, "must be a JSON object"),
    (["explain", "GET", "/", "--header", "x"], 2, "write 'Name: value'"),
    (["frobnicate"], 2, "No such command 'frobnicate'"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES)
def test_a_users_mistake_is_one_clear_line_and_no_traceback(
    arguments: list[str], code: int, words: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["explain", "GET", "/"], ["routes"]])
def test_the_other_commands_refuse_a_bad_file_on_stderr(file: Path, command: list[str]) -> None:
    file.write_text(ROUTES.replace("access: optional", "acess: optional"))
    result = run(*command, "--config", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{file}:21:" in result.stderr or f"{file}:24:" in result.stderr


def test_routes_lists_the_table(file: Path) -> None:
    result = run("routes", "--config", file)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 18


def test_schema_is_json() -> None:
    assert json.loads(run("schema").stdout) == SCHEMA


def test_every_command_of_the_reference_is_there_and_helps() -> None:
    listed = run("--help").stdout
    for name in ("run", "check", "explain", "sessions", "routes", "schema", "accounts", "keys"):
        assert f"\n  {name} " in listed
        assert run(name, "--help").exit_code == 0


def test_the_module_is_the_command(file: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "gateway", "explain", "GET", "/notes", "--config", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (3, "")
    assert "no_credential" in result.stdout
