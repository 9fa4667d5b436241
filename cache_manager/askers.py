"""Who may have images brought: root, the manager's user, and the jobs of this EP, seen by the starter above the hook.

In a pilot all is one uid, and that is the boundary. On an EP that root started a user with a login, or a process that
a job left behind, could otherwise fill the cache and have the manager ask servers for it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from cache_manager import processes
from cache_manager.processes import Peer

MASTER: Final = "condor_master"
STARTER: Final = "condor_starter"
_NAME_BYTES: Final = 15
"""What the kernel keeps of a program's name."""
_JOB_DIRECTORY: Final = re.compile(r"dir_[0-9]{1,10}")
GENERATIONS: Final = 64
"""How far a job's process may be below the master."""


def programs(knobs: Mapping[str, str], usual: str, knob: str) -> frozenset[str]:
    """Return how processes of a daemon may be named: as usual, and as the site's configuration names its program.

    What is named there is what HTCondor starts. A list names the knobs of several (STARTER_LIST).
    """
    names = [knob, *knobs.get(f"{knob}_LIST", "").replace(",", " ").split()]
    paths = [usual, *(knobs.get(name, "") for name in names)]
    return frozenset(PurePosixPath(path).name.encode()[:_NAME_BYTES].decode(errors="replace") for path in paths if path)


class Askers:
    """Knows the condor_master that started this manager, and HTCondor's knobs about starters and their directories."""

    def __init__(self, knobs: Mapping[str, str]) -> None:
        self._execute = knobs.get("EXECUTE", "")
        self._starters = programs(knobs, STARTER, "STARTER")
        parent = os.getppid()
        known = processes.name_of(parent) in programs(knobs, MASTER, "MASTER")
        self._master = processes.holder(parent) if known else None
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
                found = processes.name_of(one.pid) in self._starters and processes.real_uid(one.pid) in self._daemons
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
