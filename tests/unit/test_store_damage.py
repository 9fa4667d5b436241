"""A root after a crash, a full disk, or a visitor: scanned, mended, and nothing of the good part lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from cache_manager import reconcile, scan
from cache_manager.layout import CacheLayout
from cache_manager.store import Store
from tests.unit.builders import BOOT, key_of, lease
from tests.unit.test_store import everything_under, put


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with two images, one lease, and what is known of one object."""
    one = Store(CacheLayout(PurePosixPath(tmp_path / "cache")))
    one.prepare()
    put(one, "good")
    hurt = put(one, "hurt", b"x" * 100)
    one.write_lease(lease(7, 99, keys=(hurt.key,)))
    one.write_object("a.json", {"kind": "object", "url": "https://o.example/x", "digest": hurt.digest})
    return one


def mend(store: Store) -> reconcile.Repair:
    """Do what a start does."""
    repair = reconcile.plan(scan.everything(store.layout), frozenset({"7-99.json"}), BOOT)
    store.repair(repair)
    return repair


def truncated_image(hurt: Path) -> None:
    """Lose the end of the image."""
    os.truncate(hurt / "image", 99)


def lost_image(hurt: Path) -> None:
    """Lose the image."""
    (hurt / "image").unlink()


def image_is_a_directory(hurt: Path) -> None:
    """Find a directory in the place of the image."""
    (hurt / "image").unlink()
    (hurt / "image").mkdir()


def image_is_a_link(hurt: Path) -> None:
    """Find a link in the place of the image."""
    (hurt / "image").unlink()
    (hurt / "image").symlink_to("/etc/passwd")


def truncated_record(hurt: Path) -> None:
    """Lose the end of the record."""
    os.truncate(hurt / "entry.json", 20)


def empty_record(hurt: Path) -> None:
    """Have an empty record, as after power loss."""
    os.truncate(hurt / "entry.json", 0)


def binary_record(hurt: Path) -> None:
    """Have bytes in the record that are no text."""
    (hurt / "entry.json").write_bytes(b"\xff\xfe\x00" * 10)


def nested_record(hurt: Path) -> None:
    """Have a record that overflows a parser."""
    (hurt / "entry.json").write_text("[" * 100_000)


def record_without_a_key(hurt: Path) -> None:
    """Have a number where the key is."""
    values = json.loads((hurt / "entry.json").read_text())
    (hurt / "entry.json").write_text(json.dumps({**values, "key": 5}))


def record_of_another(hurt: Path) -> None:
    """Have another entry's record."""
    shutil.copy(hurt.parent / key_of("good") / "entry.json", hurt / "entry.json")


def record_is_a_directory(hurt: Path) -> None:
    """Find a directory in the place of the record."""
    (hurt / "entry.json").unlink()
    (hurt / "entry.json").mkdir()


def entry_is_a_file(hurt: Path) -> None:
    """Find a file in the place of the entry."""
    shutil.rmtree(hurt)
    hurt.write_text("x")


HARMS = [
    truncated_image,
    lost_image,
    image_is_a_directory,
    image_is_a_link,
    truncated_record,
    empty_record,
    binary_record,
    nested_record,
    record_without_a_key,
    record_of_another,
    record_is_a_directory,
    entry_is_a_file,
]


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_entry_goes_with_what_is_known_of_it_and_the_others_stay(
    store: Store, harm: Callable[[Path], None]
) -> None:
    """One damaged image costs one fetch."""
    harm(store.root / "entries" / key_of("hurt"))
    repair = mend(store)
    assert [one.key for one in repair.entries] == [key_of("good")]
    assert not os.path.lexists(store.root / "entries" / key_of("hurt"))
    assert not any((store.root / "trash").iterdir())
    assert not any((store.root / "objects").iterdir())
    assert store.is_whole(repair.entries[0])


def test_an_undamaged_root_stays_as_it_is(store: Store) -> None:
    """A restart of the manager costs no image and no lease."""
    before = everything_under(store.root)
    repair = mend(store)
    assert {one.key for one in repair.entries} == {key_of("good"), key_of("hurt")}
    assert [one.holder.pid for one in repair.leases] == [7]
    assert set(repair.objects) == {"a.json"}
    assert everything_under(store.root) == before


def test_what_a_crash_left_is_emptied(store: Store) -> None:
    """Unfinished fetches, unfinished removals, and files of unfinished replacements."""
    good = everything_under(store.root)
    store.stage("1-77", lambda _total: None).write(b"half an im")
    (store.root / "staging" / "7-99.json.0a1b2c3d").write_text("{")
    (store.root / "trash" / "old" / "image").mkdir(parents=True)
    (store.root / "trash" / "file").write_text("x")
    mend(store)
    assert everything_under(store.root) == good


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"5", b'{"pid": Infinity}', b"[" * 100_000])
@pytest.mark.parametrize("place", ["leases/7-99.json", "leases/README", "objects/a.json", "objects/README"])
def test_a_file_that_is_none_of_ours_is_removed(store: Store, place: str, content: bytes) -> None:
    """It never keeps the manager from starting."""
    (store.root / place).write_bytes(content)
    mend(store)
    assert not (store.root / place).exists()


@pytest.mark.parametrize("place", ["leases/odd", "objects/odd", "staging/odd", "trash/odd", "entries/odd"])
def test_a_directory_that_is_none_of_ours_is_removed(store: Store, place: str) -> None:
    """Whatever an admin or a broken tool put there; the manager still starts."""
    (store.root / place / "deep").mkdir(parents=True)
    mend(store)
    assert not (store.root / place).exists()


def test_a_repair_that_broke_off_is_finished_by_the_next(store: Store) -> None:
    """Each step may be repeated."""
    truncated_image(store.root / "entries" / key_of("hurt"))
    repair = reconcile.plan(scan.everything(store.layout), frozenset(), BOOT)
    store.repair(repair)
    store.repair(repair)
    after = mend(store)
    assert [one.key for one in after.entries] == [key_of("good")]
    assert (after.broken_entries, after.dead_leases, after.dead_objects) == ((), (), ())
