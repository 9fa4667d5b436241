"""When an EP should take no more container jobs: distinct images of distinct owners fail here, for reasons of this EP.

A cache directory that cannot be used fails all images alike: there one is enough.

Pure; the clock is passed in. One broken image, or one user with broken jobs, never closes an EP, and neither does a
source that is down. A success, or a good look at the EP itself, opens it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cache_manager.status import HookStatus

IMAGES: Final = 3
"""So many distinct images have to fail ..."""

OWNERS: Final = 2
"""... of so many distinct owners ..."""

WINDOW_S: Final = 600.0
"""... within this time, without a success in between."""

EP_FAULTS: Final = frozenset(
    {
        HookStatus.CACHE_UNUSABLE,
        HookStatus.HOOK_INTERNAL_ERROR,
        HookStatus.CACHE_FULL,
        HookStatus.DISK_FULL,
        HookStatus.CVMFS_UNAVAILABLE,
        HookStatus.IMAGE_UNPACK_FAILED,
    }
)
"""What says something of this EP. The other 3xx and 4xx are about one image: its scheme, size, path or server."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A job that did not run here."""

    at: float
    status: HookStatus
    image: str
    owner: str
    """By whom it counts; see `counts_for`."""


def counts_for(uid: int, owner: str, shared: Collection[int]) -> str:
    """Return by whom a failure counts: the uid that the kernel names, because an ad says what its user likes.

    Only behind a uid that many users share is there nothing but the ad's `owner` to tell them apart.
    """
    return f"{uid} {owner}" if uid in shared else str(uid)


class Health:
    """Remembers what went wrong since the last success."""

    def __init__(self) -> None:
        self._failures: deque[Failure] = deque(maxlen=1000)
        self._unusable = ""

    def failed(self, failure: Failure) -> None:
        """Take note of a job that did not run; what is not this EP's fault does not count."""
        if failure.status in EP_FAULTS:
            self._failures.append(failure)
        if failure.status is HookStatus.CACHE_UNUSABLE:
            self._unusable = f"{failure.status.code} {failure.status.name} ({failure.image})"

    def succeeded(self) -> None:
        """Take note of a job that runs, or of a good look at the EP."""
        self._failures.clear()
        self._unusable = ""

    def root_is_well(self) -> None:
        """Take note that the cache directory can be used; jobs that failed by it still count as all others."""
        self._unusable = ""

    def trouble(self, now: float) -> str:
        """Return why no more container jobs should come; empty if they may."""
        if self._unusable:  # the same for every image
            return f"the cache directory could not be used for the last job: {self._unusable}"
        recent = [one for one in self._failures if now - one.at < WINDOW_S]
        images, owners = {one.image for one in recent}, {one.owner for one in recent}
        if len(images) < IMAGES or len(owners) < OWNERS:
            return ""
        last = recent[-1]
        return (
            f"{len(images)} images of {len(owners)} owners failed here in {WINDOW_S / 60:.0f} minutes,"
            f" the last with {last.status.code} {last.status.name} ({last.image})"
        )

    @property
    def statuses(self) -> frozenset[HookStatus]:
        """What went wrong, to know what has to be looked at."""
        return frozenset(one.status for one in self._failures)
