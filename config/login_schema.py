"""The structure of `login` in `routes.yaml`: how people sign in, and where."""

from typing import Final

from config.schema_keywords import (
    claims,
    duration,
    flag,
    list_of,
    mapping,
    one_of,
    set_of,
    text,
    words,
)

_PROVIDER = mapping(
    "An OpenID provider that people may sign in with.",
    ("id", "issuer", "client_id"),
    id=text("a name", "name", "Its name in addresses and logs."),
    label=words("What its button says. Default: the id."),
    issuer=text("an https URL", "secure-url", "Its issuer; plain http only on this machine."),
    protocol=one_of(
        "What it speaks: OpenID Connect, with discovery; OAuth 2.0 and no more (then name its "
        "endpoints); or what GitHub speaks (issuer `https://github.com`, or your own server).",
        *("openid", "oauth2", "github"),
        default="openid",
    ),
    authorization_endpoint=text(
        "an https URL", "secure-url", "Where people sign in; for `protocol: oauth2` only."
    ),
    token_endpoint=text(
        "an https URL", "secure-url", "Where codes become tokens; for `protocol: oauth2` only."
    ),
    userinfo_endpoint=text(
        "an https URL",
        "secure-url",
        "What it says of a person, as a JSON object; for `protocol: oauth2` only.",
    ),
    client_id=words("The id that it gave this gateway."),
    client_secret=words("The secret that goes with it.", writeOnly=True),
    scopes=set_of(
        words("A scope."),
        "What is asked for; `openid` must be among them when it speaks OpenID Connect. Default: "
        "`openid`, `profile` and `email`; for GitHub `read:user` and `user:email`; else none.",
    ),
    claims=claims(
        "Which of its claims fill the identity. Default: the names of OpenID Connect, and for "
        "Keycloak, Google, Entra and gitlab.com what they call it."
    ),
    namespace=text(
        "a name, or nothing",
        "namespace",
        "Stands before its subjects, with a colon, so that no two ways to sign in can mean the "
        "same person. Empty: its subjects are taken as they are. Default: the id; empty when it "
        "is the only way to sign in (one provider, and `accounts: false`).",
        pattern="^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$",
    ),
    own_callback=flag(
        "Whether it sends people back to `/.doorward/callback/ID`. For providers that do not send "
        "`iss` (RFC 9207), when there are several. Without OpenID Connect always, unless said "
        "otherwise.",
        default=False,
    ),
    end_session=flag("Whether signing out here signs out there too.", default=True),
    acr_values=set_of(
        words("An authentication context class."),
        "How people must have signed in there (`acr`), best first: asked for, and whoever comes "
        "back without one of them is not let in. Left out: however the provider likes.",
        default=[],
    ),
    max_age=duration(
        "How long ago somebody may have signed in there; else they are asked again. Left out: as "
        "long as the provider likes.",
        *("1s", "400d"),
    ),
    prompt=one_of(
        "What the provider asks for even if it knows them.", "login", "consent", "select_account"
    ),
    domains=set_of(
        text("a domain such as example.com", "host-name", "A domain."),
        "Whoever gives an e-mail address of one of them on the sign-in page is sent to this "
        "provider. Says where to ask, and nothing of who is let in.",
        default=[],
    ),
    tenants=set_of(
        words("A tenant."),
        "Tenants whose people sign in there: where a route is for some of them (`access.tenants`), "
        "people are sent to it. Says nothing of who is let in.",
        default=[],
    ),
)

_MAIL = mapping(
    "How people are written to, with links that let them set a password: `smtp` or `webhook`.",
    from_=text(
        "an e-mail address, or Name <address>", "sender", "Who it comes from; needed with `smtp`."
    ),
    smtp=mapping(
        "A mail server.",
        ("server",),
        server=text("HOST:PORT", "address", "Where it is; usually port 587, or 465 with `tls`."),
        security=one_of(
            "`starttls` and `tls` check its certificate; `none` is for this machine only.",
            *("starttls", "tls", "none"),
            default="starttls",
        ),
        username=words("Who we are to it. Default: nobody in particular."),
        password=words("The password that goes with it.", writeOnly=True),
    ),
    webhook=mapping(
        "A service of yours that writes to people; it gets a signed `POST` with JSON.",
        ("url", "secret"),
        url=text("an https URL", "secure-url", "Where; plain http only on this machine."),
        secret=words("What the signature is made with.", minLength=16, writeOnly=True),
    ),
)

_LINKS = mapping(
    "How long a link is good for.",
    invitation=duration("To set a first password.", "1m", "30d", default="3d"),
    reset=duration("To set another one.", "1m", "1d", default="30m"),
    registration=duration("To confirm an address.", "1m", "7d", default="1d"),
)

_USER_SERVICE = mapping(
    "A service of yours that checks passwords, instead of our own accounts.",
    ("url",),
    url=text(
        "an https URL",
        "secure-url",
        'Gets `POST` with `{"username", "password"}`; 200 says who that is, 401 no, and anything '
        "else is an outage. Plain http only on this machine.",
    ),
    token=words("Sent as `Authorization: Bearer`.", minLength=16, writeOnly=True),
    timeout=duration("How long it may take.", "100ms", "60s", default="5s"),
)

_LDAP = mapping(
    "A directory that checks passwords, instead of our own accounts. It needs the extra `ldap`.",
    ("url",),
    url=text("ldaps://HOST or ldap://HOST", "ldap-url", "Where it is."),
    security=one_of(
        "Of `ldap://`: `starttls` checks the certificate; `none` is for this machine only.",
        *("starttls", "none"),
        default="starttls",
    ),
    ca_file=words("PEM file with the authorities that are believed, beside this file."),
    timeout=duration("How long one answer may take.", "100ms", "60s", default="5s"),
    user_dn=words("The DN of somebody, with `{login}`. Left out: they are looked for."),
    bind_dn=words("Who looks for them. Default: nobody in particular."),
    bind_password=words("The password that goes with it.", writeOnly=True),
    base=words("Below which they are looked for."),
    filter=words("What is looked for, with `{login}`.", default="(uid={login})"),
    group_base=words("Below which groups are looked for. Left out: `memberOf` of the entry."),
    group_filter=words("Their groups, with `{dn}` or `{login}`.", default="(member={dn})"),
    roles={
        "type": "object",
        "description": "The DN of a group, and the role that it gives.",
        "propertyNames": text("a DN", "ldap-dn", "The DN of a group."),
        "additionalProperties": words("A role."),
        "default": {},
    },
    subject=words(
        "The attribute that is the subject: one that never changes hands. `objectGUID` is read "
        "as a GUID.",
        default="entryUUID",
    ),
    name=words("The attribute that is the name.", default="cn"),
    email=words("The attribute that is the e-mail address.", default="mail"),
    tenant=words("The tenant that everybody in it belongs to. Default: none."),
)

_REGISTRATION = mapping(
    "Whether strangers may make themselves an account. It works when they have shown that the "
    "e-mail address is theirs; `login.mail` is needed.",
    enabled=flag("Whether they may.", default=False),
    domains=set_of(
        text("a domain such as example.com", "host-name", "A domain, without its subdomains."),
        "Of which e-mail addresses; left out: any.",
        default=[],
    ),
    tenant=words("The tenant that they belong to. Default: none."),
    roles=set_of(words("A role."), "The roles that they get.", default=[]),
)

LOGIN: Final = mapping(
    "Where people are sent to sign in.",
    url=text(
        "a path or an absolute URL",
        "path-or-url",
        "The bundled login service, or your own.",
        default="/.doorward/login",
    ),
    return_parameter=text(
        "the name of a query parameter",
        "query-parameter",
        "The query parameter that says where to return to.",
        default="return_to",
    ),
    sites=set_of(
        text(
            "an origin such as https://shop.example.org",
            "origin",
            "Scheme, host and port as browsers use them.",
        ),
        "Origins that people sign in to at `public_url`, once for all of them.",
        default=[],
    ),
    accounts=flag("Whether the bundled service's own accounts may sign in.", default=True),
    keep_forms=flag(
        "Whether a form that met a session which is over is kept for 15 minutes, sealed, and "
        "offered to its sender after the sign-in. It is never sent without being asked for.",
        default=True,
    ),
    database=text(
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
    providers=list_of(_PROVIDER, "OpenID providers.", default=[]),
    mail=_MAIL,
    links=_LINKS,
    registration=_REGISTRATION,
    user_service=_USER_SERVICE,
    ldap=_LDAP,
)
"""Everything under `login`."""
