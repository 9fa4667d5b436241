"""Who may have images brought: root, the manager's user, and the jobs of this EP, seen by the starter above the hook.

In a pilot all is one uid, and that is the boundary. On an EP that root started a user with a login, or a process that
a job left behind, could otherwise fill the cache and have the manager ask servers for it.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Final

from cache_manager import processes
from cache_manager.processes import Peer

MASTER: Final = "condor_master"
STARTER: Final = "condor_starter"
_JOB_DIRECTORY: Final = re.compile(r"dir_[0-9]{1,10}")
GENERATIONS: Final = 64
"""How far a job's process may be below the master."""


class Askers:
    """Knows the condor_master that started this manager; `execute` is HTCondor's directory of that name."""

    def __init__(self, execute: str) -> None:
        self._execute = execute
        parent = os.getppid()
        self._master = processes.holder(parent) if processes.name_of(parent) == MASTER else None
        self._daemons = {0, os.geteuid()}
        if self._master is not None:
            self._daemons.add(processes.real_uid(parent))

    def why_not(self, peer: Peer, scratch: str) -> str:
        """Return why who asks gets no image brought; empty if they may. `scratch` is what the hook states."""
        if peer.uid in {0, os.geteuid()}:
            return ""
        hidden = peer.pid == 0 or not processes.is_visible(1)
        if self._has_scratch(peer, scratch) if hidden else self._has_starter(peer):
            return ""
        return f"uid {peer.uid} does not ask from a job of this execution point (pid {peer.pid} is under no starter)"

    def _has_starter(self, peer: Peer) -> bool:
        """Whether a starter of our master is above the peer. Its name alone is no proof: users name processes."""
        master = self._master if self._master is not None and processes.is_alive(self._master) else None
        found = False
        for one in processes.line_of(peer.pid, GENERATIONS):
            if one.pid != peer.pid and not found:
                found = processes.name_of(one.pid) == STARTER and processes.real_uid(one.pid) in self._daemons
            if found and master is None:
                return True
            if master is not None and one.pid == master.pid:
                return found and one == master
        return False

    def _has_scratch(self, peer: Peer, scratch: str) -> bool:
        """Whether the peer's user has a job here, in the directory that is stated: where /proc shows no others.

        HTCondor gives it to the job's user, and takes it away with the job.
        """
        try:
            name = PurePosixPath(scratch).relative_to(self._execute or "/nowhere").parts[0]
        except (ValueError, IndexError):
            return False
        if not _JOB_DIRECTORY.fullmatch(name):
            return False
        place = Path(self._execute, name)
        for directory in (place / "scratch", place):
            try:
                found = directory.lstat()
            except OSError:
                continue
            if stat.S_ISDIR(found.st_mode) and found.st_uid == peer.uid:
                return True
        return False
