"""The event when somebody signs in from a new device."""

from collections.abc import Callable
from typing import Any

import pytest

from auth.login.known_devices import MOST_DEVICES, KnownDevices, devices_key
from auth.login.service import LoginService
from auth.session import digest
from tests.auth.login.conftest import (
    PASSWORD,
    SECRET,
    Browser,
    Site,
    configured,
    cookies_of,
)
from tests.conftest import Valkey

COOKIE = "__Host-doorward-sign-in-device"
Told = Callable[[], list[dict[str, str]]]


@pytest.fixture
def told(valkey: Valkey) -> Told:
    """What the stream says of new devices."""

    def read() -> list[dict[str, str]]:
        entries: Any = valkey.client.xrange("doorward:events")
        events = [
            {name.decode(): value.decode() for name, value in fields.items()}
            for _, fields in entries
        ]
        return [each for each in events if each["event"] == "session.new_device"]

    return read


@pytest.fixture
def knowing(site: Site) -> Site:
    site.service = LoginService(
        configured(),
        site.store,
        site.accounts,
        SECRET,
        known_devices=KnownDevices(site.store.commands),
    )
    return site


def returning(site: Site, browser: Browser) -> Browser:
    """The same browser, a day later: its session is gone, its device cookie is not."""
    again = site.browser()
    again.cookies = {COOKIE: browser.cookies[COOKIE]}
    return again


async def test_the_first_device_is_no_news_and_the_second_is(knowing: Site, told: Told) -> None:
    first, second = knowing.browser(), knowing.browser()
    await first.sign_in()
    assert told() == []
    second.fields["user-agent"] = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
    await second.sign_in()
    (event,) = told()
    assert event["session"] == digest(second.session)
    assert (event["device"], event["reason"]) == ("Firefox/Linux", "")
    record = await knowing.store.find(digest(second.session))
    assert not isinstance(record, str)
    assert event["subject"] == record.subject


async def test_a_device_that_was_there_before_is_no_news(knowing: Site, told: Told) -> None:
    first, second = knowing.browser(), knowing.browser()
    await first.sign_in()
    await second.sign_in()
    await returning(knowing, first).sign_in()
    await returning(knowing, second).sign_in()
    assert len(told()) == 1


async def test_a_device_is_new_to_each_person_by_themselves(knowing: Site, told: Told) -> None:
    adas, bobs = knowing.browser(), knowing.browser()
    await adas.sign_in()
    await bobs.sign_in(username="bob")
    await returning(knowing, adas).sign_in(username="bob")
    (event,) = told()
    assert event["device"] == ""


async def test_what_is_kept_of_one_browser_does_not_show_who_shares_it(
    knowing: Site, valkey: Valkey
) -> None:
    adas = knowing.browser()
    await adas.sign_in()
    await returning(knowing, adas).sign_in(username="bob")
    keys: Any = valkey.client.keys("doorward:devices:*")
    kept = [valkey.client.zrange(key, 0, -1) for key in keys]
    assert len(kept) == 2
    assert kept[0] != kept[1]


async def test_the_cookie_outlives_sessions_and_no_script_reads_it(knowing: Site) -> None:
    browser = knowing.browser()
    (cookie,) = (each for each in cookies_of(await browser.sign_in()) if each.startswith(COOKIE))
    for part in ("Max-Age=34560000", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
        assert part in cookie


async def test_the_store_keeps_no_value_that_a_browser_sends(knowing: Site, valkey: Valkey) -> None:
    browser = knowing.browser()
    await browser.sign_in()
    record = await knowing.store.find(digest(browser.session))
    assert not isinstance(record, str)
    key = devices_key(record.subject)
    assert record.subject not in key
    names: Any = valkey.client.zrange(key, 0, -1)
    assert [browser.cookies[COOKIE] in name.decode() for name in names] == [False]
    left: Any = valkey.client.ttl(key)
    assert 0 < left <= 400 * 86_400


async def test_no_more_devices_are_kept_than_somebody_has(knowing: Site, valkey: Valkey) -> None:
    browser = knowing.browser()
    await browser.sign_in()
    record = await knowing.store.find(digest(browser.session))
    assert not isinstance(record, str)
    key = devices_key(record.subject)
    valkey.client.zadd(key, {f"device {n}": n for n in range(2 * MOST_DEVICES)})
    await knowing.browser().sign_in()
    assert valkey.client.zcard(key) == MOST_DEVICES
    assert valkey.client.zscore(key, "device 0") is None


@pytest.mark.parametrize("value", ["", "x", "a" * 200, "é" * 22])
async def test_a_cookie_that_is_not_ours_is_replaced(knowing: Site, value: str) -> None:
    browser = knowing.browser()
    browser.cookies[COOKIE] = value
    await browser.sign_in()
    assert browser.cookies[COOKIE] != value
    assert len(browser.cookies[COOKIE]) == 22


async def test_a_program_is_no_device(knowing: Site, told: Told) -> None:
    for _ in range(2):
        program = knowing.browser()
        form = {"username": "ada", "password": PASSWORD}
        answer = await program.post("/.doorward/login", form, {"accept": "application/json"})
        assert answer.status == 200
        assert COOKIE not in program.cookies
    assert told() == []
