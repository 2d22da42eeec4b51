"""One-time links, on both databases."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from auth.io.database import open_database
from auth.login.account import Account
from auth.login.accounts import Accounts
from auth.login.one_time import PASSWORDS, REGISTRATION, LinkIsOver, OneTimeLinks, Purpose
from auth.login.passwords import UnsuitablePassword
from auth.ports import AuthUnavailable

PASSWORD = "correct horse battery"
ANOTHER = "another good one"


class Clock:
    now = 1_795_345_561.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def accounts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Accounts]:
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_url()
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    accounts = Accounts(open_database(url, tmp_path / "accounts.sqlite3"), hasher=hasher)
    yield accounts
    accounts.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def links(accounts: Accounts, clock: Clock) -> OneTimeLinks:
    return OneTimeLinks(accounts, clock=clock)


@pytest.fixture
def ada(accounts: Accounts) -> Account:
    return accounts.add("ada", PASSWORD, email="ada@example.com")


async def test_a_link_sets_a_password(
    links: OneTimeLinks, accounts: Accounts, ada: Account
) -> None:
    secret = links.make(Purpose.RESET, ada, lifetime=60)
    changed = links.set_password(secret, ANOTHER)
    assert (changed.subject, changed.revision) == (ada.subject, ada.revision + 1)
    assert await accounts.sign_in("ada", PASSWORD) is None
    assert await accounts.sign_in("ada", ANOTHER) == changed


async def test_who_was_invited_signs_in_with_the_password_that_they_set_and_none_before(
    links: OneTimeLinks, accounts: Accounts
) -> None:
    bob = accounts.add("bob", None)
    for guess in ("", "bob", PASSWORD):
        assert await accounts.sign_in("bob", guess) is None
    links.set_password(links.make(Purpose.INVITATION, bob, lifetime=60), PASSWORD)
    assert await accounts.sign_in("bob", PASSWORD) is not None


def test_a_link_is_good_once(links: OneTimeLinks, ada: Account) -> None:
    secret = links.make(Purpose.RESET, ada, lifetime=60)
    links.set_password(secret, ANOTHER)
    with pytest.raises(LinkIsOver):
        links.set_password(secret, "a third good one")
    with pytest.raises(LinkIsOver):
        links.find(secret, PASSWORDS)


def test_of_many_that_use_a_link_at_once_one_does(links: OneTimeLinks, ada: Account) -> None:
    secret = links.make(Purpose.RESET, ada, lifetime=60)
    together = threading.Barrier(6)
    results: list[str] = []

    def use(number: int) -> None:
        together.wait(10)
        try:
            links.set_password(secret, f"a good password {number}")
            results.append("set")
        except LinkIsOver:
            results.append("over")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["over"] * 5 + ["set"]


def test_looking_at_a_link_uses_nothing_up(links: OneTimeLinks, ada: Account) -> None:
    """Mail scanners look at links before people do."""
    secret = links.make(Purpose.RESET, ada, lifetime=60)
    for _ in range(3):
        assert links.find(secret, PASSWORDS).subject == ada.subject
    links.set_password(secret, ANOTHER)


@pytest.mark.parametrize("after", [60.0, 61.0, 1e6])
def test_a_link_ends_with_its_time(
    links: OneTimeLinks, ada: Account, clock: Clock, after: float
) -> None:
    secret = links.make(Purpose.RESET, ada, lifetime=60)
    clock.now += after
    with pytest.raises(LinkIsOver):
        links.find(secret, PASSWORDS)
    with pytest.raises(LinkIsOver):
        links.set_password(secret, ANOTHER)


async def test_a_link_for_one_purpose_is_good_for_no_other(
    links: OneTimeLinks, accounts: Accounts, ada: Account
) -> None:
    reset = links.make(Purpose.RESET, ada, lifetime=60)
    registration = links.make_registration("eve@example.com", "Eve", lifetime=60)
    with pytest.raises(LinkIsOver):
        links.find(reset, REGISTRATION)
    with pytest.raises(LinkIsOver):
        links.register(reset, PASSWORD, tenant="", roles=(), publish=lambda _: None)
    with pytest.raises(LinkIsOver):
        links.set_password(registration, PASSWORD)
    links.find(reset, PASSWORDS)  # neither was used up by that
    links.find(registration, REGISTRATION)
    assert [each.login for each in accounts.all()] == ["ada"]


async def test_a_link_changes_no_account_but_its_own(
    links: OneTimeLinks, accounts: Accounts, ada: Account
) -> None:
    accounts.add("bob", PASSWORD)
    links.set_password(links.make(Purpose.RESET, ada, lifetime=60), ANOTHER)
    assert await accounts.sign_in("bob", PASSWORD) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda accounts: accounts.set_password("ada", ANOTHER),
        lambda accounts: accounts.set_disabled("ada", disabled=True),
        lambda accounts: accounts.change("ada", email="elsewhere@example.com"),
        lambda accounts: accounts.change("ada", roles=["admin"]),
    ],
    ids=["password", "disabled", "address", "roles"],
)
def test_a_link_from_before_a_change_is_over(
    links: OneTimeLinks, accounts: Accounts, ada: Account, change: "object"
) -> None:
    secret = links.make(Purpose.RESET, ada, lifetime=60)
    assert callable(change)
    change(accounts)
    with pytest.raises(LinkIsOver):
        links.find(secret, PASSWORDS)
    with pytest.raises(LinkIsOver):
        links.set_password(secret, "a third good one")


def test_using_one_link_takes_back_the_others_of_the_account(
    links: OneTimeLinks, accounts: Accounts, ada: Account
) -> None:
    bob = accounts.add("bob", PASSWORD)
    of_bob = links.make(Purpose.RESET, bob, lifetime=60)
    one, other = (links.make(Purpose.RESET, ada, lifetime=60) for _ in range(2))
    links.set_password(one, ANOTHER)
    with accounts.database.reading() as connection:
        rows = connection.execute("SELECT subject FROM one_time_tokens")
    assert rows == [(bob.subject,)]
    with pytest.raises(LinkIsOver):
        links.set_password(other, "a third good one")
    links.find(of_bob, PASSWORDS)


def test_no_secret_is_kept(links: OneTimeLinks, accounts: Accounts, ada: Account) -> None:
    secrets = [
        links.make(Purpose.INVITATION, ada, lifetime=60),
        links.make_registration("eve@example.com", "Eve", lifetime=60),
    ]
    assert len(set(secrets)) == 2
    with accounts.database.reading() as connection:
        kept = repr(connection.execute("SELECT * FROM one_time_tokens"))
    assert [secret for secret in secrets if secret in kept] == []
    assert all(len(secret) >= 43 for secret in secrets)  # 256 bits


@pytest.mark.parametrize("secret", ["", "x", "\udc80", "' OR 1=1 --", "x" * 10_000])
def test_what_never_was_a_link_is_over(links: OneTimeLinks, ada: Account, secret: str) -> None:
    with pytest.raises(LinkIsOver):
        links.set_password(secret, PASSWORD)


def test_an_unsuitable_password_leaves_the_link(links: OneTimeLinks, ada: Account) -> None:
    secret = links.make(Purpose.RESET, ada, lifetime=60)
    with pytest.raises(UnsuitablePassword):
        links.set_password(secret, "short")
    links.set_password(secret, ANOTHER)


def test_links_that_are_over_do_not_pile_up(
    links: OneTimeLinks, accounts: Accounts, ada: Account, clock: Clock
) -> None:
    for _ in range(3):
        links.make(Purpose.RESET, ada, lifetime=60)
        clock.now += 61
    with accounts.database.reading() as connection:
        assert connection.execute("SELECT count(*) FROM one_time_tokens") == [(1,)]


async def test_a_registration_makes_an_account_and_tells_of_it(
    links: OneTimeLinks, accounts: Accounts
) -> None:
    secret = links.make_registration("Eve@Example.com", "Eve", lifetime=60)
    told: list[Account] = []
    made = links.register(secret, PASSWORD, tenant="acme", roles=["member"], publish=told.append)
    assert told == [made]
    assert (made.login, made.email, made.name) == ("eve@example.com", "eve@example.com", "Eve")
    assert (made.tenant, made.roles, made.groups) == ("acme", ("member",), ())
    assert await accounts.sign_in("EVE@example.com", PASSWORD) == made
    with pytest.raises(LinkIsOver):
        links.register(secret, PASSWORD, tenant="", roles=(), publish=told.append)


def test_a_registration_that_nobody_could_be_told_of_did_not_happen(
    links: OneTimeLinks, accounts: Accounts
) -> None:
    def fail(_: Account) -> None:
        raise AuthUnavailable("no store")

    secret = links.make_registration("eve@example.com", "Eve", lifetime=60)
    with pytest.raises(AuthUnavailable):
        links.register(secret, PASSWORD, tenant="", roles=(), publish=fail)
    assert accounts.all() == []
    links.register(secret, PASSWORD, tenant="", roles=(), publish=lambda _: None)


def test_an_address_that_somebody_has_by_now_is_not_registered_again(
    links: OneTimeLinks, accounts: Accounts
) -> None:
    first, second = (
        links.make_registration("eve@example.com", "Eve", lifetime=60) for _ in range(2)
    )
    third = links.make_registration("bob@example.com", "Bob", lifetime=60)
    links.register(first, PASSWORD, tenant="", roles=(), publish=lambda _: None)
    accounts.add("bob@example.com", PASSWORD)
    for secret in (second, third):
        with pytest.raises(LinkIsOver):
            links.register(secret, ANOTHER, tenant="", roles=(), publish=lambda _: None)
    assert len(accounts.all()) == 2


def test_links_may_be_taken_back(links: OneTimeLinks, ada: Account) -> None:
    secret = links.make(Purpose.INVITATION, ada, lifetime=60)
    links.take_back(ada)
    with pytest.raises(LinkIsOver):
        links.find(secret, PASSWORDS)
