"""Telling a real server again what ended."""

import pytest

from auth.decision import Reason
from auth.io.connection import Connection
from auth.io.replay import PAGE, epoch_again, identify, mark, over_again, send_all
from auth.io.session_store import RedisSessionStore
from auth.ports import AuthUnavailable
from auth.revocation import (
    Epoch,
    bucket_key,
    bucket_of,
    epoch_key,
    epoch_name,
    revoked_key,
    token_ref,
)
from auth.session import digest, session_key
from tests.auth.io.conftest import Open
from tests.auth.session_store_contract import record
from tests.conftest import Valkey

pytestmark = pytest.mark.wire

TOKEN = token_ref(
    issuer="https://idp.example.com",
    subject="u1",
    jti="t-1",
    issued_at=1_795_345_561.0,
    expires_at=4_000_000_000.0,
)


def connection_of(store: RedisSessionStore) -> Connection:
    connection = store._control.connection
    assert connection is not None
    return connection


async def test_a_session_that_is_over_again_is_ended_and_its_record_gone(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store()
    name = digest(await store.create(record()))

    await send_all(connection_of(store), over_again(name, 60.0))

    assert await store.find(name) == Reason.SESSION_ENDED
    assert not valkey.client.exists(session_key(name))


async def test_a_token_that_is_over_again_is_revoked_for_a_worker_that_took_it_for_clean(
    open_store: Open,
) -> None:
    store = await open_store()
    assert await store.is_revoked(TOKEN) is False

    await send_all(connection_of(store), over_again(TOKEN.name, 60.0))

    assert await store.is_revoked(TOKEN) is True


async def test_an_epoch_again_ends_what_began_before_it(open_store: Open) -> None:
    store = await open_store()
    name = digest(await store.create(record("u1")))
    at = round(store.wall() * 1000) + 1

    await send_all(connection_of(store), epoch_again(epoch_name("", "u1"), Epoch(at)))

    assert await store.find(name) == Reason.SESSION_ENDED


async def test_an_epoch_again_never_goes_back(open_store: Open, valkey: Valkey) -> None:
    connection, epoch = connection_of(await open_store()), epoch_name("", "u1")
    for at in (2000, 1000):
        await send_all(connection, epoch_again(epoch, Epoch(at)))

    assert valkey.client.get(epoch_key(epoch)) == Epoch(2000).encode().encode()


async def test_a_mark_outlives_what_it_stands_for(open_store: Open, valkey: Valkey) -> None:
    store = await open_store()
    await send_all(connection_of(store), over_again(TOKEN.name, 5.0))

    assert valkey.client.pttl(bucket_key(bucket_of(TOKEN.name))) > valkey.client.pttl(
        revoked_key(TOKEN.name)
    )


async def test_more_than_a_page_is_told_whole(open_store: Open, valkey: Valkey) -> None:
    store = await open_store()
    names = [digest(f"cookie {number}") for number in range(3 * PAGE)]

    await send_all(connection_of(store), (mark(name, 60_000) for name in names))

    assert valkey.client.exists(*{bucket_key(bucket_of(name)) for name in names}) == len(
        {bucket_of(name) for name in names}
    )


async def test_a_server_is_known_by_its_run_and_a_replica_is_none(
    open_store: Open, valkey: Valkey
) -> None:
    store = await open_store(worker=False)
    connection = connection_of(store)
    (run_id, replication_id), uptime = await identify(connection)
    info = valkey.client.info("server")
    assert run_id.decode() == info["run_id"]
    assert (len(replication_id), uptime >= 0) == (40, True)

    valkey.client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(AuthUnavailable, match="is a replica"):
            await identify(connection)
    finally:
        valkey.client.replicaof("NO", "ONE")
