"""The layout of a CVMFS repository of images: `<namespace>/<image>:<tag>` links to `.images/<aa>/<rest of the digest>`.

It is that of the existing repositories, with their record of what no name leads to any more (`.missing_links.json`).
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache_manager import removal
from cache_manager.layout import IMAGES, with_tag
from cache_manager.text import printable
from sync import files
from sync.treecopy import copy_tree
from sync.values import Converted

MISSING: Final = ".missing_links.json"
_KEY: Final = "missing_links"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_RECORD: Final = 64 << 20


class Incomplete(Exception):  # noqa: N818 - a finding
    """A copy has not as many files as what was converted."""


def place_of(digest: str) -> str:
    """Return where an image of this digest (`sha256:…`) lies, below the repository. Raises OSError for no digest."""
    text = digest.removeprefix("sha256:")
    if not _DIGEST.fullmatch(text):
        raise OSError(errno.EINVAL, "is no digest", printable(digest))
    return f"{IMAGES}/{text[:2]}/{text[2:]}"


@dataclass(frozen=True, slots=True)
class Sandboxes:
    """A repository's directory, as it can be read or written now.

    Links name `linked_root` wherever `root` is; `may_move`: what is on the same file system need not be copied.
    """

    root: Path
    linked_root: str
    may_move: bool = False

    def add(self, one: Converted) -> str:
        """Put an image where its digest says, unless it is there, and return that place. Raises OSError, Incomplete."""
        place = place_of(one.variant.digest)
        target = self.root / place
        if target.is_dir():
            return place
        store = self.root / IMAGES
        files.make_directories(target.parent)
        if not (self.may_move and _moved(Path(one.tree_path), target)):
            fresh = files.temporary(store / "any")
            try:
                _copied(one, fresh)
            except (OSError, Incomplete):  # its room is needed
                removal.remove(fresh)
                raise
            files.sync_file_system(store)
            fresh.rename(target)
        files.sync_directory(target.parent)
        return place

    def link(self, name: str, place: str) -> None:
        """Make a name lead to an image, whatever it led to before. Raises OSError."""
        path = self.root / with_tag(name)
        target = f"{self.linked_root}/{place}"
        if path.is_symlink() and str(path.readlink()) == target:
            return
        files.make_directories(path.parent)
        files.place_link(path, target)

    def unlink(self, name: str) -> None:
        """Take a name away, and the directories that held nothing else. Raises OSError."""
        path = self.root / name
        path.unlink(missing_ok=True)
        for above in list(path.relative_to(self.root).parents)[:-1]:
            try:
                (self.root / above).rmdir()
            except OSError:  # others are in it
                return

    def remove(self, place: str) -> None:
        """Remove an image. Killed on the way, it is gone nevertheless, and its rest goes at the next start."""
        path = self.root / place
        if not path.is_dir():  # names of one digest shared it
            return
        hidden = files.temporary(self.root / IMAGES / "any")
        path.rename(hidden)
        files.sync_directory(path.parent)
        removal.remove(hidden)

    def begin(self) -> None:
        """Remove what killed processes left. Raises OSError."""
        files.remove_leftovers(self.root / IMAGES)
        for directory, entries in _directories_below(self.root):
            if any(entry.name.startswith(files.TEMPORARY) for entry in entries):
                files.remove_leftovers(directory)

    def links(self) -> dict[str, str]:
        """Return where each name leads: to a place below the repository; only those that lead to an image."""
        found = {}
        for _, entries in _directories_below(self.root):
            for path in (Path(one.path) for one in entries if one.is_symlink() and one.name[0] != "."):
                target = path.readlink()
                place = self._place(str(target) if target.is_absolute() else os.path.normpath(path.parent / target))
                if place:
                    found[str(path.relative_to(self.root))] = place
        return found

    def _place(self, target: str) -> str:
        for start in (self.linked_root, str(self.root)):
            if target.startswith(f"{start}/{IMAGES}/"):
                return target.removeprefix(f"{start}/").rstrip("/")
        return ""

    def images(self) -> set[str]:
        """Return the places of all images; `.images/sha256:ab/cdef` of older publishers are among them."""
        found = set()
        for above in _directories(self.root / IMAGES):
            if not above.name.startswith(files.TEMPORARY):
                found |= {f"{IMAGES}/{above.name}/{one.name}" for one in _directories(above)}
        return found

    def missing_since(self) -> dict[str, float]:
        """Return since when no name leads to these places. What cannot be read counts as nothing: grace begins anew."""
        path = self.root / MISSING
        try:
            with path.open("rb") as stream:
                record = json.loads(stream.read(_MAX_RECORD))[_KEY]
            found = {self._place(str(name)): float(since) for name, since in record.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        return {place: since for place, since in found.items() if place}

    def write_missing(self, since: Mapping[str, float]) -> None:
        """Record since when no name leads to these places, as existing repositories do. Raises OSError."""
        record = {f"{self.linked_root}/{place}": when for place, when in sorted(since.items())}
        files.write_whole(self.root / MISSING, json.dumps({_KEY: record}, indent=1).encode() + b"\n")


def _copied(one: Converted, target: Path) -> None:
    copied = copy_tree(Path(one.tree_path), target)
    if copied.inodes != one.tree_inodes:
        raise Incomplete(f"{one.name}: {copied.inodes} files copied, {one.tree_inodes} were converted")


def _moved(source: Path, target: Path) -> bool:
    """Move a tree, if it is on the same file system, and its top may be.

    In one step: the publisher may be killed before it and after it, and where else would the tree come from?
    """
    if source.stat().st_dev != target.parent.stat().st_dev:
        return False
    files.sync_file_system(source)
    try:
        source.rename(target)
    except PermissionError:
        return False
    return True


def _directories_below(root: Path) -> Iterator[tuple[Path, list[os.DirEntry[str]]]]:
    """Yield the directories of a repository and what is in them; images are not looked into."""
    waiting = [root] if root.is_dir() else []
    while waiting:
        here = waiting.pop()
        with os.scandir(here) as found:
            entries = list(found)
        yield here, entries
        waiting += [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False) and one.name[0] != "."]


def _directories(path: Path) -> list[Path]:
    try:
        return [one for one in path.iterdir() if one.is_dir() and not one.is_symlink()]
    except FileNotFoundError:
        return []
