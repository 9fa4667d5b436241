"""What a manager does, and what has to be true whenever it is killed meanwhile: the scenarios of the crash tests.

Each states its promises as it goes: `there` and `gone` are keys, `leased` and `pinned` are holder or reference and key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from cache_manager import processes, upkeep
from cache_manager.cleanup import Wishes
from cache_manager.entry import CacheEntry
from cache_manager.heartbeat import Heartbeat
from cache_manager.outcome import Located
from cache_manager.runtime import Runtime
from cache_manager.scrub import Scrubber
from cache_manager.staging import Staging
from cache_manager.unpacker import Unpacker
from tests.unit.benches import Bench, child
from tests.unit.builders import entry, key_of, knobs, sif_file
from tests.unit.crash import Recorder

Scenario = Callable[[Bench, Recorder], Awaitable[None] | None]

CAP: Final = "524 kB"
SIZE: Final = 100_000
"""Four images fit, or three and what the cache itself takes, whatever a directory takes on this file system."""

KNOBS: Final = {"MAX_BYTES": CAP, "HIGH_WATERMARK": "30", "LOW_WATERMARK": "10", "MIN_AGE": "0s", "SCRUB_RATE": "1 GB"}

TREE: Final = {"bin/sh": 5000, "etc/passwd": 100, "etc/deep/er/file": 10}
"""What an unpacked image has: files, and their sizes."""

RUNTIME: Final = """\
#!/bin/sh
[ "$2" = build ] || exit 37
step() { echo "$1" >"$0.says"; read token <"$0.may"; }
mkdir() { step mkdir; command mkdir "$1"; }
file() { step file; head -c "$(($2 / 2))" /dev/zero >"$1"; step half; head -c "$(($2 - $2 / 2))" /dev/zero >>"$1"; }
mkdir "$4"
mkdir "$HOME/cache"
file "$HOME/cache/layer" 300
mkdir "$4/bin"
file "$4/bin/sh" 5000
step chmod; chmod 4700 "$4/bin/sh"
step link; ln -s sh "$4/bin/bash"
mkdir "$4/etc"
file "$4/etc/passwd" 100
mkdir "$4/etc/deep"
mkdir "$4/etc/deep/er"
file "$4/etc/deep/er/file" 10
echo end >"$0.says"
"""
"""A container runtime that asks before each thing that it writes, so that each of its moments can be looked at."""


def bring(bench: Bench, recorder: Recorder, name: str, *, closed: bool = False) -> CacheEntry:
    """Fetch an image as the fetcher does: reserved, written, committed, added. From then on it must be there."""
    nonce = f"1-{name}"
    content = sif_file(name.encode() * SIZE)[:SIZE]
    bench.cache.reserve(nonce, name, SIZE)
    staging = bench.stage(nonce, name)
    for start in range(0, SIZE, SIZE // 3):
        staging.write(content[start:][: SIZE // 3])
    digest = staging.finish()

    return publish(bench, recorder, staging, name, f"{digest}.sif", closed=closed)


async def unpack(bench: Bench, recorder: Recorder, name: str) -> CacheEntry:
    """Fetch an image and have the runtime unpack it, step by step."""
    nonce = f"1-{name}"
    bench.cache.reserve(nonce, name, 2 * SIZE, 20)
    staging = bench.stage(nonce, name)
    staging.write(sif_file(name.encode() * SIZE)[:SIZE])
    digest = staging.finish()
    await _have_unpacked(bench.store.root.parent, staging, recorder)
    return publish(bench, recorder, staging, name, f"{digest}.sandbox")


async def _have_unpacked(place: Path, staging: Staging, recorder: Recorder) -> None:
    runtime, says, may = place / "apptainer", place / "apptainer.says", place / "apptainer.may"
    runtime.write_text(RUNTIME)
    runtime.chmod(0o755)
    for fifo in (says, may):
        os.mkfifo(fifo)
    unpacker = Unpacker(Runtime(lambda: str(runtime), "", str(place)), knobs)
    unpacking = asyncio.ensure_future(asyncio.to_thread(unpacker.unpack, staging, "image", lambda *_: None))
    with says.open("r+b", 0) as listener, may.open("r+b", 0) as speaker:
        while True:
            said = (await asyncio.to_thread(listener.readline)).decode().strip()
            if said == "end":
                break
            recorder.take(f"the runtime's {said}")
            speaker.write(b"go\n")
        await unpacking
    for path in (runtime, says, may):
        path.unlink()


def directory(bench: Bench, recorder: Recorder, name: str) -> CacheEntry:
    """Bring in an image that was unpacked at once."""
    nonce = f"1-{name}"
    bench.cache.reserve(nonce, name, 60_000, 20)
    staging = bench.stage(nonce, name)
    for path, size in TREE.items():
        file = staging.directory / "image" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    return publish(bench, recorder, staging, name, key_of(name, "sandbox"))


def publish(  # noqa: PLR0913 - what an entry is made of
    bench: Bench, recorder: Recorder, staging: Staging, name: str, key: str, *, closed: bool = False
) -> CacheEntry:
    """Commit and add what is in staging. From then on it must be there."""

    def describe(disk_bytes: int, inodes: int) -> CacheEntry:
        return CacheEntry(key, name, entry(name).origin, SIZE, disk_bytes, inodes, bench.now, closed=closed)

    committed = bench.store.commit(staging, describe)
    bench.cache.add(committed, Located(url=committed.origin), bench.now)
    bench.cache.unreserve(staging.directory.name)
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
        bench.cache.leases.release(first)
        recorder.must("released", first.file_name)
        recorder.look()  # while the second lives
        recorder.must("leased")
        bench.cache.leases.release(second)


def evictions(bench: Bench, recorder: Recorder) -> None:
    """Reach the cap, on demand and in the background."""
    one, two, _ = (bring(bench, recorder, name).key for name in "abc")
    given_up(recorder, one)
    bench.cache.reserve("1-large", "large", 200_000)
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
    bench.cache.reserve("1-large", "large", 309_000)


def openings(bench: Bench, recorder: Recorder) -> None:
    """Bring an image in with a job's credential, and then without one: everybody may read it."""
    bring(bench, recorder, "a", closed=True)
    bring(bench, recorder, "a")


def second_thoughts(bench: Bench, recorder: Recorder) -> None:
    """Drop an image that is not as it was, and fetch it again."""
    one = bring(bench, recorder, "a").key
    image = Path(bench.store.layout.image(one))
    given_up(recorder, one)
    image.chmod(0o644)
    image.write_bytes(b"less")
    assert bench.cache.find(Located(url="", digest=one.partition(".")[0])) is None
    bring(bench, recorder, "a")


async def removals(bench: Bench, recorder: Recorder) -> None:
    """Evict an unpacked image, which a thread removes file by file; a pinned one stays."""
    one, two = (directory(bench, recorder, name).key for name in "ab")
    bench.cache.pins.put(one, one, bench.now)
    recorder.must("pinned", f"{one} {one}")
    given_up(recorder, two)
    bench.cache.give_up([two])
    gone(recorder, two)
    await bench.settle()


async def unpackings(bench: Bench, recorder: Recorder) -> None:
    """Unpack an image, use it, and unpack the same once more."""
    one = (await unpack(bench, recorder, "a")).key
    with child() as (holder, _):
        bench.cache.acquire(one, holder, bench.now, "1.0")
        recorder.must("leased", f"{holder.file_name} {one}")
        recorder.look()
        recorder.must("leased")
        bench.cache.leases.release(holder)
    await unpack(bench, recorder, "a")


def heartbeats(bench: Bench, recorder: Recorder) -> None:
    """Mark the root, touch the mark, and mark it again as the next manager does."""
    manager = processes.holder(os.getpid())
    assert manager is not None
    for version in ("1.0", "1.1"):
        bench.store.write_heartbeat(Heartbeat(processes.place(), manager, version).to_json())
        recorder.must("marked", "yes")
        bench.store.beat()


async def scrubs(bench: Bench, recorder: Recorder) -> None:
    """Read all images back: a SIF and a directory differ, and room for another is needed later."""
    one, two, three = bring(bench, recorder, "a").key, directory(bench, recorder, "b").key, bring(bench, recorder, "c")
    given_up(recorder, one, two)
    recorder.must("damaged", one, two)
    damage(Path(bench.store.layout.image(one)))
    damage(Path(bench.store.layout.image(two)))
    await Scrubber(bench.cache, lambda: bench.settings, lambda: bench.now).run()
    gone(recorder, one, two)
    recorder.must("damaged")
    assert set(bench.cache.quarantined) == {one, two}
    assert set(bench.cache.entries) == {three.key}
    bench.cache.reserve("1-large", "large", 309_000)
    await bench.settle()
    assert not bench.cache.quarantined


def damage(image: Path) -> None:
    """Change a byte of a SIF; take a file out of a tree."""
    if image.is_dir():
        (image / "bin" / "sh").unlink()
        return
    content = image.read_bytes()
    image.chmod(0o644)
    image.write_bytes(content[:-1] + b"?")


async def cleanups(bench: Bench, recorder: Recorder) -> None:
    """Clean up without a manager: leftovers and what was not used for a day go, what is pinned or in use stays."""
    one, two, three, four = (directory(bench, recorder, name).key for name in "abcd")
    bring(bench, recorder, "e")
    bench.cache.pins.put(one, one, bench.now)
    recorder.must("pinned", f"{one} {one}")
    with child() as (holder, _):
        bench.cache.acquire(two, holder, bench.now, "1.0")
        recorder.must("leased", f"{holder.file_name} {two}")
        given_up(recorder, *recorder.facts["there"] - {one, two})
        bench.cache.quarantine(four, "does not start")
        leave_a_mess(bench.store.root)
        settings = knobs(DIR=str(bench.store.root), **KNOBS)
        upkeep.without_manager(settings, Wishes(older_than_s=0.0), bench.now + 100_000, dry_run=False)
        gone(recorder, three, four)
        recorder.look()
        recorder.must("leased")
        bench.cache.leases.release(holder)


def leave_a_mess(root: Path) -> None:
    """Put down what crashes leave, and what disks do to files."""
    for place in ("entries/stray", "staging/1-left/unpacked/etc", "trash/old/image/bin", "quarantine/bad"):
        (root / place).mkdir(parents=True)
        (root / place / "image").write_bytes(b"x" * 100)
    (root / "entries" / key_of("none", "sandbox")).mkdir()
    (root / "staging" / "manager.json.1234").write_text("{")
    for name in ("leases/1-1.json", "pins/bad.json", "objects/bad.json"):
        (root / name).write_text("{")


SCENARIOS: Final[tuple[Scenario, ...]] = (
    fetches,
    leases,
    evictions,
    pins,
    quarantines,
    second_thoughts,
    openings,
    unpackings,
    removals,
    heartbeats,
    scrubs,
    cleanups,
)
