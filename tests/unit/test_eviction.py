"""Which entries go: least recently used first, never one that is held, and no more than needed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.entry import CacheEntry
from cache_manager.eviction import Cap, EvictionPlan, Shares, Usage, down_to, make_room, watermarks
from tests.unit.builders import entry, key_of

PLENTY = 10**12
A, B, C = (entry(name, disk=100, used_at=moment) for name, moment in (("a", 10.0), ("b", 20.0), ("c", 30.0)))


def names(plan: EvictionPlan, entries: list[CacheEntry]) -> list[str]:
    """Return the names of the entries that go, in their order."""
    by_key = {one.key: one.name for one in entries}
    return [by_key[key] for key in plan.keys]


def used(entries: list[CacheEntry]) -> Usage:
    """Return what entries take."""
    return Usage(sum(one.disk_bytes for one in entries), sum(one.inodes for one in entries))


@pytest.mark.parametrize(
    ("need", "cap", "in_use", "expected"),
    [
        (0, 300, (), []),
        (50, 350, (), []),
        (51, 350, (), ["a"]),
        (100, 300, (), ["a"]),
        (101, 300, (), ["a", "b"]),
        (100, 300, ("a",), ["b"]),
        (200, 300, ("b",), ["a", "c"]),
        (300, 300, (), ["a", "b", "c"]),
        (301, 300, (), []),
        (300, 300, ("c",), []),
        (100, 300, ("a", "b", "c"), []),
    ],
)
def test_room_is_made_from_what_was_not_used_longest(
    need: int, cap: int, in_use: tuple[str, ...], expected: list[str]
) -> None:
    """Just enough, nothing in use; and where it would not be enough, nothing goes for nothing."""
    entries = [C, A, B]
    keys = {key_of(name) for name in in_use}
    plan = make_room(entries, keys, used(entries), Usage(need, 0), Cap(cap, 0, PLENTY))
    assert names(plan, entries) == expected
    assert plan.enough == (bool(expected) or need + 300 <= cap)


@pytest.mark.parametrize(
    ("usage", "cap", "need", "expected"),
    [
        (Usage(300, 9), Cap(PLENTY, 9, PLENTY), Usage(1, 3), ["a"]),
        (Usage(300, 9), Cap(PLENTY, 9, PLENTY), Usage(1, 4), ["a", "b"]),
        (Usage(300, 9), Cap(PLENTY, 0, PLENTY), Usage(1, 10**6), []),
        (Usage(300, 9), Cap(PLENTY, 0, 40), Usage(50, 3), ["a"]),
        (Usage(300, 9), Cap(PLENTY, 0, -60), Usage(50, 3), ["a", "b"]),
        (Usage(300, 9), Cap(PLENTY, 0, 50), Usage(50, 3), []),
        (Usage(500, 9), Cap(550, 0, PLENTY), Usage(100, 3), ["a"]),
    ],
    ids=["files", "more files", "no cap on files", "free disk", "below the free disk", "disk just enough", "reserved"],
)
def test_files_free_disk_and_reservations_count_as_well(
    usage: Usage, cap: Cap, need: Usage, expected: list[str]
) -> None:
    """Whichever is short decides."""
    entries = [A, B, C]
    assert names(make_room(entries, (), usage, need, cap), entries) == expected


def test_of_entries_used_at_the_same_time_the_oldest_goes_first() -> None:
    """After a start all may have the same last use; the plan does not depend on the order on disk."""
    old = entry("old", disk=100, created_at=1.0, used_at=50.0)
    new = entry("new", disk=100, created_at=2.0, used_at=50.0)
    for entries in ([old, new], [new, old]):
        plan = make_room(entries, (), used(entries), Usage(100, 0), Cap(200, 0, PLENTY))
        assert names(plan, entries) == ["old"]


def test_of_entries_of_the_same_age_the_lower_key_goes_first() -> None:
    """Two managers with the same disk plan the same."""
    twins = [entry(name, disk=100, created_at=1.0, used_at=50.0) for name in "abcdef"]
    plan = make_room(reversed(twins), (), used(twins), Usage(300, 0), Cap(600, 0, PLENTY))
    assert list(plan.keys) == sorted(one.key for one in twins)[:3]


@pytest.mark.parametrize(
    ("usage", "cap", "expected"),
    [
        (Usage(900, 0), Cap(1000, 0, 0), None),
        (Usage(901, 0), Cap(1000, 0, 0), Usage(800, 0)),
        (Usage(1, 10**6), Cap(1000, 0, 0), None),
        (Usage(1, 90), Cap(1000, 100, 0), None),
        (Usage(1, 91), Cap(1000, 100, 0), Usage(800, 80)),
        (Usage(901, 1), Cap(1000, 100, 0), Usage(800, 80)),
    ],
    ids=["at the mark", "above", "no cap on files", "files at the mark", "files above", "both caps"],
)
def test_background_eviction_begins_above_the_high_watermark_of_bytes_or_files(
    usage: Usage, cap: Cap, expected: Usage | None
) -> None:
    """And goes down to the low one of both."""
    assert watermarks(usage, cap, 90, 80) == expected


def test_background_eviction_counts_files_too() -> None:
    """A few unpacked images may hold all the files that a site allows."""
    trees = [entry(name, disk=10, inodes=40, used_at=moment) for name, moment in (("a", 10.0), ("b", 20.0))]
    assert names(down_to(trees, (), Usage(20, 95), Usage(800, 80), PLENTY), trees) == ["a"]


ENTRIES = st.lists(
    st.builds(
        entry,
        st.sampled_from("abcdefgh"),
        disk=st.integers(0, 60),
        inodes=st.integers(1, 5),
        created_at=st.sampled_from([1.0, 2.0, 3.0]),
        used_at=st.sampled_from([1.0, 2.0, 3.0]),
    ),
    max_size=8,
    unique_by=lambda one: one.key,
)


@given(
    ENTRIES,
    st.sets(st.sampled_from("abcdefgh").map(key_of)),
    st.builds(Usage, st.integers(0, 100), st.integers(0, 10)),
    st.builds(Usage, st.integers(0, 100), st.integers(0, 10)),
    st.builds(Cap, st.integers(0, 300), st.integers(0, 20), st.integers(-50, 300)),
)
def test_a_plan_makes_room_and_gives_up_nothing_without_need(
    entries: list[CacheEntry], in_use: set[str], reserved: Usage, need: Usage, cap: Cap
) -> None:
    """After it, everything fits; without its last entry, it would not; and nothing in use is in it."""
    total = Usage(used(entries).size_bytes + reserved.size_bytes, used(entries).inodes + reserved.inodes)
    plan = make_room(entries, in_use, total, need, cap)
    by_key = {one.key: one for one in entries}

    def fits(keys: tuple[str, ...]) -> bool:
        freed = used([by_key[key] for key in keys])
        return (
            total.size_bytes - freed.size_bytes + need.size_bytes <= cap.size_bytes
            and need.size_bytes <= cap.free_bytes + freed.size_bytes
            and (not cap.inodes or total.inodes - freed.inodes + need.inodes <= cap.inodes)
        )

    evictable = tuple(key for key in by_key if key not in in_use)
    assert not set(plan.keys) & in_use
    assert len(set(plan.keys)) == len(plan.keys)
    assert plan.enough == fits(evictable)
    if plan.enough:
        assert fits(plan.keys)
        assert not plan.keys or not fits(plan.keys[:-1])
        order = [(by_key[key].last_used_at, by_key[key].created_at) for key in plan.keys]
        assert order == sorted(order)
    else:
        assert plan.keys == ()
        assert plan.short_bytes > 0 or plan.short_inodes > 0
        assert plan.freed_bytes == used([by_key[key] for key in evictable]).size_bytes


@given(
    ENTRIES,
    st.sets(st.sampled_from("abcdefgh").map(key_of)),
    st.integers(0, 300),
    st.sampled_from([0.0, 1.0, 2.0, 9.0]),
)
def test_background_eviction_stops_at_its_target_and_spares_the_young(
    entries: list[CacheEntry], in_use: set[str], target: int, youngest_at: float
) -> None:
    """Unlike a waiting job it takes what it can get, even if that is not enough."""
    plan = down_to(entries, in_use, used(entries), Usage(target, 0), youngest_at)
    gone = [one for one in entries if one.key in plan.keys]
    assert all(one.created_at <= youngest_at and one.key not in in_use for one in gone)
    left = used(entries).size_bytes - used(gone).size_bytes
    spared = [one for one in entries if one not in gone and one.created_at <= youngest_at and one.key not in in_use]
    assert plan.freed_bytes == used(gone).size_bytes
    assert plan.enough == (left <= target)
    assert plan.enough or not spared
    if gone:
        last = next(one for one in gone if one.key == plan.keys[-1])
        assert left + last.disk_bytes > target


def owned(name: str, owner: str, used_at: float, disk: int = 100) -> CacheEntry:
    """Return an entry of an owner."""
    return replace(entry(name, disk=disk, used_at=used_at), owner=owner)


@pytest.mark.parametrize(
    ("wanted", "need", "expected"),
    [
        ({"eve": 100}, 100, ["e1"]),
        ({"eve": 300}, 300, ["e1", "e2", "e3"]),
        ({"joe": 100}, 100, ["e1"]),
        ({"": 100}, 100, ["e1"]),
        ({"joe": 400}, 400, ["j1", "e1", "n1", "e2"]),
    ],
    ids=["the greedy one", "the greedy one, much", "another one", "nobody", "one who becomes greedy"],
)
def test_owners_above_their_share_give_up_theirs_first(wanted: dict[str, int], need: int, expected: list[str]) -> None:
    """Down to the share (300 of 600), then whatever was not used longest; what is nobody's counts for nobody."""
    entries = [owned("j1", "joe", 1.0), owned("n1", "", 2.0), *(owned(f"e{n}", "eve", 2.0 + n) for n in range(1, 5))]
    plan = make_room(entries, (), used(entries), Usage(need, 0), Cap(600, 0, PLENTY), Shares(300, wanted))
    assert sorted(names(plan, entries)) == sorted(expected)
    held = make_room(
        entries, {key_of("e1")}, used(entries), Usage(100, 0), Cap(600, 0, PLENTY), Shares(300, {"eve": 1})
    )
    assert names(held, entries) == ["e2"]
    assert names(down_to(entries, (), used(entries), Usage(500, 0), PLENTY, Shares(300)), entries) == ["e1"]
    assert names(down_to(entries, (), used(entries), Usage(500, 0), PLENTY), entries) == ["j1"]
