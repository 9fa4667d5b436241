"""Whether the manager of a cache root that a pilot left is dead for certain."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.heartbeat import DEAD_S, Heartbeat, Place, why_alive
from cache_manager.lease import Holder

NOW = 1_000_000.0
HERE = Place("ep1", "boot-1", "pid:[1]")
BEAT = Heartbeat(HERE, Holder(4711, 99), "0.1.0")


@pytest.mark.parametrize(
    ("host", "boot", "namespace", "runs", "old"),
    list(product(["ep1", "ep2"], ["boot-1", "boot-2"], ["pid:[1]", "pid:[2]"], [True, False], [True, False])),
)
def test_a_manager_is_dead_when_its_process_is_gone_here_or_silent_for_a_day_elsewhere(
    host: str, boot: str, namespace: str, *, runs: bool, old: bool
) -> None:
    """All combinations: a pid says something only on its own host, boot and pid namespace, and there it says all."""
    beat = Heartbeat(Place(host, boot, namespace), BEAT.manager, "0.1.0")
    silent_s = DEAD_S + 1 if old else 3600.0
    why = why_alive(beat, NOW - silent_s, HERE, runs=runs, now=NOW)
    is_here = (host, boot, namespace) == ("ep1", "boot-1", "pid:[1]")
    assert bool(why) == (runs if is_here else not old)
    if is_here and runs:
        assert why == "its manager runs (pid 4711)"
    elif why:
        assert why == f"its manager may run elsewhere ({host}, last heard of 1.0 h ago)"


@pytest.mark.parametrize("silent_s", [DEAD_S, 0.0, -DEAD_S * 3], ids=["just not yet", "now", "a clock that is ahead"])
def test_a_manager_elsewhere_is_given_a_day(silent_s: float) -> None:
    """And a heartbeat in the future is no old one."""
    beat = Heartbeat(Place("ep2", "boot-2", ""), BEAT.manager, "0.1.0")
    assert why_alive(beat, NOW - silent_s, HERE, runs=False, now=NOW)


@pytest.mark.parametrize("unknown", [Place("", "b", "n"), Place("h", "", "n"), Place("h", "b", "")])
def test_where_the_kernel_tells_nothing_only_silence_counts(unknown: Place) -> None:
    """Two places of which something is unknown are not the same."""
    beat = Heartbeat(unknown, BEAT.manager, "0.1.0")
    assert why_alive(beat, NOW - 60, unknown, runs=False, now=NOW)
    assert not why_alive(beat, NOW - DEAD_S - 1, unknown, runs=False, now=NOW)


def test_a_marker_is_read_back_as_it_was_written() -> None:
    """It has to be recognised years later."""
    assert Heartbeat.from_json(BEAT.to_json()) == BEAT


@pytest.mark.parametrize("change", [{"kind": "another"}, {"pid": "x"}, {"host": None, "kind": None}, {"pid": 1e999}])
def test_another_programs_file_is_no_marker(change: dict[str, object]) -> None:
    """`manager.json` is a name that others may use."""
    with pytest.raises(ValueError, match=r"no marker|invalid literal"):
        Heartbeat.from_json(json.dumps(json.loads(BEAT.to_json()) | change))


@given(st.text())
def test_any_text_is_a_marker_or_none(text: str) -> None:
    """Nothing else may come of it."""
    with suppress(ValueError):
        Heartbeat.from_json(text)
