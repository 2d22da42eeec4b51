"""The records that a good route file becomes: frozen, complete, with every default filled in.

Units: durations are seconds (float), sizes are bytes (int). Collections are tuples and frozensets,
so that a whole `Configuration` can be shared between generations and compared by value.
Reference: `docs/routes.md`.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

import msgspec

IPNetwork = IPv4Network | IPv6Network


class Secret(msgspec.Struct, frozen=True):
    """A value that never shows itself in a log, an error or a `repr`."""

    value: str

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class Address(msgspec.Struct, frozen=True):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Certificate(msgspec.Struct, frozen=True):
    """A certificate chain and its key, both PEM files."""

    cert_file: str
    key_file: str


class Limits(msgspec.Struct, frozen=True):
    """What a client may cost."""

    head: int = 32 * 1024
    body: int = 16 * 1024 * 1024
    head_timeout: float = 10.0
    idle_timeout: float = 75.0
    connections: int = 10_000
    """Of one worker, as the next."""
    connections_per_address: int = 0
    """0: as many as `connections`."""


class Server(msgspec.Struct, frozen=True):
    """The public side."""

    listen: Address
    public_url: str
    """Scheme and authority that browsers use, without a trailing slash; decides cookie security."""
    workers: int = 1
    """0: one for each core, as long as nobody has counted them (`config.io.files` does)."""
    trusted_proxies: tuple[IPNetwork, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    limits: Limits = Limits()


class Admin(msgspec.Struct, frozen=True):
    """The operators' side; without a token the API and the dashboard are closed."""

    listen: Address
    token: Secret | None = None


class Store(msgspec.Struct, frozen=True):
    """Where the sessions live: `embedded` or a Redis URL (which may carry a password)."""

    url: Secret


class SessionSettings(msgspec.Struct, frozen=True):
    """How sessions are named and how long they last."""

    cookie_name: str
    """As sent to the browser: with `__Host-` when `public_url` is https."""
    secure: bool
    same_site: Literal["lax", "strict", "none"] = "lax"
    idle_timeout: float = 1800.0
    absolute_timeout: float = 43_200.0
    lease: float = 0.5
    max_sessions: int = 0
    """Of one subject at once; 0: as many as they like."""
    refuse_more: bool = False
    """Whether a sign-in beyond that is refused; else it ends the oldest session."""
    cache_size: int = 100_000
    """Sessions that a worker holds in memory."""


class Provider(msgspec.Struct, frozen=True):
    """An OpenID provider that people may sign in with."""

    id: str
    label: str
    issuer: str
    client_id: str
    client_secret: Secret | None = None
    protocol: Literal["openid", "oauth2", "github"] = "openid"
    authorization_endpoint: str = ""
    """Of `oauth2`, as the next two: what is not discovered."""
    token_endpoint: str = ""
    userinfo_endpoint: str = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    claims: Mapping[str, str] = {}
    namespace: str = ""
    """Put before its subjects with a colon; empty: they are taken as they are."""
    own_callback: bool = False
    """Whether it sends people back to `/.doorward/callback/ID`."""
    end_session: bool = True
    """Whether signing out here signs out there too."""
    acr_values: tuple[str, ...] = ()
    """Asked for, and one of them demanded; empty: however the provider likes."""
    max_age: float | None = None
    """How long ago, in seconds, somebody may have proven to it who they are."""
    prompt: str = ""
    domains: tuple[str, ...] = ()
    """Lower case. Whose e-mail address is of one of them is sent there."""
    tenants: tuple[str, ...] = ()


class Smtp(msgspec.Struct, frozen=True):
    """A mail server that takes what we send."""

    server: Address
    security: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password: Secret | None = None


class Webhook(msgspec.Struct, frozen=True):
    """A service that is told as JSON, signed."""

    url: str
    secret: Secret


class Mail(msgspec.Struct, frozen=True):
    """How people are written to: by one of the two."""

    sender: str = ""
    smtp: Smtp | None = None
    webhook: Webhook | None = None


class Links(msgspec.Struct, frozen=True):
    """How long links are good for, in seconds."""

    invitation: float = 259_200.0
    reset: float = 1_800.0
    registration: float = 86_400.0


class UserService(msgspec.Struct, frozen=True):
    """A service of the operator's that knows whose password is right."""

    url: str
    token: Secret | None = None
    timeout: float = 5.0


class Ldap(msgspec.Struct, frozen=True):
    """A directory that knows whose password is right."""

    url: str
    security: Literal["starttls", "none"] = "starttls"
    """Of `ldap://`; `ldaps://` has its own."""
    ca_file: str = ""
    timeout: float = 5.0
    user_dn: str = ""
    """With `{login}`; empty: looked for."""
    bind_dn: str = ""
    bind_password: Secret | None = None
    base: str = ""
    filter: str = "(uid={login})"
    group_base: str = ""
    """Empty: `memberOf` of the entry."""
    group_filter: str = "(member={dn})"
    roles: Mapping[str, str] = {}
    """The DN of a group to the role that it gives."""
    subject: str = "entryUUID"
    """The attribute that is it; also the next two."""
    name: str = "cn"
    email: str = "mail"
    tenant: str = ""


class Registration(msgspec.Struct, frozen=True):
    """What strangers get who sign up."""

    domains: tuple[str, ...] = ()
    """Of their e-mail addresses, lower case; empty: any."""
    tenant: str = ""
    roles: tuple[str, ...] = ()


class Login(msgspec.Struct, frozen=True):
    """Where people are sent to sign in."""

    url: str = "/.doorward/login"
    return_parameter: str = "return_to"
    sites: tuple[str, ...] = ()
    """Origins that people sign in to at `public_url`, once for all of them."""
    accounts: bool = True
    keep_forms: bool = True
    """Whether a form that met no session waits for its sender to sign in."""
    database: Secret | None = None
    """A PostgreSQL URL; None: the file in the data directory."""
    factor_key: Secret | None = None
    """Seals the secrets of authenticator apps; None: made, and kept in the data directory."""
    providers: tuple[Provider, ...] = ()
    mail: Mail | None = None
    links: Links = Links()
    registration: Registration | None = None
    """None: nobody signs up by themselves."""
    user_service: UserService | None = None
    """Where passwords are checked instead of in our own accounts; so is the next."""
    ldap: Ldap | None = None


class PageSettings(msgspec.Struct, frozen=True):
    """What is the operator's own on the pages that people see."""

    name: str = ""
    """At the top of each; empty: the authority of `public_url`."""
    language: str = "en"
    """For whom none of theirs is there."""
    accent: str = ""
    """Of links and buttons, as `#rrggbb`; empty: Doorward's."""
    accent_dark: str = ""
    """The same on a dark ground; empty: a lighter shade of `accent`."""
    logo_file: str = ""
    logo: str = ""
    """Its content as a `data:` URL."""
    folder: str = ""
    files: tuple[tuple[str, str], ...] = ()
    """Name and content of the templates, style sheet and catalogues in the folder."""
    place_of_language: tuple[int, int] = (1, 1)
    """Line and column."""
    place_of_logo: tuple[int, int] = (1, 1)
    place_of_folder: tuple[int, int] = (1, 1)


class TokenIssuer(msgspec.Struct, frozen=True):
    """One issuer of bearer tokens that is believed."""

    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    jwks_uri: str | None = None
    jwks_file: str | None = None
    """With neither, the keys are discovered from the issuer."""
    claims: Mapping[str, str] = {}
    """Identity field to the dotted path of the claim that fills it."""
    strict_audience: bool = True
    """Whether every audience of a token must be listed; else one of them is enough."""


IdentityField = Literal["subject", "tenant", "roles", "scopes", "groups", "name", "email", "method"]


class Assertion(msgspec.Struct, frozen=True):
    """The signed statement of the caller's identity."""

    header: str = "X-Auth-Assertion"
    ttl: float = 60.0
    issuer: str = ""


class IdentityHeaders(msgspec.Struct, frozen=True):
    """Which fields tell the upstream who is calling."""

    fields: tuple[tuple[str, IdentityField], ...]
    """Field name and the part of the identity that fills it, in the order they are sent."""
    assertion: Assertion


class Timeouts(msgspec.Struct, frozen=True):
    """How long an upstream may take."""

    connect: float = 2.0
    response: float = 30.0
    """From the end of the request to the response head."""
    idle: float = 60.0
    """Without a byte in either direction while a body is on its way."""


class UpstreamLimits(msgspec.Struct, frozen=True):
    """How much of one worker's may be with an upstream at once."""

    requests: int = 4096
    queue: int = 256
    """Requests that may wait for one of these to end."""
    queue_timeout: float = 1.0


class HealthCheck(msgspec.Struct, frozen=True):
    """An active check; an endpoint that fails it gets no requests while another one passes."""

    path: str
    interval: float = 5.0


class Endpoint(msgspec.Struct, frozen=True):
    """One address of an upstream."""

    scheme: Literal["http", "https", "unix"]
    host: str
    """Host name or address; for `unix` the path of the socket."""
    port: int = 0
    base_path: str = ""
    """Put before the path that is sent, without a trailing slash."""

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.host}"
        return f"{self.scheme}://{Address(self.host, self.port)}{self.base_path}"


class Upstream(msgspec.Struct, frozen=True):
    """A backend service."""

    name: str
    endpoints: tuple[Endpoint, ...]
    balance: Literal["least_requests", "round_robin"] = "least_requests"
    health: HealthCheck | None = None
    timeouts: Timeouts = Timeouts()
    on_logout: str | None = None
    limits: UpstreamLimits = UpstreamLimits()


class AccessRule(msgspec.Struct, frozen=True):
    """Who may. Every part that is given must hold."""

    level: Literal["public", "optional", "signed-in"]
    """`public`: nobody is looked up. `optional`: an identity is passed on when there is one."""
    roles: frozenset[str] = frozenset()
    """Any of them; empty asks for none. The same for groups and tenants."""
    scopes: frozenset[str] = frozenset()
    """All of them."""
    groups: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    when: str | None = None
    """A CEL expression that must be true."""
    acr: tuple[str, ...] = ()
    """How they signed in (OpenID Connect `acr`): any of these, best first; empty asks for none."""
    max_age: float | None = None
    """How long ago, in seconds, they may have proven who they are; None: however long."""


class Match(msgspec.Struct, frozen=True):
    """Which requests a route takes."""

    path: str
    """As written: exact, or a prefix when it ends in `/*`; `{name}` stands for one segment."""
    hosts: tuple[str, ...] = ()
    """Lower case; exact or `*.suffix`; empty takes every host."""
    methods: tuple[str, ...] = ()
    """Upper case; empty takes every method."""


class Route(msgspec.Struct, frozen=True):
    """One line of the route table."""

    id: str
    match: Match
    upstream: str
    access: AccessRule
    strip_prefix: str = ""
    add_prefix: str = ""
    allow_encoded_slash: bool = False
    unauthenticated: Literal["auto", "redirect", "401"] = "auto"
    providers: tuple[str, ...] = ()
    """Ids of those to sign in at for it; empty: any."""
    access_token: str = ""
    """The field that carries the provider's access token upstream; empty: none does."""
    prompt: str = ""
    serve_cached: float = 0.0
    """How long a session known good is admitted after the store was lost; 0: not at all."""
    line: int = 0
    """Where in the file it stands, for `explain` and messages."""
    column: int = 0
    place_of_path: tuple[int, int] = (0, 0)
    """Line and column of `match.path`."""
    place_of_when: tuple[int, int] = (0, 0)
    """Line and column of the first character of `access.when`, behind a quote or `|`."""


class RouteTest(msgspec.Struct, frozen=True):
    """A sentence of the route file about itself."""

    method: str
    target: str
    """Path with query, or an absolute URL."""
    expect: Literal["allow", "deny", "challenge", "not-found"]
    subject: str | None = None
    """None: nobody is signed in."""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    tenant: str = ""
    claims: Mapping[str, object] = {}
    headers: tuple[tuple[str, str], ...] = ()
    line: int = 0
    column: int = 0
    acr: str = ""


class PrivateFile(msgspec.Struct, frozen=True):
    """A file that holds a key or another secret, and where the route file names it."""

    path: str
    named_by: str
    """The key, as the documentation writes it, or `${file:…}`."""
    line: int
    column: int


class Configuration(msgspec.Struct, frozen=True):
    """A whole route file that holds together."""

    server: Server
    admin: Admin
    store: Store
    session: SessionSettings
    login: Login
    tokens: tuple[TokenIssuer, ...]
    identity: IdentityHeaders
    upstreams: Mapping[str, Upstream]
    routes: tuple[Route, ...]
    tests: tuple[RouteTest, ...] = ()
    pages: PageSettings = PageSettings()
    private_files: tuple[PrivateFile, ...] = ()
