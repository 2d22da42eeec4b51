"""What was matched is what arrives: the corpus of paths against a running gateway."""

import base64
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import pytest
import pytest_asyncio

from tests.gateway.io.harness import Message, upstream
from tests.wire.outside import Outside, outside
from tests.wire.strict_upstream import StrictUpstream
from tests.wire.vectors import given, own

pytestmark = [pytest.mark.wire, pytest.mark.asyncio(loop_scope="module")]

PATHS = given("path_bypass") + own("path_bypass")
RETURNS = given("redirects") + own("redirects")
ROUTES = """\
  - {id: public, match: {path: /public/*}, upstream: app, access: public}
  - {id: admin, match: {path: /admin/*}, upstream: app, access: {roles: [admin]}}
  - {id: stripped, match: {path: /api/v1/*}, upstream: app, access: public,
     rewrite: {strip_prefix: /api/v1}}
  - {id: slashes, match: {path: /raw/*}, upstream: app, access: public, allow_encoded_slash: true}
"""
PASSWORD = "correct horse battery staple"


class Bench(NamedTuple):
    outside: Outside
    upstream: StrictUpstream
    admin: str
    directory: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    strict = StrictUpstream()
    directory = tmp_path_factory.mktemp("gateway")
    server = "public_url: https://app.example.com"
    async with (
        upstream(strict) as backend,
        outside(directory, backend, ROUTES, server=server) as running,
    ):
        admin = await running.sign_in("admin-of-it-all", roles=["admin"])
        yield Bench(running, strict, admin, directory)


async def ask(bench: Bench, target: bytes, cookie: str = "") -> tuple[Message, list[bytes]]:
    """Ask for *target*; return the answer and the targets that arrived."""
    bench.upstream.complete.clear()
    shown = b"Cookie: __Host-doorward=%b\r\n" % cookie.encode() if cookie else b""
    raw = b"GET %b HTTP/1.1\r\nHost: app.example.com\r\n%bConnection: close\r\n\r\n"
    answer = await bench.outside.ask(raw % (target, shown))
    assert bench.upstream.faults == []
    return answer, [request.target for request in bench.upstream.complete]


@pytest.mark.parametrize("case", PATHS, ids=lambda case: case["name"])
async def test_a_path_is_what_it_is_taken_for_or_refused(
    bench: Bench, case: dict[str, Any]
) -> None:
    raw = base64.b64decode(case.get("raw_path_b64") or case.get("raw_b64", ""))
    meant = case["treat_as"]
    stranger, arrived = await ask(bench, raw)
    signed_in, arrived_signed_in = await ask(bench, raw, bench.admin)
    if meant == "REJECT":
        assert (stranger.status, signed_in.status) == (400, 400)
        assert arrived == arrived_signed_in == []
        return
    if stranger.status == 400:
        assert case["reject_ok"]
        assert arrived == []
        return
    query = raw.partition(b"?")[2]
    expected = meant.encode() + (b"?" + query if query or raw.endswith(b"?") else b"")
    if meant == "/admin" or meant.startswith("/admin/"):
        assert stranger.status == 401  # the route of what arrives decided, and no other one
        assert arrived == []
        assert arrived_signed_in == [expected]
    elif meant == "/public" or meant.startswith("/public/"):
        assert arrived == arrived_signed_in == [expected]
    elif meant == "/api/v1" or meant.startswith("/api/v1/"):
        assert arrived == [expected.removeprefix(b"/api/v1") or b"/"]
    else:
        assert stranger.status == 404
        assert arrived == arrived_signed_in == []


PREFIXES = ["/public", "/public/a", "/public/a/b", "/raw"]
STEPS = [
    *(
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        ".",
        "%2e",
        "",
        "...",
        "..;",
        "..%2f",
        "..%5c",
        "..\\",
        "..%00",
    ),
    *(
        "..%252f",
        "%252e%252e",
        "..%c0%af",
        "%c0%ae%c0%ae",
        "..%ef%bc%8f",
        "..#",
        "..?",
        "..%3b",
        "..;a=b",
    ),
    *(
        "..%0a",
        "..%0d",
        "..%09",
        "..%20",
        ".. ",
        "..%23",
        "..%3f",
        "..%25",
        ".%00.",
        ".;.",
        "..//",
        "./..",
    ),
]


async def test_the_readings_are_as_wide_as_those_of_lenient_backends() -> None:
    for target in ("..%2fadmin", "..;/admin", "..%5cadmin", "%252e%252e/admin", "..//admin"):
        assert "/admin/x" in readings(f"/public/{target}/x")


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_no_step_leads_from_an_open_route_to_a_closed_one(bench: Bench, prefix: str) -> None:
    """Whatever a backend may make of what arrives, it is not below `/admin`."""
    for step in STEPS:
        for joint in ("/", "//", "/./", "/%2e/", ";/", "%2f"):
            for times in (1, 2, 3):
                target = prefix + (joint + step) * times + "/admin/x"
                answer, arrived = await ask(bench, target.encode())
                assert answer.status in (200, 400, 401, 404), target
                for seen in arrived:
                    for reading in readings(seen.decode("latin-1").partition("?")[0]):
                        assert not reading.startswith("/admin"), (target, seen)


def readings(path: str) -> set[str]:
    """Return what lenient backends might make of *path*: decoded, without parameters, resolved."""
    found = {path}
    for _ in range(2):
        found |= {unquote(each) for each in found}
    found |= {re.sub(r";[^/]*", "", each) for each in found}
    found |= {each.replace("\\", "/") for each in found}
    return {resolve(each) for each in found} | {re.sub("/+", "/", each) for each in found}


def resolve(path: str) -> str:
    kept: list[str] = []
    for segment in re.sub("/+", "/", path).split("/")[1:]:
        if segment == "..":
            kept[-1:] = []
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


async def test_an_encoded_slash_goes_only_where_a_route_wants_it(bench: Bench) -> None:
    answer, arrived = await ask(bench, b"/raw/a%2fb/c")
    assert (answer.status, arrived) == (200, [b"/raw/a%2Fb/c"])
    for target in (b"/public/a%2fb", b"/raw/..%2fadmin/x", b"/raw/%2f/x", b"/raw%2f..%2fadmin"):
        answer, arrived = await ask(bench, target)
        assert arrived == []
        assert answer.status in (400, 404)


# Return URLs ------------------------------------------------------------------------------------


async def test_what_a_challenge_returns_to_is_the_page_that_was_asked_for(bench: Bench) -> None:
    raw = (
        b"GET /admin/x?a=%2F%2Fevil&b=c HTTP/1.1\r\nHost: app.example.com\r\n"
        b"Sec-Fetch-Mode: navigate\r\n\r\n"
    )
    answer = await bench.outside.ask(raw)
    assert answer.status == 302
    location = urlsplit(answer.fields["location"])
    assert location.path == "/.doorward/login"
    back = unquote(location.query.partition("return_to=")[2])
    assert back == "https://app.example.com/admin/x?a=%2F%2Fevil&b=c"
    assert answer.fields["cache-control"] == "no-store"


@pytest.mark.parametrize("case", RETURNS, ids=lambda case: ascii(case["value"])[:60])
async def test_a_page_of_ours_keeps_a_return_url_or_forgets_it(
    bench: Bench, case: dict[str, Any]
) -> None:
    """The sign-in form carries `return_to` on, as it will be honoured, and nothing else."""
    value = quote(case["value"].encode("utf-8", "surrogatepass"), safe="")
    raw = (
        f"GET /.doorward/login?return_to={value} HTTP/1.1\r\nHost: app.example.com\r\n"
        "Accept: text/html\r\n\r\n"
    )
    answer = await bench.outside.ask(raw.encode())
    assert answer.status in (200, 400, 414)
    if answer.status != 200:
        assert case["must"] == "reject"
        return
    page = answer.content.decode()
    # The form of a passkey carries it as well as that of a password; they must say the same.
    (kept,) = set(re.findall(r'name="return_to" value="([^"]*)"', page)) or {""}
    if case["must"] == "reject":
        assert kept in ("", "/")
    elif not case["strict_reject_ok"]:
        assert kept.replace("&amp;", "&") == case["value"]
    assert "no-store" in answer.fields["cache-control"]
    assert "frame-ancestors 'none'" in answer.fields["content-security-policy"]
