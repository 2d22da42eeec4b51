"""The accounts: real SQLite and PostgreSQL, real argon2id with small parameters."""

import asyncio
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from argon2 import Parameters, PasswordHasher, extract_parameters

from auth.io.database import open_database
from auth.login.account import MAX_LOGIN
from auth.login.accounts import AccountError, Accounts, SignInQueueFull
from auth.login.passwords import MAX_BYTES, UnsuitablePassword
from auth.login.schema import VERSIONS
from auth.ports import AuthUnavailable
from tests.auth.io.database_contract import Reopen

PASSWORD = "correct horse battery"


class CountingHasher(PasswordHasher):
    """A real hasher that notes what it verifies, and may be made to wait."""

    def __init__(self, *, time_cost: int = 1) -> None:
        super().__init__(time_cost=time_cost, memory_cost=8, parallelism=1)
        self.verified: list[Parameters] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]  # noqa: A002 - the library's name
        self.may_go_on.wait(10)
        self.verified.append(extract_parameters(hash if isinstance(hash, str) else hash.decode()))
        return super().verify(hash, password)


@pytest.fixture
def hasher() -> CountingHasher:
    return CountingHasher()


@pytest.fixture(params=["sqlite", "postgresql"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    """Opens the database of the test, as often as it is asked."""
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_url()
    return lambda: open_database(url, tmp_path / "accounts.sqlite3")


@pytest.fixture
def accounts(reopen: Reopen, hasher: CountingHasher) -> Iterator[Accounts]:
    accounts = Accounts(reopen(), hasher=hasher, at_once=1, waiting=1)
    yield accounts
    accounts.close()


async def test_the_right_password_signs_in(accounts: Accounts) -> None:
    added = accounts.add("ada", PASSWORD, name="Ada", roles=["member"])
    assert await accounts.sign_in("ada", PASSWORD) == added


async def test_a_wrong_password_does_not_sign_in(accounts: Accounts) -> None:
    accounts.add("ada", PASSWORD)
    assert await accounts.sign_in("ada", PASSWORD + "!") is None
    assert await accounts.sign_in("ada", "") is None


async def test_a_disabled_account_does_not_sign_in_until_it_is_enabled(accounts: Accounts) -> None:
    accounts.add("ada", PASSWORD)
    accounts.set_disabled("ada", disabled=True)
    assert await accounts.sign_in("ada", PASSWORD) is None
    accounts.set_disabled("ada", disabled=False)
    assert await accounts.sign_in("ada", PASSWORD) is not None


@pytest.mark.parametrize(
    "login", ["nobody", "", "x" * (MAX_LOGIN + 1), "a\x00b", "ada", "eve", "new"]
)
async def test_every_name_costs_one_verification_with_the_same_parameters(
    accounts: Accounts, hasher: CountingHasher, login: str
) -> None:
    """Else the time of a refusal tells which names exist, or are disabled (ASVS 6.3.8)."""
    accounts.add("ada", PASSWORD)
    accounts.add("eve", PASSWORD)
    accounts.set_disabled("eve", disabled=True)
    accounts.add("new", None)  # invited, and without a password yet
    await accounts.sign_in(login, "not this one")
    assert hasher.verified == [extract_parameters(hasher.hash("any"))]


async def test_a_password_longer_than_any_is_refused_without_hashing(
    accounts: Accounts, hasher: CountingHasher
) -> None:
    accounts.add("ada", PASSWORD)
    assert await accounts.sign_in("ada", "x" * (MAX_BYTES + 1)) is None
    assert await accounts.sign_in("ada", "\ufdfa" * MAX_BYTES) is None  # NFKC makes 18 of each
    assert hasher.verified == []


async def test_a_password_with_a_lone_surrogate_is_only_wrong(accounts: Accounts) -> None:
    accounts.add("ada", PASSWORD)
    assert await accounts.sign_in("ada", "\udc80" * 10) is None
    assert await accounts.sign_in("\udc80", PASSWORD) is None


@pytest.mark.parametrize(
    "typed", ["ADA@Example.com", " ada@example.com ", "\uff41\uff44\uff41@example.com"]
)
async def test_a_login_name_is_compared_without_case_and_width(
    accounts: Accounts, typed: str
) -> None:
    accounts.add("Ada@example.com", PASSWORD)
    assert await accounts.sign_in(typed, PASSWORD) is not None


@pytest.mark.parametrize("again", ["ada", "ADA", "\uff41\uff44\uff41"])
def test_a_login_name_is_given_once(accounts: Accounts, again: str) -> None:
    accounts.add("Ada", PASSWORD)
    with pytest.raises(AccountError, match="already an account"):
        accounts.add(again, PASSWORD)
    assert len(accounts.all()) == 1


@pytest.mark.parametrize("login", ["", "  ", "a b", "a\nb", "a\u200bb", "\x1b[2J", "x" * 257])
def test_a_login_name_that_cannot_be_typed_or_shown_is_refused(
    accounts: Accounts, login: str
) -> None:
    with pytest.raises(AccountError, match="login name"):
        accounts.add(login, PASSWORD)


@pytest.mark.parametrize(
    "fault",
    [{"name": "A\nB"}, {"tenant": "a\x7f"}, {"roles": ["a\rb"]}, {"email": "a\x00"}],
    ids=str,
)
def test_control_characters_never_get_into_an_account(
    accounts: Accounts, fault: dict[str, str]
) -> None:
    with pytest.raises(AccountError, match="control characters"):
        accounts.add("ada", PASSWORD, **fault)


def test_a_role_with_a_comma_is_refused_because_upstreams_would_read_two(
    accounts: Accounts,
) -> None:
    with pytest.raises(AccountError, match="comma"):
        accounts.add("ada", PASSWORD, roles=["member,admin"])


def test_an_account_that_backends_could_not_be_told_of_is_refused(accounts: Accounts) -> None:
    with pytest.raises(AccountError, match="take more than 8192 bytes"):
        accounts.add("ada", PASSWORD, name="n" * 9000)
    with pytest.raises(AccountError, match="take more than 8192 bytes"):
        accounts.add("ada", PASSWORD, roles=[f"role-{number}" for number in range(1000)])
    accounts.add("ada", PASSWORD)
    with pytest.raises(AccountError, match="take more than 8192 bytes"):
        accounts.change("ada", groups=["\u00e9" * 1400])
    assert accounts.find("ada").groups == ()


def test_an_unsuitable_password_creates_no_account(accounts: Accounts) -> None:
    with pytest.raises(UnsuitablePassword):
        accounts.add("ada", "short")
    assert accounts.all() == []


def test_a_subject_is_a_guid_and_never_used_twice(accounts: Accounts) -> None:
    subjects = {accounts.add(f"user{number}", PASSWORD).subject for number in range(10)}
    assert len(subjects) == 10
    assert {str(uuid.UUID(subject)) for subject in subjects} == subjects


def test_an_account_is_kept_as_it_was_given(accounts: Accounts, reopen: Reopen) -> None:
    added = accounts.add(
        "Ada",
        PASSWORD,
        name="Ada Lovelace",
        tenant="acme",
        roles=["editor", "admin", "editor", ""],
        groups=[" maths "],
        email="ada@example.com",
    )
    assert (added.login, added.name, added.tenant) == ("Ada", "Ada Lovelace", "acme")
    assert (added.roles, added.groups) == (("editor", "admin"), ("maths",))
    again = Accounts(reopen())
    assert again.all() == [added]
    again.close()


def test_without_a_name_the_login_name_is_shown(accounts: Accounts) -> None:
    assert accounts.add("ada", PASSWORD).name == "ada"


async def test_only_the_new_password_signs_in_after_a_change(accounts: Accounts) -> None:
    accounts.add("ada", PASSWORD)
    accounts.set_password("ADA", "another good one")
    assert await accounts.sign_in("ada", PASSWORD) is None
    assert await accounts.sign_in("ada", "another good one") is not None


@pytest.mark.parametrize("change", ["password", "disabled", "disabled and enabled", "deleted"])
async def test_a_sign_in_does_not_outlive_a_change_made_meanwhile(
    accounts: Accounts, change: str
) -> None:
    accounts.add("ada", PASSWORD)
    account = await accounts.sign_in("ada", PASSWORD)
    assert account is not None
    assert await accounts.current(account) == account
    if change == "password":
        accounts.set_password("ada", "another good one")
    elif change == "deleted":
        with accounts.database.writing() as connection:
            connection.execute("DELETE FROM accounts")
    else:
        accounts.set_disabled("ada", disabled=True)
        if change.endswith("enabled"):
            accounts.set_disabled("ada", disabled=False)
    assert await accounts.current(account) is None


async def test_a_hash_with_old_parameters_is_made_anew_at_the_next_sign_in(
    reopen: Reopen,
) -> None:
    old = Accounts(reopen(), hasher=CountingHasher(time_cost=1))
    old.add("ada", PASSWORD)
    old.close()
    hasher = CountingHasher(time_cost=2)
    accounts = Accounts(reopen(), hasher=hasher)
    first = await accounts.sign_in("ada", PASSWORD)
    second = await accounts.sign_in("ada", PASSWORD)
    accounts.close()
    assert first == second  # nothing of the account changed
    assert [parameters.time_cost for parameters in hasher.verified] == [1, 2]


async def test_a_file_that_cannot_be_written_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "accounts.sqlite3"
    old = Accounts(path, hasher=CountingHasher(time_cost=1))
    old.add("ada", PASSWORD)
    accounts = Accounts(path, hasher=CountingHasher(time_cost=2))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON accounts"
            " BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    assert await accounts.sign_in("ada", PASSWORD) is not None
    accounts.close()
    old.close()


async def test_more_sign_ins_than_fit_are_told_to_come_back(
    accounts: Accounts, hasher: CountingHasher
) -> None:
    accounts.add("ada", PASSWORD)
    hasher.may_go_on.clear()
    running = asyncio.create_task(accounts.sign_in("ada", PASSWORD))
    waiting = asyncio.create_task(accounts.sign_in("ada", PASSWORD))
    await asyncio.sleep(0)  # both have taken their place
    with pytest.raises(SignInQueueFull):
        await accounts.sign_in("ada", PASSWORD)
    hasher.may_go_on.set()
    assert await running == await waiting
    assert await accounts.sign_in("ada", PASSWORD) is not None


async def test_clients_that_go_away_give_their_places_back(
    accounts: Accounts, hasher: CountingHasher
) -> None:
    accounts.add("ada", PASSWORD)
    hasher.may_go_on.clear()
    tasks = [asyncio.create_task(accounts.sign_in("ada", PASSWORD)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    hasher.may_go_on.set()
    async with asyncio.timeout(5):
        while True:  # the hash that was running finishes in its own time
            try:
                assert await accounts.sign_in("ada", PASSWORD) is not None
                break
            except SignInQueueFull:
                await asyncio.sleep(0)


async def test_accounts_that_cannot_be_read_are_an_outage_not_a_wrong_password(
    accounts: Accounts,
) -> None:
    account = accounts.add("ada", PASSWORD)
    with accounts.database.writing() as connection:
        connection.execute("ALTER TABLE accounts RENAME TO gone")
    with pytest.raises(AuthUnavailable):
        await accounts.sign_in("ada", PASSWORD)
    with pytest.raises(AuthUnavailable):
        await accounts.current(account)


def test_no_password_is_kept(tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "accounts.sqlite3", hasher=CountingHasher())
    accounts.add("ada", PASSWORD)
    accounts.close()
    for path in tmp_path.iterdir():
        assert PASSWORD.encode() not in path.read_bytes()


def test_several_processes_may_add_at_once(reopen: Reopen) -> None:
    def add(number: int) -> None:
        accounts = Accounts(reopen(), hasher=CountingHasher())
        accounts.add(f"user{number}", PASSWORD)
        accounts.close()

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accounts = Accounts(reopen())
    assert len(accounts.all()) == 8
    accounts.close()


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "accounts.sqlite3"
    Accounts(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(AccountError, match="newer"):
        Accounts(path)


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "accounts.sqlite3"
    path.write_text("login,password\n" * 100)
    with pytest.raises(AccountError, match="cannot open the accounts"):
        Accounts(path)


def test_an_account_nobody_has_is_told(accounts: Accounts) -> None:
    for change in (accounts.find, lambda login: accounts.set_disabled(login, disabled=True)):
        with pytest.raises(AccountError, match="no account 'ada'"):
            change("ada")


def test_accounts_that_version_one_wrote_are_kept(tmp_path: Path) -> None:
    """A file as the first release left it."""
    path = tmp_path / "accounts.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in VERSIONS[0]:
            connection.execute(statement)
        connection.execute(
            "INSERT INTO accounts VALUES ('s-1', 'Ada', 'ada', 'Ada L.', 'acme', '[\"editor\"]',"
            " '[]', 'ada@example.com', ?, 0, 3, 1795345561.5, 1795345562.5)",
            (CountingHasher().hash(PASSWORD),),
        )
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    accounts = Accounts(path, hasher=CountingHasher())
    (ada,) = accounts.all()
    assert (ada.subject, ada.login, ada.roles, ada.revision) == ("s-1", "Ada", ("editor",), 3)
    assert asyncio.run(accounts.sign_in("ada", PASSWORD)) == ada
    accounts.close()


async def test_a_deleted_account_lets_nobody_in_and_its_name_goes_to_somebody_else(
    accounts: Accounts,
) -> None:
    account = accounts.add("ada", PASSWORD)
    assert accounts.delete("ADA").subject == account.subject
    assert await accounts.sign_in("ada", PASSWORD) is None
    assert await accounts.current(account) is None, "a sign-in that is under way gets no session"
    again = accounts.add("ada", PASSWORD)
    assert again.subject != account.subject
    assert await accounts.current(account) is None
