"""The catalog while a run changes it: remembered at each change, and shown to readers after each batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from sync.catalog import UNKNOWN, Catalog, Version, render
from sync.events import Doing, Publication
from sync.memory import Memory
from sync.targets.siftree import SifTree


class Ledger:
    """The one place that changes the catalog. `clock` gives the time in epoch seconds."""

    def __init__(self, memory: Memory, catalog: Catalog, clock: Callable[[], float]) -> None:
        self._memory = memory
        self._clock = clock
        self.catalog = catalog
        self._doing: dict[str, Doing] = {}
        self._telling = threading.Lock()
        self._begun = memory.begun()

    @property
    def now(self) -> float:
        """The time."""
        return self._clock()

    def save(self, catalog: Catalog) -> None:
        """Remember a changed catalog. Raises OSError."""
        self.catalog = replace(catalog, generated_at=self.now)
        self._memory.save(self.catalog)

    def show(self, tree: SifTree | None) -> None:
        """Show the catalog to readers. Raises TargetError."""
        if tree is not None:
            tree.publish_catalog(render(self.catalog).encode())

    def begin(self, name: str, arch: str, version: str) -> None:
        """Remember a version before the first of its files is written. Raises OSError."""
        self._begun.append((name, arch, version))
        self._memory.begin_versions(self._begun)

    def begun(self, name: str, arch: str) -> list[str]:
        """Return the versions of an image that were begun and never ended."""
        return [version for one, of, version in self._begun if (one, of) == (name, arch)]

    def published(self, catalog: Catalog, publications: Sequence[Publication]) -> None:
        """Remember publications, and the catalog with them. Raises OSError."""
        self.save(catalog)
        done = {(one.name, one.arch, one.version) for one in publications}
        self._begun = [one for one in self._begun if one not in done]
        self._memory.begin_versions(self._begun)
        self._memory.add(publications)

    def take_in_begun(self) -> None:
        """Have versions that a killed publisher began go one day, as those do that were replaced. Raises OSError."""
        catalog = self.catalog
        for name, arch, version in self._begun:
            image = catalog.get(name)
            if all((one.arch, one.version) != (arch, version) for one in image.versions):
                left = Version(arch, version, UNKNOWN, UNKNOWN, self.now, has_sif=True, superseded_at=self.now)
                catalog = catalog.with_image(replace(image, versions=(*image.versions, left)))
        self.save(catalog)
        self._begun = []
        self._memory.begin_versions([])

    def doing(self, name: str, what: str) -> None:
        """Say what is done with an image now; nothing: it is done. From any thread. Raises OSError."""
        with self._telling:
            if not what:
                if self._doing.pop(name, None):
                    self._memory.tell(self._doing)
            elif name not in self._doing or self._doing[name].what != what:
                since = self._doing[name].since if name in self._doing else self.now
                self._doing[name] = Doing(what, since)
                self._memory.tell(self._doing)

    def end(self) -> None:
        """Say that nothing is done any more. Raises OSError."""
        with self._telling:
            self._doing.clear()
            self._memory.tell({})
