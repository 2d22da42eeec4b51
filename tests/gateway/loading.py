"""From the text of a route file to a snapshot, for tests."""

from config.model import Configuration
from config.problem import Problem
from config.reading import read_configuration
from gateway.snapshot import Snapshot, build_snapshot

BASE = """\
version: 1
server: {listen: "127.0.0.1:8080", public_url: "http://127.0.0.1:8080"}
admin: {listen: "127.0.0.1:8081"}
store: {url: embedded}
upstreams:
  notes: http://127.0.0.1:9001
"""


def configuration_of(text: str) -> Configuration:
    """Read a route file that is good."""

    def read_file(path: str) -> str:
        raise FileNotFoundError(path)

    read = read_configuration(text, environment={}, read_file=read_file, base_dir=".")
    assert isinstance(read, Configuration), read
    return read


def snapshot_of(text: str) -> Snapshot:
    """Build the snapshot of a route file that is good."""
    built = build_snapshot(configuration_of(text), 1)
    assert isinstance(built, Snapshot), built
    return built


def problems_of(text: str) -> list[Problem]:
    """Build the snapshot of a file that reads well, and return why it may not go live."""
    built = build_snapshot(configuration_of(text), 1)
    assert isinstance(built, list)
    return built
