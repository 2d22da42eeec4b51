"""The store on a real cluster of three primaries: the contract, moved slots, lost shards."""

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from auth.decision import Reason
from auth.io.cluster_store import ClusterSessionStore
from auth.io.connection import Command, StoreLost
from auth.io.session_store import open_session_store
from auth.io.signing_keys import SigningKeys
from auth.ports import AuthUnavailable
from auth.revocation import (
    EVENTS_KEY,
    EXPIRING_KEY,
    TokenRef,
    bucket_key,
    bucket_of,
    ended_key,
    epoch_key,
    epoch_name,
    revoked_key,
    token_name,
    token_ref,
)
from auth.session import SessionRecord, digest, session_key
from auth.slots import all_sessions_beside, key_of, slot_of_tag
from tests.auth.io.conftest import SETTINGS
from tests.auth.session_store_contract import SessionStoreContract, WorkerContract, record
from tests.cluster import Cluster, Server, in_thread, shard_of
from tests.gateway.io.test_tls import make_certificate

pytestmark = pytest.mark.wire

OpenOnCluster = Callable[..., Awaitable[ClusterSessionStore]]
LATER = SETTINGS.lease + 0.05


@pytest.fixture
def flushed(cluster: Cluster) -> Cluster:
    cluster.flush()
    return cluster


@pytest.fixture
async def open_store(flushed: Cluster) -> AsyncIterator[OpenOnCluster]:
    """Open a store as a gateway would, on the run's cluster."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(*, url: str = "", worker: bool = True) -> ClusterSessionStore:
            store = await open_session_store(url or flushed.url, SETTINGS, worker=worker)
            assert isinstance(store, ClusterSessionStore)
            stack.push_async_callback(store.close)
            if worker:
                await leased(store)
            await without_doubt(store, flushed)
            return store

        yield open_one


async def leased(store: ClusterSessionStore) -> None:
    """Wait until every shard has granted a lease."""
    async with asyncio.timeout(5):
        while len(store._shards.all()) < 3 or any(
            shard.lease.until <= store._reader.clock() for shard in store._shards.all()
        ):
            await asyncio.sleep(0.005)


async def without_doubt(store: ClusterSessionStore, cluster: Cluster) -> None:
    """The registries are as young as the test: do not have every ending wait for that."""
    store._uncertain_until = 0.0
    for shard in store._shards.all():
        registry = shard.claims.registry_key
        assert registry is not None
        await in_thread(cluster.at(registry).hset, registry, "~", "0")
        shard.barrier.uncertain_until = 0.0


async def until_true(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.005)


def events(cluster: Cluster) -> list[tuple[str, str]]:
    """Return the events in the stream, with their reasons."""
    stream: Any = cluster.at(EVENTS_KEY).xrange(EVENTS_KEY)
    return [(fields[b"event"].decode(), fields[b"reason"].decode()) for _, fields in stream]


@pytest.fixture
def half_moved(flushed: Cluster) -> Iterator[Callable[[str], tuple[Server, Server]]]:
    """Begin to move the slot of a tag; it is moved for good after the test."""
    begun: list[tuple[int, Server, Server]] = []

    def begin(tag: str) -> tuple[Server, Server]:
        slot = slot_of_tag(tag)
        source = flushed.owner(slot)
        target = next(each for each in flushed.primaries if each is not source)
        flushed.begin_move(slot, target)
        begun.append((slot, source, target))
        return source, target

    yield begin
    for slot, source, target in begun:
        flushed.move_keys(slot, source, target)
        flushed.end_move(slot, source, target)
    flushed.await_agreement()


def asking(server: Server, *command: str | int) -> object:
    """Run *command* at the server that takes the slot over, as a client does after ASK."""
    with server.client.pipeline(transaction=False) as pipeline:
        for each in (("ASKING",), command):
            pipeline.execute_command(*each)  # type: ignore[no-untyped-call]
        return pipeline.execute()[1]


class TestAWorkerOnACluster(WorkerContract):
    @pytest.fixture
    async def store(self, open_store: OpenOnCluster) -> ClusterSessionStore:
        return await open_store()


class TestACommandLineOnACluster(SessionStoreContract):
    @pytest.fixture
    async def store(self, open_store: OpenOnCluster) -> ClusterSessionStore:
        return await open_store(worker=False)


async def test_a_logout_is_in_force_on_every_worker_when_it_answers(
    open_store: OpenOnCluster,
) -> None:
    one, other = await open_store(), await open_store()
    command_line = await open_store(worker=False)
    for number in range(30):  # on every shard
        name = digest(await one.create(record(f"u{number}")))
        assert isinstance(await other.find(name), SessionRecord)
        assert other.peek(name) is not None
        ended = await (one if number % 2 else command_line).end(name, reason="logout")
        assert other.peek(name) is None
        assert (ended.ended, ended.acknowledged, ended.of) == (1, 2, 2)


async def test_a_bare_delete_is_noticed(open_store: OpenOnCluster, flushed: Cluster) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    await store.find(name)
    await in_thread(flushed.at(session_key(name)).delete, session_key(name))
    await until_true(lambda: store.peek(name) is None)
    assert await store.find(name) == Reason.SESSION_UNKNOWN


async def test_a_new_session_is_on_the_shard_of_its_subject(open_store: OpenOnCluster) -> None:
    store = await open_store(worker=False)
    for number in range(30):
        name = digest(await store.create(record(f"u{number}")))
        homes = {shard_of(tag) for tag in (name, epoch_name("", f"u{number}"))}
        assert len({*homes, shard_of(all_sessions_beside(name))}) == 1


async def test_events_tell_of_the_beginning_and_the_end(
    open_store: OpenOnCluster, flushed: Cluster
) -> None:
    store = await open_store(worker=False)
    name = digest(await store.create(record()))
    await store.end(name, reason="logout")
    await store.end(name, reason="again")
    stream: Any = flushed.at(EVENTS_KEY).xrange(EVENTS_KEY)
    events = [fields for _, fields in stream]
    assert [(each[b"event"], each[b"session"], each[b"subject"]) for each in events] == [
        (b"session.started", name.encode(), b"u1"),
        (b"session.ended", name.encode(), b"u1"),
    ]


async def test_a_revoked_token_is_refused_everywhere(open_store: OpenOnCluster) -> None:
    one, other = await open_store(), await open_store()
    until = time.time() + 60
    for number in range(12):
        token = token_ref(
            issuer="https://idp",
            subject=f"s{number}",
            jti=f"j{number}",
            issued_at=time.time() - 5,
            expires_at=until,
        )
        assert await other.is_revoked(token) is False
        assert other.peek_revoked(token) is False
        if number % 2:
            await one.revoke_token("https://idp", f"j{number}", until)
        else:
            await one.revoke_tokens_of("https://idp", f"s{number}")
        assert other.peek_revoked(token) is not False
        assert await other.is_revoked(token) is True


# Slots that are moved ---------------------------------------------------------------------------


async def test_an_epoch_written_at_the_importing_shard_is_in_force_a_lease_later(
    open_store: OpenOnCluster, half_moved: Callable[[str], tuple[Server, Server]]
) -> None:
    """It was absent when it was read: nothing is invalidated when it is written elsewhere."""
    store = await open_store()
    name, epoch = digest(await store.create(record())), epoch_name("", "u1")
    await store.find(name)
    assert store.peek(name) is not None
    _, target = await in_thread(half_moved, epoch)
    value = f"{round(time.time() * 1000) + 1000}"
    await in_thread(asking, target, "SET", epoch_key(epoch), value)
    await asyncio.sleep(LATER)
    assert store.peek(name) is None
    assert await store.find(name) == Reason.SESSION_ENDED


async def test_a_key_deleted_at_the_slots_new_owner_is_noticed_a_lease_later(
    open_store: OpenOnCluster, flushed: Cluster
) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    epoch = epoch_name("", "u1")
    slot = slot_of_tag(epoch)
    await store.find(name)
    target = next(each for each in flushed.primaries if each is not flushed.owner(slot))
    await in_thread(flushed.move, slot, target)
    value = f"{round(time.time() * 1000) + 1000}"
    await in_thread(target.command, "SET", epoch_key(epoch), value)
    await asyncio.sleep(LATER)
    assert store.peek(name) is None
    assert await store.find(name) == Reason.SESSION_ENDED


async def test_a_mark_written_at_the_importing_shard_is_believed_a_lease_later(
    open_store: OpenOnCluster, half_moved: Callable[[str], tuple[Server, Server]], flushed: Cluster
) -> None:
    store = await open_store()
    token, name = _token("j1"), token_name("https://idp", "j1")
    assert await store.is_revoked(_token("another", beside=name)) is False  # reads the bucket
    await until_true(lambda: store.peek_revoked(token) is False)
    bucket = bucket_of(name)
    _, target = await in_thread(half_moved, bucket)
    await in_thread(asking, target, "SET", bucket_key(bucket), "1")
    await in_thread(flushed.at(revoked_key(name)).set, revoked_key(name), "1")
    await asyncio.sleep(LATER)
    assert store.peek_revoked(token) is None
    assert await store.is_revoked(token) is True


def _token(jti: str, *, beside: str = "") -> TokenRef:
    number = 0
    while True:
        found = token_ref(
            issuer="https://idp",
            subject="s1",
            jti=jti if not beside else f"{jti}{number}",
            issued_at=time.time() - 5,
            expires_at=time.time() + 60,
        )
        if not beside or bucket_of(found.name) == bucket_of(beside):
            return found
        number += 1


async def test_nothing_is_kept_of_a_slot_that_is_being_moved(
    open_store: OpenOnCluster,
    half_moved: Callable[[str], tuple[Server, Server]],
    flushed: Cluster,
) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    source, target = await in_thread(half_moved, name)
    for moved in (False, True):
        if moved:
            await in_thread(flushed.move_keys, slot_of_tag(name), source, target)
        for _ in range(3):
            assert isinstance(await store.find(name), SessionRecord)
            await asyncio.sleep(0.03)
        await until_true(lambda: all(shard.is_reached for shard in store._shards.all()))
        assert store.peek(name) is None
        assert await store.find("0" * 64) == Reason.SESSION_UNKNOWN


@pytest.mark.parametrize("moved", [False, True], ids=["still there", "moved already"])
async def test_a_session_in_a_slot_that_is_being_moved_can_be_ended(
    open_store: OpenOnCluster,
    half_moved: Callable[[str], tuple[Server, Server]],
    flushed: Cluster,
    moved: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    one, other = await open_store(), await open_store()
    name = digest(await one.create(record()))
    await other.find(name)
    source, target = await in_thread(half_moved, name)
    if moved:
        await in_thread(flushed.move_keys, slot_of_tag(name), source, target)
    assert (await one.end(name, reason="logout")).ended == 1
    assert other.peek(name) is None
    assert await other.find(name) == Reason.SESSION_ENDED
    await in_thread(flushed.move_keys, slot_of_tag(name), source, target)
    await in_thread(flushed.end_move, slot_of_tag(name), source, target)
    assert await other.find(name) == Reason.SESSION_ENDED
    assert await in_thread(target.command, "EXISTS", ended_key(name)) == 1


async def test_a_session_is_made_and_used_in_a_slot_that_is_being_moved(
    open_store: OpenOnCluster, half_moved: Callable[[str], tuple[Server, Server]]
) -> None:
    store = await open_store()
    await in_thread(half_moved, epoch_name("", "u1"))
    name = digest(await store.create(record()))
    assert isinstance(await store.find(name), SessionRecord)
    assert [each.digest for each in await store.sessions_of("u1")] == [name]
    assert (await store.end_subject("u1", reason="everywhere")).ended == 1
    assert await store.find(name) == Reason.SESSION_ENDED


async def test_copies_are_used_again_after_the_move(
    open_store: OpenOnCluster, flushed: Cluster
) -> None:
    store = await open_store()
    name = digest(await store.create(record()))
    slot = slot_of_tag(name)
    target = next(each for each in flushed.primaries if each is not flushed.owner(slot))
    await in_thread(flushed.move, slot, target)
    async with asyncio.timeout(5):
        while store.peek(name) is None:
            assert isinstance(await store.find(name), SessionRecord)
            await asyncio.sleep(0.02)


async def test_endings_wait_in_full_after_slots_have_moved(
    open_store: OpenOnCluster, flushed: Cluster
) -> None:
    """A worker may hold a lease of the slot's last owner that no registry of today shows."""
    store = await open_store()
    name = digest(await store.create(record()))
    slot = slot_of_tag(digest("any"))
    target = next(each for each in flushed.primaries if each is not flushed.owner(slot))
    await in_thread(flushed.move, slot, target)
    await until_true(lambda: store._shards.owner(slot).primary.port == target.port)
    for shard in store._shards.all():  # the registries are as old as they were
        registry = shard.claims.registry_key
        assert registry is not None
        await in_thread(flushed.at(registry).hset, registry, "~", "0")
    ended = await store.end(name, reason="logout")
    assert ended.waited_ms > SETTINGS.lease * 1000
    assert ended.of == 1
    async with asyncio.timeout(5):
        while (await store.settle()).waited_ms > SETTINGS.lease * 500:
            pass


async def test_every_command_finds_a_slot_that_is_being_moved(
    open_store: OpenOnCluster, half_moved: Callable[[str], tuple[Server, Server]]
) -> None:
    store = await open_store(worker=False)
    await store.commands.set("here{x}", "1")
    await in_thread(half_moved, "x")
    await store.commands.set("there{x}", "2")
    assert await store.commands.get("here{x}") == b"1"
    assert await store.commands.get("there{x}") == b"2"
    assert await store.commands.eval("return redis.call('GET', KEYS[1])", 1, "there{x}") == b"2"
    keys = SigningKeys(store.commands)
    assert (await keys.rotate()).kid in {state.kid for state in await keys.list()}


# Shards that are lost ---------------------------------------------------------------------------


async def test_a_shard_that_hangs_takes_its_own_sessions_with_it_and_no_others(
    open_store: OpenOnCluster, flushed: Cluster
) -> None:
    store = await open_store()
    names: dict[int, str] = {}
    number = 0
    while len(names) < 3:
        names.setdefault(
            shard_of(epoch_name("", f"u{number}")),
            digest(await store.create(record(f"u{number}"))),
        )
        number += 1
    for name in names.values():
        await store.find(name)
    owners = {n: store._shards.owner(slot_of_tag(name)).primary.port for n, name in names.items()}
    down = flushed.primaries[0]
    gone = next(names[n] for n, port in owners.items() if port == down.port)
    others = [name for name in names.values() if name != gone]
    down.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(LATER)
        assert store.peek(gone) is None
        with pytest.raises(AuthUnavailable):
            await store.find(gone)
        for name in others:
            assert isinstance(await store.find(name), SessionRecord)
        ended = await store.end(others[0], reason="logout")
        assert ended.ended == 1
        assert await store.find(others[0]) == Reason.SESSION_ENDED
        assert isinstance(await store.find(others[1]), SessionRecord)
        with pytest.raises(AuthUnavailable):
            await store.end(gone, reason="logout")
        assert store.silence(others[1]) < store.silence(gone) <= store.silence() + 0.01
        shards: Any = store.status()["by_shard"]
        connected = {address for address, shard in shards.items() if shard["connected"]}
        assert set(shards) - connected == {f"127.0.0.1:{down.port}"}
        assert shards[f"127.0.0.1:{down.port}"]["lease_age"] > SETTINGS.lease
    finally:
        down.signal(signal.SIGCONT)
    async with asyncio.timeout(10):
        while store.peek(gone) is None:
            with contextlib.suppress(AuthUnavailable):
                await store.find(gone)
            await asyncio.sleep(0.02)
    await in_thread(flushed.await_agreement)


async def test_sessions_and_endings_outlive_the_failover_of_a_shard(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, replicas=True)
    try:
        await in_thread(cluster.start)
        store = await open_session_store(cluster.url, SETTINGS, worker=True)
        assert isinstance(store, ClusterSessionStore)
        try:
            await _fail_over(store, cluster)
        finally:
            await store.close()
    finally:
        await in_thread(cluster.close)


async def _fail_over(store: ClusterSessionStore, cluster: Cluster) -> None:
    await leased(store)
    live, ended, lost = [digest(await store.create(record())) for _ in range(3)]
    await store.find(live)
    await store.end(ended, reason="logout")
    number = shard_of(live)
    primary, replica = cluster.primaries[number], cluster.replicas[number]
    await in_thread(primary.command, "WAIT", 1, 1000)
    # The last write is one that the replica never gets.
    await in_thread(cluster.lose_replication, number)
    assert (await store.end(lost, reason="logout")).ended == 1
    await in_thread(primary.kill)
    replica.signal(signal.SIGCONT)
    await in_thread(replica.command, "READONLY")
    assert await in_thread(replica.command, "EXISTS", ended_key(lost)) == 0
    await asyncio.sleep(LATER)
    async with asyncio.timeout(20):
        while True:
            try:
                found = await store.find(live)
                break
            except AuthUnavailable:
                await asyncio.sleep(0.05)
    assert isinstance(found, SessionRecord)
    assert await store.find(ended) == Reason.SESSION_ENDED
    assert await store.find(lost) == Reason.SESSION_ENDED
    await leased(store)
    assert await in_thread(replica.command, "EXISTS", session_key(lost)) == 0
    assert await in_thread(replica.command, "EXISTS", ended_key(lost)) == 1
    assert (await store.end(live, reason="logout")).ended == 1


@pytest.mark.usefixtures("server_with_tls")
async def test_a_cluster_with_tls_and_a_password_does_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, "store", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", certificate.cert_file)
    cluster = Cluster(tmp_path, tls=certificate)
    try:
        await in_thread(cluster.start)
        rights = ["reset", "on", ">p:w", "~*", "&*", "+@all"]
        for server in cluster.primaries:
            await in_thread(server.command, "ACL", "SETUSER", "door", *rights)
        url = cluster.url.replace("//", "//door:p%3Aw@")
        store = await open_session_store(f"{url}?tls=true", SETTINGS, worker=True)
        assert isinstance(store, ClusterSessionStore)
        try:
            await leased(store)
            for number in range(6):
                name = digest(await store.create(record(f"u{number}")))
                assert isinstance(await store.find(name), SessionRecord)
                assert store.peek(name) is not None
                assert (await store.end(name, reason="logout")).acknowledged == 1
            await SigningKeys(store.commands).rotate()
            users = {each["user"] for server in cluster.primaries for each in _clients_of(server)}
            assert users <= {"door", "default"}
            assert "door" in users
        finally:
            await store.close()
    finally:
        await in_thread(cluster.close)


def _clients_of(server: Server) -> list[dict[str, str]]:
    clients: list[dict[str, str]] = server.client.client_list()
    return clients


async def test_a_cluster_that_is_out_is_an_outage(tmp_path: Path) -> None:
    store = await open_session_store("redis+cluster://127.0.0.1:1", SETTINGS, worker=True)
    try:
        for attempt in (store.find("0" * 64), store.end("0" * 64, reason="logout")):
            with pytest.raises(AuthUnavailable):
                await attempt
        with pytest.raises(AuthUnavailable):
            await SigningKeys(store.commands).list()
        assert store.status()["connected"] is False
    finally:
        await store.close()


async def test_the_documented_permissions_suffice(
    open_store: OpenOnCluster, flushed: Cluster
) -> None:
    documentation = await in_thread(Path("docs/revocation.md").read_text, "utf-8")
    found = re.search(r"user doorward (.*?)```", documentation, re.DOTALL)
    more = re.search(r"On a cluster it needs `(.*?)` as well", documentation, re.DOTALL)
    assert found
    assert more
    rules = (found[1].replace("PASSWORD", "pw") + " " + more[1]).split()
    for server in flushed.primaries:
        await in_thread(server.command, "ACL", "SETUSER", "doorward", "reset", *rules)
        await in_thread(server.command, "ACL", "LOG", "RESET")
    store = await open_store(url=flushed.url.replace("//", "//doorward:pw@"))
    assert store.status()["caching"] is True
    names = [digest(await store.create(record())) for _ in range(3)]
    await store.find(names[0])
    store._reader.touches.add(names[0])
    await store.sessions_of("u1")
    assert await store.tell_of_expired() == (0, 0)
    slot = slot_of_tag(names[1])
    target = next(each for each in flushed.primaries if each is not flushed.owner(slot))
    source = await in_thread(flushed.begin_move, slot, target)
    assert (await store.end(names[1], reason="logout")).ended == 1
    await in_thread(flushed.move_keys, slot, source, target)
    await in_thread(flushed.end_move, slot, source, target)
    await store.end_subject("u1", reason="everywhere")
    await store.end_all(reason="admin")
    await store.revoke_token("https://idp", "j", time.time() + 60)
    await store.revoke_tokens_of("https://idp", "u1")
    assert await SigningKeys(store.commands).rotate() is not None
    await until_true(lambda: store._reader.counters["touches"] == 1)
    await store.close()
    for server in flushed.primaries:
        assert await in_thread(server.command, "ACL", "LOG") == []


async def test_an_ended_session_is_told_though_its_ender_died_before_that(
    open_store: OpenOnCluster, flushed: Cluster
) -> None:
    store = await open_store(worker=False)
    name = digest(await store.create(record()))
    tell = store._tell
    telling: list[int] = []

    async def die(commands: Sequence[Command]) -> None:
        telling.append(len(commands))
        if len(telling) == 1:
            await tell(commands)

    store._tell = die  # type: ignore[method-assign]
    assert (await store.end(name, reason="logout")).ended == 1
    assert len(telling) == 2
    assert await store.tell_of_expired() == (0, 0), "its ender is not given up yet"
    store.wall = lambda: time.time() + 6  # long before the session would have ended unused
    assert await store.tell_of_expired() == (1, 1)
    assert events(flushed)[-1] == ("session.ended", "logout")


async def test_a_session_that_was_to_be_ended_by_one_who_died_goes_on(
    open_store: OpenOnCluster, flushed: Cluster
) -> None:
    store = await open_store(worker=False)
    name = digest(await store.create(record()))
    call = store._call_all

    async def die(commands: Sequence[Command]) -> list[Any]:
        if any(command[0] == "EVAL" and ended_key(name) in command for command in commands):
            raise AuthUnavailable("died before the tombstone")
        return await call(commands)

    store._call_all = die  # type: ignore[method-assign]
    with pytest.raises(AuthUnavailable):
        await store.end(name, reason="logout")
    store._call_all = call  # type: ignore[method-assign]
    store.wall = lambda: time.time() + 6
    assert await store.tell_of_expired() == (1, 0)
    assert await store.tell_of_expired() == (0, 0)
    store.wall = time.time
    assert isinstance(await store.find(name), SessionRecord)
    assert (await store.end(name, reason="again")).ended == 1
    assert events(flushed)[-1] == ("session.ended", "again")


async def test_what_the_events_shard_did_not_take_is_written_when_it_is_back(
    open_store: OpenOnCluster, flushed: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(worker=False)
    call, send = store._call_all, store._send
    back = asyncio.Event()

    def of_events(command: Command) -> bool:
        return not back.is_set() and key_of(command) in (EVENTS_KEY, EXPIRING_KEY)

    async def refuse_all(commands: Sequence[Command]) -> list[Any]:
        if any(of_events(command) for command in commands):
            raise AuthUnavailable("the shard is down")
        return await call(commands)

    def refuse(command: Command) -> "asyncio.Future[Any]":
        if not of_events(command):
            return send(command)
        lost = asyncio.get_running_loop().create_future()
        lost.set_exception(StoreLost("the shard is down"))
        return lost

    monkeypatch.setattr(store, "_call_all", refuse_all)
    monkeypatch.setattr(store, "_send", refuse)
    name = digest(await store.create(record()))
    assert (await store.end(name, reason="logout")).ended == 1
    await asyncio.sleep(0.3)  # some beats, in which it is tried and refused
    assert events(flushed) == []
    back.set()
    await until_true(lambda: len(events(flushed)) == 2)
    assert events(flushed) == [("session.started", ""), ("session.ended", "logout")]
    assert await store.tell_of_expired() == (0, 0)


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_an_ending_that_breaks_off_is_not_begun_or_in_force(
    open_store: OpenOnCluster, after: int
) -> None:
    store, other = await open_store(), await open_store()
    name = digest(await store.create(record()))
    await other.find(name)
    call, calls = store._call_all, []

    async def break_off(commands: Sequence[Command]) -> list[Any]:
        if not any(EVENTS_KEY in str(part) for command in commands for part in command):
            calls.append(commands)
            if len(calls) > after:
                raise AuthUnavailable("cut off")
        return await call(commands)

    store._call_all = break_off  # type: ignore[method-assign]
    with contextlib.suppress(AuthUnavailable):
        await store.end(name, reason="logout")
    await asyncio.sleep(LATER)
    found = await other.find(name)
    assert isinstance(found, SessionRecord) if after == 1 else found == Reason.SESSION_ENDED
