import asyncio
from random import Random

import msgspec
import pytest

from config.model import Limits
from gateway.events import ExchangeFinished
from gateway.io import overload
from gateway.io.metrics import Counters, key
from gateway.shedding import REST_SECONDS
from tests.gateway.io.harness import (
    ALL,
    Gateway,
    RawClient,
    configuration,
    gateway,
    one_upstream,
    upstream,
)

pytestmark = pytest.mark.wire

GET = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n"
PAGE = b"Accept: text/html\r\nAccept-Language: %b\r\n"


class Always(Random):
    """Says that each request is of the share."""

    def random(self) -> float:
        return -1.0


def refuse_all(running: Gateway) -> overload.Overload:
    """Have *running* refuse what it may, until the prober notices that it need not."""
    found = running.server._serving.overload
    found._random = Always()
    found.shedder.share = 1.0
    return found


def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test itself be the prober."""
    monkeypatch.setattr("gateway.io.server.PROBE_SECONDS", 1000.0)


async def test_all_that_were_refused_are_counted_and_told_of_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silence(monkeypatch)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        found = refuse_all(running)
        for _ in range(5):
            answer = await running.ask(GET % b"X-Request-Id: mine\r\n")
            assert answer.status == 503
            assert answer.fields["x-doorward-error"] == "overloaded"
            assert answer.fields["retry-after"] == "1"
            assert answer.fields["cache-control"] == "no-store"
            assert msgspec.json.decode(answer.content)["code"] == "overloaded"
        assert running.server.counters["requests_shed"] == 5  # before anything else happens
        assert running.events == []
        found.beat(0.0)
        found.beat(0.0)
        (event,) = running.events
        assert (event.times, event.status, event.reason) == (5, 503, "overloaded")
        assert (event.path, event.remote, event.generation) == ("/", "127.0.0.1", 1)
        assert event.bytes_out == 5 * len(answer.content)
        assert backend.connections == 0


def test_an_event_that_stands_for_many_counts_as_many() -> None:
    counters = Counters()
    counters(ExchangeFinished(0.0, status=503, reason="overloaded", bytes_out=70, times=7))
    numbers = counters.measurement().numbers
    assert numbers[key("requests", "", "5xx", "")] == 7
    assert numbers[key("decisions", "overloaded")] == 7
    assert numbers["response_bytes"] == 70


async def test_people_get_a_page_in_their_language_and_head_gets_no_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silence(monkeypatch)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        refuse_all(running)
        languages = {}
        for language in (b"de", b"en", b"de"):
            answer = await running.ask(GET % (PAGE % language))
            assert answer.status == 503
            languages[language] = answer.fields["content-language"]
            assert b"<h1>" in answer.content
        assert languages == {b"de": "de", b"en": "en"}
        bare = await running.ask((GET % b"").replace(b"GET", b"HEAD"))
        assert bare.status == 503
        assert bare.content == b""
        assert int(bare.fields["content-length"]) > 0


async def test_whoever_asks_for_yet_another_form_gets_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silence(monkeypatch)
    monkeypatch.setattr(overload, "time", lambda: 1_800_000_000.0)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        found = refuse_all(running)
        for number in range(overload.MOST_FORMS + 5):
            answer = await running.ask(GET % (PAGE % b"x-%d" % number))
            assert answer.status == 503
        assert answer.fields["content-type"] == "application/problem+json"
        assert len(found._answers._forms) <= overload.MOST_FORMS + 1


async def test_content_is_not_read_and_its_connection_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silence(monkeypatch)
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        refuse_all(running)
        client = await running.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        answer = await client.receive()
        assert answer.status == 503
        assert answer.fields["connection"] == "close"
        assert await client.at_end()


async def test_who_was_refused_is_not_read_for_a_while_and_then_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silence(monkeypatch)
    now = [1_800_000_000.0]
    monkeypatch.setattr(overload, "time", lambda: now[0])
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL])) as running,
    ):
        found = refuse_all(running)
        pipelining, waiting = await running.connect(), await running.connect()
        await pipelining.send(GET % b"" * 3)
        await waiting.send(GET % b"")
        for client in (pipelining, waiting):
            assert (await client.receive()).status == 503
        await waiting.send(GET % b"")
        assert not await answers(pipelining)
        assert not await answers(waiting)

        found.shedder.share = 0.0
        now[0] += REST_SECONDS * 0.9
        found.beat(0.0)
        assert not await answers(waiting)
        now[0] += REST_SECONDS * 0.2
        found.beat(0.0)
        for client, count in ((pipelining, 2), (waiting, 1)):
            assert [(await client.receive()).status for _ in range(count)] == [200] * count


async def answers(client: RawClient) -> bool:
    """Whether anything comes."""
    try:
        async with asyncio.timeout(0.05):
            await client.reader.readexactly(1)
    except TimeoutError:
        return False
    return True


async def test_a_clock_that_is_set_back_lets_nobody_rest_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silence(monkeypatch)
    now = [1_800_000_000.0]
    monkeypatch.setattr(overload, "time", lambda: now[0])
    limits = Limits()
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL], limits=limits)) as running,
    ):
        found = refuse_all(running)
        client = await running.connect()
        await client.send(GET % b"" * 2)
        assert (await client.receive()).status == 503
        found.shedder.share = 0.0
        now[0] -= 3600
        found.beat(0.0)
        assert (await client.receive()).status == 200
