"""What the publisher remembers from run to run, in its state directory: files that are written whole, or added to.

catalog.json    every image, its state, since when and why, and its versions (see sync.catalog)
history.jsonl   each publication that there was, a line each
progress.json   what the run that is under way does with which image
begun.json      versions that were begun: after a crash nobody else knows that their files may be there
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cache_manager.layout import CATALOG
from cache_manager.text import printable
from sync import catalog as catalogs
from sync import files
from sync.catalog import Catalog, CatalogError
from sync.events import Doing, Publication

log = logging.getLogger(__name__)

KEPT: Final = 20
"""How many publications of an image are remembered, at least."""

_HISTORY_BYTES: Final = 8_000_000
"""A larger history is shortened at the next start."""


class Forgotten(Exception):  # noqa: N818 - a finding
    """What was remembered cannot be read, and nothing may be published as if there had been nothing."""


class Memory:
    """The state directory. Everything may raise OSError."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def begin(self) -> None:
        """Make the directory, and clear up what a killed publisher left."""
        files.make_directories(self.directory)
        files.remove_leftovers(self.directory)
        path = self._path("history.jsonl")
        if path.exists() and path.stat().st_size > _HISTORY_BYTES:
            lines = [json.dumps(asdict(one)) for ones in self.history().values() for one in ones[-KEPT:]]
            files.write_whole(path, "".join(f"{line}\n" for line in lines).encode())

    def _path(self, name: str) -> Path:
        return self.directory / name

    def catalog(self) -> Catalog:
        """Return the catalog, an empty one at the first run. Raises Forgotten for one that cannot be read."""
        path = self._path(CATALOG)
        try:
            return catalogs.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Catalog()
        except (CatalogError, UnicodeDecodeError) as error:
            why = f"{path}: {printable(str(error), 200)}; put the last good one in its place (the tree has a copy)"
            raise Forgotten(why) from None

    def save(self, catalog: Catalog) -> None:
        """Remember the catalog."""
        files.write_whole(self._path(CATALOG), catalogs.render(catalog).encode())

    def add(self, publications: Sequence[Publication]) -> None:
        """Remember publications."""
        with self._path("history.jsonl").open("ab") as stream:
            stream.write("".join(json.dumps(asdict(one)) + "\n" for one in publications).encode())
            stream.flush()
            os.fsync(stream.fileno())

    def history(self) -> dict[str, list[Publication]]:
        """Return the publications of each image, the oldest first. A line that was not finished is left out."""
        found: dict[str, list[Publication]] = defaultdict(list)
        try:
            text = self._path("history.jsonl").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return {}
        for line in text.splitlines():
            with suppress(ValueError, TypeError, KeyError):
                record = json.loads(line)
                one = Publication(**{key: record[key] for key in ("at", "name", "arch", "digest", "version")})
                found[one.name].append(one)
        return dict(found)

    def tell(self, doing: Mapping[str, Doing]) -> None:
        """Say what is done with which image now; nothing: no run is under way."""
        path = self._path("progress.json")
        if not doing:
            path.unlink(missing_ok=True)
            return
        images = {name: [one.what, one.since] for name, one in doing.items()}
        record = {"pid": os.getpid(), "host": socket.gethostname(), "images": images}
        files.write_whole(path, json.dumps(record).encode())

    def told(self) -> dict[str, Doing]:
        """Return what a run that is under way does; of a killed one nothing, as far as that can be seen from here."""
        try:
            record: dict[str, Any] = json.loads(self._path("progress.json").read_bytes())
            if record["host"] == socket.gethostname() and not Path(f"/proc/{int(record['pid'])}").exists():
                return {}
            return {str(name): Doing(str(what), float(since)) for name, (what, since) in record["images"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def begun(self) -> list[tuple[str, str, str]]:
        """Return name, architecture and version of what was begun and is not in the catalog yet."""
        try:
            record = json.loads(self._path("begun.json").read_bytes())
            return [(str(name), str(arch), str(version)) for name, arch, version in record]
        except (OSError, ValueError, TypeError):
            return []

    def begin_versions(self, versions: Sequence[tuple[str, str, str]]) -> None:
        """Remember versions whose files are about to be written; none: all that were begun are in the catalog."""
        if versions:
            files.write_whole(self._path("begun.json"), json.dumps(versions).encode())
        else:
            self._path("begun.json").unlink(missing_ok=True)
