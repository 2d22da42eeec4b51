"""The gateway as an operator has it: processes, signals, a file that changes."""

import os
import signal
import threading
from collections.abc import Iterator
from http.client import IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Self

import pytest
import redis

from tests.gateway.io.processes import (
    TOKEN,
    Answered,
    Backend,
    GatewayProcess,
    backend,
    eventually,
    is_running,
    request,
    run_cli,
    takes_connections,
)

pytestmark = pytest.mark.wire


@pytest.fixture(scope="module")
def backend_port() -> Iterator[int]:
    with backend() as port:
        yield port


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, backend_port: int) -> Iterator[GatewayProcess]:
    """A gateway with two workers, for tests that leave it as it was."""
    gateway = GatewayProcess(tmp_path_factory.mktemp("shared"), backend_port, workers=2)
    yield gateway
    assert gateway.stop() == 0


@pytest.fixture
def gateway(tmp_path: Path, backend_port: int) -> Iterator[GatewayProcess]:
    """A gateway with one worker, to be mistreated."""
    gateway = GatewayProcess(tmp_path, backend_port)
    yield gateway
    gateway.stop()


class Load:
    """Sends requests one after the other on connections of their own, until it is left."""

    def __init__(self, port: int, path: str, cookie: str) -> None:
        self.port, self.path, self.cookie = port, path, cookie
        self.statuses: list[int] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(3)]

    def _send(self) -> None:
        while not self._stop.is_set():
            try:
                answer = request(self.port, "GET", self.path, Cookie=self.cookie)
                self.statuses.append(answer.status)
            except OSError:
                self.statuses.append(0)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_session_made_by_a_login_service_is_admitted_until_it_is_ended(
    shared: GatewayProcess,
) -> None:
    cookie, digest = shared.sign_in("u1")
    for _ in range(10):  # whichever worker answers
        admitted = request(shared.port, "GET", "/private/1", Cookie=cookie)
        assert (admitted.status, admitted.body) == (200, b"u1")
    ended = shared.admin("DELETE", f"/api/sessions?id={digest}")
    assert ended.json["ended"] == 1
    assert ended.json["acknowledged"] == ended.json["of"] == 2
    for _ in range(10):
        assert request(shared.port, "GET", "/private/1", Cookie=cookie).status == 401


@pytest.mark.parametrize("command", ["DEL", "FLUSHALL"])
def test_what_runs_in_the_name_of_a_record_that_somebody_deletes_is_cut(
    shared: GatewayProcess, command: str
) -> None:
    Backend.gate.clear()
    Backend.reached.clear()
    cookie, digest = shared.sign_in("u3")
    cut = threading.Event()

    def be_cut() -> None:
        with pytest.raises((ConnectionError, IncompleteRead)):
            request(shared.port, "GET", "/private/stream", Cookie=cookie)
        cut.set()

    slow = threading.Thread(target=be_cut)
    slow.start()
    assert Backend.reached.wait(10)
    with redis.Redis(unix_socket_path=str(shared.directory / ".doorward" / "store.sock")) as store:
        names = [f"doorward:session:{{{digest}}}"] if command == "DEL" else []
        assert store.execute_command(command, *names)
    noticed = cut.wait(3)
    Backend.gate.set()
    slow.join()
    assert noticed


def test_a_bad_file_fails_no_request_and_a_good_one_goes_live(
    tmp_path: Path, backend_port: int
) -> None:
    gateway = GatewayProcess(tmp_path, backend_port, workers=2)
    try:
        cookie, _ = gateway.sign_in("u1")
        good = gateway.file.read_text()
        with Load(gateway.port, "/private/1", cookie) as load:
            gateway.file.write_text(good.replace("signed-in", "singed-in") + "oops: 1\n")
            gateway.process.send_signal(signal.SIGHUP)
            eventually(lambda: not gateway.status()["reload"]["ok"])
            assert request(gateway.admin_port, "GET", "/readyz").status == 200
            problems = gateway.status()["reload"]["problems"]
            metrics = request(gateway.admin_port, "GET", "/metrics").body.decode()
            gateway.file.write_text(good.replace("/public/*", "/open/*"))
            gateway.process.send_signal(signal.SIGHUP)
            eventually(lambda: gateway.status()["reload"]["ok"])  # said when every worker has it
            assert gateway.status()["generation"] >= 2
            statuses = {request(gateway.port, "GET", "/open/1").status for _ in range(10)}
        assert [problem.rpartition(str(gateway.file))[2][0] for problem in problems] == [":"] * 2
        assert "doorward_config_last_reload_ok 0.0" in metrics
        assert "doorward_config_generation 1.0" in metrics
        assert statuses == {200}
        assert len(load.statuses) > 20
        assert set(load.statuses) == {200}
    finally:
        assert gateway.stop() == 0


def test_a_secret_that_others_may_read_is_named_at_the_start_and_at_a_reload(
    gateway: GatewayProcess,
) -> None:
    secret = gateway.directory / "token"
    secret.write_text(TOKEN)
    secret.chmod(0o644)
    warning = f"warning: everybody on this machine may read {secret}, "
    text = gateway.file.read_text().replace(f"token: {TOKEN}", "token: '${file:token}'")
    gateway.file.write_text(text)
    gateway.process.send_signal(signal.SIGHUP)
    eventually(lambda: warning in gateway.errors.read_text())
    assert f"{gateway.file}:4:39: {warning}" in gateway.errors.read_text()

    taken = text.replace("127.0.0.1:0", f"127.0.0.1:{gateway.port}", 1)
    other = gateway.directory / "other.yaml"
    other.write_text(taken)
    ended = run_cli("run", "--config", str(other))
    assert ended.returncode == 1  # the address is taken: behind all that is looked at
    assert f"{other}:4:39: {warning}" in ended.stderr


def test_a_killed_worker_is_replaced_while_sessions_go_on(gateway: GatewayProcess) -> None:
    cookie, _ = gateway.sign_in("u1")
    (worker,) = gateway.worker_pids()
    os.kill(worker, signal.SIGKILL)
    # This connection is made while nobody is there to accept it.
    answer = request(gateway.port, "GET", "/private/1", Cookie=cookie)
    assert (answer.status, answer.body) == (200, b"u1")
    assert gateway.worker_pids() != [worker]
    assert gateway.status()["worker_restarts"] == 1


def test_a_drained_gateway_finishes_what_is_running_and_leaves_nothing(
    gateway: GatewayProcess,
) -> None:
    Backend.gate.clear()
    Backend.reached.clear()
    pids = [*gateway.worker_pids(), gateway.store_pid()]
    answers: list[Answered] = []
    slow = threading.Thread(
        target=lambda: answers.append(request(gateway.port, "GET", "/public/slow"))
    )
    slow.start()
    assert Backend.reached.wait(10)
    gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: not takes_connections(gateway.port))
    assert request(gateway.admin_port, "GET", "/readyz").status == 503
    Backend.gate.set()
    slow.join()
    assert gateway.wait() == 0
    assert [answer.status for answer in answers] == [200]
    assert answers[0].fields["Connection"] == "close"
    assert not any(is_running(process) for process in pids)
    assert [line["path"] for line in gateway.access_log] == ["/public/slow"]


def test_a_second_ctrl_c_does_not_wait(gateway: GatewayProcess) -> None:
    Backend.gate.clear()
    Backend.reached.clear()
    pids = [*gateway.worker_pids(), gateway.store_pid()]

    def give_up() -> None:
        with pytest.raises((ConnectionError, RemoteDisconnected)):
            request(gateway.port, "GET", "/public/slow")

    slow = threading.Thread(target=give_up)
    slow.start()
    assert Backend.reached.wait(10)
    gateway.process.send_signal(signal.SIGINT)
    eventually(lambda: not takes_connections(gateway.port))
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.wait() == 0
    Backend.gate.set()
    slow.join()
    assert not any(is_running(process) for process in pids)


def test_when_the_supervisor_is_killed_nothing_is_left(gateway: GatewayProcess) -> None:
    pids = [*gateway.worker_pids(), gateway.store_pid()]
    assert all(is_running(process) for process in pids)
    gateway.process.kill()
    gateway.wait()
    eventually(lambda: not any(is_running(process) for process in pids))


def test_a_store_that_is_out_is_503_and_comes_back_by_itself(gateway: GatewayProcess) -> None:
    cookie, _ = gateway.sign_in("u1")
    os.kill(gateway.store_pid(), signal.SIGSTOP)
    try:
        eventually(lambda: request(gateway.port, "GET", "/private/1", Cookie=cookie).status == 503)
        refused = request(gateway.port, "GET", "/private/1", Cookie=cookie)
        assert refused.fields["Retry-After"]
        assert "Set-Cookie" not in refused.fields
        assert request(gateway.port, "GET", "/public/1").status == 200
        eventually(lambda: request(gateway.admin_port, "GET", "/readyz").status == 503)
        assert request(gateway.admin_port, "GET", "/healthz").status == 200
    finally:
        os.kill(gateway.store_pid(), signal.SIGCONT)
    eventually(lambda: request(gateway.port, "GET", "/private/1", Cookie=cookie).status == 200)
    killed = gateway.store_pid()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: gateway.store_pid() != killed)
    eventually(lambda: request(gateway.port, "GET", "/private/1", Cookie=cookie).status == 200)
    eventually(lambda: request(gateway.admin_port, "GET", "/readyz").status == 200)


def test_a_second_gateway_on_the_same_address_says_so(
    shared: GatewayProcess, tmp_path: Path
) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(shared.file.read_text())
    second = run_cli("run", "--config", str(file), DOORWARD_LISTEN=f"127.0.0.1:{shared.port}")
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{shared.port}" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_bad_file_is_fatal_at_start_and_every_problem_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("version: 1\nserver: {lisen: x}\nroutes:\n  - {id: a}\n")
    started = run_cli("run", "--config", str(file))
    assert started.returncode == 1
    assert f"{file}:2:10: " in started.stderr
    assert f"{file}:4:5: " in started.stderr
    assert "Traceback" not in started.stderr


def test_no_log_has_a_token_a_cookie_or_a_query(tmp_path: Path, backend_port: int) -> None:
    gateway = GatewayProcess(tmp_path, backend_port)
    cookie, _ = gateway.sign_in("u1")
    request(gateway.port, "GET", "/private/1?canary=query", Cookie=cookie)
    request(gateway.port, "GET", "/private/1", Authorization="Bearer canary.bearer.token")
    request(gateway.admin_port, "GET", "/api/status", Authorization="Bearer canary-admin")
    assert gateway.stop() == 0
    logged = gateway.errors.read_text() + repr(gateway.access_log)
    assert len(gateway.access_log) == 2
    assert "canary" not in logged
    assert cookie.partition("=")[2] not in logged
