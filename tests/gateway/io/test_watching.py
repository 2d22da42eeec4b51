import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.io.watching import changes


def write_in_place(path: Path) -> None:
    path.write_text("changed in place")


def replace(path: Path) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text("replaced")
    fresh.rename(path)


def swap_links(path: Path) -> None:
    """As Kubernetes does with a ConfigMap."""
    directory = path.parent / "..2026"
    directory.mkdir()
    (directory / path.name).write_text("linked")
    path.unlink()
    path.symlink_to(directory / path.name)


@pytest.mark.parametrize("change", [write_in_place, replace, swap_links])
async def test_a_change_is_noticed_however_it_is_made(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("as it was")
    noticed = changes(path, interval=0.01)
    next_change: Awaitable[None] = asyncio.ensure_future(anext(noticed))
    await asyncio.sleep(0.03)
    change(path)
    await asyncio.wait_for(next_change, 5)


async def test_a_file_that_is_gone_for_a_moment_has_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("as it was")
    noticed = changes(path, interval=0.01)
    next_change = asyncio.ensure_future(anext(noticed))
    await asyncio.sleep(0.03)
    path.rename(tmp_path / "away")
    done, _ = await asyncio.wait((next_change,), timeout=0.1)
    assert not done
    next_change.cancel()
