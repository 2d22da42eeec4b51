import os
import signal
from pathlib import Path

import msgspec
import pytest

from config.model import AccessRule, Address, Certificate, Configuration, Secret, Store
from config.problem import Problem
from gateway.io.reload import keep_fixed
from tests.gateway.io.supervised import configuration, eventually, gateway


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


async def test_what_lives_in_the_supervisor_is_told_what_goes_live_and_nothing_else(
    tmp_path: Path,
) -> None:
    loaded: list[Configuration | list[Problem]] = [[Problem(3, 7, "no")], configuration()]
    told: list[Configuration] = []
    async with gateway(tmp_path, load=lambda: loaded.pop(0)) as running:
        running.supervisor.reloader.on_live.append(told.append)
        await running.supervisor.reloader.reload()
        assert told == []
        await running.supervisor.reloader.reload()
        assert told == [running.supervisor.reloader.live.configuration]


OLD = configuration()
SERVER, ADMIN, SESSION = OLD.server, OLD.admin, OLD.session


def changed(part: str, **values: object) -> Configuration:
    section = msgspec.structs.replace(getattr(OLD, part), **values)
    return msgspec.structs.replace(OLD, **{part: section})


@pytest.mark.parametrize(
    ("new", "setting"),
    [
        (changed("server", listen=Address("127.0.0.1", 1)), "server.listen"),
        (changed("server", workers=9), "server.workers"),
        (changed("server", certificates=(Certificate("a", "b"),)), "server.tls"),
        (changed("admin", listen=Address("127.0.0.1", 1)), "admin.listen"),
        (changed("store", url=Secret("redis://elsewhere")), "store.url"),
        (changed("login", database=Secret("postgresql://db/a")), "login.database"),
        (changed("session", lease=9.0), "session.lease"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_made_at_the_start_stays_as_it_is(new: Configuration, setting: str) -> None:
    assert keep_fixed(OLD, new) == (OLD, (setting,))


@pytest.mark.parametrize(
    "new",
    [
        changed("server", public_url="https://a.example"),
        changed("admin", token=Secret("another")),
        changed("session", same_site="strict"),
        changed("session", idle_timeout=9.0, absolute_timeout=99.0),
        msgspec.structs.replace(OLD, routes=()),
    ],
    ids=["public_url", "token", "same_site", "times", "routes"],
)
def test_everything_else_is_taken_up(new: Configuration) -> None:
    assert keep_fixed(OLD, new) == (new, ())


def test_other_certificates_are_taken_up_while_there_are_some() -> None:
    old = changed("server", certificates=(Certificate("a", "b"),))
    new = changed("server", certificates=(Certificate("c", "d"),))
    assert keep_fixed(old, new) == (new, ())
