"""What the login service remembers in the store about providers: sign-ins, their sessions, tokens.

How this works. A provider ends sessions of ours by *its* name for one (`sid`) or for the person
(`sub`), perhaps on another gateway and just while a sign-in is under way. So a sign-in creates the
session, then notes it under both names, and looks whether an ending has been written there since it
asked the provider; only then does the browser get its cookie. An ending first writes that mark and
then reads what is noted. Whichever comes second sees the other: no session slips through.

A refresh token may be good for one use, and a second one costs the person the session at the
provider (RFC 9700 section 4.14.2). So it is only used under a claim, of which the store gives out
one: the claim goes when new tokens are put in the old ones' place, or when it is certain that the
provider never got to see it. Whoever dies in between leaves the claim behind, and that token is
never used again.

Names in keys are hashes with lengths before their parts: no two can be made to meet.
"""

import secrets
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.login.provider import BegunSignIn
from auth.ports import AuthUnavailable
from auth.revocation import milliseconds, token_name
from auth.session import digest

SIGN_IN_SECONDS = 600
"""How long somebody may take at the provider."""
_MARK_SECONDS = 3600
"""How long an ending is remembered: longer than any sign-in that it could meet."""
_MARGIN = 60
"""Seconds that a note outlives what it is about."""
_COMMITTED_MS = 60_000
"""Milliseconds for which a claim goes on when the new tokens stand."""
_DONE = b"done"

_NOTE = """
-- KEYS: digests by the time they end, mark of an ending. ARGV: digest, when the provider was
-- asked (ms), seconds to live. Returns 0 if an ending has been written since.
local asked, seconds = tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', asked)
redis.call('ZADD', KEYS[1], asked + 1000 * seconds, ARGV[1])
if redis.call('TTL', KEYS[1]) < seconds then redis.call('EXPIRE', KEYS[1], seconds) end
return tonumber(redis.call('GET', KEYS[2]) or '-1') >= asked and 0 or 1
"""
_MARK = """
-- KEYS: digests, mark. ARGV: now (ms), seconds to live. Returns the digests that are noted.
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""


_END_NOTED = """
-- KEYS: digests by the time they end, mark. ARGV: now (ms), seconds to live. Returns the digests.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
local noted = redis.call('ZRANGE', KEYS[1], 0, -1)
if #noted > 0 then redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2]) end
return noted
"""
_CLAIM = """
-- KEYS: tokens, claim. ARGV: claim. Returns the tokens, or the claim that is in the way.
local sealed = redis.call('GET', KEYS[1])
if not sealed then return {false, false} end
local claim = redis.call('GET', KEYS[2])
if claim and claim ~= ARGV[1] then return {false, claim} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', math.max(redis.call('PTTL', KEYS[1]), 1000))
return {sealed, false}
"""
_COMMIT = """
-- KEYS: tokens, claim. ARGV: claim, new tokens, ms to go on with the claim.
-- Returns 0 if nobody wants them any more.
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""
_RELEASE = """
-- KEYS: tokens, claim. ARGV: claim.
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
"""


class Claim(msgspec.Struct, frozen=True):
    """The right to use a session's refresh token, once; nobody else gets it while it is there."""

    name: str
    """Of the session."""
    mark: str
    sealed: bytes
    """The tokens."""


class ClaimedBefore(msgspec.Struct, frozen=True):
    """Somebody else claimed the refresh token at *since* (epoch seconds), and is not done."""

    since: float


class ProviderSession(msgspec.Struct, frozen=True):
    """A session at a provider, by the provider's names for it; `sid` is empty if it has none."""

    issuer: str
    sub: str
    sid: str = ""

    @property
    def own_name(self) -> str:
        """What its ending is written under; without `sid`, that of all the person's without one."""
        kind, value = ("sid", self.sid) if self.sid else ("no sid", self.sub)
        return _name(self.issuer, kind, value)

    @property
    def person_name(self) -> str:
        """What an ending of all sessions of the person is written under."""
        return _name(self.issuer, "sub", self.sub)


class ProviderRecords:
    """See above; every method raises `AuthUnavailable` when the store does not answer."""

    def __init__(self, commands: Redis) -> None:
        self._commands = commands

    async def begin(self, state: str, binding: str, begun: BegunSignIn) -> None:
        """Keep *begun* for the browser that comes back with *state* and the cookie *binding*."""
        value = msgspec.json.encode(begun)
        await self._call("SET", _sign_in_key(state, binding), value, "EX", SIGN_IN_SECONDS)

    async def take(self, state: str, binding: str) -> BegunSignIn | None:
        """Return the sign-in, once; None if there is none (any more) for this browser."""
        value = await self._call("GETDEL", _sign_in_key(state, binding))
        try:
            return msgspec.json.decode(value, type=BegunSignIn) if value else None
        except msgspec.MsgspecError:
            return None

    async def note_session(
        self, session: ProviderSession, digest: str, *, asked_at: float, live_for: float
    ) -> bool:
        """Remember that our session *digest* hangs on *session*; after it was created.

        Returns:
            False if *session*, or all of its person's, has ended since *asked_at* (epoch seconds):
            then ours must end too.
        """
        facts = (digest, milliseconds(asked_at), round(live_for) + _MARGIN)
        notes = [
            await self._call("EVAL", _NOTE, 2, *_session_keys(name), *facts)
            for name in (session.own_name, session.person_name)
        ]
        return all(notes)

    async def mark_ended(self, name: str, now: float) -> set[str]:
        """Remember that what is called *name* is over; return our sessions that hang on it."""
        facts = (milliseconds(now), _MARK_SECONDS)
        digests = await self._call("EVAL", _MARK, 2, *_session_keys(name), *facts)
        return {digest.decode() for digest in digests}

    async def end_noted(self, name: str, now: float) -> set[str]:
        """As `mark_ended`, but writes nothing when nothing is noted: anybody may ask for this."""
        facts = (milliseconds(now), _MARK_SECONDS)
        digests = await self._call("EVAL", _END_NOTED, 2, *_session_keys(name), *facts)
        return {digest.decode() for digest in digests}

    async def begin_logout(self, issuer: str, jti: str, live_for: float) -> bool:
        """Take note of a logout token; False if it has been obeyed already.

        One that was begun and never finished is done again: its sender was not told that it was.
        """
        key = _logout_key(issuer, jti)
        if await self._call("SET", key, "begun", "NX", "EX", round(live_for) + _MARGIN):
            return True
        return bool(await self._call("GET", key) != _DONE)

    async def finish_logout(self, issuer: str, jti: str, live_for: float) -> None:
        """Remember that the token has been obeyed."""
        await self._call("SET", _logout_key(issuer, jti), _DONE, "EX", round(live_for) + _MARGIN)

    async def keep_tokens(self, digest: str, sealed: bytes, live_for: float) -> None:
        """Keep the *sealed* tokens of the session *digest*."""
        await self._call("SET", _tokens_key(digest), sealed, "EX", round(live_for))

    async def take_tokens(self, digest: str) -> bytes | None:
        """Return the sealed tokens of the session, and forget them."""
        value = await self._call("GETDEL", _tokens_key(digest))
        return value if isinstance(value, bytes) else None

    async def read_tokens(self, digest: str) -> bytes | None:
        """Return the sealed tokens of the session."""
        value = await self._call("GET", _tokens_key(digest))
        return value if isinstance(value, bytes) else None

    async def claim_tokens(self, digest: str, now: float) -> Claim | ClaimedBefore | None:
        """Claim the refresh token of the session *digest*; None: it has no tokens.

        A claim that is neither committed nor released stays: whoever made it may have used the
        token, and died of it. *now* is in epoch seconds.
        """
        mark = f"{now:.3f} {secrets.token_hex(8)}"
        sealed, before = await self._call("EVAL", _CLAIM, 2, *_token_keys(digest), mark)
        if before is not None:
            return ClaimedBefore(float(before.partition(b" ")[0]))
        return Claim(digest, mark, sealed) if sealed is not None else None

    async def commit_tokens(self, claim: Claim, sealed: bytes) -> bool:
        """Put new tokens in place of those of *claim*; False: the session has ended meanwhile.

        They are claimed for a minute more, or until the claim is released.
        """
        facts = (claim.mark, sealed, _COMMITTED_MS)
        return bool(await self._call("EVAL", _COMMIT, 2, *_token_keys(claim.name), *facts))

    async def release_tokens(self, claim: Claim) -> None:
        """Give up *claim*: new tokens are there, or the old one has certainly not been used."""
        await self._call("EVAL", _RELEASE, 2, *_token_keys(claim.name), claim.mark)

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._commands.execute_command(*command)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:
            raise AuthUnavailable("the store does not answer") from error


def _name(issuer: str, kind: str, value: str) -> str:
    return token_name(f"{kind} {issuer}", value)


def _sign_in_key(state: str, binding: str) -> str:
    return f"doorward:sign-in:{digest(f'{state}.{binding}')}"


def _session_keys(name: str) -> tuple[str, str]:
    return f"doorward:provider-sessions:{{{name}}}", f"doorward:provider-ended:{{{name}}}"


def _logout_key(issuer: str, jti: str) -> str:
    return f"doorward:logout-token:{_name(issuer, 'jti', jti)}"


def _token_keys(session_digest: str) -> tuple[str, str]:
    return _tokens_key(session_digest), f"doorward:provider-refresh:{{{session_digest}}}"


def _tokens_key(session_digest: str) -> str:
    return f"doorward:provider-tokens:{{{session_digest}}}"
