"""The root as a whole: one manager has it, and notices when it is another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from cache_manager.layout import CacheLayout
from cache_manager.root import Root, TakenError
from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return where the root is to be."""
    return tmp_path / "deep" / "cache"


def root_at(place: Path) -> Root:
    """Return a root, not yet taken."""
    return Root(Store(CacheLayout(PurePosixPath(place))))


def test_a_root_is_made_and_is_one_managers(place: Path) -> None:
    """Another gets it when the first lets it go."""
    one, other = root_at(place), root_at(place)
    assert [one.is_ours] == [False]
    one.take()
    one.take()
    one.look()
    assert one.is_ours
    with pytest.raises(TakenError, match="another manager has it"):
        other.take()
    one.let_go()
    other.take()
    assert (one.is_ours, other.is_ours) == (False, True)


def _replaced(place: Path) -> None:
    place.rename(place.with_name("before"))
    place.mkdir()


def _lost_its_lock(place: Path) -> None:
    (place / "lock").unlink()


@pytest.mark.parametrize("change", [_replaced, _lost_its_lock])
def test_what_is_not_what_was_taken_is_taken_anew(place: Path, change: Callable[[Path], None]) -> None:
    """The lock is on a file, and not on a name."""
    one = root_at(place)
    one.take()
    change(place)
    assert [one.is_ours] == [False]
    one.take()
    assert one.is_ours
    with pytest.raises(TakenError):
        root_at(place).take()


@pytest.mark.parametrize("again", [False, True])
def test_a_root_that_is_gone_is_not_made_by_a_running_manager(place: Path, *, again: bool) -> None:
    """It may be moved for a moment; somebody knows. Nothing of it is kept open."""
    one = root_at(place)
    one.take()
    shutil.rmtree(place)
    for do in (one.look, one.take):
        with pytest.raises(StatusError, match="is gone") as caught:
            do()
        assert caught.value.status is HookStatus.CACHE_UNUSABLE
    assert not place.exists()
    if again:
        place.mkdir()
        one.take()
        assert one.is_ours


def test_directories_that_are_missing_are_made(place: Path) -> None:
    """Somebody emptied the cache by hand."""
    one = root_at(place)
    one.take()
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StatusError):
        one.look()
    one.take()
    one.look()
    assert one.is_ours
