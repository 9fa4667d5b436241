"""Who could put something else in the place of a path of ours: owners and modes of every directory above it.

Where nobody but root and the manager's user can rename or replace anything on the way to the root, a check of the root
cannot be overtaken by a change, and what lies in it needs no descriptors to be held on to: its directories are ours.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_LINKS: Final = 40
"""As many as the kernel follows."""

OWN_USER_KNOB: Final = "IMAGE_CACHE_MANAGER_USERID"
_BY_OTHERS: Final = stat.S_IWOTH
_BY_GROUP: Final = stat.S_IWGRP
_USERS_GID: Final = 100
_FIRST_USERS_GID: Final = 1000


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose directories ours may lie in. `uids` always.

    `strict` on an EP that root started, where jobs of many users run: then nobody else, and no group of users (/var/log
    belongs to a group of the system's). In a pilot the directories above are the site's: of its batch system's user,
    with its groups. Only what anybody could have made (in a directory like /tmp) is not trusted there.
    """

    uids: frozenset[int]
    strict: bool

    @classmethod
    def of(cls, uid: int, knobs: Mapping[str, str]) -> Trust:
        """Return what a manager of this uid trusts: root, itself, and HTCondor's user, as whom no job runs."""
        return cls(frozenset({0, uid, *_condor_uid(knobs)}), strict=uid == 0 or bool(knobs.get(OWN_USER_KNOB)))


def uid_of(name: str) -> int | None:
    """Return the uid of a user given by name or number, None if there is none."""
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _condor_uid(knobs: Mapping[str, str]) -> tuple[int, ...]:
    said = uid_of(knobs.get("CONDOR_IDS", "").partition(".")[0].strip() or "condor")
    return () if said is None else (said,)


def why_unsafe(path: str | Path, trust: Trust) -> str:
    """Return why others could put something in the place of `path`, naming the directory; empty if nobody can.

    What is not there yet is made by us. What cannot be looked at is for whoever opens it to complain of.
    """
    here = Path("/")
    ahead = [part for part in reversed(Path(path).absolute().parent.parts) if part != "/"]
    why = _why(here, here.lstat(), trust, made_by_anybody=False)
    links = 0
    while ahead and not why:
        name = ahead.pop()
        above, here = here, here.parent if name == ".." else here / name
        if name == "..":
            continue
        try:
            found = here.lstat()
            open_to_all = bool(above.lstat().st_mode & _BY_OTHERS)
        except OSError:
            return ""
        why = _why(here, found, trust, made_by_anybody=open_to_all)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > MAX_LINKS:
                return f"{here}: too many links"
            target = here.readlink()
            ahead += [part for part in reversed(target.parts) if part != "/"]
            here = Path("/") if target.is_absolute() else above
    return why


def _why(path: Path, found: os.stat_result, trust: Trust, *, made_by_anybody: bool) -> str:
    """Return why one name on the way is not safe."""
    if found.st_uid not in trust.uids and (trust.strict or made_by_anybody):
        return f"{path} belongs to uid {found.st_uid}, who is neither root nor the manager's user"
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & stat.S_ISVTX:
        return ""  # links have no mode; and in sticky directories others cannot replace what is not theirs
    if found.st_mode & _BY_OTHERS:
        return f"{path} is writable by others (mode {stat.S_IMODE(found.st_mode):04o})"
    users = found.st_gid == _USERS_GID or found.st_gid >= _FIRST_USERS_GID
    if trust.strict and found.st_mode & _BY_GROUP and users:
        return f"{path} is writable by its group (gid {found.st_gid}, mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def open_log(path: str | Path, trust: Trust) -> int:
    """Open a log to append to: a regular file with no other name, of one who is trusted. Raises OSError.

    A link or a second name that others made would lead what is logged into files of ours. Links of root or of the
    manager's user are followed: /dev/stderr is one.
    """
    why = why_unsafe(path, trust)
    if why:
        raise OSError(f"log {path}: {why}")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        if Path(path).lstat().st_uid not in trust.uids:
            raise OSError(f"log {path}: belongs to another user")
    except FileNotFoundError:
        flags |= os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o640)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and (found.st_nlink > 1 or found.st_uid not in trust.uids):
        os.close(descriptor)
        raise OSError(f"log {path}: has another name, or belongs to another user")
    os.set_blocking(descriptor, True)
    return descriptor
