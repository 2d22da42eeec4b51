"""Guessing passwords at two gateways that share a store."""

from contextlib import AsyncExitStack
from pathlib import Path
from time import time

import pytest

from auth.login.throttle import PAIR
from tests.conftest import Valkey
from tests.gateway.io.harness import Message, upstream
from tests.wire.outside import Outside, outside

pytestmark = pytest.mark.wire

ROUTES = "  - {id: all, match: {path: /*}, upstream: app, access: signed-in}"
LEFT = 3
"""Attempts that are still free; each costs a hash, so most are taken away beforehand."""


async def guess(running: Outside, name: str = "ada") -> Message:
    body = f"username={name}&password=wrong-password-1".encode()
    return await running.ask(
        b"POST /.doorward/login HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )


async def test_guessing_is_stopped_on_every_gateway_with_429_and_when_to_come_back(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with upstream() as backend, AsyncExitStack() as stack:
        gateways = []
        for name in ("one", "two"):
            directory = tmp_path / name
            directory.mkdir()
            more = f'store: {{url: "{valkey.tcp_url}"}}'
            gateways.append(
                await stack.enter_async_context(outside(directory, backend, ROUTES, more=more))
            )
        first = await guess(gateways[0])
        assert first.status == 401
        assert first.fields["x-doorward-error"] == "sign_in_failed"
        (bucket,) = valkey.client.keys("doorward:attempts:pair:*")
        assert float(valkey.client.hget(bucket, "tokens") or 0) == pytest.approx(
            PAIR.size - 1, abs=0.1
        )
        valkey.client.hset(bucket, mapping={"tokens": LEFT, "at": time()})

        statuses = [(await guess(gateways[turn % 2])).status for turn in range(LEFT)]
        assert statuses == [401] * LEFT
        for running in gateways:
            refused = await guess(running)
            assert refused.status == 429
            assert refused.fields["x-doorward-error"] == "too_many_attempts"
            assert 1 <= int(refused.fields["retry-after"]) <= PAIR.seconds_each
            assert "no-store" in refused.fields["cache-control"]
            assert "set-cookie" not in refused.fields
            assert (await guess(running, "somebody-else")).status == 401
