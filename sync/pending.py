"""What was converted and is not published yet, in the work directory: it is not converted again after a crash."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cache_manager import removal
from sync import files
from sync.request import RequestError, result_from_json, result_to_json
from sync.values import Converted

RECORDS: Final = "converted"

_EMPTY: Final = frozenset({"lost+found"})
"""What an empty file system has."""


class Pending:
    """The conversions that wait for their publication. Everything may raise OSError."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._found: dict[tuple[str, str], Converted] = {}

    @property
    def _records(self) -> Path:
        return self._work / RECORDS

    def begin(self, wanted: Iterable[tuple[str, str]]) -> int:
        """Keep what is wanted (architecture, digest) and whole, remove all else that is in the work directory.

        Returns how many conversions are kept. Raises OSError for a directory that is somebody else's.
        """
        self._refuse_what_is_not_ours()
        files.make_directories(self._records)
        keep = set(wanted)
        for path in list(self._records.iterdir()):
            one = _read(path)
            if one is not None and (one.variant.arch, one.variant.digest) in keep and Path(one.sif_path).is_file():
                self._found[one.variant.arch, one.variant.digest] = one
            else:
                removal.remove(path)
        used = {self._records, *(Path(path) for one in self._found.values() for path in (one.tree_path, one.sif_path))}
        self._sweep(self._work, used)
        return len(self._found)

    def _refuse_what_is_not_ours(self) -> None:
        """Refuse a directory without any publisher's records: a wrong word in sync.yaml shall not remove a home."""
        if self._work.is_dir() and not self._records.is_dir() and {one.name for one in self._work.iterdir()} - _EMPTY:
            what = "holds what no publisher put there: work_directory has to be a directory of its own, empty at first"
            raise OSError(errno.ENOTEMPTY, what, str(self._work))

    def _sweep(self, directory: Path, used: set[Path]) -> None:
        above = {parent for path in used for parent in path.parents}
        for path in list(directory.iterdir()):
            if path in used or path.name in _EMPTY:
                continue
            if path in above:
                self._sweep(path, used)
            else:
                removal.remove(path)

    def get(self, arch: str, digest: str) -> Converted | None:
        """Return a conversion that is there already."""
        return self._found.get((arch, digest))

    def put(self, one: Converted) -> None:
        """Remember a conversion; its files are synced first."""
        files.sync_file_system(self._work)
        files.write_whole(self._path(one), result_to_json(one).encode())
        self._found[one.variant.arch, one.variant.digest] = one

    def drop(self, one: Converted) -> None:
        """Remove a conversion that was published, and its files."""
        self._found.pop((one.variant.arch, one.variant.digest), None)
        self._path(one).unlink(missing_ok=True)
        for path in (Path(one.tree_path), Path(one.sif_path)):
            removal.remove(path)
            with suppress(OSError):  # others are in it
                if self._work in path.parent.parents:
                    path.parent.rmdir()

    def _path(self, one: Converted) -> Path:
        return self._records / f"{one.variant.arch}-{one.variant.digest.rpartition(':')[2]}.json"


def _read(path: Path) -> Converted | None:
    try:
        one = result_from_json(path.read_text(encoding="utf-8"))
    except (RequestError, OSError, UnicodeDecodeError):
        return None
    return one if isinstance(one, Converted) else None
