"""Telling registered services of every ended session (`on_logout`; docs/events.md).

How this works. The script that ends a session writes the event into a stream of the store in the
same step, so no ending is without its notice. Each upstream with `on_logout` has a consumer group
on that stream: what it has not been told stays there, whoever dies. One gateway at a time delivers
to an upstream: the one that holds the leader's key, which it must renew and stops without. All
leaders read under one consumer name, so a new leader finds what the one before had taken and not
confirmed, and begins with that. A notice is confirmed (XACK) when the service has answered 2xx or
the token has expired; a gateway that dies in between leaves it to be sent again: at least once.

Nothing of this is on the path of a request: it runs beside the admin server.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import aiohttp
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from auth.io.leading import STORE_ERRORS, Leadership
from auth.io.signing_keys import SigningKeys
from auth.io.tasks import stop
from auth.logout_token import LIVES_FOR, logout_token
from auth.revocation import EVENTS_KEY
from config.model import Configuration, Endpoint, Upstream

LEADS_FOR = 5.0
"""Seconds for which a leader leads without renewing: so long nobody delivers when it dies."""
_RENEW = 1.0
"""Seconds between two renewals of leading."""
_POLL = 0.2
"""Seconds until the stream is read again that had nothing new."""
_AT_ONCE = 16
"""Notices under way to one upstream."""
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_CONSUMER = "leader"

_log = logging.getLogger("doorward.logout")


class LogoutDelivery:
    """Delivers to every upstream of the configuration that asks for it, while this gateway leads.

    Args:
        commands: a client of the store.
        keys: the keys that sign; started and closed by their owner.
        configuration: returns the one in force; asked again every second.
    """

    def __init__(
        self, commands: Redis, keys: SigningKeys, configuration: Callable[[], Configuration]
    ) -> None:
        self.counters: Counter[tuple[str, str]] = Counter()
        """By upstream and result: `delivered`, `failed` (to be tried again), `expired`."""
        self._commands = commands
        self._keys = keys
        self._configuration = configuration
        self._outboxes: dict[str, tuple[Upstream, str, asyncio.Task[None]]] = {}
        self._http: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; nothing is asked of the store unless an upstream asks to be told."""
        self._task = asyncio.create_task(self._follow_configuration())

    async def close(self) -> None:
        """Stop; what is under way is left to the next leader."""
        await stop(self._task)  # first: it opens outboxes
        await stop(*(task for _, _, task in self._outboxes.values()))
        if self._http is not None:
            await self._http.close()

    async def _follow_configuration(self) -> None:
        while True:
            configuration = self._configuration()
            issuer = configuration.identity.assertion.issuer
            wanted = {
                name: (upstream, issuer)
                for name, upstream in configuration.upstreams.items()
                if upstream.on_logout
            }
            for name, (upstream, known_issuer, task) in tuple(self._outboxes.items()):
                if wanted.get(name) != (upstream, known_issuer) or task.done():
                    await stop(task)
                    del self._outboxes[name]
            for name in wanted.keys() - self._outboxes.keys():
                self._outboxes[name] = (*wanted[name], self._open(*wanted[name]))
            await asyncio.sleep(_RENEW)

    def _open(self, upstream: Upstream, issuer: str) -> "asyncio.Task[None]":
        if self._http is None:
            self._http = aiohttp.ClientSession(
                timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        outbox = _Outbox(self._commands, self._keys, upstream, issuer, self._http, self.counters)
        return asyncio.create_task(outbox.run())


class _Outbox:
    """What one upstream has to be told."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a delivery needs
        self,
        commands: Redis,
        keys: SigningKeys,
        upstream: Upstream,
        issuer: str,
        http: aiohttp.ClientSession,
        counters: Counter[tuple[str, str]],
    ) -> None:
        self._commands = commands
        self._keys = keys
        self._upstream = upstream
        self._issuer = issuer
        self._http = http
        self._counters = counters
        self._group = f"on_logout:{upstream.name}"
        leader_key = f"doorward:delivers:{{{upstream.name}}}"
        self._leadership = Leadership(commands, leader_key, leads_for=LEADS_FOR, renew=_RENEW)
        self._under_way: dict[bytes, asyncio.Task[None]] = {}
        self._troubled = False

    async def run(self) -> None:
        """Lead when nobody else does, and deliver while leading, until cancelled."""
        try:
            while True:
                pause = _RENEW
                try:
                    if await self._lead():
                        pause = 0.0 if await self._take() else _POLL
                    self._troubled = False
                except STORE_ERRORS as error:
                    self._complain(f"the store does not answer ({type(error).__name__})")
                if not self._leadership.holds:
                    await self._drop()
                await asyncio.sleep(pause)
        finally:
            await self._drop()
            await self._leadership.resign()

    async def _lead(self) -> bool:
        """Become or stay the leader; a new one begins with what was taken and not confirmed."""
        is_new = not self._leadership.holds
        if not await self._leadership.hold():
            return False
        if is_new:
            await self._make_group()
            await self._take(taken_before=True)
        return True

    async def _make_group(self, begin: str = "$") -> None:
        with contextlib.suppress(ResponseError):  # BUSYGROUP: it exists
            await self._commands.xgroup_create(EVENTS_KEY, self._group, begin, mkstream=True)

    async def _take(self, *, taken_before: bool = False) -> bool:
        """Begin to deliver the next events; return whether there were any."""
        after, most = "0" if taken_before else ">", _AT_ONCE - len(self._under_way)
        if taken_before:
            most = 10 * _AT_ONCE
        if most <= 0:
            return False
        try:
            streams: Any = await self._commands.xreadgroup(
                self._group, _CONSUMER, {EVENTS_KEY: after}, count=most
            )
        except ResponseError:  # NOGROUP: the stream was lost, and made anew
            await self._make_group("0")
            return False
        events: list[tuple[bytes, Mapping[bytes, bytes] | None]]
        events = [event for _, of_stream in streams or () for event in of_stream]
        for event_id, fields in events:
            if event_id not in self._under_way:
                task = asyncio.create_task(self._deliver(event_id, fields or {}))
                self._under_way[event_id] = task
                task.add_done_callback(partial(self._forget, event_id))
        return bool(events)

    def _forget(self, event_id: bytes, _task: "asyncio.Task[None]") -> None:
        self._under_way.pop(event_id, None)

    async def _drop(self) -> None:
        """Somebody else leads: stop what is under way; it will be sent by them."""
        await stop(*self._under_way.values())

    async def _deliver(self, event_id: bytes, fields: Mapping[bytes, bytes]) -> None:
        """Send the notice until it has arrived or expired, and confirm that."""
        if fields.get(b"event") == b"session.ended":
            result = await self._send_until_over(event_id.decode(), fields)
            if not result:
                return
            self._counters[self._upstream.name, result] += 1
        while True:
            try:
                await self._commands.xack(EVENTS_KEY, self._group, event_id)
            except STORE_ERRORS:
                await asyncio.sleep(_RENEW)
            else:
                return

    async def _send_until_over(self, event_id: str, fields: Mapping[bytes, bytes]) -> str:
        """Return `delivered` or `expired`; empty: we do not lead any more, as after a SIGSTOP."""
        ended_at = float(fields.get(b"at", b"0"))
        attempt = 0
        while time.time() < ended_at + LIVES_FOR:
            if not self._leadership.holds:
                return ""
            key = self._keys.ring.signing_key(time.time())
            if key is not None:
                token = logout_token(
                    key,
                    issuer=self._issuer,
                    audience=self._upstream.name,
                    subject=fields.get(b"subject", b"").decode("utf-8", "replace"),
                    session=fields.get(b"session", b"").decode("ascii", "replace"),
                    event_id=event_id,
                    ended_at=ended_at,
                )
                problem = await self._post(token, attempt)
                if not problem:
                    return "delivered"
                self._counters[self._upstream.name, "failed"] += 1
                self._complain(problem)
            pause = _BACKOFF[min(attempt, len(_BACKOFF) - 1)]
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            attempt += 1
        _log.error("upstream %s was not told of an ended session in time", self._upstream.name)
        return "expired"

    async def _post(self, token: str, attempt: int) -> str:
        """Return why the service does not know yet; empty: it does."""
        endpoints = self._upstream.endpoints
        options = _target(self._upstream.on_logout or "", endpoints[attempt % len(endpoints)])
        connector = options.pop("connector", None)
        try:
            async with contextlib.AsyncExitStack() as stack:
                http = self._http
                if connector is not None:
                    http = await stack.enter_async_context(
                        aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
                    )
                answer = await stack.enter_async_context(
                    http.post(data={"logout_token": token}, allow_redirects=False, **options)
                )
                return "" if answer.ok and answer.status < 300 else f"status {answer.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return type(error).__name__

    def _complain(self, problem: str) -> None:
        """Log *problem*, once until things go well again."""
        if not self._troubled:
            _log.warning("on_logout of upstream %s: %s", self._upstream.name, problem)
        self._troubled = True


def _target(on_logout: str, endpoint: Endpoint) -> dict[str, Any]:
    """Return where to send: the URL, and a connector of its own for a Unix socket."""
    if not on_logout.startswith("/"):
        return {"url": on_logout}
    if endpoint.scheme == "unix":
        connector = aiohttp.UnixConnector(endpoint.host)
        return {"url": f"http://localhost{on_logout}", "connector": connector}
    return {"url": f"{endpoint}{on_logout}"}
