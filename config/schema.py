"""The structure of `routes.yaml` as JSON Schema 2020-12: the one description of every key.

Editors complete from it, `config.validation` checks with it, and `docs/routes.md` is checked
against it. `config.schema_keywords` says what it is written with.
"""

from typing import Final

from config.login_schema import LOGIN
from config.route_schema import ROUTE, ROUTE_TEST
from config.schema_keywords import (
    Schema,
    claims,
    duration,
    flag,
    list_of,
    mapping,
    number,
    one_of,
    set_of,
    size,
    text,
    words,
)

_ADDRESS: Final = "an address such as 127.0.0.1:8080 or [::1]:8080"


_SERVER = mapping(
    "The public side.",
    listen=text(_ADDRESS, "address", "Where to listen.", default="127.0.0.1:8080"),
    public_url=text(
        "the URL that browsers use, such as https://app.example.com",
        "origin",
        "Scheme and host that browsers use; decides cookie security and which `return_to` is "
        "honoured. Default: `http://` (with `tls`: `https://`) and `listen`. One that names "
        "`listen` itself follows it when `DOORWARD_LISTEN` moves it.",
    ),
    workers=number(
        "a number of processes or auto",
        "workers",
        "Worker processes on one port; `auto` is one for each core.",
        pattern="^(auto|[0-9]{1,3})$",
        default=1,
    ),
    trusted_proxies=set_of(
        text("a network such as 10.0.0.0/8", "network", "A CIDR or a single address."),
        "Networks whose `X-Forwarded-*` and `Forwarded` are believed; nobody by default.",
        default=[],
    ),
    tls=mapping(
        "Serve TLS; certificates are chosen by server name and read again when a file changes.",
        ("certificates",),
        certificates=list_of(
            mapping(
                "A certificate and its key.",
                ("cert_file", "key_file"),
                cert_file=words("PEM file with the certificate and its chain, beside this file."),
                key_file=words("PEM file with the private key, beside this file."),
            ),
            "The first one serves clients that name no server.",
            minItems=1,
        ),
    ),
    limits=mapping(
        "What a client may cost.",
        head=size("Bytes of a request's head.", "1KiB", "1MiB", default="32KiB"),
        body=size("Bytes of a request's body.", "1B", "1024GiB", default="16MiB"),
        head_timeout=duration(
            "From the first byte of a head to its last.", "100ms", "10m", default="10s"
        ),
        idle_timeout=duration(
            "How long a connection may wait for its next request.", "100ms", "1d", default="75s"
        ),
        connections=number(
            "a number of connections",
            "count",
            "Client connections of one worker.",
            pattern="^[0-9]{1,7}$",
            default=10_000,
        ),
        connections_per_address=number(
            "a number of connections",
            "count",
            "How many of them one address (of IPv6: a /64) may have; `trusted_proxies` are not "
            "limited. Default: no limit of its own.",
            pattern="^[0-9]{1,7}$",
        ),
    ),
)

_ADMIN = mapping(
    "The operators' side: `/healthz`, `/readyz`, `/metrics`, the admin API and the dashboard.",
    listen=text(_ADDRESS, "address", "Where to listen.", default="127.0.0.1:8081"),
    token={
        "type": "string",
        "writeOnly": True,
        "description": "Bearer token of the admin API and the dashboard; they stay closed while it "
        "is empty or left out. On an address that others can reach, at least 16 characters.",
    },
)

_STORE = mapping(
    "Where sessions live.",
    url=text(
        "embedded or a Redis URL",
        "store-url",
        "`embedded`, `redis://HOST:PORT/0`, `rediss://…`, `unix:///path/to.sock`, "
        "`redis+sentinel://H1,H2/NAME` or `redis+cluster://H1,H2`.",
        writeOnly=True,
        default="embedded",
    ),
)

_SESSION = mapping(
    "How sessions are named and how long they last.",
    cookie=mapping(
        "The session cookie.",
        name=text(
            "a cookie name",
            "cookie-name",
            "Its name; sent as `__Host-NAME` with `Secure` when `public_url` is https.",
            default="doorward",
        ),
        same_site=one_of(
            "`SameSite` of the cookie; `none` needs an https `public_url`.",
            *("lax", "strict", "none"),
            default="lax",
        ),
    ),
    idle_timeout=duration("A session unused for so long ends.", "1s", "400d", default="30m"),
    absolute_timeout=duration("A session ends after so long.", "1s", "400d", default="12h"),
    lease=duration(
        "No gateway trusts its own copy of a session for longer without hearing from the store.",
        *("50ms", "10s"),
        default="500ms",
    ),
    max_sessions=number(
        "a number of sessions",
        "count",
        "How many sessions one subject may have at once, of those that begin while this is set. "
        "Left out: any number.",
        pattern="^[0-9]{1,7}$",
    ),
    when_full=one_of(
        "What a sign-in beyond `max_sessions` does: end the session that began first, or fail.",
        *("end_oldest", "refuse"),
        default="end_oldest",
    ),
    cache_size=number(
        "a number of sessions",
        "count",
        "How many sessions each worker keeps copies of in memory, some 1 KiB each, and 2 more for "
        "the 20,000 used last. Those in use stay; for the others each request asks the store.",
        pattern="^[0-9]{1,7}$",
        default=100_000,
    ),
)

_COLOUR: Final = "a colour such as '#2c56c4'"

_PAGES = mapping(
    "What is your own on the pages that people see.",
    name=words("The name at the top. Default: host and port of `public_url`."),
    logo=words("An SVG, PNG or WebP beside this file, of 32 KiB at most."),
    colours=mapping(
        "Your colours; each must be readable on its ground (WCAG AA, 4.5:1).",
        accent=text(_COLOUR, "colour", "Of links and buttons. Default: Doorward's blue."),
        accent_dark=text(
            _COLOUR,
            "colour",
            "The same, for those who prefer a dark ground. Default: a lighter shade of `accent`.",
        ),
    ),
    language=words(
        "The language (BCP 47) of those who read none that is there. Default: English.",
    ),
    folder=words(
        "A folder beside this file with your own templates (`*.html`), `style.css` and catalogues "
        "(`fr.po`), in the place of Doorward's of that name: docs/pages.md."
    ),
)

ALGORITHMS: Final = (
    "ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
)  # fmt: skip
"""Signatures with a private key only: never `none`, never HS* (RFC 8725 3.1, 3.2)."""

_TOKEN_ISSUER = mapping(
    "An issuer whose bearer tokens (JWT) are believed.",
    ("issuer", "audience"),
    issuer=words("The `iss` of its tokens, exactly."),
    audience=set_of(words("An audience."), "Values of `aud` that mean this gateway.", minItems=1),
    algorithms=set_of(
        one_of("A signature algorithm.", *ALGORITHMS),
        "What its tokens may be signed with. `none` and HS* are never accepted.",
        minItems=1,
        default=["ES256", "RS256"],
    ),
    jwks_uri=text(
        "an https URL",
        "secure-url",
        "Where its keys are; plain http only on this machine. Default: discovered from the issuer.",
    ),
    jwks_file=words("A file with its keys, beside this file; instead of `jwks_uri`."),
    strict_audience=flag(
        "Whether every audience of a token must be listed; else one of them is enough.",
        default=True,
    ),
    claims=claims("Which of its claims fill the identity."),
)

_IDENTITY_FIELDS: Final = (
    "subject", "tenant", "roles", "scopes", "groups", "name", "email", "method",
)  # fmt: skip

_IDENTITY = mapping(
    "What upstreams are told about the caller.",
    headers={
        "description": "A preset, or a mapping from field name to the part of the identity that "
        "fills it: `subject`, `tenant`, `roles`, `scopes`, `groups`, `name`, `email`, `method`.",
        "default": "standard",
        "anyOf": [
            {
                "type": "string",
                "enum": ["standard", "remote-user", "x-forwarded-user", "x-auth-request"],
            },
            {
                "type": "object",
                "minProperties": 1,
                "propertyNames": text("a field name", "identity-field-name", "A field name."),
                "additionalProperties": one_of("A part of the identity.", *_IDENTITY_FIELDS),
            },
        ],
    },
    include=set_of(
        one_of("A part of the identity.", "name", "email", "groups"),
        "Personal data that the preset `standard` adds: `X-Auth-Name`, `X-Auth-Email`, "
        "`X-Auth-Groups`.",
        default=[],
    ),
    assertion=mapping(
        "The signed statement of who is calling (a JWT).",
        header=text(
            "a field name", "identity-field-name", "Its field.", default="X-Auth-Assertion"
        ),
        ttl=duration("How long it is good for.", "1s", "1h", default="60s"),
        issuer=words("Its `iss`. Default: `public_url`."),
    ),
)

_ENDPOINT = text(
    "an address such as http://127.0.0.1:9001, https://… or unix:/path.sock",
    "endpoint",
    "`http://HOST:PORT`, `https://HOST:PORT` (either with a path to put before) or "
    "`unix:/path.sock`.",
)

_UPSTREAM = mapping(
    "A backend service.",
    ("endpoints",),
    endpoints=set_of(_ENDPOINT, "Its addresses.", minItems=1),
    balance=one_of(
        "How requests are spread over the endpoints.",
        *("least_requests", "round_robin"),
        default="least_requests",
    ),
    health=mapping(
        "Ask each endpoint now and then; one that fails gets no requests while another passes.",
        ("path",),
        path=text("a path such as /notes", "literal-target", "What is asked for; 2xx passes."),
        interval=duration("Time between two checks.", "100ms", "1d", default="5s"),
    ),
    timeouts=mapping(
        "How long it may take.",
        connect=duration("Until a connection stands.", "10ms", "10m", default="2s"),
        response=duration(
            "From the end of the request to the head of the response.",
            *("10ms", "1d"),
            default="30s",
        ),
        idle=duration(
            "Without a byte in either direction while a body is on its way.",
            *("10ms", "1d"),
            default="60s",
        ),
    ),
    limits=mapping(
        "How much of one worker's may be with it at once; more is answered with 503.",
        requests=number(
            "a number of requests",
            "count",
            "Requests on their way; an upgraded connection is none.",
            pattern="^[0-9]{1,7}$",
            default=4096,
        ),
        queue=number(
            "a number of requests",
            "count",
            "Requests that may wait for one of these to end.",
            pattern="^[0-9]{1,7}$",
            default=256,
        ),
        queue_timeout=duration("For how long they may wait.", "1ms", "10m", default="1s"),
    ),
    on_logout=text(
        "a path or an absolute URL",
        "path-or-url",
        "Told of every ended session with a logout token (OpenID Connect Back-Channel Logout).",
    ),
)

SCHEMA: Final[Schema] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Doorward's routes.yaml, version 1",
    **mapping(
        "What the operator says: where to listen, who is believed, and which requests go where.",
        ("version", "upstreams", "routes"),
        version={"const": 1, "description": "The version of this file's format."},
        server=_SERVER,
        admin=_ADMIN,
        store=_STORE,
        session=_SESSION,
        login=LOGIN,
        pages=_PAGES,
        tokens=list_of(_TOKEN_ISSUER, "Issuers of bearer tokens that are believed.", default=[]),
        identity=_IDENTITY,
        upstreams={
            "type": "object",
            "description": "Backend services by name: one address, or a mapping.",
            "propertyNames": text("a name", "name", "The name of an upstream."),
            "additionalProperties": {
                "description": "One endpoint, or a mapping.",
                "anyOf": [_ENDPOINT, _UPSTREAM],
            },
        },
        routes=list_of(ROUTE, "The routes, in any order; ambiguity is a problem."),
        tests=list_of(
            ROUTE_TEST,
            "Run by `doorward check` and before every reload goes live.",
            default=[],
        ),
    ),
}
"""The whole file."""
