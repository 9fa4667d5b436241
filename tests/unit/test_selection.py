"""What an admin means by a REF."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.pin import Pin
from cache_manager.selection import NotDone, matching_keys, select, select_pin
from tests.unit.builders import REPOSITORY, entry, key_of

OLD = replace(entry("htc/rocky:9", created_at=1.0), key="aaaa1111" + "0" * 56 + ".sif")
NEW = replace(entry("htc/rocky:9", created_at=2.0), key="aaaa1111" + "f" * 56 + ".sif")
ALMA = replace(entry("htc/alma", created_at=3.0), key="bbbb" + "1" * 60 + ".sif")
TREE = replace(ALMA, key="cccc" + "2" * 60 + ".sandbox", name="https://o.example/x.sif")
ENTRIES = (OLD, NEW, ALMA, TREE)
PINS = (Pin("htc/other:1", ALMA.key, 1.0), Pin(NEW.key, NEW.key, 2.0), Pin("htc/gone:1", key_of("gone"), 3.0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("htc/rocky:9", (NEW, OLD)),
        (f"/cvmfs/{REPOSITORY}/htc/rocky:9", (NEW, OLD)),
        ("htc/alma", (ALMA,)),
        ("htc/alma:latest", (ALMA,)),
        ("https://o.example/x.sif", (TREE,)),
        ("https://user:password@o.example/x.sif?sig=1", (TREE,)),
        (ALMA.key, (ALMA,)),
        (ALMA.digest, (ALMA,)),
        ("bbbb1111", (ALMA,)),
        (f"sha256:{ALMA.digest}", (ALMA,)),
        (TREE.digest, (TREE,)),
        (f"{TREE.digest}.sand", (TREE,)),
        ("aaaa1111f", (NEW,)),
        ("htc/other:1", (ALMA,)),
    ],
)
def test_a_reference_or_the_beginning_of_a_key_means_entries(text: str, expected: tuple[object, ...]) -> None:
    """Of a name all versions, the newest first; a pinned name also means what its pin holds."""
    assert tuple(select(text, ENTRIES, PINS)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aaaa1111", "is the beginning of 2 keys"),
        ("bbbb111", "not in the cache (4 images)"),
        ("dddd1111", "not in the cache (4 images)"),
        (key_of("none"), "not in the cache (4 images)"),
        ("htc/rocky:8", "not in the cache (4 images)"),
        ("htc/../rocky", "`..` is not allowed"),
        ("", "empty"),
        ("gopher://x/y", "unknown scheme"),
    ],
)
def test_what_means_nothing_or_too_much_is_told(text: str, said: str) -> None:
    """With the numbers, and never by a guess."""
    with pytest.raises(NotDone) as caught:
        select(text, ENTRIES, PINS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("htc/other:1", PINS[:1]), (ALMA.key, PINS[:1]), ("aaaa1111", PINS[1:2]), ("htc/gone:1", PINS[2:])],
)
def test_a_pin_is_named_by_its_reference_or_by_its_key(text: str, expected: tuple[Pin, ...]) -> None:
    """Also one whose image is not here."""
    assert tuple(select_pin(text, PINS)) == expected


def test_what_is_not_pinned_cannot_be_unpinned() -> None:
    """It is told, not ignored."""
    with pytest.raises(NotDone, match=r"htc/rocky:9: is not pinned \(3 pins\)"):
        select_pin("htc/rocky:9", PINS)


@given(st.text("0123456789abcdef.sif:", max_size=70))
def test_a_key_is_named_only_by_its_own_beginning(text: str) -> None:
    """Of at least eight characters."""
    for key in matching_keys(text, [one.key for one in ENTRIES]):
        assert key.startswith(text.removeprefix("sha256:"))
        assert len(text) >= 8
