"""The structure of a route in `routes.yaml`, and of a sentence about the routes (`tests`)."""

from typing import Final

from config.schema_keywords import duration, flag, mapping, one_of, set_of, text, words

_ROOTED: Final = "a path such as /notes"
_ACR = text("a way to sign in such as mfa", "acr", "A way to sign in.")
_ACCESS = {
    "description": "Who may; every route says so itself. `public`: everybody, nobody is looked up. "
    "`optional`: everybody, and who is signed in is passed on. `signed-in`: everybody who is. Or a "
    "mapping, of which every key must hold.",
    "anyOf": [
        {"type": "string", "enum": ["public", "optional", "signed-in"]},
        mapping(
            "Signed in, and every key given holds.",
            roles=set_of(words("A role."), "Has any of these roles."),
            scopes=set_of(words("A scope."), "Has all of these scopes."),
            groups=set_of(words("A group."), "Is in any of these groups."),
            tenants=set_of(words("A tenant."), "Belongs to one of these tenants."),
            acr={
                "description": "Signed in as strongly as one of these says (`acr`), the best "
                "first: `mfa` with two factors, or what your provider calls it. Who is signed in "
                "otherwise is asked for more.",
                "anyOf": [
                    _ACR,
                    set_of(_ACR, "Several ways.", minItems=1),
                ],
            },
            max_age=duration(
                "Proved who they are no longer ago than this; else they are asked again.",
                *("1s", "400d"),
            ),
            when=text(
                "a CEL expression",
                "condition",
                "A CEL expression over `request.method`, `.path`, `.host`, `.params`, `.headers` "
                "and `identity.*` that must be true.",
            ),
        ),
    ],
}

ROUTE: Final = mapping(
    "Which requests go where, and who may send them. Their order never matters.",
    ("id", "match", "upstream", "access"),
    id=text("a name", "name", "Its name in logs, metrics and messages."),
    match=mapping(
        "Which requests it takes.",
        ("path",),
        path=text(
            "a path such as /notes, /notes/* or /users/{user}/video/*",
            "path-pattern",
            "Exact, or a prefix on a segment boundary when it ends in `/*`; `{name}` for one "
            "segment.",
        ),
        hosts=set_of(
            text("a host such as app.example.com or *.example.com", "host-pattern", "A host."),
            "Exact, or `*.suffix`; without a port. Left out: every host.",
            minItems=1,
        ),
        methods=set_of(
            text("a method such as GET", "method", "A method."),
            "Left out: every method. `GET` takes `HEAD` too.",
            minItems=1,
        ),
    ),
    upstream=words("The name of an upstream."),
    access=_ACCESS,
    rewrite=mapping(
        "How the path changes on its way to the upstream.",
        strip_prefix=text(
            _ROOTED, "prefix", "Taken away first; the route's path must begin with it."
        ),
        add_prefix=text(_ROOTED, "prefix", "Then put before it."),
    ),
    allow_encoded_slash=flag(
        "Whether `%2F` in a path is let through, for backends that need it.", default=False
    ),
    providers=set_of(
        words("The id of a provider."),
        "Where people sign in for this route: sent straight to the only one, or shown these. "
        "Default: the providers that serve one of `access.tenants`, else all of them. Says nothing "
        "of who is let in.",
        default=[],
    ),
    access_token=one_of(
        "The field in which the upstream gets the access token that the provider gave for the "
        "session (in `Authorization` as `Bearer`). Left out: it gets none.",
        *("Authorization", "X-Access-Token", "X-Forwarded-Access-Token"),
    ),
    prompt=one_of(
        "What the provider asks for when people sign in for this route, even if it knows them.",
        *("login", "consent", "select_account"),
    ),
    unauthenticated=one_of(
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
            mapping(
                "Go on with sessions that were good.",
                ("serve_cached",),
                serve_cached=duration("For how long.", "1s", "1d"),
            ),
        ],
    },
)

ROUTE_TEST: Final = mapping(
    "A sentence about the routes that must be true.",
    ("request", "expect"),
    request=text(
        "a request such as GET /notes/1",
        "request-line",
        "Method, and path with query or absolute URL.",
    ),
    as_=mapping(
        "Who is calling. Left out: nobody is signed in.",
        ("subject",),
        subject=words("Their subject."),
        roles=set_of(words("A role."), "Their roles."),
        groups=set_of(words("A group."), "Their groups."),
        scopes=set_of(words("A scope."), "Their scopes."),
        tenant=words("Their tenant."),
        acr=text(_ACR["title"], "acr", "How strongly they signed in, and just now."),
        claims={"type": "object", "description": "Their other claims, as conditions read them."},
    ),
    headers={
        "type": "object",
        "description": "Fields of the request.",
        "propertyNames": text("a field name", "field-name", "A field name."),
        "additionalProperties": text("a field value", "field-value", "Its value."),
    },
    expect=one_of("What must come out.", "allow", "deny", "challenge", "not-found"),
)
