"""What a job's user tries on a directory that is not theirs; run as that user: `attack.py DIRECTORY`.

Prints as JSON what succeeded: each must not.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

DIRECTORIES = ("entries", "leases", "objects", "pins", "staging", "trash", "quarantine", "runtime")
FILES = ("lock", "manager.json", "socket")


def known(top: Path) -> list[Path]:
    """Return all paths that can be seen, and our names, which need not be seen to be known."""
    found = [top, *(top / name for name in (*DIRECTORIES, *FILES))]
    for directory, inner, files in os.walk(top):
        found += [Path(directory) / name for name in (*inner, *files)]
    return list(dict.fromkeys(found))


def attempts(path: Path, beside: Path) -> dict[str, Callable[[], object]]:
    """Return what is tried on one path; `beside` is a directory of the user's own."""
    return {
        "write": lambda: os.close(os.open(path, os.O_WRONLY)),
        "append": lambda: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)),
        "truncate": lambda: os.truncate(path, 0),
        "create in": lambda: os.close(os.open(path / "mine", os.O_WRONLY | os.O_CREAT)),
        "mkdir in": (path / "dir").mkdir,
        "symlink in": lambda: (path / "link").symlink_to("/etc/passwd"),
        "fifo in": lambda: os.mkfifo(path / "fifo"),
        "socket in": lambda: socket.socket(socket.AF_UNIX).bind(str(path / "sock")),
        "hard link in": lambda: (path / "hard").hardlink_to(beside / "own"),
        "hard link out": lambda: (beside / "stolen").hardlink_to(path),
        "rename over": lambda: (beside / "own").rename(path),
        "rename away": lambda: path.rename(beside / "away"),
        "remove": lambda: path.rmdir() if path.is_dir() else path.unlink(),
        "chmod": lambda: path.chmod(0o777),
        "chown": lambda: os.chown(path, os.getuid(), -1),
        "utime": lambda: os.utime(path, (1, 1)),
        "attribute": lambda: os.setxattr(path, "user.mine", b"1"),
        "list": lambda: os.setxattr(path, "system.posix_acl_access", b"\2\0\0\0"),
    }


def main() -> None:
    """Try everything on everything."""
    top, beside = Path(sys.argv[1]), Path.home() / "beside"
    beside.mkdir(exist_ok=True)
    done = []
    for path in known(top):
        (beside / "own").write_text("mine")
        for name, attempt in attempts(path, beside).items():
            try:
                attempt()
            except OSError:
                continue
            if (name, path.name) not in {("write", "socket"), ("append", "socket")}:
                done.append(f"{name} {path}")
    print(json.dumps(done))  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
