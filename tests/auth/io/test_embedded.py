import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from auth.io.embedded import EmbeddedStore, EmbeddedStoreError, embedded_url

pytestmark = pytest.mark.wire


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    embedded = EmbeddedStore(tmp_path / ".doorward")
    yield embedded
    embedded.stop()


def test_the_socket_and_the_directory_are_for_the_owner_only(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    store.start()
    assert stat.S_IMODE((tmp_path / ".doorward").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / ".doorward" / "store.sock").stat().st_mode) == 0o600


def test_what_was_written_is_there_after_a_restart(store: EmbeddedStore) -> None:
    for expected in (None, b"kept"):
        with redis.Redis.from_url(store.start(), protocol=2) as client:
            assert client.get("k") == expected
            client.set("k", "kept")
        store.stop()


def test_a_killed_server_is_started_again_over_its_stale_socket(store: EmbeddedStore) -> None:
    store.start()
    assert store.pid is not None
    os.kill(store.pid, signal.SIGKILL)
    assert store._process is not None
    store._process.wait()
    with redis.Redis.from_url(store.start(), protocol=2) as client:
        assert client.ping()


def test_a_second_gateway_in_the_directory_is_told_who_has_it(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    store.start()
    other = EmbeddedStore(tmp_path / ".doorward")
    with (
        pytest.raises(EmbeddedStoreError, match=rf"another gateway .* \(pid {store.pid}\)"),
        other._lock(patience=0.1),
    ):
        pass


def test_its_url_is_found_while_it_runs_and_only_then(store: EmbeddedStore, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedStoreError, match="no embedded store is running"):
        embedded_url(tmp_path / ".doorward")
    url = store.start()
    assert embedded_url(tmp_path / ".doorward") == url


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedStoreError, match="too long"):
        EmbeddedStore(tmp_path / ("d" * 100)).start()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedStoreError, match="stopped at once"):
        EmbeddedStore(tmp_path, options=("--no-such-option", "1")).start()


def test_it_dies_with_its_parent_and_the_next_one_takes_over(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    script = (
        "import sys, time, pathlib; from auth.io.embedded import EmbeddedStore;"
        "s = EmbeddedStore(pathlib.Path(sys.argv[1])); s.start(); print(s.pid, flush=True);"
        "time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / ".doorward")], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    url = store.start()  # waits for the orphan to let go of the directory
    assert store.pid != orphan
    with pytest.raises(ProcessLookupError):
        _raise_if_gone(orphan)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(url.removeprefix("unix://"))


def _raise_if_gone(pid: int) -> None:
    state = Path(f"/proc/{pid}/stat")
    if not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
        raise ProcessLookupError(pid)
