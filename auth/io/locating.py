"""Opening connections to the primary, wherever it is now."""

import asyncio
import contextlib
from typing import Any

import hiredis
import redis.asyncio
from msgspec.structs import replace
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from auth.io.address import StoreAddress
from auth.io.connection import Connection, StoreLost
from auth.io.link import PATIENCE, open_connection

_SENTINEL_PATIENCE = 0.2
"""Seconds for one Sentinel; then the next one is asked."""


async def open_primary(address: StoreAddress, *, channel: str, tracking: bool) -> Connection:
    """Connect to the primary of *address*; see `open_connection`.

    Raises:
        OSError, StoreLost, hiredis.ReplyError: it cannot be had now.
    """
    if address.kind == "sentinel":
        address = await locate_primary(address)
    return await open_connection(address, channel=channel, tracking=tracking)


async def locate_primary(address: StoreAddress) -> StoreAddress:
    """Ask the sentinels in turn where the primary is.

    Raises:
        StoreLost: none of them knows.
    """
    for host in address.hosts:
        sentinel = StoreAddress(
            "single",
            hosts=(host,),
            username=address.sentinel_username,
            password=address.sentinel_password,
            tls=address.tls,
        )
        with contextlib.suppress(OSError, StoreLost, hiredis.HiredisError, TimeoutError):
            async with asyncio.timeout(_SENTINEL_PATIENCE):
                connection = await open_connection(sentinel, channel="", tracking=False)
                try:
                    found = await connection.call(
                        "SENTINEL", "GET-MASTER-ADDR-BY-NAME", address.primary
                    )
                finally:
                    connection.close()
            if isinstance(found, list):
                where = (found[0].decode(), int(found[1]))
                return replace(address, kind="single", hosts=(where,))
    raise StoreLost(f"no sentinel knows the primary {address.primary!r}")


def command_client(address: StoreAddress) -> "redis.asyncio.Redis":
    """Return a plain client for everything that is not a session: short time-outs, no retries.

    RESP2 on purpose: under RESP3 redis-py 8.1.0 switches off its guard against connections that
    still hold somebody's reply.
    """
    options: dict[str, Any] = {
        "username": address.username or None,
        "password": address.password or None,
        "protocol": 2,
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": 0.5,
        "retry": Retry(NoBackoff(), 0),
        # CLIENT SETINFO: one more permission, and a refusal in the store's log where it lacks.
        "driver_info": None,
    }
    if address.kind == "sentinel":
        asking: dict[str, Any] = {
            "username": address.sentinel_username or None,
            "password": address.sentinel_password or None,
            "protocol": 2,
            "socket_timeout": _SENTINEL_PATIENCE,
            "driver_info": None,
            "ssl": address.tls,
        }
        sentinel = Sentinel(address.hosts, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
        client: redis.asyncio.Redis = sentinel.master_for(
            address.primary, db=address.database, ssl=address.tls, **options
        )
        return client
    if address.path:
        return redis.asyncio.Redis(unix_socket_path=address.path, db=address.database, **options)
    host, port = address.hosts[0]
    return redis.asyncio.Redis(
        host=host, port=port, db=address.database, ssl=address.tls, **options
    )


async def close_client(client: "redis.asyncio.Redis") -> None:
    """Close *client*, and those with which it asks the sentinels, which redis-py leaves open."""
    await client.aclose()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in manager.sentinels if manager is not None else ():
        await sentinel.aclose()
