"""Fixtures that every test may use."""

import os
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import redis

from auth.io.embedded import EmbeddedStore
from tests.cluster import Cluster
from tests.ldap_server import SLAPD, Directory, running_directory
from tests.postgres import INITDB, Postgres, running_postgres

SOAKS_FOR = 7200
"""Seconds after which a soak test has hung."""


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
        options=("--port", str(port), "--bind", "127.0.0.1", "--enable-debug-command", "yes"),
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
