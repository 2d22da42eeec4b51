"""A form that met no session: who gets to see it, and what is sent again."""

from urllib.parse import parse_qsl, urlencode

import pytest

from auth.io.kept_forms import FORM_SECONDS, KeptForms
from auth.login.messages import LoginAnswer, SentForm, WayBack
from auth.login.service import LoginService
from auth.login.throttle import FORMS, StoreThrottle
from tests.auth.login.conftest import PUBLIC, SECRET, Browser, Site, configured, field
from tests.auth.login.page_reader import PageReader

FORM = "/.doorward/form"
PAIRS = [("text", "milk & <b>bread</b>"), ("tag", "x"), ("tag", "ü"), ("new-password", "hush!")]


@pytest.fixture
def keeping(site: Site) -> Site:
    site.service = LoginService(
        configured(),
        site.store,
        site.accounts,
        SECRET,
        throttle=StoreThrottle(site.store.commands),
        kept_forms=KeptForms(site.store.commands),
    )
    return site


async def sent(
    site: Site,
    browser: Browser,
    content: bytes = urlencode(PAIRS).encode(),
    *,
    subject: str = "",
    address: str = "192.0.2.1",
) -> WayBack | None:
    """What the gateway hands over when the form of *browser* met no session."""
    form = SentForm("/notes?a=b&c", content, dict(browser.cookies), address, subject)
    kept = await site.service.keep_form(form)
    if kept is not None:
        browser._keep(LoginAnswer(401, kept.fields))
    return kept


def id_of(kept: WayBack | None) -> str:
    assert kept is not None
    path, _, name = kept.path.partition("?id=")
    assert path == FORM
    return name


async def shown(browser: Browser, name: str) -> PageReader:
    answer = await browser.get(FORM, {"id": name})
    assert answer.status == 200
    return PageReader(answer.body)


async def test_a_form_is_offered_after_the_sign_in_as_it_was_sent(keeping: Site) -> None:
    browser = keeping.browser()
    name = id_of(await sent(keeping, browser))
    answer = await browser.get(FORM, {"id": name})
    assert answer.status == 303
    assert "%2F.doorward%2Fform%3Fid%3D" in field(answer, "location")
    back = f"{PUBLIC}{FORM}?id={name}"
    signed_in = await browser.sign_in(return_to=back)
    assert field(signed_in, "location") == back

    page = await shown(browser, name)
    again, discard = page.all("form")
    assert again.attributes["method"] == "post"
    assert again.attributes["action"] == f"{PUBLIC}/notes?a=b&c"
    hidden = [each for each in page.all("input", type="hidden") if each.form == again.form]
    assert [(each.attributes["name"], each.attributes["value"]) for each in hidden] == PAIRS
    assert discard.attributes["action"] == FORM
    assert "POST /notes?…" in page.text
    assert "milk & <b>bread</b>" in page.text
    assert "Ada Lovelace" in page.text
    assert "hush" not in page.text
    assert page.faults == []


async def test_nobody_sees_a_form_before_they_have_signed_in(keeping: Site) -> None:
    browser = keeping.browser()
    name = id_of(await sent(keeping, browser))
    answer = await browser.get(FORM, {"id": name})
    assert (answer.status, b"milk" in answer.body) == (303, False)
    browser.fields["accept"] = "application/json"
    assert (await browser.get(FORM, {"id": name})).status == 401


async def test_a_form_is_its_browsers_own(keeping: Site) -> None:
    browser, stranger = keeping.browser(), keeping.browser()
    name = id_of(await sent(keeping, browser))
    await stranger.sign_in()
    (cookie,) = (each for each in browser.cookies if each.endswith(f"form-{name}"))
    for value in ("", "x" * 43):
        stranger.cookies[cookie] = value
        answer = await stranger.get(FORM, {"id": name})
        assert (answer.status, answer.error) == (404, "form_not_kept")


async def test_who_looks_at_a_form_first_is_the_only_one_who_may(keeping: Site) -> None:
    browser = keeping.browser()
    name = id_of(await sent(keeping, browser))
    await browser.sign_in(username="ada")
    await shown(browser, name)
    await browser.sign_in(username="bob")
    answer = await browser.get(FORM, {"id": name})
    assert (answer.status, answer.error) == (404, "form_not_kept")
    await browser.sign_in(username="ada")
    await shown(browser, name)


async def test_a_form_of_a_session_that_was_too_weak_is_nobody_elses(keeping: Site) -> None:
    browser = keeping.browser()
    subject = keeping.accounts.find("ada").subject
    name = id_of(await sent(keeping, browser, subject=subject))
    await browser.sign_in(username="bob")
    assert (await browser.get(FORM, {"id": name})).status == 404
    await browser.sign_in(username="ada")
    await shown(browser, name)


async def test_what_is_discarded_is_gone_and_only_its_page_discards_it(keeping: Site) -> None:
    browser = keeping.browser()
    name = id_of(await sent(keeping, browser))
    await browser.sign_in()
    foreign = await browser.post(FORM, {"id": name}, {"origin": "https://evil.example"})
    assert (foreign.status, foreign.error) == (403, "foreign_form")
    page = await shown(browser, name)
    answer = await browser.post(FORM, page.inputs(2))
    assert (answer.status, field(answer, "location")) == (303, "/")
    assert not any("form-" in each for each in browser.cookies if "sign-in" in each)
    assert (await browser.get(FORM, {"id": name})).status == 404


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a=%FF",
        b"a=%00",
        "a=ü".encode(),
        b"just text",
        b"&".join([b"a=b"] * 201),
    ],
    ids=["nothing", "no UTF-8", "a control character", "not encoded", "no form", "too many"],
)
async def test_what_a_page_could_not_send_as_it_was_is_not_kept(
    keeping: Site, content: bytes
) -> None:
    assert await sent(keeping, keeping.browser(), content) is None
    assert [key async for key in keeping.store.commands.scan_iter("doorward:form:*")] == []


async def test_one_network_keeps_few_and_all_together_not_many(keeping: Site) -> None:
    browser = keeping.browser()
    kept = [await sent(keeping, browser, b"a=b") for _ in range(FORMS.size + 1)]
    assert [each is not None for each in kept] == [True] * FORMS.size + [False]
    # Others fill the rest: a token of everybody's comes back after seconds, none of one's own does.
    await keeping.store.commands.hset("doorward:attempts:forms", "tokens", "0")
    assert await sent(keeping, browser, b"a=b", address="198.51.100.1") is None
    await keeping.store.commands.hset("doorward:attempts:forms", "tokens", "1")
    assert await sent(keeping, browser, b"a=b", address="198.51.100.1") is not None


async def test_a_browser_that_keeps_many_gives_up_the_oldest(keeping: Site) -> None:
    browser = keeping.browser()
    names = [id_of(await sent(keeping, browser)) for _ in range(6)]
    assert [each for each in browser.cookies if "sign-in-form-" in each] == [
        f"__Host-doorward-sign-in-form-{name}" for name in names[1:]
    ]


async def test_the_cookie_is_as_safe_as_that_of_a_sign_in(keeping: Site) -> None:
    kept = await sent(keeping, keeping.browser())
    assert kept is not None
    ((_, cookie),) = kept.fields
    value, *attributes = cookie.split("; ")
    assert value.startswith("__Host-doorward-sign-in-form-")
    assert set(attributes) == {
        f"Max-Age={FORM_SECONDS}",
        "Path=/",
        "HttpOnly",
        "SameSite=Lax",
        "Secure",
    }


async def test_line_breaks_of_a_text_field_are_there_again_when_a_browser_sends_it(
    keeping: Site,
) -> None:
    """A parser makes one character of CRLF, and a form that is sent writes CRLF (WHATWG HTML)."""
    browser = keeping.browser()
    name = id_of(await sent(keeping, browser, b"text=one%0D%0Atwo"))
    await browser.sign_in()
    page = (await browser.get(FORM, {"id": name})).body
    assert b'value="one\r\ntwo"' in page
    assert parse_qsl("text=one%0D%0Atwo") == [("text", "one\r\ntwo")]
