"""What the stream says of accounts."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from auth.io.account_events import AccountEvents
from tests.conftest import Valkey
from tests.store_server import nowhere


@pytest.fixture
async def commands(valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url) as commands:
        yield commands


async def test_each_change_is_an_event_with_the_subject_and_no_more(commands: Redis) -> None:
    events = AccountEvents(commands, clock=lambda: 7.5)
    await events.factor_added("u1", "totp")
    await events.factor_removed("u1", "passkey")
    await events.password_changed("u1")
    entries: Any = await commands.xrange("doorward:events")
    assert [fields for _, fields in entries] == [
        {b"event": b"account.factor_added", b"subject": b"u1", b"at": b"7.5", b"factor": b"totp"},
        {
            b"event": b"account.factor_removed",
            b"subject": b"u1",
            b"at": b"7.5",
            b"factor": b"passkey",
        },
        {b"event": b"account.password_changed", b"subject": b"u1", b"at": b"7.5"},
    ]


async def test_an_outage_takes_no_change_back_and_is_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with nowhere() as commands:
        with caplog.at_level(logging.WARNING, "doorward.login"):
            await AccountEvents(commands).password_changed("u1")
    assert "account.password_changed of u1" in caplog.text


async def test_without_a_store_nobody_is_told() -> None:
    await AccountEvents().password_changed("u1")
