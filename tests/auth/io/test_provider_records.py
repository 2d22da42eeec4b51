"""What the store remembers about providers, on a real server."""

import asyncio

import pytest

from auth.io.provider_records import Claim, ClaimedBefore, ProviderRecords, ProviderSession
from auth.login.provider import BegunSignIn
from auth.ports import AuthUnavailable
from tests.auth.io.conftest import Open
from tests.conftest import Valkey
from tests.store_server import nowhere

ISSUER = "https://idp.example.com"
BEGUN = BegunSignIn("corp", ISSUER, "gateway", "https://a.example/cb", "/notes", "n", "v")
SESSION = ProviderSession(ISSUER, "ada", "s-1")
NAMELESS = ProviderSession(ISSUER, "ada")


@pytest.fixture
async def records(open_store: Open) -> ProviderRecords:
    return ProviderRecords((await open_store()).commands)


async def test_a_sign_in_is_found_once_and_only_by_its_browser(records: ProviderRecords) -> None:
    await records.begin("state", "binding", BEGUN)
    assert await records.take("state", "another") is None
    assert await records.take("another", "binding") is None
    assert await records.take("state", "binding") == BEGUN
    assert await records.take("state", "binding") is None


async def test_of_two_at_once_one_gets_it(records: ProviderRecords) -> None:
    await records.begin("state", "binding", BEGUN)
    taken = await asyncio.gather(*(records.take("state", "binding") for _ in range(8)))
    assert [each for each in taken if each] == [BEGUN]


async def test_a_sign_in_that_is_left_lying_goes_away(
    records: ProviderRecords, valkey: Valkey
) -> None:
    await records.begin("state", "binding", BEGUN)
    (key,) = valkey.client.keys("doorward:sign-in:*")
    assert 0 < valkey.client.ttl(key) <= 600
    assert b"state" not in key


async def test_what_nobody_can_read_is_no_sign_in(records: ProviderRecords, valkey: Valkey) -> None:
    await records.begin("state", "binding", BEGUN)
    (key,) = valkey.client.keys("doorward:sign-in:*")
    valkey.client.set(key, "{}")
    assert await records.take("state", "binding") is None


@pytest.mark.parametrize(
    ("noted", "name", "found"),
    [
        (SESSION, SESSION.own_name, True),
        (SESSION, SESSION.person_name, True),
        (NAMELESS, NAMELESS.own_name, True),
        (NAMELESS, NAMELESS.person_name, True),
        (SESSION, NAMELESS.own_name, False),
        (NAMELESS, SESSION.own_name, False),
        (SESSION, ProviderSession(ISSUER, "ada", "s-2").own_name, False),
        (SESSION, ProviderSession("https://other.example", "ada", "s-1").own_name, False),
        (SESSION, ProviderSession("https://other.example", "ada", "s-1").person_name, False),
        (ProviderSession(ISSUER, "x", "ada"), SESSION.person_name, False),
    ],
    ids=str,
)
async def test_an_ending_finds_the_sessions_it_names(
    records: ProviderRecords, noted: ProviderSession, name: str, *, found: bool
) -> None:
    assert await records.note_session(noted, "d", asked_at=100.0, live_for=60.0)
    assert await records.mark_ended(name, 101.0) == ({"d"} if found else set())


async def test_one_session_there_may_be_several_here(records: ProviderRecords) -> None:
    for digest in ("one", "two", "three"):
        await records.note_session(SESSION, digest, asked_at=100.0, live_for=60.0)
    assert await records.mark_ended(SESSION.person_name, 101.0) == {"one", "two", "three"}


@pytest.mark.parametrize("name", [SESSION.own_name, SESSION.person_name], ids=["sid", "sub"])
@pytest.mark.parametrize(
    ("asked_at", "stands"), [(99.0, False), (100.0, False), (100.001, True)], ids=str
)
async def test_a_session_asked_for_before_an_ending_does_not_stand(
    records: ProviderRecords, name: str, asked_at: float, *, stands: bool
) -> None:
    await records.mark_ended(name, 100.0)
    assert await records.note_session(SESSION, "d", asked_at=asked_at, live_for=9.0) is stands


async def test_what_is_noted_goes_away_with_the_last_session(
    records: ProviderRecords, valkey: Valkey
) -> None:
    await records.note_session(SESSION, "long", asked_at=100.0, live_for=600.0)
    await records.note_session(SESSION, "short", asked_at=100.0, live_for=6.0)
    keys = valkey.client.keys("doorward:provider-sessions:*")
    assert len(keys) == 2
    assert all(600 < valkey.client.ttl(key) <= 660 for key in keys)
    await records.note_session(SESSION, "late", asked_at=10_000.0, live_for=6.0)
    assert await records.mark_ended(SESSION.own_name, 10_001.0) == {"late"}


async def test_a_logout_token_is_obeyed_once(records: ProviderRecords) -> None:
    assert await records.begin_logout(ISSUER, "once", 60.0)
    await records.finish_logout(ISSUER, "once", 60.0)
    assert not await records.begin_logout(ISSUER, "once", 60.0)
    assert await records.begin_logout(ISSUER, "twice", 60.0)
    assert await records.begin_logout("https://other.example", "once", 60.0)


async def test_one_that_was_begun_and_not_finished_is_obeyed_again(
    records: ProviderRecords,
) -> None:
    assert await records.begin_logout(ISSUER, "once", 60.0)
    assert await records.begin_logout(ISSUER, "once", 60.0)


async def test_tokens_are_given_back_once(records: ProviderRecords) -> None:
    await records.keep_tokens("digest", b"\x00sealed", 60.0)
    assert await records.take_tokens("digest") == b"\x00sealed"
    assert await records.take_tokens("digest") is None


async def test_a_store_that_does_not_answer_is_an_outage() -> None:
    records = ProviderRecords(nowhere())
    with pytest.raises(AuthUnavailable):
        await records.take("state", "binding")
    with pytest.raises(AuthUnavailable):
        await records.begin_logout(ISSUER, "once", 60.0)


async def claimed(records: ProviderRecords, now: float = 1000.0) -> Claim:
    claim = await records.claim_tokens("d" * 64, now)
    assert isinstance(claim, Claim)
    return claim


async def test_of_all_who_want_to_use_a_refresh_token_one_may(records: ProviderRecords) -> None:
    await records.keep_tokens("d" * 64, b"sealed", 60)
    claims = await asyncio.gather(*(records.claim_tokens("d" * 64, 1000.5) for _ in range(8)))
    assert [each.sealed for each in claims if isinstance(each, Claim)] == [b"sealed"]
    assert [each for each in claims if isinstance(each, ClaimedBefore)] == [
        ClaimedBefore(1000.5)
    ] * 7


async def test_new_tokens_are_kept_as_long_as_the_old_ones_and_still_claimed(
    records: ProviderRecords, valkey: Valkey
) -> None:
    await records.keep_tokens("d" * 64, b"sealed", 60)
    claim = await claimed(records)
    assert await records.commit_tokens(claim, b"new")
    assert await records.read_tokens("d" * 64) == b"new"
    (key,) = valkey.client.keys("doorward:provider-tokens:*")
    assert 50 < valkey.client.ttl(key) <= 60
    assert isinstance(await records.claim_tokens("d" * 64, 1001.0), ClaimedBefore)
    await records.release_tokens(claim)
    assert (await claimed(records)).sealed == b"new"


async def test_tokens_of_a_session_that_ended_do_not_come_back(
    records: ProviderRecords, valkey: Valkey
) -> None:
    await records.keep_tokens("d" * 64, b"sealed", 60)
    claim = await claimed(records)
    assert await records.take_tokens("d" * 64) == b"sealed"
    assert not await records.commit_tokens(claim, b"new")
    assert valkey.client.keys("doorward:provider-tokens:*") == []
    assert await records.claim_tokens("e" * 64, 1000.0) is None


async def test_only_who_has_the_claim_commits_or_releases(records: ProviderRecords) -> None:
    await records.keep_tokens("d" * 64, b"sealed", 60)
    claim = await claimed(records)
    other = Claim("d" * 64, "999.000 other", b"sealed")
    assert not await records.commit_tokens(other, b"new")
    await records.release_tokens(other)
    assert isinstance(await records.claim_tokens("d" * 64, 1001.0), ClaimedBefore)
    assert await records.commit_tokens(claim, b"new")
