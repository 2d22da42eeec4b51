"""Project Wycheproof's JOSE vectors, held against every gate of a token but that of its claims.

Their payloads are no claims, so the whole verifier would refuse all of them; what is asked here is
what it asks before: the compact form, the header, the issuer's keys and the signature.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from auth.decision import Reason
from auth.io.token_verifier import is_signed
from auth.keys import KeySetError, encode_base64url, read_key_set
from auth.tokens import read_compact
from tests.auth.io.test_token_verifier import jwk, sign

Json = dict[str, Any]
FILE = Path(__file__).parents[2] / "corpora" / "wycheproof" / "jose.jsonl"
CASES: list[Json] = [json.loads(line) for line in FILE.read_text().splitlines()]
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


def name(case: Json) -> str:
    kind = case["file"].removeprefix("json_web_").removesuffix("_test.json")
    return f"{kind}-{case['tcId']}-{case['comment']}"


# Valid to Wycheproof, refused here; docs/edge.md says why.
SYMMETRIC = {
    name(case) for case in CASES if case["result"] == "valid" and case["keys"][0]["kty"] == "oct"
}
ANOTHER_ALGORITHM = {
    *("signature-346-Figure20", "signature-350-Figure20"),  # of a key that is for PS256, by PS384
    *("signature-347-Figure27", "signature-351-Figure27"),  # of a key for ES521, which is none
}
STRICTER = SYMMETRIC | ANOTHER_ALGORITHM


def is_good(jws: str, keys: list[Json]) -> bool:
    """Take *jws* through the gates of `JwtVerifier`, in their order."""
    read = read_compact(jws)
    if isinstance(read, Reason):
        return False
    try:
        key = read_key_set(json.dumps({"keys": keys}).encode()).find(read.kid, read.algorithm)
    except KeySetError:
        return False
    return key is not None and is_signed(read, key)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_a_vector_of_wycheproof_is_judged_as_there_or_more_strictly(case: Json) -> None:
    assert is_good(case["jws"], case["keys"]) == (
        case["result"] == "valid" and name(case) not in STRICTER
    )


def test_no_other_vector_is_judged_more_strictly() -> None:
    valid = {name(case) for case in CASES if case["result"] == "valid"}
    assert valid > STRICTER
    assert len(CASES) == 121
    assert len(valid - STRICTER) == 6


@pytest.mark.parametrize("case", [c for c in CASES if name(c) in ANOTHER_ALGORITHM], ids=name)
def test_only_the_algorithm_of_the_key_stood_against_the_figures_of_rfc_7520(case: Json) -> None:
    keys = [{field: key[field] for field in key if field != "alg"} for key in case["keys"]]
    assert is_good(case["jws"], keys)


def signed_as_it_is(header: str, payload: str) -> str:
    """A token signed over just these characters, whatever they are."""
    text = f"{header}.{payload}"
    return f"{text}.{encode_base64url(sign(text.encode(), P256, 'ES256'))}"


HEADER = encode_base64url(b'{"alg":"ES256","kid":"k"}')


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        *((f"{HEADER}    ", "VGVzdA"), (f"{HEADER}####", "VGVzdA"), (f"{HEADER}==", "VGVzdA")),
        *((HEADER, "    VGVzdA"), (HEADER, "####VGVzdA"), (HEADER, "?VGVzdA"), (HEADER, "VGVzdA?")),
        *((HEADER, "VGVzdA=="), (HEADER, "AB"), (f"{HEADER[:-1]}?{HEADER[-1]}", "VGVzdA")),
        *((HEADER, "VGVz\ndA"), (HEADER, "VGVz+A"), (HEADER, "VGVz/A"), (HEADER, "")),
    ],
)
def test_a_good_signature_over_malformed_base64url_is_none(header: str, payload: str) -> None:
    keys = [jwk(P256, "k", alg="ES256")]
    assert is_good(signed_as_it_is(HEADER, "VGVzdA"), keys)
    assert not is_good(signed_as_it_is(header, payload), keys)


@pytest.mark.parametrize("change", ["{}==", "{}=", " {}", "{} ", "?{}", "{}?", "{}\n", "{}A"])
def test_a_signature_in_malformed_base64url_is_none(change: str) -> None:
    text, _, signature = signed_as_it_is(HEADER, "VGVzdA").rpartition(".")
    assert not is_good(f"{text}.{change.format(signature)}", [jwk(P256, "k")])


@pytest.mark.parametrize("of_the_key", RSA_ALGORITHMS)
def test_a_key_takes_signatures_of_its_own_algorithm_alone(of_the_key: str) -> None:
    keys = [jwk(RSA, "k", alg=of_the_key)]
    for named in RSA_ALGORITHMS:
        text = f"{encode_base64url(json.dumps({'alg': named, 'kid': 'k'}).encode())}.MTIzNDAw"
        for used in RSA_ALGORITHMS:
            jws = f"{text}.{encode_base64url(sign(text.encode(), RSA, used))}"
            assert is_good(jws, keys) == (of_the_key == named == used), (named, used)


def der(tag: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes((tag, len(content))) + content


def altered(tag: int, content: bytes) -> Iterator[bytes]:
    """What Wycheproof makes of one element: other lengths, tags and contents."""
    length = len(content)
    good = der(tag, content)
    for long in (b"\x81", b"\x82\0", b"\x83\0\0", b"\x84\0\0\0", b"\x88" + b"\0" * 7):
        yield bytes((tag,)) + long + bytes((length,)) + content
    for wrong in (0, length - 1, length + 1, 0x7F, 0x80, 0xFF):
        yield bytes((tag, wrong % 256)) + content
    yield bytes((tag,)) + b"\x80" + content + b"\0\0"  # of indefinite length
    yield bytes((tag,)) + b"\x84\xff\xff\xff\xff" + content
    for more in (b"\0\0", b"\x05\0", b"\0", b"\x49\x81\x77"):
        yield der(tag, content + more)
        yield der(tag, more + content)
        yield good + more
    for other in (0, 0x01, 0x24, 0x31, 0xFF, tag ^ 0x20, tag ^ 0x40, tag ^ 0x80):
        if other != tag:
            yield der(other, content)
    yield der(tag, content[:-1])
    yield der(tag, content[1:])
    yield der(tag, b"")
    yield b""
    yield b"\x05\0\0"
    for at in (0, length // 2, length - 1):
        if length:
            yield der(tag, content[:at] + bytes((content[at] ^ 1,)) + content[at + 1 :])


SHA_256 = bytes.fromhex("608648016503040201")


def digest_infos(digest: bytes) -> Iterator[bytes]:
    """Every DigestInfo (RFC 8017 9.2) in which one element is altered."""
    oid, null, octets = der(6, SHA_256), der(5, b""), der(4, digest)
    algorithm = der(0x30, oid + null)
    yield from altered(0x30, algorithm + octets)
    for each in altered(0x30, oid + null):
        yield der(0x30, each + octets)
    for each in altered(6, SHA_256):
        yield der(0x30, der(0x30, each + null) + octets)
    for each in altered(5, b""):
        if each != null:
            yield der(0x30, der(0x30, oid + each) + octets)
    for each in altered(4, digest):
        yield der(0x30, algorithm + each)


def paddings(info: bytes, size: int) -> Iterator[bytes]:
    """Every encoded message of *size* bytes in which *info* is right and the padding is not."""
    fill = size - len(info) - 3
    yield b"\0\2" + b"\xff" * fill + b"\0" + info
    yield b"\1\1" + b"\xff" * fill + b"\0" + info
    yield b"\0\0" + b"\xff" * fill + b"\0" + info
    yield b"\0\1" + b"\0" * fill + b"\0" + info
    yield b"\0\1" + b"\xff" * (fill - 1) + b"\xfe\0" + info
    yield b"\0\1" + b"\xfe" + b"\xff" * (fill - 1) + b"\0" + info
    yield b"\0\1" + b"\xff" * fill + b"\1" + info
    yield b"\0\1" + b"\xff" * (fill - 1) + b"\0\0" + info
    yield b"\0\1" + b"\xff" * 8 + b"\0" + info + b"\0" * (fill - 8)  # Bleichenbacher 2006
    yield b"\0\1" + b"\xff" * 8 + b"\0" + info + b"\xff" * (fill - 8)
    yield b"\0\1\0" + info + b"\xff" * fill
    yield b"\0" * (size - len(info)) + info


def test_a_signature_with_modified_padding_is_none() -> None:
    numbers = RSA.private_numbers()
    size = 256
    text = encode_base64url(b'{"alg":"RS256","kid":"k"}') + ".Zm9v"
    keys = [jwk(RSA, "k", alg="RS256")]
    digest = hashlib.sha256(text.encode()).digest()
    good = der(0x30, der(0x30, der(6, SHA_256) + der(5, b"")) + der(4, digest))

    def is_taken(message: bytes) -> bool:
        number = int.from_bytes(message, "big")
        first = pow(number, numbers.dmp1, numbers.p)
        second = pow(number, numbers.dmq1, numbers.q)
        raised = second + (first - second) * numbers.iqmp % numbers.p * numbers.q
        return is_good(f"{text}.{encode_base64url(raised.to_bytes(size, 'big'))}", keys)

    def encoded(info: bytes) -> bytes:
        return b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info

    assert is_taken(encoded(good))
    infos = set(digest_infos(digest)) - {good}
    assert len(infos) > 150
    assert not [info.hex() for info in sorted(infos) if is_taken(encoded(info))]
    assert not [message.hex() for message in paddings(good, size) if is_taken(message)]


@pytest.mark.parametrize("parts", [4, 5, 6])
def test_an_encrypted_token_is_none(parts: int) -> None:
    header = encode_base64url(b'{"alg":"RSA-OAEP","enc":"A256GCM"}')
    jwe = ".".join([header, *["AAAA"] * (parts - 1)])
    assert read_compact(jwe) is Reason.TOKEN_MALFORMED


def test_the_vectors_by_hmac_are_refused_for_nothing_but_their_algorithm() -> None:
    checked = 0
    for case in CASES:
        if name(case) in SYMMETRIC and "?" not in case["jws"]:
            text, _, mac = case["jws"].rpartition(".")
            secret = base64.urlsafe_b64decode(case["keys"][0]["k"] + "==")
            assert encode_base64url(hmac.digest(secret, text.encode(), "sha256")) == mac
            checked += 1
    assert checked == len(SYMMETRIC) - 2
