import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from msgspec.structs import replace

from auth.io.session_store import RedisSessionStore, open_session_store
from auth.revocation import LONGEST_SESSION, TokenRef, token_ref
from config.model import SessionSettings, TokenIssuer
from gateway.io.admin_tokens import (
    UnusableRevocationError,
    Unwanted,
    add_token_routes,
    revoke_tokens,
)
from tests.auth.login.conftest import configured
from tests.conftest import Valkey

pytestmark = pytest.mark.wire

ONE, OTHER = "https://one.example", "https://other.example"
SETTINGS = SessionSettings(cookie_name="doorward", secure=False, lease=0.3)


@pytest.fixture
async def store(valkey: Valkey) -> AsyncIterator[RedisSessionStore]:
    store = await open_session_store(valkey.url, SETTINGS, worker=False)
    yield store
    await store.close()


@pytest.fixture
async def worker(valkey: Valkey) -> AsyncIterator[RedisSessionStore]:
    """A gateway's worker that knows the tokens and has them in its cache."""
    store = await open_session_store(valkey.url, SETTINGS, worker=True)
    yield store
    await store.close()


def token(issuer: str = ONE, *, jti: str = "t1", subject: str = "u1", age: float = 5) -> TokenRef:
    now = time.time()
    return token_ref(
        issuer=issuer, subject=subject, jti=jti, issued_at=now - age, expires_at=now + 600
    )


async def test_one_token_is_refused_everywhere_when_it_answers(
    store: RedisSessionStore, worker: RedisSessionStore
) -> None:
    unwanted, others = token(), [token(jti="t2"), token(OTHER)]
    for each in (unwanted, *others):
        assert await worker.is_revoked(each) is False
    ended = await revoke_tokens(store, Unwanted(jti="t1", issuer=ONE), [ONE, OTHER], time.time())
    assert worker.peek_revoked(unwanted) is not False
    assert await worker.is_revoked(unwanted) is True
    assert [await worker.is_revoked(each) for each in others] == [False, False]
    assert (ended.ended, ended.acknowledged, ended.of) == (1, 1, 1)


async def test_all_tokens_of_a_subject_are_refused_but_not_those_made_after(
    store: RedisSessionStore, worker: RedisSessionStore
) -> None:
    unwanted = [token(), token(jti="t2"), token(OTHER)]
    for each in (*unwanted, token(jti="t9", subject="u2")):
        assert await worker.is_revoked(each) is False
    ended = await revoke_tokens(store, Unwanted(subject="u1"), [ONE, OTHER], time.time())
    assert [worker.peek_revoked(each) for each in unwanted] != [False, False, False]
    assert [await worker.is_revoked(each) for each in unwanted] == [True, True, True]
    assert await worker.is_revoked(token(jti="t9", subject="u2")) is False
    assert await worker.is_revoked(token(jti="t3", age=-2)) is False
    assert ended.ended == 2


async def test_a_token_whose_end_nobody_knows_is_refused_for_long(
    store: RedisSessionStore, valkey: Valkey
) -> None:
    await revoke_tokens(store, Unwanted(jti="t1"), [ONE], time.time())
    (key,) = valkey.client.keys("doorward:revoked:*")
    assert valkey.client.ttl(key) > LONGEST_SESSION - 60


@pytest.mark.parametrize(
    ("unwanted", "issuers", "words"),
    [
        (Unwanted(), [ONE], "either"),
        (Unwanted("t1", "u1"), [ONE], "either"),
        (Unwanted("t1"), [], "no issuer"),
        (Unwanted("t1", expires_at=5.0), [ONE], "has passed"),
    ],
    ids=["nothing", "both", "no issuer", "expired"],
)
async def test_what_is_not_clear_revokes_nothing(
    store: RedisSessionStore,
    valkey: Valkey,
    unwanted: Unwanted,
    issuers: list[str],
    words: str,
) -> None:
    with pytest.raises(UnusableRevocationError, match=words):
        await revoke_tokens(store, unwanted, issuers, time.time())
    assert valkey.client.keys("doorward:revoked:*") == []


async def test_the_api_takes_back_and_says_what_is_wrong(store: RedisSessionStore) -> None:
    issuer = TokenIssuer(ONE, ("api",), ("ES256",), jwks_file="none.json")
    configuration = replace(configured(), tokens=(issuer,))
    application = web.Application()
    add_token_routes(application, store, lambda: configuration)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/tokens/revoke"
    async with ClientSession() as client:
        good = await client.post(url, json={"jti": "t1"})
        assert (good.status, (await good.json())["ended"]) == (200, 1)
        for body in (b"", b"{}", b'{"jti": 7}', b'{"token": "x"}', b"\xff"):
            assert (await client.post(url, data=body)).status == 400
    await runner.cleanup()
    assert await store.is_revoked(token()) is True
