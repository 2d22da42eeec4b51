"""The authorization code flow as values: what a provider says of itself, what we ask, its answer.

How this works (OIDC Core section 3.1, RFC 6749, RFC 7636, RFC 9207, RFC 9700). Nothing here waits
or remembers; `auth.login.provider_sign_in` does, in this order:

1. `read_metadata`: the provider's discovery document, if it is its own.
2. `authorization_url`: where the browser goes, with `state`, `nonce` and the PKCE challenge. What
   they belong to (`BegunSignIn`) waits in the store for ten minutes, under a name made of the state
   and of a cookie that only this browser has: another browser finds nothing.
3. `read_callback`: what came back. It must be of the provider that was asked (`iss`, and an address
   of its own for a provider that does not send `iss`): else a provider could have us bring it
   another one's code (mix-up, RFC 9700 section 4.4).
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from auth.keys import ALGORITHMS
from auth.tokens import read_json_object
from config.model import Provider

CALLBACK_PATH = "/.doorward/callback"
_LONGEST_PARAMETER = 4096
"""Characters of a parameter that a provider sends back; codes have less than 2,000."""


class MetadataError(ValueError):
    """A discovery document that cannot be used; the text is fit for a log."""


class Metadata(msgspec.Struct, frozen=True):
    """What a provider says of itself (OpenID Connect Discovery 1.0 section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    algorithms: tuple[str, ...] = ("RS256",)
    """Asymmetric ones only, that it signs ID tokens with."""
    secret_in_form: bool = False
    """Whether it takes the client secret in the form only (`client_secret_post`)."""
    promises_issuer: bool = False
    """Whether every answer of it brings `iss` (RFC 9207 section 3)."""


class BegunSignIn(msgspec.Struct, frozen=True):
    """A sign-in that is under way, as it waits in the store."""

    provider: str
    issuer: str
    client_id: str
    redirect_uri: str
    return_to: str
    nonce: str
    verifier: str
    replaces: str = ""
    """Digest of the session that was there when it began."""
    acr_values: tuple[str, ...] = ()
    """What the route that it is for asks for beyond the provider's settings; so the next three."""
    max_age: float | None = None
    prompt: str = ""
    login_hint: str = ""


class Answered(msgspec.Struct, frozen=True):
    """The provider's answer: a code, or an error."""

    code: str = ""
    error: str = ""
    detail: str = ""
    """Its own words about the error, for the log."""


class CallbackRefused(ValueError):
    """An answer that must not be used; the text is fit for a log."""


def read_metadata(document: bytes, issuer: str) -> Metadata:
    """Read the discovery document of *issuer*.

    Raises:
        MetadataError: not one, of another issuer (Discovery section 4.3: exactly equal), or with
            an endpoint that is missing or less safe than the issuer.
    """
    try:
        members = read_json_object(document)
    except ValueError as error:
        raise MetadataError(f"it is no metadata document: {error}") from error
    if members.get("issuer") != issuer:
        raise MetadataError("it is the metadata of another issuer; check `issuer`, to the letter")
    needed = {
        name: _endpoint(members, name, issuer)
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")
    }
    for name, url in needed.items():
        if not url:
            raise MetadataError(f"it names no {name}")
    signed_with = _texts(members, "id_token_signing_alg_values_supported") or ("RS256",)
    algorithms = tuple(sorted(ALGORITHMS.intersection(signed_with)))
    if not algorithms:
        raise MetadataError("it signs ID tokens with nothing that we accept, only symmetric keys?")
    ways = _texts(members, "token_endpoint_auth_methods_supported") or ("client_secret_basic",)
    return Metadata(
        issuer=issuer,
        **needed,
        userinfo_endpoint=_endpoint(members, "userinfo_endpoint", issuer),
        end_session_endpoint=_endpoint(members, "end_session_endpoint", issuer),
        algorithms=algorithms,
        secret_in_form="client_secret_basic" not in ways and "client_secret_post" in ways,
        promises_issuer=members.get("authorization_response_iss_parameter_supported") is True,
    )


def callback_path(provider: Provider) -> str:
    """Return where *provider* sends the browser back to."""
    return f"{CALLBACK_PATH}/{provider.id}" if provider.own_callback else CALLBACK_PATH


def authorization_url(
    provider: Provider, metadata: Metadata, begun: BegunSignIn, state: str
) -> str:
    """Return where the browser goes to sign in."""
    challenge = hashlib.sha256(begun.verifier.encode()).digest()
    asked = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": begun.redirect_uri,
        "state": state,
        "code_challenge": urlsafe_b64encode(challenge).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    scopes = provider.scopes
    prompt = begun.prompt or provider.prompt
    if "offline_access" in scopes and urlsplit(provider.issuer).hostname == "accounts.google.com":
        # Google knows no such scope, and gives a refresh token only with consent asked for anew.
        scopes = tuple(each for each in scopes if each != "offline_access")
        asked["access_type"], prompt = "offline", "consent"
    asked["scope"] = " ".join(scopes)
    if provider.protocol == "openid":
        asked["nonce"] = begun.nonce
        if acr_values := begun.acr_values or provider.acr_values:
            asked["acr_values"] = " ".join(acr_values)
        if (max_age := longest_age(provider, begun)) is not None:
            asked["max_age"] = str(int(max_age))
    if prompt:
        asked["prompt"] = prompt
    if begun.login_hint:
        asked["login_hint"] = begun.login_hint
    asked = {name: value for name, value in asked.items() if value}
    return with_query(metadata.authorization_endpoint, asked)


def longest_age(provider: Provider, begun: BegunSignIn) -> float | None:
    """Return how long ago, in seconds, somebody may have signed in at *provider* for *begun*."""
    return min(
        (each for each in (provider.max_age, begun.max_age) if each is not None), default=None
    )


def known_metadata(provider: Provider) -> Metadata | None:
    """Return what is known of *provider* without asking it: all, unless it is an OpenID provider.

    GitHub's own servers have their API below their own address, github.com has a host for it.
    """
    issuer = provider.issuer.rstrip("/")
    if provider.protocol == "oauth2":
        return Metadata(
            provider.issuer,
            provider.authorization_endpoint,
            provider.token_endpoint,
            jwks_uri="",
            userinfo_endpoint=provider.userinfo_endpoint,
        )
    if provider.protocol == "github":
        api = "https://api.github.com" if issuer == "https://github.com" else f"{issuer}/api/v3"
        oauth = f"{issuer}/login/oauth"
        return Metadata(
            provider.issuer,
            f"{oauth}/authorize",
            f"{oauth}/access_token",
            jwks_uri="",
            userinfo_endpoint=f"{api}/user",
            # As its documentation has it.
            secret_in_form=True,
        )
    return None


def read_callback(
    query: Mapping[str, str], begun: BegunSignIn, metadata: Metadata, *, path: str, needs_iss: bool
) -> Answered:
    """Read what came back to *path* for the sign-in *begun*.

    *needs_iss*: whether the answer must say whose it is, promised or not.

    Raises:
        CallbackRefused: it is not the answer of the provider that was asked, or is no answer.
    """
    if any(len(value) > _LONGEST_PARAMETER for value in query.values()):
        raise CallbackRefused("a parameter is too long")
    if urlsplit(begun.redirect_uri).path != path:
        raise CallbackRefused("it came to the address of another provider (mix-up?)")
    issuer = query.get("iss")
    if issuer is None and (needs_iss or metadata.promises_issuer):
        raise CallbackRefused(
            "it does not say whose it is: iss is missing (RFC 9207); if the provider never sends "
            "it, set own_callback"
        )
    if issuer is not None and issuer != begun.issuer:
        raise CallbackRefused("iss is another provider's (mix-up?)")
    if "error" in query:  # wins: nothing is exchanged, whatever else there is
        return Answered(error=query["error"], detail=query.get("error_description", ""))
    if not query.get("code"):
        raise CallbackRefused("it has neither code nor error")
    return Answered(code=query["code"])


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """Return *url*, which may have a query already, with *parameters*."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(parameters)}"


def _endpoint(members: Mapping[str, Any], name: str, issuer: str) -> str:
    """Return the URL under *name*; empty if there is none."""
    url = members.get(name, "")
    allowed = ("https",) if issuer.startswith("https:") else ("http", "https")
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    if url and (
        parts is None or parts.scheme not in allowed or not parts.hostname or parts.fragment
    ):
        raise MetadataError(f"its {name} is no {' or '.join(allowed)} URL")
    return str(url)


def _texts(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = members.get(name)
    if not isinstance(values, list):
        return ()
    return tuple(each for each in values if isinstance(each, str))
