"""What goes upstream and what comes back: written anew, nothing of ours from a client."""

import base64
import json
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.cookies import AMBIGUOUS, session_cookie
from auth.decision import Allow, Deny, Reason
from auth.identity import Identity
from auth.policy import compile_rule
from config.model import (
    AccessRule,
    Assertion,
    Endpoint,
    IdentityHeaders,
    Limits,
    Match,
    Route,
    Upstream,
)
from gateway.bad_request import BadRequest
from gateway.fields import FieldRules, fold
from gateway.forwarded import Client, read_client
from gateway.forwarding import (
    encode_member,
    encode_value,
    identity_block,
    plan,
    response_fields,
    rewrite,
    sets_cookie,
)
from gateway.head import RequestHead
from gateway.precedence import compile_route
from gateway.reading import HeadReader, read_request_head
from gateway.response_reading import read_response_head
from gateway.routing import Matched
from gateway.target import Target, canonical

VECTORS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "corpora/headers.jsonl").read_text().splitlines()
]
HEADERS = IdentityHeaders(
    (("X-Auth-User", "subject"), ("X-Auth-Groups", "groups"), ("X-Auth-Email", "email")),
    Assertion(header="X-Auth-Assertion"),
)
ALICE = Identity(subject="alice", groups=("staff", "a,b"), email="alice@example.com")
COOKIE = "__Host-gw"
RULES = FieldRules(HEADERS, cookie_names=(COOKIE,))
SIGNED_IN = Allow(Reason.ALLOWED, ALICE)
ANONYMOUS = Allow(Reason.ANONYMOUS_ALLOWED)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def route(*, strip_prefix: str = "", add_prefix: str = "", slash: bool = False) -> Route:
    return Route(
        "r",
        Match("/*"),
        "u",
        AccessRule("optional"),
        strip_prefix=strip_prefix,
        add_prefix=add_prefix,
        allow_encoded_slash=slash,
    )


def matched(record: Route) -> Matched:
    upstream = Upstream("u", (Endpoint("http", "127.0.0.1", 1),))
    return Matched(compile_route(record, compile_rule(record.access), upstream), {})


ROUTE = matched(route())


def head_of(*lines: str | bytes, first: str = "GET / HTTP/1.1") -> RequestHead:
    raw = [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
    text = b"\r\n".join([first.encode(), b"Host: app.example.com", *raw, b"", b""])
    return read_request_head(text, scheme="http", limits=Limits())


def upstream_head(
    head: RequestHead,
    permit: Allow = SIGNED_IN,
    *,
    client: Client | None = None,
    rules: FieldRules = RULES,
    traceparent: str = TRACE,
) -> tuple[str, list[tuple[str, str]]]:
    """Return the request line and the fields that the upstream reads."""
    sent = plan(
        permit,
        ROUTE,
        head,
        client or read_client("192.0.2.7", head, scheme="http"),
        rules=rules,
        identity_block=identity_block(HEADERS, permit.identity, "a.b.c"),
        request_id="id-1",
        traceparent=traceparent,
    ).decode("latin-1")
    assert sent.endswith("\r\n\r\n")
    line, *fields = sent[:-4].split("\r\n")
    return line, [cast("tuple[str, str]", tuple(field.split(": ", 1))) for field in fields]


def values(fields: list[tuple[str, str]], name: str) -> list[str]:
    """Return every value that a backend may find under *name*, whatever it folds."""
    return [value for other, value in fields if fold(other) == fold(name)]


OURS = {
    "X_AUTH_USER": ["alice"],
    "X_AUTH_GROUPS": ["staff,a%2Cb"],
    "X_AUTH_EMAIL": ["alice@example.com"],
    "X_AUTH_ASSERTION": ["a.b.c"],
    "X_FORWARDED_FOR": ["192.0.2.7"],
    "X_FORWARDED_PROTO": ["http"],
    "X_FORWARDED_HOST": ["app.example.com"],
    "X_REQUEST_ID": ["id-1"],
    "HOST": ["app.example.com"],
}
IDENTITY = ("X_AUTH_USER", "X_AUTH_GROUPS", "X_AUTH_EMAIL", "X_AUTH_ASSERTION")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_client_cannot_say_what_is_ours_to_say(vector: dict[str, Any]) -> None:
    lines = [base64.b64decode(line) for line in vector["lines_b64"]]
    try:
        head = head_of(*lines)
    except BadRequest:
        assert vector["must"] == "reject" or vector["reject_ok"]
        return
    assert vector["must"] != "reject"
    anonymous = vector["route"] == "anonymous"
    _, fields = upstream_head(head, ANONYMOUS if anonymous else SIGNED_IN)
    for name, expected in OURS.items():
        assert values(fields, name) == ([] if anonymous and name in IDENTITY else expected)
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        arrived = values(fields, name)
        if vector["must"] in ("strip", "absent") and name != "Cookie":
            assert value.strip() not in arrived
        if vector["must"] == "pass" and not vector["reject_ok"] and name != "X-Request-Id":
            assert arrived == [value.strip()]
        if name == "Cookie":
            assert COOKIE.lower() not in "".join(arrived).lower()
            assert "app=1" not in value or arrived == ["app=1"]


def test_two_session_cookies_are_no_session() -> None:
    head = head_of(f"Cookie: {COOKIE}=a", f"Cookie: {COOKIE}=b")
    assert session_cookie(head.by_name["cookie"], COOKIE) is AMBIGUOUS


def test_an_upstream_head_is_written_anew() -> None:
    head = head_of(
        "Accept: */*",
        "x-custom:  caf\xe9 ",
        "Connection: keep-alive, X-Hop",
        "X-Hop: 1",
        "TE: trailers",
        f"Cookie: {COOKIE}=s; a=b",
        "Via: 1.0 other",
        "Expect: 100-continue",
        "Content-Length: 007",
        first="POST /a/../b?c HTTP/1.1",
    )
    line, fields = upstream_head(head)
    assert line == "POST /b?c HTTP/1.1"
    assert fields == [
        ("Host", "app.example.com"),
        ("Accept", "*/*"),
        ("x-custom", "caf\xe9"),
        ("Cookie", "a=b"),
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "app.example.com"),
        ("Via", "1.0 other, 1.1 doorward"),
        ("Content-Length", "7"),
        ("X-Request-Id", "id-1"),
        ("traceparent", TRACE),
        ("X-Auth-User", "alice"),
        ("X-Auth-Groups", "staff,a%2Cb"),
        ("X-Auth-Email", "alice@example.com"),
        ("X-Auth-Assertion", "a.b.c"),
    ]


def test_a_body_has_one_framing_upstream() -> None:
    chunked = head_of("transfer-encoding: Chunked", first="POST / HTTP/1.1")
    _, fields = upstream_head(chunked)
    assert values(fields, "Transfer-Encoding") == ["chunked"]
    assert not values(fields, "Content-Length")
    _, fields = upstream_head(head_of())
    assert not values(fields, "Transfer-Encoding") + values(fields, "Content-Length")


def test_a_websocket_handshake_goes_on_whole() -> None:
    handshake = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: chat",
    )
    _, fields = upstream_head(head_of(*handshake, "Content-Length: 0"))
    assert values(fields, "Connection") == ["Upgrade"]
    assert values(fields, "Upgrade") == ["websocket"]
    assert values(fields, "Sec-WebSocket-Key") == ["dGhlIHNhbXBsZSBub25jZQ=="]
    assert values(fields, "Sec-WebSocket-Protocol") == ["chat"]
    assert not values(fields, "Content-Length")


def test_another_upgrade_ends_here() -> None:
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAM")
    _, fields = upstream_head(head_of(*lines))
    for name in ("Connection", "Upgrade", "HTTP2-Settings"):
        assert not values(fields, name)


def test_max_forwards_counts_down_for_options_only() -> None:
    _, fields = upstream_head(head_of("Max-Forwards: 5", first="OPTIONS / HTTP/1.1"))
    assert values(fields, "Max-Forwards") == ["4"]
    _, fields = upstream_head(head_of("Max-Forwards: 5"))
    assert values(fields, "Max-Forwards") == ["5"]


@pytest.mark.parametrize(
    ("lines", "traceparent", "state"),
    [
        ((f"traceparent: {TRACE}", "tracestate: a=b", "tracestate: c=d"), TRACE, ["a=b,c=d"]),
        ((f"traceparent: {TRACE}", "tracestate: a=b"), TRACE.replace("4", "5"), []),
        (("tracestate: a=b",), TRACE, []),
    ],
)
def test_a_trace_state_goes_on_with_its_parent(
    lines: tuple[str, ...], traceparent: str, state: list[str]
) -> None:
    _, fields = upstream_head(head_of(*lines), traceparent=traceparent)
    assert values(fields, "traceparent") == [traceparent]
    assert values(fields, "tracestate") == state


@pytest.mark.parametrize(
    ("line", "ours", "arrives"),
    [
        ("Authorization: Bearer abc", True, False),
        ("authorization: bearer abc", True, False),
        ("Authorization: Bearer abc", False, True),
        ("Authorization: Basic YTpi", True, True),
    ],
)
def test_a_bearer_token_that_is_ours_ends_here(line: str, *, ours: bool, arrives: bool) -> None:
    rules = FieldRules(HEADERS, cookie_names=(COOKIE,), bearer_is_ours=ours)
    _, fields = upstream_head(head_of(line), rules=rules)
    assert values(fields, "Authorization") == ([line.split(": ")[1]] if arrives else [])


def test_a_request_that_loops_is_stopped() -> None:
    upstream_head(head_of("Via: " + ", ".join(["1.1 doorward"] * 7)))
    with pytest.raises(BadRequest) as refusal:
        upstream_head(head_of("Via: " + ", ".join(["1.1 doorward"] * 8)))
    assert refusal.value.status == 508


def test_only_a_permit_lets_a_request_through() -> None:
    with pytest.raises(TypeError):
        upstream_head(head_of(), cast("Allow", Deny(Reason.ROLE_MISSING, identity=ALICE)))


def test_an_identity_block_needs_an_identity() -> None:
    head = head_of()
    with pytest.raises(ValueError, match="anonymous"):
        plan(
            ANONYMOUS,
            ROUTE,
            head,
            read_client("192.0.2.7", head, scheme="http"),
            rules=RULES,
            identity_block=b"X-Auth-User: alice\r\n",
            request_id="",
            traceparent="",
        )


@pytest.mark.parametrize(
    ("record", "path", "sent"),
    [
        (route(), "/a", "/a"),
        (route(strip_prefix="/api"), "/api/a", "/a"),
        (route(strip_prefix="/api/"), "/api/a", "/a"),
        (route(strip_prefix="/api"), "/api", "/"),
        (route(strip_prefix="/api"), "/api/", "/"),
        (route(strip_prefix="/api"), "/api//a", "/a"),
        (route(strip_prefix="/api"), "/apia", None),
        (route(strip_prefix="/api"), "/a", None),
        (route(strip_prefix="/"), "/a", "/a"),
        (route(add_prefix="/v1"), "/a", "/v1/a"),
        (route(add_prefix="/v1/"), "/", "/v1/"),
        (route(strip_prefix="/api", add_prefix="/v1"), "/api/a", "/v1/a"),
        (route(strip_prefix="/api", add_prefix="/v1"), "/apia", None),
        (route(add_prefix="/../x"), "/a", None),
        (route(add_prefix="v1"), "/a", None),
        (route(slash=True), "/a%2Fb", "/a%2Fb"),
        (route(slash=True, strip_prefix="/a"), "/a%2Fb", None),
        (route(slash=True, strip_prefix="/x"), "/x/a%2Fb", "/a%2Fb"),
        (route(), "/a%2Fb", None),
        (route(), "*", None),
    ],
)
def test_a_rewritten_path_is_canonical_and_under_its_prefix(
    record: Route, path: str, sent: str | None
) -> None:
    target = Target("*") if path == "*" else canonical(path.encode(), allow_encoded_slash=True)
    if sent is None:
        with pytest.raises(BadRequest):
            rewrite(target, record)
    else:
        assert rewrite(target, record).path == sent


def test_the_endpoints_own_path_comes_first_and_the_query_stays() -> None:
    target = rewrite(canonical(b"/api/a?b=%2F"), route(strip_prefix="/api"), base_path="/base")
    assert target.text == "/base/a?b=%2F"


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("alice", "alice"),
        ("Ada Lovelace", "Ada Lovelace"),
        ("100%", "100%25"),
        ("%0d%0a", "%250d%250a"),
        ("alice\r\nX-Auth-Groups: admin", "alice%0D%0AX-Auth-Groups: admin"),
        ("J\xfcrgen", "J%C3%BCrgen"),
        ("\U0001f600", "%F0%9F%98%80"),
        (" a b ", "%20a b%20"),
        ("  ", "%20%20"),
        ("a\tb\x00\x7f", "a%09b%00%7F"),
        ("\ud800", "%ED%A0%80"),
        ("", ""),
    ],
)
def test_an_identity_value_is_encoded_by_one_rule(value: str, encoded: str) -> None:
    assert encode_value(value) == encoded


def test_a_member_cannot_become_two() -> None:
    assert encode_member("admin,staff") == "admin%2Cstaff"


@given(st.text(), st.text())
def test_identity_values_are_safe_and_tell_people_apart(one: str, other: str) -> None:
    assert re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", encode_value(one))
    assert unquote(encode_value(one), errors="strict") == one
    assert "," not in encode_member(one)
    assert (encode_member(one) == encode_member(other)) == (one == other)


def test_what_an_identity_lacks_is_not_sent() -> None:
    assert identity_block(HEADERS, Identity(subject="u"), "") == b"X-Auth-User: u\r\n"
    assert identity_block(HEADERS, None, "a.b.c") == b""


NAMES = st.sampled_from(
    [
        *("X-Auth-User", "x_auth_user", "X.Auth.Groups", "Connection", "Cookie", "X-Forwarded-For"),
        *("Forwarded", "X-Custom", "Via", "X-Request-Id", "traceparent", "Remote-User", "TE"),
    ]
)
MARK = "EVIL"
CLIENT_VALUES = st.sampled_from(
    [
        *(MARK, f"x-auth-user, {MARK}", f"{COOKIE}={MARK}", f"a=b; {COOKIE.lower()}={MARK}"),
        *("close", "x-auth-user, x-auth-groups, x-auth-assertion, x-forwarded-for, host, via"),
    ]
)


@given(st.lists(st.tuples(NAMES, CLIENT_VALUES), max_size=8), st.booleans())
def test_no_client_byte_stands_in_a_field_of_ours(
    lines: list[tuple[str, str]],
    signed_in: bool,  # noqa: FBT001 - Hypothesis passes it
) -> None:
    head = head_of(*(f"{name}: {value}" for name, value in lines))
    _, fields = upstream_head(head, SIGNED_IN if signed_in else ANONYMOUS)
    for name, expected in OURS.items():
        assert values(fields, name) == (expected if signed_in or name not in IDENTITY else [])
    assert {fold(name) for name, value in fields if MARK in value} <= {"X_CUSTOM", "COOKIE", "VIA"}
    for cookie in values(fields, "Cookie"):
        assert session_cookie((cookie,), COOKIE) is None


def client_head(text: str, method: str = "GET", **changes: Any) -> list[str]:
    head = read_response_head(
        text.encode("latin-1"), request_method=method, upgrade_requested="101" in text
    )
    options: dict[str, Any] = {"length": None, "chunked": False, "keep_alive": True, **changes}
    sent = response_fields(head, rules=RULES, **options).decode("latin-1")
    assert sent.endswith("\r\n\r\n")
    return sent[:-4].split("\r\n")


def test_a_status_line_keeps_its_space_when_there_is_no_reason() -> None:
    assert client_head("HTTP/1.1 299\r\n\r\n")[0] == "HTTP/1.1 299 "  # RFC 9112 4


def test_an_answers_head_is_written_anew() -> None:
    upstream = (
        "HTTP/1.0 200 Fine\r\nServer: x\r\nContent-Length: 05\r\nConnection: X-Hop\r\n"
        "Keep-Alive: 5\r\nX-Auth-User: alice\r\nX-Gateway-Internal: 1\r\nX-Doorward-Error: no\r\n"
        f"Set-Cookie: {COOKIE}=forged\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\nX-Obs: \xe9\r\n\r\n"
    )
    assert client_head(upstream, length=5, keep_alive=False, date="now") == [
        "HTTP/1.1 200 Fine",
        "Server: x",
        "Set-Cookie: a=b",
        "set-cookie: c=d",
        "X-Obs: \xe9",
        "Content-Length: 5",
        "Date: now",
        "Connection: close",
    ]


@pytest.mark.parametrize(
    ("text", "method", "changes", "sent"),
    [
        ("HTTP/1.1 200 OK\r\n", "GET", {"chunked": True}, ["Transfer-Encoding: chunked"]),
        ("HTTP/1.1 200 OK\r\n", "GET", {"keep_alive": False}, ["Connection: close"]),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n", "HEAD", {}, ["Content-Length: 9"]),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", "HEAD", {"chunked": True}, []),
        ("HTTP/1.1 304 Same\r\nContent-Length: 9\r\n", "GET", {"length": 0}, ["Content-Length: 9"]),
        ("HTTP/1.1 204 None\r\nContent-Length: 0\r\n", "GET", {"length": 0}, []),
        ("HTTP/1.1 204 None\r\nContent-Length: 9\r\n", "HEAD", {}, []),
        ("HTTP/1.1 204 None\r\nDate: then\r\n", "GET", {"date": "now"}, ["Date: then"]),
        ("HTTP/1.1 204 None\r\n", "GET", {"own": b"X-Own: 1\r\n"}, ["X-Own: 1"]),
        (
            "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
            "GET",
            {"keep_alive": False},
            ["Connection: Upgrade", "Upgrade: websocket"],
        ),
    ],
)
def test_an_answers_framing_is_ours(
    text: str, method: str, changes: dict[str, Any], sent: list[str]
) -> None:
    assert client_head(f"{text}\r\n", method, **changes)[1:] == sent


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        ("__Host-gw=x", True),
        (" \t__Host-gw \t= x; Path=/", True),
        ("__HOST-GW=", True),
        ("=__Host-gw=x", True),
        (" = =__Host-gw=x", True),
        ("__Host-gw", True),
        ("__Host-gw; a", True),
        ("a=__Host-gw=x", False),
        ("x__Host-gw=x", False),
        ("__Host-gwx=x", False),
        ("", False),
    ],
)
def test_an_upstream_cannot_set_a_cookie_of_ours(value: str, *, ours: bool) -> None:
    assert sets_cookie(value, (COOKIE,)) is ours


def test_lines_written_once_for_a_section_are_written_anew_for_other_rules_and_clients() -> None:
    reader = HeadReader("http")
    raw = b"GET /%d HTTP/1.1\r\nHost: app.example.com\r\nCookie: a=b\r\nX-Mine: 1\r\n\r\n"
    first, second = (reader.read(raw % number, Limits()) for number in (1, 2))
    assert first.section is second.section
    client = read_client("192.0.2.7", first, scheme="http")
    line, fields = upstream_head(first, client=client)
    assert upstream_head(second, client=client) == (line.replace(" /1 ", " /2 "), fields)
    other = FieldRules(
        IdentityHeaders(fields=(("X-Mine", "subject"),), assertion=HEADERS.assertion),
        cookie_names=("a",),
    )
    _, strict = upstream_head(second, client=client, rules=other)
    assert not values(strict, "X-Mine")
    assert not values(strict, "Cookie")
    _, again = upstream_head(second, client=read_client("192.0.2.8", second, scheme="http"))
    assert values(again, "X-Forwarded-For") == ["192.0.2.8"]
    assert upstream_head(first, client=client) == (line, fields)


def test_a_trace_state_is_never_remembered_with_the_fields() -> None:
    reader = HeadReader("http")
    raw = f"GET / HTTP/1.1\r\nHost: a\r\ntraceparent: {TRACE}\r\ntracestate: x=1\r\n\r\n".encode()
    client = read_client("192.0.2.7", reader.read(raw, Limits()), scheme="http")
    _, kept = upstream_head(reader.read(raw, Limits()), client=client)
    assert values(kept, "tracestate") == ["x=1"]
    _, begun = upstream_head(reader.read(raw, Limits()), client=client, traceparent="00-other")
    assert not values(begun, "tracestate")


def test_a_response_head_is_written_anew_for_other_rules_lengths_and_connections() -> None:
    text = b"HTTP/1.1 200 OK\r\nDate: Mon\r\nContent-Length: 3\r\nX-Mine: 1\r\n\r\n"
    head = read_response_head(text, request_method="GET")
    strict = FieldRules(
        IdentityHeaders(fields=(("X-Mine", "subject"),), assertion=HEADERS.assertion),
        cookie_names=(),
    )

    def written(*, rules: FieldRules = RULES, length: int | None = 3, keep: bool = True) -> bytes:
        return response_fields(
            head, rules=rules, length=length, chunked=length is None, keep_alive=keep
        )

    once = written()
    assert written() is once
    assert b"Connection: close" in written(keep=False)
    assert b"X-Mine" not in written(rules=strict)
    assert b"Content-Length: 4" in written(length=4)
    assert b"Transfer-Encoding: chunked" in written(length=None)
    assert response_fields(
        head, rules=RULES, length=3, chunked=False, keep_alive=True, own=b"X: y\r\n"
    ).endswith(b"X: y\r\n\r\n")
    assert written() is once


def test_no_more_forms_of_a_response_head_are_remembered_than_a_few() -> None:
    text = b"HTTP/1.1 200 OK\r\nDate: Mon\r\nContent-Length: 3\r\n\r\n"
    head = read_response_head(text, request_method="GET")
    for _ in range(20):
        rules = FieldRules(HEADERS, cookie_names=())  # as of another generation
        sent = response_fields(head, rules=rules, length=3, chunked=False, keep_alive=True)
        assert b"Content-Length: 3\r\n" in sent
        assert 0 < len(head.written) <= 8


def test_a_date_of_ours_is_never_remembered() -> None:
    head = read_response_head(b"HTTP/1.1 204 No\r\n\r\n", request_method="GET")
    for date in ("Mon", "Tue"):
        sent = response_fields(
            head, rules=RULES, length=0, chunked=False, keep_alive=True, date=date
        )
        assert f"Date: {date}".encode() in sent


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("Authorization", ("Authorization", "Bearer t.o.k")),
        ("X-Access-Token", ("X-Access-Token", "t.o.k")),
        ("X-Forwarded-Access-Token", ("X-Forwarded-Access-Token", "t.o.k")),
    ],
)
def test_the_clients_own_authorization_never_stands_in_for_the_access_token(
    field: str, line: tuple[str, str]
) -> None:
    head = head_of("Authorization: Basic mine", "X-Access-Token: mine")
    upstream_head(head)  # remembers its lines, for routes that pass the client's on
    route_with = matched(msgspec.structs.replace(route(), access_token=field))
    for token in ("t.o.k", ""):
        sent = plan(
            SIGNED_IN,
            route_with,
            head,
            read_client("192.0.2.7", head, scheme="http"),
            rules=RULES,
            identity_block=b"",
            request_id="id-1",
            traceparent=TRACE,
            access_token=token,
        ).decode()
        fields = [tuple(each.split(": ", 1)) for each in sent.split("\r\n")[1:-2]]
        named = [each for each in fields if each[0].lower() == field.lower()]
        assert named == ([line] if token else [])
    assert ("Authorization", "Basic mine") in upstream_head(head)[1]
