"""The signing keys in a real store."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import redis.asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

import auth.io.signing_keys
from auth.decision import Reason
from auth.identity import Identity
from auth.io.signing_keys import PUBLISH_AHEAD, STORE_KEY, SigningKeys
from auth.keys import KeyRing, SigningKey
from auth.ports import AuthUnavailable
from config.model import Assertion

if TYPE_CHECKING:
    from tests.conftest import Valkey

SETTINGS = Assertion(ttl=60.0, issuer="http://127.0.0.1:8080")
ALICE = Identity("alice", session_digest="d", expires_at=1e12)


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def commands(valkey: "Valkey") -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(valkey.url, protocol=2) as client:
        yield client


def signing(keys: SigningKeys, clock: Clock) -> str:
    key = keys.ring.signing_key(clock.now)
    assert isinstance(key, SigningKey)
    return key.kid


def kids(ring: KeyRing) -> list[str]:
    return [key.kid for key in ring.keys]


async def test_the_first_gateway_makes_a_key_and_the_others_take_it(
    commands: redis.asyncio.Redis,
) -> None:
    first, second = SigningKeys(commands), SigningKeys(commands)
    made = await first.refresh()
    assert len(made.keys) == 1
    assert kids(await second.refresh()) == kids(made)


async def test_gateways_that_start_at_the_same_moment_agree(
    commands: redis.asyncio.Redis,
) -> None:
    gateways = [SigningKeys(commands) for _ in range(20)]
    rings = await asyncio.gather(*(gateway.refresh() for gateway in gateways))
    assert {tuple(kids(ring)) for ring in rings} == {tuple(kids(rings[0]))}
    assert len(rings[0].keys) == 1


async def test_rotations_at_the_same_moment_lose_no_key(commands: redis.asyncio.Redis) -> None:
    gateways = [SigningKeys(commands) for _ in range(5)]
    await gateways[0].refresh()
    made = await asyncio.gather(*(gateway.rotate() for gateway in gateways))
    ring = await SigningKeys(commands).refresh()
    assert {key.kid for key in made} < set(kids(ring))
    assert len(ring.keys) == 6


async def test_a_new_key_signs_only_when_every_gateway_has_it(
    commands: redis.asyncio.Redis,
) -> None:
    clock = Clock()
    keys = SigningKeys(commands, clock=clock)
    old = (await keys.refresh()).keys[0]
    new = await keys.rotate()
    assert signing(keys, clock) == old.kid
    assert [(state.kid, state.state) for state in await keys.list()] == [
        (old.kid, "signing"),
        (new.kid, "next"),
    ]
    clock.now += PUBLISH_AHEAD
    assert signing(keys, clock) == new.kid
    assert [state.state for state in await keys.list()] == ["previous", "signing"]
    clock.now += 3600
    assert [state.kid for state in await keys.list()] == [new.kid]
    await keys.rotate()
    assert old.kid not in kids(keys.ring)


async def test_a_signer_is_given_every_change(commands: redis.asyncio.Redis) -> None:
    clock = Clock()
    keys, elsewhere = SigningKeys(commands, clock=clock), SigningKeys(commands, clock=clock)
    signer = keys.signer(SETTINGS)
    with pytest.raises(AuthUnavailable):
        signer.assertion_for(ALICE, "notes", clock.now)
    await keys.refresh()
    assert signer.assertion_for(ALICE, "notes", clock.now)
    new = await elsewhere.rotate()
    await keys.refresh()
    assert new.kid in json.dumps(signer.jwks(clock.now))


async def test_the_keys_outlive_a_store_that_lost_everything(
    commands: redis.asyncio.Redis,
) -> None:
    keys = SigningKeys(commands)
    before = kids(await keys.refresh())
    await commands.flushall()
    assert await SigningKeys(commands).list() == ()
    assert kids(await keys.refresh()) == before
    assert kids(await SigningKeys(commands).refresh()) == before


@pytest.mark.parametrize(
    "junk",
    [
        "junk",
        "{}",
        '{"v":2,"keys":[]}',
        '{"v":1,"keys":[]}',
        "[1]",
        '{"v":1,"keys":[{"pem":"SECRET","created_at":0,"active_at":0}]}',
    ],
)
async def test_junk_is_not_overwritten_by_itself_but_by_a_rotation(
    commands: redis.asyncio.Redis, junk: str
) -> None:
    await commands.set(STORE_KEY, junk)
    keys = SigningKeys(commands)
    for ask in (keys.refresh, keys.list):
        with pytest.raises(AuthUnavailable, match="cannot be read") as outage:
            await ask()
        assert "SECRET" not in str(outage.value)
    assert await commands.get(STORE_KEY) == junk.encode()
    made = await keys.rotate()
    assert keys.ring.signing_key(made.created_at) is made
    assert kids(await SigningKeys(commands).refresh()) == [made.kid]


async def test_a_store_that_is_out_is_an_outage_and_the_start_goes_on_without_it() -> None:
    nobody = redis.asyncio.Redis(port=1, retry=Retry(NoBackoff(), 0), socket_connect_timeout=0.2)
    keys = SigningKeys(nobody)
    for ask in (keys.refresh, keys.rotate, keys.list):
        with pytest.raises(AuthUnavailable) as outage:
            await ask()
        assert outage.value.reason is Reason.STORE_UNAVAILABLE
    await keys.start()
    assert keys.ring.keys == ()
    await keys.close()
    await nobody.aclose()


async def test_a_running_gateway_hears_of_a_rotation(
    commands: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth.io.signing_keys, "_REFRESH", 0.005)
    keys = SigningKeys(commands)
    await keys.start()
    new = await SigningKeys(commands).rotate()
    async with asyncio.timeout(5):
        while new.kid not in kids(keys.ring):
            await asyncio.sleep(0.005)
    await keys.close()


async def test_an_outage_while_running_is_logged_once_and_survived(
    commands: redis.asyncio.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(auth.io.signing_keys, "_REFRESH", 0.002)
    keys = SigningKeys(commands)
    await keys.start()
    good = await commands.get(STORE_KEY) or b""
    held = kids(keys.ring)
    await commands.set(STORE_KEY, "junk")
    async with asyncio.timeout(5):
        while not caplog.records:
            await asyncio.sleep(0.002)
    await asyncio.sleep(0.02)  # several more rounds
    assert len(caplog.records) == 1
    assert kids(keys.ring) == held, "it goes on signing with what it has"
    await commands.set(STORE_KEY, good)
    new = await SigningKeys(commands).rotate()
    async with asyncio.timeout(5):
        while new.kid not in kids(keys.ring):
            await asyncio.sleep(0.002)
    await keys.close()


async def test_a_key_of_another_kind_in_the_store_is_refused(
    commands: redis.asyncio.Redis,
) -> None:
    keys = SigningKeys(commands)
    await keys.refresh()
    stored = json.loads(await commands.get(STORE_KEY) or "")
    pem = ec.generate_private_key(ec.SECP384R1())
    stored["keys"][0]["pem"] = pem.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    await commands.set(STORE_KEY, json.dumps(stored))
    with pytest.raises(AuthUnavailable, match="cannot be read"):
        await keys.refresh()
