"""Forms in the store, until their sender has signed in."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from auth.io.kept_forms import FORM_SECONDS, KeptForm, KeptForms
from auth.ports import AuthUnavailable
from tests.conftest import Valkey

FORM = KeptForm("/notes?a=b", (("text", "milk & bread"), ("tag", "x"), ("tag", "ü")))
BINDING = "b" * 43


@pytest.fixture
async def commands(valkey: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.url) as commands:
        yield commands


async def test_a_form_is_found_by_its_browser_as_often_as_it_asks_until_discarded(
    commands: Redis,
) -> None:
    forms = KeptForms(commands)
    await forms.keep(BINDING, FORM)
    assert await forms.find(BINDING) == await forms.find(BINDING) == FORM
    assert await forms.find("c" * 43) is None
    assert await forms.find("") is None
    await forms.discard(BINDING)
    assert await forms.find(BINDING) is None


async def test_who_reads_the_store_reads_no_form(commands: Redis) -> None:
    await KeptForms(commands).keep(BINDING, FORM)
    (key,) = [key async for key in commands.scan_iter("*")]
    value = await commands.get(key)
    assert value is not None
    assert BINDING.encode() not in key + value
    for part in (b"milk", b"bread", b"text", b"notes"):
        assert part not in key + value
    assert 0 < await commands.ttl(key) <= FORM_SECONDS


async def test_a_claim_names_the_owner_and_gives_no_more_time(commands: Redis) -> None:
    forms = KeptForms(commands)
    await forms.keep(BINDING, FORM)
    (key,) = [key async for key in commands.scan_iter("*")]
    await commands.expire(key, 60)
    await forms.claim(BINDING, FORM, "u1")
    found = await forms.find(BINDING)
    assert found is not None
    assert (found.subject, found.pairs) == ("u1", FORM.pairs)
    assert await commands.ttl(key) <= 60
    await forms.discard(BINDING)
    await forms.claim(BINDING, FORM, "u1")
    assert await forms.find(BINDING) is None


async def test_a_value_that_somebody_else_put_there_is_no_form(commands: Redis) -> None:
    forms = KeptForms(commands)
    await forms.keep(BINDING, FORM)
    (key,) = [key async for key in commands.scan_iter("*")]
    await commands.set(key, b'{"target": "/", "pairs": []}')
    assert await forms.find(BINDING) is None


async def test_a_store_that_is_out_is_an_outage() -> None:
    async with Redis.from_url("unix:///nowhere.sock") as commands:
        with pytest.raises(AuthUnavailable):
            await KeptForms(commands).find(BINDING)
