"""Active health checks: does an endpoint answer, asked every few seconds."""

import asyncio
import logging
from collections.abc import Iterable

from auth.decision import Reason
from auth.io.tasks import stop
from gateway.io.pool import ConnectFailed, EndpointPool, UpstreamPool
from gateway.response_reading import ResponseHead

CHECK_SECONDS = 5.0
"""How long an endpoint may take to answer a check, if the upstream's own limits are not shorter."""

_log = logging.getLogger(__name__)


class HealthChecks:
    """Keeps `EndpointPool.healthy` up to date for the upstreams that have a check."""

    def __init__(self) -> None:
        self._tasks: dict[UpstreamPool, asyncio.Task[None]] = {}

    def watch(self, pools: Iterable[UpstreamPool]) -> None:
        """Check *pools* from now on, and no others."""
        checked = {pool for pool in pools if pool.upstream.health is not None}
        for pool in tuple(self._tasks):
            if pool not in checked:
                self._tasks.pop(pool).cancel()
        for pool in checked - self._tasks.keys():
            self._tasks[pool] = asyncio.create_task(_check_for_ever(pool))

    async def stop(self) -> None:
        """Check nothing any more."""
        await stop(*self._tasks.values())
        self._tasks.clear()


async def _check_for_ever(pool: UpstreamPool) -> None:
    health = pool.upstream.health
    assert health is not None
    while True:
        results = await asyncio.gather(
            *(_is_healthy(endpoint, pool) for endpoint in pool.endpoints), return_exceptions=True
        )
        for endpoint, result in zip(pool.endpoints, results, strict=True):
            healthy = result is True
            if healthy != endpoint.healthy:
                _log.warning(
                    "upstream %s: %s is %s",
                    pool.upstream.name,
                    endpoint.endpoint,
                    "healthy again" if healthy else "unhealthy",
                )
            endpoint.healthy = healthy
        await asyncio.sleep(health.interval)


async def _is_healthy(endpoint: EndpointPool, pool: UpstreamPool) -> bool:
    """Return whether *endpoint* answers the check with 2xx or 3xx, on a connection of its own."""
    health = pool.upstream.health
    assert health is not None
    try:
        connection = await endpoint.connect()
    except ConnectFailed:
        return False
    check = _Check()
    where = endpoint.endpoint
    path = f"{where.base_path}{health.path}"
    host = "localhost" if where.scheme == "unix" else f"{where.host}:{where.port}"
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: doorward-health\r\n"
        "Connection: close\r\n\r\n"
    )
    if connection.transport is None:
        endpoint.ended()
        return False
    connection.send(check, request.encode("latin-1"))
    try:
        async with asyncio.timeout(min(CHECK_SECONDS, pool.upstream.timeouts.response)):
            return await check.result
    except TimeoutError:
        return False
    finally:
        connection.abort()


class _Check:
    """Takes the answer to a check; what follows its head does not matter."""

    method = "GET"
    wants_upgrade = False
    request_sent = True

    def __init__(self) -> None:
        self.result: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answer_began(self, head: ResponseHead, content: bytes, *, complete: bool) -> None:  # noqa: ARG002 - a `Requester`
        self._conclude(healthy=200 <= head.status < 400)

    def answer_continued(self, content: bytes, *, complete: bool) -> None:
        pass

    def upstream_switched(self, head: ResponseHead, data: bytes) -> None:  # noqa: ARG002 - the same
        self._conclude(healthy=False)

    def upstream_sent(self, data: bytes) -> None:
        pass

    def upstream_failed(self, reason: Reason, *, unanswered: bool) -> None:  # noqa: ARG002 - the same
        self._conclude(healthy=False)

    def upstream_writable(self, *, writable: bool) -> None:
        pass

    def _conclude(self, *, healthy: bool) -> None:
        if not self.result.done():
            self.result.set_result(healthy)
