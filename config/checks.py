"""What must hold between values of a document: names that refer, limits that agree, no collision.

Every check reads the document as it is, also one that differs from the schema elsewhere, so that
all problems are told at once; a value that has a problem of its own is passed over here.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from config import addresses, colours, names, paths, quantities
from config.document import Place, PlacedMapping, PlacedSequence, quoted
from config.presets import ADDED_BY_INCLUDE, PRESETS
from config.problem import Problem
from config.validation import Report, shown, suggestion

MINIMUM_TOKEN_LENGTH: Final = 16
"""Characters of an admin token on an address that others can reach."""
_NO_SUBJECTS: Final = frozenset({"email", "name", "nickname", "preferred_username", "upn"})
"""Claims that a person may change, or that are given to somebody else one day."""
_BUNDLED: Final = f"/{paths.RESERVED_SEGMENT}/login"
"""`login.url` of the bundled service."""
_SHORTEST_FACTOR_KEY: Final = 32
"""Characters: 128 bits and more, written in hex."""
_MAXIMUM_SUGGESTIONS: Final = 20
"""Each looks at every name there is; a file with more wrong names has another trouble."""


def find_conflicts(root: Any) -> list[Problem]:
    """Return every problem that no single value has by itself."""
    problems: list[Problem] = []
    if isinstance(root, PlacedMapping):

        def report(place: Place, message: str) -> None:
            problems.append(Problem(*place, message))

        for check in _CHECKS:
            check(root, report)
    return problems


class _Found:
    """A value of the document with its place."""

    __slots__ = ("place", "value")

    def __init__(self, value: Any, place: Place) -> None:
        self.value = value
        self.place = place


def _find(mapping: Any, *keys: str, as_: Callable[[Any], Any] | None = None) -> _Found | None:
    """Return what stands under *keys*, read with *as_*; None if it is not there or no good."""
    place = (1, 1)
    value = mapping
    for key in keys:
        if not isinstance(value, PlacedMapping) or key not in value:
            return None
        place, value = value.places[key], value[key]
    if as_ is not None:
        try:
            value = as_(value)
        except (ValueError, TypeError, AttributeError):
            return None
    return _Found(value, place)


def _items(root: Any, *keys: str) -> Iterator[tuple[PlacedMapping, Place]]:
    """Yield the mappings in the list under *keys*."""
    found = _find(root, *keys)
    if found and isinstance(found.value, PlacedSequence):
        for item, place in zip(found.value, found.value.places, strict=True):
            if isinstance(item, PlacedMapping):
                yield item, place


def public_origin(root: Any) -> str:
    """Return the origin of the public side, or the default where it is not given well."""
    given = _find(root, "server", "public_url", as_=addresses.origin)
    if given:
        return str(given.value)
    listen = _find(root, "server", "listen", as_=addresses.address)
    scheme = "https" if _find(root, "server", "tls") else "http"
    return f"{scheme}://{listen.value if listen else '127.0.0.1:8080'}"


def _check_addresses(root: PlacedMapping, report: Report) -> None:
    listen = _find(root, "server", "listen", as_=addresses.address)
    admin = _find(root, "admin", "listen", as_=addresses.address)
    if (
        listen
        and addresses.is_wildcard(listen.value.host)
        and not _find(root, "server", "public_url")
    ):
        message = (
            "server.public_url is needed: say which URL browsers use, since listen is every address"
        )
        report(listen.place, message)
    if listen and admin and listen.value == admin.value and listen.value.port:
        report(admin.place, "admin.listen: this is the public address; operators need their own")


def _check_admin_token(root: PlacedMapping, report: Report) -> None:
    token = _find(root, "admin", "token")
    listen = _find(root, "admin", "listen", as_=addresses.address)
    if not token or not isinstance(token.value, str) or not token.value:
        return
    if not token.value.isascii() or not token.value.isprintable() or " " in token.value:
        report(token.place, "admin.token: a bearer token is ASCII without spaces")
    elif (
        listen
        and not addresses.is_loopback(listen.value.host)
        and len(token.value) < MINIMUM_TOKEN_LENGTH
    ):
        report(
            token.place,
            f"admin.token: others can reach {listen.value}, so it needs at least "
            f"{MINIMUM_TOKEN_LENGTH} characters; make one with `openssl rand -hex 32`",
        )


def _check_session(root: PlacedMapping, report: Report) -> None:
    idle = _find(root, "session", "idle_timeout", as_=quantities.duration)
    absolute = _find(root, "session", "absolute_timeout", as_=quantities.duration)
    idle_for = idle.value if idle else 1800.0
    absolute_for = absolute.value if absolute else 43_200.0
    blamed = idle or absolute
    if blamed and idle_for > absolute_for:
        report(blamed.place, "session.idle_timeout must not be longer than absolute_timeout")
    lease = _find(root, "session", "lease", as_=quantities.duration)
    if lease and lease.value >= idle_for:
        report(lease.place, "session.lease must be shorter than idle_timeout")
    same_site = _find(root, "session", "cookie", "same_site")
    if same_site and same_site.value == "none" and public_origin(root).startswith("http:"):
        report(
            same_site.place,
            "session.cookie.same_site: browsers take none only with https; "
            "set server.public_url to an https URL, or choose lax",
        )


def _check_login(root: PlacedMapping, report: Report) -> None:
    url = _find(root, "login", "url", as_=str)
    reserved = f"/{paths.RESERVED_SEGMENT}"
    if url and f"{url.value}/".startswith(f"{reserved}/") and url.value != _BUNDLED:
        report(url.place, f"login.url: under {reserved} there is only {_BUNDLED}")
    database, key = _find(root, "login", "database"), _find(root, "login", "factor_key", as_=str)
    if database and not key:
        report(
            database.place,
            "login.factor_key: gateways that share a database share a key; make one with "
            "`openssl rand -hex 32`",
        )
    if key and len(key.value) < _SHORTEST_FACTOR_KEY:
        report(key.place, f"login.factor_key: it needs {_SHORTEST_FACTOR_KEY} characters or more")
    _check_unique(_items(root, "login", "providers"), "id", "provider", report)
    several = len([*_items(root, "login", "providers")]) > 1
    for provider, place in _items(root, "login", "providers"):
        _check_protocol(provider, place, several=several, report=report)
        scopes = _find(provider, "scopes")
        if provider.get("protocol", "openid") != "openid":
            scopes = None
        if scopes and isinstance(scopes.value, list) and "openid" not in scopes.value:
            report(scopes.place, "login.providers[].scopes: OpenID Connect needs the scope openid")
        subject = _find(provider, "claims", "subject")
        if subject and subject.value in _NO_SUBJECTS:
            report(
                subject.place,
                f"login.providers[].claims.subject: {shown(subject.value)} may change hands or be "
                "changed; take an identifier that never does, such as sub",
            )
    _check_namespaces(root, report)
    _check_sites(root, report)
    _check_mail(root, report)
    _check_delegation(root, report)


def _check_sites(root: PlacedMapping, report: Report) -> None:
    """One sign-in for several sites needs the bundled service, at an origin of its own."""
    sites = _find(root, "login", "sites")
    if sites is None or not isinstance(sites.value, PlacedSequence) or not sites.value:
        return
    url = _find(root, "login", "url", as_=str)
    if url and url.value != _BUNDLED:
        report(url.place, f"login.url: login.sites is for the bundled service, at {_BUNDLED}")
    public = public_origin(root)
    hosts = _hosts_of_routes(root)
    seen: dict[str, str] = {}
    for given, place in zip(sites.value, sites.value.places, strict=True):
        try:
            url_of_site = addresses.Url(addresses.origin(given))
        except (ValueError, TypeError, AttributeError):
            continue
        site, host = url_of_site.origin, url_of_site.host
        if host == addresses.Url(public).host:
            # Browsers keep one cookie for all ports of a host (RFC 6265 section 8.5).
            message = "people sign in at that host, for the others; it is not one of them"
        elif url_of_site.scheme != public.partition(":")[0]:
            message = f"it must be {public.partition(':')[0]}, as server.public_url is"
        elif seen.get(site, given) != given:
            message = f"{shown(seen[site])} is the same"
        elif hosts is not None and not any(_takes(pattern, host) for pattern in hosts):
            message = "no route takes that host"
        else:
            message = ""
        if message:
            report(place, f"login.sites[] {shown(given)}: {message}")
        seen.setdefault(site, given)


def _hosts_of_routes(root: PlacedMapping) -> frozenset[str] | None:
    """Return the host patterns of all routes; None if one of them takes every host."""
    patterns: set[str] = set()
    for route, _ in _items(root, "routes"):
        hosts = _find(route, "match", "hosts")
        if hosts is None or not isinstance(hosts.value, list):
            return None
        patterns.update(each.lower() for each in hosts.value if isinstance(each, str))
    return frozenset(patterns)


def _takes(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else pattern == host


def _check_delegation(root: PlacedMapping, report: Report) -> None:
    ldap = _find(root, "login", "ldap")
    service = _find(root, "login", "user_service")
    registration = _find(root, "login", "registration", "enabled", as_=quantities.flag)
    if ldap and service:
        report(ldap.place, "login.ldap: passwords are checked by user_service; say one of them")
    if (ldap or service) and registration and registration.value:
        report(
            registration.place, "login.registration is for our own accounts; people are elsewhere"
        )
    if not ldap:
        return
    if bool(_find(root, "login", "ldap", "user_dn")) == bool(_find(root, "login", "ldap", "base")):
        report(ldap.place, "login.ldap: say user_dn, or base to look for people below")
    for key, words in (("user_dn", ("{login}",)), ("filter", ("{login}",)),
                       ("group_filter", ("{dn}", "{login}"))):  # fmt: skip
        given = _find(root, "login", "ldap", key, as_=str)
        if given and not any(word in given.value for word in words):
            report(given.place, f"login.ldap.{key}: {' or '.join(words)} must stand in it")
    url = _find(root, "login", "ldap", "url", as_=addresses.ldap_url)
    security = _find(root, "login", "ldap", "security")
    is_open = url and url.value.startswith("ldap:") and security and security.value == "none"
    if url and security and is_open and not addresses.is_loopback(addresses.ldap_host(url.value)):
        report(
            security.place,
            "login.ldap.security: without TLS whoever is on the way reads every password; "
            "none is for a directory on this machine",
        )


def _check_mail(root: PlacedMapping, report: Report) -> None:
    mail = _find(root, "login", "mail")
    smtp, webhook = _find(root, "login", "mail", "smtp"), _find(root, "login", "mail", "webhook")
    if mail and bool(smtp) == bool(webhook):
        report(mail.place, "login.mail: say smtp or webhook, and one of them")
    if smtp and not _find(root, "login", "mail", "from"):
        report(smtp.place, "login.mail.from is needed: say who the messages come from")
    server = _find(root, "login", "mail", "smtp", "server", as_=addresses.address)
    security = _find(root, "login", "mail", "smtp", "security")
    is_open = security and security.value == "none"
    if security and is_open and server and not addresses.is_loopback(server.value.host):
        report(
            security.place,
            "login.mail.smtp.security: without TLS whoever is on the way reads the links; "
            "none is for a server on this machine",
        )
    enabled = _find(root, "login", "registration", "enabled", as_=quantities.flag)
    if enabled and enabled.value and not mail:
        report(
            enabled.place,
            "login.registration: addresses are confirmed by mail; say how in login.mail",
        )


def _check_protocol(
    provider: PlacedMapping, place: Place, *, several: bool, report: Report
) -> None:
    """What OpenID Connect discovers and promises, others must be told or cannot do."""
    protocol = provider.get("protocol", "openid")
    for name in ("authorization_endpoint", "token_endpoint", "userinfo_endpoint"):
        if protocol == "oauth2" and name not in provider:
            report(place, f"login.providers[]: with protocol oauth2 give its {name}")
        elif protocol != "oauth2" and name in provider:
            report(
                provider.places[name],
                f"login.providers[].{name}: is known; it is for `protocol: oauth2` only",
            )
    if protocol == "openid":
        return
    for name in ("acr_values", "max_age"):
        if provider.get(name):
            report(
                provider.places[name],
                f"login.providers[].{name}: needs OpenID Connect: nobody would say how it was",
            )
    own_callback = _find(provider, "own_callback", as_=quantities.flag)
    if several and own_callback and not own_callback.value:
        report(
            own_callback.place,
            "login.providers[].own_callback: is needed beside other providers, for nothing in this "
            "one's answers says whose they are",
        )


def _check_namespaces(root: PlacedMapping, report: Report) -> None:
    """Two providers with one namespace could each speak for the other's people."""
    seen: dict[str, str] = {}
    for provider, place in _items(root, "login", "providers"):
        given = _find(provider, "namespace", as_=names.namespace)
        name = provider.get("id")
        namespace = given.value if given else name
        if not isinstance(namespace, str) or not isinstance(name, str):
            continue
        if seen.get(namespace, name) != name:
            report(
                given.place if given else place,
                f"login.providers[].namespace: {shown(seen[namespace])} has it too; "
                "then each of them could speak for the other's people",
            )
        seen.setdefault(namespace, name)


def _check_pages(root: PlacedMapping, report: Report) -> None:
    grounds = {"accent": colours.LIGHT_GROUND, "accent_dark": colours.DARK_GROUND}
    for key, ground in grounds.items():
        given = _find(root, "pages", "colours", key, as_=colours.colour)
        if given is None:
            continue
        contrast = colours.contrast(given.value, ground)
        if contrast < colours.READABLE:
            # Cut off, not rounded: 4.49 must not read as 4.5.
            report(
                given.place,
                f"pages.colours.{key}: its contrast with {ground} is {int(contrast * 10) / 10}:1, "
                f"and people need {colours.READABLE}:1 to read it (WCAG AA); "
                f"{colours.readable(given.value, dark=key == 'accent_dark')} would do",
            )


def _check_tokens(root: PlacedMapping, report: Report) -> None:
    _check_unique(_items(root, "tokens"), "issuer", "issuer", report)
    for issuer, place in _items(root, "tokens"):
        uri, file = _find(issuer, "jwks_uri"), _find(issuer, "jwks_file")
        if uri and file:
            report(file.place, "tokens[].jwks_file: the keys come from jwks_uri; give one of them")
        name = _find(issuer, "issuer")
        if name and isinstance(name.value, str) and not uri and not file:
            try:
                addresses.secure_url(name.value)
            except ValueError as error:
                report(
                    place,
                    "tokens[]: give jwks_uri or jwks_file, since the keys cannot be discovered "
                    f"from this issuer: {error}",
                )


def _check_identity(root: PlacedMapping, report: Report) -> None:
    headers = _find(root, "identity", "headers")
    include = _find(root, "identity", "include")
    preset = headers.value if headers else "standard"
    seen: dict[str, str] = {}
    if include and include.value and preset != "standard":
        report(
            include.place,
            "identity.include adds to the preset standard only; "
            "the other presets are whole, and a mapping names every field itself",
        )
    if isinstance(preset, str):
        seen = {names.fold(name): name for name, _ in PRESETS.get(preset, ())}
        seen |= {names.fold(name): name for name, _ in ADDED_BY_INCLUDE.values()}
    elif isinstance(preset, PlacedMapping):
        for name, place in preset.key_places.items():
            _claim(seen, name, place, report)
    header = _find(root, "identity", "assertion", "header")
    if header and isinstance(header.value, str):
        _claim(seen, header.value, header.place, report)
    elif headers and names.fold("X-Auth-Assertion") in seen:
        report(
            headers.place, "X-Auth-Assertion carries the assertion; see identity.assertion.header"
        )


def _claim(seen: dict[str, str], name: str, place: Place, report: Report) -> None:
    """Take the class of a field for *name*; two of one class are one field to some backends."""
    folded = names.fold(name)
    if folded in seen:
        report(place, f"the field {quoted(name)} is the same to backends as {quoted(seen[folded])}")
    seen[folded] = name


def _check_unique(
    items: Iterator[tuple[PlacedMapping, Place]], key: str, what: str, report: Report
) -> None:
    first: dict[str, int] = {}
    for item, _ in items:
        value = item.get(key)
        if isinstance(value, str):
            line, column = item.places[key]
            if value in first:
                report(
                    (line, column), f"the {what} {shown(value)} stands on line {first[value]} too"
                )
            first.setdefault(value, line)


def _check_routes(root: PlacedMapping, report: Report) -> None:
    _check_unique(_items(root, "routes"), "id", "route id", report)
    upstreams = root.get("upstreams")
    known = upstreams.keys() if isinstance(upstreams, PlacedMapping) else ()
    providers = {each.get("id") for each, _ in _items(root, "login", "providers")}
    suggestions: dict[str, str] = {}
    for route, _ in _items(root, "routes"):
        name = route.get("upstream")
        if isinstance(name, str) and name and name not in known:
            if name not in suggestions:
                enough = len(suggestions) >= _MAXIMUM_SUGGESTIONS
                suggestions[name] = "" if enough else suggestion(name, known)
            place = route.places["upstream"]
            report(place, f"there is no upstream {shown(name)}{suggestions[name]}")
        for provider in route.get("providers", ()):
            if isinstance(provider, str) and provider not in providers:
                report(route.places["providers"], f"there is no provider {shown(provider)}")
        _check_rewrite(route, report)
        _check_access(route, report)


def _check_rewrite(route: PlacedMapping, report: Report) -> None:
    stripped = _find(route, "rewrite", "strip_prefix", as_=paths.prefix)
    path = _find(route, "match", "path", as_=paths.path_pattern)
    if stripped and path:
        body = path.value.removesuffix("/*")
        if not f"{body}/".startswith(f"{stripped.value}/"):
            report(
                stripped.place,
                f"rewrite.strip_prefix: the path {shown(path.value)} does not begin with it",
            )


def _check_access(route: PlacedMapping, report: Report) -> None:
    access = route.get("access")
    if access == "public" and route.get("access_token"):
        report(
            route.places["access_token"],
            "access_token: nobody is looked up on a public route, so there is none to send",
        )
    if isinstance(access, PlacedMapping) and not any(access.values()):
        # An emptied list must not quietly become "everybody who is signed in".
        report(
            route.places["access"],
            "access asks for nothing; write `access: signed-in` if everybody signed in may",
        )


_CHECKS: Final[tuple[Callable[[PlacedMapping, Report], None], ...]] = (
    _check_addresses,
    _check_admin_token,
    _check_session,
    _check_login,
    _check_pages,
    _check_tokens,
    _check_identity,
    _check_routes,
)
