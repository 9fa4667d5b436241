"""A double of a mounted CVMFS repository: a FUSE file system that shows a directory, and misbehaves as it is told.

    python -m tests.pool.cvmfs_fuse DIRECTORY MOUNT FAULTS

It is named a double because CVMFS is in no registry of packages; what it does is the kernel's FUSE for real. A request
that it has read and does not answer leaves its reader in D state, which no signal ends; a killed server leaves
"Transport endpoint is not connected". FAULTS is a file with JSON, read anew for each request:

    below     the faults are for paths that begin so (default: for all)
    hang      do not answer, until the file says otherwise
    errno     answer with this error
    xattrs    the client's magic extended attributes of the mount's top, as `user.revision`
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import mfusepy


class Repository(mfusepy.Operations):  # type: ignore[misc] # the library has no types for our tools
    """Read-only view of a directory. Nothing is kept by the kernel: each look is a request."""

    use_ns = True

    def __init__(self, directory: Path, faults: Path) -> None:
        self._directory = directory
        self._faults = faults

    def _now(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._faults.read_text())
        except (OSError, ValueError):  # being written
            return {}
        return found

    def _reach(self, path: str) -> str:
        """Return the real path behind a path of the mount, after whatever has to go wrong."""
        while True:
            faults = self._now()
            if not path.startswith(faults.get("below", "/")):
                break
            if faults.get("errno"):
                raise mfusepy.FuseOSError(faults["errno"])
            if not faults.get("hang"):
                break
            time.sleep(0.05)  # the double's way of not answering
        return f"{self._directory}{path}"

    def getattr(self, path: str, _fh: int | None = None) -> dict[str, Any]:
        """Return what lstat says."""
        try:
            found = os.lstat(self._reach(path))
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno or errno.EIO) from None
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_atime_ns", "st_mtime_ns", "st_ctime_ns")
        return {name.removesuffix("_ns"): getattr(found, name) for name in names}

    def readdir(self, path: str, _fh: int) -> list[str]:
        """Return the names in a directory."""
        return [".", "..", *os.listdir(self._reach(path))]  # noqa: PTH208 - names, as the kernel wants them

    def readlink(self, path: str) -> str:
        """Return where a link leads."""
        return os.readlink(self._reach(path))  # noqa: PTH115 - a text, as the kernel wants it

    def open(self, path: str, flags: int) -> int:
        """Open a file."""
        return os.open(self._reach(path), flags & os.O_ACCMODE)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Read a file."""
        self._reach(path)
        return os.pread(fh, size, offset)

    def release(self, _path: str, fh: int) -> int:
        """Close a file."""
        os.close(fh)
        return 0

    def getxattr(self, path: str, name: str, _position: int = 0) -> bytes:
        """Return an extended attribute of the mount's top."""
        self._reach(path)
        value = self._now().get("xattrs", {}).get(name) if path == "/" else None
        if value is None:
            raise mfusepy.FuseOSError(errno.ENODATA)
        return str(value).encode()

    def listxattr(self, path: str) -> list[str]:
        """Return the names of the extended attributes."""
        return list(self._now().get("xattrs", {})) if path == "/" else []


if __name__ == "__main__":
    mfusepy.FUSE(
        Repository(Path(sys.argv[1]), Path(sys.argv[3])),
        sys.argv[2],
        foreground=True,
        ro=True,
        allow_other=True,
        attr_timeout=0,
        entry_timeout=0,
    )
