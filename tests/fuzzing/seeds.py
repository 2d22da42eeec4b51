"""What the fuzzers begin with: the vectors, and words that mutations put in."""

import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from tests.wire.vectors import given, own

WORDS = (
    *(
        "\r\n",
        "\r\n\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ":",
        ",",
        ";",
        "=",
        '"',
        "\\",
        "\0",
        "\x7f",
        "\xe9",
    ),
    *("GET ", "POST ", "OPTIONS ", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "\r\nHost: app.example.com"),
    *("\r\nContent-Length: 5", "\r\nTransfer-Encoding: chunked", "\r\nConnection: close"),
    *("\r\nConnection: X-Auth-User", "\r\nUpgrade: websocket\r\nConnection: upgrade", "chunked"),
    *("\r\nX-Auth-User: a", "\r\nX_Auth_User: a", "\r\nX.Auth.User: a", "\r\nVia: 1.1 doorward"),
    *("\r\nExpect: 100-continue", "\r\nCookie: doorward=a", "\r\n0\r\n\r\n", "5\r\nhello\r\n"),
    *(
        "http://app.example.com/",
        "/../",
        "/./",
        "//",
        "/..;/",
        "%2e%2e",
        "%2F",
        "%5c",
        "%00",
        "%25",
    ),
    *("%c0%ae", "%e2%82%ac", "%252e", "?", "#", "@", "[::1]", "[::ffff:10.0.0.1]", "127.0.0.1:80"),
    *("HTTP/1.1 200 OK\r\n", "HTTP/1.1 101 x\r\n", "HTTP/1.1 204 \r\n", "Set-Cookie: doorward=x"),
    *("\r\nContent-Length: 0", "doorward=", "doorward-form=", "; ", "X-Forwarded-For: 10.0.0.1, "),
    *(
        "Forwarded: for=",
        "for=",
        "proto=https",
        "host=a",
        "unknown",
        "_hidden",
        "https://",
        "javascript:",
    ),
    *("https://app.example.com", "/.doorward/login", "eyJhbGciOiJub25lIn0.", "2001:db8::1", "=="),
)
"""What a mutation puts in, beside single bytes."""


def dictionary() -> str:
    """Return `WORDS` as libFuzzer reads them."""
    escaped = ("".join(f"\\x{ord(letter):02x}" for letter in word) for word in WORDS)
    return "".join(f'"{word}"\n' for word in escaped)


def _cases(name: str) -> list[dict[str, Any]]:
    return [*given(name), *own(name)]


def _requests() -> list[bytes]:
    return [b64decode(case["raw_b64"]) for case in _cases("smuggling")]


def _chunked_bodies() -> list[bytes]:
    return [raw.partition(b"\r\n\r\n")[2] for raw in _requests()]


def _conversations() -> list[bytes]:
    # The first byte says how to cut it: whole, and at line ends.
    return [cut + raw for raw in _requests() for cut in (b"\0", b"\2")]


def _responses() -> list[bytes]:
    cases = _cases("responses")
    after = [b64decode(case["after_b64"]) for case in cases if "after_b64" in case]
    return [*(b64decode(case["raw_b64"]) for case in cases), *after]


def _paths() -> list[bytes]:
    theirs = [b64decode(case["raw_path_b64"]) for case in given("path_bypass")]
    return [*theirs, *(b64decode(case["raw_b64"]) for case in own("path_bypass"))]


def _return_urls() -> list[bytes]:
    return [case["value"].encode("utf-8", "replace") for case in _cases("redirects")]


def _fields() -> list[bytes]:
    theirs = [b"\n".join(map(b64decode, case["lines_b64"])) for case in given("headers")]
    ours = ["\n".join(case["lines"]).encode("latin-1") for case in own("headers")]
    return [
        *theirs,
        *ours,
        b'Forwarded: for="[2001:db8::17]:4711";proto=https;host=b, for=10.0.0.2;by=_x',
        b"X-Forwarded-For: 203.0.113.9, 10.0.0.2\nX-Forwarded-Proto: https",
    ]


def _cookies() -> list[bytes]:
    cookies = re.compile(rb"^cookie:[ \t]*", re.IGNORECASE | re.MULTILINE)
    return [
        *(cookies.sub(b"", lines) for lines in _fields()),
        b"a=b; doorward=v; doorward-form=f; c=d\ndoorward=w",
    ]


_GOOD = (
    '{"iss":"https://idp.example.com","aud":"gw","sub":"alice","iat":1799999990,"exp":1800000300'
)


def _tokens() -> list[bytes]:
    """Return a whole token, and headers with payloads (`tests.fuzzing.targets.token`)."""
    headers = (
        '{"alg":"RS256","kid":"k1","typ":"JWT"}',
        '{"alg":"ES256","typ":"application/at+jwt","cty":"json"}',
        '{"alg":"none"}',
        '{"alg":"RS256","crit":["exp"],"b64":false}',
        '{"alg":"RS256","alg":"none"}',
        '{"alg":"RS256","kid":"../../dev/null","jku":"https://evil.example","jwk":{},"x5c":[]}',
    )
    claims = (
        '"roles":["editor","a,b"],"scope":"read write","name":"Ada \\u00e9","tenant":"acme"',
        '"groups":"admin","scp":["read"],"email":"a@example.com","email_verified":true,"nbf":1',
        '"aud":["gw","other"],"sub":"a\\r\\nb"',
        '"nonce":"n","events":{},"cnf":{"jkt":"x"}',
        '"exp":1e300,"iat":true,"name":"\\ud800"',
    )
    payloads = (f"{_GOOD}}}", *(f"{_GOOD},{more}}}" for more in claims))
    return [
        b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJhIn0.c2ln",
        *(f"{header}\n{payload}".encode() for header in headers for payload in payloads),
    ]


_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "reading": _requests,
    "framing": _chunked_bodies,
    "conversation": _conversations,
    "response": _responses,
    "target": _paths,
    "return_url": _return_urls,
    "forwarded": _fields,
    "cookies": _cookies,
    "token": _tokens,
}


def seeds(target: str) -> list[bytes]:
    """Return the vectors that are inputs of *target*."""
    return _SEEDS[target]()
