"""Unpacked images: directories as entries, and the way from a SIF's digest to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from cache_manager import reconcile, scan
from cache_manager.entry import CacheEntry
from cache_manager.layout import CacheLayout
from cache_manager.outcome import Located
from cache_manager.store import Store
from tests.unit.benches import Bench, run
from tests.unit.builders import BOOT, entry, key_of


def put(store: Store, name: str) -> CacheEntry:
    """Publish a directory of three files."""
    staging = store.stage("1-1", lambda _: None)
    image = staging.directory / "image"
    (image / "etc").mkdir(parents=True)
    (image / "etc" / "passwd").write_text("x" * 10_000)

    def describe(disk_bytes: int, inodes: int) -> CacheEntry:
        return replace(entry(name, disk=disk_bytes, inodes=inodes), key=key_of(name, "sandbox"))

    return store.commit(staging, describe)


def path_of(store: Store, one: CacheEntry) -> Path:
    """Return the path of an entry's image."""
    return Path(store.layout.image(one.key))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with an empty root."""
    one = Store(CacheLayout(PurePosixPath(tmp_path / "cache")))
    one.prepare()
    return one


def test_a_directory_is_published_with_all_that_it_takes(store: Store) -> None:
    """Its bytes and files on disk are counted, its size is the SIF's."""
    one = put(store, "rocky")
    assert (path_of(store, one) / "etc" / "passwd").read_text() == "x" * 10_000
    assert one.inodes == 5  # itself, image, etc, passwd, and the record to come
    assert one.disk_bytes >= 10_000
    assert one.size_bytes == 1000
    assert store.is_whole(one)
    (found,) = scan.everything(store.layout).entries
    assert found.entry == one


def nothing(_image: Path) -> None:
    """Put nothing into its place."""


def a_file(image: Path) -> None:
    """Put a file of the right size into its place."""
    image.write_bytes(b"x" * 1000)


def a_link(image: Path) -> None:
    """Put a link to a directory into its place."""
    image.symlink_to("/etc")


@pytest.mark.parametrize("instead", [nothing, a_file, a_link])
def test_only_a_directory_is_a_whole_one(store: Store, instead: Callable[[Path], None]) -> None:
    """Whatever else is there is removed at the next start."""
    one = put(store, "rocky")
    shutil.rmtree(path_of(store, one))
    instead(path_of(store, one))
    assert not store.is_whole(one)
    repair = reconcile.plan(scan.everything(store.layout), frozenset(), BOOT)
    assert repair.broken_entries == (one.key,)


def test_a_directory_in_the_place_of_a_sif_is_none(store: Store) -> None:
    """Also one of a convenient size."""
    one = replace(put(store, "rocky"), key=key_of("other"))
    directory = Path(store.layout.entries)
    (directory / key_of("rocky", "sandbox")).rename(directory / one.key)
    size = path_of(store, one).lstat().st_size
    one = replace(one, size_bytes=size)
    (directory / one.key / "entry.json").write_text(one.to_json())
    assert not store.is_whole(one)
    assert reconcile.plan(scan.everything(store.layout), frozenset(), BOOT).broken_entries == (one.key,)


def test_what_is_known_of_its_object_survives_a_restart(tmp_path: Path) -> None:
    """The SIF's digest leads to the directory, for whoever can run one."""

    def test(bench: Bench) -> None:
        one = put(bench.store, "rocky")
        located = Located(url=one.origin)
        bench.cache.add(one, located, 1000.0)
        bench.cache.load()
        assert bench.cache.find(located) == one
        assert bench.cache.find(located, ("sandbox",)) == one
        assert bench.cache.find(located, ("sif",)) is None
        sif = bench.put("rocky", url=one.origin)
        assert bench.cache.find(located, ("sif", "sandbox")) == sif
        assert bench.cache.find(Located(url="x", digest=one.digest), ("sandbox",)) == one

    run(tmp_path / "cache", test)


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o755])
def test_it_is_removed_whatever_the_modes_in_it(store: Store, mode: int) -> None:
    """A SIF may hold anything."""
    one = put(store, "rocky")
    (path_of(store, one) / "etc").chmod(mode)
    trashed = store.evict(one.key)
    assert trashed is not None
    store.remove(trashed)
    assert os.listdir(store.layout.trash) == []  # noqa: PTH208 - names
