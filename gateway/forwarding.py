"""What goes upstream and what comes back, written anew from what was understood.

How this works. `plan` takes a permit (`Allow`), so that a request without one cannot get here, and
builds the upstream request head from an empty list: request line, Host and framing from the parsed
head; then those of the client's fields that go on (`gateway.fields`); then what the gateway says:
forwarded fields, Via, trace context and, last, the identity block. Nothing of the client's head is
copied through, and nothing that the client wrote stands in a field that the gateway vouches for.

Encoding of identity values, one rule: UTF-8, with every byte percent-encoded that is not printable
ASCII, and `%`, and leading or trailing spaces; in a list every `,` of a member as well. So a value
never holds a line break, a list splits at its commas, and percent-decoding gives back the original.
"""

from typing import TYPE_CHECKING

from auth.authentication import is_our_authorization
from auth.cookies import is_named, without_cookies
from auth.decision import Allow
from auth.identity import Identity
from config.model import IdentityHeaders, Route
from gateway.bad_request import BadRequest
from gateway.fields import CHANGED_IN_REQUEST, FieldRules, Handling, end_to_end, listed_names
from gateway.forwarded import Client
from gateway.head import RequestHead
from gateway.reading import connection_options
from gateway.response_reading import ResponseHead
from gateway.target import Target, canonical

if TYPE_CHECKING:
    from gateway.routing import Matched

PSEUDONYM = "doorward"
"""How this gateway calls itself in Via (RFC 9110 7.6.3)."""
_MAX_PASSES = 8
"""Times that a request may have come through here; more is a loop (RFC 9110 7.6.3, 508)."""
_MOST_WRITTEN = 8
"""Forms of one response head that are remembered: keep-alive or not, for a few generations."""
_NONE: frozenset[str] = frozenset()
_SET_COOKIE = Handling.SPECIAL  # the only special field of a response
_USUAL_OPTIONS = frozenset(("keep-alive", "close", "upgrade"))


def plan(  # noqa: PLR0913 - the keyword-only ones are worked out once, not per request
    permit: Allow,
    matched: "Matched",
    head: RequestHead,
    client: Client,
    *,
    rules: FieldRules,
    identity_block: bytes,
    request_id: str,
    traceparent: str,
    base_path: str = "",
    access_token: str = "",
) -> bytes:
    """Return the upstream request head, ready to be sent.

    *identity_block* is `identity_block(...)` of the permit's identity, worked out once per session
    and route. *request_id* and *traceparent* are ours, or the believed ones. *base_path* is that of
    the endpoint. *access_token*, printable ASCII, goes in the field that the route has for it; what
    the client wrote there never does.

    Raises:
        BadRequest: 400 when the rewritten path is not canonical, 508 when the request loops.
        TypeError: *permit* is no permit. ValueError: identity fields for an anonymous caller.
    """
    if type(permit) is not Allow:
        raise TypeError("only an Allow lets a request through")
    if permit.identity is None and identity_block:
        raise ValueError("identity fields for an anonymous caller")
    route = matched.route.route
    target = rewrite(head.target, route, base_path=base_path)
    own_authorization = route.access_token == "Authorization"  # noqa: S105 - a field's name
    return b"".join(
        (
            f"{head.method} {target.text} HTTP/1.1\r\n".encode("ascii"),
            _lines(head, client, rules, traceparent, own_authorization=own_authorization),
            _framing(head) if head.has_body or head.upgrade or head.content_length == 0 else b"",
            f"X-Request-Id: {request_id}\r\ntraceparent: {traceparent}\r\n".encode("ascii"),
            identity_block,
            _token_line(route.access_token, access_token) if access_token else b"",
            b"\r\n",
        )
    )


def _token_line(name: str, access_token: str) -> bytes:
    return f"{name}: {token_value(name, access_token)}\r\n".encode("ascii")


def token_value(name: str, access_token: str) -> str:
    """Return what the field *name* of the upstream's request says to pass *access_token* on."""
    return f"Bearer {access_token}" if name == "Authorization" else access_token


def _lines(
    head: RequestHead,
    client: Client,
    rules: FieldRules,
    traceparent: str,
    *,
    own_authorization: bool,
) -> bytes:
    """Return the lines that follow from the fields and the client alone: Host to Via.

    Written once for a section, unless the trace context or a Max-Forwards has a say in them, or
    *own_authorization* keeps the client's Authorization back.
    """
    section = head.section
    known = section.lines
    if known is not None and not own_authorization and known[0] is rules and known[1] is client:
        return known[2]
    by_name = section.by_name
    parts = [f"Host: {head.authority}\r\n"]
    options = connection_options(by_name["connection"]) if "connection" in by_name else _NONE
    if options - _USUAL_OPTIONS:
        kept = end_to_end(head.fields, rules, options)
        parts += [f"{name}: {value}\r\n" for name, value in kept]
    else:
        handling = rules.request
        parts += [f"{name}: {value}\r\n" for name, value in head.fields if not handling[name]]
    if not CHANGED_IN_REQUEST.isdisjoint(by_name):
        changed = _changed_fields(head, rules, traceparent)
        if own_authorization:
            changed = [line for line in changed if not line.startswith("Authorization:")]
        parts += changed
    via = _via(by_name["via"]) if "via" in by_name else ""
    parts.append(
        f"X-Forwarded-For: {client.forwarded_for}\r\n"
        f"X-Forwarded-Proto: {client.scheme}\r\n"
        f"X-Forwarded-Host: {client.host}\r\n"
        f"Via: {via}1.{head.version[1]} {PSEUDONYM}\r\n"
    )
    lines = "".join(parts).encode("latin-1")
    if not own_authorization and "tracestate" not in by_name and "max-forwards" not in by_name:
        section.lines = (rules, client, lines)
    return lines


def _framing(head: RequestHead) -> bytes:
    """Return the lines that say what follows the head, written from what was understood."""
    if head.upgrade:
        return f"Connection: Upgrade\r\nUpgrade: {head.upgrade}\r\n".encode("ascii")
    if head.chunked:
        return b"Transfer-Encoding: chunked\r\n"
    return b"Content-Length: %d\r\n" % (head.content_length or 0)


def rewrite(target: Target, route: Route, *, base_path: str = "") -> Target:
    """Return *target* as *route* sends it: prefix taken off, prefix put before, then *base_path*.

    Raises:
        BadRequest: 400; there is an encoded slash and the route does not take one, the prefix is
            not there, or the result is not canonical (Traefik CVE-2026-48020).
    """
    if target.encoded_slash and not route.allow_encoded_slash:
        raise BadRequest(400, "The path holds an encoded slash.")
    path = target.path
    if not base_path and not route.strip_prefix and not route.add_prefix and path[:1] == "/":
        return target
    strip, before = route.strip_prefix.rstrip("/"), base_path + route.add_prefix.rstrip("/")
    if path[:1] != "/":
        raise BadRequest(400, "The request target names no resource.")
    if not strip and not before:
        return target
    if strip:
        if path != strip and not path.startswith(f"{strip}/"):
            raise BadRequest(400, "The path does not begin with the prefix to take off.")
        path = path[len(strip) :] or "/"
    rewritten = Target(f"{before}{path}", target.query, target.has_query, target.encoded_slash)
    again = canonical(rewritten.path.encode(), allow_encoded_slash=route.allow_encoded_slash)
    if again.path != rewritten.path:
        raise BadRequest(400, "The rewritten path is not canonical.")
    return rewritten


def identity_block(headers: IdentityHeaders, identity: Identity | None, assertion: str) -> bytes:
    """Return the identity fields as they stand in the request head, each with its line end.

    A field whose part of the identity is empty is left out, as is an empty *assertion*. Empty for
    an anonymous caller.
    """
    if identity is None:
        return b""
    lines = []
    for name, part in headers.fields:
        value: str | tuple[str, ...] = getattr(identity, part)
        text = (
            encode_value(value)
            if isinstance(value, str)
            else ",".join(encode_member(member) for member in value if member)
        )
        if text:
            lines.append(f"{name}: {text}\r\n")
    if assertion:
        lines.append(f"{headers.assertion.header}: {assertion}\r\n")
    return "".join(lines).encode("ascii")


def encode_value(value: str) -> str:
    """Return *value* as it stands in an identity field; `urllib.parse.unquote` gives it back."""
    if value.isascii() and value.isprintable() and "%" not in value and value == value.strip(" "):
        return value
    # surrogatepass: two odd subjects must stay two, which a replacement character would not do
    octets = value.encode("utf-8", "surrogatepass")
    text = "".join(chr(o) if 0x20 <= o < 0x7F and o != 0x25 else f"%{o:02X}" for o in octets)
    inner = text.strip(" ")
    if not inner:
        return "%20" * len(text)
    before, _, after = text.partition(inner)
    return f"{'%20' * len(before)}{inner}{'%20' * len(after)}"


def encode_member(value: str) -> str:
    """Return *value* as it stands in a list of an identity field."""
    return encode_value(value).replace(",", "%2C")


def response_fields(  # noqa: PLR0913 - keyword-only, each a fact of its own
    head: ResponseHead,
    *,
    rules: FieldRules,
    length: int | None,
    chunked: bool,
    keep_alive: bool,
    date: str = "",
    own: bytes = b"",
) -> bytes:
    """Return the response head that goes to the client, ready to be sent.

    The body is written with *length* bytes, or *chunked*, or until close; what *head* says about
    that is not copied. Where there is no body (`head.bodiless`), only the length that an answer to
    GET would have is announced. *keep_alive* says whether the client's connection stays open.
    *date* (RFC 9110 5.6.7) is added when the upstream sent none (6.6.1). *own* are field lines of
    the gateway's, each with its line end.
    """
    # Without a date or fields of ours it says the same for the same head, which may come often.
    form = (rules, keep_alive, chunked)
    lasting = head.has_date and not own and length == head.content_length
    if lasting and form in head.written:
        return head.written[form]
    parts = [f"HTTP/1.1 {head.status} {head.reason}\r\n"]
    handling = rules.response
    fields = head.fields
    if head.options:  # RFC 9110 7.6.1: what they name is for us, as with a request
        listed = listed_names(head.options)
        fields = tuple(field for field in fields if field[0].lower() not in listed)
    for name, value in fields:
        kind = handling[name]
        if not kind or (kind is _SET_COOKIE and not sets_cookie(value, rules.cookie_names)):
            parts.append(f"{name}: {value}\r\n")
    parts += _response_framing(head, length, chunked=chunked)
    if date and not head.has_date:
        parts.append(f"Date: {date}\r\n")
    if head.upgrade:
        parts.append("Connection: Upgrade\r\nUpgrade: websocket\r\n")
    elif not keep_alive:
        parts.append("Connection: close\r\n")
    data = b"%b%b\r\n" % ("".join(parts).encode("latin-1"), own)
    if lasting:
        if len(head.written) >= _MOST_WRITTEN:
            head.written.clear()
        head.written[form] = data
    return data


def _response_framing(head: ResponseHead, length: int | None, *, chunked: bool) -> list[str]:
    if head.bodiless:
        return _announced_length(head)
    if length is not None:
        return [f"Content-Length: {length}\r\n"]
    return ["Transfer-Encoding: chunked\r\n"] if chunked else []


def sets_cookie(value: str, names: tuple[str, ...]) -> bool:
    """Whether the Set-Cookie *value* could make a browser send a cookie called one of *names*.

    A cookie without a name is sent as its value alone (RFC 6265bis 5.6): `=doorward=x` and a bare
    `doorward` come back looking like ours. Case does not count.
    """
    pair = value.partition(";")[0].lstrip(" \t=")
    return is_named(pair.partition("=")[0].rstrip(" \t"), names)


def _announced_length(head: ResponseHead) -> list[str]:
    """Return the length that an answer to GET would have; a 1xx or 204 has none (RFC 9110 8.6)."""
    if head.status < 200 or head.status == 204:
        return []
    lengths = (value for name, value in head.fields if name.lower() == "content-length")
    return [f"Content-Length: {value}\r\n" for value in lengths]


def _changed_fields(head: RequestHead, rules: FieldRules, traceparent: str) -> list[str]:
    """Return the lines of those client fields that go on, but not as they came."""
    by_name = head.by_name
    lines = [
        f"Authorization: {value}\r\n"
        for value in by_name.get("authorization", ())
        if not is_our_authorization(value, issuers_configured=rules.bearer_is_ours)
    ]
    if "cookie" in by_name:
        cookies = without_cookies(by_name["cookie"], rules.cookie_names)
        if cookies:
            lines.append(f"Cookie: {cookies}\r\n")
    if "max-forwards" in by_name:
        value = by_name["max-forwards"][0]
        if head.method == "OPTIONS":  # RFC 9110 7.6.2: only OPTIONS and TRACE count down
            value = str(max(int(value) - 1, 0))
        lines.append(f"Max-Forwards: {value}\r\n")
    if "tracestate" in by_name and by_name.get("traceparent") == (traceparent,):
        # W3C Trace Context 3.3: a state without its parent means nothing.
        lines.append(f"tracestate: {','.join(by_name['tracestate'])}\r\n")
    return lines


def _via(values: tuple[str, ...]) -> str:
    chain = ", ".join(values)
    if chain.count(f" {PSEUDONYM}") >= _MAX_PASSES:
        raise BadRequest(508, "The request has come through here too often.")
    return f"{chain}, " if chain else ""
