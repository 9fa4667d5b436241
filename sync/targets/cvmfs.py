"""A CVMFS repository, written with `cvmfs_server` on its own machine: one transaction for many images.

A transaction that this publisher did not open is never ended by it. What it opened is in its own record, with the mark
that CVMFS set then: so the transaction of a publisher that was killed is known for its own, and nobody else's is.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cache_manager.disk import Room, room
from cache_manager.text import printable
from sync import files
from sync.targets.base import Needed, NoRoom, TargetError, refuse_too_much, told
from sync.targets.sandboxes import Incomplete, Sandboxes

log = logging.getLogger(__name__)

BASE: Final = Path("/cvmfs")
SPOOL: Final = Path("/var/spool/cvmfs")
COMMAND: Final = "cvmfs_server"
SHARE: Final = 0.9
"""Of what the spool's file system has: CVMFS needs some itself."""

_MARKS: Final = ("in_transaction.lock", "in_transaction")
"""What `cvmfs_server` keeps in the spool during a transaction, in its versions."""

_CATALOGS: Final = b"/.images/*/*\n"
"""Each image has a catalog of its own: without that, every client would load one of all files."""

_SAID_BYTES: Final = 2**20
_POLL_S: Final = 0.2
_FULL: Final = "No space left on device"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a repository is on this machine, and the program that writes it."""

    repository: str
    base: Path = BASE
    spool: Path = SPOOL
    command: str = COMMAND

    @property
    def root(self) -> Path:
        """Its mount."""
        return self.base / self.repository

    @property
    def area(self) -> Path:
        """Its own spool, in which a transaction is written."""
        return self.spool / self.repository


class CvmfsRepository:
    """See SandboxTarget. `record` is the file in which it says that it opened a transaction."""

    def __init__(self, place: Place, record: Path, look: Callable[[str], Room] = room) -> None:
        self._place = place
        self._record = record
        self._look = look

    def readable(self) -> Sandboxes:
        """See SandboxTarget."""
        return Sandboxes(self._place.root, str(BASE / self._place.repository))

    def begin(self) -> str:
        """See SandboxTarget: ends the transaction of a former run, if it is surely that.

        Raises TargetError also where this machine does not publish the repository: before anything is converted.
        """
        if not self._place.area.is_dir():
            name, command = self._place.repository, self._place.command
            why = f"is not published on this machine: no {self._place.area} (`{command} mkfs {name}` makes it)"
            raise TargetError(f"{name}: {why}", transient=False)
        ours, mark = self._recorded(), self._mark()
        self._await_publishing(ours)
        mark = self._mark()
        if mark is None:
            self._record.unlink(missing_ok=True)
            return ""
        if ours is None or ours.get("mark") != mark:
            raise TargetError(self._of_another(ours))
        self._run("abort", "-f")
        self._record.unlink(missing_ok=True)
        return (
            f"{self._place.repository}: aborted the transaction that this publisher left open (pid {ours.get('pid')})"
        )

    def _of_another(self, ours: dict[str, Any] | None) -> str:
        name = self._place.repository
        maybe = " (it may be this publisher's, which was killed while it opened one)" if ours else ""
        return (
            f"{name}: in a transaction that this publisher did not open{maybe}. Look at {self._place.area}; its owner"
            f" ends it with `{self._place.command} publish {name}` or `{self._place.command} abort {name}`"
        )

    @contextmanager
    def writing(self, needed: Needed) -> Iterator[Sandboxes]:
        """See SandboxTarget. Whatever goes wrong within aborts the transaction."""
        with _told(self._place.repository):
            share = Needed(int(needed.size_bytes / SHARE), needed.inodes)
            refuse_too_much(self._place.repository, self._place.area, share, self._look(str(self._place.area)))
        self._open()
        try:
            with _told(self._place.repository):
                target = self.readable()
                _want_catalogs(target.root)
                yield target
            self._publish()
        except BaseException:
            with suppress(TargetError, OSError):  # said below, and at the next start
                self._run("abort", "-f")
                self._record.unlink(missing_ok=True)
            raise
        self._record.unlink(missing_ok=True)

    def _open(self) -> None:
        if self._mark() is not None:
            raise TargetError(self._of_another(None))
        self._write_record(mark=None)
        try:
            self._run("transaction")
        except TargetError:
            self._record.unlink(missing_ok=True)
            raise
        self._write_record(mark=self._mark())

    def _publish(self) -> None:
        self._ask(("publish",), lambda pid: self._write_record(mark=self._mark(), publishing=pid))

    def _run(self, *words: str) -> None:
        self._ask(words, lambda _: None)

    def _ask(self, words: Sequence[str], begun: Callable[[int], None]) -> None:
        """Run `cvmfs_server` to its end; `begun` is told its pid. A Ctrl-C at the terminal does not reach it.

        What it says goes into a file: the end of a pipe would be its own end, when this process is killed.
        """
        argv = [self._place.command, *words, self._place.repository]
        with tempfile.TemporaryFile(dir=self._record.parent) as said:
            try:
                process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, cwd="/", process_group=0
                )
            except OSError as error:
                raise TargetError(f"{argv[0]}: {error.strerror}", transient=False) from None
            try:
                begun(process.pid)
            finally:
                _await(process)
            said.seek(0)
            self._judge(argv, process.returncode, said.read(_SAID_BYTES))

    def _judge(self, argv: list[str], status: int, said: bytes) -> None:
        if status == 0:
            return
        text = said.decode(errors="replace")
        message = f"`{' '.join(argv)}` ended with {status}: {printable(' '.join(text.split()), 400)}"
        raise NoRoom(message) if _FULL in text else TargetError(message)

    def _mark(self) -> list[int] | None:
        """Return what tells the transaction that is open from any other; None if none is."""
        for name in _MARKS:
            with suppress(FileNotFoundError):
                found = (self._place.area / name).stat()
                return [found.st_ino, found.st_mtime_ns]
        return None

    def _recorded(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._record.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and found.get("repository") == self._place.repository else None

    def _write_record(self, mark: list[int] | None, publishing: int = 0) -> None:
        record = {
            "repository": self._place.repository,
            "mark": mark,
            "pid": os.getpid(),
            "publishing": [publishing, _started_at(publishing)],
            "since": time.time(),
        }
        files.make_directories(self._record.parent)
        files.write_whole(self._record, json.dumps(record).encode())

    def _await_publishing(self, ours: dict[str, Any] | None) -> None:
        """Wait for the `cvmfs_server publish` of a publisher that was killed: it goes on by itself."""
        match ours:
            case {"publishing": [int(pid), str(started)]} if pid:
                while started and _started_at(pid) == started:
                    time.sleep(_POLL_S)


def _await(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process also when a Ctrl-C ends the first wait: what is half done is not to be aborted meanwhile."""
    try:
        process.wait()
    except BaseException:
        process.wait()
        raise


def _started_at(pid: int) -> str:
    """Return when a process began, as the kernel says it; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _want_catalogs(root: Path) -> None:
    """Have CVMFS make a catalog for each image, unless somebody decided otherwise."""
    path = root / ".cvmfsdirtab"
    if not path.exists():
        path.write_bytes(_CATALOGS)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise told(name, error) from None
    except (Incomplete, files.Differs) as error:
        raise TargetError(str(error)) from None
