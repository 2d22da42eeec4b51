"""What must hold between the values under `login`: who checks passwords, whose people are whose."""

from typing import Final

from config import addresses, names, paths, quantities
from config.document import Place, PlacedMapping, PlacedSequence
from config.finding import check_unique, find, items, public_origin
from config.validation import Report, shown

_NO_SUBJECTS: Final = frozenset({"email", "name", "nickname", "preferred_username", "upn"})
"""Claims that a person may change, or that are given to somebody else one day."""
_BUNDLED: Final = f"/{paths.RESERVED_SEGMENT}/login"
"""`login.url` of the bundled service."""
_SHORTEST_FACTOR_KEY: Final = 32
"""Characters: 128 bits and more, written in hex."""


def check_login(root: PlacedMapping, report: Report) -> None:
    """Report every problem between the values of `login`, providers and sites among them."""
    url = find(root, "login", "url", as_=str)
    reserved = f"/{paths.RESERVED_SEGMENT}"
    if url and f"{url.value}/".startswith(f"{reserved}/") and url.value != _BUNDLED:
        report(url.place, f"login.url: under {reserved} there is only {_BUNDLED}")
    database, key = find(root, "login", "database"), find(root, "login", "factor_key", as_=str)
    if database and not key:
        report(
            database.place,
            "login.factor_key: gateways that share a database share a key; make one with "
            "`openssl rand -hex 32`",
        )
    if key and len(key.value) < _SHORTEST_FACTOR_KEY:
        report(key.place, f"login.factor_key: it needs {_SHORTEST_FACTOR_KEY} characters or more")
    check_unique(items(root, "login", "providers"), "id", "provider", report)
    several = len([*items(root, "login", "providers")]) > 1
    for provider, place in items(root, "login", "providers"):
        _check_protocol(provider, place, several=several, report=report)
        scopes = find(provider, "scopes")
        if provider.get("protocol", "openid") != "openid":
            scopes = None
        if scopes and isinstance(scopes.value, list) and "openid" not in scopes.value:
            report(scopes.place, "login.providers[].scopes: OpenID Connect needs the scope openid")
        subject = find(provider, "claims", "subject")
        if subject and isinstance(subject.value, str) and subject.value in _NO_SUBJECTS:
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
    sites = find(root, "login", "sites")
    if sites is None or not isinstance(sites.value, PlacedSequence) or not sites.value:
        return
    url = find(root, "login", "url", as_=str)
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
    for route, _ in items(root, "routes"):
        hosts = find(route, "match", "hosts")
        if hosts is None or not isinstance(hosts.value, list):
            return None
        patterns.update(each.lower() for each in hosts.value if isinstance(each, str))
    return frozenset(patterns)


def _takes(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else pattern == host


def _check_delegation(root: PlacedMapping, report: Report) -> None:
    ldap = find(root, "login", "ldap")
    service = find(root, "login", "user_service")
    registration = find(root, "login", "registration", "enabled", as_=quantities.flag)
    if ldap and service:
        report(ldap.place, "login.ldap: passwords are checked by user_service; say one of them")
    if (ldap or service) and registration and registration.value:
        report(
            registration.place, "login.registration is for our own accounts; people are elsewhere"
        )
    if not ldap:
        return
    if bool(find(root, "login", "ldap", "user_dn")) == bool(find(root, "login", "ldap", "base")):
        report(ldap.place, "login.ldap: say user_dn, or base to look for people below")
    for key, words in (("user_dn", ("{login}",)), ("filter", ("{login}",)),
                       ("group_filter", ("{dn}", "{login}"))):  # fmt: skip
        given = find(root, "login", "ldap", key, as_=str)
        if given and not any(word in given.value for word in words):
            report(given.place, f"login.ldap.{key}: {' or '.join(words)} must stand in it")
    url = find(root, "login", "ldap", "url", as_=addresses.ldap_url)
    security = find(root, "login", "ldap", "security")
    is_open = url and url.value.startswith("ldap:") and security and security.value == "none"
    if url and security and is_open and not addresses.is_loopback(addresses.ldap_host(url.value)):
        report(
            security.place,
            "login.ldap.security: without TLS whoever is on the way reads every password; "
            "none is for a directory on this machine",
        )


def _check_mail(root: PlacedMapping, report: Report) -> None:
    mail = find(root, "login", "mail")
    smtp, webhook = find(root, "login", "mail", "smtp"), find(root, "login", "mail", "webhook")
    if mail and bool(smtp) == bool(webhook):
        report(mail.place, "login.mail: say smtp or webhook, and one of them")
    if smtp and not find(root, "login", "mail", "from"):
        report(smtp.place, "login.mail.from is needed: say who the messages come from")
    server = find(root, "login", "mail", "smtp", "server", as_=addresses.address)
    security = find(root, "login", "mail", "smtp", "security")
    is_open = security and security.value == "none"
    if security and is_open and server and not addresses.is_loopback(server.value.host):
        report(
            security.place,
            "login.mail.smtp.security: without TLS whoever is on the way reads the links; "
            "none is for a server on this machine",
        )
    enabled = find(root, "login", "registration", "enabled", as_=quantities.flag)
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
    own_callback = find(provider, "own_callback", as_=quantities.flag)
    if several and own_callback and not own_callback.value:
        report(
            own_callback.place,
            "login.providers[].own_callback: is needed beside other providers, for nothing in this "
            "one's answers says whose they are",
        )


def _check_namespaces(root: PlacedMapping, report: Report) -> None:
    """Two providers with one namespace could each speak for the other's people."""
    seen: dict[str, str] = {}
    for provider, place in items(root, "login", "providers"):
        given = find(provider, "namespace", as_=names.namespace)
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
