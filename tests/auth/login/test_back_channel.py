"""Logout tokens, the good and the bad (OpenID Connect Back-Channel Logout 1.0)."""

import asyncio
from typing import Any

import pytest

from auth.id_token import LOGOUT_EVENT
from auth.io.provider_client import Providers
from auth.io.provider_records import ProviderRecords
from auth.login.messages import LoginAnswer
from auth.login.provider_refresh import RefreshesUnderWay
from auth.login.service import AtProviders, LoginService
from auth.login.throttle import Bucket, StoreThrottle
from config.model import Login
from tests.auth.login.conftest import SECRET, Browser, Site, configured, field, sign_in_at
from tests.conftest import Valkey
from tests.providers.lying import REMOVED, STRANGER, LyingProvider
from tests.store_server import nowhere

BACK_CHANNEL = "/.doorward/backchannel-logout"


async def send(site: Site, token: str) -> LoginAnswer:
    """Send *token* as the provider does: no cookie, no Origin."""
    answer = await site.browser().post(BACK_CHANNEL, {"logout_token": token}, {})
    assert field(answer, "cache-control") == "no-store"
    return answer


async def signed_in(site: Site, lying: LyingProvider, **claims: Any) -> Browser:
    lying.claims = claims
    lying.userinfo = {"sub": claims.get("sub", "ada")}
    browser = site.browser()
    assert (await sign_in_at(lying, browser)).status == 303
    return browser


async def alive(site: Site, *browsers: Browser) -> list[bool]:
    return [await site.is_alive(browser.session) for browser in browsers]


async def test_by_sid_one_session_ends(corp_site: Site, lying: LyingProvider) -> None:
    ada = await signed_in(corp_site, lying)
    elsewhere = await signed_in(corp_site, lying, sid="session-2")
    bob = await signed_in(corp_site, lying, sub="bob", sid="session-3")
    answer = await send(corp_site, lying.logout_token())
    assert (answer.status, answer.body, answer.error) == (200, b"", "")
    assert await alive(corp_site, ada, elsewhere, bob) == [False, True, True]


async def test_by_sub_every_session_of_the_person_ends(
    corp_site: Site, lying: LyingProvider
) -> None:
    """D14: an index with one place for each person would end one."""
    hers = [await signed_in(corp_site, lying, sid=f"session-{n}") for n in range(3)]
    hers.append(await signed_in(corp_site, lying, sid=REMOVED))
    bob = await signed_in(corp_site, lying, sub="bob", sid="session-9")
    token = lying.logout_token(sid=REMOVED, sub="ada")
    assert (await send(corp_site, token)).status == 200
    assert await alive(corp_site, *hers, bob) == [False] * 4 + [True]


async def test_by_both_the_session_ends_and_those_without_a_name(
    corp_site: Site, lying: LyingProvider
) -> None:
    named = await signed_in(corp_site, lying)
    other = await signed_in(corp_site, lying, sid="session-2")
    nameless = await signed_in(corp_site, lying, sid=REMOVED)
    assert (await send(corp_site, lying.logout_token(sub="ada"))).status == 200
    assert await alive(corp_site, named, other, nameless) == [False, True, False]


async def test_a_person_with_another_subject_here_is_found_by_the_providers_name(
    corp_site: Site, lying: LyingProvider
) -> None:
    login = Login(providers=(lying.configured(claims={"subject": "employee"}),))
    corp_site.service = corp_site.service.reconfigured(configured(login=login))
    ada = await signed_in(corp_site, lying, employee="e-7")
    token = lying.logout_token(sid=REMOVED, sub="ada")
    assert (await send(corp_site, token)).status == 200
    assert await alive(corp_site, ada) == [False]


async def test_a_session_nobody_knows_is_over_already(
    corp_site: Site, lying: LyingProvider
) -> None:
    assert (await send(corp_site, lying.logout_token(sid="unknown"))).status == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": REMOVED},
        {"exp": REMOVED},
        {"exp": 1_000_000_000, "iat": 999_999_900},
        {"jti": REMOVED},
        {"events": REMOVED},
        {"events": {LOGOUT_EVENT: 1}},
        {"events": []},
        {"sid": REMOVED},
        {"nonce": "n"},
        {"iss": "https://evil.example"},
        {"iss": REMOVED},
        {"aud": "another-client"},
        {"aud": ["gateway", "another-client"]},
        {"key": STRANGER},
        {"typ": "at+jwt"},
        {"typ": "secevent+jwt"},
    ],
    ids=lambda claims: str(claims)[:60],
)
async def test_no_other_token_ends_anything(
    corp_site: Site, lying: LyingProvider, claims: dict[str, Any]
) -> None:
    ada = await signed_in(corp_site, lying)
    answer = await send(corp_site, lying.logout_token(**claims))
    assert (answer.status, answer.error) == (400, "invalid_request")
    assert await alive(corp_site, ada) == [True]


async def test_an_id_token_is_no_logout_token(corp_site: Site, lying: LyingProvider) -> None:
    ada = await signed_in(corp_site, lying)
    token = lying.signed(lying.usual_claims() | {"jti": "1"})
    assert (await send(corp_site, token)).status == 400
    assert await alive(corp_site, ada) == [True]


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a" * 20_000, "é.é.é"], ids=lambda t: t[:8])
async def test_what_is_no_token_is_refused_and_nobody_is_asked(
    corp_site: Site, lying: LyingProvider, token: str
) -> None:
    assert (await send(corp_site, token)).status == 400
    assert lying.seen == []


async def test_a_stranger_cannot_have_us_ask_the_provider(
    corp_site: Site, lying: LyingProvider
) -> None:
    await send(corp_site, lying.logout_token(iss="https://evil.example"))
    await send(corp_site, lying.logout_token(aud="another-client"))
    await send(corp_site, lying.logout_token(exp=1_000_000_000, iat=999_999_900))
    assert lying.seen == []


async def test_an_older_provider_may_leave_the_type_out(
    corp_site: Site, lying: LyingProvider
) -> None:
    ada = await signed_in(corp_site, lying)
    assert (await send(corp_site, lying.logout_token(typ="JWT"))).status == 200
    assert await alive(corp_site, ada) == [False]


async def test_a_token_that_was_obeyed_ends_nothing_more(
    corp_site: Site, lying: LyingProvider
) -> None:
    token = lying.logout_token()
    assert (await send(corp_site, token)).status == 200
    await asyncio.sleep(0.002)  # times are kept in milliseconds
    ada = await signed_in(corp_site, lying)
    answer = await send(corp_site, token)
    assert (answer.status, await alive(corp_site, ada)) == (400, [True])


async def test_two_clients_at_one_provider_each_end_their_own(
    corp_site: Site, lying: LyingProvider
) -> None:
    login = Login(providers=(lying.configured(id="two", client_id="two"), lying.configured()))
    corp_site.service = corp_site.service.reconfigured(configured(login=login))
    ada = await signed_in(corp_site, lying)
    assert (await send(corp_site, lying.logout_token(aud="two", sid="other"))).status == 200
    assert (await send(corp_site, lying.logout_token())).status == 200
    assert await alive(corp_site, ada) == [False]


async def test_without_the_keys_the_provider_shall_try_again(
    corp_site: Site, lying: LyingProvider
) -> None:
    lying.statuses["/jwks"] = 500
    answer = await send(corp_site, lying.logout_token())
    assert (answer.status, answer.error) == (400, "temporarily_unavailable")


async def test_without_the_store_nothing_is_claimed(
    corp_site: Site, lying: LyingProvider, valkey: Valkey
) -> None:
    """D11: a store that fails is no proof that a token is new; and none that anything ended."""
    ada = await signed_in(corp_site, lying)
    clients = Providers()
    lost = nowhere()
    working, corp_site.service = (
        corp_site.service,
        LoginService(
            configured(login=Login(providers=(lying.configured(),))),
            corp_site.store,
            corp_site.accounts,
            SECRET,
            at_providers=AtProviders(clients, ProviderRecords(lost), RefreshesUnderWay()),
        ),
    )
    token = lying.logout_token()
    answer = await send(corp_site, token)
    assert (answer.status, answer.error) == (400, "temporarily_unavailable")
    assert await alive(corp_site, ada) == [True]

    corp_site.service = working  # the same token, sent again, is obeyed
    assert (await send(corp_site, token)).status == 200
    assert await alive(corp_site, ada) == [False]
    await clients.close()


async def test_one_whose_obeying_failed_half_way_is_obeyed_when_it_comes_again(
    corp_site: Site, lying: LyingProvider, valkey: Valkey
) -> None:
    ada = await signed_in(corp_site, lying)
    token = lying.logout_token()
    names = valkey.client.keys("doorward:provider-sessions:*")
    kept = {name: valkey.client.dump(name) for name in names}
    for name in names:  # as broken as a store can be
        valkey.client.set(name, "not a sorted set")
    assert (await send(corp_site, token)).status == 400
    for name, value in kept.items():
        valkey.client.restore(name, 0, value, replace=True)  # type: ignore[arg-type]
    assert (await send(corp_site, token)).status == 200
    assert await alive(corp_site, ada) == [False]


async def test_only_post_is_taken(corp_site: Site) -> None:
    answer = await corp_site.browser().get(BACK_CHANNEL)
    assert (answer.status, field(answer, "allow")) == (405, "POST")


async def test_without_providers_there_is_no_such_address(site: Site) -> None:
    assert (await site.browser().post(BACK_CHANNEL, {"logout_token": "x"}, {})).status == 404


async def test_a_source_of_bad_tokens_is_turned_away_and_one_of_good_ones_is_not(
    corp_site: Site, lying: LyingProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auth.login.throttle.LOGOUT_TOKENS", Bucket(2, 90.0))
    clients = Providers()
    corp_site.service = LoginService(
        configured(login=Login(providers=(lying.configured(),))),
        corp_site.store,
        corp_site.accounts,
        SECRET,
        throttle=StoreThrottle(corp_site.store.commands),
        at_providers=AtProviders(
            clients, ProviderRecords(corp_site.store.commands), RefreshesUnderWay()
        ),
    )
    for number in range(4):  # good ones cost nothing
        browser = await signed_in(corp_site, lying, sid=f"session-{number}")
        assert (await send(corp_site, lying.logout_token(sid=f"session-{number}"))).status == 200
        assert await alive(corp_site, browser) == [False]
    forged = lying.logout_token(key=STRANGER)
    assert [(await send(corp_site, forged)).status for _ in range(2)] == [400, 400]
    answer = await send(corp_site, forged)
    assert (answer.status, answer.error) == (429, "too_many_attempts")
    assert 80 <= int(field(answer, "retry-after")) <= 90
    await clients.close()
