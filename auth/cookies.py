"""The session cookie: found, taken out of what goes upstream, set and cleared (RFC 6265)."""

import re
from collections.abc import Iterable
from enum import Enum
from functools import lru_cache
from typing import Final

from config.model import SessionSettings


class Ambiguous(Enum):
    """The type of `AMBIGUOUS`, so that a checker can tell it from a value."""

    AMBIGUOUS = "ambiguous"


AMBIGUOUS: Final = Ambiguous.AMBIGUOUS
"""More than one cookie has our name: somebody tossed one (a sibling domain can), so none counts."""

_WHITE = " \t"
# RFC 6265 4.1.1 cookie-octet, without what anybody quotes, splits or decodes.
_VALUE = re.compile(r"[A-Za-z0-9._~\-]{1,1024}")


def session_cookie(values: Iterable[str], name: str) -> str | Ambiguous | None:
    """Return the value of the only cookie called *name* in the Cookie fields *values*.

    Names are compared exactly (RFC 6265 5.4): `__host-x` is not `__Host-x`. An empty value counts
    as no cookie. Nothing is decoded or unquoted.

    Returns:
        None when there is none, AMBIGUOUS when there are several, be they equal.
    """
    found: str | None = None
    for field in values:
        if name not in field:
            continue
        for pair in field.split(";"):
            key, _, value = pair.partition("=")
            if key.strip(_WHITE) == name:
                if found is not None:
                    return AMBIGUOUS
                found = value.strip(_WHITE)
    return found or None


def without_cookies(values: tuple[str, ...], names: tuple[str, ...]) -> str:
    """Return *values*, Cookie fields, as one, without the cookies called *names*; may be empty.

    Here case does not count: a backend that folds it must not see ours either. A cookie without
    `=` goes as well if it is one of the names. A name that ends in `*` stands for every name that
    begins so.
    """
    field = values[0] if len(values) == 1 else "; ".join(filter(None, values))
    exact, prefixes = _folded(names)
    pairs = field.split(";")
    kept = [pair for pair in pairs if pair.partition("=")[0].strip(_WHITE).lower() not in exact]
    if any(prefix in field.lower() for prefix in prefixes):
        kept = [pair for pair in kept if not pair.lower().lstrip(_WHITE).startswith(prefixes)]
    if len(kept) == len(pairs):
        return field
    return "; ".join([pair.strip(_WHITE) for pair in kept if pair.strip(_WHITE)])


def is_named(name: str, names: tuple[str, ...]) -> bool:
    """Return whether a cookie called *name* is one of *names*, as `without_cookies` reads them."""
    exact, prefixes = _folded(names)
    return name.lower() in exact or name.lower().startswith(prefixes)


@lru_cache(maxsize=64)
def _folded(names: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the whole names and the beginnings of names, in lower case."""
    exact = frozenset(name.lower() for name in names if not name.endswith("*"))
    return exact, tuple(name[:-1].lower() for name in names if name.endswith("*"))


def set_cookie(settings: SessionSettings, value: str, max_age: float | None = None) -> str:
    """Return the Set-Cookie value that gives the browser the session *value*.

    *max_age* is in seconds; None lets the cookie end with the browser. No Domain, so that no
    sibling host gets it; Path is `/`, as `__Host-` asks (RFC 6265bis 4.1.3.2).

    Raises:
        ValueError: *value* is not made of URL-safe characters.
    """
    if _VALUE.fullmatch(value) is None:
        raise ValueError("a session cookie holds URL-safe characters only")
    lifetime = "" if max_age is None else f"; Max-Age={max(int(max_age), 0)}"
    return f"{settings.cookie_name}={value}{lifetime}{_attributes(settings)}"


def clear_cookie(settings: SessionSettings) -> str:
    """Return the Set-Cookie value that makes the browser forget the session."""
    # Expires for the browsers that do not know Max-Age.
    past = "; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    return f"{settings.cookie_name}={past}{_attributes(settings)}"


def form_cookie_name(session_cookie_name: str) -> str:
    """Return the name of the cookie that a form's token is made for.

    On https it is `__Secure-…`: its path keeps it away from every upstream, which `__Host-` would
    not allow; a sibling domain that sets it gains nothing, for the token binds the session too.
    """
    if session_cookie_name.startswith("__Host-"):
        return f"__Secure-{session_cookie_name.removeprefix('__Host-')}-form"
    return f"{session_cookie_name}-form"


def sign_in_cookie_prefix(session_cookie_name: str) -> str:
    """Return what the names of the cookies begin with that bind a sign-in to a browser.

    On https `__Host-…`: a sibling domain that could set one could have a person finish a sign-in
    that somebody else began (RFC 9700 section 4.7).
    """
    return f"{session_cookie_name}-sign-in-"


def _attributes(settings: SessionSettings) -> str:
    secure = "; Secure" if settings.secure else ""
    return f"; Path=/; HttpOnly; SameSite={settings.same_site.capitalize()}{secure}"
