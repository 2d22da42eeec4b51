"""Whose session it becomes."""

from typing import Any

import msgspec
import pytest

from auth.login.provider_profile import (
    LARGEST_CLAIMS,
    UnfitProfile,
    default_claims,
    merged_claims,
    profile_of,
    record_of,
    refreshed_claims,
)
from auth.session import LARGEST_IDENTITY, SessionRecord
from config.model import Provider

ISSUER = "https://idp.example.com"
CORP = Provider("corp", "Corp", ISSUER, "gateway", namespace="corp")
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "gateway",
    "exp": 1_790_000_300,
    "iat": 1_790_000_000,
    "nonce": "n",
    "at_hash": "h",
    "sub": "248289761001",
    "sid": "s-1",
}


def record(provider: Provider = CORP, **claims: Any) -> SessionRecord:
    return record_of(CLAIMS | claims, provider, created_at=100.0, expires_at=900.0)


def of(issuer: str = ISSUER, **claims: str) -> Provider:
    return Provider("corp", "Corp", issuer, "gateway", claims=claims)


def test_the_subject_is_the_providers_own_name_within_its_namespace() -> None:
    assert record(email="ada@example.com").subject == "corp:248289761001"
    assert record(of()).subject == "248289761001"


def test_times_and_what_was_done_come_along() -> None:
    found = record(auth_time=50, amr=["pwd", "otp"], acr="mfa")
    assert (found.created_at, found.expires_at, found.auth_time) == (100.0, 900.0, 50)
    assert found.amr == ("pwd", "otp")
    assert found.claims["acr"] == "mfa"
    assert record().auth_time == 100.0


def test_claims_of_the_protocol_are_not_kept() -> None:
    assert set(record().claims) == {"iss", "sub", "sid"}


@pytest.mark.parametrize(
    ("provider", "claims", "part", "value"),
    [
        (of(), {"roles": ["a"]}, "roles", ("a",)),
        (of(), {"groups": ["a", "b"]}, "groups", ("a", "b")),
        (of(), {"groups": "admins"}, "groups", ("admins",)),
        (of(roles="groups"), {"groups": ["a"], "roles": ["b"]}, "roles", ("a",)),
        (of(subject="employee.number"), {"employee": {"number": "7"}}, "subject", "7"),
        (of(), {"name": "Ada"}, "name", "Ada"),
        (of(), {"preferred_username": "ada"}, "name", "ada"),
        (of(), {"nickname": "a"}, "name", "a"),
        (of(), {"preferred_username": "a\nb"}, "name", ""),
        (of(), {"preferred_username": 7}, "name", ""),
        (of(name="display"), {"preferred_username": "ada"}, "name", ""),
        (of(), {"email": "a@b.c", "email_verified": True}, "email", "a@b.c"),
        (of(), {"email": "a@b.c", "email_verified": False}, "email", ""),
        (of(), {"email": "a@b.c"}, "email", ""),
        (of("https://accounts.google.com"), {"hd": "acme.com"}, "tenant", "acme.com"),
        (of("https://login.microsoftonline.com/t/v2.0"), {"tid": "t", "oid": "o"}, "tenant", "t"),
        (of("https://k.example/realms/r"), {"realm_access": {"roles": ["a"]}}, "roles", ("a",)),
        (of("https://gitlab.com"), {"groups_direct": ["g"]}, "groups", ("g",)),
    ],
    ids=str,
)
def test_claims_fill_the_identity(
    provider: Provider, claims: dict[str, Any], part: str, value: object
) -> None:
    assert getattr(record(provider, **claims), part) == value


def test_the_route_file_is_heard_before_what_is_known_of_a_provider() -> None:
    keycloak = of("https://k.example/realms/r", roles="groups")
    found = record(keycloak, realm_access={"roles": ["a"]}, groups=["b"])
    assert found.roles == ("b",)


@pytest.mark.parametrize(
    "issuer", ["https://accounts.google.com.evil.example", "https://gitlab.co"]
)
def test_a_provider_is_known_by_its_whole_host(issuer: str) -> None:
    assert default_claims(issuer) == {}


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None},
        {"sub": 7},
        {"sub": "a\r\nx-auth-roles: admin"},
        {"roles": {"admin": True}},
        {"roles": ["a", 7]},
        {"groups": [["a"]]},
        {"name": "a\nb"},
        {"email": "a@evil@corp.com", "email_verified": True},
        {"big": "x" * LARGEST_CLAIMS},
    ],
    ids=lambda claims: str(claims)[:40],
)
def test_claims_that_are_unfit_make_no_session(claims: dict[str, Any]) -> None:
    with pytest.raises(UnfitProfile):
        record(**claims)


@pytest.mark.parametrize(("letter", "octets"), [("g", 1), ("é", 6), (",", 3), ("%", 3)])
def test_an_identity_that_backends_could_not_take_makes_no_session(
    letter: str, octets: int
) -> None:
    sub = "248289761001"
    most = (LARGEST_IDENTITY - len(sub)) // (100 * octets + 1)
    assert len(record(groups=[letter * 100] * most).groups) == most
    with pytest.raises(UnfitProfile, match="fewer"):
        record(groups=[letter * 100] * (most + 1))


def test_the_signed_claim_wins_and_the_sign_in_itself_is_only_believed_when_signed() -> None:
    userinfo = {
        "sub": "ada",
        "name": "A",
        "roles": ["r"],
        "iss": "x",
        "sid": "x",
        "acr": "x",
        "amr": ["mfa"],
        "auth_time": 1,
        "exp": 1,
        "nonce": "x",
    }
    merged = merged_claims({"sub": "ada", "name": "Ada", "iss": ISSUER}, userinfo)
    assert merged == {"sub": "ada", "name": "Ada", "roles": ["r"], "iss": ISSUER}


BEFORE = {"sub": "ada", "acr": "strong", "sid": "s-1", "roles": ["admin"], "name": "Ada"}


def test_a_new_id_token_takes_the_place_of_the_old_claims_but_not_of_the_sign_in() -> None:
    claims = refreshed_claims(BEFORE, {"sub": "ada", "groups": ["g"]}, {"name": "A", "acr": "x"})
    expected = {"sub": "ada", "groups": ["g"], "name": "A", "acr": "strong", "sid": "s-1"}
    assert claims == expected


def test_without_a_new_id_token_userinfo_is_added_to_what_is_known() -> None:
    claims = refreshed_claims(BEFORE, {}, {"name": "A", "acr": "x"})
    assert claims == BEFORE | {"name": "A"}


@pytest.mark.parametrize(
    ("issuer", "defaults"),
    [
        ("https://login.microsoftonline.com/t/v2.0", {"subject": "oid", "tenant": "tid"}),
        ("https://example.okta.com/oauth2/default", {}),
        ("https://id.example.com/application/o/app/", {}),
    ],
)
def test_known_providers_call_some_things_otherwise(issuer: str, defaults: dict[str, str]) -> None:
    assert default_claims(issuer) == defaults


def test_a_path_to_the_subject_of_a_plain_oauth_provider_is_followed() -> None:
    provider = Provider("p", "P", ISSUER, "g", protocol="oauth2", claims={"subject": "user.no"})
    claims = profile_of(provider, {"user": {"no": 7}, "id": 1, "acr": "x"}, None)
    assert claims == {"user": {"no": 7}, "id": 1, "iss": ISSUER, "sub": "7"}
    record = record_of({"exp": 1, **claims}, provider, created_at=1.0, expires_at=9.0)
    assert record.subject == "7"


PLAIN = Provider("plain", "Plain", ISSUER, "gateway", protocol="oauth2")
GITHUB = msgspec.structs.replace(PLAIN, protocol="github")


@pytest.mark.parametrize(
    ("members", "subject"),
    [
        ({"sub": "ada"}, "ada"),
        ({"id": 7}, "7"),
        ({"sub": "ada", "id": 7}, "ada"),
        ({"id": True}, True),
        ({"id": 1.5}, 1.5),
    ],
    ids=str,
)
def test_a_number_is_as_good_a_subject_as_its_text_and_nothing_else_is(
    members: dict[str, Any], subject: object
) -> None:
    assert profile_of(PLAIN, members, None)["sub"] == subject


def test_a_plain_provider_says_nothing_of_the_sign_in_itself() -> None:
    said = {"id": 7, "iss": "https://evil.example", "auth_time": 1, "amr": ["mfa"], "acr": "phr"}
    assert profile_of(PLAIN, said, None) == {"id": 7, "iss": ISSUER, "sub": "7"}


@pytest.mark.parametrize(
    ("emails", "email"),
    [
        (b'[{"email":"a@b.c","primary":true,"verified":true}]', "a@b.c"),
        (b'[{"email":"a@b.c","primary":true,"verified":false}]', None),
        (b'[{"email":"a@b.c","primary":false,"verified":true}]', None),
        (b'{"email":"a@b.c"}', None),
        (None, None),
    ],
)
def test_an_address_at_github_is_the_one_that_it_has_verified(
    emails: bytes | None, email: str | None
) -> None:
    claims = profile_of(GITHUB, {"id": 7, "login": "ada", "email": "public@x.y"}, emails)
    assert claims.get("email") == email
    assert claims["preferred_username"] == "ada"
