"""Fixtures that every test may use."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from auth.io.embedded import EmbeddedStore, find_server
from tests import store_server
from tests.cluster import Cluster
from tests.ldap_server import SLAPD, Directory, running_directory
from tests.postgres import INITDB, Postgres, running_postgres
from tests.turns import Turns

SOAKS_FOR = 7200
"""Seconds after which a soak test has hung."""


TURNS = pytest.StashKey[Turns]()


def pytest_configure(config: pytest.Config) -> None:
    """Have the server of `DOORWARD_TEST_SERVER` found before any other; take turns with others."""
    if store_server.CHOSEN:
        directory = Path(tempfile.mkdtemp(prefix="doorward-server-"))
        config.add_cleanup(lambda: shutil.rmtree(directory))
        os.environ["PATH"] = store_server.put_first(store_server.CHOSEN, directory)

    if "PYTEST_XDIST_WORKER" in os.environ:
        turns = config.stash[TURNS] = Turns(config.cache.mkdir("turns"))
        config.add_cleanup(turns.close)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test that is `alone` while the other processes wait; outside of its time limit."""
    turns = item.config.stash.get(TURNS, None)
    if turns is None:
        return (yield)
    with turns.taken(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_report_header() -> str:
    """Say which server is tested with."""
    server = find_server()
    return f"store: {store_server.CHOSEN or server}, {store_server.described(server)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the soak tests their time; all others have the `timeout` of pyproject.toml."""
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.timeout(SOAKS_FOR))


class Valkey(NamedTuple):
    """A real server that belongs to this test run."""

    url: str
    """`unix://` of its socket."""
    tcp_url: str
    """`redis://127.0.0.1:port`."""
    client: redis.Redis
    """A plain client, as another service or an operator would use; RESP2, no retries."""
    pid: int

    def flush(self) -> None:
        self.client.flushall()


@pytest.fixture(scope="session")
def valkey_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = EmbeddedStore(
        Path(tmp_path_factory.mktemp("valkey")),
        options=("--port", str(port), "--bind", "127.0.0.1", *store_server.with_debugging()),
    )
    url = store.start()
    assert store.pid is not None
    with redis.Redis.from_url(url, protocol=2) as client:
        yield Valkey(url, f"redis://127.0.0.1:{port}", client, store.pid)
    store.stop()


@pytest.fixture
def valkey(valkey_process: Valkey) -> Valkey:
    """The run's real server, empty."""
    valkey_process.flush()
    return valkey_process


@pytest.fixture
def server_with_tls(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have servers that this test starts be such as can do TLS."""
    server = store_server.find_server_with_tls()
    if server is None and not os.environ.get("CI"):
        pytest.skip("no server with TLS: install Debian's redis-tools, or see docs/testing.md")
    assert server is not None
    monkeypatch.setenv("PATH", store_server.put_first(server, tmp_path_factory.mktemp("tls")))


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Directory]:
    """A real OpenLDAP; for tests that also need python-ldap."""
    if (SLAPD is None or find_spec("ldap") is None) and not os.environ.get("CI"):
        pytest.skip("slapd or python-ldap is not installed")
    # Here: that module has tests, which are found where they are.
    from tests.gateway.io.test_tls import make_certificate  # noqa: PLC0415

    certificate = make_certificate(tmp_path_factory.mktemp("ldap"), "ldap", "127.0.0.1")
    with running_directory(certificate.cert_file, certificate.key_file) as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if INITDB is None and not os.environ.get("CI"):
        pytest.skip("PostgreSQL is not installed")
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real cluster that belongs to this test run: three primaries."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.close()
