"""Documents over real HTTP, from servers that do as they like."""

import asyncio
import gzip

import aiohttp
import pytest
from aiohttp import web

from auth.io.fetching import DocumentFetcher, LoadError
from tests.auth.io.issuer import Issuer


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 308, 404, 500])
async def test_only_status_200_brings_a_document_and_no_redirect_is_followed(
    issuer: Issuer, fetch: DocumentFetcher, status: int
) -> None:
    def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": f"{issuer.url}/evil"})

    issuer.answers["/jwks"] = answer
    issuer.publish("/evil", "{}")
    with pytest.raises(LoadError, match=f"status {status}"):
        await fetch(f"{issuer.url}/jwks")
    assert issuer.asked == ["/jwks"]


async def test_a_huge_document_is_cut_off(issuer: Issuer, fetch: DocumentFetcher) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1024):
            await response.write(b" " * 65536)
            sent += 65536
        return response

    issuer.answers["/jwks"] = endless
    with pytest.raises(LoadError, match="more than 1048576 bytes"):
        await fetch(f"{issuer.url}/jwks")
    assert sent < 32 * 1024 * 1024


async def test_compressed_content_is_not_unpacked(issuer: Issuer, fetch: DocumentFetcher) -> None:
    def bomb(_: web.Request) -> web.Response:
        body = gzip.compress(b" " * 50_000_000)
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    issuer.answers["/jwks"] = bomb
    assert len(await fetch(f"{issuer.url}/jwks")) < 100_000


async def test_a_slow_issuer_is_not_waited_for(issuer: Issuer) -> None:
    fetch = DocumentFetcher(aiohttp.ClientTimeout(total=0.05))
    issuer.answers["/jwks"] = lambda _: asyncio.sleep(30)
    with pytest.raises(LoadError, match="in time"):
        await fetch(f"{issuer.url}/jwks")
    await fetch.close()


async def test_no_cookie_is_kept(issuer: Issuer, fetch: DocumentFetcher) -> None:
    seen: list[str | None] = []

    def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Cookie"))
        return web.Response(text="{}", headers={"Set-Cookie": "a=b"})

    issuer.answers["/jwks"] = answer
    await fetch(f"{issuer.url}/jwks")
    await fetch(f"{issuer.url}/jwks")
    assert seen == [None, None]
