import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.model import Configuration, Route
from config.problem import Problem
from config.reading import read_configuration
from tests.config.reading_support import (
    MINIMAL,
    ROOT,
    configuration,
    missing_file,
    place_of,
    problems,
    read,
)

EXAMPLE = (Path(__file__).parent / "example.yaml").read_text()
ENVIRONMENT = {"DOORWARD_ADMIN_TOKEN": "a-token", "OIDC_SECRET": "s3cr3t-of-the-provider"}


def test_the_documented_example_loads_word_for_word() -> None:
    loaded = configuration(EXAMPLE, ENVIRONMENT)
    assert [route.id for route in loaded.routes] == ["front-page", "notes", "video-of-a-user"]
    assert loaded.routes[2].match.path == "/users/{user}/video/*"
    assert loaded.admin.token is not None
    assert loaded.admin.token.value == "a-token"
    assert loaded.login.providers[0].client_secret is not None
    assert len(loaded.tests) == 3


def test_no_secret_shows_in_a_configuration() -> None:
    text = EXAMPLE.replace("url: embedded", "url: redis://user:pa55word@h:1/0")
    shown = repr(configuration(text, ENVIRONMENT))
    assert not [each for each in (*ENVIRONMENT.values(), "pa55word") if each in shown]


MISTAKES = """\
version: 2
server: {listen: 8080, worker: 3, limits: {head: 3KB}}
sesion: {}
upstreams:
  notes: htp://127.0.0.1
  notes: http://127.0.0.1:1
routes:
  - id: first
    match: {path: /a/{x}/{x}, methods: [get], hosts: ["A.com:80"]}
    upstream: ntoes
    acess: public
  - id: first
    match: {path: //b}
    upstream: notes
    access: {roles: []}
    on_store_outage: {serve_cached: 9}
    unauthenticated: 402
tests:
  - {request: GET, as: {}, expect: alow}
  - 5
"""


def test_every_mistake_is_told_at_once_and_in_order() -> None:
    found = problems(MISTAKES)
    assert [(each.line, each.column) for each in found] == [
        (1, 10), (2, 18), (2, 24), (2, 50), (3, 1), (5, 10), (6, 3), (8, 5), (9, 19), (9, 41),
        (9, 55), (10, 15), (11, 5), (12, 9), (13, 19), (15, 13), (16, 37), (17, 22), (19, 15),
        (19, 24), (19, 36), (20, 5),
    ]  # fmt: skip
    assert found == sorted(found)
    hints = [each.message.rpartition("did you mean ")[1:] for each in found]
    assert [near for mean, near in hints if mean] == [
        *('"workers"?', '"session"?', '"notes"?', '"access"?', '"allow"?')
    ]


def test_a_missing_variable_is_one_problem_and_no_malformed_value_too() -> None:
    text = MINIMAL + "admin: {listen: '${WHERE}'}\nsession: {lease: 'x${LEASE}'}\n"
    found = problems(text)
    assert [each.message[:41] for each in found] == [
        "the environment variable WHERE is not set",
        "the environment variable LEASE is not set",
    ]
    assert (found[1].line, found[1].column) == place_of(text, "${LEASE}")


def test_a_secret_that_does_not_fit_is_told_without_it() -> None:
    text = MINIMAL + "store: {url: '${S}'}\nserver: {listen: '${S}'}\nsession: {lease: '${S}'}\n"
    found = problems(text, {"S": "pa55word"})
    assert len(found) == 3
    assert not [each for each in found if "pa55word" in each.message]
    typed = problems(MINIMAL + "store: {url: 'pa55word'}\nadmin: {token: 5512}\n")
    assert not [each for each in typed if "pa55word" in each.message or "5512" in each.message]


def test_values_of_variables_fit_numbers_and_truth_values_too() -> None:
    text = MINIMAL + (
        "server: {workers: '${N}', limits: {body: '${B}', connections: '${N}'}}\n"
        "login: {accounts: '${A}'}\n"
    )
    loaded = configuration(text, {"N": "3", "B": "1GiB", "A": "false"})
    assert loaded.server.workers == loaded.server.limits.connections == 3
    assert loaded.server.limits.body == 1024**3
    assert loaded.login.accounts is False


def test_an_empty_admin_token_closes_the_api() -> None:
    text = MINIMAL + "admin:\n  token: ${TOKEN:-}\n"
    assert configuration(text).admin.token is None
    assert configuration(text, {"TOKEN": "x"}).admin.token is not None


def test_ten_thousand_routes_load_in_a_few_seconds() -> None:
    routes = "".join(
        f"  - id: r{n}\n    match: {{hosts: [h{n % 50}.example.com], path: /u/{{user}}/v{n}/*}}\n"
        f"    upstream: notes\n"
        f"    access:\n      roles: [a, b]\n      when: identity.tenant == 'x'\n"
        for n in range(10_000)
    )
    begun = time.process_time()
    loaded = configuration(MINIMAL + routes)
    taken = time.process_time() - begun
    assert len(loaded.routes) == 10_001
    # 1.5 s on a core of its own; a general validator alone would take as much again and more.
    assert taken < 15


def test_the_route_file_of_the_demonstration_needs_no_variable() -> None:
    loaded = configuration((ROOT / "routes.yaml").read_text())
    assert loaded.admin.token is None
    assert str(loaded.server.listen) == "127.0.0.1:8080"
    assert str(loaded.admin.listen) == "127.0.0.1:8081"
    assert {route.id: route.access.level for route in loaded.routes}["notes"] == "signed-in"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(EXAMPLE)),
            st.integers(0, 20),
            st.one_of(
                st.text(max_size=4),
                st.sampled_from([*"{}[]'\"*&", ": ", "\n- ", "\n  ", "|\n", "${"]),
            ),
        ),
        max_size=5,
    )
)
def test_no_change_to_a_file_makes_reading_raise(edits: list[tuple[int, int, str]]) -> None:
    text = EXAMPLE
    for start, length, put in edits:
        text = text[:start] + put + text[start + length :]
    result = read(text, ENVIRONMENT)
    if isinstance(result, Configuration):
        return
    lines = text.count("\n") + 1
    for problem in result:
        assert 1 <= problem.line <= lines + 1
        assert problem.column >= 1
        assert re.fullmatch(r"[^\n]+", problem.message)
        assert ENVIRONMENT["OIDC_SECRET"] not in problem.message


@pytest.mark.parametrize("text", ["", "5", "[]", "text", "{}", "~", "version: 1"])
def test_what_is_no_route_file_is_told(text: str) -> None:
    assert problems(text)


def test_the_sound_routes_of_a_broken_file_are_handed_on() -> None:
    seen: list[Route] = []

    def examine(routes: Sequence[Route]) -> list[Problem]:
        seen.extend(routes)
        return [Problem(1, 1, "and this")]

    text = MINIMAL + "  - {id: odd, match: {path: odd}, upstream: notes, access: public}\n"
    found = read_configuration(
        text, environment={}, read_file=missing_file, base_dir="/", examine=examine
    )
    assert isinstance(found, list)
    assert found[0].message == "and this"
    assert len(found) == 2
    assert "odd" not in {route.id for route in seen}
    assert seen


def test_the_routes_of_a_good_file_are_not_examined_twice() -> None:
    def examine(_routes: Sequence[Route]) -> list[Problem]:
        raise AssertionError("the file is good")

    found = read_configuration(
        MINIMAL, environment={}, read_file=missing_file, base_dir="/", examine=examine
    )
    assert isinstance(found, Configuration)
