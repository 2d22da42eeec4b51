"""What must hold between values of a document: names that refer, limits that agree, no collision.

Every check reads the document as it is, also one that differs from the schema elsewhere, so that
all problems are told at once; a value that has a problem of its own is passed over here.
"""

from collections.abc import Callable
from typing import Any, Final

from config import addresses, colours, names, paths, quantities
from config.document import Place, PlacedMapping, PlacedSequence, quoted
from config.finding import check_unique, find, items, public_origin
from config.login_checks import check_login
from config.presets import ADDED_BY_INCLUDE, PRESETS
from config.problem import Problem
from config.validation import Report, shown, suggestion

MINIMUM_TOKEN_LENGTH: Final = 16
"""Characters of an admin token on an address that others can reach."""
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


def _check_addresses(root: PlacedMapping, report: Report) -> None:
    listen = find(root, "server", "listen", as_=addresses.address)
    admin = find(root, "admin", "listen", as_=addresses.address)
    if (
        listen
        and addresses.is_wildcard(listen.value.host)
        and not find(root, "server", "public_url")
    ):
        message = (
            "server.public_url is needed: say which URL browsers use, since listen is every address"
        )
        report(listen.place, message)
    if listen and admin and listen.value == admin.value and listen.value.port:
        report(admin.place, "admin.listen: this is the public address; operators need their own")


def _check_admin_token(root: PlacedMapping, report: Report) -> None:
    token = find(root, "admin", "token")
    listen = find(root, "admin", "listen", as_=addresses.address)
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
    idle = find(root, "session", "idle_timeout", as_=quantities.duration)
    absolute = find(root, "session", "absolute_timeout", as_=quantities.duration)
    idle_for = idle.value if idle else 1800.0
    absolute_for = absolute.value if absolute else 43_200.0
    blamed = idle or absolute
    if blamed and idle_for > absolute_for:
        report(blamed.place, "session.idle_timeout must not be longer than absolute_timeout")
    lease = find(root, "session", "lease", as_=quantities.duration)
    if lease and lease.value >= idle_for:
        report(lease.place, "session.lease must be shorter than idle_timeout")
    same_site = find(root, "session", "cookie", "same_site")
    if same_site and same_site.value == "none" and public_origin(root).startswith("http:"):
        report(
            same_site.place,
            "session.cookie.same_site: browsers take none only with https; "
            "set server.public_url to an https URL, or choose lax",
        )


def _check_pages(root: PlacedMapping, report: Report) -> None:
    grounds = {"accent": colours.LIGHT_GROUND, "accent_dark": colours.DARK_GROUND}
    for key, ground in grounds.items():
        given = find(root, "pages", "colours", key, as_=colours.colour)
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
    check_unique(items(root, "tokens"), "issuer", "issuer", report)
    for issuer, place in items(root, "tokens"):
        uri, file = find(issuer, "jwks_uri"), find(issuer, "jwks_file")
        if uri and file:
            report(file.place, "tokens[].jwks_file: the keys come from jwks_uri; give one of them")
        name = find(issuer, "issuer")
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
    headers = find(root, "identity", "headers")
    include = find(root, "identity", "include")
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
    header = find(root, "identity", "assertion", "header")
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


def _check_routes(root: PlacedMapping, report: Report) -> None:
    check_unique(items(root, "routes"), "id", "route id", report)
    upstreams = root.get("upstreams")
    known = upstreams.keys() if isinstance(upstreams, PlacedMapping) else ()
    ids = (each.get("id") for each, _ in items(root, "login", "providers"))
    providers = {each for each in ids if isinstance(each, str)}
    suggestions: dict[str, str] = {}
    for route, _ in items(root, "routes"):
        name = route.get("upstream")
        if isinstance(name, str) and name and name not in known:
            if name not in suggestions:
                enough = len(suggestions) >= _MAXIMUM_SUGGESTIONS
                suggestions[name] = "" if enough else suggestion(name, known)
            place = route.places["upstream"]
            report(place, f"there is no upstream {shown(name)}{suggestions[name]}")
        named = route.get("providers")
        for provider in named if isinstance(named, PlacedSequence) else ():
            if isinstance(provider, str) and provider not in providers:
                report(route.places["providers"], f"there is no provider {shown(provider)}")
        _check_rewrite(route, report)
        _check_access(route, report)


def _check_rewrite(route: PlacedMapping, report: Report) -> None:
    stripped = find(route, "rewrite", "strip_prefix", as_=paths.prefix)
    path = find(route, "match", "path", as_=paths.path_pattern)
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
    check_login,
    _check_pages,
    _check_tokens,
    _check_identity,
    _check_routes,
)
