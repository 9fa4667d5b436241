"""The cache against a model, by thousands of sequences of what may happen to it that nobody thought of.

In CI the same sequences each time, so that a change is not blamed for another's find; IMAGE_CACHE_TEST_EXAMPLES=1000
looks at so many new ones. What is found is printed as a program of steps, as short as hypothesis could make it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cache_manager.entry import CacheEntry
from cache_manager.lease import Holder
from cache_manager.outcome import Located
from cache_manager.pin import canonical
from cache_manager.status import StatusError
from tests.unit.model import BLOCK, DISK, Fetch, Image, Source, World, entry_key

PICK = st.integers(0, 11)
STARTER = st.integers(0, 2)
SOURCES = st.builds(Source, st.sampled_from(["a", "b", "c", "d", "alias"]), st.integers(0, 1), st.booleans())
MOST_FETCHES = 4


class CacheMachine(RuleBasedStateMachine):
    """What may happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.model = self.world.model

    def teardown(self) -> None:
        """End it."""
        self.world.close()

    @invariant()
    def agrees(self) -> None:
        """Compare, after every step."""
        self.world.agree()

    # fetches

    def begin(self, source: Source, *, told: bool) -> Fetch | None:
        """Reserve and open a place; None without room."""
        world, size = self.world, len(source.content)
        world.nonces += 1
        nonce = f"1-{world.nonces}"

        def grow(total: int) -> None:
            world.reserve(nonce, source.name, total + 4 * BLOCK * source.sandbox, 3 + 6 * source.sandbox)

        try:
            world.do(lambda: world.reserve(nonce, source.name, size if told else 0))
        except StatusError:
            return None
        fetch = self.model.fetches[nonce] = Fetch(nonce, source, world.store.stage(nonce, grow))
        return fetch

    def write(self, fetch: Fetch, part: int) -> bool:
        """Write the next bytes, and unpack after the last; whether there was room."""
        data = fetch.source.content[fetch.written :][:part]
        try:
            self.world.do(lambda: fetch.staging.write(data))
        except StatusError:
            self.give_up(fetch)
            return False
        fetch.written += len(data)
        if fetch.is_done:
            fetch.staging.finish()
            if fetch.source.sandbox:
                unpack(fetch)
        return True

    def give_up(self, fetch: Fetch) -> None:
        """End a fetch that failed, as the fetcher does."""
        fetch.staging.close()
        del self.model.fetches[fetch.nonce], self.model.reserved[fetch.nonce]
        self.world.cache.unreserve(fetch.nonce)
        self.world.store.discard_staging(fetch.nonce)

    def commit(self, fetch: Fetch) -> None:
        """Publish on disk, which a thread does while the loop goes on."""
        source, size = fetch.source, len(fetch.source.content)

        def describe(disk_bytes: int, inodes: int) -> CacheEntry:
            origin = source.located.url
            return CacheEntry(source.key, source.name, origin, size, disk_bytes, inodes, self.world.now)

        fetch.committed = self.world.store.commit(fetch.staging, describe)

    def publish(self, fetch: Fetch, number: int | None) -> None:
        """Take up what was committed, and lease it to who waits, in one turn of the loop."""
        world, model, entry = self.world, self.model, fetch.committed
        assert entry is not None
        holder = None if number is None else world.starter(number)
        world.now += 2
        there = world.store.is_whole(entry)

        def apply() -> None:
            world.cache.add(entry, fetch.source.located, world.now)
            world.cache.acquire(entry.key, holder, world.now)
            world.cache.unreserve(fetch.nonce)

        try:
            world.do(apply)
        except (OSError, StatusError):
            assert not there, "an image that is there was not taken up"
            self.give_up(fetch)
            return
        assert there
        known = model.images.get(entry.key)
        size, created_at = (known.disk_bytes, known.created_at) if known else (entry.disk_bytes, entry.created_at)
        model.images[entry.key] = Image(known.source if known else fetch.source, size, created_at, model.use())
        if holder is not None:
            model.leases.setdefault(holder, set()).add(entry.key)
        reference = canonical(fetch.source.name)
        if reference in model.pins or reference in model.expected:
            model.pins[reference] = entry.key
        del model.fetches[fetch.nonce], model.reserved[fetch.nonce]

    @rule(sources=st.lists(SOURCES, min_size=1, max_size=4), told=st.booleans(), number=st.none() | STARTER)
    def images_come(self, sources: list[Source], *, told: bool, number: int | None) -> None:
        """Bring some images in, each at one go; a job takes the first."""
        for source in sources:
            self.fetch(source, told=told, number=number if source is sources[0] else None)

    def fetch(self, source: Source, *, told: bool, number: int | None) -> None:
        """Bring an image in, at one go."""
        fetch = self.begin(source, told=told)
        while fetch and not fetch.is_done:
            if not self.write(fetch, 100_000):
                return
        if fetch:
            self.commit(fetch)
            self.publish(fetch, number)

    @precondition(lambda self: len(self.model.fetches) < MOST_FETCHES)
    @rule(source=SOURCES, told=st.booleans())
    def fetch_begins(self, source: Source, *, told: bool) -> None:
        """Begin to bring one in."""
        self.begin(source, told=told)

    def a_fetch(self, pick: int, *, done: bool, committed: bool = False) -> Fetch | None:
        """Return one of those under way that are so far."""
        fetches = [
            one
            for one in self.model.fetches.values()
            if one.is_done is done and (one.committed is not None) is committed
        ]
        return fetches[pick % len(fetches)] if fetches else None

    @precondition(lambda self: self.model.fetches)
    @rule(pick=PICK, part=st.sampled_from([1, 50_000, 300_000, 10**6]))
    def fetch_goes_on(self, pick: int, part: int) -> None:
        """Write more of it."""
        fetch = self.a_fetch(pick, done=False)
        if fetch:
            self.write(fetch, part)

    @precondition(lambda self: self.model.images)
    @rule(pick=PICK, alias=st.booleans(), meanwhile=st.sampled_from(["nothing", "evicted", "bad"]))
    def image_is_fetched_again(self, pick: int, *, alias: bool, meanwhile: str) -> None:
        """Bring in what is there, from another URL perhaps; and it may go while a thread still commits."""
        key = self.an_image(pick)
        source = self.model.images[key].source
        if alias and source.name == "a":
            source = Source("alias", source.version, source.sandbox)
        fetch = self.begin(source, told=True)
        if fetch and self.write(fetch, len(source.content)):
            self.commit(fetch)
            if key in self.model.images and meanwhile == "evicted":
                self.world.do(lambda: self.world.cache.give_up([key]))
                self.world.forget(key)
            elif key in self.model.images and meanwhile == "bad":
                self.world.do(lambda: self.world.cache.quarantine(key, "does not start"))
                self.model.put_aside(key)
            self.publish(fetch, None)

    @precondition(lambda self: self.a_fetch(0, done=True))
    @rule(pick=PICK)
    def fetch_is_committed(self, pick: int) -> None:
        """Have it on disk."""
        fetch = self.a_fetch(pick, done=True)
        if fetch:
            self.commit(fetch)

    @precondition(lambda self: self.a_fetch(0, done=True, committed=True))
    @rule(pick=PICK, number=st.none() | STARTER)
    def fetch_ends(self, pick: int, number: int | None) -> None:
        """Have it in the cache."""
        fetch = self.a_fetch(pick, done=True, committed=True)
        if fetch:
            self.publish(fetch, number)

    @precondition(lambda self: self.a_fetch(0, done=False) or self.a_fetch(0, done=True))
    @rule(pick=PICK)
    def fetch_fails(self, pick: int) -> None:
        """Break it off."""
        fetch = self.a_fetch(pick, done=False) or self.a_fetch(pick, done=True)
        if fetch:
            self.give_up(fetch)

    # use

    def an_image(self, pick: int) -> str:
        """Return the key of one that is there."""
        return sorted(self.model.images)[pick % len(self.model.images)]

    @precondition(lambda self: self.model.images)
    @rule(pick=PICK, number=st.none() | STARTER)
    def job_starts(self, pick: int, number: int | None) -> None:
        """Start a job with an image that is there; nobody may be there to hold it."""
        world, key = self.world, self.an_image(pick)
        holder = None if number is None else world.starter(number)
        world.now += 2
        path = world.do(lambda: world.cache.acquire(key, holder, world.now, "1.0"))
        assert path.exists()
        self.model.images[key].used = self.model.use()
        if holder is not None:
            assert Path(world.store.layout.leases / holder.file_name).exists()
            self.model.leases.setdefault(holder, set()).add(key)

    @precondition(lambda self: self.world.starters)
    @rule(pick=PICK)
    def lease_is_released(self, pick: int) -> None:
        """End a lease, whatever the starter does afterwards."""
        holder = self.world.starter(sorted(self.world.starters)[pick % len(self.world.starters)])
        self.world.do(lambda: self.world.cache.leases.release(holder))
        self.model.leases.pop(holder, None)

    @precondition(lambda self: self.world.starters)
    @rule(pick=PICK, by_pidfd=st.booleans())
    def starter_dies(self, pick: int, *, by_pidfd: bool) -> None:
        """Kill one with -9: seen by its pidfd, or by asking."""
        holder = self.kill(sorted(self.world.starters)[pick % len(self.world.starters)])
        if by_pidfd:
            self.world.until(lambda: holder not in self.world.cache.leases)
        else:
            self.world.do(self.world.cache.leases.poll)

    @precondition(lambda self: self.model.leases)
    @rule(pick=PICK)
    def starter_dies_and_all_is_needed(self, pick: int) -> None:
        """Kill one, and ask for more room than there is without its images before anybody could have seen its end."""
        world, model = self.world, self.model
        holders = [number for number in sorted(world.starters) if world.starter(number) in model.leases]
        could = model.could_go
        self.kill(holders[pick % len(holders)])
        world.need_all_with(could + BLOCK)
        world.do(world.cache.leases.poll)

    def kill(self, number: int) -> Holder:
        """End a starter; its leases have to end."""
        holder = self.world.starter(number)
        self.world.kill(number)
        self.model.leases.pop(holder, None)
        return holder

    # the admin

    @precondition(lambda self: self.model.images)
    @rule(pick=PICK, by_name=st.booleans())
    def image_is_pinned(self, pick: int, *, by_name: bool) -> None:
        """Pin it by its name, or by its key."""
        key = self.an_image(pick)
        reference = canonical(self.model.images[key].source.name) if by_name else key
        self.world.cache.pins.put(reference, key, self.world.now)
        self.model.pins[reference] = key

    @rule(name=st.sampled_from("abcd"), no_more=st.booleans())
    def pin_is_expected(self, name: str, *, no_more: bool) -> None:
        """Have what comes in under a name pinned."""
        pins, reference = self.world.cache.pins, canonical(name)
        (pins.expect_no_more if no_more else pins.expect)(reference)
        (self.model.expected.discard if no_more else self.model.expected.add)(reference)

    @precondition(lambda self: self.model.pins)
    @rule(pick=PICK)
    def pin_ends(self, pick: int) -> None:
        """Unpin: its image is one like others."""
        pins = self.world.cache.pins.all()
        pin = pins[pick % len(pins)]
        self.world.cache.pins.remove(pin)
        del self.model.pins[pin.reference]

    @precondition(lambda self: self.model.images)
    @rule(pick=PICK, force=st.booleans())
    def image_is_evicted(self, pick: int, *, force: bool) -> None:
        """Evict for an admin, who may do so with what is held."""
        key = self.an_image(pick)
        if force or key not in self.world.cache.held:
            self.world.do(lambda: self.world.cache.give_up([key]))
            self.world.forget(key)

    @precondition(lambda self: self.model.images)
    @rule(pick=PICK, damaged=st.booleans())
    def image_is_bad(self, pick: int, *, damaged: bool) -> None:
        """Find out that it does not start, or at the next job that it is not what it was."""
        world, key = self.world, self.an_image(pick)
        if damaged and key.endswith(".sif"):
            image = Path(world.store.layout.image(key))
            image.chmod(0o644)
            with image.open("ab") as file:
                file.write(b"x")
            located = Located(url="", digest=key.partition(".")[0])
            assert world.do(lambda: world.cache.find(located, ("sif",))) is None
        else:
            world.do(lambda: world.cache.quarantine(key, "does not start"))
        self.model.put_aside(key)

    @rule(later=st.booleans(), sources=st.lists(SOURCES, max_size=4))
    def background_evicts(self, sources: list[Source], *, later: bool) -> None:
        """Evict from the high watermark down to the low one, perhaps after more came in."""
        for source in sources:
            self.fetch(source, told=True, number=None)
        self.world.now += 100 * later
        self.world.tidy()

    @rule(less=st.sampled_from([0, 1, BLOCK, 2 * BLOCK, 3 * BLOCK]), of_disk=st.booleans())
    def nearly_all_is_needed(self, less: int, *, of_disk: bool) -> None:
        """Ask for as much as can be had under the cap or of the file system, or a little more or less."""
        if of_disk:
            self.others_leave(700_000)
        self.world.need_all_with(self.model.could_go - less, of_disk=of_disk)

    # the machine

    @rule(killed=st.none() | STARTER)
    def manager_is_killed(self, killed: int | None) -> None:
        """Begin with what it left: half a fetch, a removal; a starter may end in between."""
        world, model = self.world, self.model
        before = dict(world.cache.entries)
        world.abandon()
        for fetch in model.fetches.values():
            self.recognize(fetch)
        model.fetches.clear()
        model.reserved.clear()
        model.expected.clear()
        if killed is not None and killed in world.starters:
            self.kill(killed)
        world.open()
        for key, entry in before.items():
            assert world.cache.entries[key] == entry
            assert abs(world.cache.entries[key].last_used_at - entry.last_used_at) < 0.001
            assert world.cache.find(Located(url="", digest=entry.digest), (entry.format,)) == entry

    def recognize(self, fetch: Fetch) -> None:
        """Expect what is on disk already to be found by who reads the root."""
        one, model = fetch.committed, self.model
        if one and one.key not in model.images and self.world.store.is_whole(one):
            model.images[one.key] = Image(fetch.source, one.disk_bytes, one.created_at, model.use())

    @rule()
    def root_is_read_again(self) -> None:
        """Look at all of it, as after something failed: what is there and what is under way stays.

        An image that is on disk already and not yet taken up counts twice until that; a lease of nothing ends.
        """
        model = self.model
        self.world.do(self.world.cache.load)
        for fetch in model.fetches.values():
            self.recognize(fetch)
        model.most = max(model.most, model.taken)
        there = set(model.images) | {entry_key(name) for name in model.quarantined}
        model.leases = {holder: keys & there for holder, keys in model.leases.items() if keys & there}

    @rule(seconds=st.sampled_from([1, 100, 100_000, -5, -3_000, -1_000_000]))
    def clock_is_set(self, seconds: int) -> None:
        """Go forwards as time goes, and both ways by who sets it."""
        self.world.now += seconds

    @rule(free=st.sampled_from([0, 300_000, 1_000_000, DISK, DISK]))
    def others_fill_the_disk(self, free: int) -> None:
        """Leave hardly anything, or all of it."""
        self.others_leave(free)

    def others_leave(self, free: int) -> None:
        """Have so much free on the file system, if it is that large."""
        world = self.world
        world.others_bytes = world.store.others_bytes = 0
        world.others_bytes = world.store.others_bytes = max(0, world.store.room().free_bytes - free)

    @rule(cap=st.sampled_from([700_000, 1_500_000, 2_000_000]))
    def cap_is_changed(self, cap: int) -> None:
        """Change it as condor_reconfig does."""
        self.model.most = max(self.model.taken, cap)
        self.model.cap = cap
        self.world.configure()

    @rule(wait=st.booleans())
    def removals_wait(self, *, wait: bool) -> None:
        """Have the disk busy, or not any more."""
        self.world.store.is_busy = wait

    @initialize(sources=st.lists(SOURCES, min_size=3, max_size=8))
    def some_images_are_there(self, sources: list[Source]) -> None:
        """Begin with some."""
        self.images_come(sources, told=True, number=None)


def unpack(fetch: Fetch) -> None:
    """Put a tree in the place of a finished SIF; it takes a little more than that."""
    image = fetch.staging.directory / "image"
    image.unlink()
    (image / "etc").mkdir(parents=True)
    half = len(fetch.source.content) // 2
    (image / "first").write_bytes(bytes(half))
    (image / "etc" / "second").write_bytes(bytes(half))


EXAMPLES = int(os.environ.get("IMAGE_CACHE_TEST_EXAMPLES", "0"))


def test_the_cache_does_what_its_model_says(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever happens in whatever order: the cap, the order of use, leases, pins and files."""
    caplog.set_level(logging.CRITICAL, logger="cache_manager")
    run_state_machine_as_test(
        CacheMachine,
        settings=settings(
            max_examples=EXAMPLES or 80, stateful_step_count=40, derandomize=not EXAMPLES, print_blob=True
        ),
    )
