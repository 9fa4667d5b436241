"""Which sources are switched off here: the file of the sites' exceptions, read again when it changes."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path

from cache_manager import exceptions
from cache_manager.exceptions import SiteException
from cache_manager.settings import Settings

log = logging.getLogger(__name__)


class Switches:
    """What IMAGE_CACHE_EXCEPTIONS says of this EP. `read` blocks, and is for a thread."""

    def __init__(self) -> None:
        self.faults: tuple[str, ...] = ()
        """What is wrong with the file; nothing of that is fatal: the lines that are none are passed over."""
        self._rules: tuple[SiteException, ...] = ()
        self._seen: object = None

    def read(self, settings: Settings) -> None:
        """Read the file, if it is another than before. What is wrong is logged once."""
        rules, faults, seen = self._rules, self.faults, self._look(settings.exceptions)
        if seen == self._seen:
            return
        if isinstance(seen, str):
            rules, faults = (), (seen,) if seen else ()
        else:
            try:
                rules, faults = exceptions.parse(Path(settings.exceptions).read_text("utf-8", "replace"))
            except OSError as error:
                rules, faults = (), (error.strerror or str(error),)
        self._rules, self.faults, self._seen = rules, faults, seen
        for fault in faults:
            log.warning("IMAGE_CACHE_EXCEPTIONS %s: %s", settings.exceptions, fault)

    def _look(self, path: str) -> object:
        """Return what tells one state of the file from the next: a text if there is none, which says why."""
        if not path:
            return ""
        try:
            found = os.stat(path)  # noqa: PTH116 - numbers
        except OSError as error:
            return error.strerror or str(error)
        return path, found.st_mtime_ns, found.st_size, found.st_ino

    def federations_off(self, settings: Settings) -> str:
        """Return why data federations are not asked here; empty if they are."""
        # two EPs on one host are told apart by their caches: a pilot's root is its own
        return exceptions.switched_off(self._rules, settings.site, f"{platform.node()} {settings.root}")
