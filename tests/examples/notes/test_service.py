"""The example shows what it was told, to whom it was told, and nothing else."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from examples.notes.service import make_application

U1 = {"X-Auth-Subject": "u1", "X-Auth-Name": "Ada", "X-Auth-Method": "session"}
U2 = {"X-Auth-Subject": "u2", "X-Auth-Name": "Bob"}


@pytest.fixture
async def notes() -> AsyncIterator[TestClient]:  # type: ignore[type-arg] # its application differs by test
    async with TestClient(TestServer(make_application(":memory:"))) as client:
        yield client


async def test_a_request_without_identity_is_not_served(notes: TestClient) -> None:  # type: ignore[type-arg]
    response = await notes.get("/notes")

    assert response.status == 502


async def test_notes_are_seen_by_their_writer_only(notes: TestClient) -> None:  # type: ignore[type-arg]
    written = await notes.post("/notes", data={"text": "milk"}, headers=U1, allow_redirects=False)
    of_ada = await (await notes.get("/notes", headers=U1)).text()
    of_bob = await (await notes.get("/notes", headers=U2)).text()

    assert (written.status, written.headers["Location"]) == (303, "/notes")
    assert "milk" in of_ada
    assert "Ada" in of_ada
    assert "milk" not in of_bob


async def test_a_note_of_somebody_else_cannot_be_removed(notes: TestClient) -> None:  # type: ignore[type-arg]
    await notes.post("/notes", data={"text": "milk"}, headers=U1)
    await notes.post("/notes/1/remove", headers=U2)

    assert "milk" in await (await notes.get("/notes", headers=U1)).text()


async def test_the_text_of_a_note_is_not_markup(notes: TestClient) -> None:  # type: ignore[type-arg]
    await notes.post("/notes", data={"text": "<b>milk</b>"}, headers=U1)

    assert "<b>milk" not in await (await notes.get("/notes", headers=U1)).text()


async def test_a_new_note_is_told_to_the_writers_open_pages(notes: TestClient) -> None:  # type: ignore[type-arg]
    async with (
        notes.get("/notes/events", headers=U1) as events,
        notes.ws_connect("/notes/live", headers=U1) as live,
    ):
        assert await events.content.readline() == b"event: hello\n"
        await live.send_str("ping")
        assert await live.receive_str() == "ping"
        await notes.post("/notes", data={"text": "milk"}, headers=U1)
        async with asyncio.timeout(5):
            told = await live.receive_json()
            while b"milk" not in (line := await events.content.readline()):
                assert line
        await live.send_bytes(b"\x00\x01")
        echoed = await live.receive()

    assert told["text"] == "milk"
    assert (echoed.type, echoed.data) == (WSMsgType.BINARY, b"\x00\x01")
    assert isinstance(notes.session, ClientSession)
