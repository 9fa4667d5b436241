"""Other processes, as the kernel tells: who asks on the socket, whose child it is, whether a holder still lives."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cache_manager.heartbeat import Place
from cache_manager.lease import Holder

_CREDENTIALS = struct.Struct("3i")
_JOB_DIRECTORY = re.compile(r"(/.*/dir_([0-9]{1,9}))(?:/.*)?")
_PR_SET_DUMPABLE: Final = 4

MOST_DESCRIPTORS: Final = 65536
"""Of a hard limit that is none: programs that we start may go through all that they could have open."""

ANCESTORS: Final = 4
"""How far above the peer its starter may be: the hook's interpreter, its launcher, the starter."""


class Peer:
    """The process at the other end of a Unix socket. A pid of 0 means: in a pid namespace that we do not see."""

    def __init__(self, pid: int, uid: int) -> None:
        self.pid = pid
        self.uid = uid

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """Ask the kernel (SO_PEERCRED)."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(raw)
        return cls(pid, uid)


def protect() -> None:
    """Have this process leave no core file, be read by nobody of the same user, and have the descriptors it may have.

    What HTCondor and the configuration gave it (session keys, passwords of sources) is in its memory. Core files are
    forbidden to its children too.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # the limit does not hold where cores go into a pipe
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def boot_id() -> str:
    """Return the id of this boot of the machine; empty where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def place() -> Place:
    """Return where this process's pids mean something."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no path, a name
    except OSError:
        namespace = ""
    return Place(os.uname().nodename, boot_id(), namespace)


def _stat(pid: int) -> tuple[int, int] | None:
    """Return parent and start time of a process, None if there is none (or it is a zombie)."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return None
    try:
        text = os.read(descriptor, 4096)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # the command's name may hold blanks and brackets: what follows counts from the last one
    words = text.rpartition(b")")[2].split()
    if words[0] in {b"Z", b"X"}:
        return None
    return int(words[1]), int(words[19])


def holder(pid: int) -> Holder | None:
    """Return the process as a holder, None if it does not run."""
    found = _stat(pid) if pid > 1 else None
    return Holder(pid, found[1]) if found else None


def is_alive(one: Holder) -> bool:
    """Whether this very process still runs; of one that we do not see, whether its job's directory is still there."""
    if one.directory:
        there = one.inode == 0 or _inode(one.directory) in {0, one.inode}
        return there and (one.pid == 0 or _exists(one.pid))
    found = _stat(one.pid)
    return found is not None and found[1] == one.start_ticks


def is_visible(pid: int) -> bool:
    """Whether /proc tells of a process: it may be mounted so that each user sees only their own (hidepid)."""
    return _stat(pid) is not None


def line_of(pid: int, generations: int) -> Iterator[Holder]:
    """Yield a process and those above it, nearest first, up to the first one that cannot be seen."""
    youngest: int | None = None
    for _ in range(generations):
        found = _stat(pid) if pid > 0 else None
        if found is None or (youngest is not None and found[1] > youngest):
            return  # a parent is older than its child: this one came later, under a pid that is used again
        youngest = found[1]
        yield Holder(pid, youngest)
        pid = found[0]


def name_of(pid: int) -> str:
    """Return the name of a process, which it may choose itself; empty if it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:
        return ""


def real_uid(pid: int) -> int:
    """Return the real uid of a process; -1 if it cannot be seen. HTCondor's daemons change only the effective one."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), -1)


def holder_for(peer: Peer, stated_pid: int, scratch: str = "") -> Holder | None:
    """Return who holds a lease for the hook at the other end: the starter that it states, if that is an ancestor.

    Without a statement it is the starter of its scratch path, if that is an ancestor (a transfer plug-in's parent is
    no starter), else the hook's parent; its launcher does not count. Where /proc does not show them, the job's
    directory stands for the starter. None if no such process runs.
    """
    if peer.pid == 0:
        return _by_directory(peer, 0, stated_pid, scratch)
    line = _ancestors(peer.pid, stated_pid)
    found = stated_pid if stated_pid in line else 0
    if not found and (by_path := _job_directory(scratch)[1]) in line:
        found = by_path
    found = found or next((pid for pid in line if not _is_launcher(pid)), 0)
    if not line and _is_hidden(peer.pid):
        found = stated_pid
    seen = holder(found)
    return _by_directory(peer, found, stated_pid, scratch) if seen is None and _is_hidden(found) else seen


def _ancestors(pid: int, last: int) -> list[int]:
    """Return the pids above a process, nearest first, as far as a starter may be, and not above `last`."""
    line: list[int] = []
    while len(line) < ANCESTORS and last not in line:
        found = _stat(pid)
        if found is None or found[0] <= 1:
            break
        pid = found[0]
        line.append(pid)
    return line


def _by_directory(peer: Peer, pid: int, stated_pid: int, scratch: str) -> Holder | None:
    """Return a holder that is known by its job's directory, which HTCondor removes after the job."""
    directory, number = _job_directory(scratch)
    if number and stated_pid in {0, number}:
        inode, safe = _look_at(directory, peer.uid)
        return Holder(pid, 0, directory, inode, bounded=not safe)
    # nothing tells when it ends
    return Holder(pid, 0, f"pid {stated_pid} {scratch}", bounded=True) if stated_pid > 0 else None


def _job_directory(scratch: str) -> tuple[str, int]:
    """Return the part of a scratch path that ends in `dir_<pid>`, and its starter's pid; 0 if there is none."""
    found = _JOB_DIRECTORY.fullmatch(scratch)
    return (found.group(1), int(found.group(2))) if found else ("", 0)


def _look_at(directory: str, uid: int) -> tuple[int, bool]:
    """Return the inode of a job's directory, 0 if it is not seen; and whether only HTCondor can keep it there."""
    try:
        found, above = os.lstat(directory), os.lstat(os.path.dirname(directory))  # noqa: PTH120 - a text
    except (OSError, ValueError):  # ValueError: the text is a user's
        return 0, False
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {uid, 0, above.st_uid}:
        return 0, False
    return found.st_ino, uid in {0, os.geteuid()} or (above.st_uid != uid and not above.st_mode & stat.S_IWOTH)


def _inode(directory: str) -> int:
    """Return a directory's inode, -1 if it is gone, 0 if that cannot be told."""
    try:
        return os.lstat(directory).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return -1
    except (OSError, ValueError):
        return 0


def _exists(pid: int) -> bool:
    """Whether there is such a process; works for those that /proc hides."""
    if pid <= 1:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process, of which /proc tells nothing (hidepid)."""
    if not _exists(pid):
        return False
    try:
        os.close(os.open(f"/proc/{pid}/stat", os.O_RDONLY))
    except OSError:
        return True
    return False


def _is_launcher(pid: int) -> bool:
    """Whether a process is the shell that waits for our hook."""
    try:
        descriptor = os.open(f"/proc/{pid}/cmdline", os.O_RDONLY)
    except OSError:
        return False
    try:
        words = os.read(descriptor, 4096).split(b"\0")
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return len(words) > 1 and words[1].endswith(b"/prepare-job")


def watch(one: Holder, ended: Callable[[], None], add_reader: Callable[[int, Callable[[], None]], None]) -> int | None:
    """Have `ended` called when the process ends (a pidfd becomes readable). Returns the descriptor to close.

    None where the kernel cannot: then the caller has to ask `is_alive` from time to time.
    """
    try:
        descriptor = os.pidfd_open(one.pid)
    except (OSError, AttributeError):  # an old kernel; a Python that was built on one; a process that we do not see
        return None
    add_reader(descriptor, ended)
    return descriptor
