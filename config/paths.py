"""Paths in the one spelling in which requests are matched.

Every function raises `ValueError` with what is wrong, without repeating the value.
"""

import re
from typing import Final

RESERVED_SEGMENT: Final = ".doorward"
# RFC 3986 3.3: pchar, without `;` (backends cut it off) and `*` (ours alone).
_LITERAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()+,=:@]|%[0-9A-Fa-f]{2})*")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_UNRESERVED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)
_REFUSED: Final = frozenset(b"/\\%#?;") | frozenset(range(0x20)) | {0x7F}


def path_pattern(value: str) -> str:
    """Return the path of a route: exact, or a prefix that ends in `/*`; `{name}` for one segment.

    The literal parts must be in the canonical spelling in which requests are matched; in another
    spelling a route would silently match nothing.
    """
    _check_rooted(value)
    body = value.removesuffix("/*")
    names: set[str] = set()
    for segment in body.split("/")[1:]:
        parameter = _PARAMETER.fullmatch(segment)
        if not parameter:
            _check_segment(segment, last=False)
        elif parameter[1] in names:
            raise ValueError(f"{{{parameter[1]}}} stands twice; give each segment its own name")
        else:
            names.add(parameter[1])
    _check_doubles(value)
    if (value + "/").startswith(f"/{RESERVED_SEGMENT}/"):
        raise ValueError(f"/{RESERVED_SEGMENT} belongs to the gateway itself")
    return value


def literal_path(value: str) -> str:
    """Return a path without parameters and `*`, in the canonical spelling."""
    _check_rooted(value)
    for segment in value.split("/")[1:]:
        if _PARAMETER.fullmatch(segment) or "*" in segment:
            raise ValueError("this path is taken literally; write it without {name} and *")
        _check_segment(segment, last=True)
    _check_doubles(value)
    return value


def prefix(value: str) -> str:
    """Return a literal path that other paths begin with, without a trailing slash."""
    if value.endswith("/"):
        raise ValueError("write it without the slash at the end")
    return literal_path(value)


def literal_target(value: str) -> str:
    """Return a literal path with or without a query."""
    path, _, query = value.partition("?")
    literal_path(path)
    if not re.fullmatch(r"[!-~]*", query) or "#" in query or "\\" in query:
        raise ValueError("a query is ASCII without spaces, # and backslash")
    return value


def _check_rooted(value: str) -> None:
    if not value.startswith("/"):
        raise ValueError("a path begins with /")
    if "?" in value or "#" in value:
        raise ValueError("a path has no ? and no #; routes match on the path alone")


def _check_doubles(value: str) -> None:
    if "//" in value:
        raise ValueError("an empty segment (//) never arrives; requests are matched without it")


def _check_segment(segment: str, *, last: bool) -> None:
    if segment in {".", ".."}:
        raise ValueError("dot segments never arrive; requests are matched without them")
    if "*" in segment:
        raise ValueError("* may only be the last segment: /notes/*")
    if not last and ("{" in segment or "}" in segment):
        raise ValueError("{name} takes one whole segment, and a name has letters, digits and _")
    if not segment.isascii():
        raise ValueError("percent-encode everything beyond ASCII: é is %C3%A9")
    if not _LITERAL.fullmatch(segment):
        raise ValueError("this character never arrives in a path; percent-encode what may be")
    _check_encoded(segment)


def _check_encoded(segment: str) -> None:
    for digits in re.findall("%(..)", segment):
        octet = int(digits, 16)
        if octet in _UNRESERVED:
            raise ValueError(f"write {chr(octet)} for %{digits}; requests are matched decoded")
        if octet in _REFUSED:
            raise ValueError(f"a request with %{digits} in its path is refused, so none matches")
        if digits != digits.upper():
            raise ValueError(f"write %{digits.upper()} for %{digits}")
    try:
        bytes(_octets(segment)).decode()
    except UnicodeDecodeError:
        raise ValueError(
            "what is percent-encoded here is no UTF-8; such requests are refused"
        ) from None


def _octets(segment: str) -> list[int]:
    return [int(d, 16) if d else ord(c) for d, c in re.findall(r"%(..)|(.)", segment)]
