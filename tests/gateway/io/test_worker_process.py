import asyncio
import socket
from pathlib import Path

import pytest

from config.model import Address
from gateway.io.control import ChannelError, CommandError, Start
from gateway.io.listening import listening_sockets
from gateway.io.packing import pack_configuration
from gateway.io.worker_process import WorkerProcess
from tests.gateway.io.processes import is_running
from tests.gateway.io.supervised import STANDIN, configuration


async def started(directory: Path) -> tuple[WorkerProcess, socket.socket]:
    (listener,) = listening_sockets(Address("127.0.0.1", 0), 1, setting="server.listen")
    worker = await WorkerProcess.spawn(0, listener.fileno(), STANDIN)
    await worker.start(
        Start(
            slot=0,
            listener=listener.fileno(),
            data_directory=str(directory),
            store_url="",
            access_log="stdout",
        )
    )
    return worker, listener


async def test_a_worker_serves_a_generation_only_after_its_commit(tmp_path: Path) -> None:
    worker, listener = await started(tmp_path)
    await worker.prepare(1, pack_configuration(configuration()))
    assert worker.generation == 0
    await worker.commit(1)
    assert worker.generation == 1
    await worker.drain(5)
    listener.close()


async def test_a_drained_worker_has_ended(tmp_path: Path) -> None:
    worker, listener = await started(tmp_path)
    await worker.drain(5)
    assert not worker.alive
    assert not is_running(worker.pid)
    assert await worker.wait() == "exit status 0"
    listener.close()


async def test_a_killed_worker_says_by_which_signal_and_takes_no_more_calls(
    tmp_path: Path,
) -> None:
    worker, listener = await started(tmp_path)
    worker.kill()
    assert await worker.wait() == "signal SIGKILL"
    with pytest.raises(ChannelError):
        await worker.commit(1)
    assert await worker.measure() is None
    assert not worker.responsive
    worker.kill()  # once more is no error
    listener.close()


async def test_what_a_worker_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "refuse-1").touch()
    worker, listener = await started(tmp_path)
    with pytest.raises(CommandError, match="not for us"):
        await worker.prepare(1, b"")
    worker.kill()
    await worker.wait()
    listener.close()


async def test_a_stopped_worker_is_told_from_one_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.io.worker_process.MEASURE_SECONDS", 0.1)
    worker, listener = await started(tmp_path)
    assert await worker.measure() is not None
    worker._process.send_signal(19)  # SIGSTOP
    assert await worker.measure() is None
    assert not worker.responsive
    worker._process.send_signal(18)  # SIGCONT
    while await asyncio.wait_for(worker.measure(), 5) is None:
        pass
    assert await worker.measure() is not None
    await worker.drain(5)
    listener.close()
