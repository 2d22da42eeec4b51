"""From a document without problems to the records of `config.model`.

Nothing can go wrong here any more: `config.validation` and `config.checks` have seen everything.
Defaults are the model's own, so a key that is left out is left out here too.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from config import addresses, colours, names, quantities
from config.document import Document, PlacedMapping
from config.finding import public_origin
from config.model import (
    AccessRule,
    Address,
    Admin,
    Assertion,
    Certificate,
    Configuration,
    Endpoint,
    HealthCheck,
    IdentityHeaders,
    Ldap,
    Limits,
    Links,
    Login,
    Mail,
    Match,
    PageSettings,
    Provider,
    Registration,
    Route,
    RouteTest,
    Secret,
    Server,
    SessionSettings,
    Smtp,
    Store,
    Timeouts,
    TokenIssuer,
    Upstream,
    UpstreamLimits,
    UserService,
    Webhook,
)
from config.presets import ADDED_BY_INCLUDE, PRESETS, Fields

Locate = Callable[[str], str]
"""From a path as the operator wrote it to one that can be opened."""

DEFAULT_LISTEN: Final = Address("127.0.0.1", 8080)
DEFAULT_ADMIN_LISTEN: Final = Address("127.0.0.1", 8081)


def build_configuration(document: Document, locate: Locate) -> Configuration:
    """Return the configuration that *document* describes; *locate* finds the files it names."""
    root = document.root
    public_url = public_origin(root)
    login = _login(root.get("login", {}), locate)
    return Configuration(
        server=_server(root.get("server", {}), public_url, locate),
        admin=_admin(root.get("admin", {})),
        store=Store(url=Secret(root.get("store", {}).get("url", "embedded"))),
        session=_session(root.get("session", {}), public_url),
        login=login,
        pages=_pages(root.get("pages", PlacedMapping()), locate),
        tokens=tuple(_token_issuer(each, locate) for each in root.get("tokens", ())),
        identity=_identity(root.get("identity", {}), public_url),
        upstreams={name: _upstream(name, each) for name, each in root["upstreams"].items()},
        routes=tuple(
            _with_providers(build_route(each, place, document), login)
            for each, place in zip(root["routes"], root["routes"].places, strict=True)
        ),
        tests=tuple(
            _route_test(each, place)
            for each, place in (
                zip(root["tests"], root["tests"].places, strict=True) if "tests" in root else ()
            )
        ),
    )


def _read(section: dict[str, Any], **readers: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the keys of *section* that are given, each read by its function."""
    return {key: read(section[key]) for key, read in readers.items() if key in section}


def _server(section: dict[str, Any], public_url: str, locate: Locate) -> Server:
    listen = addresses.address(section["listen"]) if "listen" in section else DEFAULT_LISTEN
    limits = _read(
        section.get("limits", {}),
        head=quantities.size,
        body=quantities.size,
        head_timeout=quantities.duration,
        idle_timeout=quantities.duration,
        connections=quantities.count,
        connections_per_address=quantities.count,
    )
    return Server(
        listen=listen,
        public_url=public_url,
        certificates=tuple(
            Certificate(locate(each["cert_file"]), locate(each["key_file"]))
            for each in section.get("tls", {}).get("certificates", ())
        ),
        limits=Limits(**limits),
        **_read(
            section,
            workers=quantities.workers,
            trusted_proxies=lambda given: tuple(map(addresses.network, given)),
        ),
    )


def _admin(section: dict[str, Any]) -> Admin:
    listen = addresses.address(section["listen"]) if "listen" in section else DEFAULT_ADMIN_LISTEN
    token = section.get("token")
    return Admin(listen, Secret(token) if token else None)


def _session(section: dict[str, Any], public_url: str) -> SessionSettings:
    cookie = section.get("cookie", {})
    secure = public_url.startswith("https:")
    name = cookie.get("name", "doorward")
    return SessionSettings(
        # RFC 6265bis 4.1.3.2: no sibling domain can set a cookie of that name.
        cookie_name=f"__Host-{name}" if secure else name,
        secure=secure,
        **_read(cookie, same_site=str),
        **_read(
            section,
            idle_timeout=quantities.duration,
            absolute_timeout=quantities.duration,
            lease=quantities.duration,
            max_sessions=quantities.count,
            cache_size=quantities.count,
        ),
        refuse_more=section.get("when_full") == "refuse",
    )


def _login(section: dict[str, Any], locate: Locate) -> Login:
    accounts = quantities.flag(section.get("accounts", True))
    delegates = "user_service" in section or "ldap" in section
    is_only_way = len(section.get("providers", ())) == 1 and not accounts and not delegates
    registration = section.get("registration", {})
    return Login(
        accounts=accounts,
        keep_forms=quantities.flag(section.get("keep_forms", True)),
        mail=_mail(section["mail"]) if "mail" in section else None,
        links=Links(
            **_read(
                section.get("links", {}),
                invitation=quantities.duration,
                reset=quantities.duration,
                registration=quantities.duration,
            )
        ),
        user_service=_user_service(section["user_service"]) if "user_service" in section else None,
        ldap=_ldap(section["ldap"], locate) if "ldap" in section else None,
        registration=(
            Registration(**_read(registration, domains=_hosts, tenant=str, roles=tuple))
            if quantities.flag(registration.get("enabled", False))
            else None
        ),
        providers=tuple(
            _provider(each, is_only_way=is_only_way) for each in section.get("providers", ())
        ),
        **_read(
            section,
            url=addresses.path_or_url,
            return_parameter=str,
            sites=lambda given: tuple(map(addresses.origin, given)),
            database=Secret,
            factor_key=Secret,
        ),
    )


def _pages(section: PlacedMapping, locate: Locate) -> PageSettings:
    read = _read(section, name=str, language=str, folder=locate)
    read |= _read(section.get("colours", {}), accent=colours.colour, accent_dark=colours.colour)
    for key in ("language", "logo", "folder"):
        if key in section:
            read[f"place_of_{key}"] = section.places[key]
    if "logo" in section:
        read["logo_file"] = locate(section["logo"])
    return PageSettings(**read)


def _hosts(given: Any) -> tuple[str, ...]:
    return tuple(map(addresses.host_name, given))


def _user_service(section: dict[str, Any]) -> UserService:
    return UserService(**_read(section, url=str, token=Secret, timeout=quantities.duration))


def _ldap(section: dict[str, Any], locate: Locate) -> Ldap:
    texts = (
        *("url", "security", "user_dn", "bind_dn", "base", "filter", "group_base"),
        *("group_filter", "subject", "name", "email", "tenant"),
    )
    return Ldap(
        **_read(
            section,
            **dict.fromkeys(texts, str),
            ca_file=locate,
            timeout=quantities.duration,
            bind_password=Secret,
            roles=dict,
        )
    )


def _mail(section: dict[str, Any]) -> Mail:
    smtp, webhook = section.get("smtp"), section.get("webhook")
    return Mail(
        sender=section.get("from", ""),
        smtp=Smtp(
            **_read(smtp, server=addresses.address, security=str, username=str, password=Secret)
        )
        if smtp
        else None,
        webhook=Webhook(**_read(webhook, url=str, secret=Secret)) if webhook else None,
    )


_USUAL_SCOPES: Final[dict[str, tuple[str, ...]]] = {
    "openid": ("openid", "profile", "email"),
    "github": ("read:user", "user:email"),
    "oauth2": (),
}


def _provider(section: dict[str, Any], *, is_only_way: bool) -> Provider:
    protocol = section.get("protocol", "openid")
    usual: dict[str, Any] = {
        "label": section["id"],
        "namespace": "" if is_only_way else section["id"],
        "scopes": _USUAL_SCOPES[protocol],
        # Without OpenID Connect nothing in an answer says whose it is.
        "own_callback": protocol != "openid",
    }
    return Provider(
        **usual
        | _read(
            section,
            id=str,
            label=str,
            issuer=str,
            client_id=str,
            client_secret=Secret,
            protocol=str,
            authorization_endpoint=str,
            token_endpoint=str,
            userinfo_endpoint=str,
            scopes=tuple,
            claims=dict,
            namespace=str,
            own_callback=quantities.flag,
            end_session=quantities.flag,
            acr_values=tuple,
            max_age=quantities.duration,
            prompt=str,
            domains=_hosts,
            tenants=tuple,
        )
    )


def _token_issuer(section: dict[str, Any], locate: Locate) -> TokenIssuer:
    return TokenIssuer(
        **{"algorithms": ("ES256", "RS256")}
        | _read(
            section,
            issuer=str,
            audience=tuple,
            algorithms=tuple,
            jwks_uri=str,
            jwks_file=locate,
            strict_audience=quantities.flag,
            claims=dict,
        )
    )


def _identity(section: dict[str, Any], public_url: str) -> IdentityHeaders:
    headers = section.get("headers", "standard")
    fields: Fields
    if isinstance(headers, str):
        added = section.get("include", ())
        fields = PRESETS[headers] + tuple(
            field for part, field in ADDED_BY_INCLUDE.items() if part in added
        )
    else:
        fields = tuple(headers.items())
    assertion = {"issuer": public_url} | _read(
        section.get("assertion", {}), header=str, ttl=quantities.duration, issuer=str
    )
    return IdentityHeaders(fields, Assertion(**assertion))


def _upstream(name: str, given: Any) -> Upstream:
    if isinstance(given, str):
        return Upstream(name, (addresses.endpoint(given),))
    endpoints: tuple[Endpoint, ...] = tuple(map(addresses.endpoint, given["endpoints"]))
    return Upstream(
        name,
        endpoints,
        **_read(
            given,
            balance=str,
            health=lambda each: HealthCheck(**_read(each, path=str, interval=quantities.duration)),
            timeouts=lambda each: Timeouts(
                **_read(
                    each,
                    connect=quantities.duration,
                    response=quantities.duration,
                    idle=quantities.duration,
                )
            ),
            limits=lambda each: UpstreamLimits(
                **_read(
                    each,
                    requests=quantities.count,
                    queue=quantities.count,
                    queue_timeout=quantities.duration,
                )
            ),
            on_logout=addresses.path_or_url,
        ),
    )


def build_route(given: PlacedMapping, place: tuple[int, int], document: Document) -> Route:
    """Return the route that *given*, at *place*, describes; its form has been checked."""
    match, access = given["match"], given["access"]
    rewrite = given.get("rewrite", {})
    outage = given.get("on_store_outage", "deny")
    when = access.places.get("when") if isinstance(access, PlacedMapping) else None
    return Route(
        id=given["id"],
        match=Match(
            match["path"],
            tuple(map(addresses.host_pattern, match.get("hosts", ()))),
            tuple(match.get("methods", ())),
        ),
        upstream=given["upstream"],
        access=_access_rule(access),
        strip_prefix=rewrite.get("strip_prefix", ""),
        add_prefix=rewrite.get("add_prefix", ""),
        providers=tuple(given.get("providers", ())),
        prompt=given.get("prompt", ""),
        access_token=given.get("access_token", ""),
        unauthenticated=str(given.get("unauthenticated", "auto")),  # type: ignore[arg-type]
        serve_cached=0.0 if outage == "deny" else quantities.duration(outage["serve_cached"]),
        allow_encoded_slash=quantities.flag(given.get("allow_encoded_slash", False)),
        line=place[0],
        column=place[1],
        place_of_path=document.content_place(match.places["path"]),
        place_of_when=document.content_place(when) if when else (0, 0),
    )


def _with_providers(route: Route, login: Login) -> Route:
    """Return *route* with where its tenants' people sign in, unless it says so itself."""
    if route.providers or not route.access.tenants:
        return route
    tenants = route.access.tenants
    serving = tuple(each.id for each in login.providers if not tenants.isdisjoint(each.tenants))
    return msgspec.structs.replace(route, providers=serving)


def _access_rule(access: Any) -> AccessRule:
    if isinstance(access, str):
        return AccessRule(access)  # type: ignore[arg-type]
    return AccessRule(
        "signed-in",
        **_read(
            access,
            roles=frozenset,
            scopes=frozenset,
            groups=frozenset,
            tenants=frozenset,
            acr=lambda given: (given,) if isinstance(given, str) else tuple(given),
            max_age=quantities.duration,
            when=str,
        ),
    )


def _route_test(given: PlacedMapping, place: tuple[int, int]) -> RouteTest:
    method, target = names.request_line(given["request"])
    who = _read(
        given.get("as", {}),
        subject=str,
        roles=tuple,
        groups=tuple,
        scopes=tuple,
        tenant=str,
        acr=str,
        claims=_plain,
    )
    return RouteTest(
        method,
        target,
        given["expect"],
        headers=tuple(given.get("headers", {}).items()),
        line=place[0],
        column=place[1],
        **who,
    )


def _plain(value: Any) -> Any:
    """Return *value* without places, as JSON would give it."""
    return msgspec.json.decode(msgspec.json.encode(value))
