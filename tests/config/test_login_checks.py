"""What must hold between the values under `login`."""

import pytest

from config.checks import find_conflicts
from config.document import read_document
from config.model import Configuration
from tests.config.reading_support import MINIMAL, configuration, place_of, problems, read

HTTPS = "server: {public_url: https://a.example}\n"


@pytest.mark.parametrize(
    ("added", "at", "part"),
    [
        ("login: {url: /.doorward/me}", "/.doorward/me", "there is only"),
        (f"{HTTPS}login: {{sites: [shop.example]}}", "shop.example", "absolute URL"),
        (f"{HTTPS}login: {{sites: ['https://b.example/x']}}", "'https://b", "serves from the root"),
        (f"{HTTPS}login: {{sites: ['http://b.example']}}", "'http://b", "must be https"),
        (f"{HTTPS}login: {{sites: ['https://a.example']}}", "'https://a.example']", "not one of"),
        (f"{HTTPS}login: {{sites: ['https://a.example:9']}}", "'https://a.example:", "not one of"),
        (
            f"{HTTPS}login: {{sites: ['https://b.example', 'https://B.example:443']}}",
            "'https://B",
            "is the same",
        ),
        (
            f"{HTTPS}login: {{url: /login, sites: ['https://b.example']}}",
            "/login",
            "for the bundled service",
        ),
        (
            "login: {database: 'postgresql://u@h/n'}",
            "'postgresql",
            "gateways that share a database",
        ),
        ("login: {factor_key: too-short}", "too-short", "32 characters or more"),
        (
            (
                "login: {user_service: {url: 'https://u'}, mail: {webhook: {url: 'https://m', "
                "secret: '1234567890123456'}}, registration: {enabled: true}}"
            ),
            "true",
            "people are elsewhere",
        ),
        ("login: {mail: {}}", "{}", "smtp or webhook"),
        ("login: {mail: {smtp: {server: '127.0.0.1:25'}}}", "{server", "login.mail.from is needed"),
        (
            "login: {mail: {from: a@b, smtp: {server: 'mail.example:25', security: none}}}",
            "none",
            "reads the links",
        ),
        ("login: {registration: {enabled: true}}", "true", "login.mail"),
        ("login: {ldap: {url: 'ldaps://h'}}", "{url", "user_dn, or base"),
        ("login: {ldap: {url: 'ldaps://h', base: x, user_dn: 'a={login}'}}", "{url", "user_dn, or"),
        ("login: {ldap: {url: 'ldaps://h', base: x, filter: (a=b)}}", "(a=b)", "{login}"),
        ("login: {ldap: {url: 'ldaps://h', user_dn: 'cn=a'}}", "'cn=a'", "{login}"),
        ("login: {ldap: {url: 'ldaps://h', base: x, group_filter: (a=b)}}", "(a=b)", "{dn}"),
        (
            "login: {ldap: {url: 'ldap://h', base: x, security: none}}",
            "none",
            "reads every password",
        ),
        (
            "login: {user_service: {url: 'https://u'}, ldap: {url: 'ldaps://h', base: x}}",
            "{url: 'ldaps",
            "one of them",
        ),
        ("login: {url: //evil.example}", "//evil.example", "empty segment"),
        (
            "login: {providers: [{id: a, issuer: 'https://i', client_id: c, scopes: [email]}]}",
            "[email]",
            "openid",
        ),
        (
            (
                "login:\n  providers:\n  - {id: a, issuer: 'https://i', client_id: c}\n"
                "  - {id: a , issuer: 'https://i', client_id: c}"
            ),
            "a , issuer",
            "line 11 too",
        ),
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
        "login: {url: /.doorward/login}",
        "login: {url: /sign-in}",
        "login: {database: 'postgresql://u@h/n', factor_key: '%s'}" % ("k" * 32),
        "login: {ldap: {url: 'ldap://127.0.0.1', base: x, security: none}}",
        "login: {ldap: {url: 'ldaps://h', user_dn: 'uid={login},ou=p'}}",
        "login: {mail: {from: a@b, smtp: {server: '127.0.0.1:25', security: none}}}",
        (
            "login: {mail: {webhook: {url: 'https://m', secret: '1234567890123456'}}, "
            "registration: {enabled: true}}"
        ),
    ],
)
def test_values_that_go_together_are_no_problem(added: str) -> None:
    assert isinstance(read(f"{MINIMAL}{added}\n"), Configuration)


_PROVIDERS = """\
login:
  accounts: {accounts}
  providers:
    - {{id: one, issuer: 'https://one.example', client_id: c{one}}}
    - {{id: two, issuer: 'https://two.example', client_id: c{two}}}
"""


@pytest.mark.parametrize("claim", ["email", "name", "nickname", "preferred_username", "upn"])
def test_a_subject_that_may_change_hands_is_told(claim: str) -> None:
    more = f", claims: {{subject: {claim}}}"
    (problem,) = problems(MINIMAL + _PROVIDERS.format(accounts="true", one="", two=more))
    assert "may change hands" in problem.message


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (", namespace: ''", ", namespace: ''"),
        (", namespace: two", ""),
        ("", ", namespace: one"),
        (", namespace: x", ", namespace: x"),
    ],
)
def test_two_providers_never_speak_for_the_same_people(one: str, two: str) -> None:
    (problem,) = problems(MINIMAL + _PROVIDERS.format(accounts="false", one=one, two=two))
    assert "one" in problem.message
    assert "speak for" in problem.message


@pytest.mark.parametrize(
    ("one", "two"), [("", ""), (", namespace: ''", ""), (", namespace: two", ", namespace: x")]
)
def test_namespaces_that_differ_are_fine(one: str, two: str) -> None:
    text = MINIMAL + _PROVIDERS.format(accounts="true", one=one, two=two)
    assert len(configuration(text).login.providers) == 2


_LONE = "login: {{providers: [{{id: a, issuer: 'https://a.example', client_id: c{more}}}]}}"
_OTHER = """\
login:
  providers:
    - {{id: a, issuer: 'https://a.example', client_id: c{more}}}
    - {{id: b, issuer: 'https://b.example', client_id: c}}
"""
_ENDPOINTS = (
    ", authorization_endpoint: 'https://a.example/a', token_endpoint: 'https://a.example/t', "
    "userinfo_endpoint: 'https://a.example/u'"
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (_LONE.format(more=", protocol: oauth2"), "give its authorization_endpoint"),
        (_LONE.format(more=", token_endpoint: 'https://a.example/t'"), "`protocol: oauth2` only"),
        (_LONE.format(more=", protocol: github, acr_values: [mfa]"), "needs OpenID Connect"),
        (_LONE.format(more=", protocol: github, max_age: 1h"), "needs OpenID Connect"),
        (_OTHER.format(more=", protocol: github, own_callback: false"), "is needed beside"),
    ],
)
def test_a_provider_without_openid_connect_is_told_what_it_needs(text: str, part: str) -> None:
    assert part in problems(MINIMAL + text)[0].message


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        (_LONE.format(more=", protocol: github"), ("read:user", "user:email")),
        (_OTHER.format(more=", protocol: github"), ("read:user", "user:email")),
        (_LONE.format(more=", protocol: oauth2" + _ENDPOINTS), ()),
    ],
)
def test_a_provider_without_openid_connect_has_an_address_of_its_own(
    text: str, scopes: tuple[str, ...]
) -> None:
    provider = configuration(MINIMAL + text).login.providers[0]
    assert (provider.own_callback, provider.scopes) == (True, scopes)


@pytest.mark.parametrize(
    ("hosts", "takes"),
    [
        ("", True),
        ("hosts: [b.example], ", True),
        ("hosts: ['*.example'], ", True),
        ("hosts: [B.Example], ", True),
        ("hosts: [a.example], ", False),
        ("hosts: ['*.b.example'], ", False),
    ],
)
def test_a_site_is_the_host_of_a_route(hosts: str, *, takes: bool) -> None:
    text = (
        f"{HTTPS}version: 1\nupstreams: {{up: 'http://127.0.0.1:1'}}\n"
        "login: {sites: ['https://b.example']}\n"
        f"routes: [{{id: r, match: {{{hosts}path: /*}}, upstream: up, access: public}}]\n"
    )
    result = read(text)
    found = [each.message for each in result] if isinstance(result, list) else []
    assert any("no route takes that host" in each for each in found) is not takes
    assert not takes or found == []


def test_a_provider_without_a_name_is_passed_over_here() -> None:
    """The schema tells of it."""
    document = "login: {providers: [{issuer: 'https://i'}, {id: 7, issuer: 'https://j'}]}\n"
    assert find_conflicts(read_document(document).root) == []
