"""Other processes, as the kernel tells: who asks on the socket, whose child it is, whether a holder still lives."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cache_manager.heartbeat import Place
from cache_manager.lease import Holder

_CREDENTIALS = struct.Struct("3i")
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
    """Whether this very process still runs."""
    found = _stat(one.pid)
    return found is not None and found[1] == one.start_ticks


def holder_for(peer: Peer, stated_pid: int) -> Holder | None:
    """Return who holds a lease for the hook at the other end: the starter that it states, if that is an ancestor.

    Without a statement it is the hook's parent; its launcher does not count. Where the peer cannot be seen (another
    pid namespace) there is only the statement. None if no such process runs.
    """
    if peer.pid == 0:
        return holder(stated_pid)
    pid, first = peer.pid, None
    for _ in range(ANCESTORS):
        found = _stat(pid)
        if found is None or found[0] <= 1:
            break
        pid = found[0]
        first = first or (None if _is_launcher(pid) else pid)
        if pid == stated_pid:
            return holder(pid)
    return holder(first) if first else None


def _is_launcher(pid: int) -> bool:
    """Whether a process is the shell that waits for our hook."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return len(words) > 1 and words[1].endswith(b"/prepare-job")


def watch(one: Holder, ended: Callable[[], None], add_reader: Callable[[int, Callable[[], None]], None]) -> int | None:
    """Have `ended` called when the process ends (a pidfd becomes readable). Returns the descriptor to close.

    None where the kernel cannot: then the caller has to ask `is_alive` from time to time.
    """
    try:
        descriptor = os.pidfd_open(one.pid)
    except OSError:
        return None
    add_reader(descriptor, ended)
    return descriptor
