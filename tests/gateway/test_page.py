"""The page for people."""

import base64
import hashlib
import re

from gateway.page import Link, Page, render_page

PAGE = Page(403, "You may not see this", "Roles & <rules>", (Link("/a?b=1&c=2", "Go"),), "r-1")


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    body, policy = render_page(PAGE)
    (style,) = re.findall(rb"<style>(.*?)</style>", body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = render_page(PAGE)[0].decode()
    assert not re.search(r"<script|<link|<img|src=|@import|url\(|style=|\bon\w+=", text)


def test_whatever_it_is_told_is_escaped() -> None:
    text = render_page(PAGE)[0].decode()
    assert "Roles &amp; &lt;rules&gt;" in text
    assert "<rules>" not in text
    assert 'href="/a?b=1&amp;c=2"' in text


def test_it_names_the_request_for_whoever_is_asked_for_help() -> None:
    assert "<code>r-1</code>" in render_page(PAGE)[0].decode()


def test_it_is_legible_in_the_dark_and_to_a_screen_reader() -> None:
    text = render_page(PAGE)[0].decode()
    for part in ('lang="en"', "prefers-color-scheme: dark", "<main>", "<h1>", "aria-label"):
        assert part in text
