"""Handing a session on to another site; the whole way, from both of its ends."""

import logging
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec
import pytest

from auth.decision import Reason
from auth.io.provider_client import Providers
from auth.io.provider_records import ProviderRecords
from auth.io.site_codes import SiteCodes
from auth.login.service import AtProviders, LoginService
from auth.login.throttle import StoreThrottle
from auth.session import digest
from auth.site_cookie import site_cookie
from tests.auth.login.conftest import PUBLIC, SECRET, Site, cookies_of, field
from tests.auth.login.page_reader import PageReader
from tests.auth.login.sites import (
    AUTHORIZE,
    CALLBACK,
    HELP,
    LOGIN,
    LOGOUT,
    SHOP,
    Traveller,
    shared,
    sharing,
)
from tests.conftest import Valkey
from tests.providers.lying import LyingProvider

OTHER = "https://other.example.com"
"""A host that a route takes, and that is not in the list."""


@pytest.fixture
def ada(site: Site) -> Traveller:
    """Ada's browser."""
    return Traveller(sharing(site), site.store)


# The way there and back


async def test_who_is_signed_in_comes_back_to_the_page_with_a_cookie_of_the_site(
    ada: Traveller, site: Site
) -> None:
    await ada.sign_in()
    wanted = f"{SHOP}/cart?item=7&note=a%20b"
    answer = await ada.enter(SHOP, quote(wanted, safe=""))
    assert (answer.status, field(answer, "location")) == (303, wanted)
    assert await ada.subject_at(SHOP) == site.accounts.find("ada").subject
    assert ada.session(SHOP) != ada.session(PUBLIC)
    (cookie,) = (each for each in cookies_of(answer) if each.startswith("__Host-doorward=site."))
    assert set(cookie.split("; ")[2:]) == {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"}


async def test_who_is_not_signed_in_signs_in_first_and_comes_back_by_themselves(
    ada: Traveller,
) -> None:
    onward = await ada.begin(SHOP, quote(f"{SHOP}/cart?item=7", safe=""))
    answer = await ada.get(onward)
    page = urlsplit(field(answer, "location"))
    assert (answer.status, page.path) == (303, LOGIN)
    back = dict(parse_qsl(page.query))["return_to"]
    shown = PageReader((await ada.get(field(answer, "location"))).body)
    (kept,) = (each for each in shown.all("input") if each.attributes["name"] == "return_to")
    assert kept.attributes["value"] == back
    form = {"username": "ada", "password": "correct horse battery", "return_to": back}
    signed_in = await ada.post(f"{PUBLIC}{LOGIN}", form)
    handed_on = await ada.get(field(signed_in, "location"))
    # By a page: browsers hold redirects of the form against its `form-action`.
    assert (handed_on.status, field(handed_on, "referrer-policy")) == (200, "strict-origin")
    arrived = await ada.go_on(handed_on)
    assert field(arrived, "location") == f"{SHOP}/cart?item=7"


async def test_one_sign_in_serves_every_site(ada: Traveller) -> None:
    await ada.sign_in()
    for each in (SHOP, HELP):
        await ada.enter(each)
    callers = {await ada.subject_at(each) for each in (PUBLIC, SHOP, HELP)}
    assert len(callers) == 1
    assert len({ada.session(each) for each in (PUBLIC, SHOP, HELP)}) == 3


async def test_the_longest_page_that_may_be_returned_to_survives_the_way(ada: Traveller) -> None:
    wanted = f"{SHOP}/p?" + "%C3%A4" * 330
    onward = await ada.begin(SHOP, quote(wanted, safe=""))
    back = dict(parse_qsl(urlsplit(field(await ada.get(onward), "location")).query))["return_to"]
    await ada.sign_in()
    answer = await ada.go_on(await ada.get(back))
    assert field(answer, "location") == wanted


async def test_a_code_lives_for_a_minute_and_the_store_cannot_read_it(
    ada: Traveller, valkey: Valkey
) -> None:
    await ada.sign_in()
    back = await ada.code_for(SHOP)
    code = dict(parse_qsl(urlsplit(back).query))["code"]
    (key,) = valkey.client.keys("doorward:site-code:*")
    assert 0 < valkey.client.ttl(key) <= 60
    value = valkey.client.get(key)
    held = f"{key!r} {value!r}"
    assert digest(ada.session(PUBLIC)) not in held
    assert code not in held


# Where people are handed on to


@pytest.mark.parametrize(
    "return_to",
    [
        "https://evil.example/",
        OTHER,
        "https://shop.example.com.evil.example/",
        "https://shop.example.com:8443/",
        "http://shop.example.com/",
        "https://user@shop.example.com/",
        "//shop.example.com/",
        "https://shop.example.com\\.evil.example/",
        "/cart",
        PUBLIC,
        "",
    ],
)
async def test_nobody_is_handed_on_to_an_origin_that_is_not_listed(
    ada: Traveller, valkey: Valkey, return_to: str
) -> None:
    await ada.sign_in()
    asked = {"return_to": return_to, "state": "s" * 43, "code_challenge": "0" * 64}
    answer = await ada.get(f"{PUBLIC}{AUTHORIZE}?{urlencode(asked)}")
    assert (answer.status, answer.error, field(answer, "location")) == (400, "site_unknown", "")
    assert valkey.client.keys("doorward:site-code:*") == []


@pytest.mark.parametrize(
    "missing",
    [{"state": ""}, {"state": "short"}, {"code_challenge": ""}, {"code_challenge": "A" * 64}],
    ids=str,
)
async def test_who_binds_a_code_to_no_browser_gets_none(
    ada: Traveller, missing: dict[str, str]
) -> None:
    await ada.sign_in()
    asked = {"return_to": SHOP, "state": "s" * 43, "code_challenge": "0" * 64} | missing
    answer = await ada.get(f"{PUBLIC}{AUTHORIZE}?{urlencode(asked)}")
    assert answer.error == "site_unknown"


async def test_a_site_hands_nobody_on(ada: Traveller) -> None:
    await ada.sign_in()
    await ada.enter(SHOP)
    onward = (await ada.begin(HELP)).replace(PUBLIC, SHOP)
    answer = await ada.get(onward)
    assert field(answer, "location").startswith(f"{PUBLIC}{AUTHORIZE}?")


async def test_a_host_that_is_not_listed_signs_people_in_by_itself(ada: Traveller) -> None:
    answer = await ada.get(f"{OTHER}{LOGIN}?return_to=/cart")
    assert (answer.status, b'name="password"' in answer.body) == (200, True)
    asked = {"return_to": SHOP, "state": "s" * 43, "code_challenge": "0" * 64}
    assert (await ada.get(f"{OTHER}{AUTHORIZE}?{urlencode(asked)}")).error == "site_unknown"


async def test_too_many_codes_of_one_account_must_wait(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait(self: StoreThrottle, subject: str) -> float:
        del self, subject
        return 7.5

    service = LoginService(
        shared(),
        site.store,
        site.accounts,
        SECRET,
        throttle=StoreThrottle(site.store.commands),
        site_codes=SiteCodes(site.store.commands),
    )
    ada = Traveller(service, site.store)
    await ada.sign_in()
    monkeypatch.setattr(StoreThrottle, "take_session", wait)
    answer = await ada.get(await ada.begin(SHOP))
    assert (answer.status, answer.error, field(answer, "retry-after")) == (
        429,
        "too_many_attempts",
        "8",
    )


# What a site's cookie is good for


async def test_a_sites_cookie_opens_nothing_at_another_site_or_where_people_sign_in(
    ada: Traveller,
) -> None:
    await ada.sign_in()
    await ada.enter(SHOP)
    await ada.enter(HELP)
    thief = ada.another()
    for origin in (HELP, PUBLIC, OTHER):
        thief.jars[origin] = {"__Host-doorward": ada.session(SHOP)}
        assert await thief.subject_at(origin) == Reason.COOKIE_OF_OTHER_SITE
    thief.jars[SHOP] = {"__Host-doorward": ada.session(SHOP)}
    assert await thief.subject_at(SHOP) == await ada.subject_at(SHOP)


async def test_a_sites_cookie_is_no_way_into_the_others(ada: Traveller) -> None:
    """Shown where people sign in, whatever its `Host`, it must not be handed on."""
    await ada.sign_in()
    await ada.enter(SHOP)
    thief = ada.another()
    onward = await thief.begin(HELP)
    thief.jars[PUBLIC] = {"__Host-doorward": ada.session(SHOP)}
    assert urlsplit(field(await thief.get(onward), "location")).path == LOGIN


async def test_the_digest_of_a_session_is_no_key_to_it(ada: Traveller, site: Site) -> None:
    """Backends are told it, as `sid`."""
    await ada.sign_in()
    await ada.enter(SHOP)
    name = digest(ada.session(PUBLIC))
    thief = ada.another()
    for secret in ("A" * 43, digest("")[:43]):
        for origin in (SHOP, HELP, PUBLIC):
            thief.jars[origin] = {"__Host-doorward": site_cookie(name, secret)}
            assert await thief.subject_at(origin) == Reason.COOKIE_OF_OTHER_SITE
            await thief.post(f"{origin}{LOGOUT}", {"everywhere": "1"})
    form = {"username": "bob", "password": "correct horse battery"}
    assert (await thief.post(f"{PUBLIC}{LOGIN}", form)).status == 303
    assert not isinstance(await site.store.find(name), str)


async def test_the_store_holds_no_cookie_of_a_site(ada: Traveller, valkey: Valkey) -> None:
    await ada.sign_in()
    await ada.enter(SHOP)
    secret = ada.session(SHOP).rpartition(".")[2]
    (record,) = valkey.client.keys("doorward:session:*")
    assert digest(secret) in str(valkey.client.get(record))
    for key in valkey.client.keys("*"):
        held = str(valkey.client.dump(key))
        assert secret not in held
        assert ada.session(PUBLIC) not in held


# What ends a session ends it at every site


@pytest.mark.parametrize("origin", [PUBLIC, SHOP, HELP])
@pytest.mark.parametrize("everywhere", ["", "1"])
async def test_a_sign_out_anywhere_is_one_everywhere(
    ada: Traveller, site: Site, origin: str, everywhere: str
) -> None:
    await ada.sign_in()
    for each in (SHOP, HELP):
        await ada.enter(each)
    cookies = {each: ada.session(each) for each in (PUBLIC, SHOP, HELP)}
    answer = await ada.post(f"{origin}{LOGOUT}", {"everywhere": everywhere})
    assert answer.status == 200
    late = ada.another()
    for each, cookie in cookies.items():
        late.jars[each] = {"__Host-doorward": cookie}
        assert await late.subject_at(each) == Reason.SESSION_ENDED


async def test_ending_it_from_outside_reaches_the_sites(ada: Traveller, site: Site) -> None:
    await ada.sign_in()
    await ada.enter(SHOP)
    await site.store.end(digest(ada.session(PUBLIC)), reason="revoked")
    assert await ada.subject_at(SHOP) == Reason.SESSION_ENDED


async def test_a_person_sees_one_session_and_ends_it_at_any_site(ada: Traveller) -> None:
    await ada.sign_in()
    await ada.enter(SHOP)
    await ada.enter(HELP)
    json = {"accept": "application/json"}
    answer = await ada.send("GET", f"{HELP}/.doorward/sessions", fields=json)
    (told,) = msgspec.json.decode(answer.body)["sessions"]
    assert (told["id"], told["current"]) == (digest(ada.session(PUBLIC)), True)
    await ada.post(f"{HELP}/.doorward/sessions", {"id": told["id"]})
    assert await ada.subject_at(SHOP) == Reason.SESSION_ENDED


# What a route asks for


async def test_a_session_that_is_too_weak_or_too_old_is_not_handed_on(ada: Traveller) -> None:
    await ada.sign_in()
    await ada.enter(SHOP)
    for asked in ({"acr_values": "mfa"}, {"max_age": "0"}, {"prompt": "login"}, {"again": "1"}):
        answer = await ada.get(await ada.begin(SHOP, f"/{next(iter(asked))}", **asked))
        page = urlsplit(field(answer, "location"))
        query = dict(parse_qsl(page.query))
        assert page.path == LOGIN
        assert asked.items() <= query.items()
        # What must be is asked again on the way back; what is a wish would go in circles.
        kept = dict(parse_qsl(urlsplit(query["return_to"]).query)).keys() & asked.keys()
        assert kept == asked.keys() - {"prompt", "again"}


async def test_a_sign_in_that_is_recent_enough_is_handed_on(ada: Traveller) -> None:
    await ada.sign_in()
    answer = await ada.get(await ada.begin(SHOP, max_age="60"))
    assert field(answer, "location").startswith(f"{SHOP}{CALLBACK}?code=")


# The provider


@pytest.fixture
async def corp(site: Site, lying: LyingProvider) -> AsyncIterator[Traveller]:
    """A browser where people sign in at `lying`, for the sites."""
    clients = Providers()
    service = LoginService(
        shared(lying.configured()),
        site.store,
        site.accounts,
        SECRET,
        at_providers=AtProviders(clients, ProviderRecords(site.store.commands), site.refreshes),
        site_codes=SiteCodes(site.store.commands),
    )
    yield Traveller(service, site.store)
    await clients.close()


async def enter_by_provider(corp: Traveller, lying: LyingProvider, wanted: str) -> str:
    """Sign in at *lying* for the page *wanted*; return where that ends."""
    onward = await corp.begin(SHOP, quote(wanted, safe=""), provider="corp")
    to_sign_in = await corp.get(onward)
    to_provider = await corp.get(field(to_sign_in, "location"))
    query = lying.authorize(field(to_provider, "location"))
    signed_in = await corp.get(f"{PUBLIC}{CALLBACK}?{urlencode(query)}")
    handed_on = await corp.get(field(signed_in, "location"))
    return field(await corp.go_on(handed_on), "location")


async def test_a_provider_needs_one_address_for_all_sites(
    corp: Traveller, lying: LyingProvider
) -> None:
    assert await enter_by_provider(corp, lying, f"{SHOP}/cart") == f"{SHOP}/cart"
    assert lying.asked["redirect_uri"] == f"{PUBLIC}{CALLBACK}"
    assert await corp.subject_at(SHOP) == "corp:ada"


async def test_a_site_can_use_the_providers_tokens_and_the_store_alone_cannot(
    corp: Traveller, lying: LyingProvider, site: Site
) -> None:
    await enter_by_provider(corp, lying, f"{SHOP}/cart")
    own = await corp.service.access_token(corp.session(PUBLIC))
    assert own
    assert await corp.service.access_token(corp.session(SHOP)) == own
    name = digest(corp.session(PUBLIC))
    assert await corp.service.access_token(site_cookie(name, "A" * 43)) == ""


async def test_signing_out_at_a_site_ends_at_that_site(
    corp: Traveller, lying: LyingProvider
) -> None:
    """The provider knows one address for all of them."""
    await enter_by_provider(corp, lying, f"{SHOP}/cart")
    await corp.enter(HELP)
    page = await corp.post(f"{HELP}{LOGOUT}", {})
    (link,) = PageReader(page.body).all("a", **{"class": "button full"})
    asked = dict(parse_qsl(urlsplit(link.attributes["href"]).query))
    assert asked["post_logout_redirect_uri"] == f"{PUBLIC}{LOGOUT}"
    back = await corp.get(f"{PUBLIC}{LOGOUT}?{urlencode({'state': asked['state']})}")
    assert field(back, "location").startswith(f"{HELP}{LOGOUT}?state=")
    assert not any("sign-in-recent" in each for each in corp.jars[PUBLIC])
    told = PageReader((await corp.go_on(back)).body)
    assert "Here, and where you signed in." in told.text


@pytest.mark.parametrize("state", ["", "x", "A" * 43])
async def test_a_state_that_no_site_made_leads_to_none(ada: Traveller, state: str) -> None:
    answer = await ada.get(f"{PUBLIC}{LOGOUT}?state={state}")
    assert (answer.status, field(answer, "location")) == (200, "")


async def test_the_state_of_one_site_says_nothing_at_another(
    corp: Traveller, lying: LyingProvider
) -> None:
    await enter_by_provider(corp, lying, f"{SHOP}/cart")
    page = await corp.post(f"{SHOP}{LOGOUT}", {})
    (link,) = PageReader(page.body).all("a", **{"class": "button full"})
    state = dict(parse_qsl(urlsplit(link.attributes["href"]).query))["state"]
    shown = PageReader((await corp.get(f"{HELP}{LOGOUT}?state={state}")).body)
    assert "Here, and where you signed in." not in shown.text


# Nothing leaks


async def test_a_code_is_in_no_log_and_in_no_referer(
    ada: Traveller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await ada.sign_in()
    onward = await ada.begin(SHOP)
    handed_on = await ada.get(onward)
    back = field(handed_on, "location")
    arrived = await ada.get(back)
    ada.jars[SHOP].clear()
    refused = await ada.get(back.replace("code=", "code=x"))
    for answer in (handed_on, arrived):
        assert field(answer, "referrer-policy") == "no-referrer"
        assert field(answer, "cache-control") == "no-store"
    assert field(refused, "referrer-policy") == "strict-origin"
    assert field(refused, "cache-control") == "no-store"
    code = dict(parse_qsl(urlsplit(back).query))["code"]
    for secret in (code, ada.session(PUBLIC)):
        assert secret not in caplog.text
