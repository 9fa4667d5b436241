"""Access control lists, as the kernel takes and gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager import acl


@pytest.mark.parametrize("uids", [[], [1000], [1001, 1000, 1000], [2**31, 2**32 - 2]])
def test_who_is_admitted_is_read_back(tmp_path: Path, uids: list[int]) -> None:
    """From the directory itself, which is the only record."""
    acl.admit(tmp_path, uids)
    assert acl.readers(tmp_path) == set(uids)
    assert tmp_path.stat().st_mode & 0o007 == 0
    acl.remove(tmp_path)
    assert acl.readers(tmp_path) == frozenset()


def test_a_directory_without_a_list_has_nobody_in_it(tmp_path: Path) -> None:
    """And taking it away twice is no error."""
    assert acl.readers(tmp_path) == frozenset()
    acl.remove(tmp_path)


def test_whether_a_file_system_keeps_lists_is_tried_and_leaves_nothing(tmp_path: Path) -> None:
    """/proc keeps none."""
    mode = tmp_path.stat().st_mode
    assert acl.works_on(tmp_path)
    assert acl.readers(tmp_path) == frozenset()
    assert (tmp_path.stat().st_mode ^ mode) & 0o007 == 0
    assert not acl.works_on(Path("/proc/self"))


@given(st.sets(st.integers(0, 2**32 - 2), max_size=20))
def test_the_kernel_takes_any_set_of_users(tmp_path_factory: pytest.TempPathFactory, uids: set[int]) -> None:
    """In any order."""
    place = tmp_path_factory.mktemp("place")
    acl.admit(place, uids)
    assert acl.readers(place) == uids
