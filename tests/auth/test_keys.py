import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from auth.keys import (
    KeyRing,
    KeySetError,
    SigningKey,
    encode_base64url,
    from_pem,
    key_set_document,
    public_jwk,
    read_key_set,
    signing_key,
    thumbprint,
    to_pem,
)

P256 = ec.generate_private_key(ec.SECP256R1())
RSA_2048 = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def number(value: int) -> str:
    return encode_base64url(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def ec_jwk(**members: Any) -> dict[str, Any]:
    return {**public_jwk(P256), "kid": "e", **members}


def rsa_jwk(**members: Any) -> dict[str, Any]:
    numbers = RSA_2048.public_key().public_numbers()
    entry = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e), "kid": "r"}
    return {**entry, **members}


def ed_jwk() -> dict[str, Any]:
    raw = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    )
    return {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(raw), "kid": "o"}


def document(*entries: Any) -> bytes:
    return json.dumps({"keys": entries}).encode()


@pytest.mark.parametrize(
    ("entry", "algorithms"),
    [
        (ec_jwk(), {"ES256"}),
        (rsa_jwk(), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (rsa_jwk(alg="PS256"), {"PS256"}),
        (rsa_jwk(use="sig", key_ops=["verify"]), {"RS256", "RS384", "PS256"}),
        (ec_jwk(x5c=["MIIB"], x5u="https://evil.example"), {"ES256"}),
        (ed_jwk(), {"EdDSA"}),
    ],
)
def test_a_key_serves_the_algorithms_of_its_kind_and_no_others(
    entry: dict[str, Any], algorithms: set[str]
) -> None:
    keys = read_key_set(document(entry))
    every = {"RS256", "RS384", "PS256", "ES256", "ES384", "ES512", "EdDSA", "HS256", "none", "RS"}
    served = {name for name in every if keys.find(entry["kid"], name) is not None}
    assert served == algorithms & every


@pytest.mark.parametrize(
    "entry",
    [
        ec_jwk(use="enc"),
        ec_jwk(use=["sig"]),
        ec_jwk(key_ops=["encrypt"]),
        ec_jwk(key_ops="verify"),
        ec_jwk(alg="HS256"),
        ec_jwk(alg="none"),
        ec_jwk(alg=["ES256"]),
        ec_jwk(kid=1),
        ec_jwk(d=number(P256.private_numbers().private_value)),
        ec_jwk(crv="P-384"),
        ec_jwk(crv="secp256k1"),
        ec_jwk(x="AAAA"),
        ec_jwk(y=public_jwk(P256)["x"]),
        ec_jwk(kty="oct", k="AAAA"),
        ec_jwk(kty="ec"),
        ec_jwk(kty=["EC"]),
        rsa_jwk(e="AQ"),
        rsa_jwk(e="Aw"),
        rsa_jwk(e="AQAC"),
        rsa_jwk(n=number(RSA_2048.public_key().public_numbers().n - 1)),
        rsa_jwk(n=number((1 << 1023) + 1)),
        rsa_jwk(n=number((1 << 16383) + 1)),
        rsa_jwk(n=7),
        {"kty": "RSA"},
        {"kty": "OKP", "crv": "X25519", "x": encode_base64url(bytes(32))},
        {"kty": "OKP", "crv": "Ed25519", "x": encode_base64url(bytes(31))},
        "a key",
        None,
        [],
    ],
)
def test_an_entry_that_may_not_verify_is_left_out_and_the_others_stay(entry: object) -> None:
    good = {**public_jwk(ec.generate_private_key(ec.SECP256R1())), "kid": "good"}
    keys = read_key_set(document(entry, good))
    assert [key.kid for key in keys.keys] == ["good"]
    assert keys.skipped == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b'{"keys":{}}',
        document(),
        document(ec_jwk(use="enc")),
        document(*[ec_jwk(kid=str(index)) for index in range(201)]),
        b'{"keys":[],"keys":[]}',
    ],
)
def test_a_document_without_a_usable_key_is_an_error(raw: bytes) -> None:
    with pytest.raises(KeySetError):
        read_key_set(raw)


def test_two_keys_of_one_name_are_told_apart_by_algorithm_or_not_used() -> None:
    other = {**public_jwk(ec.generate_private_key(ec.SECP256R1())), "kid": "e"}
    assert read_key_set(document(ec_jwk(), rsa_jwk(kid="e"))).find("e", "ES256") is not None
    assert read_key_set(document(ec_jwk(), other)).find("e", "ES256") is None
    assert read_key_set(document(ec_jwk(), ec_jwk())).find("e", "ES256") is not None, "the same"


def test_a_token_without_key_name_is_served_only_when_there_is_no_choice() -> None:
    other = {**public_jwk(ec.generate_private_key(ec.SECP256R1())), "kid": "f"}
    assert read_key_set(document(ec_jwk(), rsa_jwk())).find(None, "ES256") is not None
    assert read_key_set(document(ec_jwk(), other)).find(None, "ES256") is None


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    """RFC 8037 appendix A.3, RFC 7638."""
    x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    key = {"kty": "OKP", "crv": "Ed25519", "x": x, "use": "sig", "kid": "any"}
    assert thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def key_at(created_at: float, active_at: float) -> SigningKey:
    return signing_key(ec.generate_private_key(ec.SECP256R1()), created_at, active_at)


OLD, YOUNG = key_at(0, 0), key_at(1000, 1030)
RING = KeyRing((OLD, YOUNG))


@pytest.mark.parametrize(
    ("now", "expected"), [(999, OLD), (1029.9, OLD), (1030, YOUNG), (9e9, YOUNG)]
)
def test_a_new_key_signs_from_its_hour_on(now: float, expected: SigningKey) -> None:
    assert RING.signing_key(now) is expected


@pytest.mark.parametrize(
    ("now", "expected"), [(1000, [OLD, YOUNG]), (1129.9, [OLD, YOUNG]), (1130, [YOUNG])]
)
def test_a_replaced_key_is_published_until_nothing_it_signed_can_be_alive(
    now: float, expected: list[SigningKey]
) -> None:
    assert list(RING.published(now, 100)) == expected


def test_an_empty_ring_signs_nothing_and_a_ring_of_the_future_still_signs() -> None:
    assert KeyRing().signing_key(0) is None
    assert KeyRing((YOUNG,)).signing_key(0) is YOUNG


def test_the_published_document_has_no_private_part_and_can_be_read_as_any_issuers() -> None:
    published = key_set_document(RING.keys)
    text = json.dumps(published)
    secret = OLD.private_key.private_numbers().private_value.to_bytes(32, "big")
    assert encode_base64url(secret) not in text
    entries = published["keys"]
    assert isinstance(entries, list)
    assert all(set(entry) == {"kty", "crv", "x", "y", "use", "alg", "kid"} for entry in entries)
    assert read_key_set(text.encode()).find(YOUNG.kid, "ES256") is not None


def test_a_key_survives_its_text_and_does_not_show_itself() -> None:
    again = from_pem(to_pem(OLD), OLD.created_at, OLD.active_at)
    assert again.kid == OLD.kid
    assert "PRIVATE" not in repr(OLD)
    assert repr(OLD) == f"SigningKey({OLD.kid})"


def test_only_a_p256_key_is_read_back() -> None:
    pem = RSA_2048.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    for text in (pem, "x", base64.b64encode(b"x").decode()):
        with pytest.raises(ValueError):  # noqa: PT011 - cryptography's own, in many wordings
            from_pem(text, 0, 0)
