"""Talking to a provider: what is sent, what is believed, and what an outage does."""

import asyncio
import json
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote_plus

import pytest

from auth.id_token import ID_TOKEN_TYPES, RefusedToken
from auth.io.fetching import LoadError
from auth.io.provider_client import (
    LARGEST_ANSWER,
    ProviderClient,
    ProviderHttp,
    ProviderRefused,
    Providers,
    ProviderUnavailable,
    Tokens,
)
from auth.login.provider import BegunSignIn
from config.model import Provider
from tests.providers.lying import SECRET, STRANGER, LyingProvider, lying_provider

BEGUN = BegunSignIn(
    provider="corp",
    issuer="",
    client_id="gateway",
    redirect_uri="https://app.example.com/.doorward/callback",
    return_to="/",
    nonce="n",
    verifier="the-verifier",
)


class Clock:
    """Monotonic seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def lying() -> AsyncIterator[LyingProvider]:
    async with lying_provider() as provider:
        yield provider


@pytest.fixture
async def http() -> AsyncIterator[ProviderHttp]:
    http = ProviderHttp()
    yield http
    await http.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(
    lying: LyingProvider, http: ProviderHttp, clock: Clock
) -> AsyncIterator[ProviderClient]:
    client = ProviderClient(lying.configured(), http, clock=clock)
    yield client
    await client.close()


def asked(lying: LyingProvider, path: str) -> int:
    return sum(seen == path for seen, _, _ in lying.seen)


DISCOVERY = "/.well-known/openid-configuration"


async def test_of_the_first_ones_at_once_one_asks_and_all_are_told(
    client: ProviderClient, lying: LyingProvider
) -> None:
    told = await asyncio.gather(*(client.metadata() for _ in range(5)))
    assert {each.issuer for each in told} == {lying.issuer}
    assert asked(lying, DISCOVERY) == 1


async def test_a_refresh_asks_with_the_token_and_who_we_are(
    client: ProviderClient, lying: LyingProvider
) -> None:
    lying.lifetime = 300
    tokens = await client.refresh("the-token")
    _, fields, form = lying.seen[-1]
    assert form == {"grant_type": "refresh_token", "refresh_token": "the-token"}
    assert fields["authorization"].startswith("Basic ")
    assert (tokens.refresh_token, tokens.lifetime) == ("a-refresh-token-1", 300)


@pytest.mark.parametrize(
    ("given", "lifetime"), [(300, 300), ("300", 300), (None, 3600), (-1, 3600), ("soon", 3600)]
)
async def test_a_lifetime_that_makes_no_sense_is_an_hour(
    client: ProviderClient, lying: LyingProvider, given: object, lifetime: float
) -> None:
    tokens = {"access_token": "a", "token_type": "bearer", "expires_in": given}
    lying.bodies["/token"] = json.dumps(tokens).encode()
    assert (await client.refresh("the-token")).lifetime == lifetime


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [(400, b'{"error": "invalid_grant"}', "invalid_grant"), (401, b'{"error": 7}', "")],
)
async def test_a_refresh_that_is_refused_says_why(
    client: ProviderClient, lying: LyingProvider, status: int, body: bytes, error: str
) -> None:
    lying.statuses["/token"], lying.bodies["/token"] = status, body
    with pytest.raises(ProviderRefused) as refused:
        await client.refresh("the-token")
    assert refused.value.error == error


@pytest.mark.parametrize(
    ("status", "body", "unheard"),
    [(503, b"", True), (429, b"<html>", True), (500, b"{}", False), (200, b"<html>", False)],
)
async def test_it_is_known_whether_a_provider_that_fails_may_have_done_it(
    client: ProviderClient, lying: LyingProvider, status: int, body: bytes, *, unheard: bool
) -> None:
    lying.statuses["/token"], lying.bodies["/token"] = status, body
    with pytest.raises(ProviderUnavailable) as failed:
        await client.refresh("the-token")
    assert failed.value.unheard is unheard


async def test_a_provider_that_cannot_be_reached_has_not_heard_us(http: ProviderHttp) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/token"
        with pytest.raises(ProviderUnavailable) as failed:
            await http.send("POST", url, form={})
    assert failed.value.unheard


async def test_metadata_is_kept_for_a_while(
    lying: LyingProvider, client: ProviderClient, clock: Clock
) -> None:
    await client.metadata()
    await client.metadata()
    assert asked(lying, DISCOVERY) == 1
    clock.now += 301
    await client.metadata()
    assert asked(lying, DISCOVERY) == 2


async def test_metadata_is_used_on_while_the_provider_is_down_but_not_for_ever(
    lying: LyingProvider, client: ProviderClient, clock: Clock
) -> None:
    known = await client.metadata()
    lying.statuses[DISCOVERY] = 503
    clock.now += 3600
    assert await client.metadata() == known
    clock.now += 86_400
    with pytest.raises(ProviderUnavailable, match="503"):
        await client.metadata()


async def test_nobody_is_sent_to_a_provider_that_has_not_answered_lately(
    lying: LyingProvider, client: ProviderClient, clock: Clock
) -> None:
    known = await client.metadata(must_answer=True)
    lying.statuses[DISCOVERY] = 503
    assert await client.metadata(must_answer=True) == known  # it did, a moment ago
    clock.now += 31
    with pytest.raises(ProviderUnavailable, match="503"):
        await client.metadata(must_answer=True)
    assert await client.metadata() == known  # for those who come back from there
    lying.statuses[DISCOVERY] = 404  # it is there, and only its metadata is gone
    clock.now += 3
    assert await client.metadata(must_answer=True) == known


async def test_who_could_not_reach_it_for_anything_else_knows_that_it_is_down(
    lying: LyingProvider, client: ProviderClient
) -> None:
    known = await client.metadata(must_answer=True)
    lying.metadata["token_endpoint"] = "http://127.0.0.1:1/token"
    lying.bodies["/userinfo"] = b" " * (LARGEST_ANSWER + 1)
    with pytest.raises(ProviderUnavailable):
        await client.userinfo("an-access-token", "ada")
    before = asked(lying, DISCOVERY)
    assert await client.metadata() == known
    assert asked(lying, DISCOVERY) == before
    assert (await client.metadata(must_answer=True)).token_endpoint == "http://127.0.0.1:1/token"
    assert asked(lying, DISCOVERY) == before + 1


async def test_a_provider_that_is_down_is_not_asked_by_everybody(
    lying: LyingProvider, client: ProviderClient, clock: Clock
) -> None:
    lying.statuses[DISCOVERY] = 500
    for _ in range(5):
        with pytest.raises(ProviderUnavailable):
            await client.metadata()
    assert asked(lying, DISCOVERY) == 1
    lying.statuses.clear()
    clock.now += 3
    assert (await client.metadata()).issuer == lying.issuer


async def test_who_has_waited_for_a_provider_that_is_slow_does_not_wait_again() -> None:
    """Ten seconds for each, one after the other, would be minutes for whoever came last."""
    clock = Clock()

    class Slow(ProviderHttp):
        asked = 0

        async def send(self, method: str, url: str, **_: Any) -> tuple[int, bytes]:
            self.asked += 1
            await asyncio.sleep(0)
            clock.now += 10
            raise ProviderUnavailable(f"{method} {url}: no answer in time")

    http = Slow()
    provider = Provider(id="corp", label="Corp", issuer="https://idp.example", client_id="us")
    client = ProviderClient(provider, http, clock=lambda: clock.now)
    told = await asyncio.gather(*(client.metadata() for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in told] == [ProviderUnavailable] * 5
    await http.close()
    assert http.asked == 1


async def test_the_metadata_of_another_issuer_is_refused(
    lying: LyingProvider, client: ProviderClient
) -> None:
    lying.metadata["issuer"] = "https://idp.example.com"
    with pytest.raises(ProviderUnavailable, match="another issuer"):
        await client.metadata()


async def test_no_redirect_is_followed(lying: LyingProvider, client: ProviderClient) -> None:
    lying.moved[DISCOVERY] = "/moved"
    with pytest.raises(ProviderUnavailable, match="307"):
        await client.metadata()


async def test_a_code_and_a_secret_are_not_sent_on(
    lying: LyingProvider, client: ProviderClient
) -> None:
    lying.moved["/token"] = "/moved"
    with pytest.raises((ProviderUnavailable, ProviderRefused)):
        await client.exchange("the-code", BEGUN)
    assert asked(lying, "/moved") == 0


async def test_an_answer_that_is_too_large_is_not_read(
    lying: LyingProvider, http: ProviderHttp
) -> None:
    lying.bodies["/jwks"] = b" " * (LARGEST_ANSWER + 1)
    with pytest.raises(LoadError, match="more than"):
        await http(f"{lying.issuer}/jwks")


async def test_a_code_is_exchanged_with_the_verifier_and_the_secret(
    lying: LyingProvider, client: ProviderClient
) -> None:
    tokens = await client.exchange("the-code", BEGUN)
    assert tokens.access_token == "an-access-token"
    _, fields, form = lying.seen[-1]
    assert form == {
        "grant_type": "authorization_code",
        "code": "the-code",
        "redirect_uri": BEGUN.redirect_uri,
        "code_verifier": "the-verifier",
    }
    # RFC 6749 2.3.1: form-encoded before they are joined.
    pair = f"gateway:{quote_plus(SECRET)}".encode()
    assert fields["authorization"] == f"Basic {b64encode(pair).decode()}"


async def test_a_provider_may_want_the_secret_in_the_form(
    lying: LyingProvider, client: ProviderClient
) -> None:
    lying.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_post"]
    await client.exchange("the-code", BEGUN)
    _, fields, form = lying.seen[-1]
    assert (form["client_id"], form["client_secret"]) == ("gateway", SECRET)
    assert "authorization" not in fields


async def test_a_client_without_a_secret_says_only_who_it_is(
    lying: LyingProvider, http: ProviderHttp
) -> None:
    client = ProviderClient(lying.configured(client_secret=None), http)
    await client.exchange("the-code", BEGUN)
    _, fields, form = lying.seen[-1]
    assert form["client_id"] == "gateway"
    assert "client_secret" not in form
    assert "authorization" not in fields
    await client.close()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error": "invalid_grant"}', ProviderRefused),
        (400, b'{"error": "\\n"}', ProviderRefused),
        (500, b'{"error": "server_error"}', ProviderUnavailable),
        (200, b"<html>", ProviderUnavailable),
        (200, b'{"access_token": "a", "token_type": "Bearer"}', ProviderRefused),
        (200, b'{"id_token": "a", "token_type": "Bearer"}', ProviderRefused),
        (200, b'{"id_token": "a", "access_token": 1, "token_type": "Bearer"}', ProviderRefused),
        (200, b'{"id_token": "a", "access_token": "b", "token_type": "DPoP"}', ProviderRefused),
        (200, b'{"id_token": "a", "access_token": "b"}', ProviderRefused),
        (302, b"{}", ProviderRefused),
    ],
    ids=str,
)
async def test_an_exchange_that_fails_gives_nothing(
    lying: LyingProvider, client: ProviderClient, status: int, body: bytes, kind: type[Exception]
) -> None:
    lying.statuses["/token"], lying.bodies["/token"] = status, body
    with pytest.raises(kind) as caught:
        await client.exchange("the-code", BEGUN)
    assert "the-code" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_userinfo_is_asked_with_the_access_token(
    lying: LyingProvider, client: ProviderClient
) -> None:
    assert (await client.userinfo("an-access-token", "ada"))["name"] == "Ada"
    assert lying.seen[-1][1]["authorization"] == "Bearer an-access-token"


async def test_userinfo_about_somebody_else_is_refused(
    lying: LyingProvider, client: ProviderClient
) -> None:
    lying.userinfo["sub"] = "bob"
    with pytest.raises(ProviderRefused, match="somebody else"):
        await client.userinfo("an-access-token", "ada")


async def test_a_provider_without_userinfo_says_nothing_more(
    lying: LyingProvider, client: ProviderClient
) -> None:
    del lying.metadata["userinfo_endpoint"]
    assert await client.userinfo("an-access-token", "ada") == {}


async def test_a_token_that_the_provider_signed_is_believed(
    lying: LyingProvider, client: ProviderClient
) -> None:
    token = lying.signed(lying.usual_claims())
    algorithm, claims = await client.verify(token, types=ID_TOKEN_TYPES)
    assert (algorithm, claims["sub"]) == ("RS256", "ada")


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ({}, STRANGER),
        ({"kid": "2"}, None),
        ({"typ": "logout+jwt"}, None),
        ({"typ": "at+jwt"}, None),
        ({"crit": ["exp"]}, None),
        ({"jwk": {"kty": "RSA"}, "kid": "9"}, None),
    ],
    ids=["another key", "another kid", "a logout token", "an access token", "crit", "own key"],
)
async def test_a_token_that_may_not_be_the_providers_is_refused(
    lying: LyingProvider, client: ProviderClient, header: dict[str, Any], key: Any
) -> None:
    keys = {"key": key} if key else {}
    token = lying.signed(lying.usual_claims(), **keys, **header)
    with pytest.raises(RefusedToken):
        await client.verify(token, types=ID_TOKEN_TYPES)


async def test_an_algorithm_that_the_provider_does_not_announce_is_refused(
    lying: LyingProvider, client: ProviderClient
) -> None:
    lying.metadata["id_token_signing_alg_values_supported"] = ["ES256"]
    with pytest.raises(RefusedToken, match="announce"):
        await client.verify(lying.signed(lying.usual_claims()), types=ID_TOKEN_TYPES)


async def test_without_the_keys_nothing_is_believed(
    lying: LyingProvider, client: ProviderClient
) -> None:
    lying.statuses["/jwks"] = 500
    with pytest.raises(ProviderUnavailable):
        await client.verify(lying.signed(lying.usual_claims()), types=ID_TOKEN_TYPES)


async def test_other_settings_make_another_client(lying: LyingProvider) -> None:
    providers = Providers()
    first = providers.client(lying.configured())
    assert providers.client(lying.configured()) is first
    assert providers.client(lying.configured(client_id="other")) is not first
    await first.verify(lying.signed(lying.usual_claims()), types=ID_TOKEN_TYPES)
    await providers.close()


def test_tokens_do_not_show_themselves() -> None:
    assert "secret" not in repr(Tokens("secret-1", "secret-2", "secret-3"))


async def test_nobody_there_is_told_as_such(http: ProviderHttp) -> None:
    with pytest.raises(LoadError) as caught:
        await http("http://127.0.0.1:9/x")
    assert json.dumps(str(caught.value))
