"""What every `SessionStore` promises, as tests. Subclass it and give it a `store` fixture."""

import asyncio
import time

import msgspec
import pytest

from auth.decision import Reason
from auth.io.session_store import RedisSessionStore
from auth.ports import Change
from auth.session import SessionRecord, digest


def record(subject: str = "u1", *, lives_for: float = 3600.0, **fields: object) -> SessionRecord:
    now = time.time()
    return SessionRecord(1, subject, now, now + lives_for, **fields)  # type: ignore[arg-type]


class SessionStoreContract:
    async def test_a_created_session_is_found_with_all_it_says(
        self, store: RedisSessionStore
    ) -> None:
        cookie = await store.create(record(name="Ada", roles=("editor",), claims={"a": [1]}))
        found = await store.find(digest(cookie))
        assert isinstance(found, SessionRecord)
        assert (found.subject, found.name, found.roles) == ("u1", "Ada", ("editor",))
        assert found.claims == {"a": [1]}

    async def test_two_sessions_of_one_subject_have_different_cookies(
        self, store: RedisSessionStore
    ) -> None:
        assert await store.create(record()) != await store.create(record())

    async def test_a_session_nobody_made_is_unknown(self, store: RedisSessionStore) -> None:
        assert await store.find("0" * 64) == Reason.SESSION_UNKNOWN
        assert store.peek("0" * 64) is None

    async def test_an_ended_session_is_gone_and_said_to_have_ended(
        self, store: RedisSessionStore
    ) -> None:
        name = digest(await store.create(record()))
        await store.find(name)
        assert (await store.end(name, reason="logout")).ended == 1
        assert store.peek(name) is None
        assert await store.find(name) == Reason.SESSION_ENDED

    async def test_ending_twice_ends_nothing_the_second_time(
        self, store: RedisSessionStore
    ) -> None:
        name = digest(await store.create(record()))
        assert (await store.end(name, reason="logout")).ended == 1
        assert (await store.end(name, reason="logout")).ended == 0

    async def test_a_change_is_seen_and_leaves_the_time_it_has(
        self, store: RedisSessionStore
    ) -> None:
        name = digest(await store.create(record(roles=("editor",))))
        before = await store.find(name)
        changed = msgspec.structs.replace(record(), roles=("reader",))
        assert await store.update(name, lambda old: msgspec.structs.replace(old, roles=("reader",)))
        found = await store.find(name)
        while found == before:  # the news of it is on its way
            await asyncio.sleep(0.01)
            found = await store.find(name)
        assert isinstance(before, SessionRecord)
        assert found == msgspec.structs.replace(before, roles=changed.roles)

    async def test_a_change_never_brings_a_session_back(self, store: RedisSessionStore) -> None:
        name = digest(await store.create(record()))
        await store.end(name, reason="logout")
        assert not await store.update(name, lambda old: old)
        assert not await store.update("0" * 64, lambda old: old)
        assert await store.find(name) == Reason.SESSION_ENDED

    async def test_of_changes_at_once_none_is_lost(self, store: RedisSessionStore) -> None:
        name = digest(await store.create(record()))

        def add(role: str) -> Change:
            return lambda old: msgspec.structs.replace(old, roles=(*old.roles, role))

        done = await asyncio.gather(*(store.update(name, add(role)) for role in "abc"))
        assert done == [True] * 3
        found = await store.find(name)
        while not isinstance(found, SessionRecord) or len(found.roles) < 3:
            await asyncio.sleep(0.01)
            found = await store.find(name)
        assert set(found.roles) == {"a", "b", "c"}

    async def test_to_settle_ends_nothing(self, store: RedisSessionStore) -> None:
        name = digest(await store.create(record()))
        assert (await store.settle()).ended == 0
        assert isinstance(await store.find(name), SessionRecord)

    async def test_ending_one_session_leaves_the_others(self, store: RedisSessionStore) -> None:
        one, other = [digest(await store.create(record())) for _ in range(2)]
        await store.end(one, reason="logout")
        assert isinstance(await store.find(other), SessionRecord)

    async def test_everything_of_a_subject_ends_and_nothing_of_others(
        self, store: RedisSessionStore
    ) -> None:
        mine = [digest(await store.create(record("u1"))) for _ in range(3)]
        other = digest(await store.create(record("u2")))
        assert (await store.end_subject("u1", reason="everywhere")).ended == 3
        assert {await store.find(name) for name in mine} == {Reason.SESSION_ENDED}
        assert isinstance(await store.find(other), SessionRecord)

    async def test_the_session_that_is_kept_lives_on_until_it_is_not_kept(
        self, store: RedisSessionStore
    ) -> None:
        kept, other = [digest(await store.create(record())) for _ in range(2)]
        assert (await store.end_subject("u1", reason="password", keep=kept)).ended == 1
        assert isinstance(await store.find(kept), SessionRecord)
        assert await store.find(other) == Reason.SESSION_ENDED
        await store.end_subject("u1", reason="everywhere")
        assert await store.find(kept) == Reason.SESSION_ENDED

    async def test_a_subject_can_sign_in_again_after_the_end_of_everything(
        self, store: RedisSessionStore
    ) -> None:
        await store.create(record())
        await store.end_subject("u1", reason="everywhere")
        await store.end_all(reason="admin")
        again = digest(await store.create(record()))
        assert isinstance(await store.find(again), SessionRecord)

    async def test_the_end_of_all_ends_every_subject(self, store: RedisSessionStore) -> None:
        names = [digest(await store.create(record(f"u{number}"))) for number in range(3)]
        assert (await store.end_all(reason="admin")).ended == 3
        assert {await store.find(name) for name in names} == {Reason.SESSION_ENDED}

    async def test_the_list_shows_the_live_sessions_newest_first(
        self, store: RedisSessionStore
    ) -> None:
        old, ended, new = [digest(await store.create(record())) for _ in range(3)]
        await store.create(record("u2"))
        await store.end(ended, reason="logout")
        assert {each.digest for each in await store.sessions_of("u1")} == {old, new}
        created = [each.record.created_at for each in await store.sessions_of("u1")]
        assert created == sorted(created, reverse=True)
        await store.end_subject("u1", reason="everywhere")
        assert await store.sessions_of("u1") == []

    async def test_a_sign_in_that_began_before_the_end_of_everything_fails(
        self, store: RedisSessionStore
    ) -> None:
        begun = record()
        await store.end_subject("u1", reason="disabled")
        with pytest.raises(Exception, match="sign in again"):
            await store.create(begun)

    async def test_a_record_that_has_expired_is_refused_at_once(
        self, store: RedisSessionStore
    ) -> None:
        with pytest.raises(ValueError, match="expires_at"):
            await store.create(record(lives_for=-1.0))


class WorkerContract(SessionStoreContract):
    """What a worker's store promises besides: copies under a lease, and no question asked twice."""

    async def test_a_found_session_costs_no_second_round_trip(
        self, store: RedisSessionStore
    ) -> None:
        name = digest(await store.create(record()))
        await store.find(name)
        misses = store._reader.counters["misses"]
        assert isinstance(store.peek(name), SessionRecord)
        assert isinstance(await store.find(name), SessionRecord)
        assert store._reader.counters["misses"] == misses

    async def test_a_session_that_is_asked_for_without_a_task_is_told(
        self, store: RedisSessionStore
    ) -> None:
        name = digest(await store.create(record()))
        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        store.ask(name, told.set_result)
        assert isinstance(await told, SessionRecord)
        assert store.peek(name) is not None

    async def test_concurrent_reads_of_one_session_are_one(self, store: RedisSessionStore) -> None:
        name = digest(await store.create(record()))
        found = await asyncio.gather(*(store.find(name) for _ in range(20)))
        assert all(isinstance(each, SessionRecord) for each in found)
        assert store._reader.counters["joined"] == 19
