"""What lies on disk if a process is killed at any moment: taken down before each of its file operations.

The operations are seen as they happen, in whatever thread, by the interpreter's audit events and in place of
`os.write`, `os.fsync` and the sync of a file system; at each one the directory is kept as it is then. Between two such
moments a file that grew may have been written in part: that is one more moment. After a power loss the content of
files that were not synced may be missing as well. What a child does is seen where a test asks for it with `take`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cache_manager import disk

Files = Mapping[str, tuple[int, bytes | str | None, int]]
"""Path below the root -> mode, content (None: a directory; text: where a link leads), time of last change in ns."""

_EVENTS: Final = frozenset(
    {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.utime", "os.truncate", "os.symlink"}
)
_DIRECTORIES: Final = {
    "os.rename": (2, 3),
    "os.mkdir": (2,),
    "os.remove": (1,),
    "os.rmdir": (1,),
    "os.chmod": (0, 2),
    "os.utime": (0, 3),
    "os.truncate": (0,),
    "os.symlink": (2,),
}
"""Where among an event's arguments there may be a descriptor: of what is changed, or of the directory around it."""


@dataclass(frozen=True)
class Moment:
    """A moment at which the process may have ended: the next operation, the files, what must be true of them.

    `unsynced` are the files whose content a power loss may take.
    """

    before: str
    files: Files
    unsynced: frozenset[str]
    facts: Mapping[str, frozenset[str]]
    power_loss: bool = False

    def must(self, what: str) -> frozenset[str]:
        """Return the names of which something has to be true."""
        return self.facts.get(what, frozenset())


@dataclass
class Recorder:
    """Takes down the moments of what runs within `watch`. `look_at` judges those so far, and forgets them."""

    root: Path
    look_at: Callable[[Recorder], None] = lambda _: None
    moments: list[Moment] = field(default_factory=list)
    facts: dict[str, frozenset[str]] = field(default_factory=dict)
    looked_at: int = 0
    """How many moments were judged and forgotten."""
    _synced: dict[int, int] = field(default_factory=dict)
    _watching: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _looks: bool = False

    def must(self, what: str, *names: str) -> None:
        """State what is true from now on."""
        self.facts = self.facts | {what: frozenset(names)}
        self.take("the next operation")

    def look(self) -> None:
        """Have all moments so far judged now: while processes live that hold something."""
        self.look_at(self)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Take down what happens within."""
        real_write, real_fsync, real_sync = os.write, os.fsync, disk.sync_file_system

        def write(descriptor: int, data: Any) -> int:  # noqa: ANN401 - whatever has a buffer
            self.take("write")
            half = real_write(descriptor, memoryview(data)[: len(data) // 2])
            self.take("the second half of a write")
            return half + real_write(descriptor, memoryview(data)[half:])

        def fsync(descriptor: int) -> None:
            self.take("fsync")
            real_fsync(descriptor)
            found = os.fstat(descriptor)
            self._synced[found.st_ino] = found.st_size

        def sync_all(descriptor: int) -> None:  # noqa: ARG001 - a real one syncs what everybody else writes, too
            self.take("the sync of the file system")
            self._sync_all()

        self._sync_all()  # what lies there already has been there for long
        _LISTENERS.append(self._event)
        os.write, os.fsync = write, fsync  # type: ignore[assignment]
        disk.sync_file_system = sync_all
        self._watching = True
        try:
            yield
        finally:
            self._watching = False
            os.write, os.fsync, disk.sync_file_system = real_write, real_fsync, real_sync
            _LISTENERS.remove(self._event)
        self._watching = True
        self.take("the end")
        self._watching = False

    def _sync_all(self) -> None:
        with self._lock:
            files, inodes = _look(self.root)
            sizes = {path: len(content) for path, (_, content, _) in files.items() if content is not None}
            self._synced |= {inodes[path]: size for path, size in sizes.items()}

    def _event(self, name: str, arguments: tuple[Any, ...]) -> None:
        writes = name != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if name in _EVENTS and writes and any(str(self.root) in one for one in _paths(name, arguments)):
            self.take(f"{name} {str(arguments[0]).replace(str(self.root), '')}")

    def take(self, before: str) -> None:
        """Take a moment down: the next thing to happen is `before`."""
        with self._lock:  # what another thread does waits until it was looked
            if not self._watching or self._looks:
                return
            self._looks = True  # looking is no operation
            try:
                files, inodes = _look(self.root)
            finally:
                self._looks = False
            unsynced = frozenset(
                path
                for path, (_, content, _) in files.items()
                if isinstance(content, bytes) and self._synced.get(inodes[path]) != len(content)
            )
            if not self.moments or self.moments[-1].files != files or self.moments[-1].facts != self.facts:
                self.moments.append(Moment(before, files, unsynced, dict(self.facts)))

    def all_moments(self) -> Iterator[Moment]:
        """Yield each moment, those within a write, and what a power loss makes of them."""
        for number, moment in enumerate(self.moments):
            last = self.moments[max(0, number - 1)]
            before = {content for _, content, _ in last.files.values()}
            for path, (mode, content, changed) in moment.files.items():
                if isinstance(content, bytes) and len(content) > 1 and content not in before:
                    half = {**moment.files, path: (mode, content[: len(content) // 2], changed)}
                    yield Moment(f"half of {path}", half, moment.unsynced, last.facts)
            yield moment
            lost = {
                path: (mode, b"" if path in moment.unsynced else content, changed)
                for path, (mode, content, changed) in moment.files.items()
            }
            yield Moment(moment.before, lost, frozenset(), moment.facts, power_loss=True)


def _paths(name: str, arguments: tuple[Any, ...]) -> list[str]:
    """Return the paths that an event is about. Trees are removed by names below open directories."""
    paths = [str(one) for one in arguments[:2]]
    for place in _DIRECTORIES.get(name, ()):
        descriptor = arguments[place]
        if isinstance(descriptor, int) and descriptor >= 0:
            paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    return paths


def _look(root: Path) -> tuple[Files, dict[str, int]]:
    files: dict[str, tuple[int, bytes | str | None, int]] = {}
    inodes = {}
    # os.walk passes over a directory that a removal in another thread has just taken away
    there = [Path(top) / name for top, names, leaves in os.walk(root) for name in (*names, *leaves)]
    for path in sorted(there):
        try:
            found = path.lstat()
            content: bytes | str | None = None
            if path.is_symlink():
                content = str(path.readlink())
            elif path.is_file():
                content = path.read_bytes()
        except FileNotFoundError:  # a removal in a thread
            continue
        name = str(path.relative_to(root))
        files[name] = (found.st_mode & 0o7777, content, found.st_mtime_ns)
        inodes[name] = found.st_ino
    return files, inodes


def restore(moment: Moment, root: Path) -> None:
    """Make a directory what it was at a moment."""
    root.mkdir(parents=True)
    for name, (mode, content, changed) in moment.files.items():
        path = root / name
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
            continue
        else:
            path.write_bytes(content)
            os.utime(path, ns=(changed, changed))
        path.chmod(mode if content is not None else mode | 0o700)


_LISTENERS: Final[list[Callable[[str, tuple[Any, ...]], None]]] = []


def _hear(name: str, arguments: tuple[Any, ...]) -> None:
    for listener in _LISTENERS:
        listener(name, arguments)


sys.addaudithook(_hear)  # for ever: the interpreter takes none back
