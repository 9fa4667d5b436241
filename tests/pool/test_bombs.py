"""Images of kilobytes that would become a terabyte or ten million files: ended soon, and nothing is left of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.pool import bombs
from tests.pool.hostile_images import USERS, few_inodes, unpacked

FILES: Final = 20_000

GROWS: Final = (bombs.shared_blocks, bombs.zeros)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("make", GROWS, ids=lambda make: make.__name__)
def test_a_megabyte_that_would_become_a_terabyte_is_ended(user: str | None, make: Callable[[], bytes]) -> None:
    """Blocks that a thousand files share, and a hole that is written as zeros."""
    data = make()
    assert len(data) < 10**6
    found = unpacked(user, data)
    assert found.first["status"] == 320, found.report
    assert found.is_contained()


@pytest.mark.parametrize("user", USERS)
def test_a_hole_of_a_terabyte_takes_no_room(user: str | None) -> None:
    """It is what its file says it is, and stays one."""
    found = unpacked(user, bombs.hole())
    assert found.first["status"] == 0, found.report
    assert found.first["disk_bytes"] < 10**6
    assert found.is_contained()


MANY: Final = (bombs.shared_listing, bombs.files)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("make", MANY, ids=lambda make: make.__name__)
def test_ten_million_files_are_ended_where_files_are_limited(user: str | None, make: Callable[[], bytes]) -> None:
    """Under one name each, or a thousand under ten thousand."""
    found = unpacked(user, make(), files=FILES, cap_bytes=200_000_000)
    assert found.first["status"] == 320, found.report
    assert found.is_contained()


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("make", MANY, ids=lambda make: make.__name__)
def test_ten_million_files_end_with_the_file_systems_inodes(user: str | None, make: Callable[[], bytes]) -> None:
    """Where the cache has no limit of its own: the next image has inodes again."""
    with few_inodes(60_000):
        found = unpacked(user, make(), cap_bytes=200_000_000)
        assert found.first["status"] == 430, found.report
        assert found.is_contained()


@pytest.mark.parametrize("user", USERS)
def test_directories_that_hold_themselves_again_are_no_image(user: str | None) -> None:
    """A few kilobytes would be ten million names."""
    found = unpacked(user, bombs.nested_listings(), files=FILES)
    assert found.first["status"] == 450, found.report
    assert found.is_contained()
