import asyncio
import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from auth.io.session_store import open_session_store
from auth.session import SessionRecord, digest
from config.model import SessionSettings
from gateway.cli import cli
from tests.conftest import Valkey

SETTINGS = SessionSettings(cookie_name="doorward", secure=False)
ROUTES = """
version: 1
store: {{url: {url}}}
upstreams: {{app: http://127.0.0.1:9}}
routes: [{{id: all, match: {{path: /*}}, upstream: app, access: signed-in}}]
"""


class Operator:
    """Somebody at the command line, with a route file."""

    def __init__(self, directory: Path, url: str) -> None:
        self.file = directory / "routes.yaml"
        self.file.write_text(ROUTES.format(url=url))
        self.url = url

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--config", str(self.file)])

    def sign_in(self, subject: str) -> str:
        """Create a session as a login service would; return its cookie value."""

        async def create() -> str:
            store = await open_session_store(self.url, SETTINGS, worker=False)
            try:
                now = time.time()
                return await store.create(SessionRecord(1, subject, now - 1, now + 600))
            finally:
                await store.close()

        return asyncio.run(create())

    def sessions_of(self, subject: str) -> list[str]:
        listed = self.run("sessions", "list", "--subject", subject, "--json")
        return [session["id"] for session in json.loads(listed.stdout)["sessions"]]


@pytest.fixture
def operator(tmp_path: Path, valkey: Valkey) -> Operator:
    return Operator(tmp_path, valkey.tcp_url)


def test_sessions_are_listed_by_digest_and_never_by_what_could_be_used(
    operator: Operator,
) -> None:
    cookie = operator.sign_in("u1")
    operator.sign_in("u2")
    listed = operator.run("sessions", "list", "--subject", "u1")
    assert listed.exit_code == 0
    assert listed.stdout.split()[0] == digest(cookie)
    assert len(listed.stdout.splitlines()) == 1
    assert cookie not in listed.output
    assert operator.sessions_of("u1") == [digest(cookie)]


def test_one_session_ends_and_the_others_go_on(operator: Operator) -> None:
    first, second = operator.sign_in("u1"), operator.sign_in("u1")
    ended = operator.run("sessions", "revoke", "--id", digest(first))
    assert ended.exit_code == 0
    assert ended.stdout.startswith("ended 1 session;")
    assert operator.sessions_of("u1") == [digest(second)]


def test_all_sessions_of_a_subject_end(operator: Operator) -> None:
    operator.sign_in("u1")
    operator.sign_in("u1")
    kept = operator.sign_in("u2")
    ended = operator.run("sessions", "revoke", "--subject", "u1", "--json")
    assert json.loads(ended.stdout)["ended"] == 2
    assert operator.sessions_of("u1") == []
    assert operator.sessions_of("u2") == [digest(kept)]


def test_everybodys_sessions_end(operator: Operator) -> None:
    operator.sign_in("u1")
    operator.sign_in("u2")
    assert operator.run("sessions", "revoke", "--all").exit_code == 0
    assert operator.sessions_of("u1") == operator.sessions_of("u2") == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["--all", "--subject", "u1"], ["--subject", ""], ["--id", "xyz"], ["--id", "A" * 64]],
    ids=["none", "two", "empty", "no-digest", "upper-case"],
)
def test_a_revocation_that_is_not_clear_ends_nothing(
    operator: Operator, arguments: list[str]
) -> None:
    cookie = operator.sign_in("u1")
    assert operator.run("sessions", "revoke", *arguments).exit_code == 2
    assert operator.sessions_of("u1") == [digest(cookie)]


def test_a_rotated_key_is_listed_beside_the_one_before_it(operator: Operator) -> None:
    assert operator.run("keys", "list").stdout == ""
    first = operator.run("keys", "rotate").stdout.split()[0]
    second = operator.run("keys", "rotate").stdout.split()[0]
    listed = json.loads(operator.run("keys", "list", "--json").stdout)["keys"]
    assert [(key["kid"], key["state"]) for key in listed] == [
        (first, "signing"),
        (second, "next"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [["sessions", "list", "--subject", "u1"], ["sessions", "revoke", "--all"], ["keys", "rotate"]],
    ids=" ".join,
)
def test_a_store_that_is_out_is_one_line_that_says_so(tmp_path: Path, arguments: list[str]) -> None:
    failed = Operator(tmp_path, "redis://127.0.0.1:1").run(*arguments)
    assert failed.exit_code == 1
    assert "store.url" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.output


def test_an_embedded_store_that_does_not_run_is_one_line_that_says_what_to_do(
    tmp_path: Path,
) -> None:
    failed = Operator(tmp_path, "embedded").run("keys", "list")
    assert failed.exit_code == 1
    assert "start the gateway" in failed.stderr


def test_a_bad_file_is_told_with_its_place(operator: Operator) -> None:
    operator.file.write_text("version: 1\nnonsense: true\n")
    failed = operator.run("sessions", "list", "--subject", "u1")
    assert failed.exit_code == 1
    assert f"{operator.file}:2:1: " in failed.stderr


def test_bearer_tokens_are_taken_back_by_id_or_by_subject(operator: Operator) -> None:
    issuer = ("--issuer", "https://idp.example.com")
    one = operator.run("tokens", "revoke", "--jti", "t1", *issuer)
    assert one.exit_code == 0, one.output
    assert "refused from now on; 0 of 0 workers confirmed" in one.stdout
    everything = operator.run("tokens", "revoke", "--subject", "u1", *issuer, "--json")
    assert json.loads(everything.stdout)["ended"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--issuer", "https://a"), "either --jti or --subject"),
        (("--jti", "t", "--subject", "u"), "either --jti or --subject"),
        (("--jti", "t"), "give --issuer"),
        (("--jti", "t", "--issuer", "https://a", "--expires-at", "1"), "--expires-at has passed"),
    ],
)
def test_which_tokens_are_meant_must_be_clear(
    operator: Operator, arguments: tuple[str, ...], words: str
) -> None:
    refused = operator.run("tokens", "revoke", *arguments)
    assert refused.exit_code == 2
    assert words in refused.stderr
