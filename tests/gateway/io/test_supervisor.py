import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from config.model import (
    AccessRule,
    Address,
    Admin,
    Assertion,
    Configuration,
    Endpoint,
    IdentityHeaders,
    Login,
    Match,
    Route,
    Secret,
    Server,
    SessionSettings,
    Store,
    Upstream,
)
from config.problem import Problem
from gateway.io.listening import address_of, listening_sockets
from gateway.io.reload import Live, build_live
from gateway.io.supervisor import RunSettings, StartFailedError, Supervisor

STANDIN = (sys.executable, str(Path(__file__).with_name("standin_worker.py")))


def configuration(*, workers: int = 2, path: str = "/*") -> Configuration:
    return Configuration(
        server=Server(
            listen=Address("127.0.0.1", 0), public_url="http://127.0.0.1:8080", workers=workers
        ),
        admin=Admin(listen=Address("127.0.0.1", 0)),
        store=Store(url=Secret("embedded")),
        session=SessionSettings(cookie_name="doorward", secure=False),
        login=Login(),
        tokens=(),
        identity=IdentityHeaders(fields=(), assertion=Assertion()),
        upstreams={"notes": Upstream("notes", (Endpoint("http", "127.0.0.1", 9001),))},
        routes=(Route("notes", Match(path), "notes", AccessRule("public")),),
    )


def live(of: Configuration) -> Live:
    built = build_live(of, 1)
    assert isinstance(built, Live)
    return built


class Gateway:
    """A supervisor over stand-ins, and the address it serves."""

    def __init__(self, supervisor: Supervisor, address: Address) -> None:
        self.supervisor = supervisor
        self.address = address

    async def get(self) -> tuple[int, int]:
        """Send a request; return the process and the generation that answered."""
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await reader.read()
        writer.close()
        process, generation = answer.rpartition(b"\r\n\r\n")[2].split()
        return int(process), int(generation)


@asynccontextmanager
async def gateway(
    directory: Path,
    *,
    workers: int = 2,
    load: Callable[[], Configuration | list[Problem]] | None = None,
    drain_seconds: float = 5.0,
) -> AsyncIterator[Gateway]:
    file = directory / "routes.yaml"
    file.write_text("version: 1\n")
    listeners = listening_sockets(Address("127.0.0.1", 0), workers, setting="server.listen")
    address = address_of(listeners[0])
    supervisor = Supervisor(
        live(configuration(workers=workers)),
        RunSettings(
            file=file,
            data_directory=directory,
            worker_command=STANDIN,
            drain_seconds=drain_seconds,
        ),
        load=load or (lambda: configuration(workers=workers)),
        store_url="unix:///nowhere",
        listeners=listeners,
    )
    await supervisor.start()
    try:
        yield Gateway(supervisor, address)
    finally:
        await supervisor.stop()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)


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


async def test_a_reload_goes_live_in_every_worker(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        outcome = await running.supervisor.reloader.reload()
        assert (outcome.generation, outcome.problems) == (2, ())
        assert {(await running.get())[1] for _ in range(20)} == {2}


async def test_a_file_with_problems_changes_nothing(tmp_path: Path) -> None:
    problems = [Problem(3, 7, "unknown key `routs`"), Problem(9, 1, "no upstream `x`")]
    async with gateway(tmp_path, load=lambda: problems) as running:
        outcome = await running.supervisor.reloader.reload()
        assert outcome.problems == (
            f"{tmp_path}/routes.yaml:3:7: unknown key `routs`",
            f"{tmp_path}/routes.yaml:9:1: no upstream `x`",
        )
        assert {(await running.get())[1] for _ in range(10)} == {1}
        numbers = (await running.supervisor.measure()).numbers
        assert (numbers["config_last_reload_ok"], numbers["reload_failures"]) == (0, 1)


async def test_a_condition_that_does_not_compile_changes_nothing(tmp_path: Path) -> None:
    bad = configuration()
    rule = AccessRule("signed-in", when="identity.subjct == 'x'")
    bad = msgspec.structs.replace(
        bad, routes=(msgspec.structs.replace(bad.routes[0], access=rule, line=12),)
    )
    async with gateway(tmp_path, load=lambda: bad) as running:
        outcome = await running.supervisor.reloader.reload()
        assert outcome.problems
        assert outcome.problems[0].startswith(f"{tmp_path}/routes.yaml:12:")
        assert running.supervisor.reloader.live.generation == 1


async def test_one_worker_that_cannot_prepare_stops_the_reload_everywhere(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        (tmp_path / "refuse-2").touch()
        outcome = await running.supervisor.reloader.reload()
        assert any("this generation is not for us" in problem for problem in outcome.problems)
        assert {(await running.get())[1] for _ in range(10)} == {1}
        (tmp_path / "refuse-2").unlink()
        assert (await running.supervisor.reloader.reload()).generation == 2


async def test_a_worker_that_dies_during_a_reload_comes_back_with_the_new_generation(
    tmp_path: Path,
) -> None:
    def load() -> Configuration:
        os.kill(running.supervisor.serving[0].pid, signal.SIGKILL)
        return configuration()

    async with gateway(tmp_path, load=load) as running:
        outcome = await running.supervisor.reloader.reload()
        assert (outcome.generation, outcome.problems) == (2, ())
        await eventually(lambda: len(running.supervisor.serving) == 2)
        assert {(await running.get())[1] for _ in range(20)} == {2}


async def test_settings_that_need_a_restart_are_named_and_keep_their_value(tmp_path: Path) -> None:
    changed = configuration(workers=3)
    changed = msgspec.structs.replace(changed, store=Store(url=Secret("redis://elsewhere")))
    async with gateway(tmp_path, load=lambda: changed) as running:
        outcome = await running.supervisor.reloader.reload()
        assert outcome.restart_needed == ("server.workers", "store.url")
        kept = running.supervisor.reloader.live.configuration
        assert kept.server.workers == 2
        assert kept.store.url.value == "embedded"


async def test_sighup_reloads(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: running.supervisor.reloader.live.generation == 2)


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
