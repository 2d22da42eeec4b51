"""Bearer tokens in the small world: they live unless somebody says otherwise."""

import asyncio
import time

from auth.ports import AuthUnavailable
from auth.revocation import TokenRef, revoked_key, token_ref
from tests.faults.history import Result, clock
from tests.faults.small_world import Client, World

_IDP = "https://idp.example"


class Bearer(Client):
    """Uses and revokes bearer tokens instead of sessions."""

    def __init__(self, world: World, seed: str) -> None:
        super().__init__(world, seed)
        self._tokens: list[tuple[TokenRef, str, str]] = []

    async def run(self, until: float) -> None:
        """Issue, use and revoke tokens until the clock says *until*."""
        while clock() < until:
            if not self._tokens or self._random.random() < 0.3:
                self.issue()
            for _ in range(self._random.randint(1, 4)):
                await self._bear(self._random.choice(self._tokens[-6:])[0], self._gateway())
            if self._random.random() < 0.3:
                await self.revoke()
            await asyncio.sleep(self._random.choice((0.0, 0.001, 0.004)))

    def issue(self) -> None:
        """Make a token, as an issuer does of whom the store knows nothing."""
        started, now = clock(), time.time()
        jti, subject = f"{self._seed} {len(self._tokens)}", self._subject()
        token = token_ref(
            issuer=_IDP, subject=subject, jti=jti, issued_at=now, expires_at=now + 3600
        )
        self._tokens.append((token, jti, subject))
        self._record("issue", started, "ok", session=token.name, subject=f"bearer {subject}")

    async def revoke(self) -> None:
        """Revoke a token, or all of its subject, and look everywhere at once."""
        token, jti, subject = self._random.choice(self._tokens[-6:])
        if self._random.random() < 0.5:
            await self._look_at(token)
        how = self._random.random()
        if how < 0.2:
            await self._revoke_and_die(token)
            await asyncio.sleep(self._world.lease + 0.015)
        elif how < 0.7:
            await self._end(
                "end",
                lambda store: store.revoke_token(_IDP, jti, token.expires_at),
                session=token.name,
            )
        else:
            await self._end(
                "end_subject",
                lambda store: store.revoke_tokens_of(_IDP, subject),
                subject=f"bearer {subject}",
            )
        await self._look_at(token)

    async def _revoke_and_die(self, token: TokenRef) -> None:
        """Do what a gateway does that dies before it has told anybody."""
        store, started = self._world.stores[self._gateway()], clock()
        result: Result = "ok"
        try:
            await store._mark(token.name, 3600.0)
            await store._call_all([("SET", revoked_key(token.name), "revoked", "EX", 3600)])
        except AuthUnavailable:
            result = "unknown"
        self._record("delete", started, result, session=token.name)

    async def look_at_everything(self) -> None:
        """Use every token at every gateway."""
        for token, _, _ in self._tokens:
            await self._look_at(token)

    async def _look_at(self, token: TokenRef) -> None:
        await asyncio.gather(*(self._bear(token, each) for each in range(len(self._world.stores))))

    async def _bear(self, token: TokenRef, number: int) -> None:
        """Do what a request with *token* does at a gateway."""
        store, started = self._world.stores[number], clock()
        revoked = store.peek_revoked(token)
        result: Result
        reason, subject = "", ""
        try:
            if await store.is_revoked(token) if revoked is None else revoked:
                result, reason = "refused", "session_ended"
            else:
                (owner,) = (whose for each, _, whose in self._tokens if each.name == token.name)
                result, subject = "admitted", f"bearer {owner}"
        except AuthUnavailable:
            result = "unavailable"
        self._record(
            "use",
            started,
            result,
            session=token.name,
            gateway=str(number),
            reason=reason,
            subject=subject,
        )
