"""The store against a real server: the contract in each mode, and what only this store promises."""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from auth.decision import Reason
from auth.io.connection import Command
from auth.io.leading import Leadership
from auth.io.session_store import RedisSessionStore
from auth.ports import AuthUnavailable, SessionStore, TokenRevocations
from auth.revocation import (
    EXPIRING_KEY,
    ended_key,
    epoch_key,
    epoch_name,
    index_key,
    token_ref,
)
from auth.session import SessionRecord, digest, encode_record, parse_record, session_key
from config.model import SessionSettings
from tests.auth.io.conftest import SETTINGS, Open
from tests.auth.session_store_contract import SessionStoreContract, WorkerContract, record
from tests.conftest import Valkey

pytestmark = pytest.mark.wire


def names_of(count: int) -> list[str]:
    return [digest(f"cookie {number}") for number in range(count)]


def write(valkey: Valkey, name: str, ttl: float = 600.0, **fields: object) -> None:
    """Write a record as a foreign login service would."""
    now = int(time.time())
    value = {"v": 1, "subject": "u1", "created_at": now, "expires_at": now + 3600} | fields
    valkey.client.set(session_key(name), json.dumps(value), px=int(ttl * 1000))


class TestAWorker(WorkerContract):
    @pytest.fixture
    async def store(self, open_store: Open) -> RedisSessionStore:
        return await open_store()


class TestACommandLine(SessionStoreContract):
    @pytest.fixture
    async def store(self, open_store: Open) -> RedisSessionStore:
        return await open_store(worker=False)


class TestAStoreThatMayNotTrack(SessionStoreContract):
    """A proxy, an old server, or an ACL: no cache, and still right."""

    @pytest.fixture
    async def store(self, open_store: Open, valkey: Valkey) -> RedisSessionStore:
        valkey.client.acl_setuser(
            "plain",
            enabled=True,
            reset=True,
            passwords=["+pw"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
            commands=["-client"],
        )
        store = await open_store(valkey.tcp_url.replace("//", "//plain:pw@"))
        assert store.status()["caching"] is False
        return store

    async def test_every_lookup_asks_the_store(
        self, store: RedisSessionStore, valkey: Valkey
    ) -> None:
        name = digest(await store.create(record()))
        assert isinstance(await store.find(name), SessionRecord)
        assert store.peek(name) is None
        valkey.client.delete(session_key(name))
        assert await store.find(name) == Reason.SESSION_UNKNOWN


def as_ports(store: RedisSessionStore) -> tuple[SessionStore, TokenRevocations]:
    """It is what it claims to be: the type checker tests this."""
    return store, store


async def test_a_logout_through_one_gateway_is_in_force_on_the_other_when_it_answers(
    open_store: Open,
) -> None:
    one, other = await open_store(), await open_store()
    for _ in range(50):
        name = digest(await one.create(record()))
        assert isinstance(await other.find(name), SessionRecord)
        assert other.peek(name) is not None
        ended = await one.end(name, reason="logout")
        assert other.peek(name) is None
        assert (ended.acknowledged, ended.of) == (2, 2)
        assert ended.waited_ms < 250


async def test_a_command_line_logout_is_in_force_on_the_gateways_when_it_answers(
    open_store: Open,
) -> None:
    gateway, command_line = await open_store(), await open_store(worker=False)
    name = digest(await gateway.create(record()))
    await gateway.find(name)
    ended = await command_line.end(name, reason="admin")
    assert gateway.peek(name) is None
    assert (ended.ended, ended.acknowledged, ended.of) == (1, 1, 1)


async def test_a_bare_delete_is_noticed_by_every_gateway(open_store: Open, valkey: Valkey) -> None:
    stores = [await open_store(), await open_store()]
    name = digest(await stores[0].create(record()))
    for store in stores:
        await store.find(name)
    valkey.client.delete(session_key(name))
    async with asyncio.timeout(SETTINGS.lease):
        while any(store.peek(name) for store in stores):
            await asyncio.sleep(0)
    assert [await store.find(name) for store in stores] == [Reason.SESSION_UNKNOWN] * 2


async def test_a_replaced_record_is_noticed(open_store: Open, valkey: Valkey) -> None:
    store, (name,) = await open_store(), names_of(1)
    write(valkey, name, roles=["admin"])
    await store.find(name)
    write(valkey, name, roles=[])
    await _until(lambda: store.peek(name) is None)
    found = await store.find(name)
    assert isinstance(found, SessionRecord)
    assert found.roles == ()


async def test_a_session_written_after_it_was_missed_is_found(
    open_store: Open, valkey: Valkey
) -> None:
    store, (name,) = await open_store(), names_of(1)
    assert await store.find(name) == Reason.SESSION_UNKNOWN
    misses = store._reader.counters["misses"]
    assert await store.find(name) == Reason.SESSION_UNKNOWN
    assert store._reader.counters["misses"] == misses  # it was remembered
    write(valkey, name)
    await _until(lambda: not store._reader.cache.absences)
    assert isinstance(await store.find(name), SessionRecord)


async def test_flushall_ends_everything(open_store: Open, valkey: Valkey) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    await store.find(name)
    valkey.client.flushall()
    await _until(lambda: store.peek(name) is None)
    assert await store.find(name) == Reason.SESSION_UNKNOWN


@pytest.mark.parametrize(
    "value",
    ["", "{}", "[]", "not json", '{"v":2,"subject":"u","created_at":1,"expires_at":9e9}'],
    ids=["empty", "no fields", "a list", "no JSON", "another version"],
)
async def test_a_malformed_record_is_no_session_and_is_counted(
    open_store: Open, valkey: Valkey, value: str
) -> None:
    store, (name,) = await open_store(), names_of(1)
    valkey.client.set(session_key(name), value, ex=60)
    assert await store.find(name) == Reason.SESSION_MALFORMED
    assert store.status()["malformed"] == 1


async def test_an_expired_record_is_no_session_while_its_key_still_stands(
    open_store: Open, valkey: Valkey
) -> None:
    store, (name,) = await open_store(), names_of(1)
    write(valkey, name, expires_at=time.time() - 1)
    assert await store.find(name) == Reason.SESSION_EXPIRED


async def test_a_session_expires_while_it_is_cached(open_store: Open, valkey: Valkey) -> None:
    store, (name,) = await open_store(), names_of(1)
    write(valkey, name, expires_at=time.time() + 3600)
    await store.find(name)
    now = time.time()
    store._reader.wall = lambda: now + 3601
    assert store.peek(name) is None
    assert await store.find(name) == Reason.SESSION_EXPIRED


async def test_sessions_that_nobody_used_are_read_at_their_end_without_a_break(
    open_store: Open, valkey: Valkey
) -> None:
    """The store expires a key when it is read, and sends the invalidation right then."""
    store = await open_store()
    names = names_of(20)
    for name in names:
        write(valkey, name, ttl=0.3)
    while any([isinstance(await store.find(name), SessionRecord) for name in names]):
        pass
    assert {await store.find(name) for name in names} == {Reason.SESSION_UNKNOWN}
    assert store._reader.counters["connection_losses"] == 0


async def test_a_key_that_holds_no_string_is_malformed(open_store: Open, valkey: Valkey) -> None:
    store, (name,) = await open_store(), names_of(1)
    valkey.client.rpush(session_key(name), "x")
    assert await store.find(name) == Reason.SESSION_MALFORMED


async def test_an_error_of_the_store_is_an_outage_and_no_session(
    open_store: Open, valkey: Valkey
) -> None:
    store, (name,) = await open_store(), names_of(1)
    write(valkey, name)
    valkey.client.rpush(epoch_key(epoch_name("", "u1")), "x")
    with pytest.raises(AuthUnavailable, match="WRONGTYPE"):
        await store.find(name)


async def test_a_tombstone_outlives_what_the_session_could_have_lived(
    open_store: Open, valkey: Valkey
) -> None:
    store, (name,) = await open_store(), names_of(1)
    write(valkey, name, ttl=60)
    await store.end(name, reason="logout")
    assert valkey.client.pttl(ended_key(name)) > 3_590_000


async def test_a_tombstone_for_an_unknown_session_is_short(
    open_store: Open, valkey: Valkey
) -> None:
    store, (name,) = await open_store(), names_of(1)
    assert (await store.end(name, reason="logout")).ended == 0
    assert 0 < valkey.client.pttl(ended_key(name)) <= 60_000


async def test_an_ended_session_that_is_written_again_stays_ended(
    open_store: Open, valkey: Valkey
) -> None:
    one, other = await open_store(), await open_store(worker=False)
    name = digest(await one.create(record()))
    await one.end(name, reason="logout")
    write(valkey, name)
    assert await one.find(name) == Reason.SESSION_ENDED
    assert await other.find(name) == Reason.SESSION_ENDED  # by the tombstone alone


async def test_an_ending_is_remembered_when_the_store_forgot_it(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    await store.end(name, reason="logout")
    valkey.client.delete(ended_key(name))
    write(valkey, name)
    assert await store.find(name) == Reason.SESSION_ENDED


async def test_sessions_of_other_writers_are_counted_listed_and_ended(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store()
    for name in names_of(3):
        write(valkey, name, created_at=time.time() - 5)
    assert len(await store.sessions_of("u1")) == 3
    assert (await store.end_subject("u1", reason="everywhere")).ended == 3
    assert [await store.find(name) for name in names_of(3)] == [Reason.SESSION_ENDED] * 3


async def test_an_epoch_ends_what_no_index_knows(open_store: Open, valkey: Valkey) -> None:
    store, (name,) = await open_store(), names_of(1)
    await store.end_subject("u1", reason="disabled")
    write(valkey, name, created_at=time.time() - 5)
    assert await store.find(name) == Reason.SESSION_ENDED


async def test_a_session_dated_in_the_future_ends_with_its_subject(
    open_store: Open, valkey: Valkey
) -> None:
    store, (name, other) = await open_store(), names_of(2)
    write(valkey, name, created_at=time.time() + 50)
    write(valkey, other, subject="u2", created_at=time.time() + 50)
    await store.end_subject("u1", reason="everywhere")
    assert await store.find(name) == Reason.SESSION_ENDED
    await store.end_all(reason="admin")
    assert await store.find(other) == Reason.SESSION_ENDED


@pytest.mark.parametrize("scanned", [100_000, 0], ids=["small store", "large store"])
async def test_a_writer_who_counts_seconds_can_sign_in_again_at_once(
    open_store: Open, valkey: Valkey, monkeypatch: pytest.MonkeyPatch, scanned: int
) -> None:
    monkeypatch.setattr("auth.io.records._MOST_SCANNED", scanned)
    store, (before, after) = await open_store(), names_of(2)
    if time.time() % 1 > 0.5:
        await asyncio.sleep(1 - time.time() % 1)
    write(valkey, before, created_at=int(time.time()))
    await store.end_subject("u1", reason="everywhere")
    write(valkey, after, created_at=int(time.time()))
    assert await store.find(before) == Reason.SESSION_ENDED
    assert isinstance(await store.find(after), SessionRecord)
    await store.end_all(reason="admin")
    assert await store.find(after) == Reason.SESSION_ENDED


async def test_a_session_made_in_the_second_of_an_ending_is_good(open_store: Open) -> None:
    store = await open_store()
    second = float(int(time.time()))
    await store.end_subject("u1", reason="everywhere")
    counted = msgspec.structs.replace(record(), created_at=second)
    assert isinstance(await store.find(digest(await store.create(counted))), SessionRecord)


async def test_the_index_forgets_sessions_that_expired(open_store: Open, valkey: Valkey) -> None:
    store = await open_store()
    await store.create(record())
    valkey.client.zadd(index_key("u1"), {"old": time.time() - 1})
    await store.sessions_of("u1")
    assert valkey.client.zcard(index_key("u1")) == 1


async def test_starts_and_ends_are_told_in_the_stream(open_store: Open, valkey: Valkey) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    await store.end(name, reason="logout")
    await store.end(name, reason="again")  # nothing ended, nothing told
    events: Any = valkey.client.xrange("doorward:events")
    told = [(fields[b"event"], fields[b"subject"], fields[b"reason"]) for _, fields in events]
    assert told == [
        (b"session.started", b"u1", b""),
        (b"session.ended", b"u1", b"logout"),
    ]
    assert {fields[b"session"].decode() for _, fields in events} == {name}


async def test_the_end_of_all_is_told_for_each(open_store: Open, valkey: Valkey) -> None:
    store, (foreign, ahead) = await open_store(), names_of(2)
    made = [digest(await store.create(record(f"u{number}"))) for number in range(3)]
    write(valkey, foreign)
    write(valkey, ahead, created_at=time.time() + 50)
    assert (await store.end_all(reason="admin")).ended == 5
    events: Any = valkey.client.xrange("doorward:events")
    told = [fields for _, fields in events if fields[b"event"] == b"session.ended"]
    assert {fields[b"reason"] for fields in told} == {b"admin"}
    names = sorted(fields[b"session"].decode() for fields in told)
    assert names == sorted([*made, foreign, ahead])
    assert [await store.find(name) for name in names] == [Reason.SESSION_ENDED] * 5


async def test_who_dies_in_an_end_of_all_has_ended_all(
    open_store: Open, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying, other = await open_store(), await open_store()
    name = digest(await dying.create(record()))
    await other.find(name)

    async def die(digests: Sequence[str], _reason: str) -> tuple[dict[str, float], int]:
        if digests:
            raise AuthUnavailable("killed")
        return {}, 0

    monkeypatch.setattr(dying, "_end_records", die)
    with pytest.raises(AuthUnavailable):
        await dying.end_all(reason="admin")
    assert other.peek(name) is None
    assert await other.find(name) == Reason.SESSION_ENDED


async def test_a_record_with_impossible_times_disturbs_nobody(
    open_store: Open, valkey: Valkey
) -> None:
    store, (name,) = await open_store(), names_of(1)
    connection = store._reader.link.connection
    write(valkey, name, created_at=1e308, expires_at=1e308)
    assert isinstance(await store.find(name), SessionRecord)
    assert store._reader.link.connection is connection
    await store.end_subject("u1", reason="everywhere")
    assert await store.find(name) == Reason.SESSION_ENDED


async def test_a_hook_hears_of_every_ending(open_store: Open, valkey: Valkey) -> None:
    store, other = await open_store(), await open_store()
    heard: asyncio.Queue[frozenset[str] | None] = asyncio.Queue()
    store.on_ended(heard.put_nowait)
    async with asyncio.timeout(10):
        name = digest(await other.create(record()))
        await other.end(name, reason="logout")
        assert await heard.get() == frozenset({name})
        name = digest(await other.create(record()))
        store.follow(lambda: [name])
        valkey.client.delete(session_key(name))  # this gateway never read it
        assert await heard.get() == frozenset({name})
        await other.end_all(reason="admin")
        assert await heard.get() is None


class TestIdleExpiry:
    settings = SessionSettings(cookie_name="doorward", secure=False, lease=0.3, idle_timeout=100.0)
    older = msgspec.structs.replace(record(), created_at=time.time() - 60)

    async def test_use_extends_the_life_of_the_key(self, open_store: Open, valkey: Valkey) -> None:
        store = await open_store(settings=self.settings)
        name = digest(await store.create(self.older))
        valkey.client.pexpire(session_key(name), 50_000)
        await store.find(name)
        store.peek(name)
        await _until(lambda: valkey.client.pttl(session_key(name)) > 95_000)

    async def test_another_idle_time_is_taken_up_by_what_is_used(
        self, open_store: Open, valkey: Valkey
    ) -> None:
        store = await open_store(settings=self.settings)
        name = digest(await store.create(self.older))
        valkey.client.pexpire(session_key(name), 50_000)
        store.adopt(msgspec.structs.replace(self.settings, idle_timeout=90.0))
        await store.find(name)
        store.peek(name)
        await _until(lambda: valkey.client.pttl(session_key(name)) > 80_000)
        assert valkey.client.pttl(session_key(name)) <= 90_000

    async def test_a_lower_bound_of_the_cache_is_taken_up_without_anybody_s_doing(
        self, open_store: Open
    ) -> None:
        store = await open_store(settings=self.settings)
        names = [digest(await store.create(record())) for _ in range(5)]
        for name in names:
            await store.find(name)
        store.adopt(msgspec.structs.replace(self.settings, cache_size=2))
        await _until(lambda: store.status()["entries"] == 2)
        assert store.status()["evictions"] == 3
        assert isinstance(await store.find(names[0]), SessionRecord)

    async def test_fresh_use_writes_nothing(self, open_store: Open, valkey: Valkey) -> None:
        store = await open_store(settings=self.settings)
        name = digest(await store.create(record()))
        await store.find(name)
        for _ in range(100):
            store.peek(name)
        assert not store._reader.touches

    async def test_ten_thousand_uses_write_once(self, open_store: Open, valkey: Valkey) -> None:
        store = await open_store(settings=self.settings)
        name = digest(await store.create(self.older))
        valkey.client.pexpire(session_key(name), 50_000)
        for _ in range(10_000):
            store.peek(name) or await store.find(name)
        await _until(lambda: store._reader.counters["touches"] == 1)
        for _ in range(100):
            store.peek(name) or await store.find(name)
            await asyncio.sleep(0.002)
        assert store._reader.counters["touches"] == 1

    @pytest.mark.parametrize(
        ("ttl", "left", "expected"),
        [(500.0, 3600.0, 500.0), (20.0, 30.0, 30.0), (20.0, 3600.0, 100.0)],
        ids=["a longer one is not shortened", "never beyond expires_at", "a shorter one grows"],
    )
    async def test_a_key_of_another_writer(
        self, open_store: Open, valkey: Valkey, ttl: float, left: float, expected: float
    ) -> None:
        store, (name,) = await open_store(settings=self.settings), names_of(1)
        write(valkey, name, ttl, expires_at=time.time() + left)
        await store.find(name)
        store._reader.touches.add(name)
        await _until(lambda: store._reader.counters["touches"] == 1)
        await store._call_all([("PING",)])  # the touch before it has been executed by then
        ttl_now = await asyncio.to_thread(valkey.client.pttl, session_key(name))
        assert ttl_now / 1000 == pytest.approx(expected, abs=2)

    async def test_a_deleted_session_is_not_brought_back(
        self, open_store: Open, valkey: Valkey
    ) -> None:
        store = await open_store(settings=self.settings)
        name = digest(await store.create(record()))
        await store.find(name)
        valkey.client.delete(session_key(name))
        store._reader.touches.add(name)
        await _until(lambda: store._reader.counters["touches"] == 1)
        assert not valkey.client.exists(session_key(name))


class TestTokens:
    token = token_ref(
        issuer="https://idp", subject="u1", jti="j1", issued_at=1000.0, expires_at=9e9
    )

    async def test_a_token_is_good_until_it_is_revoked_anywhere(self, open_store: Open) -> None:
        one, other = await open_store(), await open_store()
        assert await other.is_revoked(self.token) is False
        assert other.peek_revoked(self.token) is False
        ended = await one.revoke_token("https://idp", "j1", time.time() + 60)
        assert other.peek_revoked(self.token) is True
        assert await other.is_revoked(self.token) is True
        assert (ended.acknowledged, ended.of) == (2, 2)

    async def test_a_subjects_tokens_are_revoked_by_when_they_were_issued(
        self, open_store: Open
    ) -> None:
        one, other = await open_store(), await open_store()
        later = token_ref(
            issuer="https://idp",
            subject="u1",
            jti="j2",
            issued_at=time.time() + 5,
            expires_at=9e9,
        )
        foreign = token_ref(
            issuer="https://other", subject="u1", jti="j1", issued_at=1000.0, expires_at=9e9
        )
        for token in (self.token, later, foreign):
            assert await other.is_revoked(token) is False
        await one.revoke_tokens_of("https://idp", "u1")
        assert await other.is_revoked(self.token) is True
        assert await other.is_revoked(later) is False
        assert await other.is_revoked(foreign) is False

    async def test_a_session_does_not_end_with_its_subjects_tokens(self, open_store: Open) -> None:
        store = await open_store()
        name = digest(await store.create(record()))
        await store.revoke_tokens_of("https://idp", "u1")
        assert isinstance(await store.find(name), SessionRecord)

    async def test_an_expired_token_needs_no_revocation(self, open_store: Open) -> None:
        store = await open_store()
        assert (await store.revoke_token("https://idp", "j1", time.time() - 1000)).ended == 0


async def test_the_documented_permissions_suffice(open_store: Open, valkey: Valkey) -> None:
    documentation = Path("docs/revocation.md").read_text("utf-8")
    found = re.search(r"user doorward (.*?)```", documentation, re.DOTALL)
    assert found
    rules = found[1].replace("PASSWORD", "pw").split()
    client: Any = valkey.client
    client.execute_command("ACL", "SETUSER", "doorward", "reset", *rules)
    client.acl_log_reset()
    store = await open_store(valkey.tcp_url.replace("//", "//doorward:pw@"))
    assert store.status()["caching"] is True
    names = [digest(await store.create(record())) for _ in range(2)]
    await store.find(names[0])
    store._reader.touches.add(names[0])
    await store.sessions_of("u1")
    store.wall = lambda: time.time() + 2000
    assert await store.tell_of_expired() == (2, 0)
    store.wall = time.time
    valkey.client.zadd(EXPIRING_KEY, {"gone": 5})
    assert await store.tell_of_expired() == (1, 1)
    leadership = Leadership(store.commands, "doorward:leads", leads_for=1.0, renew=0.5)
    assert await leadership.hold()
    await leadership.resign()
    await store.end(names[0], reason="logout")
    await store.end_subject("u1", reason="everywhere")
    await store.end_all(reason="admin")
    await store.revoke_token("https://idp", "j", time.time() + 60)
    await store.revoke_tokens_of("https://idp", "u1")
    await _until(lambda: store._reader.counters["touches"] == 1)
    await store.close()
    assert client.acl_log() == []


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def asked(store: RedisSessionStore, name: str) -> "asyncio.Future[SessionRecord | str | None]":
    """Look *name* up with callbacks."""
    answer: asyncio.Future[SessionRecord | str | None] = asyncio.get_running_loop().create_future()
    store.ask(name, answer.set_result)
    return answer


async def test_asking_with_a_callback_says_what_find_says(open_store: Open, valkey: Valkey) -> None:
    store = await open_store()
    live, ended, unknown, odd = names_of(4)
    write(valkey, live)
    valkey.client.set(session_key(odd), "no JSON")
    await store.end(ended, reason="logout")
    for name in (live, ended, unknown, odd) * 2:
        assert await asked(store, name) == await store.find(name)
        store._reader.cache.clear()


async def test_a_second_look_at_a_session_takes_one_round_trip(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its subject's epoch is asked for beside its record: nobody waits for the record first."""
    store = await open_store()
    name = digest(await store.create(record("u1")))
    await store.find(name)
    store._reader.cache.clear()
    connection = store._reader.link.connection
    assert connection is not None
    sent: list[Command] = []
    send = connection.send

    def record_and_send(command: Command, *rest: Any) -> None:
        sent.append(command)
        send(command, *rest)

    monkeypatch.setattr(connection, "send", record_and_send)
    answer = asked(store, name)
    at_once = list(sent)
    await answer
    assert ("GET", epoch_key(epoch_name("", "u1"))) in at_once


async def test_a_callback_is_told_that_the_store_is_lost(open_store: Open) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    connection = store._reader.link.connection
    assert connection is not None
    answer = asked(store, name)
    connection.close()
    assert await answer is None
    assert await asked(store, name) is None  # there is no connection at all
    assert isinstance(await store.find(name), SessionRecord)


async def test_a_callback_that_fails_harms_nobody_else(open_store: Open) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    connection = store._reader.link.connection

    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    store.ask(name, fail)
    joined = asked(store, name)
    assert isinstance(await asyncio.wait_for(joined, 2), SessionRecord)
    assert store._reader.link.connection is connection


async def test_a_callback_hears_of_an_ending_that_overtook_its_answer(
    open_store: Open, valkey: Valkey
) -> None:
    one, other = await open_store(), await open_store()
    for _ in range(20):
        name = digest(await one.create(record()))
        await one.end(name, reason="logout")
        assert await asked(other, name) == Reason.SESSION_ENDED


async def test_a_change_that_is_overtaken_by_an_ending_brings_nothing_back(
    open_store: Open, valkey: Valkey
) -> None:
    """security.md, 7.6 I4: a slow refresh must not undo a logout."""
    store = await open_store()
    name = digest(await store.create(record()))

    def change(old: SessionRecord) -> SessionRecord:
        valkey.client.delete(session_key(name))  # between what is read and what is written
        return msgspec.structs.replace(old, name="Ada")

    assert not await store.update(name, change)
    assert valkey.client.keys("doorward:session:*") == []


async def test_a_change_is_not_lost_under_another_one(open_store: Open, valkey: Valkey) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    other = encode_record(record(roles=("editor",)))
    replies = iter((other,))

    def change(old: SessionRecord) -> SessionRecord:
        for reply in replies:
            valkey.client.set(session_key(name), reply, keepttl=True)
        return msgspec.structs.replace(old, name="Ada")

    assert await store.update(name, change)
    value = valkey.client.get(session_key(name))
    assert isinstance(value, bytes)
    found = parse_record(value)
    assert (found.name, found.roles) == ("Ada", ("editor",))
