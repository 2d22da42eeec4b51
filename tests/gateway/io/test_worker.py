"""The real worker, driven by commands as the supervisor would."""

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from config.model import Address, Certificate, Configuration
from gateway.io.control import (
    Abort,
    Commit,
    Drain,
    Measure,
    Prepare,
    RefusedError,
    ReopenLogs,
    Start,
)
from gateway.io.listening import address_of, listening_sockets
from gateway.io.metrics import Measurement
from gateway.io.packing import pack_configuration
from gateway.io.worker import Worker
from tests.conftest import Valkey
from tests.gateway.io.supervised import configuration
from tests.gateway.io.test_tls import make_certificate


class Driven:
    """A worker in this process, and the address it will serve."""

    def __init__(self, worker: Worker, address: Address, directory: Path) -> None:
        self.worker = worker
        self.address = address
        self.log = directory / "access.jsonl"

    async def go_live(self, generation: int, configured: Configuration | None = None) -> None:
        configured = configured or configuration()
        await self.worker.perform(Prepare(generation, pack_configuration(configured)))
        await self.worker.perform(Commit(generation))

    async def get(self, path: str) -> bytes:
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        writer.write(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
        answer = await reader.read()
        writer.close()
        return answer

    async def certificate(self) -> bytes | None:
        """Return the certificate that the worker shows."""
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection(
            self.address.host, self.address.port, ssl=anybody, server_hostname="a.example"
        )
        shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return shown

    async def measure(self) -> dict[str, float]:
        measured = await self.worker.perform(Measure())
        assert isinstance(measured, Measurement)
        return measured.numbers


@asynccontextmanager
async def driven(directory: Path, valkey: Valkey) -> AsyncIterator[Driven]:
    (listener,) = listening_sockets(Address("127.0.0.1", 0), 1, setting="server.listen")
    address = address_of(listener)
    worker = Worker()
    await worker.perform(
        Start(
            slot=0,
            listener=listener.detach(),
            data_directory=str(directory),
            store_url=valkey.url,
            access_log=str(directory / "access.jsonl"),
        )
    )
    try:
        yield Driven(worker, address, directory)
    finally:
        worker.end_within(1.0)
        await worker.close()


async def test_what_is_prepared_serves_only_after_the_commit(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with driven(tmp_path, valkey) as gateway:
        await gateway.go_live(1)
        await gateway.worker.perform(Prepare(2, pack_configuration(configuration())))
        await gateway.get("/.doorward/nothing")
        await gateway.worker.perform(Commit(2))
        await gateway.get("/.doorward/nothing")
    lines = [msgspec.json.decode(line) for line in gateway.log.read_bytes().splitlines()]
    assert [line["generation"] for line in lines] == [1, 2]


async def test_what_was_aborted_cannot_be_committed(tmp_path: Path, valkey: Valkey) -> None:
    async with driven(tmp_path, valkey) as gateway:
        await gateway.go_live(1)
        await gateway.worker.perform(Prepare(2, pack_configuration(configuration())))
        await gateway.worker.perform(Abort(2))
        with pytest.raises(KeyError):
            await gateway.worker.perform(Commit(2))


async def test_certificates_that_cannot_be_used_stop_a_reload(
    tmp_path: Path, valkey: Valkey
) -> None:
    server = msgspec.structs.replace(
        configuration().server, certificates=(Certificate("/nowhere.pem", "/nowhere.key"),)
    )
    bad = msgspec.structs.replace(configuration(), server=server)
    async with driven(tmp_path, valkey) as gateway:
        await gateway.go_live(1)
        with pytest.raises(RefusedError, match=r"nowhere\.pem"):
            await gateway.worker.perform(Prepare(2, pack_configuration(bad)))
        assert b" 404 " in await gateway.get("/.doorward/nothing")


async def test_new_certificate_files_are_taken_up_by_a_running_worker(
    tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.io.worker.CERTIFICATE_SECONDS", 0.02)
    first = make_certificate(tmp_path, "first", "a.example")
    second = make_certificate(tmp_path, "second", "a.example")
    server = msgspec.structs.replace(configuration().server, certificates=(first,))
    async with driven(tmp_path, valkey) as gateway:
        await gateway.go_live(1, msgspec.structs.replace(configuration(), server=server))
        served = await gateway.certificate()
        Path(second.cert_file).rename(first.cert_file)
        Path(second.key_file).rename(first.key_file)
        async with asyncio.timeout(5):
            while await gateway.certificate() == served:
                await asyncio.sleep(0.02)


async def test_what_a_worker_measures_covers_requests_and_store(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with driven(tmp_path, valkey) as gateway:
        await gateway.go_live(1)
        await gateway.get("/.doorward/nothing")
        numbers = await gateway.measure()
        assert numbers["store_connected"] == 1
        assert numbers["lease_age_seconds"] < 5
        assert numbers["connections"] == 0
        assert sum(n for name, n in numbers.items() if name.startswith("requests")) == 1


async def test_a_rotated_access_log_is_opened_anew(tmp_path: Path, valkey: Valkey) -> None:
    async with driven(tmp_path, valkey) as gateway:
        await gateway.go_live(1)
        gateway.log.rename(tmp_path / "rotated")
        await gateway.worker.perform(ReopenLogs())
        await gateway.get("/.doorward/nothing")
    assert len(gateway.log.read_bytes().splitlines()) == 1


async def test_draining_is_asked_for_and_ends_the_worker(tmp_path: Path, valkey: Valkey) -> None:
    async with driven(tmp_path, valkey) as gateway:
        await gateway.go_live(1)
        await gateway.worker.perform(Drain(2.5))
        assert gateway.worker.over.is_set()
        assert gateway.worker.patience == 2.5
    with pytest.raises(ConnectionRefusedError):
        await gateway.get("/")


async def test_a_reload_that_ends_while_a_worker_drains_is_no_failure(
    tmp_path: Path, valkey: Valkey
) -> None:
    # The supervisor kills a worker whose commit fails, and this one has requests to finish.
    async with driven(tmp_path, valkey) as gateway:
        await gateway.go_live(1)
        await gateway.worker.perform(Prepare(2, pack_configuration(configuration())))
        await gateway.worker.perform(Drain(2.5))
        await gateway.worker.perform(Abort(2))  # as its end does with what was prepared
        await gateway.worker.perform(Commit(2))


def test_a_worker_may_open_as_many_files_as_it_is_let() -> None:
    code = (
        "import resource as r, gateway.io.worker as w; n = r.RLIMIT_NOFILE;"
        "hard = r.getrlimit(n)[1]; r.setrlimit(n, (64, hard)); w.allow_many_descriptors();"
        "assert r.getrlimit(n) == (min(hard, w.MOST_DESCRIPTORS), hard), r.getrlimit(n)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
