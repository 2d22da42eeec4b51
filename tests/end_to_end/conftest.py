"""The whole program, as an operator runs it: processes, sockets, a store, a browser."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis

from auth.io.embedded import EmbeddedStore
from tests.conftest import Valkey
from tests.end_to_end.running import ROOT, Gateway, StartGateway, free_port


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Start gateways, each on a route file of its own, and stop them after the test.

    Called with the text of the route file, arguments of `doorward run`, and a name for the second
    and later gateways of a test.
    """
    with ExitStack() as stack:

        def start(
            routes: str, *arguments: str, name: str = "gateway", **environment: str
        ) -> Gateway:
            directory = tmp_path / name
            directory.mkdir(exist_ok=True)
            (directory / "routes.yaml").write_text(routes)
            gateway = Gateway(directory, *arguments, environment=environment)
            stack.callback(gateway.stop)
            return gateway

        yield start


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """What `make run` starts, on ports that are free."""
    routes = (ROOT / "routes.yaml").read_text()
    for port in ("8080", "8081", "9001"):
        routes = routes.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")
    directory = tmp_path_factory.mktemp("demo")
    (directory / "routes.yaml").write_text(routes)
    gateway = Gateway(directory, "--demo", environment={})
    yield gateway
    gateway.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, which it may stop and continue by its process id."""
    store = EmbeddedStore(tmp_path / "store")
    url = store.start()
    assert store.pid is not None
    with redis.Redis.from_url(url, protocol=2) as client:
        yield Valkey(url, "", client, store.pid)
    with suppress(ProcessLookupError):
        os.kill(store.pid, signal.SIGCONT)
    store.stop()
