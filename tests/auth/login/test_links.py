"""The pages behind links, on a real store and real accounts."""

import re
from typing import Any

import pytest

from auth.io.mail_queue import KEY, MailQueue
from auth.login.assembly import publisher
from auth.login.one_time import OneTimeLinks, Purpose
from auth.login.service import ByMail, LoginService
from auth.login.throttle import LETTERS, StoreThrottle
from auth.ports import AuthUnavailable
from auth.session import digest
from config.model import Login, Mail, Registration, Secret, Webhook
from tests.auth.login.conftest import PASSWORD, SECRET, Browser, Site, configured, field
from tests.auth.login.page_reader import PageReader
from tests.conftest import Valkey
from tests.store_server import nowhere

FORGOT = "/.doorward/forgot-password"
SET = "/.doorward/set-password"
REGISTER = "/.doorward/register"
CONFIRM = "/.doorward/confirm-account"
ANOTHER = "another good one"
MAIL = Mail(webhook=Webhook("http://127.0.0.1:9/mail", Secret("s" * 16)))
OPEN = Login(mail=MAIL, registration=Registration(tenant="acme", roles=("member",)))


def use(site: Site, login: Login, *, throttle: StoreThrottle | None = None) -> None:
    commands = site.store.commands
    site.service = LoginService(
        configured(login=login),
        site.store,
        site.accounts,
        SECRET,
        throttle=throttle,
        by_mail=ByMail(MailQueue(commands), publisher(commands)),
    )


@pytest.fixture
async def mail_site(site: Site) -> Site:
    """The site, where people may ask for links and sign up."""
    use(site, OPEN)
    return site


def events_of(valkey: Valkey) -> list[set[str]]:
    """The names of the fields of each `user.registered`."""
    raw: Any = valkey.client.xrange("doorward:events")
    events = [{name.decode(): value for name, value in fields.items()} for _, fields in raw]
    return [set(each) for each in events if each["event"] == b"user.registered"]


def link_for(site: Site, login: str = "ada", purpose: Purpose = Purpose.RESET) -> str:
    return OneTimeLinks(site.accounts).make(purpose, site.accounts.find(login), lifetime=60)


def registration_for(site: Site, email: str) -> str:
    return OneTimeLinks(site.accounts).make_registration(email, "Eve", lifetime=60)


async def test_a_link_sets_a_password_by_the_form_it_shows(mail_site: Site) -> None:
    browser = mail_site.browser()
    page = PageReader((await browser.get(SET, {"token": link_for(mail_site)})).body)
    assert page.faults == []
    form = page.inputs() | {"password": ANOTHER, "again": ANOTHER}
    answer = await browser.post(SET, form)
    assert answer.status == 200, PageReader(answer.body).text
    assert browser.session == ""  # nobody is signed in by a link
    await browser.sign_in(password=ANOTHER)


async def test_every_session_of_the_account_has_ended_when_the_password_is_set(
    mail_site: Site,
) -> None:
    one, two, bob = (mail_site.browser() for _ in range(3))
    await one.sign_in()
    await two.sign_in()
    await bob.sign_in(username="bob")
    form = {"link": link_for(mail_site), "password": ANOTHER, "again": ANOTHER}
    answer = await mail_site.browser().post(SET, form)
    assert answer.status == 200
    assert not await mail_site.is_alive(one.session)
    assert not await mail_site.is_alive(two.session)
    assert await mail_site.is_alive(bob.session)
    assert await mail_site.store.find(digest(one.session)) == "session_ended"


async def test_without_the_store_nothing_is_set_and_the_link_stays_good(
    mail_site: Site,
) -> None:
    """Else a thief's session would go on after the password that should have ended it."""
    secret = link_for(mail_site)
    await mail_site.store.close()
    with pytest.raises(AuthUnavailable):
        await mail_site.browser().post(SET, {"link": secret, "password": ANOTHER})
    assert await mail_site.accounts.sign_in("ada", PASSWORD) is not None
    OneTimeLinks(mail_site.accounts).set_password(secret, ANOTHER)


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"password": "short", "again": "short"}, 400, "unsuitable_password"),
        ({"password": "ada", "again": "ada"}, 400, "unsuitable_password"),
        ({"password": "", "again": ""}, 400, "form_incomplete"),
        ({"password": ANOTHER, "again": "a different one"}, 400, "passwords_differ"),
        ({"password": ANOTHER, "link": "made-up"}, 410, "link_over"),
        ({"password": ANOTHER, "link": ""}, 410, "link_over"),
    ],
)
@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_what_was_wrong_is_told_and_uses_up_nothing(
    mail_site: Site, form: dict[str, str], status: int, code: str, accept: str
) -> None:
    secret = link_for(mail_site)
    browser = mail_site.browser()
    browser.fields["accept"] = accept
    answer = await browser.post(SET, {"link": secret} | form)
    assert (answer.status, answer.error) == (status, code)
    OneTimeLinks(mail_site.accounts).set_password(secret, ANOTHER)


@pytest.mark.parametrize(("path", "other"), [(SET, CONFIRM), (CONFIRM, SET)])
async def test_a_link_of_another_purpose_opens_nothing(
    mail_site: Site, path: str, other: str
) -> None:
    secret = link_for(mail_site) if other == SET else registration_for(mail_site, "e@example.com")
    browser = mail_site.browser()
    assert (await browser.get(path, {"token": secret})).status == 410
    answer = await browser.post(path, {"link": secret, "password": ANOTHER})
    assert (answer.status, answer.error) == (410, "link_over")
    assert (await browser.get(other, {"token": secret})).status == 200
    assert len(mail_site.accounts.all()) == 2


@pytest.mark.parametrize("path", [SET, CONFIRM, FORGOT, REGISTER])
@pytest.mark.parametrize(
    "fields",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}, {}],
    ids=["foreign", "null", "cross-site", "silent"],
)
async def test_a_form_from_elsewhere_does_nothing(
    mail_site: Site, valkey: Valkey, path: str, fields: dict[str, str]
) -> None:
    email = "e@example.com"
    secret = registration_for(mail_site, email) if path == CONFIRM else link_for(mail_site)
    form = {"link": secret, "password": ANOTHER, "username": "ada", "email": email}
    answer = await mail_site.browser().post(path, form, fields)
    assert (answer.status, answer.error) == (403, "foreign_form")
    assert await mail_site.accounts.sign_in("ada", PASSWORD) is not None
    assert len(mail_site.accounts.all()) == 2
    assert valkey.client.zcard(KEY) == 0


async def test_a_link_leads_nowhere_but_to_the_sign_in(mail_site: Site) -> None:
    """No open redirect: what a letter's reader is sent on to is not in the letter."""
    browser = mail_site.browser()
    query = {"token": link_for(mail_site), "return_to": "https://evil.example/"}
    page = PageReader((await browser.get(SET, query)).body)
    form = page.inputs() | {"password": ANOTHER, "return_to": "https://evil.example/"}
    form["again"] = ANOTHER
    answer = await browser.post(SET, form)
    assert (answer.status, field(answer, "location")) == (200, "")
    assert b"evil" not in answer.body
    assert b'href="/.doorward/login"' in answer.body


async def test_the_answer_does_not_tell_which_names_exist(mail_site: Site, valkey: Valkey) -> None:
    mail_site.accounts.add("eve", PASSWORD, email="eve@example.com")
    mail_site.accounts.set_disabled("eve", disabled=True)
    answers = []
    for name in ("ada", "bob", "eve", "nobody", "ada@example.com", "' OR 1=1 --"):
        answer = await mail_site.browser().post(FORGOT, {"username": name})
        answers.append((answer.status, re.sub(rb'value="[^"]*"', b"", answer.body)))
    assert len(set(answers)) == 1
    assert answers[0][0] == 200
    assert valkey.client.zcard(KEY) == 6  # none was looked up before the answer


async def test_asking_looks_at_no_account(mail_site: Site) -> None:
    """So its time cannot tell either: with the accounts gone it answers the same."""
    with mail_site.accounts.database.writing() as connection:
        connection.execute("DROP TABLE accounts")
    answer = await mail_site.browser().post(FORGOT, {"username": "ada"})
    assert answer.status == 200
    answer = await mail_site.browser().post(REGISTER, {"email": "ada@example.com"})
    assert answer.status == 200


async def test_signing_up_does_not_tell_who_has_an_account(mail_site: Site, valkey: Valkey) -> None:
    bodies = set()
    for email in ("ada@example.com", "new@example.com"):
        answer = await mail_site.browser().post(REGISTER, {"email": email, "name": "E"})
        assert answer.status == 200
        bodies.add(re.sub(rb'value="[^"]*"', b"", answer.body))
    assert len(bodies) == 1
    assert len(mail_site.accounts.all()) == 2
    assert valkey.client.zcard(KEY) == 2


async def test_what_is_asked_for_is_bounded_by_name_and_tells_nothing(
    mail_site: Site,
) -> None:
    use(mail_site, OPEN, throttle=StoreThrottle(mail_site.store.commands))
    for name in ("ada", "nobody"):
        statuses = [
            (await mail_site.browser().post(FORGOT, {"username": name})).status
            for _ in range(LETTERS.size + 1)
        ]
        assert statuses == [200] * LETTERS.size + [429]


async def test_a_confirmed_address_gets_an_account_that_signs_in(
    mail_site: Site, valkey: Valkey
) -> None:
    browser = mail_site.browser()
    secret = registration_for(mail_site, "new@example.com")
    page = PageReader((await browser.get(CONFIRM, {"token": secret})).body)
    assert "new@example.com" in page.text
    form = page.inputs() | {"password": PASSWORD, "again": PASSWORD}
    assert (await browser.post(CONFIRM, form)).status == 200
    await browser.sign_in(username="new@example.com")
    made = mail_site.accounts.find("new@example.com")
    assert (made.tenant, made.roles, made.name) == ("acme", ("member",), "Eve")
    assert events_of(valkey) == [{"event", "subject", "at"}]
    assert made.subject.encode() in repr(valkey.client.xrange("doorward:events")).encode()


async def test_without_the_store_nobody_is_registered(mail_site: Site) -> None:
    """Other services would never hear of them."""
    secret = registration_for(mail_site, "new@example.com")
    async with nowhere() as lost:
        publish = publisher(lost)
        mail_site.service = LoginService(
            configured(login=OPEN),
            mail_site.store,
            mail_site.accounts,
            SECRET,
            by_mail=ByMail(MailQueue(lost), publish),
        )
        with pytest.raises(AuthUnavailable):
            await mail_site.browser().post(CONFIRM, {"link": secret, "password": PASSWORD})
    assert len(mail_site.accounts.all()) == 2


async def test_an_account_cannot_be_prepared_for_somebody_else(mail_site: Site) -> None:
    """Whoever signs up with another's address sets no password: its reader does."""
    form = {"email": "victim@example.com", "password": "the attacker's own"}
    await mail_site.browser().post(REGISTER, form)
    secret = registration_for(mail_site, "victim@example.com")
    await mail_site.browser().post(CONFIRM, {"link": secret, "password": PASSWORD})
    found = await mail_site.accounts.sign_in("victim@example.com", "the attacker's own")
    assert found is None
    assert await mail_site.accounts.sign_in("victim@example.com", PASSWORD) is not None


@pytest.mark.parametrize(
    ("email", "status"),
    [
        ("a@example.com", 200),
        ("a@EXAMPLE.com", 200),
        ("a@sub.example.com", 400),
        ("a@example.com.evil.example", 400),
        ("a@evil.example", 400),
        ("a", 400),
        ("", 400),
        ("a@b\r\nBcc: c@d", 400),
        ("<a@example.com>", 400),
        ("a@example.com,b@evil.example", 400),
    ],
)
async def test_only_addresses_of_the_named_domains_sign_up(
    mail_site: Site, valkey: Valkey, email: str, status: int
) -> None:
    use(mail_site, Login(mail=MAIL, registration=Registration(domains=("example.com",))))
    answer = await mail_site.browser().post(REGISTER, {"email": email})
    assert answer.status == status
    assert valkey.client.zcard(KEY) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    ("login", "offered"),
    [
        (OPEN, {FORGOT, REGISTER}),
        (Login(mail=MAIL), {FORGOT}),
        (Login(), set()),
        (Login(mail=MAIL, accounts=False, registration=Registration()), set()),
        (Login(mail=MAIL, url="https://elsewhere.example/login"), set()),
    ],
    ids=["all", "no registration", "no mail", "no accounts", "elsewhere"],
)
async def test_what_is_not_offered_is_not_there(
    site: Site, login: Login, offered: set[str]
) -> None:
    use(site, login)
    page = (await site.browser().get("/.doorward/login")).body.decode()
    for path in (FORGOT, REGISTER):
        assert (path in page) is (path in offered)
        assert (await site.browser().get(path)).status == (200 if path in offered else 404)
        form = {"username": "ada", "email": "new@example.com"}
        answer = await site.browser().post(path, form)
        assert answer.status == (200 if path in offered else 404)


async def test_an_invitation_works_where_no_mail_is_set(site: Site) -> None:
    """The operator hands it over by other means."""
    use(site, Login())
    site.accounts.add("new", None)
    secret = link_for(site, "new", Purpose.INVITATION)
    browser = site.browser()
    assert (await browser.get(SET, {"token": secret})).status == 200
    assert (await browser.post(SET, {"link": secret, "password": ANOTHER})).status == 200
    await browser.sign_in(username="new", password=ANOTHER)


@pytest.mark.parametrize("path", [FORGOT, REGISTER, SET, CONFIRM])
async def test_the_pages_are_whole_and_nobody_keeps_them(mail_site: Site, path: str) -> None:
    secret = (
        registration_for(mail_site, "e@example.com") if path == CONFIRM else link_for(mail_site)
    )
    browser: Browser = mail_site.browser()
    browser.fields["accept-language"] = "de"
    answer = await browser.get(path, {"token": secret})
    page = PageReader(answer.body)
    assert page.faults == []
    assert field(answer, "content-language") == "de"
    assert field(answer, "cache-control") == "no-store"
    # The secret is in the address: no other site may be told of it, nor a service of this one.
    assert field(answer, "referrer-policy") == "strict-origin"
    assert all(not each.attributes.get("href", "/").startswith("http") for each in page.elements)


@pytest.mark.parametrize(
    ("path", "onward"),
    [(SET, "/.doorward/forgot-password"), ("/.doorward/confirm-account", "/.doorward/register")],
)
async def test_a_link_that_is_over_leads_to_where_another_one_is_asked_for(
    mail_site: Site, path: str, onward: str
) -> None:
    answer = await mail_site.browser().get(path, {"token": "made-up"})
    assert (answer.status, answer.error) == (410, "link_over")
    links = [each.attributes.get("href") for each in PageReader(answer.body).all("a")]
    assert links == [onward, "/"]
