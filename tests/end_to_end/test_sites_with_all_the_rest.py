"""Sites that share a sign-in, with all else that there is: a provider, passkeys, kept forms."""

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
import redis
from playwright.async_api import BrowserContext, Page, expect

from auth.login.totp import code_of, current_step
from tests.conftest import Valkey
from tests.end_to_end.sites import (
    HELP,
    LOGIN,
    PASSWORD,
    SHOP,
    Sites,
    a_browser,
    places,
    running_sites,
)
from tests.providers.running import (
    CLIENT_SECRET,
    Arrived,
    OidcProvider,
    Person,
    oidc_provider,
    registered,
)

pytestmark = pytest.mark.wire

ROUTES = """
session: {{lease: 2s, max_sessions: 2}}
login:
  sites: [{shop}, {help}]
  providers:
    - id: corp
      label: Example Corp
      issuer: "{issuer}"
      client_id: gateway
      client_secret: "{secret}"
routes:
  - {{id: shop, match: {{hosts: [shop.example.com], path: /*}}, upstream: app, access: signed-in}}
  - {{id: help, match: {{hosts: [help.example.org], path: /*}}, upstream: app, access: signed-in}}
  - id: token
    match: {{hosts: [help.example.org], path: /token}}
    upstream: app
    access: signed-in
    access_token: X-Access-Token
  - id: vault
    match: {{hosts: [help.example.org], path: /vault}}
    upstream: app
    access: {{acr: mfa}}
  - id: keys
    match: {{hosts: [shop.example.com], path: /keys}}
    upstream: app
    access: {{acr: phr}}
  - id: asked
    match: {{hosts: [help.example.org], path: /asked}}
    upstream: app
    access: signed-in
    prompt: login
    providers: [corp]
"""
JSON = {"Accept": "application/json"}


class Setting(NamedTuple):
    """What the tests of this file share."""

    sites: Sites
    corp: OidcProvider
    """Tells the second gateway of a logout, which serves neither the sign-in nor the shop."""
    store: redis.Redis

    def person(self) -> Person:
        return Person(connector=self.sites.connector())


@pytest.fixture(scope="module")
def setting(valkey_process: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    valkey_process.flush()
    directory = tmp_path_factory.mktemp("sites")
    where = places(directory)
    client = registered(
        [LOGIN],
        grant_types=["authorization_code", "refresh_token"],
        backchannel_logout_uri=f"https://127.0.0.1:{where.ports[1]}/.doorward/backchannel-logout",
        backchannel_logout_session_required=True,
    )
    with ExitStack() as stack:
        corp = stack.enter_context(oidc_provider([client], ca_file=where.certificate.cert_file))
        rest = ROUTES.format(shop=SHOP, help=HELP, issuer=corp.issuer, secret=CLIENT_SECRET)
        store, people = valkey_process.tcp_url, ("ada", "bob")
        running = running_sites(directory, where, store=store, rest=rest, people=people)
        yield Setting(stack.enter_context(running), corp, valkey_process.client)


@pytest.fixture
async def person(setting: Setting) -> AsyncIterator[Person]:
    person = setting.person()
    yield person
    await person.close()


# What people and gateways do --------------------------------------------------------------------


async def go_on(person: Person, arrived: Arrived) -> Arrived:
    """Follow the pages that send a browser on by themselves."""
    while found := list(arrived.page.all("meta", **{"http-equiv": "refresh"})):
        arrived = await person.visit(found[0].attributes["content"].removeprefix("0; url="))
    return arrived


async def by_password(person: Person, wanted: str, name: str) -> Arrived:
    """Open *wanted*, sign in where that leads, and come back."""
    asked = await person.visit(wanted)
    assert asked.url.startswith(f"{LOGIN}/.doorward/login?"), asked.url
    form = asked.page.inputs() | {"username": name, "password": PASSWORD}
    return await go_on(person, await person.visit(asked.url, form=form))


async def by_provider(person: Person, wanted: str) -> Arrived:
    """Do the same at the provider, as ada."""
    asked = await person.visit(wanted)
    page = asked.page
    (link,) = [each for each in page.all("a") if "Example Corp" in page.text_of(each)]
    return await go_on(person, await person.sign_in(LOGIN + link.attributes["href"], "ada"))


def told(arrived: Arrived, wanted: str) -> dict[str, str]:
    """The fields that the backend was sent with *wanted*."""
    assert (arrived.status, arrived.url) == (200, wanted)
    fields: dict[str, str] = json.loads(arrived.body)["fields"]
    return fields


def session_of(fields: Mapping[str, str]) -> str:
    """The digest of the session, as the backend was told it."""
    claims = fields["x-auth-assertion"].split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(f"{claims}=="))["sid"])


async def enter_both(person: Person) -> str:
    """Sign in at the provider for the shop, and be let in at help; return the session's digest."""
    wanted = f"{SHOP}/cart?item=7"
    name = session_of(told(await by_provider(person, wanted), wanted))
    quiet = told(await person.visit(f"{HELP}/topic"), f"{HELP}/topic")
    assert (session_of(quiet), quiet["x-auth-subject"]) == (name, "corp:ada")
    return name


async def me(person: Person, origin: str) -> dict[str, Any]:
    """What the gateway says of the caller at *origin*; `status` for who is nobody."""
    known: dict[str, Any] = json.loads(
        (await person.visit(f"{origin}/.doorward/me", fields=JSON)).body
    )
    return known


async def statuses(person: Person) -> list[int]:
    """200 or 401, for each origin."""
    return [(await me(person, each)).get("status", 200) for each in (LOGIN, SHOP, HELP)]


# The provider -----------------------------------------------------------------------------------


async def test_a_provider_ends_a_session_at_every_site_before_it_hears_200(
    setting: Setting, person: Person
) -> None:
    await enter_both(person)
    assert told(await person.visit(f"{HELP}/token"), f"{HELP}/token")["x-access-token"]
    for _ in range(2):  # both gateways have their copies
        assert await statuses(person) == [200, 200, 200]
    await person.visit(f"{setting.corp.issuer}/heard")
    await person.sign_out(f"{setting.corp.issuer}/session/end")
    heard = await person.visit(f"{setting.corp.issuer}/heard")
    assert (json.loads(heard.body), await statuses(person)) == ([200], [401, 401, 401])


async def test_signing_out_at_a_site_goes_to_the_provider_and_comes_back_there(
    setting: Setting, person: Person
) -> None:
    await enter_both(person)
    page = await person.visit(f"{HELP}/.doorward/logout", form={})
    assert await statuses(person) == [401, 401, 401]
    (refresh,) = page.page.all("meta", **{"http-equiv": "refresh"})
    back = await person.sign_out(refresh.attributes["content"].removeprefix("0; url="))
    assert back.url.startswith(f"{HELP}/.doorward/logout?state=")
    assert "Here, and where you signed in" in back.page.text
    asked = await person.visit(f"{LOGIN}/.doorward/login?provider=corp")
    assert asked.url.startswith(f"{setting.corp.issuer}/interaction/")  # it asks who that is


async def test_a_frame_of_the_provider_ends_a_session_at_every_site(
    setting: Setting, person: Person
) -> None:
    name = await enter_both(person)
    record = msgspec.json.decode(setting.store.get(f"doorward:session:{{{name}}}") or b"")
    asked = urlencode({"iss": setting.corp.issuer, "sid": record["claims"]["sid"]})
    frame = setting.person()  # a frame of another site brings none of our cookies
    assert (await frame.visit(f"{LOGIN}/.doorward/frontchannel-logout?{asked}")).status == 200
    await frame.close()
    assert await statuses(person) == [401, 401, 401]


async def test_a_sites_route_that_asks_for_a_new_sign_in_gets_one_and_the_others_follow(
    person: Person,
) -> None:
    wanted = f"{SHOP}/cart"
    before = session_of(told(await by_provider(person, wanted), wanted))
    asked = await person.visit(f"{HELP}/asked")
    assert "/interaction/" in asked.url  # though there is a session here, and one there
    arrived = await go_on(person, await person.sign_in(asked.url, "ada"))
    after = session_of(told(arrived, f"{HELP}/asked"))
    assert after != before
    assert (await me(person, SHOP))["status"] == 401
    assert session_of(told(await person.visit(wanted), wanted)) == after


# Accounts of our own ----------------------------------------------------------------------------


async def test_a_stronger_sign_in_for_one_site_is_one_for_all(person: Person) -> None:
    """From a password to an authenticator app, on the way to a route that wants one."""
    told(await by_password(person, f"{SHOP}/cart", "ada"), f"{SHOP}/cart")
    page = (set_up := await person.visit(f"{HELP}/vault")).page
    assert set_up.url.startswith(f"{LOGIN}/.doorward/account/authenticator?")
    (typed,) = page.all("code")
    secret = base64.b32decode(page.text_of(typed).replace(" ", ""))
    form = page.inputs() | {"code": code_of(secret, current_step(time.time()))}
    kept = await person.visit(set_up.url, form=form)
    (link,) = kept.page.all("a", **{"class": "button full"})
    arrived = await go_on(person, await person.visit(link.attributes["href"]))
    name = session_of(told(arrived, f"{HELP}/vault"))
    assert (await me(person, HELP))["acr"] == "mfa"
    assert session_of(told(await person.visit(f"{SHOP}/cart"), f"{SHOP}/cart")) == name
    assert (await me(person, SHOP))["acr"] == "mfa"


async def test_sessions_are_counted_listed_and_ended_as_one_for_all_sites(
    setting: Setting,
) -> None:
    people = [setting.person() for _ in range(3)]
    first, second, third = people
    for each in people:
        told(await by_password(each, f"{SHOP}/cart", "bob"), f"{SHOP}/cart")
        told(await each.visit(f"{HELP}/topic"), f"{HELP}/topic")
    assert await statuses(first) == [401, 401, 401]  # two at once, says the route file
    listed = (await second.visit(f"{HELP}/.doorward/sessions", fields=JSON)).body
    assert [each["current"] for each in json.loads(listed)["sessions"]].count(True) == 1
    assert len(json.loads(listed)["sessions"]) == 2
    form = {"everywhere": "1"}
    ended = await third.visit(f"{HELP}/.doorward/logout", form=form, fields=JSON)
    assert json.loads(ended.body)["ended"] == 2
    for each in people:
        assert await statuses(each) == [401, 401, 401]
        await each.close()


async def test_no_origin_but_the_sites_own_changes_anything_there(person: Person) -> None:
    told(await by_password(person, f"{SHOP}/cart", "bob"), f"{SHOP}/cart")
    for path in ("logout", "sessions"):
        for origin in (LOGIN, HELP, "https://evil.example", "null"):
            fields = {"Origin": origin, **JSON}
            refused = await person.post(f"{SHOP}/.doorward/{path}", {"others": "1"}, fields)
            assert refused.status == 403
    assert await statuses(person) == [200, 200, 401]
    form = {"username": "bob", "password": PASSWORD}
    for origin in (SHOP, HELP):
        refused = await person.post(f"{LOGIN}/.doorward/login", form, {"Origin": origin})
        assert refused.status == 403


async def test_a_form_that_comes_after_the_cookie_of_the_site_has_gone_is_kept(
    person: Person,
) -> None:
    """A cookie ends with the session's absolute time; what was typed need not."""
    told(await by_password(person, f"{SHOP}/cart", "bob"), f"{SHOP}/cart")
    person.jar.clear(lambda cookie: cookie.key == "__Host-doorward")
    sent = await person.visit(f"{SHOP}/notes", form={"note": "typed for an hour"})
    assert sent.status == 401
    (link,) = [each for each in sent.page.all("a") if "form" in each.attributes["href"]]
    back = await by_password(person, f"{SHOP}{link.attributes['href']}", "bob")
    assert back.url.startswith(f"{SHOP}/.doorward/form?id=")
    assert "typed for an hour" in back.page.text


# A real browser ---------------------------------------------------------------------------------


@pytest.fixture
async def browser(setting: Setting) -> AsyncIterator[BrowserContext]:
    async with a_browser(setting.sites) as context:
        yield context


async def sign_in(page: Page, name: str) -> None:
    await page.get_by_label("User name").fill(name)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def sign_out(page: Page, site: str) -> None:
    await page.goto(f"{site}/.doorward/logout")
    await page.get_by_role("button", name="Sign out", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("You are signed out")


@pytest.mark.browser
async def test_a_browser_is_offered_a_form_again_at_the_site_and_makes_a_passkey_from_there(
    browser: BrowserContext,
) -> None:
    """Forms, then passkeys: what only a real browser says about origins, in one."""
    shop, help_ = await browser.new_page(), await browser.new_page()
    await shop.goto(f"{SHOP}/write")
    await sign_in(shop, "bob")
    await expect(shop).to_have_url(f"{SHOP}/write")
    await shop.get_by_label("Note").fill("äöü & more")
    await help_.goto(f"{HELP}/topic")
    await sign_out(help_, HELP)
    await help_.close()  # passkeys are for the window in front
    await shop.get_by_role("button", name="Save").click()
    await shop.get_by_role("link", name="Sign in").click()
    await sign_in(shop, "bob")
    await expect(shop).to_have_url(re.compile(re.escape(f"{SHOP}/.doorward/form?id=")))
    await shop.get_by_role("button", name="Send again").click()
    await expect(shop).to_have_url(f"{SHOP}/notes")
    sent = {"note": "äöü & more"}
    await expect(shop.locator("body")).to_contain_text(f'"content": "{urlencode(sent)}"')

    devtools = await browser.new_cdp_session(shop)
    await devtools.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    added = await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    await shop.goto(f"{SHOP}/.doorward/account/passkeys")
    await expect(shop).to_have_url(f"{LOGIN}/.doorward/account/passkeys")
    await shop.get_by_label("Name, so that you know it again").fill("My laptop")
    await shop.get_by_role("button", name="Add a passkey").click()
    await expect(shop.get_by_role("heading", level=1)).to_have_text("Keep these recovery codes")
    which = {"authenticatorId": added["authenticatorId"]}
    made = await devtools.send("WebAuthn.getCredentials", which)
    assert [each["rpId"] for each in made["credentials"]] == ["login.example.com"]
    await sign_out(shop, LOGIN)

    await shop.goto(f"{HELP}/topic")
    await shop.get_by_role("button", name="Sign in with a passkey").click()
    await expect(shop).to_have_url(f"{HELP}/topic")
    await shop.goto(f"{SHOP}/keys")  # which asks for one
    await expect(shop.locator("body")).to_contain_text('"target": "/keys"')
