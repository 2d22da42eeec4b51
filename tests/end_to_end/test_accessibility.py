"""Every page in a real browser, held to axe-core (WCAG 2.2 A and AA, and good practice)."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from playwright.async_api import Page, async_playwright, expect

from auth.login.look import Look
from auth.login.pages import Pages
from auth.wording import built_in
from tests.auth.login.test_pages import BASE, FORM, MISSING, SHOWN
from tests.end_to_end.running import CHROMIUM, QUIET, ROOT

AXE = ROOT / ".venv/axe/node_modules/axe-core/axe.min.js"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        (CHROMIUM is None or not AXE.exists()) and "CI" not in os.environ,
        reason="chromium, or axe-core of npm (make test installs it), is not there",
    ),
]

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PAGES = Pages(Look("app.example.com"))
SHOTS = os.environ.get("DOORWARD_SCREENSHOTS", "")
"""A folder for pictures of every page, for whoever wants to look."""


class Screen(NamedTuple):
    """What somebody looks at."""

    width: int
    height: int
    scheme: Literal["light", "dark"]
    language: str


SCREENS = {
    "phone": Screen(360, 740, "dark", "de"),
    "desktop": Screen(1280, 800, "light", "en"),
}


@asynccontextmanager
async def window_on(screen: Screen) -> AsyncIterator[Page]:
    """A window that shows what it is given, with axe in it."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = await chromium.new_context(
            viewport={"width": screen.width, "height": screen.height}, color_scheme=screen.scheme
        )
        window = await context.new_page()
        yield window
        await chromium.close()


async def show(window: Page, body: bytes) -> None:
    # Without the jump to the next page: it is this one that we want to see.
    html = body.decode().replace('http-equiv="refresh"', 'name="refresh"')
    await window.goto("about:blank")
    await window.set_content(html)
    await window.add_script_tag(path=AXE)


def faults(found: dict[str, Any]) -> list[str]:
    return [
        f"{violation['id']}: {violation['help']}: {node['html']} ({node['failureSummary']})"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("name", SCREENS)
async def test_axe_finds_nothing_and_nothing_is_cut_off(name: str) -> None:
    screen = SCREENS[name]
    options = {"runOnly": {"type": "tag", "values": RULES}}
    spilt = """[...document.querySelectorAll('h1, h2, h3, p, dt, dd, li > div')]
        .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.textContent)"""
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    wrong: dict[str, list[str]] = {}
    async with window_on(screen) as window:
        for shown, (page, values) in SHOWN.items():
            await show(window, PAGES.render(page, BASE | values, built_in()[screen.language]))
            if SHOTS:
                path = Path(SHOTS, f"{shown}-{name}.png")
                await window.screenshot(path=path, full_page=True)
            found = await window.evaluate("options => axe.run(document, options)", options)
            assert len(found["passes"]) > 10
            wrong[shown] = faults(found)
            if await window.evaluate(wider) > 0:
                wrong[shown].append("it is wider than the screen")
            wrong[shown] += await window.evaluate(spilt)  # words that stand over what is beside
    assert {shown: found for shown, found in wrong.items() if found} == {}


async def test_a_form_is_told_in_its_order_and_each_fault_with_its_field() -> None:
    where = "document.activeElement.id || document.activeElement.type"
    visited: list[str] = []
    async with window_on(SCREENS["phone"]) as window:
        await show(window, PAGES.render("login", BASE | FORM | MISSING | {"signed_in_as": ""}))
        await window.locator("#username").focus()
        for _ in range(3):
            visited.append(await window.evaluate(where))
            await window.keyboard.press("Tab")
        for label in ("User name", "Password"):
            field = window.get_by_label(label)
            assert await field.get_attribute("aria-invalid") == "true"
            await expect(field).to_have_accessible_description("Enter it.")
    assert visited == ["username", "password", "submit"]


async def test_axe_is_awake() -> None:
    """A page with faults of the kinds that matter does not pass."""
    broken = b'<html><body><h1>T</h1><input><p style="color:#bbb;background:#fff">Pale words</p>'
    async with window_on(SCREENS["desktop"]) as window:
        await show(window, broken)
        found = await window.evaluate("axe.run()")
    assert {"label", "color-contrast", "html-has-lang", "document-title"} <= {
        each["id"] for each in found["violations"]
    }
