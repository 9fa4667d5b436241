"""The file that says who uses what."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager.lease import Holder, Lease
from tests.unit.builders import key_of, lease

RECORD = json.loads(lease(keys=(key_of("a"),)).to_json())


@given(
    st.builds(
        Lease,
        st.builds(Holder, st.integers(1, 2**22), st.integers(0, 2**63))
        | st.builds(
            Holder, st.integers(0, 2**22), st.just(0), st.text(min_size=1), st.integers(0, 2**63), bounded=st.booleans()
        ),
        st.frozensets(st.text(max_size=9).map(key_of)),
        st.text(max_size=36),
        st.text(max_size=20),
        st.floats(0, 1e11),
        st.text(max_size=9),
    )
)
def test_a_lease_reads_back_as_it_was(one: Lease) -> None:
    """After a restart of the manager the jobs still hold their images."""
    read = Lease.from_json(one.to_json())
    assert read == one
    assert (read.holder.bounded, read.holder.file_name) == (one.holder.bounded, one.holder.file_name)


def test_a_lease_without_a_job_is_read() -> None:
    """An older version did not write it."""
    text = json.dumps({name: value for name, value in RECORD.items() if name != "job_id"})
    assert Lease.from_json(text).job_id == ""


@pytest.mark.parametrize(("bounded", "hours", "over"), [(True, 23.9, False), (True, 24, True), (False, 999, False)])
def test_a_lease_whose_end_nobody_sees_ends_after_a_day(*, bounded: bool, hours: float, over: bool) -> None:
    """Whatever its holder does, or a clock that was set back."""
    one = replace(lease(), holder=Holder(0, 0, "/execute/dir_7", bounded=bounded))
    assert one.is_over(one.taken_at + hours * 3600) is over
    assert one.is_over(one.taken_at - hours * 3600) is over


def test_two_holders_have_two_files() -> None:
    """A pid that is used again is another holder."""
    assert Holder(7, 99).file_name == "7-99.json"
    assert len({Holder(pid, ticks).file_name for pid in (1, 11) for ticks in (1, 11)}) == 4
    places = [Holder(0, 0, directory, inode) for directory in ("/a/dir_1", "/b/dir_1") for inode in (1, 2)]
    assert len({one.file_name for one in places}) == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "[1]",
        "5",
        '"text"',
        "{}",
        "[" * 100_000,
        *(
            json.dumps({key: value for key, value in RECORD.items() if key != name})
            for name in ("pid", "keys", "boot_id")
        ),
        json.dumps({**RECORD, "pid": "one"}),
        json.dumps({**RECORD, "pid": None}),
        json.dumps({**RECORD, "pid": [7]}),
        json.dumps({**RECORD, "pid": float("inf")}),
        json.dumps({**RECORD, "pid": float("nan")}),
        json.dumps({**RECORD, "start_ticks": 1e400}),
        json.dumps({**RECORD, "taken_at": "now"}),
        json.dumps({**RECORD, "taken_at": 10**400}),
        json.dumps({**RECORD, "keys": None}),
        json.dumps({**RECORD, "keys": 5}),
        json.dumps({**RECORD, "inode": None}),
    ],
)
def test_garbage_is_no_lease(text: str) -> None:
    """A damaged file must not keep the manager from starting."""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        Lease.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(RECORD, JSON)) | JSON)
def test_any_json_is_a_lease_or_a_value_error(values: object) -> None:
    """Whatever lies there."""
    for one in (values, {**RECORD, **values} if isinstance(values, dict) else values):
        with suppress(ValueError):
            Lease.from_json(json.dumps(one))
