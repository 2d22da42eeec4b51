from ipaddress import ip_network
from typing import Any

import pytest

from config.model import (
    AccessRule,
    Address,
    Assertion,
    Certificate,
    Endpoint,
    HealthCheck,
    Ldap,
    Limits,
    Links,
    Mail,
    Match,
    Provider,
    Registration,
    Route,
    RouteTest,
    Secret,
    Smtp,
    Timeouts,
    TokenIssuer,
    Upstream,
    UpstreamLimits,
    UserService,
    Webhook,
)
from tests.config.reading_support import MINIMAL, configuration, place_of


def with_route(more: str) -> Route:
    return configuration(MINIMAL + more).routes[0]


def test_the_smallest_file_gets_every_default() -> None:
    loaded = configuration(MINIMAL)
    assert loaded.server.listen == Address("127.0.0.1", 8080)
    assert loaded.server.public_url == "http://127.0.0.1:8080"
    assert loaded.server.workers == 1
    assert loaded.server.trusted_proxies == ()
    assert loaded.server.limits == Limits()
    assert loaded.admin.listen == Address("127.0.0.1", 8081)
    assert loaded.admin.token is None
    assert loaded.store.url == Secret("embedded")
    assert (loaded.session.cookie_name, loaded.session.secure) == ("doorward", False)
    assert loaded.login.url == "/.doorward/login"
    assert loaded.tokens == ()
    assert loaded.tests == ()
    assert loaded.identity.assertion == Assertion(issuer="http://127.0.0.1:8080")
    assert loaded.upstreams == {"notes": Upstream("notes", (Endpoint("http", "127.0.0.1", 9001),))}


def test_the_server_is_read_in_full() -> None:
    server = configuration(
        MINIMAL
        + """\
server:
  listen: '[::1]:9000'
  public_url: https://App.example.com:443/
  workers: auto
  trusted_proxies: [10.0.0.0/8, '::1']
  tls: {certificates: [{cert_file: a.pem, key_file: /keys/a.key}]}
  limits: {head: 64KiB, body: 1GiB, head_timeout: 500ms, idle_timeout: 2m, connections: 5,
           connections_per_address: 4}
"""
    ).server
    assert server.listen == Address("::1", 9000)
    assert server.public_url == "https://app.example.com"
    assert server.workers == 0
    assert server.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert server.certificates == (Certificate("/etc/doorward/a.pem", "/keys/a.key"),)
    assert server.limits == Limits(65_536, 1024**3, 0.5, 120.0, 5, 4)


@pytest.mark.parametrize(
    ("server", "name", "secure"),
    [
        ("{public_url: 'http://a'}", "door", False),
        ("{public_url: 'https://a'}", "__Host-door", True),
        ("{tls: {certificates: [{cert_file: a, key_file: b}]}}", "__Host-door", True),
    ],
)
def test_https_decides_how_the_cookie_is_named_and_sent(
    server: str, name: str, *, secure: bool
) -> None:
    session = configuration(
        f"{MINIMAL}server: {server}\nsession: {{cookie: {{name: door, same_site: strict}}}}\n"
    ).session
    assert (session.cookie_name, session.secure) == (name, secure)
    assert session.same_site == "strict"


def test_a_provider_is_read_in_full_and_labelled_with_its_id() -> None:
    login = configuration(
        MINIMAL
        + """\
login:
  url: https://login.example.com/in
  return_parameter: rd
  accounts: false
  providers:
    - {id: a, issuer: 'https://a.example', client_id: c}
    - id: b
      label: B
      issuer: http://127.0.0.1:9/b
      client_id: c
      client_secret: s
      scopes: [openid]
      claims: {roles: groups}
      namespace: people-of-b
      own_callback: true
      end_session: false
      acr_values: [mfa, pwd]
      max_age: 1h
      prompt: select_account
      domains: [B.example]
      tenants: [b]
"""
    ).login
    assert (login.url, login.return_parameter) == ("https://login.example.com/in", "rd")
    assert login.accounts is False
    assert login.providers == (
        Provider("a", "a", "https://a.example", "c", namespace="a"),
        Provider(
            id="b",
            label="B",
            issuer="http://127.0.0.1:9/b",
            client_id="c",
            client_secret=Secret("s"),
            scopes=("openid",),
            claims={"roles": "groups"},
            namespace="people-of-b",
            own_callback=True,
            end_session=False,
            acr_values=("mfa", "pwd"),
            max_age=3600.0,
            prompt="select_account",
            domains=("b.example",),
            tenants=("b",),
        ),
    )


_ONLY = "{id: a, issuer: 'https://a.example', client_id: c}"


@pytest.mark.parametrize(
    ("login", "namespaces"),
    [
        (f"{{accounts: false, providers: [{_ONLY}]}}", [""]),
        (f"{{providers: [{_ONLY}]}}", ["a"]),
        (f"{{accounts: false, providers: [{_ONLY}, {_ONLY.replace('a', 'b')}]}}", ["a", "b"]),
    ],
    ids=["the only way to sign in", "beside accounts", "beside another"],
)
def test_subjects_are_told_apart_by_where_people_sign_in(login: str, namespaces: list[str]) -> None:
    read = configuration(MINIMAL + f"login: {login}\n").login
    assert [provider.namespace for provider in read.providers] == namespaces


def test_a_token_issuer_is_read_in_full() -> None:
    tokens = configuration(
        MINIMAL
        + """\
tokens:
  - {issuer: 'https://i.example', audience: [api]}
  - issuer: urn:me
    audience: [a, b]
    algorithms: [EdDSA]
    jwks_file: keys/jwks.json
    strict_audience: false
    claims: {tenant: org.id}
"""
    ).tokens
    assert tokens == (
        TokenIssuer("https://i.example", ("api",), ("ES256", "RS256")),
        TokenIssuer(
            "urn:me",
            ("a", "b"),
            ("EdDSA",),
            jwks_file="/etc/doorward/keys/jwks.json",
            claims={"tenant": "org.id"},
            strict_audience=False,
        ),
    )


@pytest.mark.parametrize(
    ("identity", "fields"),
    [
        (
            "{}",
            ["X-Auth-Subject", "X-Auth-Tenant", "X-Auth-Roles", "X-Auth-Scopes", "X-Auth-Method"],
        ),
        (
            "{include: [groups, name]}",
            [
                "X-Auth-Subject",
                "X-Auth-Tenant",
                "X-Auth-Roles",
                "X-Auth-Scopes",
                "X-Auth-Method",
                "X-Auth-Name",
                "X-Auth-Groups",
            ],
        ),
        ("{headers: remote-user}", ["Remote-User", "Remote-Groups", "Remote-Name", "Remote-Email"]),
        ("{headers: {X-My-User: subject}}", ["X-My-User"]),
    ],
)
def test_identity_fields_come_from_a_preset_or_a_mapping(identity: str, fields: list[str]) -> None:
    headers = configuration(f"{MINIMAL}identity: {identity}\n").identity
    assert [name for name, _ in headers.fields] == fields


def test_the_assertion_is_read_in_full() -> None:
    identity = "{assertion: {header: X-Who, ttl: 30s, issuer: 'https://me'}}"
    assert configuration(f"{MINIMAL}identity: {identity}\n").identity.assertion == Assertion(
        "X-Who", 30.0, "https://me"
    )


def test_an_upstream_is_read_in_full() -> None:
    upstream = """\
  video:
    endpoints: [https://a.example/base/, unix:/run/v.sock]
    balance: round_robin
    health: {path: '/healthz?deep', interval: 1s}
    timeouts: {connect: 1s, response: 2s, idle: 3s}
    limits: {requests: 4, queue: 5, queue_timeout: 6s}
    on_logout: /ended
"""
    text = MINIMAL.replace("routes:", upstream + "routes:")
    assert configuration(text).upstreams["video"] == Upstream(
        "video",
        (Endpoint("https", "a.example", 443, "/base"), Endpoint("unix", "/run/v.sock")),
        "round_robin",
        HealthCheck("/healthz?deep", 1.0),
        Timeouts(1.0, 2.0, 3.0),
        "/ended",
        UpstreamLimits(4, 5, 6.0),
    )


def test_a_route_is_read_in_full_with_its_places() -> None:
    text = """\
version: 1
upstreams: {notes: 'http://a'}
routes:
  - id: r
    match: {path: "/u/{user}/*", hosts: [A.example, '*.B.example', '::1'], methods: [GET, POST]}
    upstream: notes
    rewrite: {strip_prefix: /u, add_prefix: /v}
    allow_encoded_slash: true
    unauthenticated: 401
    on_store_outage: {serve_cached: 60s}
    access:
      roles: [a, b]
      scopes: [s]
      groups: [g]
      tenants: [t]
      when: 'identity.subject == request.params.user'
"""
    assert configuration(text).routes == (
        Route(
            "r",
            Match("/u/{user}/*", ("a.example", "*.b.example", "::1"), ("GET", "POST")),
            "notes",
            AccessRule(
                "signed-in",
                frozenset({"a", "b"}),
                frozenset({"s"}),
                frozenset({"g"}),
                frozenset({"t"}),
                "identity.subject == request.params.user",
            ),
            strip_prefix="/u",
            add_prefix="/v",
            allow_encoded_slash=True,
            unauthenticated="401",
            serve_cached=60.0,
            line=4,
            column=5,
            place_of_path=place_of(text, "/u/{user}"),
            place_of_when=place_of(text, "identity.subject =="),
        ),
    )


@pytest.mark.parametrize("level", ["public", "optional", "signed-in"])
def test_an_access_level_stands_alone(level: str) -> None:
    text = MINIMAL.replace("signed-in", level)
    assert configuration(text).routes[0].access == AccessRule(level)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("more", "field", "value"),
    [
        ("    unauthenticated: '401'\n", "unauthenticated", "401"),
        ("    unauthenticated: redirect\n", "unauthenticated", "redirect"),
        ("    on_store_outage: deny\n", "serve_cached", 0.0),
        ("    on_store_outage:\n      serve_cached: 2m\n", "serve_cached", 120.0),
    ],
)
def test_a_route_option_has_its_forms(more: str, field: str, value: Any) -> None:
    assert getattr(with_route(more), field) == value


@pytest.mark.parametrize(
    ("access", "rule"),
    [
        ("{acr: mfa}", AccessRule("signed-in", acr=("mfa",))),
        ("{acr: [phr, mfa]}", AccessRule("signed-in", acr=("phr", "mfa"))),
        ("{max_age: 5m}", AccessRule("signed-in", max_age=300.0)),
    ],
)
def test_a_route_may_ask_how_people_signed_in(access: str, rule: AccessRule) -> None:
    text = MINIMAL.replace("access: signed-in", f"access: {access}")
    assert configuration(text).routes[0].access == rule


def test_a_route_test_is_read_in_full() -> None:
    text = MINIMAL + (
        "tests:\n"
        "  - request: POST https://a.example/notes?x\n"
        "    as: {subject: u, roles: [r], groups: [g], scopes: [s], tenant: t,"
        " acr: mfa, claims: {a: {b: [1]}}}\n"
        "    headers: {Accept: text/html}\n"
        "    expect: not-found\n"
        "  - {request: GET /notes, expect: challenge}\n"
    )
    full, short = configuration(text).tests
    assert full == RouteTest(
        "POST",
        "https://a.example/notes?x",
        "not-found",
        "u",
        ("r",),
        ("g",),
        ("s",),
        "t",
        {"a": {"b": [1]}},
        (("Accept", "text/html"),),
        10,
        5,
        "mfa",
    )
    claims: Any = full.claims
    assert type(claims) is type(claims["a"]) is dict
    assert type(claims["a"]["b"]) is list
    assert short == RouteTest("GET", "/notes", "challenge", line=14, column=5)


def test_accounts_are_in_the_file_unless_a_database_is_named() -> None:
    assert configuration(MINIMAL).login.database is None
    text = f"login: {{database: 'postgresql://db/people', factor_key: {'k' * 32}}}\n"
    read = configuration(MINIMAL + text).login
    assert read.database == Secret("postgresql://db/people")
    assert read.factor_key == Secret("k" * 32)


def test_the_pages_are_read_with_the_places_of_what_is_looked_at_later() -> None:
    text = f"{MINIMAL}pages: {{name: N, language: de, colours: {{accent: '#2C56C4'}}}}\n"
    pages = configuration(text).pages
    assert (pages.name, pages.language, pages.accent) == ("N", "de", "#2c56c4")
    assert pages.place_of_language == (9, 28)
    assert configuration(f"{MINIMAL}pages: {{logo: l.svg}}\n").pages.logo_file.endswith("/l.svg")


def test_mail_links_and_registration_are_read_in_full() -> None:
    login = configuration(
        MINIMAL
        + """\
login:
  mail:
    from: Doorward <no-reply@example.com>
    smtp: {server: 'mail.example.com:465', security: tls, username: u, password: p}
  links: {invitation: 2d, reset: 10m, registration: 2h}
  registration: {enabled: true, domains: [Example.com], tenant: acme, roles: [member]}
"""
    ).login
    smtp = Smtp(Address("mail.example.com", 465), "tls", "u", Secret("p"))
    assert login.mail == Mail("Doorward <no-reply@example.com>", smtp)
    assert login.links == Links(172_800.0, 600.0, 7200.0)
    assert login.registration == Registration(("example.com",), "acme", ("member",))


def test_mail_may_go_to_a_webhook_and_nobody_registers_by_default() -> None:
    hook = "{url: 'https://hook.example/mail', secret: a-long-enough-secret}"
    login = configuration(
        MINIMAL + f"login: {{mail: {{webhook: {hook}}}, registration: {{tenant: acme}}}}\n"
    ).login
    webhook = Webhook("https://hook.example/mail", Secret("a-long-enough-secret"))
    assert login.mail == Mail(webhook=webhook)
    assert login.registration is None
    assert login.links == Links()


def test_a_route_leads_to_the_providers_of_its_tenants_unless_it_names_some() -> None:
    routes = configuration(
        """\
version: 1
login:
  providers:
    - {id: a, issuer: 'https://a.example', client_id: c, tenants: [acme, other]}
    - {id: b, issuer: 'https://b.example', client_id: c, tenants: [corp]}
    - {id: c, issuer: 'https://c.example', client_id: c}
upstreams: {app: 'http://127.0.0.1:9'}
routes:
  - {id: one, match: {path: /one}, upstream: app, access: {tenants: [acme]}}
  - {id: two, match: {path: /two}, upstream: app, access: {tenants: [acme, corp]}}
  - {id: named, match: {path: /named}, upstream: app, access: {tenants: [acme]}, providers: [c]}
  - {id: none, match: {path: /none}, upstream: app, access: {tenants: [nobody]}}
  - {id: any, match: {path: /any}, upstream: app, access: signed-in, prompt: login}
"""
    ).routes
    found = {each.id: each.providers for each in routes}
    assert found == {"one": ("a",), "two": ("a", "b"), "named": ("c",), "none": (), "any": ()}
    assert routes[-1].prompt == "login"


def test_a_directory_and_a_user_service_are_read_in_full() -> None:
    ldap = configuration(
        MINIMAL
        + """\
login:
  ldap:
    url: ldaps://ldap.example.com
    bind_dn: cn=gateway,dc=example,dc=com
    bind_password: p
    base: ou=people,dc=example,dc=com
    filter: (mail={login})
    group_base: ou=groups,dc=example,dc=com
    group_filter: (memberUid={login})
    roles: {"cn=editors,ou=groups,dc=example,dc=com": editor}
    timeout: 2s
    subject: objectGUID
    tenant: acme
"""
    ).login.ldap
    assert ldap == Ldap(
        "ldaps://ldap.example.com",
        bind_dn="cn=gateway,dc=example,dc=com",
        bind_password=Secret("p"),
        base="ou=people,dc=example,dc=com",
        filter="(mail={login})",
        group_base="ou=groups,dc=example,dc=com",
        group_filter="(memberUid={login})",
        roles={"cn=editors,ou=groups,dc=example,dc=com": "editor"},
        timeout=2.0,
        subject="objectGUID",
        tenant="acme",
    )
    service = "{url: 'https://users.example/check', token: a-long-enough-token, timeout: 1s}"
    read = configuration(MINIMAL + f"login: {{user_service: {service}}}\n").login
    assert read.user_service == UserService(
        "https://users.example/check", Secret("a-long-enough-token"), 1.0
    )


def test_people_of_a_directory_and_of_a_provider_are_told_apart() -> None:
    """Else the one could speak for the people of the other."""
    providers = "providers: [{id: corp, issuer: 'https://i.example', client_id: c}]"
    service = "user_service: {url: 'https://users.example/check'}"
    login = configuration(MINIMAL + f"login: {{accounts: false, {service}, {providers}}}\n").login
    assert [each.namespace for each in login.providers] == ["corp"]
