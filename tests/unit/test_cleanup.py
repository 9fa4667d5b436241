"""What the admin's cleanup would free: the plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.cleanup import CleanupPlan, Found, Item, Kind, Wishes, plan
from cache_manager.entry import CacheEntry
from cache_manager.eviction import Usage
from cache_manager.reconcile import Quarantined
from tests.unit.builders import entry, key_of, knobs

NOW = 1_000_000.0
DAY = 86400.0
PARTIAL = Item(Kind.PARTIAL, ("staging/1-1",), "staging/1-1", 70, 3, "nobody fetches it any more")
SETTINGS = knobs(MAX_BYTES="1000 B", MIN_AGE="60s")


def days(name: str, unused: float, disk: int = 100, age: float = 30.0) -> CacheEntry:
    """Return an entry that was not used for so many days."""
    return entry(name, disk=disk, created_at=NOW - age * DAY, used_at=NOW - unused * DAY)


def found(entries: list[CacheEntry], held: str = "", in_use: str = "", bad: str = "") -> Found:
    """Return what lies under a root; `bad` are in quarantine, 50 bytes each."""
    quarantine = tuple(Quarantined(key_of(name), name, 50, 2, "differs", NOW) for name in bad)
    usage = Usage(
        sum(one.disk_bytes for one in entries) + 50 * len(bad), sum(one.inodes for one in entries) + 2 * len(bad)
    )
    users = frozenset(key_of(name) for name in in_use)
    keep = users | {key_of(name) for name in held}
    return Found(tuple(entries), keep, users, usage, leftovers=(PARTIAL,), quarantine=quarantine)


def images(one: CleanupPlan, entries: list[CacheEntry]) -> str:
    """Return the names of the images that go, in their order."""
    by_key = {entry.key: entry.name for entry in entries}
    return "".join(by_key[item.paths[0]] for item in one.items if item.kind is Kind.IMAGE)


ABC = [days("a", 9), days("b", 5), days("c", 1)]


@pytest.mark.parametrize(
    ("wishes", "held", "expected", "short"),
    [
        (Wishes(), "", "", 0),
        (Wishes(older_than_s=7 * DAY), "", "a", 0),
        (Wishes(older_than_s=5 * DAY), "", "ab", 0),
        (Wishes(older_than_s=0.0), "b", "ac", 0),
        (Wishes(to_bytes=300), "", "", 0),
        (Wishes(to_bytes=299), "", "a", 0),
        (Wishes(to_bytes=0), "", "abc", 0),
        (Wishes(to_bytes=100), "a", "bc", 0),
        (Wishes(to_bytes=50), "a", "bc", 50),
        (Wishes(older_than_s=7 * DAY, to_bytes=200), "", "a", 0),
        (Wishes(older_than_s=7 * DAY, to_bytes=150), "", "ab", 0),
    ],
)
def test_old_images_go_and_then_the_least_recently_used_down_to_a_size(
    wishes: Wishes, held: str, expected: str, short: int
) -> None:
    """Never one that is in use or pinned; what cannot be reached is told."""
    done = plan(found(ABC, held), wishes, SETTINGS, NOW)
    assert images(done, ABC) == expected
    assert done.short_bytes == short
    assert done.items[0] == PARTIAL


@pytest.mark.parametrize(
    ("count", "held", "expected"),
    [(9, "", ""), (10, "", "ab"), (10, "a", "bc"), (11, "", "abc")],
    ids=["at the mark", "above", "held", "further above"],
)
def test_images_beyond_the_policy_go_without_being_asked_for(count: int, held: str, expected: str) -> None:
    """As the background eviction would: from above 90 % down to 80 % of the cap."""
    entries = [days(name, 20 - number) for number, name in enumerate("abcdefghijk"[:count])]
    assert images(plan(found(entries, held), Wishes(), SETTINGS, NOW), entries) == expected


def test_the_policy_spares_the_young() -> None:
    """IMAGE_CACHE_MIN_AGE holds here too; who asks for a size means it."""
    entries = [days(name, 0.0, 200, age=0.0001) for name in "abcde"]
    assert images(plan(found(entries), Wishes(), SETTINGS, NOW), entries) == ""
    assert len(images(plan(found(entries), Wishes(to_bytes=0), SETTINGS, NOW), entries)) == 5


def test_quarantine_goes_but_not_what_a_job_runs_from() -> None:
    """And makes room before any good image goes."""
    done = plan(found(ABC, in_use="x", bad="xy"), Wishes(to_bytes=350), SETTINGS, NOW)
    assert [item.paths for item in done.items] == [PARTIAL.paths, (key_of("y"),)]
    assert done.freed_bytes == 120


ENTRIES = st.lists(
    st.builds(days, st.sampled_from("abcdefgh"), st.sampled_from([0.0, 1.0, 2.0]), st.integers(0, 300)),
    max_size=8,
    unique_by=lambda one: one.key,
)


@given(
    ENTRIES,
    st.text("abcdefgh", max_size=4),
    st.text("xyz", max_size=3),
    st.none() | st.sampled_from([0.0, DAY, 3 * DAY]),
    st.none() | st.integers(0, 1000),
)
def test_a_plan_frees_nothing_twice_nothing_held_and_what_was_wished(
    entries: list[CacheEntry], held: str, bad: str, older: float | None, size: int | None
) -> None:
    """And says by how much it falls short."""
    there = found(entries, held, bad="".join(sorted(set(bad))))
    done = plan(there, Wishes(older, size), SETTINGS, NOW)
    keys = [item.paths[0] for item in done.items]
    assert len(keys) == len(set(keys))
    assert not set(keys) & there.held
    left = there.usage.size_bytes - (done.freed_bytes - PARTIAL.size_bytes)
    if older is not None:
        old = {one.key for one in entries if NOW - one.last_used_at >= older}
        assert old - there.held <= set(keys)
    if size is not None:
        assert left <= size + done.short_bytes
        assert not done.short_bytes or {one.key for one in entries} - there.held <= set(keys)
