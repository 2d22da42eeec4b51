"""The steps of the code flow, as values."""

import hashlib
import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from auth.login.provider import (
    Answered,
    BegunSignIn,
    CallbackRefused,
    Metadata,
    MetadataError,
    authorization_url,
    callback_path,
    known_metadata,
    read_callback,
    read_metadata,
    with_query,
)
from config.model import Provider

PROVIDERS = Path(__file__).parents[2] / "providers"
ISSUER = "https://idp.example.com"
PROVIDER = Provider("corp", "Corp", ISSUER, "gateway")
DOCUMENT: dict[str, Any] = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
}
METADATA = Metadata(ISSUER, f"{ISSUER}/auth", f"{ISSUER}/token", f"{ISSUER}/jwks")
PROMISING = Metadata(
    ISSUER, f"{ISSUER}/auth", f"{ISSUER}/token", f"{ISSUER}/jwks", promises_issuer=True
)
BEGUN = BegunSignIn(
    provider="corp",
    issuer=ISSUER,
    client_id="gateway",
    redirect_uri="https://app.example.com/.doorward/callback",
    return_to="/notes",
    nonce="the-nonce",
    verifier="the-verifier",
)


def read(issuer: str = ISSUER, **changes: Any) -> Metadata:
    members = DOCUMENT | {"issuer": issuer} | changes
    kept = {name: value for name, value in members.items() if value is not None}
    return read_metadata(json.dumps(kept).encode(), issuer)


def test_the_least_that_a_provider_says_is_enough() -> None:
    assert read() == METADATA


RECORDED = {path.stem: path.read_bytes() for path in (PROVIDERS / "discovery").glob("*.json")}
"""What providers say of themselves: Canaille 0.3.6 and Glewlwyd 2.7.5 as they ran for us, Google
and Entra as others have written it down. Without members that nobody here reads."""


@pytest.mark.parametrize(
    ("name", "algorithms", "promises_issuer", "ends_sessions"),
    [
        ("canaille", {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, True, True),
        ("entra", {"RS256"}, False, True),
        ("glewlwyd", {"ES256", "ES384", "ES512"}, False, True),
        ("google", {"RS256"}, False, False),
    ],
)
def test_what_known_providers_say_is_understood(
    name: str, algorithms: set[str], *, promises_issuer: bool, ends_sessions: bool
) -> None:
    issuer = json.loads(RECORDED[name])["issuer"]
    metadata = read_metadata(RECORDED[name], issuer)
    assert set(metadata.algorithms) == algorithms
    assert metadata.promises_issuer is promises_issuer
    assert bool(metadata.end_session_endpoint) is ends_sessions
    assert not metadata.secret_in_form
    with pytest.raises(MetadataError, match="another issuer"):
        read_metadata(RECORDED[name], f"{issuer}/")


def test_the_address_for_people_of_any_tenant_of_entra_is_no_issuer() -> None:
    """`common` says `{tenantid}` in place of one: whoever runs a tenant could sign anybody in."""
    document = RECORDED["entra"].replace(b"12345678-1234-1234-1234-123456789012", b"{tenantid}")
    with pytest.raises(MetadataError, match="another issuer"):
        read_metadata(document, "https://login.microsoftonline.com/common/v2.0")


def test_what_else_it_says_is_taken_up() -> None:
    metadata = read(
        userinfo_endpoint=f"{ISSUER}/userinfo",
        end_session_endpoint=f"{ISSUER}/end",
        id_token_signing_alg_values_supported=["none", "HS256", "RS256", "ES256"],
        token_endpoint_auth_methods_supported=["private_key_jwt", "client_secret_post"],
        authorization_response_iss_parameter_supported=True,
    )
    assert metadata.algorithms == ("ES256", "RS256")
    assert metadata.userinfo_endpoint == f"{ISSUER}/userinfo"
    assert metadata.end_session_endpoint == f"{ISSUER}/end"
    assert metadata.secret_in_form
    assert metadata.promises_issuer


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": f"{ISSUER}/"}, "another issuer"),
        ({"issuer": "https://evil.example"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"authorization_endpoint": None}, "authorization_endpoint"),
        ({"token_endpoint": None}, "token_endpoint"),
        ({"jwks_uri": None}, "jwks_uri"),
        ({"token_endpoint": "http://idp.example.com/token"}, "https URL"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "https URL"),
        ({"authorization_endpoint": f"{ISSUER}/auth#here"}, "https URL"),
        ({"userinfo_endpoint": "https://"}, "https URL"),
        ({"end_session_endpoint": "https://[::1"}, "https URL"),
        ({"jwks_uri": 7}, "https URL"),
        ({"id_token_signing_alg_values_supported": ["none", "HS256"]}, "nothing that we accept"),
    ],
    ids=str,
)
def test_metadata_that_cannot_be_trusted_is_refused(changes: dict[str, Any], why: str) -> None:
    members = {name: value for name, value in (DOCUMENT | changes).items() if value is not None}
    with pytest.raises(MetadataError, match=why):
        read_metadata(json.dumps(members).encode(), ISSUER)


@pytest.mark.parametrize("document", [b"", b"[]", b"<html>", b'{"issuer": 1, "issuer": 2}'])
def test_what_is_no_document_is_refused(document: bytes) -> None:
    with pytest.raises(MetadataError):
        read_metadata(document, ISSUER)


def test_a_provider_on_this_machine_may_speak_plain_http() -> None:
    issuer = "http://127.0.0.1:9000"
    endpoints = {name: f"{issuer}/x" for name in DOCUMENT if name != "issuer"}
    assert read(issuer, **endpoints).token_endpoint == f"{issuer}/x"


def test_lists_of_another_shape_count_as_left_out() -> None:
    metadata = read(
        id_token_signing_alg_values_supported="ES256",
        token_endpoint_auth_methods_supported={"client_secret_post": True},
    )
    assert (metadata.algorithms, metadata.secret_in_form) == (("RS256",), False)


def test_every_request_asks_for_a_code_with_state_nonce_and_pkce() -> None:
    url = authorization_url(PROVIDER, METADATA, BEGUN, "the-state")
    assert url.startswith(f"{ISSUER}/auth?")
    challenge = urlsafe_b64encode(hashlib.sha256(b"the-verifier").digest()).rstrip(b"=").decode()
    assert parse_qs(urlsplit(url).query) == {
        "response_type": ["code"],
        "client_id": ["gateway"],
        "redirect_uri": [BEGUN.redirect_uri],
        "scope": ["openid profile email"],
        "state": ["the-state"],
        "nonce": ["the-nonce"],
        "code_challenge": [challenge],
        "code_challenge_method": ["S256"],
    }
    assert "the-verifier" not in url


def test_how_people_sign_in_there_may_be_asked_for() -> None:
    strict = Provider(
        "corp",
        "Corp",
        ISSUER,
        "gateway",
        acr_values=("mfa", "pwd"),
        max_age=3600.0,
        prompt="login",
    )
    asked = parse_qs(urlsplit(authorization_url(strict, METADATA, BEGUN, "s")).query)
    assert (asked["acr_values"], asked["max_age"], asked["prompt"]) == (
        ["mfa pwd"],
        ["3600"],
        ["login"],
    )


def test_a_query_that_is_there_already_stays() -> None:
    assert with_query("https://a.example/x?p=1", {"q": "a b"}) == "https://a.example/x?p=1&q=a+b"


def come_back(
    query: dict[str, str],
    metadata: Metadata = METADATA,
    *,
    path: str = "/.doorward/callback",
    needs_iss: bool = False,
) -> Answered:
    return read_callback(query, BEGUN, metadata, path=path, needs_iss=needs_iss)


@pytest.mark.parametrize("metadata", [METADATA, PROMISING], ids=["silent", "promising"])
def test_a_code_of_the_provider_that_was_asked_is_taken(metadata: Metadata) -> None:
    answered = come_back({"code": "c", "state": "s", "iss": ISSUER}, metadata, needs_iss=True)
    assert answered == Answered(code="c")


def test_a_lone_provider_that_never_promised_its_name_needs_not_say_it() -> None:
    assert come_back({"code": "c", "state": "s"}).code == "c"


@pytest.mark.parametrize(
    ("query", "metadata", "needs_iss"),
    [
        ({"code": "c", "iss": "https://evil.example"}, METADATA, False),
        ({"code": "c", "iss": f"{ISSUER}/"}, METADATA, False),
        ({"code": "c", "iss": ""}, METADATA, False),
        ({"code": "c"}, PROMISING, False),
        ({"code": "c"}, METADATA, True),
        ({"error": "access_denied"}, PROMISING, False),
        ({"error": "access_denied", "iss": "https://evil.example"}, METADATA, False),
    ],
    ids=str,
)
def test_an_answer_that_may_be_of_another_provider_is_not_used(
    query: dict[str, str], metadata: Metadata, *, needs_iss: bool
) -> None:
    """Mix-up (RFC 9207, RFC 9700 section 4.4)."""
    with pytest.raises(CallbackRefused, match="iss"):
        come_back(query, metadata, needs_iss=needs_iss)


def test_an_answer_at_the_address_of_another_provider_is_not_used() -> None:
    with pytest.raises(CallbackRefused, match="address"):
        come_back({"code": "c", "iss": ISSUER}, path="/.doorward/callback/other")


def test_an_error_wins_over_a_code() -> None:
    answered = come_back({"error": "access_denied", "code": "c", "error_description": "no"})
    assert answered == Answered(error="access_denied", detail="no")


@pytest.mark.parametrize(
    "query", [{}, {"code": ""}, {"code": "c" * 5000}], ids=["none", "", "long"]
)
def test_an_answer_without_a_code_is_none(query: dict[str, str]) -> None:
    with pytest.raises(CallbackRefused):
        come_back(query)


def test_a_provider_may_have_an_address_of_its_own_to_come_back_to() -> None:
    own = Provider("corp", "Corp", ISSUER, "gateway", own_callback=True)
    assert callback_path(PROVIDER) == "/.doorward/callback"
    assert callback_path(own) == "/.doorward/callback/corp"


def asked_of(provider: Provider) -> dict[str, list[str]]:
    return parse_qs(urlsplit(authorization_url(provider, METADATA, BEGUN, "the-state")).query)


def test_google_is_asked_for_a_refresh_token_in_its_own_way() -> None:
    scopes = ("openid", "offline_access")
    google = Provider("g", "G", "https://accounts.google.com", "gateway", scopes=scopes)
    asked = asked_of(google)
    assert (asked["scope"], asked["access_type"], asked["prompt"]) == (
        ["openid"], ["offline"], ["consent"],
    )  # fmt: skip
    other = asked_of(Provider("o", "O", ISSUER, "gateway", scopes=scopes))
    assert other["scope"] == ["openid offline_access"]
    assert "access_type" not in other


def test_without_openid_connect_nothing_of_it_is_asked() -> None:
    provider = Provider("o", "O", ISSUER, "gateway", protocol="oauth2", scopes=())
    assert set(asked_of(provider)) == {
        "response_type", "client_id", "redirect_uri", "state", "code_challenge",
        "code_challenge_method",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("issuer", "token", "user"),
    [
        (
            "https://github.com",
            "https://github.com/login/oauth/access_token",
            "https://api.github.com/user",
        ),
        (
            "https://git.example.com",
            "https://git.example.com/login/oauth/access_token",
            "https://git.example.com/api/v3/user",
        ),
    ],
)
def test_where_github_has_what_is_known(issuer: str, token: str, user: str) -> None:
    found = known_metadata(Provider("g", "G", issuer, "gateway", protocol="github"))
    assert found is not None
    assert (found.token_endpoint, found.userinfo_endpoint) == (token, user)


def test_what_the_operator_names_is_known_and_nothing_else_without_asking() -> None:
    provider = Provider(
        "o", "O", ISSUER, "gateway", protocol="oauth2", authorization_endpoint=f"{ISSUER}/a",
        token_endpoint=f"{ISSUER}/t", userinfo_endpoint=f"{ISSUER}/u",
    )  # fmt: skip
    found = known_metadata(provider)
    assert found == Metadata(ISSUER, f"{ISSUER}/a", f"{ISSUER}/t", "", f"{ISSUER}/u")
    assert known_metadata(Provider("o", "O", ISSUER, "gateway")) is None


def test_the_provider_is_told_who_is_expected() -> None:
    begun = msgspec.structs.replace(BEGUN, login_hint="ada@example.com")
    asked = parse_qs(urlsplit(authorization_url(PROVIDER, METADATA, begun, "s")).query)
    assert asked["login_hint"] == ["ada@example.com"]
    assert "login_hint" not in parse_qs(
        urlsplit(authorization_url(PROVIDER, METADATA, BEGUN, "s")).query
    )
