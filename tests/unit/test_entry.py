"""The record that lies beside an image."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache_manager.entry import CacheEntry
from tests.unit.builders import entry, key_of

RECORD = json.loads(entry().to_json())


@given(
    st.builds(
        CacheEntry,
        key=st.text(max_size=9).flatmap(lambda text: st.sampled_from([key_of(text), key_of(text, "sandbox")])),
        name=st.text(max_size=40),
        origin=st.text(max_size=40),
        size_bytes=st.integers(0, 2**60),
        disk_bytes=st.integers(0, 2**60),
        inodes=st.integers(0, 2**40),
        created_at=st.floats(0, 1e11),
        architecture=st.text(max_size=8),
        public=st.booleans(),
        last_used_at=st.floats(0, 1e11),
    )
)
def test_a_record_reads_back_as_it_was(one: CacheEntry) -> None:
    """The last use is the file's time of change and not in the record, which never changes."""
    found = CacheEntry.from_json(one.to_json(), one.last_used_at)
    assert found == one
    assert found.last_used_at == one.last_used_at
    assert "last_used_at" not in one.to_json()


def test_the_key_tells_digest_and_format() -> None:
    """Both are in the name of the directory."""
    assert (entry("a").digest, entry("a").format) == (key_of("a")[:64], "sif")


def test_a_record_of_a_newer_version_is_read() -> None:
    """After a downgrade the cache is not thrown away."""
    text = json.dumps({**RECORD, "licence": "a field that we do not know", "last_used_at": 5})
    assert CacheEntry.from_json(text, 7.0) == entry()
    assert CacheEntry.from_json(text, 7.0).last_used_at == 7.0


@pytest.mark.parametrize("missing", ["key", "name", "origin", "size_bytes", "disk_bytes", "inodes", "created_at"])
def test_a_record_without_a_field_is_none(missing: str) -> None:
    """Half a record is no record."""
    with pytest.raises(ValueError, match=missing):
        CacheEntry.from_json(json.dumps({name: value for name, value in RECORD.items() if name != missing}), 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        '"text"',
        "{}",
        "\x00",
        "[" * 100_000,
        json.dumps({**RECORD, "key": "README"}),
        json.dumps({**RECORD, "key": 5}),
        json.dumps({**RECORD, "key": None}),
        json.dumps({**RECORD, "key": ["a"]}),
        json.dumps({**RECORD, "size_bytes": "5"}),
        json.dumps({**RECORD, "size_bytes": -1}),
        json.dumps({**RECORD, "size_bytes": None}),
        json.dumps({**RECORD, "disk_bytes": float("nan")}),
        json.dumps({**RECORD, "disk_bytes": float("inf")}),
        json.dumps({**RECORD, "inodes": [3]}),
        json.dumps({**RECORD, "created_at": "now"}),
        json.dumps({**RECORD, "name": 5}),
        json.dumps({**RECORD, "origin": None}),
        json.dumps({**RECORD, "architecture": ["x86_64"]}),
        json.dumps({**RECORD, "public": "no"}),
    ],
)
def test_garbage_is_no_record(text: str) -> None:
    """A damaged file costs one image, and neither the start of the manager nor the slot ad of a running one."""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        CacheEntry.from_json(text, 0.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5), st.lists, max_leaves=4
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(RECORD, JSON)) | JSON)
@example({**RECORD, "key": {}})
def test_any_json_is_a_record_or_a_value_error(values: object) -> None:
    """Whatever lies there."""
    for one in (values, {**RECORD, **values} if isinstance(values, dict) else values):
        with suppress(ValueError):
            CacheEntry.from_json(json.dumps(one), 0.0)
