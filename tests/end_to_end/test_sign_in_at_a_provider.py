"""Two gateways on one store, and a real OpenID provider: `oidc-provider` of npm, certified."""

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.async_api import Page, async_playwright, expect

from tests.conftest import Valkey
from tests.end_to_end.running import CHROMIUM, QUIET, Gateway, free_port
from tests.providers.running import (
    CLIENT_SECRET,
    Arrived,
    OidcProvider,
    Person,
    oidc_provider,
    registered,
)

pytestmark = pytest.mark.wire

BACK_CHANNEL = "/.doorward/backchannel-logout"
PROVIDER = """
    - id: {id}
      label: {label}
      issuer: {issuer}
      client_id: gateway
      client_secret: {secret}
      namespace: {id}
      own_callback: {own_callback}
      max_age: 1h
"""
ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}"}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "{store}"}}
login:
  accounts: {accounts}
  providers:
{providers}
identity: {{headers: standard, include: [name, email, groups]}}
upstreams: {{app: "http://127.0.0.1:{backend}"}}
routes:
  - {{id: all, match: {{path: /*}}, upstream: app, access: signed-in}}
  - {{id: editors, match: {{path: /edit/*}}, upstream: app, access: {{roles: [editor]}}}}
"""


class Backend(BaseHTTPRequestHandler):
    """Answers with the target and the fields it was sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fields = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"target": self.path, "fields": fields}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


class Setting(NamedTuple):
    """What the tests of this file share."""

    both: str
    """Origin of the gateway with accounts and two providers."""
    only: str
    """Origin of the gateway with one provider and nothing else."""
    corp: OidcProvider
    """Tells the second gateway of a logout, by `sid`."""
    code: OidcProvider
    """Tells the first gateway of a logout, by `sub`; has an address of its own to come back to."""


@pytest.fixture(scope="module")
def setting(valkey_process: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    ports = free_port(), free_port()
    both, only = (f"http://127.0.0.1:{port}" for port in ports)
    valkey_process.flush()
    with ExitStack() as stack:
        backend = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
        backend.daemon_threads = True
        thread = threading.Thread(target=backend.serve_forever, args=(0.05,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(backend.server_close)
        stack.callback(backend.shutdown)
        by_sid = registered(
            [both, only],
            backchannel_logout_uri=f"{only}{BACK_CHANNEL}",
            backchannel_logout_session_required=True,
        )
        by_sub = registered(
            [both],
            redirect_uris=[f"{both}/.doorward/callback/code"],
            backchannel_logout_uri=f"{both}{BACK_CHANNEL}",
            id_token_signed_response_alg="ES256",
        )
        corp = stack.enter_context(oidc_provider([by_sid]))
        code = stack.enter_context(oidc_provider([by_sub]))
        first, second = (
            PROVIDER.format(
                id=name, label=label, issuer=issuer, secret=CLIENT_SECRET, own_callback=own
            )
            for name, label, issuer, own in (
                ("corp", "Example Corp", corp.issuer, "false"),
                ("code", "Code House", code.issuer, "true"),
            )
        )
        shared = {"store": valkey_process.url, "backend": backend.server_address[1]}
        for port, accounts, providers in (
            (ports[0], "true", first + second),
            (ports[1], "false", first),
        ):
            directory = tmp_path_factory.mktemp(f"gateway-{port}")
            (directory / "routes.yaml").write_text(
                ROUTES.format(port=port, accounts=accounts, providers=providers, **shared)
            )
            stack.callback(Gateway(directory, environment={}).stop)
        yield Setting(both, only, corp, code)


@pytest.fixture
async def person() -> AsyncIterator[Person]:
    person = Person()
    yield person
    await person.close()


def told(arrived: Arrived) -> dict[str, str]:
    """The fields that the backend was sent."""
    assert arrived.status == 200, (arrived.url, arrived.body)
    fields: dict[str, str] = json.loads(arrived.body)["fields"]
    return fields


def link(arrived: Arrived, label: str) -> str:
    """The address behind a link of a page."""
    page = arrived.page
    found = [each for each in page.all("a") if label in page.text_of(each)]
    assert len(found) == 1, page.text
    origin = "/".join(arrived.url.split("/", 3)[:3])
    return origin + found[0].attributes["href"]


async def status(person: Person, origin: str, **fields: str) -> int:
    me = f"{origin}/.doorward/me"
    return (await person.visit(me, fields={"Accept": "application/json", **fields})).status


async def heard(person: Person, provider: OidcProvider) -> list[int]:
    """What the provider's back-channel logouts were answered with since this was asked last."""
    statuses: list[int] = json.loads((await person.visit(f"{provider.issuer}/heard")).body)
    return statuses


async def test_a_person_chooses_a_provider_and_comes_back_to_where_they_wanted_to_go(
    setting: Setting, person: Person
) -> None:
    sign_in = await person.visit(f"{setting.both}/edit/1?draft=a%26b")
    assert "User name" in sign_in.page.text

    arrived = await person.sign_in(link(sign_in, "Example Corp"), "ada")

    assert arrived.url == f"{setting.both}/edit/1?draft=a%26b"
    fields = told(arrived)
    assert (fields["x-auth-subject"], fields["x-auth-name"]) == ("corp:ada", "Ada Lovelace")
    assert (fields["x-auth-roles"], fields["x-auth-groups"]) == ("editor", "maths")
    assert fields["x-auth-email"] == "ada@example.com"


async def test_with_only_one_way_to_sign_in_nobody_is_asked_which(
    setting: Setting, person: Person
) -> None:
    arrived = await person.visit(f"{setting.only}/", stay_on=setting.only)
    assert arrived.url.startswith(f"{setting.corp.issuer}/auth?")
    assert told(await person.sign_in(arrived.url, "bob"))["x-auth-subject"] == "corp:bob"


async def test_the_same_name_at_two_providers_is_two_people(
    setting: Setting, person: Person
) -> None:
    sign_in = await person.visit(f"{setting.both}/")
    first = told(await person.sign_in(link(sign_in, "Example Corp"), "ada"))
    second = told(await person.sign_in(link(sign_in, "Code House"), "ada"))
    assert (first["x-auth-subject"], second["x-auth-subject"]) == ("corp:ada", "code:ada")


async def test_an_address_that_the_provider_has_not_verified_is_not_passed_on(
    setting: Setting, person: Person
) -> None:
    fields = told(await person.sign_in(f"{setting.only}/", "bob"))
    assert "x-auth-email" not in fields


async def test_tabs_that_sign_in_at_once_all_arrive(setting: Setting, person: Person) -> None:
    begun = await asyncio.gather(
        *(person.visit(f"{setting.only}/tab/{n}", stay_on=setting.only) for n in range(4))
    )
    for number, tab in reversed(list(enumerate(begun))):
        arrived = await person.sign_in(tab.url, "ada")
        assert arrived.url == f"{setting.only}/tab/{number}"
        assert told(arrived)["x-auth-subject"] == "corp:ada"


async def test_what_binds_a_sign_in_to_a_browser_stays_from_upstreams_and_ends_with_it(
    setting: Setting, person: Person
) -> None:
    await person.visit(f"{setting.only}/", stay_on=setting.only)  # left lying
    arrived = await person.sign_in(f"{setting.only}/", "ada")
    kept = [name for name in person.cookies if name.startswith("doorward-sign-in-")]
    assert len(kept) == 3  # the one left lying, the time of this sign-in, and the device
    assert "doorward" not in told(arrived).get("cookie", "")


async def test_a_sign_in_in_place_of_another_ends_that(setting: Setting, person: Person) -> None:
    await person.sign_in(f"{setting.only}/", "ada")
    old = person.cookies["doorward"]
    begin = f"{setting.only}/.doorward/login?provider=corp&return_to=/"
    await person.sign_in(begin, "ada")
    assert person.cookies["doorward"] != old
    thief = Person()
    assert await status(thief, setting.only, Cookie=f"doorward={old}") == 401
    await thief.close()


async def test_another_browser_cannot_finish_a_sign_in_nor_spoil_it(
    setting: Setting, person: Person
) -> None:
    """Login CSRF (RFC 9700 section 4.7)."""
    begun = await person.visit(f"{setting.only}/", stay_on=setting.only)
    callback = (await person.sign_in(begun.url, "ada", stay_on=setting.corp.issuer)).url
    assert callback.startswith(f"{setting.only}/.doorward/callback?")

    victim = Person()
    tried = await victim.visit(callback)
    assert (tried.status, "doorward" in victim.cookies) == (400, False)
    assert tried.fields["X-Doorward-Error"] == "sign_in_cookie_missing"
    assert "cookie" in tried.page.text
    await victim.close()

    assert told(await person.visit(callback))["x-auth-subject"] == "corp:ada"


async def test_a_way_back_is_for_one_use(setting: Setting, person: Person) -> None:
    begun = await person.visit(f"{setting.only}/", stay_on=setting.only)
    binding = {name: each for name, each in person.cookies.items() if "-sign-in-" in name}
    callback = (await person.sign_in(begun.url, "ada", stay_on=setting.corp.issuer)).url
    await person.visit(callback)
    thief = Person()
    cookies = "; ".join(f"{name}={value}" for name, value in binding.items())
    tried = await thief.visit(callback, fields={"Cookie": cookies})
    assert tried.fields["X-Doorward-Error"] == "sign_in_expired"
    assert (tried.status, "doorward" in thief.cookies) == (400, False)
    await thief.close()


async def test_whom_the_provider_turns_away_is_told_so_and_may_try_again(
    setting: Setting, person: Person
) -> None:
    arrived = await person.sign_in(f"{setting.only}/notes/1", "mallory")
    assert (arrived.status, arrived.fields["X-Doorward-Error"]) == (403, "provider_denied")
    assert "mallory" not in arrived.page.text
    assert re.search(r"mention this request: [0-9a-f]{32}", arrived.page.text)
    again = await person.sign_in(link(arrived, "Try again"), "ada")
    assert again.url == f"{setting.only}/notes/1"


async def test_the_provider_ends_one_session_on_both_gateways_before_it_hears_200(
    setting: Setting, person: Person
) -> None:
    other = Person()
    await other.sign_in(f"{setting.both}/.doorward/login?provider=corp", "ada")
    await person.sign_in(f"{setting.both}/.doorward/login?provider=corp", "ada")
    for _ in range(2):  # both gateways have a copy of both
        assert [await status(each, setting.both) for each in (person, other)] == [200, 200]
        assert [await status(each, setting.only) for each in (person, other)] == [200, 200]

    await heard(person, setting.corp)
    await person.sign_out(f"{setting.corp.issuer}/session/end")
    assert await heard(person, setting.corp) == [200]

    assert [await status(person, origin) for origin in (setting.both, setting.only)] == [401, 401]
    assert await status(other, setting.both) == 200  # by sid: another browser, another session
    await other.close()


async def test_the_provider_ends_every_session_of_a_person(
    setting: Setting, person: Person
) -> None:
    others = [Person(), Person()]
    for each in (person, *others):
        await each.sign_in(f"{setting.both}/.doorward/login?provider=code", "bob")
        assert await status(each, setting.only) == 200

    await person.sign_out(f"{setting.code.issuer}/session/end")
    assert await heard(person, setting.code) == [200]

    for each in (person, *others):
        assert [await status(each, origin) for origin in (setting.both, setting.only)] == [401] * 2
    for each in others:
        await each.close()


async def test_signing_out_here_signs_out_at_the_provider_and_comes_back(
    setting: Setting, person: Person
) -> None:
    await person.sign_in(f"{setting.only}/", "ada")
    page = await person.visit(f"{setting.only}/.doorward/logout", form={})
    (refresh,) = page.page.all("meta", **{"http-equiv": "refresh"})
    assert await status(person, setting.only) == 401

    url = refresh.attributes["content"].removeprefix("0; url=")
    assert url.startswith(f"{setting.corp.issuer}/session/end?")
    back = await person.sign_out(url)

    assert back.url.startswith(f"{setting.only}/.doorward/logout?state=")
    assert "Here, and where you signed in" in back.page.text
    asked = await person.visit(f"{setting.only}/")
    assert "/interaction/" in asked.url  # the provider asks for a name again


async def test_a_program_is_told_where_signing_out_goes_on(
    setting: Setting, person: Person
) -> None:
    await person.sign_in(f"{setting.only}/", "ada")
    answer = await person.visit(
        f"{setting.only}/.doorward/logout", form={}, fields={"Accept": "application/json"}
    )
    told = json.loads(answer.body)
    assert told["ended"] == 1
    assert told["continue_at"].startswith(f"{setting.corp.issuer}/session/end?")


async def test_a_parameter_that_comes_twice_is_no_answer(setting: Setting, person: Person) -> None:
    """D6: which of the two would count?"""
    begun = await person.visit(f"{setting.only}/", stay_on=setting.only)
    callback = (await person.sign_in(begun.url, "ada", stay_on=setting.corp.issuer)).url
    for again in ("state", "code", "iss"):
        value = parse_qs(urlsplit(callback).query)[again][0]
        refused = await person.visit(f"{callback}&{again}={quote(value)}")
        assert (refused.status, "doorward" in person.cookies) == (400, False)
    assert told(await person.visit(callback))["x-auth-subject"] == "corp:ada"

    form = [("logout_token", "x"), ("logout_token", "y")]
    refused = await person.visit(f"{setting.only}{BACK_CHANNEL}", form=form)
    assert (refused.status, refused.fields["Cache-Control"]) == (400, "no-store")


async def test_a_page_elsewhere_is_never_where_a_sign_in_ends(
    setting: Setting, person: Person
) -> None:
    begin = f"{setting.only}/.doorward/login?return_to={quote('https://evil.example/')}"
    assert (await person.sign_in(begin, "ada")).url == f"{setting.only}/"


async def test_a_browser_that_loses_its_session_cookie_does_not_go_round_for_ever(
    setting: Setting, person: Person
) -> None:
    await person.sign_in(f"{setting.only}/", "ada")
    url = f"{setting.only}/notes"
    for _ in range(3):
        person.jar.clear(lambda cookie: cookie.key == "doorward")
        arrived = await person.visit(url, stay_on=setting.only)
        if arrived.status == 400:
            break
        back = await person.visit(arrived.url, stay_on=setting.corp.issuer)
        url = (await person.visit(back.url, stay_on=f"{setting.only}/.doorward/")).url
    assert (arrived.status, arrived.fields["X-Doorward-Error"]) == (400, "sign_in_loop")
    assert "does not send the session cookie back" in arrived.page.text


@pytest.fixture
async def window() -> AsyncIterator[Page]:
    """A window of a real browser without a past."""
    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = await chromium.new_context(locale="en-GB")
        context.set_default_timeout(15_000)
        yield await context.new_page()
        await chromium.close()


@pytest.mark.browser
async def test_a_real_browser_signs_in_and_out_and_nothing_of_ours_stands_in_its_way(
    setting: Setting, window: Page
) -> None:
    """Our content security policy, cookies and redirects, as a browser takes them."""
    await window.goto(f"{setting.both}/notes?a=1")
    await window.get_by_role("link", name="Continue with Example Corp").click()
    await window.get_by_label("Name").fill("ada")
    await window.get_by_role("button", name="Continue").click()
    await window.get_by_role("button", name="Continue").click()
    await expect(window).to_have_url(f"{setting.both}/notes?a=1")
    await expect(window.locator("body")).to_contain_text('"x-auth-subject": "corp:ada"')

    await window.goto(f"{setting.both}/.doorward/logout")
    await window.get_by_role("button", name="Sign out", exact=True).click()
    await window.get_by_role("button", name="Yes, sign me out").click()  # at the provider
    await expect(window).to_have_url(re.compile(re.escape(f"{setting.both}/.doorward/logout?")))
    await expect(window.get_by_role("heading", level=1)).to_have_text("You are signed out")

    await window.goto(f"{setting.both}/notes")
    await expect(window.get_by_role("link", name="Continue with Example Corp")).to_be_visible()


async def test_when_a_provider_goes_down_whoever_is_signed_in_stays_so(
    setting: Setting, person: Person
) -> None:
    """The last test of this file: the provider does not come back."""
    begin = f"{setting.both}/.doorward/login?provider=code&return_to=/notes"
    await person.sign_in(begin, "ada")
    other = Person()
    begun = await other.visit(begin, stay_on=setting.both)
    callback = (await other.sign_in(begun.url, "bob", stay_on=setting.code.issuer)).url
    setting.code.kill()

    late = await other.visit(callback)

    assert (late.status, late.fields["X-Doorward-Error"]) == (503, "provider_unreachable")
    assert "Code House does not answer" in late.page.text
    assert late.fields["Retry-After"] == "5"
    # Who begins now is told at once, and not sent into nothing.
    told = await other.visit(begin, stay_on=setting.both)
    assert (told.status, told.fields["X-Doorward-Error"]) == (503, "provider_unreachable")
    assert told.url.startswith(f"{setting.both}/.doorward/login?")
    assert "Code House does not answer right now" in told.page.text
    assert await status(person, setting.both) == 200
    await other.close()
