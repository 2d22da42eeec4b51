"""Which browsers a person has signed in with before, and the event when one is new.

A browser is known again by a cookie of its own that outlives sessions. The store keeps, for each
subject, digests of the values it came with: a digest binds value and subject, so that it says
nothing about anybody else, and neither can be read from it.
"""

import hashlib
import re
import secrets
import time
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.cookies import sign_in_cookie_prefix
from auth.login.answers import Fields
from auth.login.provenance import Provenance
from auth.login.visit import Visit
from auth.revocation import EVENTS_KEY
from auth.session import SessionRecord
from config.model import SessionSettings

NOTE = """
-- KEYS: devices. ARGV: device, now, most, seconds to live.
-- Returns 1 if others are known and this one is not.
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
local others = redis.call('ZRANGE', KEYS[1], 0, -1) -- by when they were seen last
for i = 1, #others - ARGV[3] + 1 do redis.call('ZREM', KEYS[1], others[i]) end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return (known or #others == 0) and 0 or 1
"""

MOST_DEVICES = 50
"""Of one subject; the one that was not seen for longest is forgotten."""
_MOST_EVENTS = 100_000
REMEMBERED = 400 * 86_400
"""Seconds; browsers keep no cookie for longer (RFC 6265bis section 5.6.1)."""

_VALUE = re.compile(r"[A-Za-z0-9_-]{22}")


def devices_key(subject: str) -> str:
    """Return the key of the browsers of *subject*."""
    return f"doorward:devices:{{{hashlib.sha256(subject.encode()).hexdigest()}}}"


def mark_browser(settings: SessionSettings) -> tuple[str, str]:
    """Return the field that says at a site that somebody has signed in with this browser before.

    For whom that is, and which browser, is known where people sign in.
    """
    return _device_cookie(settings, "1")


class KnownDevices:
    """Knows browsers again."""

    def __init__(self, commands: Redis) -> None:
        """Take a client of the store."""
        self._commands = commands

    async def note(
        self, visit: Visit, settings: SessionSettings, record: SessionRecord, session: str
    ) -> Fields:
        """Note that *session* (its digest), with *record*, began in the browser of *visit*.

        Returns:
            The cookie that it is known by next time. None for a program, which keeps none.
        """
        if visit.request.method == "POST" and visit.provenance is not Provenance.OWN:
            return ()  # a form that no page of ours has sent; from a provider, browsers come by GET
        value = visit.request.cookies.get(_cookie_name(settings), "")
        if _VALUE.fullmatch(value) is None:
            value = secrets.token_urlsafe(16)
        name = hashlib.sha256(f"{value} {record.subject}".encode()).hexdigest()
        now = time.time()
        facts = (name, now, MOST_DEVICES, REMEMBERED)
        event: dict[Any, Any] = {
            "event": "session.new_device",
            "session": session,
            "subject": record.subject,
            "reason": "",
            "at": now,
            "device": record.begun_on,
        }
        try:
            # In two steps: on a cluster the two keys may be on two servers.
            if await self._commands.eval(NOTE, 1, devices_key(record.subject), *facts) == 1:
                await self._commands.xadd(EVENTS_KEY, event, maxlen=_MOST_EVENTS, approximate=True)
        except (RedisError, OSError):
            return ()  # the session has begun; an outage now must not take it back
        return (_device_cookie(settings, value),)


def _device_cookie(settings: SessionSettings, value: str) -> tuple[str, str]:
    secure = "; Secure" if settings.secure else ""
    attributes = f"; Max-Age={REMEMBERED}; Path=/; HttpOnly; SameSite=Lax{secure}"
    return "Set-Cookie", f"{_cookie_name(settings)}={value}{attributes}"


def _cookie_name(settings: SessionSettings) -> str:
    # Below the prefix that no upstream sees.
    return f"{sign_in_cookie_prefix(settings.cookie_name)}device"
