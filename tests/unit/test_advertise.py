"""What the slot ad says of the cache."""

from __future__ import annotations

from dataclasses import replace

import classad2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager import advertise, updatead
from cache_manager.abilities import Abilities
from cache_manager.cache import Counters
from cache_manager.entry import CacheEntry
from cache_manager.updatead import Literal
from tests.unit.builders import entry

ABLE = Abilities("/usr/bin/apptainer", can_use_sif=True, can_use_sandbox=True)
NAMES = (
    "ImageCacheHealthy",
    "ImageCacheReason",
    "ImageCacheImages",
    "ImageCacheBytes",
    "ImageCacheMaxBytes",
    "ImageCacheEntries",
    "ImageCacheHits",
    "ImageCacheMisses",
    "ImageCacheCanUseSIF",
    "ImageCacheCanUseSandbox",
    "ImageCacheVersion",
)


def shown(*entries: CacheEntry) -> dict[str, Literal]:
    """Return the attributes of a cache with entries."""
    return advertise.attributes(entries, Counters(hits=3, misses=1), 10**9, ABLE)


def test_the_names_are_those_that_admins_script_against() -> None:
    """START expressions and job ranks use them."""
    assert tuple(shown()) == NAMES


def test_images_are_named_by_their_last_use_and_counted_all() -> None:
    """A private entry, or one of a strange name, is counted and not named."""
    found = shown(
        entry("a:1", disk=10, used_at=1.0),
        entry("b:1", disk=20, used_at=3.0),
        replace(entry("secret:1", disk=30), public=False),
        entry("x,y:1", disk=40),
    )
    assert found["ImageCacheImages"] == "b:1,a:1"
    assert (found["ImageCacheBytes"], found["ImageCacheEntries"]) == (100, 4)
    assert (found["ImageCacheHits"], found["ImageCacheMisses"], found["ImageCacheMaxBytes"]) == (3, 1, 10**9)


def test_two_entries_of_one_name_are_named_once() -> None:
    """A tag that moved leaves its old image until room is needed."""
    assert shown(entry("a:1"), replace(entry("b:1"), name="a:1"))["ImageCacheImages"] == "a:1"


@given(st.lists(st.text(min_size=1, max_size=400), max_size=60))
def test_any_images_fit_a_slot_ad(names: list[str]) -> None:
    """The collector keeps a copy for each slot; the list is cut between names."""
    block = updatead.render(shown(*(replace(entry(str(n)), name=name) for n, name in enumerate(names))))
    found = classad2.parseOne(block.decode(), classad2.ParserType.Old)
    assert set(found.keys()) == set(NAMES)
    listed = str(found.eval("ImageCacheImages"))
    assert len(listed.encode()) <= advertise.LIST_BYTES


@pytest.mark.parametrize("reason", ["the manager does not answer", 'a "quoted"\nreason', "x" * 9000])
def test_a_manager_that_is_down_is_told_with_the_reason(reason: str) -> None:
    """Nothing else is known then."""
    found = classad2.parseOne(advertise.down(reason).decode(), classad2.ParserType.Old)
    assert found.eval("ImageCacheHealthy") is False
    assert found.eval("ImageCacheReason") == reason.replace("\n", " ")
