"""What the container runtime does for the cache, as a value: who fetches takes it from whoever has a runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cache_manager.abilities import UNKNOWN, Abilities
from cache_manager.archive import Archive
from cache_manager.staging import Staging
from cache_manager.status import HookStatus, StatusError


def _cannot_unpack(_staging: Staging, name: str, _grow: Callable[[int, int], None]) -> None:
    raise StatusError(HookStatus.NO_CONTAINER_RUNTIME, f"{name}: there is nothing here that unpacks images")


def _cannot_convert(
    _staging: Staging, _archive: Archive, name: str, _grow: Callable[[int, int], None], *, sandbox: bool
) -> str:
    what = "directory" if sandbox else "SIF"
    raise StatusError(HookStatus.NO_CONTAINER_RUNTIME, f"{name}: there is nothing here that makes a {what} of layers")


class Convert(Protocol):
    """Puts a SIF, or a directory, in the place of an archive in staging; returns the SIF's digest."""

    def __call__(
        self, staging: Staging, archive: Archive, name: str, grow: Callable[[int, int], None], /, *, sandbox: bool
    ) -> str:
        """Convert, asking for bytes and files as it goes. Raises StatusError, OSError."""


@dataclass(frozen=True, slots=True)
class Runner:
    """What the container runtime does for the cache. All but `abilities` may block.

    `abilities` tells what can be run here; `why_not` starts an image once, and says why it does not, empty if it does;
    `unpack` puts a directory in the place of the SIF in staging, asking for bytes and files as it goes; `convert` does
    that with an archive of layers.
    """

    abilities: Callable[[], Abilities] = lambda: UNKNOWN
    why_not: Callable[[str], str] = lambda _: ""
    unpack: Callable[[Staging, str, Callable[[int, int], None]], None] = _cannot_unpack
    convert: Convert = _cannot_convert


NO_RUNNER: Final = Runner()
"""Everything is taken to run, nothing is tried and nothing unpacked."""
