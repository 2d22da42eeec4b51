r"""The canonical request target: decoded once, normalised once; what is matched is what is sent.

How this works. Peers were broken because the proxy authorised one spelling of a path and the
backend served another (Oathkeeper CVE-2026-33494, Envoy CVE-2019-9901, Traefik CVE-2025-32431). So
there is one canonical spelling. It is matched, it is forwarded, and whatever could mean two things
to two backends is refused:

1. Only printable ASCII that RFC 3986 allows in a path; `%` is followed by two hex digits. No raw
   backslash, `;`, `#`, space, control byte or byte above 0x7E.
2. The query starts at the first `?`. It is never decoded and never matched.
3. Percent-encoded unreserved characters are decoded (RFC 3986 6.2.2.2); other hex is upper-cased.
4. An encoded `/`, `\`, `%`, `#`, `?`, `;`, control byte, or bytes that are no UTF-8 (overlong
   forms among them) are refused. `%2F` may be let through for routes that ask for it.
5. Dot segments are removed (RFC 3986 5.2.4) and `//` becomes `/`; both in one path are refused,
   because the result depends on which is done first.

The result is a fixed point: `canonical(canonical(x)) == canonical(x)`.
"""

import re
from urllib.parse import unquote_to_bytes

import msgspec

from gateway.bad_request import BadRequest


class Target(msgspec.Struct, frozen=True):
    """A request target in its one canonical form."""

    path: str
    """Starts with `/`; only unreserved characters are decoded; no dot segments, no `//`.

    `*` alone for `OPTIONS *`, which no route ever matches.
    """
    query: str = ""
    """Byte for byte as it came, without the `?`; never decoded, never matched."""
    has_query: bool = False
    """Tells `/a?` from `/a`."""
    encoded_slash: bool = False
    """Whether the path holds a `%2F`; only a route with `allow_encoded_slash` may take it."""

    @property
    def text(self) -> str:
        """The target as it is sent in a request line."""
        return f"{self.path}?{self.query}" if self.has_query else self.path

    @property
    def decoded_slash_path(self) -> str:
        """The path as a backend sees it that decodes `%2F`.

        A route may take a path with an encoded slash only if it would take this one too: otherwise
        `/public/admin%2Fx` goes round the rule for `/public/admin/*` (Envoy CVE-2021-29492).
        """
        return self.path.replace("%2F", "/")


ASTERISK = Target("*")

# RFC 3986 3.3: pchar without `;`. Tomcat, Jetty and Spring cut `;…` off a segment and then resolve
# dots (Envoy CVE-2026-73511); nobody agrees on what it means, so it is refused.
_PATH = r"A-Za-z0-9\-._~!$&'()*+,=:@/"
# Query: printable ASCII but `#` and `\`. More than RFC 3986 allows (`[]{}|^"<>` and the back tick):
# browsers send them raw, and nothing here reads the query.
_QUERY = r"""!"$&-\[\]-~"""
_HEX = r"%[0-9A-Fa-f]{2}"
_QUERY_FORM = rf"(?:\?([{_QUERY}]*+(?>(?:{_HEX}[{_QUERY}]*+)*)))?"

# A target without an encoded byte in its path: canonical as it stands, unless it has dots or
# doubles. Two groups, path and query; for the one expression that reads a whole head.
PLAIN_FORM = rf"(/[{_PATH}]*+){_QUERY_FORM}"
_GENERAL = re.compile(rf"(/[{_PATH}]*+(?>(?:{_HEX}[{_PATH}]*+)*)){_QUERY_FORM}".encode())
_OCTET = re.compile(_HEX.encode())
_NON_ASCII = re.compile(rb"%[89A-F]")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_AMBIGUOUS = frozenset(b"/\\%#?;") | frozenset(range(0x20)) | {0x7F}
_ENCODED_SLASH = b"%2F"


def _spellings(octet: int) -> set[bytes]:
    high, low = f"{octet >> 4:X}", f"{octet & 15:X}"
    return {f"%{h}{el}".encode() for h in {high, high.lower()} for el in {low, low.lower()}}


# Every `%xx` that may stay, to its canonical spelling.
_CANONICAL = {
    spelling: bytes([octet]) if octet in _UNRESERVED else b"%%%02X" % octet
    for octet in range(256)
    if octet not in _AMBIGUOUS
    for spelling in _spellings(octet)
}
_CANONICAL_WITH_SLASH = _CANONICAL | dict.fromkeys(_spellings(0x2F), _ENCODED_SLASH)


def canonical(raw: bytes, *, allow_encoded_slash: bool = False) -> Target:
    """Return the canonical form of *raw*, an origin-form request target (RFC 9112 3.2.1).

    With *allow_encoded_slash*, `%2F` stays in the path (and `encoded_slash` says so), unless it
    stands beside an empty or a dot segment.

    Raises:
        BadRequest: 400; the target has no meaning, or more than one.
    """
    general = _GENERAL.fullmatch(raw)
    if general is None:
        raise BadRequest(400, "The request target is malformed.")
    path, query = general.groups()
    if b"%" in path:
        table = _CANONICAL_WITH_SLASH if allow_encoded_slash else _CANONICAL
        try:
            path = _OCTET.sub(lambda octet: table[octet[0]], path)
        except KeyError:
            raise BadRequest(400, "The path holds an encoded delimiter or control byte.") from None
    path = _without_dots_and_doubles(_checked_utf8(path))
    return Target(
        path.decode(),
        "" if query is None else query.decode(),
        has_query=query is not None,
        encoded_slash=_ENCODED_SLASH in path,
    )


def plain_target(path: str, query: str | None) -> Target:
    """Return what `canonical` would, for the groups of a match of `PLAIN_FORM`, only faster."""
    if "//" in path or "/." in path:
        path = _without_dots_and_doubles(path.encode()).decode()
    if query is None:
        return Target(path)
    return Target(path, query, True)


def _checked_utf8(path: bytes) -> bytes:
    if _NON_ASCII.search(path):
        try:
            unquote_to_bytes(path).decode()
        except UnicodeDecodeError:
            raise BadRequest(400, "The path holds bytes that are not UTF-8.") from None
    return path


def _without_dots_and_doubles(path: bytes) -> bytes:
    segments = path.split(b"/")[1:]
    has_dots = b"." in segments or b".." in segments
    has_doubles = b"//" in path
    if has_dots and has_doubles:
        raise BadRequest(400, "The path has both empty and dot segments.")
    if _ENCODED_SLASH in path:
        inner = path.rstrip(b"/").replace(_ENCODED_SLASH, b"/").split(b"/")[1:]
        if not {b"", b".", b".."}.isdisjoint(inner):
            raise BadRequest(400, "The path has an encoded slash beside an empty or dot segment.")
    if has_doubles:
        kept = [segment for segment in segments[:-1] if segment]
        return b"/" + b"/".join([*kept, segments[-1]])
    if not has_dots:
        return path
    return _without_dots(segments)


def _without_dots(segments: list[bytes]) -> bytes:
    """Apply RFC 3986 5.2.4 to a path without empty segments (but for the last)."""
    kept: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")  # `/a/..` names the directory `/`, `/a/b/..` names `/a/`
    return b"/" + b"/".join(kept)
