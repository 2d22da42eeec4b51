import asyncio
import itertools
import os
import pty
import signal
import threading
from pathlib import Path

import pytest

from config.model import Configuration
from gateway.io.supervisor import StartFailedError
from tests.gateway.io.processes import is_running
from tests.gateway.io.supervised import configuration, eventually, gateway


async def test_every_worker_serves_when_start_returns(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        pids = {worker.pid for worker in running.supervisor.serving}
        assert len(pids) == 2
        assert {(await running.get())[0] for _ in range(40)} == pids


async def test_a_killed_worker_is_replaced_and_loses_no_connection(tmp_path: Path) -> None:
    async with gateway(tmp_path, workers=1) as running:
        (worker,) = running.supervisor.serving
        os.kill(worker.pid, signal.SIGKILL)
        # Sent while nobody is there to take it: it waits in the socket that the supervisor keeps.
        process, generation = await asyncio.wait_for(running.get(), 10)
        assert process != worker.pid
        assert generation == 1
        assert running.supervisor.restarts == 1


async def test_what_a_killed_worker_had_counted_still_counts(tmp_path: Path) -> None:
    async with gateway(tmp_path, workers=1) as running:
        for _ in range(3):
            await running.get()
        before = (await running.supervisor.measure()).numbers["request_bytes"]
        os.kill(running.supervisor.serving[0].pid, signal.SIGKILL)
        await running.get()
        after = (await running.supervisor.measure()).numbers
        assert before == 3
        assert after["request_bytes"] == 4
        assert after["worker_restarts"] == 1


async def test_a_hung_worker_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.io.supervisor.POLL_SECONDS", 0.05)
    monkeypatch.setattr("gateway.io.worker_process.MEASURE_SECONDS", 0.2)
    monkeypatch.setattr("gateway.io.supervisor.HUNG_AFTER", 1.0)
    async with gateway(tmp_path, workers=1) as running:
        (worker,) = running.supervisor.serving
        os.kill(worker.pid, signal.SIGSTOP)
        process, _ = await asyncio.wait_for(running.get(), 20)  # waited in the socket meanwhile
        assert process != worker.pid
        assert not is_running(worker.pid)
        assert running.supervisor.restarts == 1


async def test_a_worker_that_stands_still_for_a_moment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.io.supervisor.POLL_SECONDS", 0.05)
    monkeypatch.setattr("gateway.io.worker_process.MEASURE_SECONDS", 0.05)
    async with gateway(tmp_path, workers=1) as running:
        (worker,) = running.supervisor.serving
        os.kill(worker.pid, signal.SIGSTOP)
        await eventually(lambda: not worker.responsive)
        running.supervisor._end_hung()
        os.kill(worker.pid, signal.SIGCONT)
        await eventually(lambda: worker.responsive)
        assert (await running.get())[0] == worker.pid


async def test_sighup_reloads(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: running.supervisor.reloader.live.generation == 2)


async def test_sighups_that_come_during_a_reload_are_one_more_reload_behind_it(
    tmp_path: Path,
) -> None:
    loads, go_on = itertools.count(1), threading.Semaphore(0)
    begun = 0

    def load() -> Configuration:
        nonlocal begun
        begun = next(loads)
        assert go_on.acquire(timeout=20)
        return configuration()

    async with gateway(tmp_path, load=load) as running:
        kept = len(running.supervisor._keepers)
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: begun == 1)
        for _ in range(50):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0)
        assert len(running.supervisor._keepers) == kept
        for generation in (2, 3):
            go_on.release()
            await eventually(
                lambda: running.supervisor.reloader.live.generation == generation  # noqa: B023 - awaited here
            )
        await running.supervisor.measure()  # some turns of the loop: a third one would begin now
        assert begun == 2


async def test_a_changed_file_is_taken_up_by_itself(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        await asyncio.sleep(0)
        (tmp_path / "routes.yaml").write_text("version: 1\nroutes: []\n")
        await eventually(lambda: running.supervisor.reloader.live.generation == 2)


async def test_after_a_stop_no_process_is_left(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        pids = [worker.pid for worker in running.supervisor.serving]
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running.supervisor.wait(), 5)
    assert not any(is_running(process) for process in pids)


async def test_a_worker_that_does_not_end_is_killed_when_its_time_is_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.io.worker_process.EXIT_SECONDS", 0.1)
    (tmp_path / "never-ends").touch()
    async with gateway(tmp_path, workers=1, drain_seconds=0.1) as running:
        (worker,) = running.supervisor.serving
    assert not is_running(worker.pid)


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    (tmp_path / "never-ends").touch()
    async with gateway(tmp_path, workers=1, drain_seconds=60.0) as running:
        (worker,) = running.supervisor.serving
        os.kill(os.getpid(), signal.SIGINT)
        await running.supervisor.wait()
        stopping = asyncio.create_task(running.supervisor.stop())
        await eventually(lambda: running.supervisor.draining)
        assert is_running(worker.pid)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(stopping, 5)
        assert not is_running(worker.pid)


async def test_a_worker_that_cannot_start_is_a_start_that_failed(tmp_path: Path) -> None:
    (tmp_path / "refuse-1").touch()
    with pytest.raises(StartFailedError, match="this generation is not for us"):
        async with gateway(tmp_path):
            pass


async def test_a_closed_terminal_ends_the_gateway_and_is_no_reload(tmp_path: Path) -> None:
    terminal, side = pty.openpty()
    async with gateway(tmp_path, workers=1) as running:
        running.supervisor._terminal = side
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: running.supervisor.reloader.live.generation == 2)
        os.close(terminal)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(running.supervisor.wait(), 5)
        assert running.supervisor.reloader.live.generation == 2
    os.close(side)
