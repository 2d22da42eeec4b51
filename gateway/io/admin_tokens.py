"""Taking back bearer tokens: `POST /api/tokens/revoke` and `doorward tokens revoke`.

One token by its `jti`, or all that were issued for a subject up to now. Sessions are not touched.
"""

import time
from collections.abc import Callable, Iterable

import msgspec
from aiohttp import web

from auth.ports import Ended, TokenRevocations
from auth.revocation import LONGEST_SESSION
from config.model import Configuration
from gateway.io.admin_answers import json_answer


class Unwanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which tokens shall be good no more."""

    jti: str = ""
    """One token, or"""
    subject: str = ""
    """all of this subject that were issued up to now."""
    issuer: str = ""
    """Who made them; empty: every issuer that is configured."""
    expires_at: float | None = None
    """When the one token expires, epoch seconds; None: nobody knows, so it is kept for long."""


class UnusableRevocationError(ValueError):
    """It does not say which tokens are meant; the message says what to write."""


_decode = msgspec.json.Decoder(Unwanted).decode


async def revoke_tokens(
    revocations: TokenRevocations, unwanted: Unwanted, issuers: Iterable[str], now: float
) -> Ended:
    """Take back the tokens; when this returns, no gateway on the store admits them any more.

    *issuers* are those of the configuration, *now* is epoch seconds. `ended` of the answer counts
    what was asked for (a token, or a subject) at each issuer: who holds tokens is not known here.

    Raises:
        UnusableRevocationError: see there.
        AuthUnavailable: the store cannot be asked; nobody knows.
    """
    if bool(unwanted.jti) == bool(unwanted.subject):
        raise UnusableRevocationError("give either `jti` or `subject`")
    named = (unwanted.issuer,) if unwanted.issuer else tuple(issuers)
    if not named:
        raise UnusableRevocationError("no issuer is configured under `tokens`: give `issuer`")
    if unwanted.expires_at is None:
        expires_at = now + LONGEST_SESSION
    elif unwanted.expires_at <= now:
        raise UnusableRevocationError("`expires_at` has passed; it must be in epoch seconds")
    else:
        expires_at = min(unwanted.expires_at, now + LONGEST_SESSION)
    endings = [
        await revocations.revoke_token(issuer, unwanted.jti, expires_at, reason="admin")
        if unwanted.jti
        else await revocations.revoke_tokens_of(issuer, unwanted.subject, reason="admin")
        for issuer in named
    ]
    # Of several barriers the worst counts: all of it is true when the last one is.
    worst = min(endings, key=lambda ending: ending.acknowledged - ending.of)
    return Ended(
        sum(ending.ended for ending in endings),
        worst.acknowledged,
        worst.of,
        sum(ending.waited_ms for ending in endings),
    )


def add_token_routes(
    application: web.Application,
    revocations: TokenRevocations,
    configuration: Callable[[], Configuration],
) -> None:
    """Answer `/api/tokens/revoke` in *application*."""

    async def revoke(request: web.Request) -> web.Response:
        issuers = [each.issuer for each in configuration().tokens]
        try:
            unwanted = _decode(await request.read())
            ended = await revoke_tokens(revocations, unwanted, issuers, time.time())
        except (msgspec.MsgspecError, UnicodeDecodeError, UnusableRevocationError) as error:
            raise web.HTTPBadRequest(text=f"This revokes nothing: {error}.") from error
        return json_answer(ended)

    application.add_routes([web.post("/api/tokens/revoke", revoke)])
