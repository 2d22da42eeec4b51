"""An issuer of tokens on loopback."""

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from config.model import TokenIssuer

if TYPE_CHECKING:
    from collections.abc import Callable


class Issuer:
    """An issuer on loopback; `answers` may be changed while it runs."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[web.Request], Any]] = {}
        self.asked: list[str] = []
        self.url = ""

    def publish(self, path: str, text: str, *, status: int = 200) -> None:
        self.answers[path] = lambda _: web.Response(text=text, status=status)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        answer = self.answers[request.path](request)
        if asyncio.iscoroutine(answer):
            answer = await answer
        assert isinstance(answer, web.StreamResponse)
        return answer

    def named(self, **changes: Any) -> TokenIssuer:
        base: dict[str, Any] = {
            "issuer": self.url,
            "audience": ("gw",),
            "algorithms": ("ES256",),
            "jwks_uri": f"{self.url}/jwks",
        }
        return TokenIssuer(**{**base, **changes})
