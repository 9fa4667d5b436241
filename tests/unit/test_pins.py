"""Pins: what an admin keeps is never evicted, follows its name, and outlives the manager."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache_manager.outcome import Located
from cache_manager.pin import Pin, canonical
from cache_manager.status import HookStatus, StatusError
from tests.unit.benches import Bench, child, run
from tests.unit.builders import key_of

UNIT = 100_000
CAPPED = {"MAX_BYTES": "10 MB", "MIN_AGE": "0s"}


def pinned(bench: Bench) -> dict[str, str]:
    """Return each pin's reference with the key that it holds."""
    return {pin.reference: pin.key for pin in bench.cache.pins.all()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("htc/rocky:9", "htc/rocky:9"),
        ("htc/rocky", "htc/rocky:latest"),
        ("https://o.example/x.sif", "https://o.example/x.sif"),
        (key_of("a"), key_of("a")),
    ],
)
def test_a_name_has_one_form(name: str, expected: str) -> None:
    """An image without a tag is `latest`, as at every registry."""
    assert canonical(name) == expected


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "5", '{"reference": "a"}', '{"reference": "a", "key": "../..", "pinned_at": 1}', "[" * 100_000],
)
def test_a_file_that_is_no_pin_is_none(text: str) -> None:
    """A damaged file pins nothing."""
    with pytest.raises(ValueError, match=r"."):
        Pin.from_json(text)


def test_a_pinned_image_is_never_evicted_and_said_to_be_what_holds_the_room(tmp_path: Path) -> None:
    """Neither for a job that waits, nor in the background; unpinned it goes like any other."""

    def test(bench: Bench) -> None:
        for number, name in enumerate("abc"):
            bench.put(name, 25 * UNIT, now=1000.0 + number)
        pin = bench.cache.pins.put("a", key_of("a"), 1.0)
        with child() as (holder, _):
            bench.cache.acquire(key_of("b"), holder, 1000.0)
            bench.cache.reserve("7", "y", UNIT)
            with pytest.raises(StatusError) as caught:
                bench.cache.reserve("1", "x", 80 * UNIT)
            assert caught.value.status is HookStatus.CACHE_FULL
            assert (
                "wanted 8.0 MB, freed 0 B: 2.5 MB would not be enough; 2.5 MB in use, 2.5 MB pinned, 100.0 kB being"
                in caught.value.message
            )
            bench.cache.unreserve("7")
            bench.cache.leases.release(holder)
        bench.cache.reserve("1", "x", 74 * UNIT)
        assert set(bench.cache.entries) == {key_of("a")}
        bench.cache.tidy(10**9)
        assert set(bench.cache.entries) == {key_of("a")}
        bench.cache.pins.remove(pin)
        bench.cache.tidy(10**9)
        assert not bench.cache.entries

    run(tmp_path / "cache", test, **CAPPED)


def test_a_pin_outlives_the_manager(tmp_path: Path) -> None:
    """Also one whose image is not there; a damaged file is no pin, and keeps nothing from starting."""
    root = tmp_path / "cache"

    def before(bench: Bench) -> None:
        bench.put("a")
        bench.cache.pins.put("a", key_of("a"), 1.0)
        bench.cache.pins.put("gone:1", key_of("gone"), 2.0)
        (root / "pins" / "junk").write_text("{")
        (root / "pins" / "copy.json").write_text(Pin("a", key_of("a"), 1.0).to_json())

    def after(bench: Bench) -> None:
        assert pinned(bench) == {"a": key_of("a"), "gone:1": key_of("gone")}
        assert key_of("a") in bench.cache.held
        assert len(list((root / "pins").iterdir())) == 2

    run(root, before)
    run(root, after)


def test_a_pin_follows_its_name_to_what_is_fetched_later(tmp_path: Path) -> None:
    """The former version is then an image like any other; a pinned key stays where it is."""
    root = tmp_path / "cache"

    def before(bench: Bench) -> None:
        bench.put("old", now=1000.0)
        bench.cache.pins.put("old:latest", key_of("old"), 1.0)
        bench.cache.pins.put(key_of("old"), key_of("old"), 2.0)
        newer = bench.put("newer", now=2000.0)
        bench.cache.pins.follow("old", newer.key)
        bench.cache.pins.follow("other", newer.key)

    def after(bench: Bench) -> None:
        assert pinned(bench) == {"old:latest": key_of("newer"), key_of("old"): key_of("old")}
        assert [pin.reference for pin in bench.cache.pins.of(key_of("newer"))] == ["old:latest"]

    run(root, before)
    run(root, after)


def test_a_fetch_that_nobody_waits_for_moves_the_pin_too(tmp_path: Path) -> None:
    """The job that asked was removed; the image is here all the same."""

    def test(bench: Bench) -> None:
        bench.cache.pins.put("b:latest", key_of("a"), 1.0)
        bench.put("b")
        assert pinned(bench) == {"b:latest": key_of("b")}

    run(tmp_path / "cache", test)


def test_a_pinned_image_that_is_damaged_goes_into_quarantine_and_its_pin_waits(tmp_path: Path) -> None:
    """The next fetch under the name is held again."""

    def test(bench: Bench) -> None:
        one = bench.put("a:1")
        bench.cache.pins.put("a:1", one.key, 1.0)
        bench.cache.quarantine(one.key, "bad")
        assert pinned(bench) == {"a:1": one.key}
        again = bench.put("a:1")
        assert bench.cache.find(Located(digest=again.digest)) is not None
        assert again.key in bench.cache.held

    run(tmp_path / "cache", test)
