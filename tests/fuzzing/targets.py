# ruff: noqa: PT017 - a refusal is half of what is checked, and `pytest.raises` asks for one
"""What is fuzzed: each target reads bytes, must not raise, and asserts what may never be.

The checks are written without the code that they check, as plainly as they can be. A target raises
`AssertionError` when a rule is broken; any other exception is a fault as well.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from urllib.parse import unquote_to_bytes, urlsplit

from auth.claims import identity_of_claims
from auth.cookies import AMBIGUOUS, session_cookie, without_cookies
from auth.decision import Reason
from auth.keys import encode_base64url
from auth.return_url import FALLBACK, safe_return_url
from auth.tokens import CLOCK_SKEW, LONGEST_LIFETIME, check_claims, read_token
from config.model import Limits
from gateway.bad_request import BadRequest
from gateway.fields import fold
from gateway.forwarded import canonical_address, read_client
from gateway.forwarding import identity_block, plan, response_fields
from gateway.framing import ChunkedScanner
from gateway.head import RequestHead
from gateway.reading import check_partial_head, read_request_head
from gateway.response_reading import (
    UpstreamProtocolError,
    check_partial_response_head,
    read_response_head,
)
from gateway.target import canonical
from tests.fuzzing.support import (
    ALL_FIELDS,
    HEADERS,
    MATCHED,
    NOW,
    PERMIT,
    RULES,
    SUBJECT,
    TOKEN_ISSUER,
)

LIMITS = Limits(head=8192, body=4096)
NETWORKS = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
ORIGINS = frozenset({"https://app.example.com", "https://other.example.com:8443"})
REQUEST_LINE = re.compile(rb"[A-Z-]+ (/[!-~]*) HTTP/1\.1")
FIELD_LINE = re.compile(rb"([A-Za-z0-9-]+): ((?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)")


def read_head(data: bytes) -> RequestHead | None:
    try:
        return read_request_head(data, scheme="http", limits=LIMITS, allow_encoded_slash=True)
    except BadRequest as refusal:
        assert refusal.status in {400, 405, 413, 414, 417, 421, 431, 501, 505}
        assert "%" not in refusal.detail
        return None


def reading(data: bytes) -> None:
    """A head is read or refused, and what goes upstream means what was read."""
    end = data.find(b"\r\n\r\n")
    data = data[: end + 4] if end >= 0 else data + b"\r\n\r\n"
    head = read_head(data)
    if head is None:
        return
    for cut in {1, len(data) // 3, len(data) - 1}:
        check_partial_head(data[:cut], start=0, limits=LIMITS)
        check_partial_head(data[: cut + 1], start=cut, limits=LIMITS)
    assert b"\0" not in data
    assert data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r")
    assert not (head.chunked and head.content_length is not None)
    if not head.ends_here:
        check_planned(head)


def check_planned(head: RequestHead) -> None:
    """What goes upstream for *head* has one meaning, and says nothing that the client made up."""
    block = identity_block(HEADERS, PERMIT.identity, "a.b.c")
    try:
        planned = plan(
            PERMIT,
            MATCHED,
            head,
            read_client("10.0.0.1", head, scheme="http", trusted_proxies=NETWORKS),
            rules=RULES,
            identity_block=block,
            request_id="id",
            traceparent="00-1-2-01",
        )
    except BadRequest as refusal:
        assert refusal.status in (400, 508)
        return
    line, *lines = planned.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = REQUEST_LINE.fullmatch(line)
    assert found is not None
    assert found[1].decode() == head.target.text
    names: list[str] = []
    for each in lines:
        field = FIELD_LINE.fullmatch(each)
        assert field is not None, each
        names.append(field[1].decode().lower())
        if fold(field[1].decode()) == "X_AUTH_USER":
            assert field[2].decode() == SUBJECT
    for once in ("host", "x-auth-user", "x-auth-assertion", "x-forwarded-for", "via"):
        assert names.count(once) == 1, once
    assert names.count("content-length") + names.count("transfer-encoding") <= 1
    assert ("transfer-encoding" in names) == head.chunked


def framing(data: bytes) -> None:
    """A chunked body ends at the same byte and holds the same content however it is cut."""
    whole = scan([data])
    bytewise = scan([data[at : at + 1] for at in range(len(data))])
    half = scan([data[: len(data) // 2], data[len(data) // 2 :]])
    assert whole == half
    assert whole == bytewise
    taken, content, done = whole
    if done:
        assert (content, taken) == plain_chunks(data[:taken])


def scan(pieces: list[bytes]) -> tuple[int, bytes, bool]:
    """Return what is taken, the content, and whether it is complete; (-1, b"", False): refused."""
    scanner = ChunkedScanner(limit=LIMITS.body)
    taken, content = 0, b""
    try:
        for piece in pieces:
            taken += scanner.feed(piece)
            content += b"".join(scanner.take())
            if scanner.done:
                break
    except BadRequest:
        return -1, b"", False
    assert len(content) == scanner.decoded_bytes <= LIMITS.body
    return taken, content, scanner.done


def plain_chunks(data: bytes) -> tuple[bytes, int]:
    """Decode a complete chunked body the simple way."""
    content, at = b"", 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end].partition(b";")[0], 16)
        at = end + 2
        if not size:
            while data[at : at + 2] != b"\r\n":
                at = data.index(b"\r\n", at) + 2
            return content, at + 2
        content += data[at : at + size]
        assert data[at + size : at + size + 2] == b"\r\n"
        at += size + 2


def target(data: bytes) -> None:
    """A canonical target is a fixed point, and no decoding of it leads out of its path."""
    for allow in (False, True):
        try:
            found = canonical(data, allow_encoded_slash=allow)
        except BadRequest:
            continue
        again = canonical(found.text.encode(), allow_encoded_slash=allow)
        assert again == found
        assert found.path.startswith("/")
        assert "//" not in found.path
        decoded = unquote_to_bytes(found.path).decode()
        segments = decoded.split("/")
        assert not {".", ".."}.intersection(segments)
        assert not re.search(r"[\0-\x1f\x7f\\;?#]", decoded)
        assert unquote_to_bytes(decoded) == unquote_to_bytes(found.path)
        assert found.encoded_slash == (decoded.count("/") != found.path.count("/"))
        assert allow or not found.encoded_slash


def response(data: bytes) -> None:
    """An upstream's head is read or refused, and what goes to the client is no more than one."""
    end = data.find(b"\r\n\r\n")
    data = data[: end + 4] if end >= 0 else data + b"\r\n\r\n"
    for method in ("GET", "HEAD"):
        try:
            head = read_response_head(data, request_method=method, upgrade_requested=True)
        except UpstreamProtocolError:
            continue
        for cut in {1, len(data) // 3, len(data) - 1}:
            check_partial_response_head(data[:cut], start=0)
        assert (head.content_length is not None) + head.chunked + head.until_close == 1
        assert not (head.until_close and head.keep_alive)
        written = response_fields(
            head, rules=RULES, length=0, chunked=False, keep_alive=True, date="now"
        )
        assert written.endswith(b"\r\n\r\n")
        assert written.count(b"\r\n\r\n") == 1
        lines = written.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]
        for line in lines:
            assert re.search(rb"[\0\r\n]", line) is None
            name, _, value = line.partition(b": ")
            assert not fold(name.decode("latin-1")).startswith(("X_DOORWARD", "X_AUTH_"))
            if name.lower() == b"set-cookie":
                cookie = value.partition(b"=")[0].strip(b" \t")
                assert cookie.lower() not in (b"doorward", b"doorward-form")


def cookies(data: bytes) -> None:
    """At most one session cookie counts, and none of ours is in what goes on."""
    values = tuple(data.decode("latin-1").split("\n"))
    found = session_cookie(values, "doorward")
    kept = without_cookies(values, ("doorward", "doorward-form"))
    assert session_cookie([kept], "doorward") is None
    pairs = [pair.partition("=") for pair in ";".join(values).split(";")]
    named = [value.strip(" \t") for name, _, value in pairs if name.strip(" \t") == "doorward"]
    if found is AMBIGUOUS:
        assert len(named) > 1
    elif found is None:
        assert named in ([], [""])
    else:
        assert named == [found]
    for pair in kept.split(";"):
        name = pair.partition("=")[0].strip(" \t").lower()
        assert name not in ("doorward", "doorward-form")


def return_url(data: bytes) -> None:
    """Whatever is honoured stays on an origin of ours, as a browser reads it."""
    value = data.decode("utf-8", "surrogateescape")
    found = safe_return_url(value, origins=ORIGINS)
    if found == FALLBACK:
        return
    assert found.isascii()
    assert found.isprintable()
    assert not re.search(r"[\\\s<>\"']", found.replace("'", "")), found
    # A browser drops tab and line breaks and reads a backslash as a slash; there is none of them.
    split = urlsplit(found)
    if split.scheme or split.netloc:
        assert f"{split.scheme}://{split.netloc}" in ORIGINS
    else:
        assert found.startswith("/")
        assert not found.startswith("//")
    decoded = unquote_to_bytes(split.path)
    assert b"//" not in decoded
    assert not re.search(rb"[\0-\x1f\x7f\\]", decoded)
    assert safe_return_url(found, origins=ORIGINS) == found


def forwarded(data: bytes) -> None:
    """The client is an address that somebody vouched for, or the peer."""
    text = data.decode("latin-1")
    lines = [line for line in text.split("\n") if FIELD_LINE.fullmatch(line.encode("latin-1"))]
    raw = "GET / HTTP/1.1\r\nHost: a\r\n" + "".join(f"{line}\r\n" for line in lines[:8]) + "\r\n"
    head = read_head(raw.encode("latin-1"))
    if head is None:
        return
    stranger = read_client("192.0.2.1", head, scheme="http", trusted_proxies=NETWORKS)
    assert (stranger.address, stranger.forwarded_for) == ("192.0.2.1", "192.0.2.1")
    assert (stranger.scheme, stranger.host, stranger.request_id) == ("http", "a", "")
    try:
        client = read_client("10.0.0.1", head, scheme="http", trusted_proxies=NETWORKS)
    except BadRequest as refusal:
        assert refusal.status == 400
        return
    hops = client.forwarded_for.split(", ")
    assert hops[-1] == "10.0.0.1"
    assert hops[0] == client.address
    for hop in hops:
        assert canonical_address(hop) == hop
    for hop in hops[1:]:
        assert any(ip_address(hop) in network for network in NETWORKS)
    assert client.scheme in ("http", "https")
    assert re.fullmatch(r"[\[\]:a-z0-9_.-]+", client.host)


def token(data: bytes) -> None:
    """A token is well formed or there is a reason why not, and so are its claims.

    *data* is a whole token, or a header and a payload with a line feed between them, since no
    mutation finds its way through base64url.
    """
    header, line_feed, payload = data.partition(b"\n")
    text = data.decode("latin-1")
    if line_feed:
        text = ".".join(map(encode_base64url, (header, payload, b"sig")))
    read = read_token(text)
    if isinstance(read, Reason):
        return
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", text)
    assert read.signed.algorithm
    assert read.signed.signing_input == text.rpartition(".")[0].encode()
    refused = check_claims(read.claims, TOKEN_ISSUER, NOW)
    if refused is not None:
        return
    assert read.claims["iss"] == TOKEN_ISSUER.issuer
    assert {"exp", "iat", "sub", "aud"} <= read.claims.keys()
    who = identity_of_claims(read.claims, TOKEN_ISSUER)
    if isinstance(who, Reason):
        return
    assert NOW < who.expires_at <= NOW + LONGEST_LIFETIME + CLOCK_SKEW
    for line in identity_block(ALL_FIELDS, who, "a.b.c").removesuffix(b"\r\n").split(b"\r\n"):
        assert FIELD_LINE.fullmatch(line), line
        assert line.isascii()


PURE: dict[str, Callable[[bytes], None]] = {
    "reading": reading,
    "framing": framing,
    "target": target,
    "response": response,
    "cookies": cookies,
    "return_url": return_url,
    "forwarded": forwarded,
    "token": token,
}
"""The targets that need no socket, by name."""
