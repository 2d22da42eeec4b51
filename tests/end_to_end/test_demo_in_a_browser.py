"""What a person sees who tries `make run`, in a real browser."""

import os
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.async_api import BrowserContext, Page, async_playwright, expect

from tests.end_to_end.running import CHROMIUM, QUIET, Gateway

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed"
    ),
]


@pytest.fixture
async def browser() -> AsyncIterator[BrowserContext]:
    """A browser without a past."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = await chromium.new_context(locale="en-GB")
        context.set_default_timeout(15_000)
        yield context
        await chromium.close()


async def sign_in(page: Page, login: str, password: str) -> None:
    await page.get_by_label("User name").fill(login)
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def test_a_person_signs_in_writes_a_note_and_is_gone_after_signing_out(
    demo: Gateway, browser: BrowserContext
) -> None:
    page = await browser.new_page()
    await page.goto(demo.url)
    await page.get_by_role("link", name="My notes").click()
    asked = urlsplit(page.url)
    assert asked.path == "/.doorward/login"
    assert parse_qs(asked.query) == {"return_to": [f"{demo.url}/notes"]}

    await sign_in(page, "demo", "not the password")
    await expect(page.get_by_role("alert")).to_be_visible()
    assert await page.get_by_label("User name").input_value() == "demo"

    await sign_in(page, "demo", demo.demo_password)
    await expect(page).to_have_url(f"{demo.url}/notes")
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Demo Person")

    await page.get_by_label("A new note").fill("milk & bread")
    await page.get_by_role("button", name="Add note").click()
    await expect(page.get_by_role("listitem").first).to_contain_text("milk & bread")

    refused = await page.goto(f"{demo.url}/admin")
    assert refused is not None
    assert refused.status == 403
    await expect(page.locator("body")).to_contain_text("admin")

    old = await browser.cookies()
    await page.goto(f"{demo.url}/notes")
    await page.get_by_role("link", name="Sign out").click()
    await page.get_by_role("button", name="Sign out").first.click()
    await expect(page.locator("body")).to_contain_text("signed out")

    await page.go_back()
    await page.goto(f"{demo.url}/notes")
    await expect(page.get_by_label("Password")).to_be_visible()
    await browser.add_cookies(old)  # type: ignore[arg-type] # what cookies() gives is what it takes
    await page.goto(f"{demo.url}/notes")
    await expect(page.get_by_label("Password")).to_be_visible()


async def test_a_form_that_met_an_ended_session_is_offered_again_and_never_sent_by_itself(
    demo: Gateway, browser: BrowserContext
) -> None:
    page = await browser.new_page()
    text = "typed for an hour: <b>&</b>\nin two lines"
    over = [{"name": "doorward", "value": "x" * 43, "url": demo.url}]
    await page.goto(f"{demo.url}/notes")
    await sign_in(page, "demo", demo.demo_password)

    for answer in ("Discard", "Send again"):
        await page.goto(f"{demo.url}/notes")
        await page.get_by_label("A new note").fill(text)
        await browser.add_cookies(over)  # type: ignore[arg-type] # a cookie's own words
        async with page.expect_response(f"{demo.url}/notes") as told:
            await page.get_by_role("button", name="Add note").click()
        assert (await told.value).status == 401
        await expect(page.get_by_text("It is kept for 15 minutes")).to_be_visible()
        await page.get_by_role("link", name="Sign in").click()
        await sign_in(page, "demo", demo.demo_password)

        await expect(page.get_by_role("heading", level=1)).to_have_text("Send it again?")
        await expect(page.get_by_text("POST /notes")).to_be_visible()
        await expect(page.get_by_text("typed for an hour: <b>&</b> in two lines")).to_be_visible()
        other = await browser.new_page()
        await other.goto(f"{demo.url}/notes")
        await expect(other.get_by_text("typed for an hour")).to_have_count(0)
        await other.close()
        await page.get_by_role("button", name=answer).click()
        if answer == "Discard":
            await expect(page).to_have_url(f"{demo.url}/")

    await expect(page).to_have_url(f"{demo.url}/notes")
    await expect(page.get_by_role("listitem").first).to_contain_text("typed for an hour: <b>&</b>")


async def test_an_administrator_sees_the_administrators_page(
    demo: Gateway, browser: BrowserContext
) -> None:
    page = await browser.new_page()
    await page.goto(f"{demo.url}/admin")
    await sign_in(page, "admin", demo.demo_password)

    await expect(page).to_have_url(f"{demo.url}/admin")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Administration")


async def test_new_notes_arrive_by_themselves_in_another_window(
    demo: Gateway, browser: BrowserContext
) -> None:
    first, second = await browser.new_page(), await browser.new_page()
    await first.goto(f"{demo.url}/notes")
    await sign_in(first, "demo", demo.demo_password)
    await second.goto(f"{demo.url}/notes")
    await expect(second.locator("#live")).to_contain_text("Live")

    await first.get_by_label("A new note").fill("seen elsewhere")
    await first.get_by_role("button", name="Add note").click()

    await expect(second.get_by_role("listitem").first).to_contain_text("seen elsewhere")
