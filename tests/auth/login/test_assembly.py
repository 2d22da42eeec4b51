"""The service as a worker opens it."""

import asyncio
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis.asyncio import Redis

from auth.io.session_store import RedisSessionStore
from auth.login.assembly import (
    FACTOR_KEY_FILE,
    SECRET_KEY,
    factor_key,
    open_login_service,
    shared_secret,
)
from auth.login.factors import Factors
from auth.login.throttle import PAIR, StoreThrottle
from auth.ports import AuthUnavailable
from config.model import Login, Secret
from tests.auth.login.conftest import Site, app_of, configured, field
from tests.conftest import Valkey
from tests.store_server import nowhere


async def test_all_gateways_of_a_store_get_one_secret(valkey: Valkey) -> None:
    async def ask() -> bytes:
        async with Redis.from_url(valkey.url, protocol=2) as commands:
            return await shared_secret(commands)

    secrets = {*await asyncio.gather(*(ask() for _ in range(10)))}
    assert len(secrets) == 1
    assert len(secrets.pop()) == 32


async def test_a_secret_outlives_the_gateway_that_made_it(valkey: Valkey) -> None:
    async with Redis.from_url(valkey.url, protocol=2) as commands:
        assert await shared_secret(commands) == await shared_secret(commands)
    assert valkey.client.ttl(SECRET_KEY) == -1


async def test_another_store_has_another_secret(valkey: Valkey) -> None:
    async with Redis.from_url(valkey.url, protocol=2) as commands:
        first = await shared_secret(commands)
        valkey.flush()
        assert await shared_secret(commands) != first


async def test_a_store_that_is_gone_is_an_outage() -> None:
    async with nowhere() as commands:
        with pytest.raises(AuthUnavailable):
            await shared_secret(commands)


async def test_the_service_signs_in_and_limits_attempts(
    store: RedisSessionStore, tmp_path: Path
) -> None:
    service = await open_login_service(configured(), store, store.commands, tmp_path)
    service.accounts.add("ada", "correct horse battery")
    site = Site(service, store, service.accounts)
    await site.browser().sign_in()
    wrong = {"username": "nobody", "password": "wrong"}
    for _ in range(PAIR.size):  # as if so many had failed elsewhere a moment ago
        await StoreThrottle(store.commands).take("nobody", "192.0.2.1")
    assert (await site.browser().post("/.doorward/login", wrong)).status == 429
    await service.close()


async def test_accounts_that_cannot_be_opened_are_an_outage(
    store: RedisSessionStore, tmp_path: Path
) -> None:
    (tmp_path / "accounts.sqlite3").write_text("no database " * 100)
    with pytest.raises(AuthUnavailable, match="cannot open the accounts"):
        await open_login_service(configured(), store, store.commands, tmp_path)


async def test_the_service_asks_for_the_second_factor(
    store: RedisSessionStore, tmp_path: Path
) -> None:
    service = await open_login_service(configured(), store, store.commands, tmp_path)
    service.accounts.add("ada", "correct horse battery")
    key = (tmp_path / FACTOR_KEY_FILE).read_text()
    site = Site(service, store, service.accounts, Factors(service.accounts.database, key))
    app_of(site, "ada")
    browser = site.browser()
    form = {"username": "ada", "password": "correct horse battery"}
    answer = await browser.post("/.doorward/login", form)
    assert (field(answer, "location"), browser.session) == ("/.doorward/second-factor", "")
    await service.close()


def test_the_key_of_the_factors_is_made_once_and_for_its_owner(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: factor_key(Login(), tmp_path), range(16)))
    assert len(keys) == 1
    assert len(bytes.fromhex(keys.pop())) == 32
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_of_the_operators_is_taken_as_it_is(tmp_path: Path) -> None:
    assert factor_key(Login(factor_key=Secret("k" * 32)), tmp_path) == "k" * 32
    assert not list(tmp_path.iterdir())
