from typing import Any

import pytest

from auth.claims import claim_at, identity_of_claims
from auth.decision import Reason
from auth.identity import Identity
from auth.revocation import TokenRef, epoch_name, token_name, token_ref
from config.model import TokenIssuer

ISSUER = "https://idp.example.com"


def identity(paths: dict[str, str] | None = None, **claims: Any) -> Identity | Reason:
    issuer = TokenIssuer(ISSUER, ("gw",), ("ES256",), claims=paths or {})
    everything = {"iss": ISSUER, "sub": "alice", "exp": 2000, **claims}
    return identity_of_claims(everything, issuer)


def test_the_registered_names_are_read_without_a_mapping() -> None:
    found = identity(
        name="Alice",
        email="a@example.com",
        email_verified=True,
        roles=["r"],
        groups=["g"],
        scope="read write",
        tenant="acme",
        auth_time=1000,
        amr=["pwd"],
    )
    assert isinstance(found, Identity)
    assert found.claims["sub"] == "alice"
    assert found == Identity(
        subject="alice",
        method="bearer",
        name="Alice",
        tenant="acme",
        email="a@example.com",
        roles=("r",),
        groups=("g",),
        scopes=("read", "write"),
        auth_time=1000,
        amr=("pwd",),
        issuer=ISSUER,
        token=found.token,
        expires_at=2000.0,
        claims=found.claims,
    )


def test_a_token_is_named_by_its_issuer_its_id_its_subject_and_its_time() -> None:
    found = identity(jti="j1", iat=100)
    assert isinstance(found, Identity)
    name, epoch = token_name(ISSUER, "j1"), epoch_name(ISSUER, "alice")
    assert found.token == TokenRef(name, epoch, 100.0, 2000.0)


@pytest.mark.parametrize("jti", [{}, {"jti": 5}, {"jti": ""}])
def test_a_token_whose_id_is_no_text_is_named_by_its_subject_and_its_time(
    jti: dict[str, Any],
) -> None:
    found = identity({"subject": "uid"}, uid="bob", iat=100, **jti)
    assert isinstance(found, Identity)
    assert found.token == token_ref(
        issuer=ISSUER, subject="bob", jti="", issued_at=100.0, expires_at=2000.0
    )


@pytest.mark.parametrize(
    ("part", "path", "claims", "expected"),
    [
        ("roles", "realm_access.roles", {"realm_access": {"roles": ["a"]}}, ("a",)),
        ("roles", "realm_access.roles", {"realm_access": ["roles"], "roles": ["x"]}, ()),
        ("roles", "realm_access.roles", {"roles": ["x"]}, ()),
        ("roles", "https://e.com/roles", {"https://e.com/roles": ["a"]}, ("a",)),
        (
            "roles",
            "resource_access.my.client.roles",
            {"resource_access": {"my.client": {"roles": ["a"]}, "my": 1}},
            ("a",),
        ),
        ("groups", "memberOf", {"memberOf": "cn=a, b"}, ("cn=a, b",)),
        ("scopes", "permissions", {"permissions": ["a", "b"], "scope": "x"}, ("a", "b")),
        ("scopes", "none", {"scp": "x"}, ()),
        ("tenant", "org.id", {"org": {"id": "acme"}}, "acme"),
        ("subject", "oid", {"oid": "guid"}, "guid"),
        ("email", "mail", {"mail": "a@b.c"}, "a@b.c"),
        ("email", "mail", {"mail": "a@b.c", "email_verified": False}, ""),
    ],
)
def test_a_mapping_names_the_claim_that_fills_a_part(
    part: str, path: str, claims: dict[str, Any], expected: object
) -> None:
    found = identity({part: path}, **claims)
    assert isinstance(found, Identity)
    assert getattr(found, part) == expected


@pytest.mark.parametrize(
    ("part", "claims", "expected"),
    [
        ("scopes", {"scp": "a b"}, ("a", "b")),
        ("scopes", {"scp": ["a", "b"]}, ("a", "b")),
        ("scopes", {"scope": "a", "scp": "b"}, ("a",)),
        ("scopes", {"scope": "  read:all-not-admin  a "}, ("read:all-not-admin", "a")),
        ("scopes", {"scope": ""}, ()),
        ("groups", {"groups": "sysadmins"}, ("sysadmins",)),
        ("groups", {"groups": ""}, ()),
        ("groups", {"groups": None}, ()),
        ("email", {"email": "a@b.c"}, ""),
        ("email", {"email": "a@b.c", "email_verified": False}, ""),
        ("email", {"email": "a@b.c", "email_verified": "true"}, ""),
        ("email", {"email": "a@b.c", "email_verified": 1}, ""),
        ("name", {"name": None}, ""),
        ("auth_time", {"auth_time": "1000"}, 0),
        ("auth_time", {"auth_time": True}, 0),
        ("auth_time", {"auth_time": 1e300}, 0),
        ("amr", {"amr": ["pwd"]}, ("pwd",)),
        ("acr", {"acr": "mfa"}, "mfa"),
        ("acr", {"acr": 2}, ""),
        ("acr", {"acr": ["mfa"]}, ""),
        ("acr", {"acr": "m\nfa"}, ""),
    ],
)
def test_a_claim_is_read_for_what_it_says(
    part: str, claims: dict[str, Any], expected: object
) -> None:
    found = identity(**claims)
    assert isinstance(found, Identity)
    assert getattr(found, part) == expected


@pytest.mark.parametrize(
    ("paths", "claims"),
    [
        ({"subject": "oid"}, {}),
        ({"subject": "oid"}, {"oid": ""}),
        ({"subject": "oid"}, {"oid": 7}),
        ({"roles": "realm_access"}, {"realm_access": {"roles": ["a"]}}),
        ({}, {"roles": [["admin"]]}),
        ({}, {"roles": ["x" * 257]}),
        ({}, {"groups": ["g"] * 1001}),
        ({}, {"name": ["Alice"]}),
        ({}, {"amr": {"pwd": 1}}),
        ({}, {"scope": ["read write"]}),
        ({}, {"scope": "read\nwrite"}),
        ({}, {"email": "a@b@example.com", "email_verified": True}),
    ],
)
def test_a_claim_of_the_wrong_type_refuses_the_token(
    paths: dict[str, str], claims: dict[str, Any]
) -> None:
    assert identity(paths, **claims) is Reason.TOKEN_CLAIMS


@pytest.mark.parametrize("path", ["", ".", "..", "a.", ".a", "a..b", "a.b.c"])
def test_a_path_to_nowhere_finds_nothing(path: str) -> None:
    assert claim_at({"a": {"b": 1}}, path) is None
