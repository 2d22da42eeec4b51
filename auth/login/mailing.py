"""Writing what people asked for, off the path of their request.

How this works. A page puts what was typed into a queue in the store, whoever has that name or
nobody, and answers; so neither its answer nor its time tells which names exist. Here, in the
supervisor, each is taken out, looked up, and written: the link is made at this moment, so no secret
waits anywhere. A letter that is not taken is tried again with growing pauses, for an hour.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from auth.io.database import DatabaseUnavailable
from auth.io.mail_queue import MailQueue, Wanted
from auth.io.mail_sending import NotSent, send_letter
from auth.io.tasks import stop
from auth.login.account import Account
from auth.login.accounts import AccountError, Accounts
from auth.login.answers import CONFIRM_PATH, LOGIN_PATH, SET_PASSWORD_PATH
from auth.login.mail import Letter, write_letter
from auth.login.one_time import OneTimeLinks, Purpose
from auth.ports import AuthUnavailable
from auth.wording import Wordings, built_in
from config.model import Configuration

_log = logging.getLogger("doorward.mail")

_AT_ONCE = 4
"""Letters under way; a server that is slow with one does not keep the others waiting."""
_IDLE = 1.0
"""Seconds until an empty queue is looked at again."""
_BACKOFF = (5.0, 15.0, 60.0, 120.0, 300.0)
_GIVE_UP_AFTER = 3600.0
"""Seconds: whoever still waits has asked again by then."""


class Mailing:
    """Writes letters while the configuration says how.

    Args:
        queue: where what is wanted waits.
        configuration: returns the one in force.
        open_accounts: opens the accounts, which are closed with this; it blocks.
    """

    def __init__(
        self,
        queue: MailQueue,
        configuration: Callable[[], Configuration],
        open_accounts: Callable[[], Accounts],
        *,
        backoff: tuple[float, ...] = _BACKOFF,
    ) -> None:
        self.counters: Counter[tuple[str, str]] = Counter()
        """By kind and result: `sent`, `failed` (and tried again), `given_up`, `nobody`."""
        self._queue = queue
        self._configuration = configuration
        self._open_accounts = open_accounts
        self._backoff = backoff
        self._accounts: Accounts | None = None
        self._opening = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._troubled = False

    async def start(self) -> None:
        """Begin; nothing is asked of the store unless the configuration says how to write."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(_AT_ONCE)]

    async def close(self) -> None:
        """Stop; a letter that is under way is due again in a minute."""
        await stop(*self._tasks)
        if self._accounts is not None:
            await asyncio.to_thread(self._accounts.close)

    async def _run(self) -> None:
        while True:
            pause = _IDLE
            if self._configuration().login.mail is not None:
                try:
                    pause = 0.0 if await self._write_next() else _IDLE
                except AuthUnavailable as error:
                    self._complain(str(error))
            await asyncio.sleep(pause)

    async def _write_next(self) -> bool:
        """Write what is due; return whether there was anything."""
        wanted = await self._queue.take()
        if wanted is None:
            return False
        configuration = self._configuration()
        mail = configuration.login.mail
        if mail is None:
            return False  # just switched off; it is due again in a minute
        try:
            letter = await self._letter(wanted, configuration)
            if letter is None:
                await self._finish(wanted, "nobody")
                return True
            await send_letter(mail, letter, letter_id=f"{wanted.id}.{wanted.attempts}")
        except (NotSent, AccountError, DatabaseUnavailable) as error:
            await self._fail(wanted, error)
            return True
        self._troubled = False
        await self._finish(wanted, "sent")
        return True

    async def _letter(self, wanted: Wanted, configuration: Configuration) -> Letter | None:
        async with self._opening:
            if self._accounts is None:
                self._accounts = await asyncio.to_thread(self._open_accounts)
        return await asyncio.to_thread(letter_for, wanted, self._accounts, configuration)

    async def _finish(self, wanted: Wanted, result: str) -> None:
        self.counters[wanted.kind, result] += 1
        await self._queue.done(wanted)

    async def _fail(self, wanted: Wanted, error: Exception) -> None:
        over = time.time() - wanted.asked_at > _GIVE_UP_AFTER
        if over or (isinstance(error, NotSent) and error.for_good):
            # Without the address: logs live longer than it should be known.
            _log.error(
                "a letter (%s, %s) was not sent, for good: %s", wanted.kind, wanted.id, error
            )
            await self._finish(wanted, "given_up")
            return
        self._complain(str(error))
        self.counters[wanted.kind, "failed"] += 1
        pause = self._backoff[min(wanted.attempts, len(self._backoff) - 1)]
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        await self._queue.again(wanted, after=pause * jitter)

    def _complain(self, problem: str) -> None:
        """Log *problem*, once until a letter is sent again."""
        if not self._troubled:
            _log.warning("letters are not sent, and tried again: %s", problem)
        self._troubled = True


def letter_for(wanted: Wanted, accounts: Accounts, configuration: Configuration) -> Letter | None:
    """Return the letter that answers *wanted*, with a new link; None: nobody is to be written to.

    Raises:
        DatabaseUnavailable: the accounts cannot be asked.
    """
    if wanted.kind == "reset":
        account = accounts.find_named(wanted.to)
        if account is None or account.disabled or not account.email:
            return None
        return password_letter(account, accounts, configuration, language=wanted.language)
    registration = configuration.login.registration
    if registration is None:
        return None
    language = Wordings(built_in().values()).choose(wanted.language)
    site = site_of(configuration)
    if accounts.uses_address(wanted.to):
        link = f"{origin_of_links(configuration)}{LOGIN_PATH}"
        return write_letter(
            "registered_already", language, to=wanted.to, site=site, link=link, seconds=0.0
        )
    lifetime = configuration.login.links.registration
    secret = OneTimeLinks(accounts).make_registration(wanted.to, wanted.name, lifetime=lifetime)
    link = f"{origin_of_links(configuration)}{CONFIRM_PATH}?token={secret}"
    return write_letter(
        "registration", language, to=wanted.to, site=site, link=link, seconds=lifetime
    )


def password_letter(
    account: Account,
    accounts: Accounts,
    configuration: Configuration,
    *,
    purpose: Purpose = Purpose.RESET,
    language: str = "",
) -> Letter:
    """Return the letter to *account* with a new link to set a password.

    Raises:
        DatabaseUnavailable: the accounts cannot be asked.
    """
    links = configuration.login.links
    lifetime = links.reset if purpose is Purpose.RESET else links.invitation
    secret = OneTimeLinks(accounts).make(purpose, account, lifetime=lifetime)
    return write_letter(
        "reset" if purpose is Purpose.RESET else "invitation",
        Wordings(built_in().values()).choose(language),
        to=account.email,
        site=site_of(configuration),
        link=f"{origin_of_links(configuration)}{SET_PASSWORD_PATH}?token={secret}",
        login=account.login,
        seconds=lifetime,
    )


def origin_of_links(configuration: Configuration) -> str:
    """Return the origin that links lead to: what the operator wrote, never what a client sent.

    A link made of the `Host` field would bring its secret to whoever chose that field.
    """
    login = urlsplit(configuration.login.url)
    if login.netloc:
        return f"{login.scheme}://{login.netloc}"
    return configuration.server.public_url


def site_of(configuration: Configuration) -> str:
    """Return what letters call the site."""
    return urlsplit(configuration.server.public_url).netloc
