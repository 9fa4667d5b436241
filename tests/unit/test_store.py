"""The disk protocol: what a job may see of a cache root, and which roots are trusted."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager import acl, scan
from cache_manager.entry import CacheEntry
from cache_manager.layout import CacheLayout
from cache_manager.sif import HEADER_BYTES
from cache_manager.staging import Staging
from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store
from tests.unit.builders import CHECKOUT, entry, key_of, lease


def grants_all(_total: int) -> None:
    """Stand for a cache with room for everything."""


def named(name: str, size: int) -> Callable[[int, int], CacheEntry]:
    """Return what describes a finished image."""
    return lambda disk_bytes, inodes: entry(name, size=size, disk=disk_bytes, inodes=inodes)


def put(store: Store, name: str, data: bytes = b"image") -> CacheEntry:
    """Bring an image in."""
    staging = store.stage(f"1-{name}", grants_all)
    staging.write(data)
    staging.finish()
    return store.commit(staging, named(name, len(data)))


def everything_under(root: Path) -> set[str]:
    """Return what lies under the root, but its directories."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if len(path.relative_to(root).parts) > 1}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with an empty root."""
    one = Store(CacheLayout(PurePosixPath(tmp_path / "cache")))
    one.prepare()
    return one


def test_a_root_is_made_with_everything_in_it_and_may_be_there_already(store: Store) -> None:
    """Every start prepares again."""
    store.prepare()
    assert all(Path(directory).is_dir() for directory in store.layout.directories)
    assert everything_under(store.root) == set()
    assert store.root.stat().st_mode & 0o777 == 0o755


def group_writable(root: Path) -> None:
    """Let a group write to the root."""
    root.chmod(0o775)


def world_writable(root: Path) -> None:
    """Let everybody write to the root."""
    root.chmod(0o777)


def sticky_like_tmp(root: Path) -> None:
    """Make the root a place like /tmp."""
    root.chmod(0o1777)


def entries_writable(root: Path) -> None:
    """Let a group write to one directory within."""
    (root / "entries").chmod(0o775)


def entries_is_a_file(root: Path) -> None:
    """Put a file in the place of a directory."""
    (root / "entries").rmdir()
    (root / "entries").write_text("x")


def entries_is_a_link(root: Path) -> None:
    """Lead a directory out of the root."""
    (root / "entries").rmdir()
    (root / "entries").symlink_to("/tmp")  # noqa: S108 - where one would be led


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (group_writable, "writable by others (mode 0775)"),
        (world_writable, "writable by others (mode 0777)"),
        (sticky_like_tmp, "writable by others (mode 1777)"),
        (entries_writable, "writable by others (mode 0775)"),
        (entries_is_a_file, ""),
        (entries_is_a_link, "is no directory"),
    ],
)
def test_a_root_in_which_others_could_plant_images_is_refused(
    store: Store, harm: Callable[[Path], None], why: str
) -> None:
    """An image that is not ours would run as every job's user; another EP can run the job."""
    harm(store.root)
    with pytest.raises(StatusError) as caught:
        store.prepare()
    assert caught.value.status is HookStatus.CACHE_UNUSABLE
    assert caught.value.message.startswith(f"cache directory {store.root}")
    assert why in caught.value.message


def test_a_root_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could change every image in it."""
    root = tmp_path / "cache"
    root.mkdir()
    if os.geteuid() == 0:
        os.chown(root, 65534, 65534)
    else:
        root = Path("/usr")
    with pytest.raises(StatusError, match="belongs to another user") as caught:
        Store(CacheLayout(PurePosixPath(root))).prepare()
    assert caught.value.status is HookStatus.CACHE_UNUSABLE


@pytest.mark.parametrize("root", ["/proc/image_cache", "/dev/null/image_cache"])
def test_a_root_that_cannot_be_made_is_unusable(root: str) -> None:
    """And no exception that the manager does not know."""
    with pytest.raises(StatusError) as caught:
        Store(CacheLayout(PurePosixPath(root))).prepare()
    assert caught.value.status is HookStatus.CACHE_UNUSABLE


def test_an_image_is_visible_only_whole(store: Store) -> None:
    """Until the record is there too, no job can find it; then every job's user can read it."""
    staging = store.stage("1-1", grants_all)
    staging.write(b"first half, ")
    staging.write(b"second half")
    digest = staging.finish()
    seen: list[set[str]] = []

    def describe(disk_bytes: int, inodes: int) -> CacheEntry:
        seen.append({name for name in everything_under(store.root) if name.startswith("entries")})
        return entry("a", size=23, disk=disk_bytes, inodes=inodes)

    committed = store.commit(staging, describe)
    directory = store.root / "entries" / committed.key
    assert seen == [set()]
    assert everything_under(store.root) == {
        f"entries/{committed.key}",
        f"entries/{committed.key}/image",
        f"entries/{committed.key}/entry.json",
    }
    assert (directory / "image").read_bytes() == b"first half, second half"
    assert digest == hashlib.sha256(b"first half, second half").hexdigest()
    assert store.is_whole(committed)
    assert [path.stat().st_mode & 0o777 for path in (directory, directory / "image", directory / "entry.json")] == [
        0o755,
        0o444,
        0o644,
    ]
    assert committed.inodes == 3
    assert committed.disk_bytes >= 23


def test_what_fails_before_its_end_leaves_nothing_visible(store: Store) -> None:
    """A commit that breaks off can be given up, and tried again."""
    staging = store.stage("1-1", grants_all)
    staging.write(b"x")
    staging.finish()

    def broken(_disk_bytes: int, _inodes: int) -> CacheEntry:
        raise StatusError(HookStatus.DISK_FULL, "no room for the record")

    with pytest.raises(StatusError):
        store.commit(staging, broken)
    assert not any((store.root / "entries").iterdir())
    store.discard_staging("1-1")
    store.discard_staging("1-1")
    assert everything_under(store.root) == set()


def test_the_same_image_twice_is_one_entry_and_the_first_stays(store: Store) -> None:
    """A job may already run from it."""
    first = put(store, "a")
    inode = (store.root / "entries" / first.key / "image").stat().st_ino
    staging = store.stage("1-2", grants_all)
    staging.write(b"image")
    store.commit(staging, named("a", 5))
    assert (store.root / "entries" / first.key / "image").stat().st_ino == inode
    assert not any((store.root / "staging").iterdir())
    assert not any((store.root / "trash").iterdir())
    staging.close()


@given(st.lists(st.binary(max_size=300), max_size=12), st.none() | st.integers(0, 2000))
def test_room_is_granted_before_a_byte_is_written(chunks: list[bytes], announced: int | None) -> None:
    """Reservations and entries stay below the cap because of this; and the digest is that of all bytes."""
    granted = [0]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        staging = Staging(directory, granted.append)
        staging.expect(announced)
        for chunk in chunks:
            staging.write(chunk)
            assert (directory / "image").stat().st_size == staging.size_bytes <= granted[-1] or not staging.size_bytes
        data = b"".join(chunks)
        assert staging.finish() == hashlib.sha256(data).hexdigest()
        assert (staging.size_bytes, staging.head) == (len(data), data[:HEADER_BYTES])
        assert granted == sorted(granted)
        assert granted[-1] <= max(2 * len(data), announced or 0)


def test_no_byte_is_written_without_room(store: Store) -> None:
    """The refusal comes before the write, and what was written before can be given up."""

    def only_ten(total: int) -> None:
        if total > 10:
            raise StatusError(HookStatus.CACHE_FULL, "full")

    staging = store.stage("1-1", only_ten)
    staging.write(b"12345")
    with pytest.raises(StatusError):
        staging.write(b"678901")
    staging.close()
    assert (store.root / "staging" / "1-1" / "image").read_bytes() == b"12345"
    with pytest.raises(StatusError):
        store.stage("1-2", only_ten).expect(11)


def test_a_second_attempt_begins_from_nothing(store: Store) -> None:
    """Bytes of the first must not be in the digest, the size, or the file."""
    staging = store.stage("1-1", grants_all)
    staging.write(b"wrong")
    staging.restart()
    staging.write(b"right!")
    assert staging.finish() == hashlib.sha256(b"right!").hexdigest()
    assert (staging.size_bytes, staging.head) == (6, b"right!")
    assert (staging.directory / "image").read_bytes() == b"right!"


def test_an_evicted_entry_is_out_of_sight_at_once(store: Store) -> None:
    """Removing may take long; a job that comes meanwhile must not find it."""
    one = put(store, "a")
    trashed = store.evict(one.key)
    assert not store.is_whole(one)
    assert trashed is not None
    assert (trashed / "image").exists()
    store.remove(trashed)
    assert everything_under(store.root) == set()
    assert store.evict(one.key) is None


@pytest.mark.parametrize("mode", ["755", "500", "400", "000"])
def test_trees_that_forbid_it_to_their_owner_are_removed(tmp_path: Path, mode: str) -> None:
    """Images have such directories, and a manager that is not root meets them."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.unit.unprivileged", mode, str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_link_in_an_image_is_removed_and_not_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    """An image may hold links to anywhere on the EP."""
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    outside.chmod(0o555)
    directory = store.root / "entries" / key_of("a", "sandbox")
    (directory / "image").mkdir(parents=True)
    (directory / "image" / "link").symlink_to(outside)
    (store.root / "entries" / "top").symlink_to(outside)
    for name in (directory.name, "top"):
        store.discard(store.root / "entries" / name)
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o777 == 0o555
    outside.chmod(0o755)


def test_leases_and_objects_are_replaced_whole(store: Store) -> None:
    """Another process that reads them never sees half of one."""
    for taken_by in ("1.0", "2.0"):
        store.write_object("a.json", {"url": taken_by})
        store.write_lease(lease(7, 99, keys=(key_of(taken_by),)))
    found = scan.everything(store.layout)
    assert found.objects == {"a.json": {"url": "2.0"}}
    assert found.leases == {"7-99.json": lease(7, 99, keys=(key_of("2.0"),))}
    store.remove_lease("7-99.json")
    store.remove_lease("7-99.json")
    assert everything_under(store.root) == {"objects/a.json"}


def test_who_is_on_the_list_of_a_directory_above_is_not_admitted(tmp_path: Path) -> None:
    """An admin's list for all that is made there is not a list of who showed that an image is theirs."""
    acl.admit(tmp_path, [1000, 1001])
    os.setxattr(tmp_path, acl.INHERITED, os.getxattr(tmp_path, acl.ATTRIBUTE))
    store = Store(CacheLayout(PurePosixPath(tmp_path / "cache")))
    store.prepare()
    staging = store.stage("1-a", grants_all)
    staging.write(b"image")
    staging.finish()
    closed = store.commit(staging, lambda *_: replace(entry("a", size=5), closed=True))
    assert store.readers(closed.key) == frozenset()
    store.admit(closed.key, 1002)
    assert store.readers(closed.key) == {1002}
    directory = Path(store.layout.entries) / closed.key
    assert acl.INHERITED not in os.listxattr(directory)


def test_the_last_use_is_found_again(store: Store) -> None:
    """It decides who is evicted after a restart."""
    one = put(store, "a")
    store.touch(one, 1_700_000_000.0)
    (found,) = scan.everything(store.layout).entries
    assert found.entry is not None
    assert (found.entry, found.entry.last_used_at, found.image_bytes) == (one, 1_700_000_000.0, 5)


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (errno.ENOSPC, HookStatus.DISK_FULL),
        (errno.EDQUOT, HookStatus.DISK_FULL),
        (errno.EROFS, HookStatus.CACHE_UNUSABLE),
        (errno.EIO, HookStatus.CACHE_UNUSABLE),
    ],
)
def test_an_error_of_the_file_system_has_its_status(store: Store, number: int, status: HookStatus) -> None:
    """A quota that is used up is a full disk; the message tells path and numbers."""
    found = store.trouble("htc/rocky:9", OSError(number, os.strerror(number)))
    assert found.status is status
    assert found.message.startswith(f"htc/rocky:9: cache directory {store.root}: {os.strerror(number)}")
    assert ("free)" in found.message) is (status is HookStatus.DISK_FULL)
