"""Text for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.text import fair, human_bytes, printable, shorten


@given(st.text(max_size=400), st.integers(40, 300))
def test_printable_text_is_one_line_of_bounded_length(text: str, limit: int) -> None:
    """It goes into messages and logs, whatever it was."""
    told = printable(text, limit)
    assert len(told) <= limit
    assert len(told.splitlines()) <= 1
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in told)


def test_long_text_keeps_its_beginning_and_its_end() -> None:
    """Both are what one recognizes a path by."""
    told = printable("/srv/" + "a" * 500 + "/rocky.sif")
    assert told.startswith("/srv/")
    assert told.endswith("/rocky.sif")


@given(st.text(st.characters(codec=None), max_size=300), st.integers(20, 200))
def test_a_shortened_message_fits_its_limit(text: str, limit: int) -> None:
    """HTCondor holds jobs whose hook says too much, so the limit is in bytes."""
    told = shorten(text, limit).encode()
    assert len(told) <= limit


@given(st.lists(st.text(st.characters(codec=None), max_size=300), max_size=8), st.integers(200, 900))
def test_reasons_share_the_room_that_there_is(parts: list[str], limit: int) -> None:
    """All fit, each is there, and one is shortened only if it is among the longest."""
    told = fair(parts, limit)
    sizes = [len(part.encode(errors="replace")) for part in parts]
    after = [len(part.encode()) for part in told]
    assert sum(after) <= limit
    cut = [size for size, now in zip(sizes, after, strict=True) if now < size]
    whole = [size for size, now in zip(sizes, after, strict=True) if now == size]
    assert not cut or not whole or max(whole) <= max(after)
    assert bool(cut) is (sum(sizes) > limit)


@given(st.text(max_size=50))
def test_a_message_that_fits_stays_as_it_is(text: str) -> None:
    """Nothing is lost without need."""
    assert shorten(text, 200) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (3_141_592, "3.1 MB"),
        (20_000_000_000, "20.0 GB"),
        (5_000_000_000_000_000, "5000.0 TB"),
    ],
)
def test_sizes_are_told_as_people_read_them(size: int, text: str) -> None:
    """Decimal units, as disks are sold."""
    assert human_bytes(size) == text
