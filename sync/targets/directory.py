"""Plain directories: a repository's layout of sandboxes without CVMFS, and a tree of SIFs, e.g. what an origin exports.

Everything becomes visible by one rename, in an order in which no reader is led to what is not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cache_manager.disk import room
from sync import files
from sync.targets.base import Needed, NoRoom, TargetError, refuse_too_much, told
from sync.targets.sandboxes import Incomplete, Sandboxes


class SandboxDirectory:
    """A directory that has the layout of a CVMFS repository, on one file system."""

    def __init__(self, root: Path, linked_root: str = "") -> None:
        self.root = root
        self._linked_root = linked_root or str(root)

    def begin(self) -> str:
        """See SandboxTarget."""
        with _told(self.root):
            files.make_directories(self.root)
            self.readable().begin()
        return ""

    def readable(self) -> Sandboxes:
        """See SandboxTarget."""
        return Sandboxes(self.root, self._linked_root, may_move=True)

    @contextmanager
    def writing(self, needed: Needed) -> Iterator[Sandboxes]:
        """See SandboxTarget. Each change is seen at once."""
        with _told(self.root):
            refuse_too_much("sandboxes", self.root, needed, room(str(self.root)))
            yield self.readable()


class SifDirectory:
    """A directory with a tree of SIFs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self) -> None:
        """See FileStore."""
        with _told(self.root):
            files.make_directories(self.root)
            files.remove_leftovers(self.root)
            for arch in self.root.iterdir():
                if arch.is_dir():
                    for image in arch.iterdir():
                        files.remove_leftovers(image) if image.is_dir() else None

    def add(self, path: str, source: Path, sha256: str) -> None:
        """See FileStore."""
        target = self.root / path
        with _told(target):
            files.make_directories(target.parent)
            size = source.stat().st_size
            refuse_too_much(path, target.parent, Needed(size, 1), room(str(target.parent)))
            files.copy_whole(source, target, sha256)

    def replace(self, path: str, content: bytes) -> None:
        """See FileStore."""
        target = self.root / path
        with _told(target):
            files.make_directories(target.parent)
            files.write_whole(target, content)

    def remove(self, path: str) -> bool:
        """See FileStore. The directory of an image that has none left goes too."""
        target = self.root / path
        with _told(target):
            target.unlink(missing_ok=True)
            with suppress(OSError):  # others are in it
                target.parent.rmdir()
        return True

    def versions(self, directory: str) -> set[str] | None:
        """See FileStore."""
        try:
            return {path.name for path in (self.root / directory).iterdir()}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise told(str(self.root / directory), error) from None


@contextmanager
def _told(place: Path) -> Iterator[None]:
    """Say of an OSError where it was."""
    try:
        yield
    except (TargetError, NoRoom):
        raise
    except OSError as error:
        raise told(str(place), error) from None
    except (Incomplete, files.Differs) as error:
        raise TargetError(str(error)) from None
