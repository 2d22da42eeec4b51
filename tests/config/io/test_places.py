"""The data directory beside the route file."""

import stat
from pathlib import Path

from config.io.places import data_directory


def test_the_data_directory_lies_beside_the_route_file(tmp_path: Path) -> None:
    assert data_directory(tmp_path / "routes.yaml") == tmp_path / ".doorward"


def test_only_its_owner_may_enter_the_data_directory(tmp_path: Path) -> None:
    directory = data_directory(tmp_path / "routes.yaml")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / ".doorward").mkdir(mode=0o755)
    directory = data_directory(tmp_path / "routes.yaml")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_linked_route_file_keeps_its_data_beside_the_real_one(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "routes.yaml").touch()
    (tmp_path / "link.yaml").symlink_to(real / "routes.yaml")
    assert data_directory(tmp_path / "link.yaml") == real / ".doorward"


def test_the_environment_can_name_another_directory(tmp_path: Path) -> None:
    named = tmp_path / "elsewhere"
    directory = data_directory(tmp_path / "routes.yaml", {"DOORWARD_DATA": str(named)})
    assert directory == named
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not (tmp_path / ".doorward").exists()
