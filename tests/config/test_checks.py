import time

import pytest

from config.checks import find_conflicts
from config.document import read_document
from tests.config.reading_support import MINIMAL, ROUTE, configuration, place_of, problems

HTTPS = "server: {public_url: https://a.example}\n"


@pytest.mark.parametrize(
    ("added", "at", "part"),
    [
        ("server: {listen: '0.0.0.0:8080'}", "'0.0.0.0:8080'", "public_url is needed"),
        ("server: {listen: '[::]:80'}", "'[::]:80'", "public_url is needed"),
        ("server: {listen: 127.0.0.1:9}\nadmin: {listen: 127.0.0.1:9 }", "127.0.0.1:9 }", "own"),
        ("admin: {token: 'a b'}", "'a b'", "without spaces"),
        ("admin: {token: 'ä23456789012345678'}", "'ä2", "ASCII"),
        (
            "admin: {listen: '10.0.0.1:9', token: '123456789012345'}",
            "'123456789012345'",
            "at least 16",
        ),
        ("session: {idle_timeout: 2d}", "2d", "not be longer"),
        ("session: {absolute_timeout: 29m}", "29m", "not be longer"),
        ("session: {idle_timeout: 3h, absolute_timeout: 2h}", "3h", "not be longer"),
        ("session: {idle_timeout: 1s, lease: 1000ms}", "1000ms", "shorter"),
        ("session: {lease: 49ms}", "49ms", "between 50ms and 10s"),
        ("session: {lease: 11s}", "11s", "between 50ms and 10s"),
        ("session: {cookie: {same_site: none}}", "none", "only with https"),
        ("session: {cookie: {name: __Host-x}}", "__Host-x", "leave the prefix out"),
        ("tokens: [{issuer: i, audience: [a]}]", "{issuer: i,", "give jwks_uri or jwks_file"),
        ("tokens: [{issuer: 'http://i.example', audience: [a]}]", "{issuer: 'h", "must be https"),
        (
            "tokens: [{issuer: i, audience: [a], jwks_file: f, jwks_uri: 'https://i'}]",
            "f,",
            "one of",
        ),
        (
            (
                "tokens:\n- {issuer: i, audience: [a], jwks_file: f}\n"
                "- {issuer: i , audience: [a], jwks_file: g}"
            ),
            "i , aud",
            "line 10 too",
        ),
        (
            "tokens: [{issuer: i, audience: [a], jwks_file: f, algorithms: [none]}]",
            "none]",
            "ES256",
        ),
        (
            "tokens: [{issuer: i, audience: [a], jwks_file: f, algorithms: [HS256]}]",
            "HS256",
            "ES256",
        ),
        ("pages: {colours: {accent: '#ffcc00'}}", "'#ffcc00'", "is 1.3:1"),
        ("pages: {colours: {accent: '#ffcc00'}}", "'#ffcc00'", "#876c00 would do"),
        ("pages: {colours: {accent_dark: '#2c56c4'}}", "'#2c56c4'", "(WCAG AA); #"),
        ("pages: {colours: {accent: blue}}", "blue", "no colour"),
        ("identity: {headers: remote-user, include: [name]}", "[name]", "standard only"),
        ("identity: {headers: {X-A: subject}, include: [name]}", "[name]", "standard only"),
        ("identity: {headers: {X-A: subject, x-a: name}}", "x-a:", "same to backends"),
        ("identity: {headers: {X-Auth-Assertion: subject}}", "{X-Auth", "carries the assertion"),
        (
            "identity: {headers: {X-A: subject}, assertion: {header: x-A}}",
            "x-A}",
            "same to backends",
        ),
        ("identity: {assertion: {header: X-Auth-Subject}}", "X-Auth-Subject", "same to backends"),
        ("identity: {headers: {X_A: subject}}", "X_A", "letters, digits and -"),
        ("identity: {headers: {Cookie: subject}}", "Cookie", "the gateway itself"),
        ("identity: {headers: {X-Forwarded-For: subject}}", "X-Forwarded", "the gateway itself"),
    ],
)
def test_values_that_do_not_go_together_are_told(added: str, at: str, part: str) -> None:
    text = f"{MINIMAL}{added}\n"
    (problem,) = problems(text)
    assert (problem.line, problem.column) == place_of(text, at)
    assert part in problem.message


@pytest.mark.parametrize(
    "added",
    [
        "server: {listen: '0.0.0.0:80', public_url: 'https://a'}",
        "server: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}",
        "admin: {listen: '127.0.0.1:9', token: short}",
        "admin: {listen: '10.0.0.1:9', token: '1234567890123456'}",
        "admin: {listen: '10.0.0.1:9', token: ''}",
        "session: {idle_timeout: 12h}",
        "session: {cookie: {same_site: none}}\n" + HTTPS,
        "tokens: [{issuer: 'http://localhost:9', audience: [a]}]",
        "pages: {colours: {accent: '#2c56c4', accent_dark: '#FFCC00'}}",
        "identity: {include: [name, email, groups]}",
        "identity: {headers: {X-Auth-Assertion: subject}, assertion: {header: X-Other}}",
        "identity: {headers: x-forwarded-user}",
    ],
)
def test_values_that_go_together_are_no_problem(added: str) -> None:
    assert find_conflicts(read_document(f"{MINIMAL}{added}\n").root) == []


def test_an_upstream_that_does_not_exist_is_told_with_the_near_name() -> None:
    text = MINIMAL.replace("upstream: notes", "upstream: ntoes")
    (problem,) = problems(text)
    assert problem.message == 'there is no upstream "ntoes"; did you mean "notes"?'
    assert (problem.line, problem.column) == place_of(text, "ntoes")


def test_two_routes_of_one_id_are_told() -> None:
    text = MINIMAL + ROUTE % ("notes", "/other")
    (problem,) = problems(text)
    assert (problem.line, problem.column) == place_of(text, "notes, match")
    assert problem.message == 'the route id "notes" stands on line 5 too'


@pytest.mark.parametrize(
    ("path", "stripped"),
    [
        ("/users/*", "/user"),
        ("/users", "/users/x"),
        ("/{a}/b", "/a"),
        ("/*", "/a"),
        ("/a%20b", "/a"),
    ],
)
def test_a_prefix_that_the_path_does_not_begin_with_is_told(path: str, stripped: str) -> None:
    text = MINIMAL.replace("/notes/*", f"'{path}'") + f"    rewrite: {{strip_prefix: {stripped}}}\n"
    (problem,) = problems(text)
    assert "does not begin with it" in problem.message


@pytest.mark.parametrize("access", ["{}", "{roles: []}", "{roles: [], scopes: [], groups: []}"])
def test_an_access_rule_that_asks_for_nothing_is_told(access: str) -> None:
    text = MINIMAL.replace("signed-in", access)
    (problem,) = problems(text)
    assert (problem.line, problem.column) == place_of(text, access)
    assert "asks for nothing" in problem.message


def test_a_route_without_access_does_not_load() -> None:
    (problem,) = problems(MINIMAL.replace("    access: signed-in\n", ""))
    assert problem.message == 'the key "access" is missing in routes[]'


@pytest.mark.parametrize("access", ["", "~", "null", "[]", "yes", "Public", "true"])
def test_an_access_of_another_form_does_not_load(access: str) -> None:
    (problem,) = problems(MINIMAL.replace("signed-in", access))
    assert problem.line == 8


def test_thousands_of_wrong_names_are_told_in_a_few_seconds() -> None:
    upstreams = "".join(f"  upstream-{n}: http://127.0.0.1:1\n" for n in range(2000))
    routes = "".join(
        f"  - {{id: r{n}, match: {{path: /{n}}}, upstream: upstraem-{n}, access: public}}\n"
        for n in range(2000)
    )
    begun = time.process_time()
    found = problems(f"version: 1\nupstreams:\n{upstreams}routes:\n{routes}")
    assert len(found) == 2000
    assert found[0].message == 'there is no upstream "upstraem-0"; did you mean "upstream-0"?'
    assert time.process_time() - begun < 20


def test_a_route_names_providers_that_there_are() -> None:
    text = MINIMAL.replace("    access: signed-in", "    access: signed-in\n    providers: [corp]")
    assert "there is no provider 'corp'" in problems(text)[0].message.replace('"', "'")


def test_on_a_public_route_there_is_no_access_token() -> None:
    text = MINIMAL.replace(
        "    access: signed-in", "    access: public\n    access_token: Authorization"
    )
    assert "nobody is looked up" in problems(text)[0].message
    assert (
        configuration(text.replace("public", "optional")).routes[0].access_token == "Authorization"
    )


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "identity: {headers: [X-A]}",
        "routes: [{upstream: 7}]",
        "upstreams: []",
        "routes: [{providers: 7}]",
        "routes: [{providers: ~}]",
        "routes: [{providers: corp}]",
        "login: {providers: [{id: [a]}]}",
        "login: {providers: [{claims: {subject: [a]}}]}",
        "routes: [{id: [a]}, {id: [a]}]",
        "tokens: [{issuer: 7}]",
        "login: {providers: [{issuer: 'https://i'}, {id: 7}]}",
    ],
)
def test_what_differs_from_the_schema_is_passed_over_here(document: str) -> None:
    """The schema tells of it; to tell twice would hide what else there is."""
    assert find_conflicts(read_document(document + "\n").root) == []
