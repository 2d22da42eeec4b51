import asyncio

import pytest

from config.model import HealthCheck, Upstream
from gateway.io.health import HealthChecks
from gateway.io.pool import UpstreamPool
from tests.gateway.io.harness import (
    ALL,
    Upstreams,
    configuration,
    endpoint,
    gateway,
    upstream,
)

pytestmark = pytest.mark.wire


class Checked:
    """An upstream whose health can be changed."""

    def __init__(self, status: bytes = b"200 OK") -> None:
        self.status = status
        self.checks = asyncio.Event()

    async def __call__(
        self, backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            head = await backend.read_head(reader)
            check = head.startswith(b"GET /healthz ")
            status = self.status if check else b"200 OK"
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % status)
            if check:
                self.checks.set()

    async def checked(self) -> None:
        """Wait for two more checks, so that the first one's result is in."""
        for _ in range(2):
            self.checks.clear()
            await asyncio.wait_for(self.checks.wait(), 2)


async def test_an_endpoint_that_fails_its_check_gets_no_requests_until_it_passes() -> None:
    sick, well = Checked(b"500 Internal Server Error"), Checked()
    async with upstream(sick) as one, upstream(well) as two:
        upstreams = {
            "app": Upstream(
                "app",
                (endpoint(one.port), endpoint(two.port)),
                health=HealthCheck("/healthz", interval=0.03),
            )
        }
        async with gateway(configuration(upstreams, [ALL])) as running:
            await sick.checked()
            for _ in range(6):
                assert (await running.ask(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
            assert not [head for head in one.requests if head.startswith(b"GET /x ")]

            sick.status = b"204 No Content"
            sick.status = b"200 OK"
            await sick.checked()
            for _ in range(6):
                await running.ask(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert [head for head in one.requests if head.startswith(b"GET /x ")]


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 503 x\r\n\r\n", b"nonsense\r\n\r\n", b"", b"HTTP/1.1 101 x\r\nUpgrade: y\r\n\r\n"],
    ids=["503", "nonsense", "nothing", "101"],
)
async def test_anything_but_a_good_answer_is_a_failed_check(answer: bytes) -> None:
    async def behave(
        backend: Upstreams, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await backend.read_head(reader)
        writer.write(answer)

    async with upstream(behave) as backend:
        pool = UpstreamPool(
            Upstream("app", (endpoint(backend.port),), health=HealthCheck("/healthz", 0.02))
        )
        checks = HealthChecks()
        checks.watch([pool])
        async with asyncio.timeout(2):
            while pool.endpoints[0].healthy:
                await asyncio.sleep(0.01)
        await checks.stop()
        assert pool.endpoints[0].in_flight == 0


async def test_only_watched_upstreams_are_checked() -> None:
    checked = Checked()
    async with upstream(checked) as backend:
        pool = UpstreamPool(
            Upstream("app", (endpoint(backend.port),), health=HealthCheck("/healthz", 0.02))
        )
        checks = HealthChecks()
        checks.watch([pool])
        await checked.checked()
        checks.watch([])
        await asyncio.sleep(0.05)
        count = len(backend.requests)
        await asyncio.sleep(0.1)

        assert len(backend.requests) == count
        await checks.stop()
