"""What holds for every answer of the service."""

from typing import Any

import pytest

from auth.login.service import LoginService
from auth.ports import SessionStore, TooManySessions
from auth.session import SessionRecord
from tests.auth.login.conftest import (
    PASSWORD,
    PUBLIC,
    SECRET,
    Site,
    configured,
    cookies_of,
    field,
)
from tests.auth.login.page_reader import PageReader
from tests.auth.session_double import NothingWritten

PATHS = ("/.doorward/login", "/.doorward/logout", "/.doorward/sessions")


@pytest.mark.parametrize("path", [*PATHS, "/.doorward/nothing"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_no_answer_is_kept_framed_or_sniffed(
    site: Site, path: str, method: str, accept: str
) -> None:
    browser = site.browser()
    await browser.sign_in()
    answer = await browser.send(method, path, fields={"accept": accept})
    assert field(answer, "cache-control") == "no-store"
    assert field(answer, "x-content-type-options") == "nosniff"
    if field(answer, "content-type").startswith("text/html"):
        assert field(answer, "x-frame-options") == "DENY"
        assert "default-src 'none'" in field(answer, "content-security-policy")
        assert field(answer, "referrer-policy") == "strict-origin"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_another_method_is_refused_with_those_there_are(
    site: Site, path: str, method: str
) -> None:
    answer = await site.browser().send(method, path)
    assert (answer.status, field(answer, "allow")) == (405, "GET, HEAD, POST")
    assert field(answer, "x-doorward-error") == answer.error == "method_not_allowed"


async def test_another_path_is_not_found(site: Site) -> None:
    answer = await site.browser().get("/.doorward/nothing")
    assert (answer.status, answer.error) == (404, "no_route")
    assert "request-1" in PageReader(answer.body).text


@pytest.mark.parametrize("accept", ["*/*", "", "application/json"])
async def test_who_asks_for_no_page_is_told_in_json_what_is_not_done_here(
    site: Site, accept: str
) -> None:
    for method, path, status in (("GET", "/.doorward/nothing", 404), ("PUT", PATHS[0], 405)):
        answer = await site.browser().send(method, path, fields={"accept": accept})
        assert (answer.status, field(answer, "content-type")) == (
            status,
            "application/problem+json",
        )


@pytest.mark.parametrize("path", PATHS)
async def test_an_answer_that_is_no_error_is_not_marked_as_one(site: Site, path: str) -> None:
    browser = site.browser()
    await browser.sign_in()
    answer = await browser.get(path)
    assert (answer.status, answer.error) == (200, "")
    assert field(answer, "x-doorward-error") == ""


async def test_head_is_answered_as_get(site: Site) -> None:
    browser = site.browser()
    await browser.get(PATHS[0])  # the cookie of the form
    got, head = await browser.get(PATHS[0]), await browser.send("HEAD", PATHS[0])
    assert got == head


async def test_a_page_with_a_form_brings_its_cookie_once(site: Site) -> None:
    browser = site.browser()
    (cookie,) = cookies_of(await browser.get(PATHS[0]))
    name, *attributes = cookie.split("; ")
    assert name.startswith("__Secure-doorward-form=")
    # Its path keeps it from every upstream.
    assert set(attributes) == {"Path=/.doorward/", "HttpOnly", "SameSite=Lax", "Secure"}
    assert cookies_of(await browser.get(PATHS[0])) == []


async def test_a_form_cookie_that_is_none_of_ours_is_replaced(site: Site) -> None:
    browser = site.browser()
    browser.cookies["__Secure-doorward-form"] = "x; Domain=example.com"
    assert cookies_of(await browser.get(PATHS[0]))


async def test_any_gateway_takes_a_form_that_another_one_showed(site: Site) -> None:
    browser = site.browser()
    inputs = PageReader((await browser.get(PATHS[0])).body).inputs()
    site.service = site.service.reconfigured(configured())
    form = inputs | {"username": "ada", "password": PASSWORD}
    assert (await browser.post(PATHS[0], form, {})).status == 303


async def test_over_plain_http_the_cookies_are_not_secure(site: Site) -> None:
    site.service = site.service.reconfigured(configured(public_url="http://127.0.0.1:8080"))
    browser = site.browser()
    answer = await browser.get(PATHS[0])
    assert not any("Secure" in cookie for cookie in cookies_of(answer))
    form = {"username": "ada", "password": PASSWORD}
    answer = await browser.post(PATHS[0], form, {"origin": "http://127.0.0.1:8080"})
    cookie, _ = cookies_of(answer)
    assert cookie.startswith("doorward=")
    assert "Secure" not in cookie


class _FullStore(NothingWritten):
    """A store that takes no session."""

    def __init__(self, store: SessionStore) -> None:
        self.find = store.find

    async def create(self, record: SessionRecord) -> str:
        raise TooManySessions("there are enough")


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_who_has_too_many_sessions_is_told_so_and_signed_in_nowhere(
    site: Site, accept: str
) -> None:
    full: Any = _FullStore(site.store)
    site.service = LoginService(configured(), full, site.accounts, SECRET)
    form = {"username": "ada", "password": PASSWORD}
    browser = site.browser()
    answer = await browser.post("/.doorward/login", form, {"accept": accept, "origin": PUBLIC})
    assert (answer.status, answer.error) == (403, "too_many_sessions")
    assert browser.session == ""
    assert b"Sign out on one of them" in answer.body
