"""Signing in at a site whose people sign in elsewhere: what a code is good for, and for whom."""

import asyncio
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import msgspec
import pytest

from auth.cookies import set_cookie
from auth.decision import Reason
from auth.identity import Authenticated
from auth.io.session_store import open_session_store
from auth.io.site_codes import SiteCodes
from auth.login.service import LoginService
from auth.session import digest
from tests.auth.login.conftest import PUBLIC, SECRET, Site, cookies_of, field
from tests.auth.login.page_reader import PageReader
from tests.auth.login.sites import CALLBACK, HELP, LOGIN, LOGOUT, SHOP, Traveller, shared, sharing
from tests.cluster import Cluster
from tests.conftest import Valkey

RECENT = "__Host-doorward-sign-in-recent"


@pytest.fixture
def ada(site: Site) -> Traveller:
    """Ada's browser."""
    return Traveller(sharing(site), site.store)


async def test_tabs_that_sign_in_at_once_each_get_their_page_and_all_stay_signed_in(
    ada: Traveller,
) -> None:
    await ada.sign_in()
    pages = [f"{SHOP}/page/{number}" for number in range(6)]
    codes = [await ada.code_for(SHOP, quote(page, safe="")) for page in pages]
    locations = []
    for code in reversed(codes):
        locations.append(field(await ada.get(code), "location"))
        assert await ada.subject_at(SHOP) not in ("", Reason.COOKIE_OF_OTHER_SITE)
    assert locations == pages[::-1]
    # And a tab that was slower still finds itself signed in: no page about circles.
    for page in pages:
        assert await ada.begin(SHOP, quote(page, safe="")) == page


async def test_a_code_is_good_once(ada: Traveller) -> None:
    await ada.sign_in()
    back = await ada.code_for(SHOP)
    jar = dict(ada.jars[SHOP])
    assert (await ada.get(back)).error == ""
    ada.jars[SHOP] = jar
    again = await ada.get(back)
    assert (again.status, again.error, ada.session(SHOP)) == (400, "sign_in_expired", "")


async def test_of_many_that_show_a_code_at_once_to_two_gateways_one_gets_in(
    ada: Traveller, site: Site, valkey: Valkey
) -> None:
    await ada.sign_in()
    back = await ada.code_for(SHOP)
    other_store = await open_session_store(valkey.url, shared().session, worker=True)
    codes = SiteCodes(other_store.commands)
    other = LoginService(shared(), other_store, site.accounts, SECRET, site_codes=codes)
    tabs = []
    for number in range(20):
        tab = Traveller(other if number % 2 else ada.service, site.store)
        tab.jars[SHOP] = dict(ada.jars[SHOP])
        tabs.append(tab)
    answers = await asyncio.gather(*(tab.get(back) for tab in tabs))
    await other_store.close()
    assert sorted(answer.error for answer in answers) == ["", *["sign_in_expired"] * 19]
    assert sum(bool(tab.session(SHOP)) for tab in tabs) == 1


async def test_on_a_cluster_too_one_gets_in_and_a_sign_out_reaches_all(
    site: Site, cluster: Cluster
) -> None:
    """The session, its codes and whose they are lie on different servers."""
    cluster.flush()
    stores = [await open_session_store(cluster.url, shared().session, worker=True) for _ in "ab"]
    one, two = (
        LoginService(shared(), each, site.accounts, SECRET, site_codes=SiteCodes(each.commands))
        for each in stores
    )
    ada = Traveller(one, stores[0])
    await ada.sign_in()
    await ada.enter(HELP)
    back = await ada.code_for(SHOP)
    tabs = [Traveller(each, stores[0]) for each in (one, two) * 5]
    for tab in tabs:
        tab.jars[SHOP] = dict(ada.jars[SHOP])
    answers = await asyncio.gather(*(tab.get(back) for tab in tabs))
    assert sorted(answer.error for answer in answers) == ["", *["sign_in_expired"] * 9]
    (entered,) = (tab for tab in tabs if tab.session(SHOP))
    (key,) = (key for each in cluster.primaries for key in each.client.keys("doorward:session:*"))
    assert digest(ada.session(PUBLIC)) in str(key)
    elsewhere = Traveller(two, stores[1])  # the other gateway, which has its own copy
    elsewhere.jars = ada.jars | {SHOP: dict(entered.jars[SHOP])}
    for each in (PUBLIC, SHOP, HELP):
        assert isinstance(await elsewhere.caller(each), Authenticated)
    assert (await entered.post(f"{SHOP}{LOGOUT}", {})).status == 200
    for each in (PUBLIC, SHOP, HELP):
        assert await elsewhere.subject_at(each) == Reason.SESSION_ENDED
    for store in stores:
        await store.close()


async def test_who_signs_out_at_a_site_is_told_of_that_site(ada: Traveller) -> None:
    """Not of the host where they signed in, which they may never have heard of."""
    await ada.sign_in()
    await ada.get(await ada.code_for(SHOP))
    for method in ("GET", "POST"):
        page = await ada.send(method, f"{SHOP}{LOGOUT}", fields={"origin": SHOP})
        assert "shop.example.com" in PageReader(page.body).text
        assert "app.example.com" not in PageReader(page.body).text
    assert "app.example.com" in PageReader((await ada.get(f"{PUBLIC}{LOGOUT}")).body).text


async def test_a_code_is_of_no_use_to_another_browser_and_used_up_by_it(ada: Traveller) -> None:
    """Stolen from a history, a log of a proxy, a screen."""
    await ada.sign_in()
    back = await ada.code_for(SHOP)
    query = dict(parse_qsl(urlsplit(back).query))
    thief = ada.another()
    own = dict(parse_qsl(urlsplit(await thief.begin(SHOP)).query))
    stolen = f"{SHOP}{CALLBACK}?" + urlencode({"code": query["code"], "state": own["state"]})
    answer = await thief.get(stolen)
    assert (answer.error, thief.session(SHOP)) == ("sign_in_expired", "")
    assert (await ada.get(back)).error == "sign_in_expired"


async def test_nobody_is_signed_in_with_a_code_that_somebody_else_began(ada: Traveller) -> None:
    """Login CSRF: the attacker's code and state, in the victim's browser."""
    await ada.sign_in()
    back = await ada.code_for(SHOP)
    victim = ada.another()
    await victim.begin(SHOP)
    answer = await victim.get(back)
    assert (answer.error, victim.session(SHOP)) == ("sign_in_cookie_missing", "")


async def test_a_code_for_one_site_is_no_good_at_another(ada: Traveller) -> None:
    await ada.sign_in()
    back = await ada.code_for(SHOP)
    ada.jars[HELP] = dict(ada.jars[SHOP])
    answer = await ada.get(back.replace(SHOP, HELP))
    assert (answer.error, ada.session(HELP)) == ("sign_in_expired", "")


async def test_a_code_of_a_session_that_ends_on_the_way_opens_nothing(
    ada: Traveller, site: Site
) -> None:
    await ada.sign_in()
    back = await ada.code_for(SHOP)
    await site.store.end(digest(ada.session(PUBLIC)), reason="test")
    answer = await ada.get(back)
    assert (answer.error, ada.session(SHOP)) == ("sign_in_expired", "")


@pytest.mark.parametrize("query", ["", "?code=abc", "?state=abc", f"?code={'a' * 200}&state=a"])
async def test_a_way_back_that_lacks_something_is_a_page_and_no_error(
    ada: Traveller, query: str
) -> None:
    answer = await ada.get(f"{SHOP}{CALLBACK}{query}")
    assert (answer.status, answer.error) == (400, "sign_in_incomplete")


async def test_signing_in_anew_ends_what_a_site_had_before(ada: Traveller, site: Site) -> None:
    await ada.sign_in()
    await ada.enter(SHOP)
    before = digest(ada.session(PUBLIC))
    ada.jars[PUBLIC].clear()
    onward = await ada.begin(SHOP, acr_values="other")
    await ada.sign_in()
    answer = await ada.get(onward.replace("&acr_values=other", ""))
    await ada.get(field(answer, "location"))
    assert await site.store.find(before) == Reason.SESSION_ENDED
    assert await ada.subject_at(SHOP) == site.accounts.find("ada").subject


# Where it goes on


async def test_nothing_is_written_for_who_is_not_signed_in(ada: Traveller, valkey: Valkey) -> None:
    before = valkey.client.dbsize()
    for _ in range(3):
        await ada.get(await ada.begin(SHOP))
    assert valkey.client.dbsize() == before


@pytest.mark.parametrize(
    "return_to",
    ["https://evil.example/", f"{HELP}/x", "//evil.example", "/.doorward/logout", "https:evil"],
)
async def test_a_page_elsewhere_is_not_returned_to(ada: Traveller, return_to: str) -> None:
    await ada.sign_in()
    answer = await ada.enter(SHOP, quote(return_to, safe=""))
    assert field(answer, "location") == f"{SHOP}/"


async def test_the_way_there_carries_the_digest_of_what_the_browser_keeps(ada: Traveller) -> None:
    onward = dict(parse_qsl(urlsplit(await ada.begin(SHOP)).query))
    (name,) = ada.jars[SHOP]
    assert name == f"__Host-doorward-sign-in-{digest(onward['state'])[:12]}"
    assert digest(ada.jars[SHOP][name]) == onward["code_challenge"]


async def test_what_a_route_asks_of_a_sign_in_goes_along(ada: Traveller) -> None:
    asked = {"acr_values": "mfa", "max_age": "60", "provider": "corp", "prompt": "login"}
    onward = dict(parse_qsl(urlsplit(await ada.begin(SHOP, **asked)).query))
    assert asked.items() <= onward.items()


async def test_a_strict_cookie_is_followed_by_a_page_of_ours(site: Site) -> None:
    settings = shared()
    strict = msgspec.structs.replace(settings.session, same_site="strict")
    settings = msgspec.structs.replace(settings, session=strict)
    ada = Traveller(sharing(site, settings), site.store)
    await ada.sign_in()
    answer = await ada.enter(SHOP, quote(f"{SHOP}/cart", safe=""))
    (link,) = (each for each in PageReader(answer.body).all("a") if "button" in str(each))
    assert (answer.status, link.attributes["href"]) == (200, f"{SHOP}/cart")
    assert field(answer, "referrer-policy") == "strict-origin"


async def test_a_site_remembers_that_somebody_was_here_and_not_who(ada: Traveller) -> None:
    """For forms that come when the session's cookie has ended (`gateway.kept_forms`)."""
    await ada.sign_in()
    answer = await ada.enter(SHOP)
    (cookie,) = (each for each in cookies_of(answer) if "-device=" in each)
    assert cookie.startswith("__Host-doorward-sign-in-device=1; Max-Age=")
    assert set(cookie.split("; ")[2:]) == {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"}


async def test_a_sites_cookie_ends_with_the_session(ada: Traveller, site: Site) -> None:
    await ada.sign_in()
    answer = await ada.enter(SHOP)
    (cookie,) = (each for each in cookies_of(answer) if each.startswith("__Host-doorward=site."))
    record = await site.store.find(digest(ada.session(PUBLIC)))
    assert not isinstance(record, str)
    left = record.expires_at - site.clock()
    value = cookie.partition("=")[2].partition(";")[0]
    ages = {set_cookie(shared().session, value, left + off) for off in (0, 1, 2, 3)}
    assert cookie in ages


# Circles


async def bounce(ada: Traveller, times: int, *, cookie: str = "") -> str:
    """Come in and have another cookie or none, so many *times*; return what is said then."""
    page = "/cart"
    for _ in range(times):
        assert (await ada.enter(SHOP, page)).status == 303
        ada.jars[SHOP]["__Host-doorward"] = cookie
    answer = await ada.get(f"{SHOP}{LOGIN}?return_to={page}")
    return PageReader(answer.body).text if answer.error == "sign_in_loop" else answer.error


async def test_a_site_whose_cookie_does_not_come_back_says_so(ada: Traveller) -> None:
    await ada.sign_in()
    said = await bounce(ada, 3)
    assert "does not send the cookie of this site back" in said
    assert SHOP in said


async def test_a_site_whose_cookie_is_not_its_own_says_so(ada: Traveller) -> None:
    await ada.sign_in()
    await ada.enter(HELP)
    said = await bounce(ada, 3, cookie=ada.session(HELP))
    assert "is not the one that this site gave it" in said


async def test_a_return_or_two_are_no_circle(ada: Traveller) -> None:
    await ada.sign_in()
    assert await bounce(ada, 2) == ""


async def test_a_browser_that_keeps_no_cookie_at_the_site_is_stopped_on_its_way_back(
    ada: Traveller,
) -> None:
    await ada.sign_in()
    back = await ada.code_for(SHOP)
    ada.jars[SHOP].clear()
    answer = await ada.get(back)
    assert (answer.status, answer.error) == (400, "sign_in_cookie_missing")


async def test_a_page_that_sends_its_people_to_sign_in_on_and_on_is_a_circle(
    ada: Traveller, site: Site
) -> None:
    await ada.sign_in()
    await ada.enter(SHOP, "/cart")
    for _ in range(2):
        assert await ada.begin(SHOP, "/cart") == f"{SHOP}/cart"
    answer = await ada.get(f"{SHOP}{LOGIN}?return_to=/cart")
    assert "sends you back here all the same" in PageReader(answer.body).text


async def test_a_page_that_does_so_now_and_then_is_none(ada: Traveller) -> None:
    await ada.sign_in()
    await ada.enter(SHOP, "/cart")
    for _ in range(6):
        assert await ada.begin(SHOP, "/cart") == f"{SHOP}/cart"
        returns, at, goal = ada.jars[SHOP][RECENT].split(".")
        ada.jars[SHOP][RECENT] = f"{returns}.{int(at) - 3100}.{goal}"


# Pages that are elsewhere


async def test_pages_about_the_account_are_where_people_sign_in(ada: Traveller) -> None:
    answer = await ada.get(f"{SHOP}/.doorward/forgot-password?x=1")
    assert (answer.status, answer.error) == (404, "no_route")  # nobody sends letters here
    answer = await ada.get(f"{SHOP}/.doorward/authorize?a=b")
    assert field(answer, "location") == f"{PUBLIC}/.doorward/authorize?a=b"


async def test_nobody_signs_in_with_a_password_at_a_site(ada: Traveller) -> None:
    form = {"username": "ada", "password": "correct horse battery"}
    for path in (LOGIN, "/.doorward/account"):
        answer = await ada.post(f"{SHOP}{path}", form)
        assert (answer.status, ada.session(SHOP)) == (404, "")


async def test_no_origin_but_its_own_signs_anybody_out_at_a_site(ada: Traveller) -> None:
    await ada.sign_in()
    await ada.enter(SHOP)
    for origin in (PUBLIC, HELP, f"{SHOP}:8443", "https://evil.example", "null"):
        answer = await ada.send("POST", f"{SHOP}{LOGOUT}", fields={"origin": origin})
        assert answer.status == 403
        assert isinstance(await ada.caller(SHOP), Authenticated)


async def test_a_form_is_not_redirected_to_another_origin(ada: Traveller) -> None:
    """Browsers hold every redirect of a form against its `form-action` (CSP)."""
    form = {"username": "ada", "password": "correct horse battery"}
    answer = await ada.post(f"{PUBLIC}{LOGIN}", form | {"return_to": f"{HELP}/topic"})
    assert (answer.status, bool(ada.session(PUBLIC))) == (200, True)
    assert (await ada.go_on(answer)).error == "no_route"
    assert ada.seen[-1] == f"{HELP}/topic"
    answer = await ada.post(f"{PUBLIC}{LOGIN}", form | {"return_to": f"{PUBLIC}/topic"})
    assert (answer.status, field(answer, "location")) == (303, f"{PUBLIC}/topic")
