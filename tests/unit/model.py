"""A cache as simple as one can be thought of, and the real one beside it: after every step they have to agree.

The model knows names, sizes, who uses what and in which order, and nothing of files. It does not say which images are
given up: the cache decides, and the model judges whether it might, in the right order, and no more than needed.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from cache_manager import disk, processes
from cache_manager.cache import Cache
from cache_manager.entry import CacheEntry
from cache_manager.layout import CacheLayout
from cache_manager.lease import Holder, Lease
from cache_manager.outcome import Located
from cache_manager.staging import Staging
from cache_manager.status import HookStatus, StatusError
from cache_manager.store import Store
from tests.unit.benches import LIMIT_S
from tests.unit.builders import knobs, sif_header

T = TypeVar("T")

BLOCK: Final = disk.BLOCK_BYTES
DISK: Final = 50_000_000
CAP: Final = 2_000_000
SLACK: Final = 160_000
"""What the cache may set aside for its own small files: records, leases, directories. Less than any image."""

FAST: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a sync costs nothing there


@dataclass(frozen=True)
class Source:
    """An image that can be fetched: as what, under which name, and what it is."""

    name: str
    version: int
    sandbox: bool

    @functools.cached_property
    def content(self) -> bytes:
        """Its SIF. `alias` is another name, and URL, of the very same images as `a`."""
        name = "a" if self.name == "alias" else self.name
        size = 170_000 + 90_000 * ("abcd".index(name) * 2 + self.version)
        return sif_header(data_bytes=size - 713) + f"{name}{self.version}".encode() * (size // 2 - 64)

    @functools.cached_property
    def key(self) -> str:
        """The key of the entry."""
        return f"{hashlib.sha256(self.content).hexdigest()}.{'sandbox' if self.sandbox else 'sif'}"

    @property
    def located(self) -> Located:
        """Where it is."""
        return Located(url=f"https://origin.example/{self.name}/{self.version}.sif")


@dataclass
class Image:
    """An entry, as the model sees it: `used` is the number of the use, from 1, whatever the clock said."""

    source: Source
    disk_bytes: int
    created_at: float
    used: int


@dataclass
class Fetch:
    """A fetch under way."""

    nonce: str
    source: Source
    staging: Staging
    written: int = 0
    committed: CacheEntry | None = None

    @property
    def is_done(self) -> bool:
        """Whether all of it is written."""
        return self.written == len(self.source.content)


class Disk(Store):
    """A store on a file system of DISK bytes, which others fill too, and where a removal may take its time."""

    others_bytes = 0

    def __init__(self, layout: CacheLayout) -> None:
        super().__init__(layout)
        self.may_remove = threading.Event()
        self.is_busy = False
        """Whether removals take longer than a step."""
        self.is_dead = False

    def room(self) -> disk.Room:
        """Return what is free."""
        return disk.Room(max(0, DISK - self.others_bytes - disk.measure(str(self.root))[0]), 10**9)

    def remove(self, trashed: Path) -> None:
        """Remove what was given up; who is dead removes nothing more."""
        self.may_remove.wait(LIMIT_S)
        if not self.is_dead:
            super().remove(trashed)


def entry_key(name: str) -> str:
    """Return whose name in quarantine that is."""
    return ".".join(name.split(".")[:2])


@dataclass
class Model:
    """What should be so."""

    images: dict[str, Image] = field(default_factory=dict)
    quarantined: dict[str, int] = field(default_factory=dict)
    """What each takes on disk, by its key; of one that came after another that a job runs from, that with a number."""
    leases: dict[Holder, set[str]] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    expected: set[str] = field(default_factory=set)
    reserved: dict[str, int] = field(default_factory=dict)
    fetches: dict[str, Fetch] = field(default_factory=dict)
    cap: int = CAP
    most: int = CAP
    """What may be taken at most: more than the cap after it was lowered, until there is less."""
    uses: int = 0

    @property
    def in_use(self) -> set[str]:
        """What some process runs from."""
        return set().union(*self.leases.values())

    @property
    def evictable(self) -> list[Image]:
        """What may go, the least recently used first."""
        held = self.in_use | set(self.pins.values())
        return sorted((one for key, one in self.images.items() if key not in held), key=lambda one: one.used)

    @property
    def could_go(self) -> int:
        """The bytes of all that may go: images, and what is in quarantine."""
        bad = sum(size for name, size in self.quarantined.items() if name not in self.quarantined_in_use)
        return bad + sum(one.disk_bytes for one in self.evictable)

    @property
    def taken(self) -> int:
        """What counts against the cap: images, quarantine, and reservations with what entries add to them."""
        images = sum(one.disk_bytes for one in self.images.values()) + sum(self.quarantined.values())
        return images + sum(size + -size % BLOCK + 2 * BLOCK for size in self.reserved.values())

    @property
    def quarantined_in_use(self) -> set[str]:
        """What may not leave quarantine."""
        return {name for name in self.quarantined if entry_key(name) in self.in_use}

    def put_aside(self, key: str) -> None:
        """Have an image in quarantine, beside those there that jobs run from."""
        names = (key, *(f"{key}.{number}" for number in range(2, 100)))
        free = (name for name in names if name not in self.quarantined_in_use)
        self.quarantined[next(free)] = self.images.pop(key).disk_bytes

    def use(self) -> int:
        """Count a use, and return its number."""
        self.uses += 1
        return self.uses


class World:
    """The real cache on a real directory, and the model. Each step is done by the cache and held against the model."""

    def __init__(self) -> None:
        self._place = tempfile.TemporaryDirectory(dir=FAST)
        self.root = Path(self._place.name) / "cache"
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.now = 1_000_000_000.0
        self.starters: dict[int, subprocess.Popen[bytes]] = {}
        self.others_bytes = 0
        self.nonces = 0
        self.open()

    def open(self) -> None:
        """Have a manager begin on what lies there."""
        self.store = Disk(CacheLayout(PurePosixPath(self.root)))
        self.store.others_bytes = self.others_bytes
        self.cache = Cache(self.store, lambda: self.settings, lambda: None, clock=lambda: self.now)
        self.configure()
        self.do(self.cache.load)

    def configure(self) -> None:
        """Give the cache its knobs."""
        self.settings = knobs(
            MAX_BYTES=f"{self.model.cap} B",
            MIN_FREE_BYTES="0 B",
            HIGH_WATERMARK="80",
            LOW_WATERMARK="50",
            MIN_AGE="60s",
        )

    def do(self, action: Callable[[], T]) -> T:
        """Do something within the loop."""

        async def within() -> T:
            return action()

        return self.loop.run_until_complete(within())

    def until(self, condition: Callable[[], bool]) -> None:
        """Have the loop go on until something is so."""

        async def within() -> None:
            async with asyncio.timeout(LIMIT_S):
                while not condition():  # noqa: ASYNC110 - what comes true is set by a thread, or by the kernel
                    await asyncio.sleep(0.0005)

        self.loop.run_until_complete(within())

    def close(self) -> None:
        """End everything."""
        self.abandon()
        for process in self.starters.values():
            process.kill()
            process.wait()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self._place.cleanup()

    def abandon(self) -> None:
        """Have the manager die: it does nothing more, and nothing was closed by it."""
        self.store.is_dead = True
        self.store.may_remove.set()
        for fetch in self.model.fetches.values():
            fetch.staging.close()  # the kernel does that
        for descriptor in self.cache.leases._descriptors.values():
            if descriptor is not None:
                self.loop.remove_reader(descriptor)
                os.close(descriptor)
        self.until(lambda: not self.cache.trash.removals)

    def starter(self, number: int) -> Holder:
        """Return a process that lives."""
        process = self.starters.get(number)
        if process is None:
            process = self.starters[number] = subprocess.Popen(["/bin/sleep", "1000"])
        holder = processes.holder(process.pid)
        assert holder is not None
        return holder

    def kill(self, number: int) -> None:
        """End one."""
        process = self.starters.pop(number)
        process.kill()
        process.wait()

    def reserve(self, nonce: str, name: str, size: int, inodes: int = 3) -> None:
        """Reserve, and judge: what went was the least recently used, and needed; what was refused was not to be had."""
        model, before = self.model, self.model.reserved.get(nonce, 0)
        more = max(0, size - before)
        try:
            self.cache.reserve(nonce, name, size, inodes)
        except StatusError as error:
            self._judge_refusal(error, more, max(size, before))
            raise
        model.reserved[nonce] = max(size, before)
        gone = self._take_leave(model.evictable)
        assert not more or self._free() >= 0, "promised more than the file system has"
        assert not more or model.taken <= model.cap, "promised more than the cap"
        if gone:
            back = gone[-1].disk_bytes
            needed = model.taken + back > model.cap - SLACK or self._free() - back < SLACK
            assert needed, f"{len(gone)} images went, the last without need"

    def need_all_with(self, could: int, *, of_disk: bool = False) -> None:
        """Need as much room as there is with `could` bytes of what is there, and give it back."""
        size = could + (self._free() if of_disk else self.model.cap - self.model.taken)
        if 0 < size < self.model.cap - SLACK:
            with suppress(StatusError):
                self.do(lambda: self.reserve("1-most", "most", size))
            self.cache.unreserve("1-most")
            self.model.reserved.pop("1-most", None)

    def _judge_refusal(self, error: StatusError, more: int, size: int) -> None:
        model = self.model
        assert not self._take_leave(model.evictable), "a plan that is not enough frees nothing"
        could = model.could_go
        full = model.taken - could + more > model.cap - SLACK
        short = self._free() + could - more < SLACK
        large = size > model.cap - SLACK
        reasons = {
            HookStatus.IMAGE_TOO_LARGE: large,
            HookStatus.CACHE_FULL: full,
            HookStatus.DISK_FULL: short,
        }
        assert reasons[error.status], f"refused without a reason: {error.message}"

    def _free(self) -> int:
        """Return what the file system has beyond what is promised; what is being removed is as good as free."""
        pending = sum(max(0, size - self.store.staged_bytes(nonce)) for nonce, size in self.model.reserved.items())
        return self.store.room().free_bytes + disk.measure(str(self.root / "trash"))[0] - pending

    def _take_leave(self, evictable: list[Image]) -> list[Image]:
        """Note what the cache gave up, and return it: the first of what could go, and quarantine before that."""
        model = self.model
        for key in set(model.quarantined) - set(self.cache.quarantined):
            assert key not in model.quarantined_in_use, "removed from quarantine, and a job runs from it"
            del model.quarantined[key]
        gone = {key for key in model.images if key not in self.cache.entries}
        assert gone == {one.source.key for one in evictable[: len(gone)]}, "not the least recently used"
        assert not gone or set(model.quarantined) == model.quarantined_in_use, "good images went before bad ones"
        for key in gone:
            del model.images[key]
        return evictable[: len(gone)]

    def tidy(self) -> None:
        """Evict in the background, and judge that."""
        model = self.model
        before = self.cache.usage.size_bytes
        self.do(lambda: self.cache.tidy(self.now))
        old = [one for one in model.evictable if one.created_at <= self.now - 60]
        gone = self._take_leave(old)
        after = self.cache.usage.size_bytes
        if gone:
            assert before > 0.8 * model.cap, "below the high watermark"
            assert after + gone[-1].disk_bytes > 0.5 * model.cap, "further down than to the low watermark"
        assert after <= 0.8 * model.cap or len(gone) == len(old), "the high watermark does not hold"

    def forget(self, key: str) -> int:
        """Take an image out of the model, and return what it takes."""
        return self.model.images.pop(key).disk_bytes

    def agree(self) -> None:
        """Hold all that can be seen of the cache against the model."""
        if not self.store.is_busy:
            self.store.may_remove.set()
            self.until(lambda: not self.cache.trash.removals)
            self.store.may_remove.clear()  # within a step nothing goes: it would be another time after another
            assert self._names("trash") == set()
        self._agree_on_images()
        self._agree_on_room()
        self._agree_on_holders()

    def _agree_on_images(self) -> None:
        model, cache = self.model, self.cache
        assert set(cache.entries) == set(model.images)
        assert set(cache.quarantined) == set(model.quarantined) == self._names("quarantine")
        coming = {one.committed.key for one in model.fetches.values() if one.committed}
        assert self._names("entries") - coming <= set(model.images), "an orphan"
        assert set(model.images) <= self._names("entries"), "a phantom"
        for key, entry in cache.entries.items():
            assert self.store.is_whole(entry), f"{entry.name} is not whole"
            assert entry.to_json() == (self.root / "entries" / key / "entry.json").read_text()
        by_use = sorted(model.images, key=lambda key: model.images[key].used)
        order = sorted(cache.entries.values(), key=lambda one: (one.last_used_at, one.created_at, one.key))
        assert [one.key for one in order] == by_use, "the order of use"
        assert self._names("staging") == {one.nonce for one in model.fetches.values() if not one.committed}

    def _agree_on_room(self) -> None:
        model, cache = self.model, self.cache
        model.most = max(model.cap, min(model.most, model.taken))
        assert model.taken <= model.most, "over the cap"
        assert {nonce: one.size_bytes for nonce, one in cache.budget.reservations.items()} == model.reserved
        sizes = sum(one.disk_bytes for one in model.images.values()) + sum(model.quarantined.values())
        assert cache.usage.size_bytes == sizes + sum(model.reserved.values())
        for key, image in model.images.items():
            on_disk = disk.measure(str(self.root / "entries" / key))[0]
            assert on_disk <= image.disk_bytes <= on_disk + 2 * BLOCK, "accounted is what lies there"
        on_disk = sum(disk.measure(str(self.root / name))[0] for name in ("entries", "quarantine", "staging"))
        assert on_disk <= model.taken + 3 * BLOCK

    def _agree_on_holders(self) -> None:
        model, cache = self.model, self.cache
        assert {holder: set(lease.keys) for holder, lease in cache.leases.items()} == model.leases
        files = [Lease.from_json(path.read_text()) for path in (self.root / "leases").iterdir()]
        assert {one.holder: set(one.keys) for one in files} == model.leases
        assert {pin.reference: pin.key for pin in cache.pins.all()} == model.pins
        assert len(self._names("pins")) == len(model.pins)
        assert set(cache.held) == model.in_use | set(model.pins.values())

    def _names(self, directory: str) -> set[str]:
        return {path.name for path in (self.root / directory).iterdir()}
