"""The service as a worker runs it: accounts from their database, the rest from the store."""

import asyncio
import os
import secrets
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from auth.io.account_events import AccountEvents
from auth.io.challenges import Challenges
from auth.io.database import DatabaseUnavailable, open_database
from auth.io.kept_forms import KeptForms
from auth.io.mail_queue import MailQueue
from auth.io.provider_client import Providers
from auth.io.provider_records import ProviderRecords
from auth.io.site_codes import SiteCodes
from auth.io.unfinished import UnfinishedSignIns
from auth.login.account import Account
from auth.login.accounts import AccountError, Accounts
from auth.login.factors import Factors
from auth.login.known_devices import KnownDevices
from auth.login.links import PublishAccount
from auth.login.pages import Pages
from auth.login.provider_refresh import RefreshesUnderWay
from auth.login.service import AtHand, AtProviders, ByMail, LoginService
from auth.login.throttle import StoreThrottle
from auth.ports import AuthUnavailable, SessionStore
from auth.revocation import EVENTS_KEY
from config.model import Configuration, Login

ACCOUNTS_FILE = "accounts.sqlite3"
_EVENT_SECONDS = 5.0
"""For the store to take the event of a new account; then there is no account."""
FACTOR_KEY_FILE = "factors.key"
SECRET_KEY = "doorward:login:secret"  # noqa: S105 - the key's name


async def open_login_service(
    settings: Configuration,
    store: SessionStore,
    commands: Redis,
    directory: Path,
    pages: Pages | None = None,
) -> LoginService:
    """Return the service; *commands* is a client of the same store, *directory* the data directory.

    *pages* are those of `open_pages`, if they are compiled already.

    Raises:
        AuthUnavailable: the store does not answer, or the accounts cannot be opened.
    """
    secret = await shared_secret(commands)
    try:
        key = await asyncio.to_thread(factor_key, settings.login, directory)
        accounts = await asyncio.to_thread(open_accounts, settings.login, directory)
    except (AccountError, OSError) as error:
        # Asked again at the next request: a database may be there by then.
        raise AuthUnavailable(str(error)) from error
    return LoginService(
        settings,
        store,
        accounts,
        secret,
        throttle=StoreThrottle(commands),
        at_providers=AtProviders(Providers(), ProviderRecords(commands), RefreshesUnderWay()),
        by_mail=ByMail(MailQueue(commands), publisher(commands)),
        known_devices=KnownDevices(commands),
        second_factors=AtHand(
            Factors(accounts.database, key), UnfinishedSignIns(commands), Challenges(commands)
        ),
        site_codes=SiteCodes(commands),
        events=AccountEvents(commands),
        pages=pages,
        kept_forms=KeptForms(commands),
    )


def publisher(commands: Redis) -> PublishAccount:
    """Return what tells other services of a new account, by the stream of events in the store.

    It is called in a thread; *commands* belongs to the loop that runs now.
    """
    loop = asyncio.get_running_loop()

    async def write(account: Account) -> None:
        await commands.xadd(
            EVENTS_KEY,
            {"event": "user.registered", "subject": account.subject, "at": account.created_at},
            maxlen=100_000,
            approximate=True,
        )

    def publish(account: Account) -> None:
        writing = asyncio.run_coroutine_threadsafe(write(account), loop)
        try:
            writing.result(_EVENT_SECONDS)
        except (RedisError, OSError, TimeoutError) as error:
            raise AuthUnavailable("the store does not answer") from error

    return publish


def open_accounts(login: Login, directory: Path) -> Accounts:
    """Return the accounts that *login* speaks of; *directory* has the file, if it is one.

    Raises:
        AccountError: they cannot be opened.
    """
    url = login.database.value if login.database else ""
    try:
        database = open_database(url, directory / ACCOUNTS_FILE)
    except DatabaseUnavailable as error:
        raise AccountError(str(error)) from error
    try:
        return Accounts(database)
    except AccountError:
        database.close()
        raise


def factor_key(login: Login, directory: Path) -> str:
    """Return the key that seals the secrets of authenticator apps.

    Without `login.factor_key` it is made once, in *directory*, readable by its owner only; of
    several processes that make it at once one wins.

    Raises:
        OSError: it can be neither read nor made.
    """
    if login.factor_key:
        return login.factor_key.value
    path = directory / FACTOR_KEY_FILE
    if not path.exists():
        made = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(made, path)  # whole, or not at all
        made.unlink()
    return path.read_text().strip()


async def shared_secret(commands: Redis) -> bytes:
    """Return the secret of the form tokens that all gateways of a store share.

    The first one that asks makes it; of several at once one wins. It outlives restarts, and if
    it is lost, nothing is but the forms that were open.

    Raises:
        AuthUnavailable: the store does not answer.
    """
    try:
        await commands.set(SECRET_KEY, secrets.token_hex(32), nx=True)
        text = await commands.get(SECRET_KEY)
    except (RedisError, OSError) as error:
        raise AuthUnavailable("the store does not answer") from error
    if not text:
        raise AuthUnavailable("the store lost the secret of the forms just now")
    return bytes.fromhex(text if isinstance(text, str) else text.decode())
