"""What was unpacked goes again, whatever it is: on every Python, and as an ordinary user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cache_manager import disk, removal


def nest(top: Path, depth: int, mode: int = 0o755) -> None:
    """Make a directory in a directory, and so on; a file in each."""
    here = os.open(top, os.O_RDONLY)
    try:
        for _ in range(depth):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=inner))
            os.fchmod(here, mode)
            os.close(here)
            here = inner
    finally:
        os.close(here)


@pytest.mark.parametrize("depth", [0, 1, 3, 1500, 5000])
def test_a_tree_of_any_depth_is_removed(tmp_path: Path, depth: int) -> None:
    """Deeper than Python recurses, and than a path can say."""
    top = tmp_path / "top"
    top.mkdir()
    nest(top, depth)
    disk.measure(str(top), opening=True)
    removal.remove(top)
    assert list(tmp_path.iterdir()) == []


def test_directories_that_are_closed_are_opened_for_it(tmp_path: Path) -> None:
    """Modes count for all but root."""
    top = tmp_path / "top"
    top.mkdir()
    nest(top, 50, 0)
    top.chmod(0)
    removal.remove(top)
    assert list(tmp_path.iterdir()) == []


def test_links_and_pipes_go_and_what_they_lead_to_stays(tmp_path: Path) -> None:
    """Nothing outside of the tree is touched."""
    (tmp_path / "kept").mkdir(mode=0o500)
    top = tmp_path / "top"
    (top / "x").mkdir(parents=True)
    (top / "link").symlink_to(tmp_path / "kept")
    (top / "x" / "link").symlink_to("../../kept")
    (top / "x" / "new\nline").touch()
    os.mkfifo(top / "x" / "fifo")
    removal.remove(top)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert oct((tmp_path / "kept").stat().st_mode)[-3:] == "500"
    (tmp_path / "single").symlink_to("kept")
    removal.remove(tmp_path / "single")
    removal.remove(tmp_path / "single")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
