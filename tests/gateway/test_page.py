"""The page for people who are refused."""

import base64
import hashlib
import re

import msgspec

from auth.login.answers import Link
from auth.wording import ENGLISH, built_in
from config.model import Limits, Login, PageSettings
from gateway.page import PLAIN, Page, refusal_pages
from gateway.reading import read_request_head
from tests.auth.login.conftest import configured

PAGE = Page(403, "You may not see this", "Roles & <rules>", (Link("/a?b=1&c=2", "Go"),), "r-1")


def shown(page: Page = PAGE) -> str:
    return PLAIN.render(page, ENGLISH)[0].decode()


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    body, fields = PLAIN.render(PAGE, ENGLISH)
    policy = dict(fields)["Content-Security-Policy"]
    (style,) = re.findall(rb"<style>(.*?)</style>", body, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    assert not re.search(r"<script|<link|<img|src=|@import|url\(|style=|\bon\w+=", shown())


def test_whatever_it_is_told_is_escaped() -> None:
    assert "Roles &amp; &lt;rules&gt;" in shown()
    assert "<rules>" not in shown()
    assert 'href="/a?b=1&amp;c=2"' in shown()


def test_it_names_the_request_for_whoever_is_asked_for_help() -> None:
    assert "<code>r-1</code>" in shown()


def test_it_is_legible_in_the_dark_and_to_a_screen_reader() -> None:
    for part in ('lang="en"', "prefers-color-scheme: dark", "<main>", "<h1>", "aria-label"):
        assert part in shown()


def test_it_names_the_site_if_there_is_one() -> None:
    title = "<title>You may not see this{}</title>"
    assert title.format("") in shown()
    named = refusal_pages(configured()).render(PAGE, ENGLISH)[0].decode()
    assert title.format(" \N{EN DASH} app.example.com") in named


def test_a_site_whose_people_sign_in_elsewhere_goes_by_its_own_name() -> None:
    settings = configured(login=Login(sites=("https://shop.example.com",)))
    names = []
    for each in (settings, msgspec.structs.replace(settings, pages=PageSettings(name="Acme"))):
        for asked in ("shop.example.com", "other.example.com"):
            page = msgspec.structs.replace(PAGE, asked=asked)
            body = refusal_pages(each).render(page, ENGLISH)[0].decode()
            names += re.findall(r"<title>.* \N{EN DASH} (.*)</title>", body)
    assert names == ["shop.example.com", "app.example.com", "Acme", "Acme"]


def test_it_is_in_the_language_of_its_reader() -> None:
    body, fields = PLAIN.render(PAGE, built_in()["de"])
    assert b'<html lang="de">' in body
    assert "Wenn Sie um Hilfe bitten" in body.decode()
    assert dict(fields)["Content-Language"] == "de"


def test_a_sentence_in_another_language_says_so() -> None:
    technical = Page(400, "No", "The Host field is malformed.", (), "r-1", "en")
    assert '<p class="lead" lang="en">' in PLAIN.render(technical, built_in()["de"])[0].decode()
    assert '<p class="lead">' in shown()


def test_the_language_is_the_one_that_the_request_asks_for() -> None:
    for fields, language in (
        ("", "en"),
        ("Accept-Language: de-AT, en;q=0.5\r\n", "de"),
        ("Accept-Language: en;q=0.5\r\nAccept-Language: de\r\n", "de"),
    ):
        raw = f"GET / HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"
        head = read_request_head(raw.encode(), scheme="http", limits=Limits())
        assert PLAIN.wording_for(head).language == language
