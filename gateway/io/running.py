"""`doorward run` from start to stop: everything is started in order, and ended in reverse."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop

from auth.io.address import StoreURLError
from auth.io.embedded import EmbeddedStore, EmbeddedStoreError
from auth.io.expiry import ExpiryWatch
from auth.io.logout_delivery import LogoutDelivery
from auth.io.mail_queue import MailQueue
from auth.io.session_store import open_session_store
from auth.io.signing_keys import SigningKeys
from auth.login.assembly import open_accounts
from auth.login.mailing import Mailing
from config.io.files import load_configuration
from config.io.named_files import find_exposed
from config.io.places import data_directory
from config.model import Address, Configuration
from config.overriding import LISTEN, move_addresses
from config.problem import Problem
from gateway.io.admin import AdminServer
from gateway.io.demo import DEMO_ACCOUNTS, DemoError, DemoService, add_demo_accounts
from gateway.io.listening import CannotListenError, address_of, listening_sockets
from gateway.io.metrics import key
from gateway.io.preflight import runtime_problems, this_runtime
from gateway.io.reload import Live, build_live
from gateway.io.supervisor import RunSettings, StartFailedError, Supervisor
from gateway.snapshot import examine_routes

_log = logging.getLogger(__name__)
_T = TypeVar("_T", Configuration, Live)

EMBEDDED = "embedded"
STORE_WATCH_SECONDS = 0.5
"""Between two looks whether the embedded store still runs."""


class RunOptions(msgspec.Struct, frozen=True):
    """The command line and environment of `doorward run`."""

    file: Path
    workers: int | None = None
    """Instead of `server.workers`."""
    demo: bool = False
    access_log: str = "stdout"


class CannotRunError(Exception):
    """Why the gateway does not start, one line for each thing that has to be mended."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def run_gateway(options: RunOptions, say: Callable[[str], None]) -> None:
    """Run until a signal asks to stop; *say* is given what the operator wants to read at the start.

    Raises:
        CannotRunError: it could not start.
    """
    if problems := runtime_problems(this_runtime()):
        raise CannotRunError(*problems)
    configuration = _good(options.file, _load(options))
    with ExitStack() as stack:
        try:
            _run(options, configuration, say, stack)
        except (
            *(CannotListenError, EmbeddedStoreError, StoreURLError, StartFailedError, DemoError),
            OSError,
        ) as error:
            raise CannotRunError(str(error)) from error


def _run(
    options: RunOptions, configuration: Configuration, say: Callable[[str], None], stack: ExitStack
) -> None:
    listeners = listening_sockets(
        configuration.server.listen, configuration.server.workers, setting="server.listen"
    )
    for listener in listeners:
        stack.callback(listener.close)
    address = address_of(listeners[0])
    live = _good(options.file, build_live(with_real_port(configuration, address), 1))
    directory = data_directory(options.file)
    url = configuration.store.url.value
    embedded = None
    # Before there is any other thread: the store ends with the thread that started it.
    if url == EMBEDDED:
        embedded = EmbeddedStore(directory)
        url = embedded.start()
        stack.callback(embedded.stop)
    lines = []
    if options.demo:
        password = add_demo_accounts(configuration.login, directory)
        service = DemoService(configuration, directory)
        service.start()
        stack.callback(service.stop)
        lines = [
            f"Demo sign-in:   {account.login}   password {password}   ({', '.join(account.roles)})"
            for account in DEMO_ACCOUNTS
        ]

    def load() -> Configuration | list[Problem]:
        loaded = _load(options)
        return loaded if isinstance(loaded, list) else with_real_port(loaded, address)

    settings = RunSettings(
        file=options.file, data_directory=directory, access_log=options.access_log
    )
    supervisor = Supervisor(live, settings, load=load, store_url=url, listeners=listeners)
    uvloop.run(_serve(supervisor, url, embedded, address, say, lines, directory))


async def _serve(  # noqa: PLR0913, PLR0917 - the parts that have been started
    supervisor: Supervisor,
    store_url: str,
    embedded: EmbeddedStore | None,
    address: Address,
    say: Callable[[str], None],
    lines: list[str],
    directory: Path,
) -> None:
    configuration = supervisor.reloader.live.configuration
    store = await open_session_store(store_url, configuration.session, worker=False)
    supervisor.reloader.on_live.append(lambda live: store.adopt(live.session))
    admin = AdminServer(supervisor, store)
    keys = SigningKeys(store.commands)
    delivery = LogoutDelivery(store.commands, keys, lambda: supervisor.reloader.live.configuration)
    expiry = ExpiryWatch(store.tell_of_expired, store.commands)
    supervisor.others.append(lambda: _numbers_of(delivery, expiry))
    mailing = Mailing(
        MailQueue(store.commands),
        lambda: supervisor.reloader.live.configuration,
        lambda: open_accounts(configuration.login, directory),
    )
    supervisor.others.append(
        lambda: {key("letters", *of): float(n) for of, n in mailing.counters.items()}
    )
    watch = asyncio.create_task(_watch_store(embedded)) if embedded else None
    try:
        admin_address = await admin.start(configuration.admin.listen)
        await supervisor.start()
        await keys.start()
        await expiry.start()
        await delivery.start()
        await mailing.start()
        try:
            if not supervisor.stopping:
                scheme = "https" if configuration.server.certificates else "http"
                say(f"Doorward is ready on {scheme}://{address}")
                say(f"Public address: {configuration.server.public_url}")
                say(f"Admin address:  http://{admin_address}")
                for line in lines:
                    say(line)
                say("Ctrl-C stops it.")
            await supervisor.wait()
        finally:
            await supervisor.stop()
    finally:
        if watch is not None:
            watch.cancel()
        await admin.close()
        await delivery.close()
        await expiry.close()
        await mailing.close()
        await keys.close()
        await store.close()


def _numbers_of(delivery: LogoutDelivery, expiry: ExpiryWatch) -> dict[str, float]:
    return {
        "sessions_expired": float(expiry.told),
        **{
            key("logout_deliveries", upstream, result): float(count)
            for (upstream, result), count in delivery.counters.items()
        },
    }


async def _watch_store(embedded: EmbeddedStore) -> None:
    """Start the embedded store again when it dies: it has its data on disk."""
    while True:
        await asyncio.sleep(STORE_WATCH_SECONDS)
        if embedded.pid is None:
            _log.error("the embedded store has ended and is started again")
            try:
                # On this thread: the kernel ends the store with the thread that started it.
                embedded.start(ready_timeout=10)
            except EmbeddedStoreError as error:
                _log.error("%s", error)


def with_real_port(configuration: Configuration, address: Address) -> Configuration:
    """Return *configuration* with the port that was found free in the place of port 0."""
    if configuration.server.listen.port != 0:
        return configuration
    moved = move_addresses(configuration, {LISTEN: str(address)})
    assert isinstance(moved, Configuration)
    return moved


def _load(options: RunOptions) -> Configuration | list[Problem]:
    loaded = load_configuration(options.file, examine=examine_routes)
    if isinstance(loaded, list):
        return loaded
    for warning in find_exposed(loaded.private_files):
        _log.warning("%s", warning.at(str(options.file)))
    workers = options.workers or loaded.server.workers
    server = msgspec.structs.replace(loaded.server, workers=workers)
    return msgspec.structs.replace(loaded, server=server)


def _good(file: Path, built: _T | list[Problem]) -> _T:
    if isinstance(built, list):
        raise CannotRunError(*(problem.at(str(file)) for problem in built))
    return built
