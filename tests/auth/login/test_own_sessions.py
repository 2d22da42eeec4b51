"""The caller's own sessions, against a real store."""

import msgspec
import pytest

from auth.session import digest
from tests.auth.login.conftest import PUBLIC, Browser, Site, configured, cookies_of, field
from tests.auth.login.page_reader import PageReader

IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1"
SESSIONS = "/.doorward/sessions"
JSON = {"origin": PUBLIC, "accept": "application/json"}


@pytest.fixture
async def browser(site: Site) -> Browser:
    browser = site.browser()
    await browser.sign_in()
    return browser


@pytest.fixture
async def phone(site: Site, browser: Browser) -> Browser:
    """Another browser of the same person."""
    phone = site.browser()
    await phone.sign_in()
    return phone


@pytest.fixture
async def stranger(site: Site) -> Browser:
    stranger = site.browser()
    await stranger.sign_in(username="bob")
    return stranger


async def test_the_page_lists_the_callers_sessions_this_one_first_and_marked(
    browser: Browser, phone: Browser, stranger: Browser
) -> None:
    page = PageReader((await browser.get(SESSIONS)).body)
    first, second = page.all("li")
    assert "This one" in page.text_of(first)
    assert "This one" not in page.text_of(second)
    assert "Signed in just now" in page.text_of(second)
    ended = {button.attributes.get("value") for button in page.all("button", name="id")}
    assert ended == {digest(phone.session)}


async def test_each_session_says_on_what_and_where_it_began(site: Site, browser: Browser) -> None:
    phone = site.browser()
    phone.fields["user-agent"] = IPHONE
    await phone.sign_in()
    page = PageReader((await browser.get(SESSIONS)).body)
    first, second = page.all("li")
    assert "An unknown device" in page.text_of(first)
    assert "Safari on iPhone" in page.text_of(second)
    assert "From a private network, 192.0.2.1" in page.text_of(second)
    answer = await browser.send("GET", SESSIONS, fields={"accept": "application/json"})
    told = {
        each["device"]: each["address"] for each in msgspec.json.decode(answer.body)["sessions"]
    }
    assert told == {"": "192.0.2.1", "Safari/iPhone": "192.0.2.1"}


async def test_what_a_device_calls_itself_is_not_shown(site: Site, browser: Browser) -> None:
    odd = site.browser()
    odd.fields["user-agent"] = "<script>Call 555-0100 for support</script>"
    await odd.sign_in()
    body = (await browser.get(SESSIONS)).body
    assert b"555-0100" not in body
    assert b"<script" not in body


async def test_no_cookie_value_is_in_the_page(browser: Browser, phone: Browser) -> None:
    body = (await browser.get(SESSIONS)).body
    assert browser.session.encode() not in body
    assert phone.session.encode() not in body


async def test_a_program_gets_the_list_as_json(browser: Browser, phone: Browser) -> None:
    answer = await browser.send("GET", SESSIONS, fields={"accept": "application/json"})
    told = msgspec.json.decode(answer.body)["sessions"]
    assert {(each["id"], each["current"]) for each in told} == {
        (digest(browser.session), True),
        (digest(phone.session), False),
    }
    for each in told:
        assert each["created_at"] < each["expires_at"]
        assert each["seen_at"] is None or each["seen_at"] >= each["created_at"]


async def test_when_it_was_used_is_not_guessed_after_the_idle_time_was_shortened(
    site: Site, browser: Browser
) -> None:
    """The time to live that the store tells of was given with the longer one."""
    settings = configured()
    shorter = msgspec.structs.replace(settings.session, idle_timeout=60.0)
    site.service = site.service.reconfigured(msgspec.structs.replace(settings, session=shorter))
    answer = await browser.send("GET", SESSIONS, fields={"accept": "application/json"})
    (told,) = msgspec.json.decode(answer.body)["sessions"]
    assert told["seen_at"] is None
    assert "Last used" not in PageReader((await browser.get(SESSIONS)).body).text


async def test_the_button_ends_one_session(site: Site, browser: Browser, phone: Browser) -> None:
    page = PageReader((await browser.get(SESSIONS)).body)
    button = page.one("button", name="id")
    form = page.inputs(button.form) | {"id": button.attributes["value"]}
    answer = await browser.post(SESSIONS, form, {})  # an old browser: the token counts
    assert answer.status == 200
    assert "That session has ended" in PageReader(answer.body).text
    assert not await site.is_alive(phone.session)
    assert await site.is_alive(browser.session)


async def test_all_others_end_and_this_one_goes_on(
    site: Site, browser: Browser, phone: Browser, stranger: Browser
) -> None:
    answer = await browser.post(SESSIONS, {"others": "1"})
    assert "One other session has ended" in PageReader(answer.body).text
    assert not await site.is_alive(phone.session)
    assert await site.is_alive(browser.session)
    assert await site.is_alive(stranger.session)
    again = await browser.post(SESSIONS, {"others": "1"})
    assert "There was no other session" in PageReader(again.body).text


async def test_ending_this_one_signs_out(site: Site, browser: Browser) -> None:
    session = browser.session
    answer = await browser.post(SESSIONS, {"id": digest(session)})
    assert "You are signed out" in PageReader(answer.body).text
    assert browser.session == ""
    assert not await site.is_alive(session)


async def test_ending_says_how_it_went(browser: Browser, phone: Browser) -> None:
    for form in ({"id": digest(phone.session)}, {"others": "1"}, {"id": digest(browser.session)}):
        answer = await browser.post(SESSIONS, form, JSON)
        assert set(msgspec.json.decode(answer.body)) == {
            "ended",
            "acknowledged",
            "of",
            "waited_ms",
        }


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_a_session_of_somebody_else_cannot_be_ended(
    site: Site, browser: Browser, stranger: Browser, accept: str
) -> None:
    answers = [
        await browser.post(SESSIONS, {"id": chosen}, JSON | {"accept": accept})
        for chosen in (digest(stranger.session), digest("nobody's"), "x")
    ]
    assert {(answer.status, answer.error) for answer in answers} == {(404, "no_such_session")}
    assert await site.is_alive(stranger.session)


@pytest.mark.parametrize(
    "fields",
    [{}, {"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "same-site"}],
    ids=str,
)
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_another_site_ends_no_session(
    site: Site, browser: Browser, phone: Browser, fields: dict[str, str], accept: str
) -> None:
    for form in ({"id": digest(phone.session)}, {"others": "1"}):
        answer = await browser.post(SESSIONS, form, fields | {"accept": accept})
        assert (answer.status, answer.error) == (403, "foreign_form")
    assert await site.is_alive(phone.session)


async def test_a_form_without_a_choice_ends_nothing(
    site: Site, browser: Browser, phone: Browser
) -> None:
    answer = await browser.post(SESSIONS, {"others": "0"})
    assert (answer.status, answer.error) == (400, "form_incomplete")
    assert await site.is_alive(phone.session)


async def test_a_person_who_is_not_signed_in_is_sent_to_sign_in_and_back(site: Site) -> None:
    page = {"origin": PUBLIC, "accept": "text/html,*/*;q=0.8"}
    for method in ("GET", "POST"):
        answer = await site.browser().send(method, SESSIONS, fields=page)
        assert (answer.status, field(answer, "location")) == (
            303,
            "/.doorward/login?return_to=https%3A%2F%2Fapp.example.com%2F.doorward%2Fsessions",
        )


@pytest.mark.parametrize("accept", ["application/json", "*/*", ""])
async def test_a_program_that_is_not_signed_in_gets_401(site: Site, accept: str) -> None:
    """Contract section 4: whoever is not about to show a page is not sent to one."""
    answer = await site.browser().send("GET", SESSIONS, fields={"accept": accept})
    assert (answer.status, answer.error) == (401, "unauthenticated")
    assert field(answer, "www-authenticate").startswith("Cookie ")
    assert cookies_of(answer) == []
