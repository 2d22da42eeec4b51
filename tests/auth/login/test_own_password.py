"""A person's own password: what changing it takes, and what that ends."""

from threading import BoundedSemaphore

import pytest

from auth.login.service import LoginService
from auth.login.throttle import PAIR, StoreThrottle
from auth.ports import AuthUnavailable
from tests.auth.login.conftest import PASSWORD, SECRET, Site, configured, signed_in
from tests.auth.login.page_reader import PageReader

CHANGE = "/.doorward/account/password"
NEW = "a wholly new password"
FORM = {"password": PASSWORD, "new_password": NEW, "new_password_again": NEW}


async def test_a_new_password_ends_every_other_session_and_renews_this_one(site: Site) -> None:
    browser, other = await signed_in(site), await signed_in(site)
    before = browser.session
    answer = await browser.post(CHANGE, FORM)
    assert answer.status == 200
    assert "Your password is changed" in PageReader(answer.body).text
    assert not await site.is_alive(other.session)
    assert not await site.is_alive(before)
    assert await site.is_alive(browser.session)
    assert await site.accounts.sign_in("ada", NEW)
    assert not await site.accounts.sign_in("ada", PASSWORD)


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"password": "wrong password"}, "wrong_password"),
        ({"password": ""}, "form_incomplete"),
        ({"new_password": ""}, "form_incomplete"),
        ({"new_password_again": "another"}, "passwords_differ"),
        ({"new_password": "short", "new_password_again": "short"}, "unsuitable_password"),
    ],
)
async def test_a_password_is_not_changed_by_half(
    site: Site, form: dict[str, str], error: str
) -> None:
    browser = await signed_in(site)
    answer = await browser.post(CHANGE, FORM | form)
    assert answer.error == error
    assert await site.accounts.sign_in("ada", PASSWORD)
    assert await site.is_alive(browser.session)


async def test_the_current_password_cannot_be_tried_out(site: Site) -> None:
    """The same buckets as a sign-in: a stolen session is no oracle."""
    throttle = StoreThrottle(site.store.commands)
    site.service = LoginService(
        configured(),
        site.store,
        site.accounts,
        SECRET,
        throttle=throttle,
        second_factors=site.service._second_factors,
    )
    browser = await signed_in(site)
    for _ in range(PAIR.size):
        answer = await browser.post(CHANGE, FORM | {"password": "wrong password"})
        assert answer.error == "wrong_password"
    answer = await browser.post(CHANGE, FORM)
    assert (answer.status, answer.error) == (429, "too_many_attempts")
    assert await site.accounts.sign_in("ada", PASSWORD)


async def test_a_store_that_is_out_leaves_the_password_as_it_was(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sessions that it ends would live on."""
    browser = await signed_in(site)

    async def out() -> None:
        raise AuthUnavailable("the store does not answer")

    monkeypatch.setattr(site.store, "settle", out)
    with pytest.raises(AuthUnavailable):
        await browser.post(CHANGE, FORM)
    assert await site.accounts.sign_in("ada", PASSWORD)


async def test_a_new_password_waits_with_the_sign_ins(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hash takes 64 MiB: they are never made beside the queue."""
    browser = await signed_in(site)
    monkeypatch.setattr(site.accounts, "_slots", BoundedSemaphore(1))
    with site.accounts._slots:
        answer = await browser.post(CHANGE, FORM)
    assert (answer.status, answer.error) == (503, "overloaded")
    assert await site.accounts.sign_in("ada", PASSWORD)


async def test_each_fault_of_a_new_password_is_told_with_its_field(site: Site) -> None:
    browser = await signed_in(site)
    for form, faulty in (
        ({"password": "wrong password"}, ["password"]),
        ({"new_password_again": "another"}, ["new_password", "new_password_again"]),
        ({"password": "", "new_password": ""}, ["password", "new_password"]),
    ):
        page = PageReader((await browser.post(CHANGE, FORM | form)).body)
        marked = [each for each in page.elements if each.attributes.get("aria-invalid") == "true"]
        assert [each.attributes["name"] for each in marked] == faulty
