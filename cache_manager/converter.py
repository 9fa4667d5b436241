"""Conversion: an archive of layers becomes an image that runs here, a SIF or a directory. One at a time, within limits.

The limits are those of unpacking (see `unpacker`). The runtime reads the archive in staging and asks no registry: it
gets no credential, and what it keeps for itself lies in staging too, counted while it grows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cache_manager import limited, removal
from cache_manager.archive import Archive
from cache_manager.growth import Grow, Growth
from cache_manager.limited import Limits
from cache_manager.runtime import Runtime
from cache_manager.settings import Settings
from cache_manager.staging import IMAGE, Staging
from cache_manager.status import HookStatus, StatusError
from cache_manager.text import human_bytes
from cache_manager.unpacker import tidy

log = logging.getLogger(__name__)

START_S: Final = 120.0
RATE_BYTES: Final = 500_000
"""A conversion may take START_S, and a second for each RATE_BYTES of its compressed layers."""

OWN_FILES: Final = 100
"""What lies beside the image's own files while it is converted."""

_WORK, _MADE = "work", "made"
_MOST: Final = 300
"""Characters of what a runtime said."""


class Converter:
    """Converts archives with one runtime. Methods block; only one image is converted at a time by whoever calls."""

    def __init__(self, runtime: Runtime, settings: Callable[[], Settings]) -> None:
        self._runtime = runtime
        self._settings = settings

    def convert(self, staging: Staging, archive: Archive, name: str, grow: Grow, *, sandbox: bool) -> str:
        """Put the image in the place of the finished archive in staging; return a SIF's digest, empty for a directory.

        Raises StatusError (IMAGE_UNPACK_FAILED, and those of `grow`), OSError.
        """
        began = time.monotonic()
        settings, directory = self._settings(), staging.directory
        work, made, packed = directory / _WORK, directory / _MADE, staging.size_bytes
        work.mkdir(mode=0o700)
        room = Growth(staging, grow, packed)
        room.need(2 * packed, OWN_FILES)
        limits = Limits(settings.convert_memory_bytes, settings.convert_cpus, START_S + packed / RATE_BYTES)
        source = f"{archive.transport}:{directory / IMAGE}"
        command = self._runtime.convert_command(source, str(made), sandbox=sandbox, cpus=settings.convert_cpus)
        ran = limited.run(command, limits, self._runtime.environment(str(work)), str(work), room.look)
        if ran.status != 0 or made.is_symlink() or not (made.is_dir() if sandbox else made.is_file()):
            room.look()  # it may have been the disk
            why = _last_words(ran.said, directory) or f"exit status {ran.status}"
            if ran.status is None:
                why = f"not done within {limits.seconds:.0f} s"
            raise StatusError(HookStatus.IMAGE_UNPACK_FAILED, f"{name}: could not be converted here: {why}")
        room.look()
        removal.remove(work)
        digest = ""
        if sandbox:
            tidy(made)
            (directory / IMAGE).unlink()
            made.rename(directory / IMAGE)
        else:
            staging.adopt(made)
            digest = staging.finish()
        log.info("converted %s: %s of layers in %.1f s", name, human_bytes(packed), time.monotonic() - began)
        return digest


def _last_words(said: str, directory: Path) -> str:
    """Return why a runtime gave up, for the job's author: from its last `FATAL`, without our own directory."""
    text = " ".join(said.split()).replace(f"{directory}/", "")
    start = text.rfind("FATAL")
    return text[start:][:_MOST] if start >= 0 else text[-_MOST:]
