"""Values that are trusted for a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache_manager.memory import Memory


def test_a_value_is_trusted_until_its_time_and_not_at_it() -> None:
    """A time to live of a minute is over after a minute."""
    memory: Memory[str, int] = Memory()
    memory.put("a", 1, until=160.0)
    assert (memory.get("a", 159.9), memory.get("a", 160.0), memory.get("b", 160.0)) == (1, None, None)
    assert (memory.until("a"), memory.until("b")) == (160.0, 0.0)


def test_a_newer_value_takes_the_place_of_the_older() -> None:
    """Also when it is trusted for less long."""
    memory: Memory[str, int] = Memory()
    memory.put("a", 1, until=160.0)
    memory.put("a", 2, until=120.0)
    assert (memory.get("a", 100.0), memory.get("a", 130.0)) == (2, None)


def test_all_that_is_trusted_can_be_shown() -> None:
    """`status` shows what fails now, and not what failed yesterday."""
    memory: Memory[str, int] = Memory()
    memory.put("old", 1, until=100.0)
    memory.put("new", 2, until=200.0)
    assert memory.current(150.0) == [("new", 2)]


def test_nothing_is_remembered_longer_because_the_clock_was_set_back() -> None:
    """A failure of a minute would refuse an image for a day; two threads that read the clock set nothing back."""
    memory: Memory[str, int] = Memory()
    assert memory.get("a", 100_000.0) is None
    memory.put("a", 1, until=100_060.0)
    assert (memory.get("a", 99_999.0), memory.get("a", 13_600.0), memory.current(13_601.0)) == (1, None, [])
    memory.put("a", 2, until=13_660.0)
    assert (memory.get("a", 13_602.0), memory.until("a")) == (2, 13_660.0)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(), st.floats(0, 1e6)), max_size=40))
def test_it_never_grows_beyond_its_limit_and_keeps_what_came_last(puts: list[tuple[int, int, float]]) -> None:
    """Names that jobs make up must not fill the manager's memory."""
    memory: Memory[int, int] = Memory(max_values=3)
    latest: dict[int, int] = {}
    for key, value, until in puts:
        memory.put(key, value, until)
        latest.pop(key, None)
        latest[key] = value
    known = dict(memory.current(-1.0))
    assert len(known) <= 3
    assert known == dict(list(latest.items())[-3:])
