"""Reading entries back: a glance at each hit, all of it for `verify` and for the scrub."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cache_manager import disk, readback
from cache_manager.entry import CacheEntry
from cache_manager.outcome import Located
from cache_manager.readback import Reading, Stopped
from cache_manager.scrub import AGAIN_S, Scrubber, oldest_verified
from tests.pool.processes import poll
from tests.unit.benches import Bench, child, run
from tests.unit.builders import entry, key_of, sif_file

BODY = sif_file(b"squashfs" * 20_000)
KEY = f"{hashlib.sha256(BODY).hexdigest()}.sif"


def put(bench: Bench, body: bytes = BODY, name: str = "good") -> CacheEntry:
    """Bring an image in whose key is its digest."""
    bench.cache.reserve(name, name, len(body))
    staging = bench.stage(name, name)
    staging.write(body)
    digest = staging.finish()

    def describe(disk_bytes: int, inodes: int) -> CacheEntry:
        one = entry(name, size=len(body), disk=disk_bytes, inodes=inodes, created_at=1000.0)
        return replace(one, key=f"{digest}.sif")

    committed = bench.store.commit(staging, describe)
    bench.cache.add(committed, Located(url=committed.origin), 1000.0)
    bench.cache.unreserve(name)
    return committed


def image_of(bench: Bench, one: CacheEntry) -> Path:
    """Return the image's path, writable."""
    path = bench.store.root / "entries" / one.key / "image"
    path.chmod(0o644)
    return path


def truncated(image: Path) -> None:
    """Lose the end."""
    os.truncate(image, 1000)


def longer(image: Path) -> None:
    """Gain a byte."""
    os.truncate(image, len(BODY) + 1)


def header_overwritten(image: Path) -> None:
    """Have zeros where the header is: a block that never reached the disk."""
    with image.open("r+b") as file:
        file.write(bytes(4096))


def a_directory(image: Path) -> None:
    """Find a directory."""
    image.unlink()
    image.mkdir()


def a_link(image: Path) -> None:
    """Find a link to another file of the same size."""
    image.rename(image.with_name("other"))
    image.symlink_to("other")


def gone(image: Path) -> None:
    """Find nothing."""
    image.unlink()


@pytest.mark.parametrize("harm", [truncated, longer, header_overwritten, a_directory, a_link, gone])
@pytest.mark.parametrize("warm", [False, True])
def test_a_hit_sees_what_a_glance_can_see(tmp_path: Path, harm: Callable[[Path], None], *, warm: bool) -> None:
    """Size and header, also of an image that was looked at before; it goes into quarantine, and is counted."""

    def test(bench: Bench) -> None:
        one = put(bench)
        if warm:
            assert bench.cache.find(Located(digest=one.digest)) == one
        harm(image_of(bench, one))
        assert bench.cache.find(Located(digest=one.digest)) is None
        assert bench.cache.counters.quarantined == 1
        assert (bench.store.root / "quarantine" / one.key).is_dir()
        assert list((bench.store.root / "entries").iterdir()) == []
        again = put(bench)
        assert bench.cache.find(Located(digest=again.digest)) == again

    run(tmp_path / "cache", test)


def test_a_warm_hit_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand jobs a second start with one image: one stat each."""

    def test(bench: Bench) -> None:
        one = put(bench)
        assert bench.cache.is_good(one)
        monkeypatch.setattr(os, "open", None)
        assert bench.cache.is_good(one)

    run(tmp_path / "cache", test)


def test_a_record_that_was_lost_is_written_again(tmp_path: Path) -> None:
    """The image is whole: its jobs need not wait for a fetch."""

    def test(bench: Bench) -> None:
        one = put(bench)
        assert bench.cache.is_good(one)
        record = bench.store.root / "entries" / one.key / "entry.json"
        record.unlink()
        bench.cache.acquire(one.key, None, 5000.0)
        assert CacheEntry.from_json(record.read_text(), 0.0) == one

    run(tmp_path / "cache", test)


def test_what_is_in_quarantine_says_why_and_outlives_a_restart(tmp_path: Path) -> None:
    """An admin looks at it tomorrow; until room is needed it counts."""
    root = tmp_path / "cache"

    def before(bench: Bench) -> None:
        bench.cache.quarantine(put(bench).key, "differs")
        (root / "quarantine" / "stray").write_bytes(b"x" * 5000)

    def after(bench: Bench) -> None:
        found = bench.cache.quarantined
        assert (found[KEY].name, found[KEY].why, found[KEY].since) == ("good", "differs", 10_000.0)
        assert set(found) == {KEY, "stray"}
        assert bench.cache.usage.size_bytes >= len(BODY) + 5000
        assert bench.cache.empty_quarantine()
        assert bench.cache.usage.size_bytes == 0

    run(root, before)
    run(root, after)


def test_a_quarantined_image_stays_as_long_as_a_job_runs_from_it(tmp_path: Path) -> None:
    """A job that came this far may as well end well."""

    def test(bench: Bench) -> None:
        one = put(bench)
        with child() as (holder, _):
            bench.cache.acquire(one.key, holder, 1000.0)
            bench.cache.quarantine(one.key, "differs")
            assert not bench.cache.empty_quarantine()
            bench.cache.leases.release(holder)
        assert bench.cache.empty_quarantine()

    run(tmp_path / "cache", test)


def flip_a_bit(image: Path) -> None:
    """Change one bit behind the header, and neither size nor time: only the digest can tell."""
    before = image.stat()
    with image.open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)
        file.seek(100_000)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_only_a_full_reading_finds_a_flipped_bit(tmp_path: Path) -> None:
    """And then it goes into quarantine."""

    async def test(bench: Bench) -> None:
        one, other = put(bench), put(bench, sif_file(b"other"), "other")
        scrubber = Scrubber(bench.cache, lambda: bench.settings, clock=lambda: bench.now)
        flip_a_bit(image_of(bench, one))
        assert bench.cache.find(Located(digest=one.digest)) == one
        await scrubber.run()
        assert scrubber.findings == 1
        assert set(bench.cache.entries) == {other.key}
        assert bench.cache.quarantined[one.key].why.startswith("sha256 ")
        assert set(scrubber.verified_at) >= {other.key}
        assert scrubber.read_bytes == one.size_bytes + other.size_bytes

    run(tmp_path / "cache", test)


def test_the_scrub_reads_the_oldest_first_and_each_once_a_day() -> None:
    """What was never read comes first, and of that what was fetched first."""
    one, two, three = (entry(name, created_at=at) for name, at in (("a", 3.0), ("b", 2.0), ("c", 1.0)))
    entries, now = [one, two, three], 10 * AGAIN_S
    assert oldest_verified(entries, {}, now) == three
    assert oldest_verified(entries, {three.key: now - AGAIN_S}, now) == two
    verified = {three.key: now - AGAIN_S, two.key: now - 2 * AGAIN_S, one.key: now - AGAIN_S + 1}
    assert oldest_verified(entries, verified, now) == two
    assert oldest_verified(entries, dict.fromkeys(verified, now), now) is None
    assert oldest_verified([], {}, now) is None


def test_the_scrub_is_off_where_its_rate_is_nothing(tmp_path: Path) -> None:
    """Also while it reads."""

    async def test(bench: Bench) -> None:
        put(bench)
        scrubber = Scrubber(bench.cache, lambda: bench.settings)
        await scrubber.run()
        assert scrubber.read_bytes == 0

    run(tmp_path / "cache", test, SCRUB_RATE="0")


@pytest.mark.parametrize("how", ["close", "off"])
def test_a_scrub_under_way_ends_with_the_manager_or_with_its_rate(tmp_path: Path, how: str) -> None:
    """A reading of hours must not keep a manager from ending, or an admin from having peace."""

    async def test(bench: Bench) -> None:
        put(bench)
        scrubber = Scrubber(bench.cache, lambda: bench.settings)
        task = asyncio.ensure_future(scrubber.run())
        async with asyncio.timeout(20):
            await asyncio.to_thread(poll, lambda: scrubber.reading and scrubber.reading.done_bytes, "a slice")
            if how == "close":
                scrubber.close()
            else:
                bench.settings = bench.settings.from_knobs({"IMAGE_CACHE_SCRUB_RATE": "0"})
            await task
        assert scrubber.findings == 0
        assert not bench.cache.quarantined

    run(tmp_path / "cache", test, SCRUB_RATE="8 KB")


def test_a_reading_keeps_to_its_rate(tmp_path: Path) -> None:
    """It takes at least as long as the rate says, a slice aside."""

    def test(bench: Bench) -> None:
        one = put(bench)
        began = time.monotonic()
        reading = Reading(one, str(bench.store.root / "entries" / one.key), lambda: one.size_bytes * 2)
        assert reading.run() == ""
        assert time.monotonic() - began >= 0.3
        assert reading.done_bytes == one.size_bytes

    run(tmp_path / "cache", test)


def test_a_reading_that_is_told_to_stop_finds_nothing(tmp_path: Path) -> None:
    """Half a digest is none."""

    def test(bench: Bench) -> None:
        one = put(bench)
        reading = Reading(one, str(bench.store.root / "entries" / one.key))
        reading.stop.set()
        with pytest.raises(Stopped):
            reading.run()

    run(tmp_path / "cache", test)


def test_an_entry_that_is_evicted_while_it_is_read_is_no_finding(tmp_path: Path) -> None:
    """It is gone, not damaged; an image alone that is gone is damage."""

    async def test(bench: Bench) -> None:
        one, other = put(bench), put(bench, sif_file(b"other"), "other")
        scrubber = Scrubber(bench.cache, lambda: bench.settings)
        reading = scrubber._reading(one, lambda: 0, drop_pages=True)
        bench.cache.give_up([one.key])
        assert await scrubber.read(reading) == ""
        image_of(bench, other).unlink()
        assert await scrubber.read(scrubber._reading(other, lambda: 0, drop_pages=True)) == "its image is gone"
        assert set(bench.cache.quarantined) == {other.key}

    run(tmp_path / "cache", test)


def sandbox(root: Path) -> CacheEntry:
    """Make an unpacked image, recorded as an unpacking does."""
    top = root / "entries" / key_of("tree", "sandbox")
    (top / "image" / "usr" / "lib").mkdir(parents=True)
    (top / "image" / "usr" / "lib" / "libc.so").write_bytes(b"x" * 100_000)
    (top / "entry.json").write_text("{}")
    size, inodes = disk.measure(str(top))
    return replace(entry("tree", size=1000, disk=size, inodes=inodes), key=top.name)


def add_a_file(top: Path) -> None:
    """Write into the image."""
    (top / "usr" / "new").touch()


def lose_a_file(top: Path) -> None:
    """Lose one."""
    (top / "usr" / "lib" / "libc.so").unlink()


def empty_a_file(top: Path) -> None:
    """Lose what is in it."""
    os.truncate(top / "usr" / "lib" / "libc.so", 0)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (None, ""),
        (add_a_file, "7 files are there, 6 were unpacked"),
        (lose_a_file, "5 files are there, 6 were unpacked"),
        (empty_a_file, "bytes are there"),
    ],
)
def test_a_tree_is_counted(tmp_path: Path, harm: Callable[[Path], None] | None, said: str) -> None:
    """It has no digest: files and bytes have to hold."""
    one = sandbox(tmp_path)
    directory = tmp_path / "entries" / one.key
    assert readback.look(one, str(directory / "image"), None)[0] == ""
    if harm:
        harm(directory / "image")
    found = Reading(one, str(directory)).run()
    assert found == said or (said and said in found)


def test_a_tree_whose_top_is_no_directory_is_none(tmp_path: Path) -> None:
    """A glance sees that much."""
    one = sandbox(tmp_path)
    file = tmp_path / "file"
    file.touch()
    assert readback.look(one, str(file), None) == ("no directory", None)


def test_a_root_that_is_not_mounted_loses_nothing(tmp_path: Path) -> None:
    """Neither a hit nor the scrub takes it for damage: it may come back, whole."""

    async def test(bench: Bench) -> None:
        one, root = put(bench), bench.store.root
        scrubber = Scrubber(bench.cache, lambda: bench.settings)
        root.rename(tmp_path / "elsewhere")
        assert bench.cache.find(Located(digest=one.digest)) is None
        await scrubber.run()
        assert (scrubber.findings, set(bench.cache.entries)) == (0, {one.key})
        (tmp_path / "elsewhere").rename(root)
        assert bench.cache.find(Located(digest=one.digest)) == one

    run(tmp_path / "cache", test)
