"""The passkeys of the accounts, on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from auth.io.database import Database, SqliteDatabase
from auth.login.ceremonies import Assertion
from auth.login.passkey import MOST_PASSKEYS, Passkey
from auth.login.passkeys import PasskeyRefused, Passkeys
from auth.login.schema import VERSIONS
from tests.auth.login.conftest import keep_passkey

if TYPE_CHECKING:
    from tests.postgres import Postgres

PHONE = Passkey(
    id="phone-id",
    subject="ada-1",
    name="My phone",
    public_key=b"\x00\xff key",
    sign_count=4,
    transports=("internal", "hybrid"),
    aaguid="00000000-0000-0000-0000-000000000000",
    backup_eligible=True,
    backed_up=False,
    created_at=100.5,
)
STICK = msgspec.structs.replace(PHONE, id="stick-id", name="Stick", created_at=200.0)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        database: Database = SqliteDatabase(tmp_path / "accounts.sqlite3")
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        from auth.io.postgres import PostgresDatabase  # noqa: PLC0415 - an extra

        database = PostgresDatabase(postgres.new_url())
    with closing(database):
        database.prepare(VERSIONS)
        yield database


@pytest.fixture
def passkeys(database: Database) -> Passkeys:
    return Passkeys(database, clock=lambda: 300.0)


def shown(count: int, *, backed_up: bool = False) -> Assertion:
    return Assertion("phone-id", count, backed_up=backed_up, user_verified=True)


def test_what_is_kept_comes_back_as_it_was(passkeys: Passkeys) -> None:
    assert passkeys.of("ada-1") == ()
    keep_passkey(passkeys.database, STICK)
    keep_passkey(passkeys.database, PHONE)
    assert passkeys.of("ada-1") == (PHONE, STICK)
    assert passkeys.of("bob-1") == ()
    assert passkeys.find("stick-id") == STICK
    assert passkeys.find("other") is None


def test_one_passkey_is_one_persons(passkeys: Passkeys) -> None:
    keep_passkey(passkeys.database, PHONE)
    with pytest.raises(PasskeyRefused):
        keep_passkey(passkeys.database, msgspec.structs.replace(PHONE, subject="bob-1"))
    assert passkeys.find("phone-id") == PHONE
    assert passkeys.of("bob-1") == ()


def test_there_are_not_more_than_a_page_can_show(passkeys: Passkeys) -> None:
    for number in range(MOST_PASSKEYS):
        keep_passkey(passkeys.database, msgspec.structs.replace(PHONE, id=f"id-{number}"))
    with pytest.raises(PasskeyRefused):
        keep_passkey(passkeys.database, msgspec.structs.replace(PHONE, id="one-more"))
    keep_passkey(passkeys.database, msgspec.structs.replace(PHONE, id="of-bob", subject="bob-1"))


def test_its_owner_renames_it_and_nobody_else(passkeys: Passkeys) -> None:
    keep_passkey(passkeys.database, PHONE)
    assert not passkeys.rename("bob-1", "phone-id", "Mine")
    assert not passkeys.rename("ada-1", "other", "Mine")
    assert passkeys.rename("ada-1", "phone-id", "Old phone")
    (found,) = passkeys.of("ada-1")
    assert found.name == "Old phone"


def test_an_administrator_removes_one_whatever_is_left(passkeys: Passkeys) -> None:
    keep_passkey(passkeys.database, PHONE)
    assert not passkeys.discard("bob-1", "phone-id")
    assert passkeys.discard("ada-1", "phone-id")
    assert not passkeys.discard("ada-1", "phone-id")
    assert passkeys.of("ada-1") == ()


def test_its_use_is_noted(passkeys: Passkeys) -> None:
    keep_passkey(passkeys.database, PHONE)
    assert passkeys.note_use(shown(5, backed_up=True))
    (found,) = passkeys.of("ada-1")
    assert (found.sign_count, found.backed_up, found.used_at) == (5, True, 300.0)


@pytest.mark.parametrize("count", [4, 3, 0])
def test_a_counter_that_does_not_go_on_is_refused(passkeys: Passkeys, count: int) -> None:
    keep_passkey(passkeys.database, PHONE)
    assert not passkeys.note_use(shown(count))
    assert passkeys.of("ada-1") == (PHONE,)


def test_an_authenticator_that_does_not_count_is_let_in_each_time(passkeys: Passkeys) -> None:
    keep_passkey(passkeys.database, msgspec.structs.replace(PHONE, sign_count=0))
    assert passkeys.note_use(shown(0))
    assert passkeys.note_use(shown(0))
    # Once it has counted, it counts.
    assert passkeys.note_use(shown(1))
    assert not passkeys.note_use(shown(0))


def test_of_two_with_one_count_at_once_one_is_let_in(passkeys: Passkeys) -> None:
    keep_passkey(passkeys.database, PHONE)
    with ThreadPoolExecutor(8) as threads:
        results = [*threads.map(lambda _: passkeys.note_use(shown(9)), range(8))]
    assert sum(results) == 1


def test_one_that_is_gone_lets_nobody_in(passkeys: Passkeys) -> None:
    assert not passkeys.note_use(shown(5))
