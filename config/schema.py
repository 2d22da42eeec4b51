"""The structure of `routes.yaml` as JSON Schema 2020-12: the one description of every key.

Editors complete from it, `config.validation` checks with it, and `docs/routes.md` is checked
against it. Beyond the standard's keywords: `format` names a function of `config.formats`,
`x-at-least` and `x-at-most` bound what it returns, `title` says in a message what is expected, and
`writeOnly` marks what no message may show.
"""

from typing import Any, Final

Schema = dict[str, Any]


def _mapping(description: str, required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": description,
        # `as_`: some keys are words of Python.
        "properties": {key.rstrip("_"): value for key, value in properties.items()},
        "additionalProperties": False,
    }
    return schema | ({"required": list(required)} if required else {})


def _text(title: str, format_: str, description: str, **more: Any) -> Schema:
    return {
        "type": "string",
        "title": title,
        "format": f"doorward-{format_}",
        "description": description,
        **more,
    }


def _words(description: str, **more: Any) -> Schema:
    return {"type": "string", "minLength": 1, "description": description, **more}


def _list(items: Schema, description: str, **more: Any) -> Schema:
    return {"type": "array", "items": items, "description": description, **more}


def _set(items: Schema, description: str, **more: Any) -> Schema:
    return _list(items, description, uniqueItems=True, **more)


def _one_of(description: str, *choices: Any, **more: Any) -> Schema:
    return {"enum": list(choices), "description": description, **more}


def _duration(description: str, at_least: str, at_most: str, **more: Any) -> Schema:
    return _text(
        "a duration such as 500ms, 10s, 5m, 12h or 7d",
        "duration",
        description,
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$",
        **{"x-at-least": at_least, "x-at-most": at_most, **more},
    )


def _size(description: str, at_least: str, at_most: str, **more: Any) -> Schema:
    return {
        "type": ["integer", "string"],
        "title": "a size such as 32KiB, 16MiB or a number of bytes",
        "format": "doorward-size",
        "description": description,
        "pattern": r"^[0-9]{1,12}( ?(B|KiB|MiB|GiB))?$",
        "x-at-least": at_least,
        "x-at-most": at_most,
        **more,
    }


def _number(title: str, format_: str, description: str, pattern: str, **more: Any) -> Schema:
    return _text(title, format_, description, pattern=pattern, **more) | {
        "type": ["integer", "string"]
    }


def _flag(description: str, *, default: bool) -> Schema:
    # The texts too: a variable's value is text.
    return _one_of(
        description,
        *(True, False, "true", "false"),
        type=["boolean", "string"],
        title="true or false",
        default=default,
    )


_ADDRESS: Final = "an address such as 127.0.0.1:8080 or [::1]:8080"
_ROOTED: Final = "a path such as /notes"


def _claims(description: str) -> Schema:
    fields = ("subject", "tenant", "roles", "scopes", "groups", "name", "email")
    return _mapping(
        description,
        (),
        **{
            field: _words(f"The claim that fills `{field}`; dots go into nested objects.")
            for field in fields
        },
    )


_SERVER = _mapping(
    "The public side.",
    listen=_text(_ADDRESS, "address", "Where to listen.", default="127.0.0.1:8080"),
    public_url=_text(
        "the URL that browsers use, such as https://app.example.com",
        "origin",
        "Scheme and host that browsers use; decides cookie security and which `return_to` is "
        "honoured. Default: `http://` (with `tls`: `https://`) and `listen`. One that names "
        "`listen` itself follows it when `DOORWARD_LISTEN` moves it.",
    ),
    workers=_number(
        "a number of processes or auto",
        "workers",
        "Worker processes on one port; `auto` is one for each core.",
        pattern="^(auto|[0-9]{1,3})$",
        default=1,
    ),
    trusted_proxies=_set(
        _text("a network such as 10.0.0.0/8", "network", "A CIDR or a single address."),
        "Networks whose `X-Forwarded-*` and `Forwarded` are believed; nobody by default.",
        default=[],
    ),
    tls=_mapping(
        "Serve TLS; certificates are chosen by server name and read again when a file changes.",
        ("certificates",),
        certificates=_list(
            _mapping(
                "A certificate and its key.",
                ("cert_file", "key_file"),
                cert_file=_words("PEM file with the certificate and its chain, beside this file."),
                key_file=_words("PEM file with the private key, beside this file."),
            ),
            "The first one serves clients that name no server.",
            minItems=1,
        ),
    ),
    limits=_mapping(
        "What a client may cost.",
        head=_size("Bytes of a request's head.", "1KiB", "1MiB", default="32KiB"),
        body=_size("Bytes of a request's body.", "1B", "1024GiB", default="16MiB"),
        head_timeout=_duration(
            "From the first byte of a head to its last.", "100ms", "10m", default="10s"
        ),
        idle_timeout=_duration(
            "How long a connection may wait for its next request.", "100ms", "1d", default="75s"
        ),
        connections=_number(
            "a number of connections",
            "count",
            "Client connections of one worker.",
            pattern="^[0-9]{1,7}$",
            default=10_000,
        ),
        connections_per_address=_number(
            "a number of connections",
            "count",
            "How many of them one address (of IPv6: a /64) may have; `trusted_proxies` are not "
            "limited. Default: no limit of its own.",
            pattern="^[0-9]{1,7}$",
        ),
    ),
)

_ADMIN = _mapping(
    "The operators' side: `/healthz`, `/readyz`, `/metrics`, the admin API and the dashboard.",
    listen=_text(_ADDRESS, "address", "Where to listen.", default="127.0.0.1:8081"),
    token={
        "type": "string",
        "writeOnly": True,
        "description": "Bearer token of the admin API and the dashboard; they stay closed while it "
        "is empty or left out. On an address that others can reach, at least 16 characters.",
    },
)

_STORE = _mapping(
    "Where sessions live.",
    url=_text(
        "embedded or a Redis URL",
        "store-url",
        "`embedded`, `redis://HOST:PORT/0`, `rediss://…`, `unix:///path/to.sock`, "
        "`redis+sentinel://H1,H2/NAME` or `redis+cluster://H1,H2`.",
        writeOnly=True,
        default="embedded",
    ),
)

_SESSION = _mapping(
    "How sessions are named and how long they last.",
    cookie=_mapping(
        "The session cookie.",
        name=_text(
            "a cookie name",
            "cookie-name",
            "Its name; sent as `__Host-NAME` with `Secure` when `public_url` is https.",
            default="doorward",
        ),
        same_site=_one_of(
            "`SameSite` of the cookie; `none` needs an https `public_url`.",
            *("lax", "strict", "none"),
            default="lax",
        ),
    ),
    idle_timeout=_duration("A session unused for so long ends.", "1s", "400d", default="30m"),
    absolute_timeout=_duration("A session ends after so long.", "1s", "400d", default="12h"),
    lease=_duration(
        "No gateway trusts its own copy of a session for longer without hearing from the store.",
        *("50ms", "10s"),
        default="500ms",
    ),
    max_sessions=_number(
        "a number of sessions",
        "count",
        "How many sessions one subject may have at once, of those that begin while this is set. "
        "Left out: any number.",
        pattern="^[0-9]{1,7}$",
    ),
    when_full=_one_of(
        "What a sign-in beyond `max_sessions` does: end the session that began first, or fail.",
        *("end_oldest", "refuse"),
        default="end_oldest",
    ),
)

_PROVIDER = _mapping(
    "An OpenID provider that people may sign in with.",
    ("id", "issuer", "client_id"),
    id=_text("a name", "name", "Its name in addresses and logs."),
    label=_words("What its button says. Default: the id."),
    issuer=_text("an https URL", "secure-url", "Its issuer; plain http only on this machine."),
    protocol=_one_of(
        "What it speaks: OpenID Connect, with discovery; OAuth 2.0 and no more (then name its "
        "endpoints); or what GitHub speaks (issuer `https://github.com`, or your own server).",
        *("openid", "oauth2", "github"),
        default="openid",
    ),
    authorization_endpoint=_text(
        "an https URL", "secure-url", "Where people sign in; for `protocol: oauth2` only."
    ),
    token_endpoint=_text(
        "an https URL", "secure-url", "Where codes become tokens; for `protocol: oauth2` only."
    ),
    userinfo_endpoint=_text(
        "an https URL",
        "secure-url",
        "What it says of a person, as a JSON object; for `protocol: oauth2` only.",
    ),
    client_id=_words("The id that it gave this gateway."),
    client_secret=_words("The secret that goes with it.", writeOnly=True),
    scopes=_set(
        _words("A scope."),
        "What is asked for; `openid` must be among them when it speaks OpenID Connect. Default: "
        "`openid`, `profile` and `email`; for GitHub `read:user` and `user:email`; else none.",
    ),
    claims=_claims(
        "Which of its claims fill the identity. Default: the names of OpenID Connect, and for "
        "Keycloak, Google, Entra and gitlab.com what they call it."
    ),
    namespace=_text(
        "a name, or nothing",
        "namespace",
        "Stands before its subjects, with a colon, so that no two ways to sign in can mean the "
        "same person. Empty: its subjects are taken as they are. Default: the id; empty when it "
        "is the only way to sign in (one provider, and `accounts: false`).",
        pattern="^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$",
    ),
    own_callback=_flag(
        "Whether it sends people back to `/.doorward/callback/ID`. For providers that do not send "
        "`iss` (RFC 9207), when there are several. Without OpenID Connect always, unless said "
        "otherwise.",
        default=False,
    ),
    end_session=_flag("Whether signing out here signs out there too.", default=True),
    acr_values=_set(
        _words("An authentication context class."),
        "How people must have signed in there (`acr`), best first: asked for, and whoever comes "
        "back without one of them is not let in. Left out: however the provider likes.",
        default=[],
    ),
    max_age=_duration(
        "How long ago somebody may have signed in there; else they are asked again. Left out: as "
        "long as the provider likes.",
        *("1s", "400d"),
    ),
    prompt=_one_of(
        "What the provider asks for even if it knows them.", "login", "consent", "select_account"
    ),
    domains=_set(
        _text("a domain such as example.com", "host-name", "A domain."),
        "Whoever gives an e-mail address of one of them on the sign-in page is sent to this "
        "provider. Says where to ask, and nothing of who is let in.",
        default=[],
    ),
    tenants=_set(
        _words("A tenant."),
        "Tenants whose people sign in there: where a route is for some of them (`access.tenants`), "
        "people are sent to it. Says nothing of who is let in.",
        default=[],
    ),
)

_MAIL = _mapping(
    "How people are written to, with links that let them set a password: `smtp` or `webhook`.",
    from_=_text(
        "an e-mail address, or Name <address>", "sender", "Who it comes from; needed with `smtp`."
    ),
    smtp=_mapping(
        "A mail server.",
        ("server",),
        server=_text("HOST:PORT", "address", "Where it is; usually port 587, or 465 with `tls`."),
        security=_one_of(
            "`starttls` and `tls` check its certificate; `none` is for this machine only.",
            *("starttls", "tls", "none"),
            default="starttls",
        ),
        username=_words("Who we are to it. Default: nobody in particular."),
        password=_words("The password that goes with it.", writeOnly=True),
    ),
    webhook=_mapping(
        "A service of yours that writes to people; it gets a signed `POST` with JSON.",
        ("url", "secret"),
        url=_text("an https URL", "secure-url", "Where; plain http only on this machine."),
        secret=_words("What the signature is made with.", minLength=16, writeOnly=True),
    ),
)

_LINKS = _mapping(
    "How long a link is good for.",
    invitation=_duration("To set a first password.", "1m", "30d", default="3d"),
    reset=_duration("To set another one.", "1m", "1d", default="30m"),
    registration=_duration("To confirm an address.", "1m", "7d", default="1d"),
)

_USER_SERVICE = _mapping(
    "A service of yours that checks passwords, instead of our own accounts.",
    ("url",),
    url=_text(
        "an https URL",
        "secure-url",
        'Gets `POST` with `{"username", "password"}`; 200 says who that is, 401 no, and anything '
        "else is an outage. Plain http only on this machine.",
    ),
    token=_words("Sent as `Authorization: Bearer`.", minLength=16, writeOnly=True),
    timeout=_duration("How long it may take.", "100ms", "60s", default="5s"),
)

_LDAP = _mapping(
    "A directory that checks passwords, instead of our own accounts. It needs the extra `ldap`.",
    ("url",),
    url=_text("ldaps://HOST or ldap://HOST", "ldap-url", "Where it is."),
    security=_one_of(
        "Of `ldap://`: `starttls` checks the certificate; `none` is for this machine only.",
        *("starttls", "none"),
        default="starttls",
    ),
    ca_file=_words("PEM file with the authorities that are believed, beside this file."),
    timeout=_duration("How long one answer may take.", "100ms", "60s", default="5s"),
    user_dn=_words("The DN of somebody, with `{login}`. Left out: they are looked for."),
    bind_dn=_words("Who looks for them. Default: nobody in particular."),
    bind_password=_words("The password that goes with it.", writeOnly=True),
    base=_words("Below which they are looked for."),
    filter=_words("What is looked for, with `{login}`.", default="(uid={login})"),
    group_base=_words("Below which groups are looked for. Left out: `memberOf` of the entry."),
    group_filter=_words("Their groups, with `{dn}` or `{login}`.", default="(member={dn})"),
    roles={
        "type": "object",
        "description": "The DN of a group, and the role that it gives.",
        "propertyNames": _text("a DN", "ldap-dn", "The DN of a group."),
        "additionalProperties": _words("A role."),
        "default": {},
    },
    subject=_words(
        "The attribute that is the subject: one that never changes hands. `objectGUID` is read "
        "as a GUID.",
        default="entryUUID",
    ),
    name=_words("The attribute that is the name.", default="cn"),
    email=_words("The attribute that is the e-mail address.", default="mail"),
    tenant=_words("The tenant that everybody in it belongs to. Default: none."),
)

_REGISTRATION = _mapping(
    "Whether strangers may make themselves an account. It works when they have shown that the "
    "e-mail address is theirs; `login.mail` is needed.",
    enabled=_flag("Whether they may.", default=False),
    domains=_set(
        _text("a domain such as example.com", "host-name", "A domain, without its subdomains."),
        "Of which e-mail addresses; left out: any.",
        default=[],
    ),
    tenant=_words("The tenant that they belong to. Default: none."),
    roles=_set(_words("A role."), "The roles that they get.", default=[]),
)

_LOGIN = _mapping(
    "Where people are sent to sign in.",
    url=_text(
        "a path or an absolute URL",
        "path-or-url",
        "The bundled login service, or your own.",
        default="/.doorward/login",
    ),
    return_parameter=_text(
        "the name of a query parameter",
        "query-parameter",
        "The query parameter that says where to return to.",
        default="return_to",
    ),
    sites=_set(
        _text(
            "an origin such as https://shop.example.org",
            "origin",
            "Scheme, host and port as browsers use them.",
        ),
        "Origins that people sign in to at `public_url`, once for all of them.",
        default=[],
    ),
    accounts=_flag("Whether the bundled service's own accounts may sign in.", default=True),
    keep_forms=_flag(
        "Whether a form that met a session which is over is kept for 15 minutes, sealed, and "
        "offered to its sender after the sign-in. It is never sent without being asked for.",
        default=True,
    ),
    database=_text(
        "a PostgreSQL URL",
        "database-url",
        "Where the accounts are: `postgresql://USER@HOST/NAME?sslmode=verify-full`, for all "
        "gateways. Default: the file `.doorward/accounts.sqlite3`, for the gateways of one host.",
        writeOnly=True,
    ),
    factor_key={
        "type": "string",
        "minLength": 1,
        "writeOnly": True,
        "description": "Seals the secrets of authenticator apps in the database: 32 random "
        "characters or more, the same for all gateways of `database`, where it is required. "
        "Default: made once, in `.doorward/factors.key`.",
    },
    providers=_list(_PROVIDER, "OpenID providers.", default=[]),
    mail=_MAIL,
    links=_LINKS,
    registration=_REGISTRATION,
    user_service=_USER_SERVICE,
    ldap=_LDAP,
)

_COLOUR: Final = "a colour such as '#2c56c4'"

_PAGES = _mapping(
    "What is your own on the pages that people see.",
    name=_words("The name at the top. Default: host and port of `public_url`."),
    logo=_words("An SVG, PNG or WebP beside this file, of 32 KiB at most."),
    colours=_mapping(
        "Your colours; each must be readable on its ground (WCAG AA, 4.5:1).",
        accent=_text(_COLOUR, "colour", "Of links and buttons. Default: Doorward's blue."),
        accent_dark=_text(
            _COLOUR,
            "colour",
            "The same, for those who prefer a dark ground. Default: a lighter shade of `accent`.",
        ),
    ),
    language=_words(
        "The language (BCP 47) of those who read none that is there. Default: English.",
    ),
    folder=_words(
        "A folder beside this file with your own templates (`*.html`), `style.css` and catalogues "
        "(`fr.po`), in the place of Doorward's of that name: docs/pages.md."
    ),
)

ALGORITHMS: Final = (
    "ES256", "ES384", "ES512", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
)  # fmt: skip
"""Signatures with a private key only: never `none`, never HS* (RFC 8725 3.1, 3.2)."""

_TOKEN_ISSUER = _mapping(
    "An issuer whose bearer tokens (JWT) are believed.",
    ("issuer", "audience"),
    issuer=_words("The `iss` of its tokens, exactly."),
    audience=_set(_words("An audience."), "Values of `aud` that mean this gateway.", minItems=1),
    algorithms=_set(
        _one_of("A signature algorithm.", *ALGORITHMS),
        "What its tokens may be signed with. `none` and HS* are never accepted.",
        minItems=1,
        default=["ES256", "RS256"],
    ),
    jwks_uri=_text(
        "an https URL",
        "secure-url",
        "Where its keys are; plain http only on this machine. Default: discovered from the issuer.",
    ),
    jwks_file=_words("A file with its keys, beside this file; instead of `jwks_uri`."),
    strict_audience=_flag(
        "Whether every audience of a token must be listed; else one of them is enough.",
        default=True,
    ),
    claims=_claims("Which of its claims fill the identity."),
)

_IDENTITY_FIELDS: Final = (
    "subject", "tenant", "roles", "scopes", "groups", "name", "email", "method",
)  # fmt: skip

_IDENTITY = _mapping(
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
                "propertyNames": _text("a field name", "identity-field-name", "A field name."),
                "additionalProperties": _one_of("A part of the identity.", *_IDENTITY_FIELDS),
            },
        ],
    },
    include=_set(
        _one_of("A part of the identity.", "name", "email", "groups"),
        "Personal data that the preset `standard` adds: `X-Auth-Name`, `X-Auth-Email`, "
        "`X-Auth-Groups`.",
        default=[],
    ),
    assertion=_mapping(
        "The signed statement of who is calling (a JWT).",
        header=_text(
            "a field name", "identity-field-name", "Its field.", default="X-Auth-Assertion"
        ),
        ttl=_duration("How long it is good for.", "1s", "1h", default="60s"),
        issuer=_words("Its `iss`. Default: `public_url`."),
    ),
)

_ENDPOINT = _text(
    "an address such as http://127.0.0.1:9001, https://… or unix:/path.sock",
    "endpoint",
    "`http://HOST:PORT`, `https://HOST:PORT` (either with a path to put before) or "
    "`unix:/path.sock`.",
)

_UPSTREAM = _mapping(
    "A backend service.",
    ("endpoints",),
    endpoints=_set(_ENDPOINT, "Its addresses.", minItems=1),
    balance=_one_of(
        "How requests are spread over the endpoints.",
        *("least_requests", "round_robin"),
        default="least_requests",
    ),
    health=_mapping(
        "Ask each endpoint now and then; one that fails gets no requests while another passes.",
        ("path",),
        path=_text(_ROOTED, "literal-target", "What is asked for; 2xx passes."),
        interval=_duration("Time between two checks.", "100ms", "1d", default="5s"),
    ),
    timeouts=_mapping(
        "How long it may take.",
        connect=_duration("Until a connection stands.", "10ms", "10m", default="2s"),
        response=_duration(
            "From the end of the request to the head of the response.",
            *("10ms", "1d"),
            default="30s",
        ),
        idle=_duration(
            "Without a byte in either direction while a body is on its way.",
            *("10ms", "1d"),
            default="60s",
        ),
    ),
    limits=_mapping(
        "How much of one worker's may be with it at once; more is answered with 503.",
        requests=_number(
            "a number of requests",
            "count",
            "Requests on their way; an upgraded connection is none.",
            pattern="^[0-9]{1,7}$",
            default=4096,
        ),
        queue=_number(
            "a number of requests",
            "count",
            "Requests that may wait for one of these to end.",
            pattern="^[0-9]{1,7}$",
            default=256,
        ),
        queue_timeout=_duration("For how long they may wait.", "1ms", "10m", default="1s"),
    ),
    on_logout=_text(
        "a path or an absolute URL",
        "path-or-url",
        "Told of every ended session with a logout token (OpenID Connect Back-Channel Logout).",
    ),
)

_ACR = _text("a way to sign in such as mfa", "acr", "A way to sign in.")
_ACCESS = {
    "description": "Who may; every route says so itself. `public`: everybody, nobody is looked up. "
    "`optional`: everybody, and who is signed in is passed on. `signed-in`: everybody who is. Or a "
    "mapping, of which every key must hold.",
    "anyOf": [
        {"type": "string", "enum": ["public", "optional", "signed-in"]},
        _mapping(
            "Signed in, and every key given holds.",
            roles=_set(_words("A role."), "Has any of these roles."),
            scopes=_set(_words("A scope."), "Has all of these scopes."),
            groups=_set(_words("A group."), "Is in any of these groups."),
            tenants=_set(_words("A tenant."), "Belongs to one of these tenants."),
            acr={
                "description": "Signed in as strongly as one of these says (`acr`), the best "
                "first: `mfa` with two factors, or what your provider calls it. Who is signed in "
                "otherwise is asked for more.",
                "anyOf": [
                    _ACR,
                    _set(_ACR, "Several ways.", minItems=1),
                ],
            },
            max_age=_duration(
                "Proved who they are no longer ago than this; else they are asked again.",
                *("1s", "400d"),
            ),
            when=_text(
                "a CEL expression",
                "condition",
                "A CEL expression over `request.method`, `.path`, `.host`, `.params`, `.headers` "
                "and `identity.*` that must be true.",
            ),
        ),
    ],
}

_ROUTE = _mapping(
    "Which requests go where, and who may send them. Their order never matters.",
    ("id", "match", "upstream", "access"),
    id=_text("a name", "name", "Its name in logs, metrics and messages."),
    match=_mapping(
        "Which requests it takes.",
        ("path",),
        path=_text(
            "a path such as /notes, /notes/* or /users/{user}/video/*",
            "path-pattern",
            "Exact, or a prefix on a segment boundary when it ends in `/*`; `{name}` for one "
            "segment.",
        ),
        hosts=_set(
            _text("a host such as app.example.com or *.example.com", "host-pattern", "A host."),
            "Exact, or `*.suffix`; without a port. Left out: every host.",
            minItems=1,
        ),
        methods=_set(
            _text("a method such as GET", "method", "A method."),
            "Left out: every method. `GET` takes `HEAD` too.",
            minItems=1,
        ),
    ),
    upstream=_words("The name of an upstream."),
    access=_ACCESS,
    rewrite=_mapping(
        "How the path changes on its way to the upstream.",
        strip_prefix=_text(
            _ROOTED, "prefix", "Taken away first; the route's path must begin with it."
        ),
        add_prefix=_text(_ROOTED, "prefix", "Then put before it."),
    ),
    allow_encoded_slash=_flag(
        "Whether `%2F` in a path is let through, for backends that need it.", default=False
    ),
    providers=_set(
        _words("The id of a provider."),
        "Where people sign in for this route: sent straight to the only one, or shown these. "
        "Default: the providers that serve one of `access.tenants`, else all of them. Says nothing "
        "of who is let in.",
        default=[],
    ),
    access_token=_one_of(
        "The field in which the upstream gets the access token that the provider gave for the "
        "session (in `Authorization` as `Bearer`). Left out: it gets none.",
        *("Authorization", "X-Access-Token", "X-Forwarded-Access-Token"),
    ),
    prompt=_one_of(
        "What the provider asks for when people sign in for this route, even if it knows them.",
        *("login", "consent", "select_account"),
    ),
    unauthenticated=_one_of(
        "What somebody gets who is not signed in: `auto` sends browsers to the login page and "
        "everything else a 401.",
        *("auto", "redirect", "401", 401),
        default="auto",
    ),
    on_store_outage={
        "description": "When the store does not answer: `deny` (503), or "
        "`{serve_cached: 60s}` to go on with sessions that were good when it was lost.",
        "default": "deny",
        "anyOf": [
            {"type": "string", "enum": ["deny"]},
            _mapping(
                "Go on with sessions that were good.",
                ("serve_cached",),
                serve_cached=_duration("For how long.", "1s", "1d"),
            ),
        ],
    },
)

_ROUTE_TEST = _mapping(
    "A sentence about the routes that must be true.",
    ("request", "expect"),
    request=_text(
        "a request such as GET /notes/1",
        "request-line",
        "Method, and path with query or absolute URL.",
    ),
    as_=_mapping(
        "Who is calling. Left out: nobody is signed in.",
        ("subject",),
        subject=_words("Their subject."),
        roles=_set(_words("A role."), "Their roles."),
        groups=_set(_words("A group."), "Their groups."),
        scopes=_set(_words("A scope."), "Their scopes."),
        tenant=_words("Their tenant."),
        acr=_text(_ACR["title"], "acr", "How strongly they signed in, and just now."),
        claims={"type": "object", "description": "Their other claims, as conditions read them."},
    ),
    headers={
        "type": "object",
        "description": "Fields of the request.",
        "propertyNames": _text("a field name", "field-name", "A field name."),
        "additionalProperties": _text("a field value", "field-value", "Its value."),
    },
    expect=_one_of("What must come out.", "allow", "deny", "challenge", "not-found"),
)

SCHEMA: Final[Schema] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Doorward's routes.yaml, version 1",
    **_mapping(
        "What the operator says: where to listen, who is believed, and which requests go where.",
        ("version", "upstreams", "routes"),
        version={"const": 1, "description": "The version of this file's format."},
        server=_SERVER,
        admin=_ADMIN,
        store=_STORE,
        session=_SESSION,
        login=_LOGIN,
        pages=_PAGES,
        tokens=_list(_TOKEN_ISSUER, "Issuers of bearer tokens that are believed.", default=[]),
        identity=_IDENTITY,
        upstreams={
            "type": "object",
            "description": "Backend services by name: one address, or a mapping.",
            "propertyNames": _text("a name", "name", "The name of an upstream."),
            "additionalProperties": {
                "description": "One endpoint, or a mapping.",
                "anyOf": [_ENDPOINT, _UPSTREAM],
            },
        },
        routes=_list(_ROUTE, "The routes, in any order; ambiguity is a problem."),
        tests=_list(
            _ROUTE_TEST,
            "Run by `doorward check` and before every reload goes live.",
            default=[],
        ),
    ),
}
"""The whole file."""
