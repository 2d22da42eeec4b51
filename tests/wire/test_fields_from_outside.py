"""The corpus of fields against a running gateway, and every spelling of a name that is ours."""

import itertools
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
import pytest_asyncio

from tests.gateway.io.harness import Message, upstream
from tests.wire.outside import Outside, outside
from tests.wire.strict_upstream import StrictUpstream
from tests.wire.vectors import given, own

pytestmark = [pytest.mark.wire, pytest.mark.asyncio(loop_scope="module")]

GIVEN, OWN = given("headers"), own("headers")
SUBJECT = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
HOSTILE = "alice\r\nX-Auth-Groups: admin\n\tx"
ROUTES = """\
  - {id: open, match: {path: /open}, upstream: app, access: optional}
  - {id: all, match: {path: /*}, upstream: app, access: signed-in}
"""
OURS = {
    "host", "via", "traceparent", "x-request-id", "x-forwarded-for", "x-forwarded-proto",
    "x-forwarded-host", "x-auth-user", "x-auth-groups", "x-auth-email", "x-auth-assertion",
}  # fmt: skip
SEPARATORS = "!#$%&'*+.^_`|~"


class Bench(NamedTuple):
    outside: Outside
    upstream: StrictUpstream
    cookie: str
    hostile_cookie: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    strict = StrictUpstream()
    directory = tmp_path_factory.mktemp("gateway")
    server, more = "public_url: https://app.example.com", "session: {cookie: {name: gw}}"
    async with (
        upstream(strict) as backend,
        outside(directory, backend, ROUTES, server=server, more=more) as running,
    ):
        good = await running.sign_in(SUBJECT, groups=["staff"], email="a@example.com")
        hostile = await running.sign_in(HOSTILE, groups=["a,admin", "b\r\nX-Auth-User: root"])
        yield Bench(running, strict, good, hostile)


async def ask(
    bench: Bench, lines: list[bytes], *, path: bytes = b"/x", cookie: str | None = None
) -> tuple[Message, list[tuple[str, str]]]:
    """Send *lines*; return the answer and the fields that the upstream got, by lower-case name."""
    bench.upstream.complete.clear()
    value = bench.cookie if cookie is None else cookie
    ours = b"Cookie: __Host-gw=%b\r\n" % value.encode() if value else b""
    fields = b"".join(line + b"\r\n" for line in lines)
    raw = b"GET %b HTTP/1.1\r\nHost: app.example.com\r\n%b%b\r\n" % (path, ours, fields)
    answer = await bench.outside.ask(raw)
    assert bench.upstream.faults == []
    seen = bench.upstream.complete
    assert len(seen) == (answer.status == 200)
    fields_seen = seen[0].fields if seen else ()
    return answer, [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in fields_seen]


def check_ours(fields: list[tuple[str, str]]) -> None:
    """The identity and forwarding fields are the gateway's, and each is there once."""
    values = dict(fields)
    names = [name for name, _ in fields]
    assert set(names) >= OURS
    assert all(names.count(name) == 1 for name in OURS)
    assert values["x-auth-user"] == SUBJECT
    assert values["x-auth-groups"] == "staff"
    assert values["x-forwarded-for"] == "127.0.0.1"
    assert values["x-forwarded-proto"] == "http"
    assert values["host"] == values["x-forwarded-host"] == "app.example.com"


@pytest.mark.parametrize("case", GIVEN + OWN, ids=lambda case: case["name"])
async def test_a_field_arrives_or_does_not_as_the_vector_says(
    bench: Bench, case: dict[str, Any]
) -> None:
    lines = [line.encode("latin-1") for line in case["lines"]]
    must = case["must"]
    if must == "absent":
        answer, fields = await ask(bench, lines, path=b"/open", cookie="")
        assert answer.status == 200
        assert not {"x-auth-user", "remote-user", "x-auth-groups"} & {name for name, _ in fields}
        return
    if "hostile" in case["route"]:
        _, fields = await ask(bench, lines, cookie=bench.hostile_cookie)
        values = dict(fields)
        assert unquote(values["x-auth-user"]) == HOSTILE
        assert [unquote(each) for each in values["x-auth-groups"].split(",")] == [
            "a,admin",
            "b\r\nX-Auth-User: root",
        ]
        return
    has_cookie = any(line.lower().startswith(b"cookie: __host-gw=secret") for line in lines)
    lines = [line.replace(b"SECRET", bench.cookie.encode()) for line in lines]
    answer, fields = await ask(bench, lines, cookie="" if has_cookie else None)
    if must == "reject":
        assert answer.status in (400, 401, 431)
        return
    if answer.status != 200:
        assert case["reject_ok"] or (must == "not-used" and answer.status == 401)
        return
    check_ours(fields)
    sent = {
        (line.partition(b":")[0].strip().lower(), line.partition(b":")[2].strip()) for line in lines
    }
    # What stands in our own fields has been checked already, be it what the client wrote as well.
    arrived = {(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields if n not in OURS}
    folded = {"".join(c if c.isalnum() else "_" for c in n.decode("latin-1")) for n, _ in sent}
    if must == "strip":
        gone = {name.replace("-", "_") for name, _ in fields} & folded
        assert gone <= {name.replace("-", "_") for name in OURS} | {"cookie"}
        assert not (sent & arrived)
        assert not any(lines[0].partition(b":")[2].strip() == v for _, v in arrived if v)
    elif must == "pass" and not case["reject_ok"] and case["name"] != "control-request-id":
        names = {name for name, _ in sent} - {b"x-request-id"}
        assert names <= {name.encode("latin-1") for name, _ in fields}


@pytest.mark.parametrize(
    "name", ["X-Auth-User", "X-Auth-Groups", "X-Forwarded-For", "X-Auth-Assertion"]
)
async def test_no_spelling_of_a_name_that_is_ours_arrives(bench: Bench, name: str) -> None:
    parts = name.split("-")
    spellings = [
        parts[0] + one + parts[1] + two + parts[2]
        for one, two in itertools.product(SEPARATORS + "-", repeat=2)
    ]
    spellings += [
        case(spelling) for spelling in spellings for case in (str.upper, str.lower, str.swapcase)
    ]
    for spelling in spellings:
        answer, fields = await ask(bench, [f"{spelling}: evil".encode()])
        assert answer.status == 200
        check_ours(fields)
        assert "evil" not in [value for _, value in fields], spelling


async def test_no_connection_option_takes_one_of_ours_away(bench: Bench) -> None:
    for name, shape in itertools.product(
        sorted(OURS), ("{}", "close, {}", "{},{}", ", {} ,", "keep-alive\r\nConnection: {}", "\t{}")
    ):
        for spelled in (name, name.title(), name.upper()):
            answer, fields = await ask(
                bench, [f"Connection: {shape.format(spelled, spelled)}".encode()]
            )
            assert answer.status == 200
            check_ours(fields)
            assert "connection" not in dict(fields)


async def test_what_connection_names_and_nobody_needs_ends_here(bench: Bench) -> None:
    _, fields = await ask(bench, [b"X-Foo: 1", b"X-Bar: 2", b"Connection: x-foo"])
    assert "x-foo" not in dict(fields)
    assert dict(fields)["x-bar"] == "2"


FORWARDINGS = [
    *(
        "X-Forwarded-For: ::ffff:10.0.0.1",
        "X-Forwarded-For: [::1]:80",
        "X-Forwarded-For: 127.0.0.1:1",
    ),
    *(
        "X-Forwarded-For: unknown",
        "X-Forwarded-For: a, , b",
        "X-Forwarded-For:",
        "X-Forwarded-For: ,",
    ),
    *(
        'Forwarded: for="[::1]:80"',
        "Forwarded: for=_hidden",
        "Forwarded: for=a;for=b",
        "Forwarded:",
    ),
    *(
        "Forwarded: garbage",
        'Forwarded: for="',
        "Forwarded: ;;;",
        "Forwarded: proto=https;host=evil",
    ),
    *(
        "X-Forwarded-Proto: https",
        "X-Forwarded-Proto: javascript",
        "X-Forwarded-Host: evil.example",
    ),
    *("X-Forwarded-Prefix: /admin", "X-Forwarded-Method: DELETE", "X-Original-URL: /admin"),
    *("X-Original-Method: DELETE", "X-Real-Ip: 10.0.0.1", "X-HTTP-Method-Override: DELETE"),
    *(
        "X-Forwarded-User: root",
        "X-Accel-Redirect: /x",
        "Client-Ip: 10.0.0.1",
        "X-Request-Id: mine",
    ),
]


async def test_nobody_believes_a_stranger_about_where_it_comes_from(bench: Bench) -> None:
    for line in FORWARDINGS:
        name, _, value = line.partition(":")
        answer, fields = await ask(bench, [line.encode(), line.lower().encode()])
        assert answer.status == 200, line
        check_ours(fields)
        if name != "X-Accel-Redirect" and value.strip():
            assert value.strip() not in [v for _, v in fields], line


async def test_no_cookie_of_ours_arrives_and_two_count_as_none(bench: Bench) -> None:
    good = f"__Host-gw={bench.cookie}"
    for line, status in (
        (f"Cookie: a=1; {good}; b=2", 200),
        (f"Cookie: {good}", 200),
        (f"cookie:{good};__Secure-gw-form=1", 200),
        (f"Cookie: a=1\r\nCookie: {good}\r\nCookie: b=2", 200),
        (f"Cookie: {good}; {good}", 401),
        (f"Cookie: {good}\r\nCookie: __Host-gw=x", 401),
        (f"Cookie: __Host-gw=x; {good}", 401),
        (f"Cookie: __HOST-GW={bench.cookie}", 401),
        (f"Cookie: __Host-gw ={bench.cookie}", 200),
        (f'Cookie: __Host-gw="{bench.cookie}"', 401),
        (f"Cookie: {good}x", 401),
        (f"Cookie: gw={bench.cookie}", 401),
        (f"Cookie: __Host-gw={bench.cookie}\xe9", 401),
        (f"Cookie: $Version=1; {good}", 200),
    ):
        answer, fields = await ask(bench, [line.encode("latin-1")], cookie="")
        assert answer.status == status, line
        assert not [v for n, v in fields if n == "cookie" and ("gw=" in v or bench.cookie in v)]
