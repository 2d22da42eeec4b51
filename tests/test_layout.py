"""The tests mirror the packages, and the documents name what there is."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from auth.decision import Reason

ROOT = Path(__file__).parents[1]
PACKAGES = ("config", "auth", "gateway")

RECORDS_ONLY = {
    "config/model.py",
    "config/problem.py",
    "auth/identity.py",
    "auth/ports.py",
    "auth/login/messages.py",
    "gateway/answer.py",
    "gateway/bad_request.py",
    "gateway/events.py",
    "gateway/__main__.py",
}
"""Modules of records and protocols, without behaviour of their own."""


def modules() -> list[str]:
    """Return every module of the packages, as a path from the root."""
    found = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    names = [path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py"]
    return sorted(set(names) - RECORDS_ONLY)


SERVICE = {
    f"auth/login/{name}.py"
    for name in (
        *(
            "accounts",
            "assembly",
            "back_channel",
            "front_channel",
            "known_devices",
            "links",
            "mailing",
            "one_time",
        ),
        *("passwords", "provider_refresh", "provider_sign_in", "provider_sign_out", "service"),
        *("sign_in", "throttle"),
        *("browser_binding", "site_authorization", "site_sign_in"),
        *("beginning", "factors", "own_account", "recovery_codes", "second_factor"),
        *("app_secret", "own_authenticator", "own_password"),
        *("own_passkeys", "passkey_ceremony", "passkeys", "elsewhere", "kept_form"),
    )
}
"""What of the login service touches the world; the rest of it is held to the rules of the core."""

WORLD = frozenset(
    (
        *("aiohttp", "argon2", "asyncio", "click", "concurrent", "fcntl", "getpass", "glob"),
        *("hiredis", "http.client", "importlib", "io", "logging", "multiprocessing", "os"),
        *("pathlib", "prometheus_client", "queue", "random", "redis", "resource", "secrets"),
        *("select", "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl"),
        *("subprocess", "sys", "tempfile", "threading", "time", "urllib.request", "uuid"),
        *("uvloop", "watchfiles"),
    )
)
"""Files, sockets, clocks, randomness, environment, logs, tasks and processes."""

ALLOWED = {
    "auth/session.py": {"secrets"},  # a cookie value is what it is random for
    "auth/sealing.py": {"secrets"},  # a nonce
    "auth/login/provenance.py": {"secrets"},  # a form's nonce
    "auth/login/look.py": {"pathlib"},  # the templates beside it
    "gateway/admin_page.py": {"importlib"},  # the same, read once
    "auth/wording.py": {"io", "pathlib"},  # the catalogues beside it, compiled in memory
}


@cache
def core() -> list[str]:
    """Return the modules that touch nothing of the world, as paths from the root."""
    folders = (*PACKAGES, "auth/login")
    found = {path for name in folders for path in (ROOT / name).glob("*.py")}
    shell = {ROOT / "gateway/__main__.py", *(ROOT / "gateway").glob("cli*.py")}
    names = {path.relative_to(ROOT).as_posix() for path in found - shell}
    return sorted(name for name in names - SERVICE if not name.endswith("__init__.py"))


@cache
def outside() -> list[str]:
    """Return the dotted names of all other modules."""
    paths = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    names = {path.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py"}
    return [dotted(name) for name in names - set(core())]


def dotted(module: str) -> str:
    return module.removesuffix(".py").replace("/", ".")


def imports_of(module: str) -> Iterator[str]:
    """Yield every dotted name that *module* imports, wherever in it."""
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{each.name}" for each in node.names)


def is_in(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


@pytest.mark.parametrize("module", core())
def test_a_module_of_the_core_touches_nothing_of_the_world(module: str) -> None:
    forbidden = WORLD - ALLOWED.get(module, set())
    breaches = [name for name in imports_of(module) if any(is_in(name, each) for each in forbidden)]
    for node in ast.walk(ast.parse((ROOT / module).read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}:
                breaches.append(called)
            if re.fullmatch(r"(.*\.)?(datetime|date)\.(now|utcnow|today)", called):
                breaches.append(called)

    assert breaches == []


@pytest.mark.parametrize("module", core())
def test_a_module_of_the_core_imports_no_module_outside_it(module: str) -> None:
    assert [n for n in imports_of(module) if any(is_in(n, each) for each in outside())] == []


def test_an_allowance_is_made_for_what_is_there_alone() -> None:
    for module, names in ALLOWED.items():
        used = {name for name in names if any(is_in(n, name) for n in imports_of(module))}

        assert used == names, module


def test_the_contract_on_imports_names_the_whole_core() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    (contract,) = (
        each for each in tools["importlinter"]["contracts"] if each["type"] == "forbidden"
    )

    assert contract["source_modules"] == [dotted(name) for name in core()]
    assert {dotted(name) for name in SERVICE} <= set(contract["forbidden_modules"])


@pytest.mark.parametrize("module", modules())
def test_a_module_has_a_test_file_of_its_own(module: str) -> None:
    path = Path(module)
    own = ROOT / "tests" / path.parent / f"test_{path.stem}.py"

    assert own.exists(), f"{module} has no {own.relative_to(ROOT)}"


def test_every_link_between_documents_leads_somewhere() -> None:
    documents = [ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)} -> {target}"
        for document in documents
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]

    assert broken == []


def test_every_document_that_the_code_names_is_there() -> None:
    sources = [path for name in (*PACKAGES, "tests") for path in (ROOT / name).rglob("*.py")]
    broken = [
        f"{source.relative_to(ROOT)}: {document}"
        for source in sources
        for document in re.findall(r"docs/[\w/-]+\.md", source.read_text("utf-8"))
        if not (ROOT / document).exists()
    ]

    assert broken == []


def test_readme_leads_to_every_document_and_the_index_to_every_decision() -> None:
    readme = (ROOT / "README.md").read_text()
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    pages = [f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")]
    decisions = [path.name for path in (ROOT / "docs" / "adr").glob("0*.md")]

    assert [page for page in pages if f"]({page})" not in readme] == []
    assert [name for name in decisions if f"]({name})" not in index] == []


NAMED = sorted(
    {
        (document.name, file, name)
        for document in (ROOT / "docs").rglob("*.md")
        for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text())
    }
)


@pytest.mark.parametrize(("document", "file", "name"), NAMED, ids=["-".join(n) for n in NAMED])
def test_a_test_that_a_document_names_exists(document: str, file: str, name: str) -> None:
    source = ROOT / file

    assert source.exists(), f"{document}: no {file}"
    assert re.search(rf"^ *(async )?def {name}\(", source.read_text(), re.MULTILINE), document


def test_no_demand_of_a_specification_stands_without_a_test() -> None:
    text = (ROOT / "docs" / "compliance.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    rows = [row for row in rows if not row.startswith("| clause")]

    assert len(rows) > 50
    assert [row for row in rows if "`tests/" not in row.split("|")[4]] == []


def test_every_reason_is_documented() -> None:
    text = (ROOT / "docs" / "reasons.md").read_text()

    assert [reason for reason in Reason if f"`{reason}`" not in text] == []


def test_no_lock_file_names_an_index_or_lacks_a_hash() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        text = lock.read_text()
        pins = len(re.findall(r"^[a-z0-9][^\s]*==", text, re.MULTILINE))

        assert "://" not in text, lock.name
        assert "--index" not in text
        assert pins
        assert len(re.findall(r"== *\S+(?: ; .+)? \\\n +--hash=sha256:", text)) == pins
