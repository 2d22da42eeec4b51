"""The keys that sign identity assertions, kept in the store and shared by every gateway.

How this works: all keys stand in one value (`doorward:keys`), which is replaced only by
compare-and-set, so that gateways that start or rotate at the same moment end up with the same
keys. Every gateway reads it again each `_REFRESH`. A new key is published at once but signs only
after `PUBLISH_AHEAD`, when every gateway has it: a backend may ask any of them for the keys. A
replaced key stays published until nothing that it signed can be alive. If the store loses the
value, the first gateway to notice puts back what it holds. Whoever can read the store can sign.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable
from typing import Literal
from weakref import WeakSet

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.assertion import RETAIN_FOR, AssertionSigner
from auth.decision import Reason
from auth.io.tasks import stop
from auth.keys import KeyRing, SigningKey, from_pem, signing_key, to_pem
from auth.ports import AuthUnavailable
from config.model import Assertion

_log = logging.getLogger(__name__)

STORE_KEY = "doorward:keys"
PUBLISH_AHEAD = 30.0
"""Seconds from the creation of a key to its first use; three times `_REFRESH`."""
_REFRESH = 10.0
"""Seconds between two readings of the ring."""
_MOST_ATTEMPTS = 10
"""At a compare-and-set that somebody else was quicker at."""

# Sets KEYS[1] to ARGV[2] if it still is ARGV[1] (empty: if it does not exist).
_REPLACE = """
local held = redis.call('GET', KEYS[1])
if (held or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class KeyState(msgspec.Struct, frozen=True):
    """A signing key as operators see it; nothing of it can sign. Times are epoch seconds."""

    kid: str
    created_at: float
    active_at: float
    state: Literal["next", "signing", "previous"]


class SigningKeys:
    """The shared signing keys.

    Args:
        commands: a client of the store.
        clock: epoch seconds.
    """

    def __init__(self, commands: Redis, *, clock: Callable[[], float] = time.time) -> None:
        self.ring = KeyRing()
        self._commands = commands
        self._clock = clock
        self._signers: WeakSet[AssertionSigner] = WeakSet()
        self._task: asyncio.Task[None] | None = None

    def signer(self, settings: Assertion) -> AssertionSigner:
        """Return a signer of assertions that is given every change of the keys."""
        signer = AssertionSigner(settings, self.ring, new_id=lambda: secrets.token_urlsafe(16))
        self._signers.add(signer)
        return signer

    async def start(self) -> None:
        """Load the keys, making the first one if there is none, and keep them fresh.

        A store that is out does not stop the start: it is asked again until it answers, and until
        then there is nothing to sign with.
        """
        with contextlib.suppress(AuthUnavailable):
            await self.refresh()
        self._task = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Stop keeping the keys fresh."""
        await stop(self._task)
        self._task = None

    async def refresh(self) -> KeyRing:
        """Read the keys from the store, making the first one if there is none.

        Raises:
            AuthUnavailable: the store does not answer, or what it holds cannot be read.
        """
        for _ in range(_MOST_ATTEMPTS):
            held = await self._read()
            if held:
                try:
                    return self._use(_parse(held))
                except ValueError as error:
                    raise AuthUnavailable(
                        f"{STORE_KEY} in the store cannot be read; `doorward keys rotate` "
                        "replaces it",
                        reason=Reason.KEYS_UNAVAILABLE,
                    ) from error
            now = self._clock()
            ring = self.ring if self.ring.keys else KeyRing((_new_key(now, active_at=now),))
            if await self._replace(held, ring):
                return self._use(ring)
        raise AuthUnavailable("the signing keys change all the time")

    async def rotate(self) -> SigningKey:
        """Add a key that signs from `PUBLISH_AHEAD` seconds on; forget those out of use.

        Raises:
            AuthUnavailable: the store does not answer.
        """
        for _ in range(_MOST_ATTEMPTS):
            held, now = await self._read(), self._clock()
            try:
                kept = _parse(held).published(now, RETAIN_FOR) if held else ()
            except ValueError:
                _log.warning("%s in the store cannot be read and is replaced", STORE_KEY)
                kept = ()
            new = _new_key(now, active_at=now + PUBLISH_AHEAD if kept else now)
            ring = KeyRing((*kept, new))
            if await self._replace(held, ring):
                self._use(ring)
                return new
        raise AuthUnavailable("the signing keys change all the time")

    async def list(self) -> tuple[KeyState, ...]:
        """Return the keys there are, oldest first, without making any.

        Raises:
            AuthUnavailable: the store does not answer, or what it holds cannot be read.
        """
        held, now = await self._read(), self._clock()
        try:
            ring = _parse(held) if held else KeyRing()
        except ValueError as error:
            raise AuthUnavailable(f"{STORE_KEY} in the store cannot be read") from error
        signing = ring.signing_key(now)
        return tuple(
            KeyState(key.kid, key.created_at, key.active_at, _state(key, signing))
            for key in ring.published(now, RETAIN_FOR)
        )

    async def _keep_fresh(self) -> None:
        failed = False
        while True:
            await asyncio.sleep(_REFRESH if self.ring.keys else 1.0)
            try:
                await self.refresh()
                failed = False
            except AuthUnavailable as error:
                if not failed:
                    _log.warning("signing keys: %s", error)
                failed = True

    def _use(self, ring: KeyRing) -> KeyRing:
        if [key.kid for key in ring.keys] != [key.kid for key in self.ring.keys]:
            self.ring = ring
            for signer in self._signers:
                signer.use(ring)
        return self.ring

    async def _read(self) -> str:
        try:
            held = await self._commands.get(STORE_KEY)
        except (RedisError, OSError, TimeoutError) as error:
            raise AuthUnavailable("the store does not answer") from error
        return held.decode("utf-8", "replace") if isinstance(held, bytes) else held or ""

    async def _replace(self, held: str, ring: KeyRing) -> bool:
        """Put *ring* in the place of *held*, unless another gateway was quicker."""
        try:
            return bool(await self._commands.eval(_REPLACE, 1, STORE_KEY, held, _text(ring)))
        except (RedisError, OSError, TimeoutError) as error:
            # Whether it was done is not known: the next read will say.
            raise AuthUnavailable("the store does not answer") from error


def _new_key(now: float, *, active_at: float) -> SigningKey:
    return signing_key(ec.generate_private_key(ec.SECP256R1()), now, active_at)


def _state(key: SigningKey, signing: SigningKey | None) -> Literal["next", "signing", "previous"]:
    if signing is not None and key.kid == signing.kid:
        return "signing"
    return "next" if signing is None or key.active_at > signing.active_at else "previous"


def _text(ring: KeyRing) -> str:
    keys = [
        {"pem": to_pem(key), "created_at": key.created_at, "active_at": key.active_at}
        for key in ring.keys
    ]
    return json.dumps({"v": 1, "keys": keys})


def _parse(text: str) -> KeyRing:
    """Read what `_text` wrote; raise ValueError, which never repeats what was read."""
    try:
        stored = json.loads(text)
        version = stored["v"]
        keys = tuple(
            from_pem(key["pem"], float(key["created_at"]), float(key["active_at"]))
            for key in stored["keys"]
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("not signing keys") from None
    if version != 1 or not keys:
        raise ValueError("not signing keys of version 1")
    return KeyRing(keys)
