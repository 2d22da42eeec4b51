import socket
from pathlib import Path

import msgspec
import pytest

from auth.login.accounts import Accounts
from auth.login.assembly import ACCOUNTS_FILE
from config.model import Configuration, Endpoint, Login, Upstream
from gateway.io.demo import DemoError, DemoService, add_demo_accounts
from tests.gateway.io.processes import is_running, takes_connections
from tests.gateway.io.supervised import configuration


def notes_on(port: int) -> Configuration:
    upstream = Upstream("notes", (Endpoint("http", "127.0.0.1", port),))
    return msgspec.structs.replace(configuration(), upstreams={"notes": upstream})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_one_can_sign_in_with_what_is_printed(tmp_path: Path) -> None:
    password = add_demo_accounts(Login(), tmp_path)
    assert add_demo_accounts(Login(), tmp_path) == password
    accounts = Accounts(tmp_path / ACCOUNTS_FILE)
    member = await accounts.sign_in("demo", password)
    admin = await accounts.sign_in("admin", password)
    accounts.close()
    assert member is not None
    assert admin is not None
    assert "admin" not in member.roles
    assert "admin" in admin.roles


def test_the_password_is_nobody_elses_and_another_one_everywhere(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert add_demo_accounts(Login(), one) != add_demo_accounts(Login(), two)
    assert (one / "demo-password").stat().st_mode & 0o077 == 0


def test_the_service_answers_after_start_and_is_gone_after_stop(tmp_path: Path) -> None:
    port = free_port()
    service = DemoService(notes_on(port), tmp_path)
    service.start()
    assert takes_connections(port)
    assert service._process is not None
    process = service._process.pid
    service.stop()
    assert not is_running(process)
    assert not takes_connections(port)


def test_a_port_that_somebody_has_is_an_error_that_names_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DemoError, match=str(port)):
            DemoService(notes_on(port), tmp_path).start()


def test_a_route_file_without_notes_has_no_demo(tmp_path: Path) -> None:
    without = msgspec.structs.replace(configuration(), upstreams={})
    with pytest.raises(DemoError, match="notes"):
        DemoService(without, tmp_path)
