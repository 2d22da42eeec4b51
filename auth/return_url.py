# ruff: noqa: SIM905 - a list of words reads better as one string
r"""Where to go after signing in: only to ourselves, and only where every parser agrees.

A browser is far more lenient than any validator: it drops tabs and line breaks, takes `\` for `/`,
maps full-width letters, and reads `//host` as another host (WHATWG URL). So this does not parse
leniently and then compare; it takes a small, plain part of RFC 3986 and refuses the rest.
"""

import re
from urllib.parse import unquote_to_bytes

FALLBACK = "/"
MAX_LENGTH = 2048
"""Characters; what every browser and proxy carries in a Location field."""

_CHAR = r"A-Za-z0-9\-._~!$&'()*+,=:@"
# Encoded bytes of a path that some later decoding would turn into syntax: control bytes, `%` (a
# second decoding), `.`, `/`, `\`. In a query they are data.
_ENCODED = r"%(?![01]|2[5EeFf]|5[Cc]|7[Ff])[0-9A-Fa-f]{2}"
_PATH = re.compile(rf"(?>(?:/[{_CHAR}]*+(?:{_ENCODED}[{_CHAR}]*+)*)+)")
_DATA = rf"[{_CHAR};/?]*+(?>(?:%[0-9A-Fa-f]{{2}}[{_CHAR};/?]*+)*)"
_REST = re.compile(rf"(?:\?{_DATA})?(?:#{_DATA})?")
_SPLIT = re.compile(r"(https?://[^/?#]*)?([^?#]*)(.*)", re.IGNORECASE)
_DOTS = frozenset((".", ".."))
_RAW = re.compile(r"[\[\]^`{|}]")

# Places that act on being visited, or send the visitor on: ours, oauth2-proxy's, and what
# applications usually call theirs. Returning to a sign-out is a logout CSRF, to a sign-in a loop.
_ENTRANCES = frozenset((".doorward", "oauth2"))
_DOORS = frozenset("login logout logoff signin signout sign-in sign-out sign_in sign_out".split())
_LONGEST_AUTHORIZE = 4 * MAX_LENGTH
"""For it has another URL in its query, encoded, which may be of full length itself."""
_AUTHORIZE = "/.doorward/authorize"
_OWN_PAGES = frozenset(
    (
        "/.doorward/sessions",
        "/.doorward/account",
        "/.doorward/account/password",
        "/.doorward/account/authenticator",
        "/.doorward/account/passkeys",
        "/.doorward/form",
        _AUTHORIZE,
    )
)
"""Pages of ours that only show something, and do nothing before a button is pressed; and the one
that hands on to a site that is listed."""


def written_out(rest: str) -> str:
    """Return *rest*, a query and fragment, with what browsers send as it is encoded.

    RFC 3986 has no place for these characters there, and WHATWG URL leaves them alone:
    `?filter[name]=a|b`. Encoded they mean the same to every backend.
    """
    return _RAW.sub(lambda found: f"%{ord(found[0]):02X}", rest)


def safe_return_url(value: str, *, origins: frozenset[str]) -> str:
    """Return *value* if a browser that follows it stays on one of *origins*, else `/`.

    *origins* are written as `scheme://host[:port]`, in lower case and without a default port.
    *value* is a path, or an absolute URL of one of them; with the scheme and host in any case.
    """
    if not value.isascii() or len(value) > _LONGEST_AUTHORIZE:
        return FALLBACK
    parts = _SPLIT.fullmatch(value)
    if parts is None:  # a line break
        return FALLBACK
    origin, path, rest = parts.groups()
    rest = written_out(rest)
    if origin is not None:
        origin = origin.lower()
        path = path or "/"
        if origin not in origins:
            return FALLBACK
    if len(f"{origin or ''}{path}{rest}") > MAX_LENGTH and path != _AUTHORIZE:
        return FALLBACK
    if not _is_plain_path(path) or _REST.fullmatch(rest) is None:
        return FALLBACK
    return f"{origin or ''}{path}{rest}"


def origin_in(url: str) -> str:
    """Return the origin that *url*, of `safe_return_url`, begins with; empty for a path."""
    parts = _SPLIT.fullmatch(url)
    return (parts[1] or "") if parts else ""


def _is_plain_path(path: str) -> bool:
    """Whether *path* has one meaning, and that is no sign-in or sign-out."""
    if _PATH.fullmatch(path) is None or "//" in path or not _is_utf8(path):
        return False
    segments = path.lower().split("/")[1:]
    if not _DOTS.isdisjoint(segments):
        return False
    if path in _OWN_PAGES:
        return True
    last = next((segment for segment in reversed(segments) if segment), "")
    return segments[0] not in _ENTRANCES and last not in _DOORS


def _is_utf8(path: str) -> bool:
    """Whether the encoded bytes are UTF-8: a lenient decoder reads the overlong `%c0%af` as `/`."""
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return False
    return True
