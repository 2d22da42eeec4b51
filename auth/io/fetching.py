"""Getting small documents from others over HTTP, and trusting nobody on the way."""

from typing import Protocol

import aiohttp

from auth.keys import LARGEST_JWKS

_TIMEOUT = aiohttp.ClientTimeout(total=5.0, connect=3.0)


class LoadError(Exception):
    """A document could not be had; the text is fit for a log and names no secret."""


class Fetch(Protocol):
    """Gets a document by its URL."""

    async def __call__(self, url: str, /) -> bytes:
        """Return the content; raise `LoadError`."""
        ...


def open_wary_session(timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
    """Return a client for what others serve: keeps no cookie and decompresses nothing."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=timeout,
        auto_decompress=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


async def read_bounded(response: aiohttp.ClientResponse, url: str, *, largest: int) -> bytes:
    """Return the content of *response*; raise `LoadError` above *largest* bytes."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > largest:
            raise LoadError(f"{url} sent more than {largest} bytes")
    return bytes(content)


class WaryClient:
    """A wary session that is opened when it is first used, and its connections kept."""

    def __init__(self, timeout: aiohttp.ClientTimeout) -> None:
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_wary_session(self._timeout)
        return self._session


class DocumentFetcher(WaryClient):
    """Gets small documents from issuers.

    No redirect is followed, no cookie kept, no proxy taken from the environment, nothing
    decompressed; a document above `LARGEST_JWKS` or slower than *timeout* (five seconds) is an
    error.
    """

    def __init__(self, timeout: aiohttp.ClientTimeout = _TIMEOUT) -> None:
        super().__init__(timeout)

    async def __call__(self, url: str, /) -> bytes:
        """Return the content at *url*; raise `LoadError`."""
        try:
            async with self._open().get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise LoadError(f"{url} answered with status {response.status}")
                return await read_bounded(response, url, largest=LARGEST_JWKS)
        except TimeoutError as error:
            raise LoadError(f"{url} did not answer in time") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise LoadError(f"{url} cannot be read: {type(error).__name__}") from error
