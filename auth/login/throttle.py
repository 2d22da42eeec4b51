"""How often somebody may get a password wrong: token buckets in the store, one for all gateways.

How this works. Each failed sign-in costs a token of three buckets: of the account from this
network, of the network, and of the account from anywhere. A token is taken before the password is
checked (so that many gateways at once cannot all look first) and put back when it was right, so
only failures count. The narrow bucket is asked first: somebody who guesses from one place runs dry
there, and does not lock out the account's owner, who comes from another. Good ones cost a token of
a bucket of their own, a large one, which bounds the sessions of an account.

A bucket is a hash `{tokens, at}` under a key with a lifetime of its refill; it is read, refilled
and written by one script, on the store's clock, so no gateway's clock matters. Names are stored
as digests: people type passwords into the field for the user name.
"""

import hashlib
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.login.account import canonical_login
from auth.ports import AuthUnavailable


class Bucket(msgspec.Struct, frozen=True):
    """So many failures at once, and one more every so many seconds."""

    size: int
    seconds_each: float


PAIR = Bucket(size=50, seconds_each=30.0)
"""One account from one network: a person who tries all of their passwords, and no dictionary."""
NETWORK = Bucket(size=300, seconds_each=1.0)
"""One network with any names: an office behind one address on a Monday morning."""
ACCOUNT = Bucket(size=100, seconds_each=60.0)
"""One account from everywhere: SP 800-63B section 3.2.2 asks for at most 100 in a row."""

_TAKE = """
local size, each = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(held[1]) or size
local passed = math.max(0, now - (tonumber(held[2]) or now))
tokens = math.min(size, tokens + passed / each)
local wait = '0'
if tokens >= 1 then
  tokens = tokens - 1
else
  wait = string.format('%.3f', (1 - tokens) * each)
end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens))
redis.call('HSET', KEYS[1], 'at', string.format('%.6f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil((size - tokens) * each * 1000) + 1000)
return wait
"""
# A bucket that has expired is full; one that gets too full is cut to its size at the next take.
_PUT_BACK = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HINCRBYFLOAT', KEYS[1], 'tokens', 1)
end
return '0'
"""
CODES = Bucket(size=10, seconds_each=60.0)
"""Second factors of one account: a code of six digits, of which three are good at any moment, is
found in half of all cases after 160 days."""
SESSIONS = Bucket(size=1000, seconds_each=10.0)
"""Sessions begun with one account: no program may fill the store by signing in on and on."""
BEGINNING = Bucket(size=300, seconds_each=0.5)
"""Sign-ins begun at a provider from one network: each of them waits in the store for a while."""
LOGOUT_TOKENS = Bucket(size=100, seconds_each=1.0)
"""Logout tokens from one network that were no good: a signature costs more to check than to
invent. Good ones are not counted; a provider that ends everybody's sessions sends thousands."""
LETTERS = Bucket(size=5, seconds_each=600.0)
"""Letters asked for by one name: nobody's mailbox is filled from here."""
LETTERS_ASKED = Bucket(size=30, seconds_each=60.0)
"""Letters asked for from one network, to whomever."""

FORMS = Bucket(size=20, seconds_each=30.0)
"""Forms kept for one network until somebody has signed in."""
ALL_FORMS = Bucket(size=256, seconds_each=3.5)
"""The same for everybody: at most twice so many are there at once, of 64 KiB at most."""


class Throttle(Protocol):
    """Says how long to wait before the next sign-in."""

    async def take(self, login: str, address: str) -> float:
        """Count an attempt as failed; return 0, or the seconds until the next may be made."""
        ...

    async def put_back(self, login: str, address: str) -> None:
        """Take the count back: the attempt was good, or was never checked."""
        ...

    async def take_code(self, subject: str) -> float:
        """Count a second factor of *subject* as wrong; return 0, or the seconds until the next."""
        ...

    async def put_back_code(self, subject: str) -> None:
        """Take the count back: the second factor was good."""
        ...

    async def take_session(self, subject: str) -> float:
        """Count a session of *subject*; return 0, or the seconds until one may begin."""
        ...

    async def take_beginning(self, address: str) -> float:
        """Count a sign-in begun at a provider; return 0, or the seconds until the next may be."""
        ...

    async def take_logout_token(self, address: str) -> float:
        """Count a logout token as bad; return 0, or the seconds until the next may come."""
        ...

    async def put_back_logout_token(self, address: str) -> None:
        """Take the count back: the token was good, or could not be checked."""
        ...

    async def take_letter(self, to: str, address: str) -> float:
        """Count a letter that *address* wants sent *to* somebody; return 0, or seconds to wait.

        *to* is what was typed, whether anybody has that name or not: the answer tells nothing.
        """
        ...

    async def take_form(self, address: str) -> float:
        """Count a form that is to be kept; return 0, or the seconds until the next may be."""
        ...


class StoreThrottle:
    """The buckets in the store.

    Every method raises `AuthUnavailable` when the store does not answer: without it, nobody could
    sign in anyway.
    """

    def __init__(
        self,
        commands: Redis,
        *,
        pair: Bucket = PAIR,
        network: Bucket = NETWORK,
        account: Bucket = ACCOUNT,
    ) -> None:
        """Take the client for *commands* on the store."""
        self._commands = commands
        self._buckets = (pair, network, account)

    async def take(self, login: str, address: str) -> float:
        """See `Throttle.take`."""
        for key, bucket in zip(_keys(login, address), self._buckets, strict=True):
            wait = await self._run(_TAKE, key, bucket.size, bucket.seconds_each)
            if wait > 0:
                return wait
        return 0.0

    async def put_back(self, login: str, address: str) -> None:
        """See `Throttle.put_back`."""
        for key in _keys(login, address):
            await self._run(_PUT_BACK, key)

    async def take_code(self, subject: str) -> float:
        """See `Throttle.take_code`."""
        return await self._run(_TAKE, _code_key(subject), CODES.size, CODES.seconds_each)

    async def put_back_code(self, subject: str) -> None:
        """See `Throttle.put_back_code`."""
        await self._run(_PUT_BACK, _code_key(subject))

    async def take_session(self, subject: str) -> float:
        """See `Throttle.take_session`."""
        key = f"doorward:attempts:sessions:{_digest_of(subject)}"
        return await self._run(_TAKE, key, SESSIONS.size, SESSIONS.seconds_each)

    async def take_beginning(self, address: str) -> float:
        """See `Throttle.take_beginning`."""
        key = f"doorward:attempts:beginning:{network_of(address)}"
        return await self._run(_TAKE, key, BEGINNING.size, BEGINNING.seconds_each)

    async def take_logout_token(self, address: str) -> float:
        """See `Throttle.take_logout_token`."""
        bucket = LOGOUT_TOKENS
        return await self._run(_TAKE, _logout_key(address), bucket.size, bucket.seconds_each)

    async def put_back_logout_token(self, address: str) -> None:
        """See `Throttle.put_back_logout_token`."""
        await self._run(_PUT_BACK, _logout_key(address))

    async def take_letter(self, to: str, address: str) -> float:
        """See `Throttle.take_letter`."""
        for key, bucket in (
            (f"doorward:attempts:letters-asked:{network_of(address)}", LETTERS_ASKED),
            (f"doorward:attempts:letters:{_digest_of(canonical_login(to))}", LETTERS),
        ):
            wait = await self._run(_TAKE, key, bucket.size, bucket.seconds_each)
            if wait > 0:
                return wait
        return 0.0

    async def take_form(self, address: str) -> float:
        """See `Throttle.take_form`."""
        for key, bucket in (
            (f"doorward:attempts:forms:{network_of(address)}", FORMS),
            ("doorward:attempts:forms", ALL_FORMS),
        ):
            wait = await self._run(_TAKE, key, bucket.size, bucket.seconds_each)
            if wait > 0:
                return wait
        return 0.0

    async def _run(self, script: str, key: str, *arguments: float) -> float:
        try:
            # One key a script: in a cluster the three buckets live on different shards.
            texts = [str(argument) for argument in arguments]
            reply = await self._commands.eval(script, 1, key, *texts)
        except (RedisError, OSError) as error:
            raise AuthUnavailable("the store does not answer") from error
        return float(reply)


@lru_cache(maxsize=4096)  # asked for each connection, and as dear as half of accepting it
def network_of(address: str) -> str:
    """Return whose *address* it is, as far as limits go: an IPv6 customer gets a /64 at least."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address  # a unix socket
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed.packed[:8] + bytes(8), 64)))
    return str(parsed)


def _logout_key(address: str) -> str:
    return f"doorward:attempts:logout-tokens:{network_of(address)}"


def _keys(login: str, address: str) -> tuple[str, str, str]:
    name = _digest_of(canonical_login(login))
    network = network_of(address)
    return (
        f"doorward:attempts:pair:{name}:{network}",
        f"doorward:attempts:network:{network}",
        f"doorward:attempts:account:{name}",
    )


def _code_key(subject: str) -> str:
    return f"doorward:attempts:code:{_digest_of(subject)}"


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
