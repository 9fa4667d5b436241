"""Killed at any moment, a manager leaves a root from which the next one goes on: nothing partial, nothing lost."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache_manager import disk
from cache_manager.heartbeat import Heartbeat
from cache_manager.lease import Holder
from tests.unit.benches import Bench, child
from tests.unit.crash import Moment, Recorder, restore
from tests.unit.crash_scenarios import CAP, KNOBS, SCENARIOS, TREE, Scenario, bring, directory, leave_a_mess
from tests.unit.model import FAST


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory where a sync costs nothing, if there is one: there are thousands."""
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        yield Path(name)


def play(scenario: Scenario, place: Path) -> Recorder:
    """Run a scenario, and return what was taken down, with what has to be looked at while it runs looked at."""
    recorder = Recorder(place / "cache", lambda one: look_at(one, place / "meanwhile"))

    async def within() -> None:
        bench = Bench(recorder.root, **KNOBS)
        with recorder.watch():
            result = scenario(bench, recorder)
            if inspect.isawaitable(result):
                await result
            await bench.settle()
        bench.close()

    asyncio.run(within())
    return recorder


def look_at(recorder: Recorder, place: Path) -> None:
    """Start a manager on what lay there at each moment so far, and judge what it finds; then forget the moments."""
    for number, moment in enumerate(recorder.all_moments()):
        root = place / str(number)
        restore(moment, root)
        bench = Bench(root, MAX_BYTES=CAP)
        try:
            judge(moment, bench)
        finally:
            bench.close()
            shutil.rmtree(root)
        recorder.looked_at += 1
    recorder.moments.clear()


def judge(moment: Moment, bench: Bench) -> None:
    """Hold what the next manager has against what the last one had promised."""
    where = f"before {moment.before}{' and a power loss' if moment.power_loss else ''}"
    judge_images(moment, bench, where)
    judge_holders(moment, bench, where)
    for name in ("staging", "trash"):
        assert not list((bench.store.root / name).iterdir()), f"{where}: {name} is not empty"
    if moment.must("marked"):
        Heartbeat.from_json((bench.store.root / "manager.json").read_text())


def judge_images(moment: Moment, bench: Bench, where: str) -> None:
    """Every listed image is whole, and what is accounted is what lies there."""
    cache, root = bench.cache, bench.store.root
    for key in set(cache.entries) - moment.must("damaged"):
        assert is_whole(key, Path(bench.store.layout.image(key))), f"{where}: {key} is not whole"
    for key, entry in cache.entries.items():
        mode = (root / "entries" / key).stat().st_mode & 0o777
        assert mode == (0o700 if entry.closed else 0o755), f"{where}: {key} is closed or open, and not as it says"
    assert moment.must("there") <= set(cache.entries), f"{where}: an image is lost"
    assert not moment.must("gone") & set(cache.entries), f"{where}: an image is back"
    kept = {path.name for path in (root / "quarantine").iterdir()}
    assert kept == set(cache.quarantined), f"{where}: what is in quarantine is not counted"
    assert {path.name for path in (root / "entries").iterdir()} == set(cache.entries), f"{where}: an orphan"
    on_disk = sum(disk.measure(str(one))[0] for name in ("entries", "quarantine") for one in (root / name).iterdir())
    assert cache.usage.size_bytes >= on_disk, f"{where}: {cache.usage} accounted, {on_disk} bytes on disk"
    assert not cache.budget.reservations


def is_whole(key: str, image: Path) -> bool:
    """Whether an image is all that was fetched, or unpacked."""
    digest, _, form = key.partition(".")
    if form == "sif":
        return hashlib.sha256(image.read_bytes()).hexdigest() == digest
    return {path: (image / path).stat().st_size for path in TREE if (image / path).is_file()} == TREE


def judge_holders(moment: Moment, bench: Bench, where: str) -> None:
    """No lease and no pin is lost or invented."""
    cache, root = bench.cache, bench.store.root
    known = {f"{pin.reference} {pin.key}" for pin in cache.pins.all()}
    assert moment.must("pinned") <= known, f"{where}: a pin is lost"
    assert not moment.must("unpinned") & {pin.reference for pin in cache.pins.all()}, f"{where}: a pin is back"
    assert len(list((root / "pins").iterdir())) == len(known), where
    held = {f"{holder.file_name} {key}" for holder, lease in cache.leases.items() for key in lease.keys}
    if not moment.power_loss:  # which ends the starters too
        assert moment.must("leased") <= held, f"{where}: a lease is lost"
    assert not moment.must("released") & {holder.file_name for holder in cache.leases}, f"{where}: a lease is back"
    assert {path.name for path in (root / "leases").iterdir()} == {one.file_name for one in cache.leases}, where


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.__name__)
def test_killed_at_any_moment_the_next_manager_goes_on(place: Path, scenario: Scenario) -> None:
    """Every listed image is whole, none that was promised is lost, what is accounted is what lies there."""
    recorder = play(scenario, place)

    async def within() -> None:
        look_at(recorder, place / "then")

    asyncio.run(within())
    assert recorder.looked_at > 10


def mend(place: Path) -> Recorder:
    """Start on a root in which everything is wrong that can be, and on what that start leaves at each moment."""
    root = place / "cache"
    facts: dict[str, frozenset[str]] = {}

    async def prepare(holder: Holder) -> None:
        before, bench = Recorder(root), Bench(root, **KNOBS)
        one, two = (directory(bench, before, name).key for name in "ab")
        bring(bench, before, "c")
        bench.cache.pins.put(one, one, bench.now)
        bench.cache.acquire(two, holder, bench.now)
        file = root / "leases" / holder.file_name
        text = file.read_text()
        bench.close()
        file.write_text(text)
        leave_a_mess(root)
        facts.update(before.facts)
        facts["pinned"], facts["leased"] = frozenset({f"{one} {one}"}), frozenset({f"{holder.file_name} {two}"})

    async def start(recorder: Recorder) -> None:
        with recorder.watch():
            bench = Bench(root, **KNOBS)
            await bench.settle()
        recorder.look()
        bench.close()

    with child() as (holder, _):
        asyncio.run(prepare(holder))
        recorder = Recorder(root, lambda one: look_at(one, place / "then"), facts=dict(facts))
        asyncio.run(start(recorder))
    return recorder


def test_killed_while_it_mends_a_root_the_next_manager_mends_it(place: Path) -> None:
    """A start may be killed as well, at any of its own moments."""
    assert mend(place).looked_at > 40


def moments() -> int:
    """Return at how many moments the tests here have a manager killed."""
    count = 0
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory(dir=FAST) as name:
            recorder = play(scenario, Path(name))
            count += recorder.looked_at + sum(1 for _ in recorder.all_moments())
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        return count + mend(Path(name)).looked_at
