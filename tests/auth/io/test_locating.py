"""Finding the primary, with a real sentinel that watches the run's real server."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis
import redis.exceptions

from auth.io.address import StoreAddress, parse_store_url
from auth.io.connection import StoreLost
from auth.io.embedded import find_server
from auth.io.locating import close_client, command_client, locate_primary, open_primary
from tests.conftest import Valkey

pytestmark = pytest.mark.wire


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def sentinel_port(
    tmp_path_factory: pytest.TempPathFactory, valkey_process: Valkey
) -> Iterator[int]:
    """A sentinel that knows the primary "main"."""
    directory = tmp_path_factory.mktemp("sentinel")
    port = free_port()
    configuration = directory / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor main 127.0.0.1 {valkey_process.tcp_url.rpartition(':')[2]} 1\n"
    )
    with subprocess.Popen(
        [find_server(), str(configuration), "--sentinel"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            with redis.Redis(port=port, protocol=2) as client:
                until = time.monotonic() + 20
                while not answers(client):
                    assert time.monotonic() < until
                    time.sleep(0.02)
            yield port
        finally:
            process.terminate()


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


def address_of(*ports: int, primary: str = "main", database: int = 0) -> StoreAddress:
    hosts = tuple(("127.0.0.1", port) for port in ports)
    return StoreAddress("sentinel", hosts=hosts, primary=primary, database=database)


async def test_a_sentinel_says_where_the_primary_is(sentinel_port: int, valkey: Valkey) -> None:
    found = await locate_primary(address_of(sentinel_port, database=3))
    assert found == StoreAddress(
        "single",
        hosts=(("127.0.0.1", int(valkey.tcp_url.rpartition(":")[2])),),
        primary="main",
        database=3,
    )


async def test_sentinels_that_are_gone_or_silent_are_passed_over(sentinel_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = (free_port(), silent.getsockname()[1], sentinel_port)
        found = await locate_primary(address_of(*ports))
    assert found.kind == "single"


async def test_a_server_that_is_no_sentinel_is_passed_over(
    sentinel_port: int, valkey: Valkey
) -> None:
    ports = (int(valkey.tcp_url.rpartition(":")[2]), sentinel_port)
    assert (await locate_primary(address_of(*ports))).kind == "single"


async def test_a_primary_that_no_sentinel_knows_is_named(sentinel_port: int) -> None:
    with pytest.raises(StoreLost, match="'other'"):
        await locate_primary(address_of(free_port(), sentinel_port, primary="other"))


@pytest.mark.parametrize("way", ["directly", "by sentinel"])
async def test_a_connection_leads_to_the_primary(
    sentinel_port: int, valkey: Valkey, way: str
) -> None:
    address = address_of(sentinel_port) if way == "by sentinel" else parse_store_url(valkey.url)
    valkey.client.set("which", "this one")
    connection = await open_primary(address, channel="c", tracking=True)
    try:
        assert connection.tracking
        assert await connection.call("GET", "which") == b"this one"
    finally:
        connection.close()


@pytest.mark.parametrize("way", ["unix socket", "TCP", "by sentinel"])
async def test_a_plain_client_leads_to_the_primary_and_closes_all_it_opened(
    sentinel_port: int, valkey: Valkey, way: str
) -> None:
    """What is left open would be a ResourceWarning, which is an error here."""
    urls = {"unix socket": valkey.url, "TCP": valkey.tcp_url}
    address = parse_store_url(urls[way]) if way in urls else address_of(sentinel_port)
    valkey.client.set("which", "this one")
    client = command_client(address)
    try:
        assert await client.get("which") == b"this one"
    finally:
        await close_client(client)


async def test_a_plain_client_uses_the_database_and_the_user_of_the_url(valkey: Valkey) -> None:
    valkey.client.acl_setuser(
        "u", enabled=True, reset=True, passwords=["+pw"], keys=["*"], categories=["+@all"]
    )
    url = valkey.tcp_url.replace("//", "//u:pw@") + "/3"
    client = command_client(parse_store_url(url))
    try:
        assert await client.acl_whoami() == "u"
        await client.set("here", "3")
    finally:
        await close_client(client)
    assert valkey.client.get("here") is None


async def test_a_plain_client_does_not_wait_for_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = StoreAddress("single", hosts=(("127.0.0.1", silent.getsockname()[1]),))
        client = command_client(address)
        started = asyncio.get_running_loop().time()
        with pytest.raises(redis.exceptions.TimeoutError):
            await asyncio.wait_for(client.get("x"), 20)
        # One patience of 0.8 s: with redis-py's usual retries it would be ten seconds.
        assert asyncio.get_running_loop().time() - started < 5
        await close_client(client)
