"""When an EP stops taking container jobs, and when it takes them again."""

from __future__ import annotations

import pytest

from cache_manager.health import EP_FAULTS, WINDOW_S, Failure, Health, counts_for
from cache_manager.status import HookStatus

FULL = HookStatus.DISK_FULL


def health_after(*failures: tuple[float, str, str], status: HookStatus = FULL) -> Health:
    """Return the health after failures, each with its time, image and owner."""
    one = Health()
    for at, image, owner in failures:
        one.failed(Failure(at, status, image, owner))
    return one


THREE = ((0.0, "a", "joe"), (1.0, "b", "amy"), (2.0, "c", "joe"))


@pytest.mark.parametrize(
    ("failures", "closed"),
    [
        (THREE, True),
        (THREE[:2], False),
        (((0.0, "a", "joe"), (1.0, "b", "joe"), (2.0, "c", "joe")), False),
        (((0.0, "a", "joe"), (1.0, "a", "amy"), (2.0, "a", "bob")), False),
        (((0.0, "a", "joe"), (1.0, "b", "amy"), (2.0, "b", "joe")), False),
        (((-WINDOW_S, "a", "joe"), (1.0, "b", "amy"), (2.0, "c", "joe")), False),
        ((), False),
    ],
    ids=["three images", "two images", "one owner", "one image", "two images again", "long ago", "nothing"],
)
def test_distinct_images_of_distinct_owners_close_an_ep(
    failures: tuple[tuple[float, str, str], ...], *, closed: bool
) -> None:
    """One broken image, or one user with broken jobs, never does."""
    assert bool(health_after(*failures).trouble(2.0)) is closed


@pytest.mark.parametrize(
    ("shared", "uids", "closed"),
    [((), (1000, 1000), False), ((), (1000, 1001), True), ((65534,), (65534, 65534), True), ((0,), (0, 0), True)],
    ids=["one user of two names", "two users", "whose users have no account here", "as HTCondor says"],
)
def test_who_failed_is_the_kernels_word_where_a_uid_is_one_user(
    shared: tuple[int, ...], uids: tuple[int, int], *, closed: bool
) -> None:
    """A job may say any name of itself."""
    joe, amy = (counts_for(uid, name, shared) for uid, name in zip(uids, ("joe", "amy"), strict=True))
    one = health_after((0.0, "a", joe), (1.0, "b", amy), (2.0, "c", joe))
    assert bool(one.trouble(2.0)) is closed


def test_the_reason_names_status_and_image() -> None:
    """An admin reads it in the slot ad."""
    assert "430 DISK_FULL (c)" in health_after(*THREE).trouble(2.0)


def test_a_success_or_time_opens_it_again() -> None:
    """An EP that works must not stay closed."""
    one = health_after(*THREE)
    assert one.trouble(WINDOW_S - 1)
    assert not one.trouble(WINDOW_S)
    one.succeeded()
    assert not one.trouble(2.0)
    assert one.statuses == frozenset()


@pytest.mark.parametrize("status", HookStatus)
def test_only_faults_of_this_ep_count(status: HookStatus) -> None:
    """A source that is down, or a user's error, is the same on every EP."""
    assert bool(health_after(*THREE, status=status).trouble(2.0)) is (status in EP_FAULTS)
    if status.holds or 600 <= status.code < 700 or status is HookStatus.OK:
        assert status not in EP_FAULTS


def test_a_cache_directory_that_cannot_be_used_closes_an_ep_at_once() -> None:
    """It fails all images alike; what is known to be well again counts like any other failure."""
    one = health_after((0.0, "a", "joe"), status=HookStatus.CACHE_UNUSABLE)
    assert "340 CACHE_UNUSABLE (a)" in one.trouble(0.0)
    one.root_is_well()
    assert not one.trouble(0.0)
    for at, image, owner in THREE[1:]:
        one.failed(Failure(at, HookStatus.CACHE_UNUSABLE, image, owner))
    one.root_is_well()
    assert "3 images of 2 owners" in one.trouble(2.0)
    one.succeeded()
    assert not one.trouble(2.0)
