"""What lies on disk after a crash, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.entry import CacheEntry
from cache_manager.lease import Lease
from cache_manager.reconcile import DiskState, FoundEntry, plan
from tests.unit.builders import BOOT, entry, key_of, lease

ROCKY = entry("rocky", size=1000)
SANDBOX = replace(entry("sandbox", size=1000), key=key_of("sandbox", "sandbox"))
OBJECT = {"kind": "object", "url": "https://o.example/x.sif", "digest": ROCKY.digest}
POINTER = {"kind": "pointer", "url": "https://o.example htc/rocky:9", "digest": ""}


def state(
    entries: tuple[FoundEntry, ...] = (),
    leases: dict[str, Lease | None] | None = None,
    objects: dict[str, dict[str, str | float] | None] | None = None,
) -> DiskState:
    """Return what was found."""
    return DiskState(entries, leases or {}, staging=("1-1",), trash=("x-1",), objects=objects or {})


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        (FoundEntry(ROCKY.key, ROCKY, 1000), True),
        (FoundEntry(ROCKY.key, ROCKY, 999), False),
        (FoundEntry(ROCKY.key, ROCKY, 1001), False),
        (FoundEntry(ROCKY.key, ROCKY, 0), False),
        (FoundEntry(ROCKY.key, ROCKY, -1), False),
        (FoundEntry(ROCKY.key, None, 1000), False),
        (FoundEntry(key_of("other"), ROCKY, 1000), False),
        (FoundEntry("README", None, -1), False),
        (FoundEntry("README", replace(ROCKY, key="README"), 1000), False),
        (FoundEntry(SANDBOX.key, SANDBOX, 4096), True),
        (FoundEntry(SANDBOX.key, SANDBOX, -1), False),
    ],
    ids=[
        "whole",
        "truncated",
        "too long",
        "empty",
        "no image",
        "no record",
        "another's",
        "foreign",
        "no key",
        "tree",
        "no tree",
    ],
)
def test_only_whole_entries_are_kept(found: FoundEntry, *, kept: bool) -> None:
    """A job must never get half an image, and the rest must not take room that nobody counts."""
    repair = plan(state((found,)), frozenset(), BOOT)
    assert bool(repair.entries) is kept
    assert repair.broken_entries == (() if kept else (found.name,))


@pytest.mark.parametrize(
    ("one", "name", "alive", "boot", "kept"),
    [
        (lease(7, 99), "7-99.json", True, BOOT, True),
        (lease(7, 99), "7-99.json", False, BOOT, False),
        (lease(7, 99), "7-99.json", True, "another boot", False),
        (lease(7, 99), "7-99.json", True, "", False),
        (lease(7, 99), "8-99.json", True, BOOT, False),
        (None, "7-99.json", True, BOOT, False),
        (None, "README", False, BOOT, False),
    ],
    ids=["running", "ended", "rebooted", "boot unknown", "copied", "no lease", "foreign"],
)
def test_only_leases_of_running_holders_are_kept(
    one: Lease | None, name: str, boot: str, *, alive: bool, kept: bool
) -> None:
    """A lease that nobody ends would keep its image for ever; a pid alone says nothing after a reboot."""
    repair = plan(state(leases={name: one}), frozenset({name} if alive else ()), boot)
    assert repair.leases == ((one,) if kept else ())
    assert repair.dead_leases == (() if kept else (name,))


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        (OBJECT, True),
        (POINTER, True),
        ({**OBJECT, "digest": key_of("gone").partition(".")[0]}, False),
        ({"kind": "object", "url": "https://o.example/x.sif"}, False),
        ({**OBJECT, "digest": 5}, False),
        (None, False),
    ],
    ids=["known", "pointer", "entry gone", "no digest", "no text", "unreadable"],
)
def test_what_is_known_of_an_object_goes_with_its_entry(record: dict[str, str | float] | None, *, kept: bool) -> None:
    """Pointers stay: they are what serves while their tree does not answer."""
    found = state((FoundEntry(ROCKY.key, ROCKY, 1000),), objects={"a.json": record})
    repair = plan(found, frozenset(), BOOT)
    assert repair.objects == ({"a.json": record} if kept else {})
    assert repair.dead_objects == (() if kept else ("a.json",))


def test_unfinished_fetches_go() -> None:
    """Nobody waits for them any more."""
    assert plan(state(), frozenset(), BOOT).leftovers == ("1-1",)


NAMES = st.sampled_from([key_of(name) for name in "abc"] + ["README", ".hidden"])
FOUND = st.builds(
    FoundEntry,
    name=NAMES,
    entry=st.none() | st.builds(entry, st.sampled_from("abc"), size=st.integers(0, 2)),
    image_bytes=st.integers(-1, 2),
)
LEASES = st.dictionaries(
    st.sampled_from(["1-1.json", "2-2.json", "x"]), st.none() | st.builds(lease, st.integers(1, 2), st.integers(1, 2))
)
OBJECTS = st.dictionaries(
    st.sampled_from("abc"),
    st.none()
    | st.fixed_dictionaries(
        {"kind": st.sampled_from(["object", "pointer", 1.0]), "digest": st.text(max_size=2) | st.just(ROCKY.digest)}
    ),
)


@given(
    st.lists(FOUND, unique_by=lambda one: one.name), LEASES, OBJECTS, st.sets(st.sampled_from(["1-1.json", "2-2.json"]))
)
def test_everything_found_is_kept_or_removed_and_a_second_look_finds_nothing_to_mend(
    entries: list[FoundEntry],
    leases: dict[str, Lease | None],
    objects: dict[str, dict[str, str | float] | None],
    alive: set[str],
) -> None:
    """Nothing is left that nobody counts, and each step may be repeated."""
    repair = plan(state(tuple(entries), leases, objects), frozenset(alive), BOOT)
    kept_keys = [one.key for one in repair.entries]
    assert sorted(kept_keys + list(repair.broken_entries)) == sorted(one.name for one in entries)
    assert len(set(kept_keys)) == len(kept_keys)
    assert {one.holder.file_name for one in repair.leases} | set(repair.dead_leases) == set(leases)
    assert set(repair.objects) | set(repair.dead_objects) == set(objects)

    def size_of(kept: CacheEntry) -> int:
        return next(one.image_bytes for one in entries if one.name == kept.key)

    after = DiskState(
        tuple(FoundEntry(one.key, one, size_of(one)) for one in repair.entries),
        {one.holder.file_name: one for one in repair.leases},
        (),
        (),
        dict(repair.objects),
    )
    again = plan(after, frozenset(alive), BOOT)
    assert (again.entries, again.leases, again.objects) == (repair.entries, repair.leases, repair.objects)
    assert (again.broken_entries, again.dead_leases, again.dead_objects, again.leftovers) == ((), (), (), ())
