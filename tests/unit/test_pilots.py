"""Caches of dead pilots: found by their marker, and removed only when everything says so."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cache_manager import pilots, processes
from cache_manager.heartbeat import DEAD_S, Heartbeat
from cache_manager.lease import Holder
from tests.unit.benches import child

HERE = processes.place()
GONE = Holder(2**22 - 3, 1)
"""A process that does not run: no start of a machine's first tick is a later process's."""


def make_root(root: Path, beat: Heartbeat | None = None, *, silent_s: float = 60.0) -> Path:
    """Make a cache root with an image, as a manager leaves it."""
    image = root / "entries" / "x.sif" / "image"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"x" * 10_000)
    (root / "lock").touch()
    marker = root / "manager.json"
    marker.write_text((beat or Heartbeat(HERE, GONE, "0.1.0")).to_json())
    os.utime(marker, (time.time() - silent_s,) * 2)
    return root


def search(top: Path, own: Path = Path("/nonexistent")) -> dict[str, str]:
    """Return the caches found below a directory, each with the reason why it stays."""
    found = pilots.find(str(top), str(own), HERE, time.time())
    return {str(Path(one.path).relative_to(top)): one.why_not for one in found}


def removed(top: Path) -> str:
    """Have the one cache below a directory removed; the reason why it was not."""
    (one,) = pilots.find(str(top), "/nonexistent", HERE, time.time())
    return pilots.remove(one, HERE, time.time())


def test_a_dead_pilots_cache_is_found_and_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    """And nothing else of the pilot."""
    root = make_root(tmp_path / "glide_1" / "local" / "image_cache")
    closed = root / "entries" / "y.sandbox" / "image" / "closed"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    (closed / "link").symlink_to("/etc")
    closed.chmod(0)
    (one,) = pilots.find(str(tmp_path), "/nonexistent", HERE, time.time())
    assert one.why_not == ""
    assert one.size_bytes >= 10_000
    assert one.inodes >= 8
    assert pilots.remove(one, HERE, time.time()) == ""
    assert list((tmp_path / "glide_1" / "local").iterdir()) == []
    assert Path("/etc/passwd").exists()
    assert pilots.remove(one, HERE, time.time()) == "is gone already"


@pytest.mark.parametrize("elsewhere", [{"host": "other"}, {"boot_id": "other"}, {"pid_namespace": "other"}])
@pytest.mark.parametrize("silent_s", [60.0, DEAD_S + 60])
def test_a_manager_that_cannot_be_seen_from_here_is_given_a_day(
    tmp_path: Path, elsewhere: dict[str, str], silent_s: float
) -> None:
    """Another host of a shared file system, another boot, another container."""
    make_root(tmp_path / "a", Heartbeat(replace(HERE, **elsewhere), GONE, "0.1.0"), silent_s=silent_s)
    (why,) = search(tmp_path).values()
    assert bool(why) == (silent_s < DEAD_S)
    assert bool(removed(tmp_path)) == (silent_s < DEAD_S)
    assert (tmp_path / "a").exists() == (silent_s < DEAD_S)


@pytest.mark.parametrize("silent_s", [60.0, DEAD_S + 60])
def test_the_cache_of_a_manager_that_runs_stays(tmp_path: Path, silent_s: float) -> None:
    """However long it was silent."""
    with child() as (holder, _):
        make_root(tmp_path / "a", Heartbeat(HERE, holder, "0.1.0"), silent_s=silent_s)
        assert search(tmp_path) == {"a": f"its manager runs (pid {holder.pid})"}
        assert "runs" in removed(tmp_path)
        assert (tmp_path / "a" / "entries").exists()


def test_a_pid_that_is_used_again_is_no_manager(tmp_path: Path) -> None:
    """The start time tells them apart."""
    with child() as (holder, _):
        make_root(tmp_path / "a", Heartbeat(HERE, Holder(holder.pid, holder.start_ticks - 1), "0.1.0"))
        assert search(tmp_path) == {"a": ""}


def test_a_root_whose_lock_is_held_stays(tmp_path: Path) -> None:
    """A manager that just starts has the lock before it writes its marker."""
    root = make_root(tmp_path / "a")
    with (root / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert search(tmp_path) == {"a": "its lock is held by a manager"}
        assert removed(tmp_path) == "its lock is held by a manager"
    assert removed(tmp_path) == ""


def test_this_eps_own_root_is_never_found(tmp_path: Path) -> None:
    """Whatever its marker says, also by another path; and what holds it stays whole."""
    own = make_root(tmp_path / "pilot" / "cache")
    (tmp_path / "link").symlink_to(own)
    assert search(tmp_path, own) == {}
    assert search(tmp_path, tmp_path / "link") == {}
    inner = make_root(tmp_path / "outer" / "entries" / "odd")
    make_root(tmp_path / "outer" / "dead", silent_s=60)
    (tmp_path / "outer" / "manager.json").write_text(Heartbeat(HERE, GONE, "0.1.0").to_json())
    assert search(tmp_path, inner)["outer"] == "holds the cache of this EP (odd)"


def no_marker(root: Path) -> None:
    """Find nothing of ours."""
    (root / "manager.json").unlink()


def marker_of_another_program(root: Path) -> None:
    """Find a file of that name."""
    (root / "manager.json").write_text('{"kind": "window manager", "pid": 1}')


def marker_is_a_link(root: Path) -> None:
    """Find a link to a marker."""
    (root / "manager.json").rename(root / "marker")
    (root / "manager.json").symlink_to("marker")


def marker_is_a_pipe(root: Path) -> None:
    """Find something that must not be waited for."""
    (root / "manager.json").unlink()
    os.mkfifo(root / "manager.json")


def marker_is_cut_off(root: Path) -> None:
    """Find half a marker."""
    os.truncate(root / "manager.json", 30)


def root_is_a_link(root: Path) -> None:
    """Find a link to a root that lies elsewhere."""
    elsewhere = root.parent.parent / "elsewhere"
    root.rename(elsewhere)
    root.symlink_to(elsewhere)


def root_is_too_deep(root: Path) -> None:
    """Find it further below than a pilot puts it."""
    deep = root.parent / "/".join("123456789")
    deep.mkdir(parents=True)
    root.rename(deep / "a")


@pytest.mark.parametrize(
    "change",
    [
        no_marker,
        marker_of_another_program,
        marker_is_a_link,
        marker_is_a_pipe,
        marker_is_cut_off,
        root_is_a_link,
        root_is_too_deep,
    ],
)
def test_what_is_no_cache_of_ours_is_not_found(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Nothing is followed, nothing is guessed."""
    top = tmp_path / "top"
    change(make_root(top / "a"))
    assert search(top) == {}


def test_another_users_cache_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if one could remove it."""
    make_root(tmp_path / "a")
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert search(tmp_path) == {}


@pytest.mark.parametrize("place", ["entries/x.sif/image", "manager.json", "."])
def test_nothing_crosses_to_another_owner(tmp_path: Path, place: str) -> None:
    """A file that somebody else put there keeps the whole cache; only root can make one for this test."""
    root = make_root(tmp_path / "a")
    expected = {"a": ""}
    if os.geteuid() == 0:
        os.chown(root / place, 65534, 65534)
        expected = {"a": "holds a file of another user (image, uid 65534)"} if place.endswith("image") else {}
    assert search(tmp_path) == expected
    assert (root / "entries" / "x.sif" / "image").exists()


@pytest.mark.parametrize("top", ["link", "file", "nothing"])
def test_a_directory_that_is_none_is_told(tmp_path: Path, top: str) -> None:
    """A link in particular: who can change it would choose what is searched."""
    make_root(tmp_path / "there" / "a")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=top):
        search(tmp_path / top)


def test_what_a_cut_off_removal_left_is_still_recognised(tmp_path: Path) -> None:
    """The marker goes last."""
    root = make_root(tmp_path / "image_cache.stale-0a1b2c3d")
    (root / "lock").unlink()
    for path in sorted((root / "entries").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (root / "entries").rmdir()
    assert search(tmp_path) == {"image_cache.stale-0a1b2c3d": ""}
    assert removed(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_pilot_that_came_back_meanwhile_keeps_its_cache(tmp_path: Path) -> None:
    """Everything is looked at again before it is removed."""
    root = make_root(tmp_path / "a")
    (one,) = pilots.find(str(tmp_path), "/nonexistent", HERE, time.time())
    with child() as (holder, _):
        (root / "manager.json").write_text(Heartbeat(HERE, holder, "0.1.0").to_json())
        assert pilots.remove(one, HERE, time.time()) == f"its manager runs (pid {holder.pid})"
    values = json.loads((root / "manager.json").read_text())
    assert values["kind"] == "htcondor-image-cache"
