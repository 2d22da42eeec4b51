"""From an invitation to an account without a password, in Chromium with a virtual authenticator."""

import base64
import json
import os
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.async_api import CDPSession, Page, async_playwright, expect

from auth.login.totp import code_of, current_step
from tests.end_to_end.running import CHROMIUM, DOORWARD, QUIET, ROOT, Gateway, free_port

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed"
    ),
]

AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"
SHOTS = os.environ.get("DOORWARD_SCREENSHOTS", "")
PASSWORD = "correct horse battery"
ROUTES = """
version: 1
server: {{listen: "127.0.0.1:{port}", public_url: "http://localhost:{port}"}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: embedded}}
upstreams: {{app: "http://127.0.0.1:9"}}
routes:
  - {{id: vault, match: {{path: /vault}}, upstream: app, access: {{acr: phr}}}}
  - {{id: all, match: {{path: /*}}, upstream: app, access: signed-in}}
"""


class Place(NamedTuple):
    """A gateway, and where browsers find it."""

    gateway: Gateway
    url: str

    def doorward(self, *arguments: str) -> str:
        """Run `doorward accounts …` beside it, and return what it says."""
        config = ("--config", str(self.gateway.directory / "routes.yaml"))
        command = [str(DOORWARD), "accounts", *arguments, *config]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    port, tmp_path = free_port(), tmp_path_factory.mktemp("gateway")
    (tmp_path / "routes.yaml").write_text(ROUTES.format(port=port))
    gateway = Gateway(tmp_path, environment={})
    yield Place(gateway, f"http://localhost:{port}")
    gateway.stop()


class Window(NamedTuple):
    """A page, and the authenticator that its browser has."""

    page: Page
    devtools: CDPSession
    authenticator: str

    async def look(self, name: str) -> None:
        """Hold what is shown to axe-core, if it is there; take a picture, if somebody wants one."""
        if SHOTS:
            for width in (360, 1280):
                await self.page.set_viewport_size({"width": width, "height": 800})
                path = Path(SHOTS, f"passkeys-{name}-{width}.png")
                await self.page.screenshot(path=path, full_page=True)
        if AXE.exists():
            await self.page.evaluate(AXE.read_text())
            found = await self.page.evaluate("axe.run()")
            assert found["violations"] == []

    async def sign_counts(self) -> list[int]:
        told = await self.devtools.send(
            "WebAuthn.getCredentials", {"authenticatorId": self.authenticator}
        )
        return [each["signCount"] for each in told["credentials"]]


@pytest.fixture
async def window() -> AsyncIterator[Window]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = await chromium.new_context(locale="en-GB")
        context.set_default_timeout(30_000)
        page = await context.new_page()
        devtools = await context.new_cdp_session(page)
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
        yield Window(page, devtools, added["authenticatorId"])
        await chromium.close()


async def identity(window: Window, place: Place) -> dict[str, object]:
    """What the gateway says of the caller."""
    answer = await window.page.request.get(f"{place.url}/.doorward/me")
    told: dict[str, object] = json.loads(await answer.text())
    return told


async def set_password(page: Page, link: str) -> None:
    await page.goto(link)
    await page.get_by_label("New password").fill(PASSWORD)
    await page.get_by_label("Once more").fill(PASSWORD)
    await page.get_by_role("button", name="Set the password").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your password is set")


async def sign_in(page: Page, place: Place, login: str) -> None:
    await page.goto(f"{place.url}/.doorward/login?return_to={place.url}/.doorward/account")
    await page.get_by_label("User name").fill(login)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def set_app_up(page: Page) -> None:
    await (
        page.get_by_role("listitem")
        .filter(has_text="Authenticator app")
        .get_by_role("link", name="Set up")
        .click()
    )
    await enter_code_of_app(page)


async def enter_code_of_app(page: Page) -> None:
    typed = await page.locator(".steps code").inner_text()
    secret = base64.b32decode(typed.replace(" ", ""))
    await page.get_by_label("Code from the app").fill(code_of(secret, current_step(time.time())))
    await page.get_by_role("button", name="Set up").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Keep these recovery codes")


async def add_passkey(window: Window, place: Place) -> None:
    page = window.page
    await page.goto(f"{place.url}/.doorward/account/passkeys")
    await window.look("first")
    await page.get_by_label("Name, so that you know it again").fill("My laptop")
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.get_by_role("heading", name="My laptop")).to_be_visible()
    await window.look("one")


async def sign_out(page: Page, place: Place) -> None:
    await page.goto(f"{place.url}/.doorward/logout")
    await page.get_by_role("button", name="Sign out").first.click()
    await expect(page.locator("body")).to_contain_text("signed out")


async def test_from_an_invitation_to_a_passkey_and_no_password(
    place: Place, window: Window
) -> None:
    page = window.page
    said_by_browser: list[str] = []
    page.on("console", lambda message: said_by_browser.append(message.text))
    said = place.doorward("invite", "ada", "--name", "Ada Lovelace", "--print")
    link = re.search(r"http://\S+", said)
    assert link is not None
    await set_password(page, link[0])
    await sign_in(page, place, "ada")
    await set_app_up(page)
    await page.goto(f"{place.url}/.doorward/account")
    assert (await identity(window, place))["acr"] == "mfa"
    await add_passkey(window, place)
    assert (await identity(window, place))["acr"] == "phr"

    await page.get_by_role("button", name="Remove my password").click()
    await expect(page.get_by_role("status")).to_contain_text("Your password is removed")
    await window.look("alone")
    # The last way in stays.
    await page.get_by_role("button", name="Remove My laptop").click()
    await expect(page.get_by_role("alert").first).to_contain_text("your only way in")
    await page.goto(f"{place.url}/.doorward/account")
    await window.look("account")

    await sign_out(page, place)
    await sign_in(page, place, "ada")
    await expect(page.get_by_role("alert").first).to_contain_text("password is wrong")

    # A route that rules phishing out: sent to sign in, and back.
    before = await window.sign_counts()
    await page.goto(f"{place.url}/vault")
    await window.look("sign-in")
    async with page.expect_navigation(url=f"{place.url}/vault"):
        await page.get_by_role("button", name="Sign in with a passkey").click()
    told = await identity(window, place)
    assert (told["amr"], told["acr"]) == (["hwk", "user", "mfa"], "phr")
    assert await window.sign_counts() > before
    assert not [text for text in said_by_browser if "Content Security Policy" in text]


async def test_after_the_password_and_with_a_route_that_wants_more(
    place: Place, window: Window
) -> None:
    page = window.page
    said = place.doorward("invite", "bob", "--print")
    link = re.search(r"http://\S+", said)
    assert link is not None
    await set_password(page, link[0])
    await sign_in(page, place, "bob")
    assert (await identity(window, place))["acr"] == ""
    # The way to what wants a passkey leads over making one, and on.
    await page.goto(f"{place.url}/vault")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Passkeys")
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Keep these recovery codes")
    async with page.expect_navigation(url=f"{place.url}/vault"):
        await page.get_by_role("link", name="I have kept them").click()

    await sign_out(page, place)
    await sign_in(page, place, "bob")
    await expect(page.get_by_role("heading", level=1)).to_have_text("One more step")
    await window.look("second-factor")
    # Whoever is not recognised is told so, and may try again.
    verified = {"authenticatorId": window.authenticator}
    await window.devtools.send(
        "WebAuthn.setAutomaticPresenceSimulation", {**verified, "enabled": True}
    )
    await window.devtools.send("WebAuthn.clearCredentials", verified)
    await page.get_by_role("button", name="Use your passkey").click()
    await expect(page.get_by_role("alert").first).to_contain_text("No passkey was used")


async def test_who_must_have_a_second_factor_makes_a_passkey_on_the_way_in(
    place: Place, window: Window
) -> None:
    page = window.page
    link = re.search(r"http://\S+", place.doorward("invite", "kim", "--print"))
    assert link is not None
    place.doorward("require-factor", "kim")
    await set_password(page, link[0])
    await sign_in(page, place, "kim")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Set up a second factor")
    await expect(page.get_by_label("Code from the app")).to_be_visible()
    await window.look("must")
    # The authenticator says no: told so, and the app is there still.
    options = {"authenticatorId": window.authenticator, "isUserVerified": False}
    await window.devtools.send("WebAuthn.setUserVerified", options)
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.get_by_role("alert").first).to_contain_text("No passkey was made")
    await window.look("must-not-made")
    await window.devtools.send("WebAuthn.setUserVerified", options | {"isUserVerified": True})
    await page.get_by_role("button", name="Add a passkey").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Keep these recovery codes")
    await window.look("must-codes")
    async with page.expect_navigation(url=f"{place.url}/.doorward/account"):
        await page.get_by_role("link", name="I have kept them").click()
    told = await identity(window, place)
    assert (told["amr"], told["acr"]) == (["pwd", "hwk", "user", "mfa"], "phr")


async def test_without_a_script_everything_else_works(place: Place, window: Window) -> None:
    said = place.doorward("invite", "eve", "--print")
    link = re.search(r"http://\S+", said)
    browser = window.page.context.browser
    assert link is not None
    assert browser is not None
    context = await browser.new_context(java_script_enabled=False, locale="en-GB")
    page = await context.new_page()
    await set_password(page, link[0])
    await page.goto(f"{place.url}/.doorward/login")
    # Chromium shows no `noscript` while it is a tool that keeps scripts from running.
    assert "<noscript><p" in await page.content()
    assert "Passkeys need JavaScript." in await page.content()
    await expect(page.get_by_role("button", name="Sign in with a passkey")).to_be_hidden()
    place.doorward("require-factor", "eve")
    await sign_in(page, place, "eve")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Set up a second factor")
    await expect(page.get_by_role("button", name="Add a passkey")).to_be_hidden()
    await enter_code_of_app(page)
    await page.get_by_role("link", name="I have kept them").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
