"""What an account has beside its password, and what counts once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from auth.io.database import Database, SqliteDatabase
from auth.login.account import Account
from auth.login.elsewhere import KnownPeople
from auth.login.factors import Factors, FactorsChanged, LastFactor, OwnFactors, UnreadableSecret
from auth.login.passkey import Passkey
from auth.login.passkeys import REMOVE
from auth.login.schema import VERSIONS
from auth.login.totp import code_of
from auth.ports import AuthUnavailable
from tests.auth.login.conftest import keep_passkey

if TYPE_CHECKING:
    from tests.postgres import Postgres

KEY, SECRET = "k" * 32, bytes(20)
ADA = Account("ada-1", "ada", "Ada", "", ("editor",), (), "", False, 0, 0.0, 0.0)
BOB = msgspec.structs.replace(ADA, subject="bob-1", login="bob", roles=())


class Hands:
    """A clock that is moved by hand."""

    now = 30_000.0

    def __call__(self) -> float:
        return self.now


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
def clock() -> Hands:
    return Hands()


@pytest.fixture
def factors(database: Database, clock: Hands) -> Factors:
    return Factors(database, KEY, clock=clock)


def set_up(factors: Factors, subject: str = "ada-1", step: int = 1000) -> bool:
    account = msgspec.structs.replace(ADA, subject=subject)
    sealed = factors.sealed_secret(subject, SECRET)
    return factors.set_up_totp(account, sealed, code_of(SECRET, step), factors.of(account))


def test_an_account_begins_with_nothing(factors: Factors) -> None:
    assert factors.of(ADA) == OwnFactors()
    assert not factors.of(ADA).are_there


def test_a_code_counts_once(factors: Factors, clock: Hands) -> None:
    """RFC 6238 section 5.2."""
    assert set_up(factors)
    assert factors.of(ADA).totp_since == clock.now
    assert not factors.use_totp("ada-1", code_of(SECRET, 1000)), "it was used to set the app up"
    assert factors.use_totp("ada-1", code_of(SECRET, 1001))
    assert not factors.use_totp("ada-1", code_of(SECRET, 1001))
    assert not factors.use_totp("ada-1", code_of(SECRET, 999)), "nor does one from before it"
    clock.now += 60
    assert factors.use_totp("ada-1", code_of(SECRET, 1002))


def test_of_many_who_send_one_code_at_once_one_is_let_in(factors: Factors) -> None:
    set_up(factors)
    code = code_of(SECRET, 1001)
    with ThreadPoolExecutor(8) as threads:
        let_in = list(threads.map(lambda _: factors.use_totp("ada-1", code), range(24)))
    assert let_in.count(True) == 1


def test_an_app_is_set_up_by_whoever_has_it_only(factors: Factors) -> None:
    sealed = factors.sealed_secret("ada-1", SECRET)
    assert not factors.set_up_totp(ADA, sealed, "000000", OwnFactors())
    assert not factors.set_up_totp(BOB, sealed, code_of(SECRET, 1000), OwnFactors()), (
        "another's secret"
    )
    assert not factors.set_up_totp(ADA, b"", code_of(SECRET, 1000), OwnFactors())
    assert not factors.of(ADA).are_there


def test_the_database_does_not_have_the_secret(factors: Factors, database: Database) -> None:
    set_up(factors)
    with database.reading() as connection:
        ((sealed,),) = connection.execute("SELECT sealed FROM totp_secrets")
    assert SECRET not in bytes(sealed)
    other = Factors(database, "x" * 32)
    with pytest.raises(UnreadableSecret, match="factor key"):
        other.use_totp("ada-1", "000000")


def test_a_secret_is_of_no_use_in_another_row(factors: Factors, database: Database) -> None:
    set_up(factors)
    with database.writing() as connection:
        connection.execute("UPDATE totp_secrets SET subject = 'bob-1'")
    with pytest.raises(UnreadableSecret):
        factors.use_totp("bob-1", code_of(SECRET, 1001))


async def test_a_key_that_is_another_is_an_outage_and_not_a_wrong_code(
    factors: Factors, database: Database
) -> None:
    set_up(factors)
    other = Factors(database, "x" * 32)
    with pytest.raises(AuthUnavailable, match="factor key"):
        await other.ask(other.use_totp, "ada-1", "000000")


def test_a_recovery_code_counts_once_and_for_its_owner(factors: Factors) -> None:
    codes = factors.renew_recovery_codes("ada-1")
    assert factors.of(ADA).recovery_codes == len(codes)
    assert not factors.use_recovery_code("bob-1", codes[0])
    assert factors.use_recovery_code("ada-1", codes[0].upper())
    assert not factors.use_recovery_code("ada-1", codes[0])
    assert factors.of(ADA).recovery_codes == len(codes) - 1


def test_new_recovery_codes_replace_the_old_ones(factors: Factors) -> None:
    old = factors.renew_recovery_codes("ada-1")
    new = factors.renew_recovery_codes("ada-1")
    assert not any(factors.use_recovery_code("ada-1", code) for code in old)
    assert all(factors.use_recovery_code("ada-1", code) for code in new)


def test_a_factor_may_be_required_of_a_person_or_a_role(factors: Factors) -> None:
    factors.require("role", "editor", required=True)
    assert (factors.of(ADA).required, factors.of(BOB).required) == (True, False)
    factors.require("subject", "bob-1", required=True)
    factors.require("subject", "bob-1", required=True)
    assert factors.of(BOB).required
    assert factors.required() == [("role", "editor"), ("subject", "bob-1")]
    factors.require("role", "editor", required=False)
    assert not factors.of(ADA).required


def test_a_reset_leaves_the_password_and_what_is_required(factors: Factors) -> None:
    for subject in ("ada-1", "bob-1"):
        set_up(factors, subject)
        factors.renew_recovery_codes(subject)
    factors.require("subject", "ada-1", required=True)
    factors.reset("ada-1")
    assert factors.of(ADA) == OwnFactors(required=True)
    assert factors.of(BOB).are_there


def test_an_app_can_be_replaced_and_removed(factors: Factors) -> None:
    set_up(factors)
    other = b"o" * 20
    sealed = factors.sealed_secret("ada-1", other)
    assert factors.set_up_totp(ADA, sealed, code_of(other, 1000), factors.of(ADA))
    assert not factors.use_totp("ada-1", code_of(SECRET, 1001))
    factors.remove_totp(ADA)
    assert not factors.use_totp("ada-1", code_of(other, 1001))


# Several at once --------------------------------------------------------------------------------


def passkey_of_ada(name: str) -> Passkey:
    return Passkey(
        name,
        "ada-1",
        name,
        b"",
        0,
        (),
        "",
        backup_eligible=False,
        backed_up=False,
        created_at=1.0,
    )


def test_nobody_sets_a_factor_up_beside_one_that_they_have_not_seen(factors: Factors) -> None:
    """Who knows a password only, and was quick, gets no factor of their own in."""
    nothing = factors.of(ADA)
    assert set_up(factors)
    other = b"o" * 20
    sealed = factors.sealed_secret("ada-1", other)
    with pytest.raises(FactorsChanged):
        factors.set_up_totp(ADA, sealed, code_of(other, 1000), nothing)
    with pytest.raises(FactorsChanged):
        factors.add_passkey(ADA, passkey_of_ada("a"), nothing)
    assert not factors.of(ADA).passkeys
    assert factors.use_totp("ada-1", code_of(SECRET, 1001)), "the first app is the one that counts"
    factors.add_passkey(ADA, passkey_of_ada("a"), factors.of(ADA))
    assert factors.of(ADA).passkeys


def test_an_app_replaces_the_one_that_was_seen_and_no_newer_one(
    factors: Factors, clock: Hands
) -> None:
    set_up(factors)
    old = factors.of(ADA)
    clock.now += 60
    set_up(factors, step=1002)
    sealed = factors.sealed_secret("ada-1", SECRET)
    with pytest.raises(FactorsChanged):
        factors.set_up_totp(ADA, sealed, code_of(SECRET, 1002), old)
    assert factors.of(ADA).totp_since == clock.now


def test_of_two_first_factors_at_once_there_is_one(factors: Factors, database: Database) -> None:
    with_account(database)
    together = threading.Barrier(2)

    def first(add: Callable[[OwnFactors], object]) -> bool:
        seen = factors.of(ADA)
        together.wait(10)
        try:
            add(seen)
        except FactorsChanged:
            return False
        return True

    for attempt in range(5):
        adding = (
            lambda seen: factors.add_passkey(ADA, passkey_of_ada(f"a{attempt}"), seen),  # noqa: B023 - used in this round
            lambda seen: factors.set_up_totp(
                ADA, factors.sealed_secret("ada-1", SECRET), code_of(SECRET, 1000), seen
            ),
        )
        with ThreadPoolExecutor(2) as threads:
            assert sum(threads.map(first, adding)) == 1
        own = factors.of(ADA)
        assert bool(own.passkeys) != bool(own.totp_since)
        factors.reset("ada-1")


def test_of_two_who_renew_the_recovery_codes_at_once_one_has_good_ones(
    factors: Factors, database: Database
) -> None:
    with_account(database)
    together = threading.Barrier(2)

    def renewed(_: int) -> tuple[str, ...]:
        together.wait(10)
        return factors.renew_recovery_codes("ada-1")

    for _ in range(5):
        with ThreadPoolExecutor(2) as threads:
            both = list(threads.map(renewed, range(2)))
        assert factors.of(ADA).recovery_codes == 10
        assert sum(factors.use_recovery_code("ada-1", codes[0]) for codes in both) == 1


# What may be taken away -------------------------------------------------------------------------


def with_passkeys(factors: Factors, *ids: str) -> None:
    for number, name in enumerate(ids):
        keep_passkey(
            factors.passkeys.database,
            Passkey(
                name,
                "ada-1",
                name,
                b"",
                0,
                (),
                "",
                backup_eligible=False,
                backed_up=False,
                created_at=float(number),
            ),
        )


def with_account(database: Database, password_hash: str = "x") -> None:
    with database.writing() as connection:
        connection.execute(
            "INSERT INTO accounts (subject, login, canonical_login, name, tenant, roles, groups,"
            " email, password_hash, disabled, revision, created_at, changed_at) VALUES ('ada-1',"
            " 'ada', 'ada', 'Ada', '', '[]', '[]', '', :hash, 0, 0, 0, 0)",
            hash=password_hash,
        )


def test_passkeys_are_a_second_factor(factors: Factors) -> None:
    with_passkeys(factors, "a", "b")
    own = factors.of(ADA)
    assert own.are_there
    assert [each.id for each in own.passkeys] == ["a", "b"]
    assert factors.of(BOB) == OwnFactors()


def test_only_its_owner_removes_a_passkey(factors: Factors, database: Database) -> None:
    with_account(database)
    with_passkeys(factors, "a")
    assert not factors.remove_passkey(BOB, "a")
    assert not factors.remove_passkey(ADA, "other")
    assert factors.remove_passkey(ADA, "a")
    assert factors.of(ADA) == OwnFactors()


def test_the_last_factor_of_who_must_have_one_stays(factors: Factors, database: Database) -> None:
    with_account(database)
    factors.require("subject", "ada-1", required=True)
    set_up(factors)
    with_passkeys(factors, "a")
    factors.remove_totp(ADA)
    with pytest.raises(LastFactor):
        factors.remove_passkey(ADA, "a")
    assert factors.of(ADA).passkeys
    set_up(factors)
    assert factors.remove_passkey(ADA, "a")
    with pytest.raises(LastFactor):
        factors.remove_totp(ADA)
    assert factors.of(ADA).totp_since


def test_a_password_stays_until_there_is_a_passkey_and_a_way_back(
    factors: Factors, database: Database
) -> None:
    with_account(database)
    for ids in ((), ("a",)):
        with_passkeys(factors, *ids)
        with pytest.raises(LastFactor):
            factors.remove_password(ADA)
        assert not factors.of(ADA).passwordless
    factors.renew_recovery_codes("ada-1")
    factors.remove_password(ADA)
    assert factors.of(ADA).passwordless
    with database.reading() as connection:
        assert connection.execute("SELECT revision FROM accounts") == [(1,)]


def test_the_last_passkey_stays_where_it_is_the_only_way_in(
    factors: Factors, database: Database
) -> None:
    with_account(database)
    with_passkeys(factors, "a", "b")
    set_up(factors)
    factors.renew_recovery_codes("ada-1")
    factors.remove_password(ADA)
    assert factors.remove_passkey(ADA, "a")
    with pytest.raises(LastFactor):
        factors.remove_passkey(ADA, "b")
    factors.remove_totp(ADA)
    assert [each.id for each in factors.of(ADA).passkeys] == ["b"]


def test_who_removes_both_at_once_keeps_one(factors: Factors, database: Database) -> None:
    """The password and the passkey are each other's reason why they may go."""
    with_account(database)
    factors.renew_recovery_codes("ada-1")

    def lost(remove: Callable[[], object]) -> bool:
        try:
            remove()
        except LastFactor:
            return False
        return True

    for attempt in range(5):
        with_passkeys(factors, f"a{attempt}")
        removals = (
            lambda: factors.remove_password(ADA),
            lambda: factors.remove_passkey(ADA, f"a{attempt}"),  # noqa: B023 - used in this round
        )
        with ThreadPoolExecutor(2) as threads:
            assert sum(threads.map(lost, removals)) == 1
        own = factors.of(ADA)
        assert own.passkeys or not own.passwordless
        with database.writing() as connection:
            connection.execute("UPDATE accounts SET password_hash = 'x'")
            connection.execute("DELETE FROM passkeys")


def test_a_password_that_is_checked_elsewhere_is_not_removed(factors: Factors) -> None:
    with_passkeys(factors, "a")
    factors.renew_recovery_codes("ada-1")
    assert factors.of(ADA).may_lose_password
    with pytest.raises(LastFactor):
        factors.remove_password(ADA)


def test_of_two_last_factors_of_somebody_elsewhere_one_stays(
    factors: Factors, database: Database
) -> None:
    """They have no row among our accounts that a lock could be held on."""
    KnownPeople(database).note(ADA)
    factors.require("subject", "ada-1", required=True)
    with_passkeys(factors, "a", "b")
    both = threading.Barrier(2)
    with database.reading(), database.reading():
        pass  # the connections of both, which take a while to open

    def removed(id_: str) -> bool:
        try:
            with factors._removing(ADA) as connection:
                connection.execute(REMOVE, id=id_, subject="ada-1")
                # Without the lock both are here at once, and each finds the other's passkey still.
                with suppress(threading.BrokenBarrierError):
                    both.wait(1)
        except LastFactor:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(removed, ("a", "b"))) == 1
    assert len(factors.of(ADA).passkeys) == 1


def test_a_reset_takes_the_passkeys_too(factors: Factors) -> None:
    with_passkeys(factors, "a")
    factors.reset("ada-1")
    assert factors.of(ADA) == OwnFactors()
