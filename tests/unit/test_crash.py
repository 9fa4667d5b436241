"""Killed at any moment, a manager leaves a root from which the next one goes on: nothing partial, nothing lost."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cache_manager import disk
from cache_manager.entry import CacheEntry
from cache_manager.outcome import Located
from tests.unit.benches import Bench, child
from tests.unit.builders import entry, sif_file
from tests.unit.crash import Moment, Recorder, restore

Scenario = Callable[[Bench, Recorder], None]


def bring(bench: Bench, recorder: Recorder, name: str, size: int = 9000) -> CacheEntry:
    """Fetch an image as the fetcher does: reserved, written, committed, added. From then on it must be there."""
    nonce = f"1-{name}"
    content = sif_file(name.encode() * size)[:size]
    bench.cache.reserve(nonce, name, size)
    staging = bench.stage(nonce, name)
    for start in range(0, size, 4096):
        staging.write(content[start : start + 4096])
    digest = staging.finish()

    def describe(disk_bytes: int, inodes: int) -> CacheEntry:
        made = entry(name, size=size, disk=disk_bytes, inodes=inodes, created_at=bench.now)
        return CacheEntry(f"{digest}.sif", made.name, made.origin, size, disk_bytes, inodes, bench.now)

    committed = bench.store.commit(staging, describe)
    bench.cache.add(committed, Located(url=committed.origin), bench.now)
    bench.cache.unreserve(nonce)
    bench.now += 1
    recorder.must("there", *recorder.facts.get("there", ()), committed.key)
    return committed


def gone(recorder: Recorder, *keys: str) -> None:
    """State that these are not there any more."""
    recorder.must("gone", *recorder.facts.get("gone", ()), *keys)


def given_up(recorder: Recorder, *keys: str) -> None:
    """State that these may be there or not: they are about to be given up."""
    recorder.must("there", *(recorder.facts.get("there", frozenset()) - set(keys)))


def fetches(bench: Bench, recorder: Recorder) -> None:
    """Two images come in, one of them a second time."""
    bring(bench, recorder, "a")
    bring(bench, recorder, "b")
    given_up(recorder)
    bring(bench, recorder, "a")


def leases(bench: Bench, recorder: Recorder) -> None:
    """Two starters use three images; one of them ends."""
    one, two, three = (bring(bench, recorder, name).key for name in "abc")
    with child() as (first, _), child() as (second, _):
        bench.cache.acquire(one, first, bench.now, "1.0")
        recorder.must("leased", f"{first.file_name} {one}")
        bench.cache.acquire(two, first, bench.now, "1.0")
        recorder.must("leased", f"{first.file_name} {one}", f"{first.file_name} {two}")
        bench.cache.acquire(three, second, bench.now, "2.0")
        recorder.must("leased", *recorder.facts["leased"], f"{second.file_name} {three}")
        recorder.must("leased", f"{second.file_name} {three}")
        bench.cache.release(first)
        recorder.must("released", first.file_name)
        look_at(recorder, bench.store.root.parent / "later")
        recorder.must("leased")
        bench.cache.release(second)


def evictions(bench: Bench, recorder: Recorder) -> None:
    """Reach the cap, on demand and in the background."""
    one, two, _ = (bring(bench, recorder, name).key for name in "abc")
    given_up(recorder, one)
    bench.cache.reserve("1-large", "large", 20_000)
    gone(recorder, one)
    bench.cache.unreserve("1-large")
    given_up(recorder, *recorder.facts["there"])
    bench.now += 10_000
    bench.cache.tidy(bench.now)
    del two


def pins(bench: Bench, recorder: Recorder) -> None:
    """Pin two images, one by its name, which moves to another; and unpin one."""
    one, two = (bring(bench, recorder, name).key for name in ("a:1", "b:1"))
    bench.cache.pins.put(two, two, bench.now)
    recorder.must("pinned", f"{two} {two}")
    bench.cache.pins.put("a:1", one, bench.now)
    recorder.must("pinned", f"{two} {two}", f"a:1 {one}")
    recorder.must("pinned", f"{two} {two}")
    bench.cache.pins.follow("a:1", two)
    recorder.must("pinned", f"{two} {two}", f"a:1 {two}")
    recorder.must("pinned", f"a:1 {two}")
    (pin,) = (pin for pin in bench.cache.pins.all() if pin.reference == two)
    bench.cache.pins.remove(pin)
    recorder.must("unpinned", two)


def quarantines(bench: Bench, recorder: Recorder) -> None:
    """One image is bad; room is needed later."""
    one = bring(bench, recorder, "a").key
    bring(bench, recorder, "b")
    given_up(recorder, one)
    bench.cache.quarantine(one, "does not start")
    gone(recorder, one)
    bench.cache.reserve("1-large", "large", 45_000)


def second_thoughts(bench: Bench, recorder: Recorder) -> None:
    """Drop an image that is not as it was, and fetch it again."""
    one = bring(bench, recorder, "a").key
    image = Path(bench.store.layout.image(one))
    given_up(recorder, one)
    image.chmod(0o644)
    image.write_bytes(b"less")
    assert bench.cache.find(Located(url="", digest=one.partition(".")[0])) is None
    bring(bench, recorder, "a")


SCENARIOS: tuple[Scenario, ...] = (fetches, leases, evictions, pins, quarantines, second_thoughts)


def play(scenario: Scenario, root: Path) -> Recorder:
    """Run a scenario, and return what was taken down."""
    recorder = Recorder(root)

    async def within() -> None:
        bench = Bench(root, MAX_BYTES="140 kB", HIGH_WATERMARK="25", LOW_WATERMARK="10", MIN_AGE="0s")
        with recorder.watch():
            scenario(bench, recorder)
            await bench.settle()
        bench.close()

    asyncio.run(within())
    return recorder


def look_at(recorder: Recorder, place: Path) -> None:
    """Start a manager on what lay there at each moment so far, and judge what it finds; then forget the moments."""
    for number, moment in enumerate(recorder.all_moments()):
        root = place / str(number)
        restore(moment, root)
        bench = Bench(root, MAX_BYTES="140 kB")
        try:
            judge(moment, bench)
        finally:
            bench.close()
            shutil.rmtree(root)
    recorder.moments.clear()


def judge(moment: Moment, bench: Bench) -> None:
    """Hold what the next manager has against what the last one had promised."""
    cache, root = bench.cache, bench.store.root
    where = f"before {moment.before}{' and a power loss' if moment.power_loss else ''}"
    names = ("there", "gone", "leased", "released", "pinned", "unpinned")
    facts = {name: moment.facts.get(name, frozenset()) for name in names}
    for key in cache.entries:
        content = Path(bench.store.layout.image(key)).read_bytes()
        assert hashlib.sha256(content).hexdigest() == key.partition(".")[0], f"{where}: {key} is not whole"
    assert facts["there"] <= set(cache.entries), f"{where}: an image is lost"
    assert not facts["gone"] & set(cache.entries), f"{where}: an image is back"
    for name in ("staging", "trash"):
        assert not list((root / name).iterdir()), f"{where}: {name} is not empty"
    kept = {path.name for path in (root / "quarantine").iterdir()}
    assert kept == set(cache.quarantined), f"{where}: what is in quarantine is not counted"
    assert {path.name for path in (root / "entries").iterdir()} == set(cache.entries), f"{where}: an orphan"
    on_disk = disk.measure(str(root / "entries"))[0] - disk.measure(str(root / "leases"))[0]
    assert cache.usage.size_bytes >= on_disk, f"{where}: {cache.usage} accounted, {on_disk} bytes on disk"
    assert not cache.reservations
    known = {f"{pin.reference} {pin.key}" for pin in cache.pins.all()}
    assert facts["pinned"] <= known, f"{where}: a pin is lost"
    assert not facts["unpinned"] & {pin.reference for pin in cache.pins.all()}, f"{where}: a pin is back"
    assert len(list((root / "pins").iterdir())) == len(known), where
    held = {f"{holder.file_name} {key}" for holder, lease in cache.leases.items() for key in lease.keys}
    if not moment.power_loss:  # which ends the starters too
        assert facts["leased"] <= held, f"{where}: a lease is lost"
    assert not facts["released"] & {holder.file_name for holder in cache.leases}, f"{where}: a lease is back"
    assert {path.name for path in (root / "leases").iterdir()} == {one.file_name for one in cache.leases}, where


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_killed_at_any_moment_the_next_manager_goes_on(tmp_path: Path, scenario: Scenario) -> None:
    """Every listed image is whole, none that was promised is lost, what is accounted is what lies there."""
    recorder = play(scenario, tmp_path / "cache")
    assert len(recorder.moments) > 10 or scenario is leases

    async def within() -> None:
        look_at(recorder, tmp_path / "then")

    asyncio.run(within())


def test_killed_while_it_mends_a_root_the_next_manager_mends_it(tmp_path: Path) -> None:
    """A start may be killed as well, at any of its own moments."""
    recorder = play(evictions, tmp_path / "cache")
    worst = max(recorder.moments, key=lambda moment: len(moment.files))
    root = tmp_path / "worst"
    restore(worst, root)
    (root / "entries" / "stray").mkdir()
    (root / "staging" / "1-left").mkdir()
    (root / "staging" / "1-left" / "image").write_bytes(b"x" * 100)
    (root / "trash" / "old").mkdir()
    (root / "trash" / "old" / "image").write_bytes(b"x")
    (root / "leases" / "1-1.json").write_text("{}")
    mending = Recorder(root, facts=dict(worst.facts))

    async def within() -> None:
        with mending.watch():
            bench = Bench(root, MAX_BYTES="140 kB")
            await bench.settle()
        bench.close()
        assert len(mending.moments) > 5
        look_at(mending, tmp_path / "then")

    asyncio.run(within())
