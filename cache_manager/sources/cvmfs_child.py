"""Asks CVMFS for images, as a process that may hang: a dead mount hangs rather than fails.

Run by its path with `python -IS`; one JSON request a line on standard input, one JSON answer a line on standard
output. Imports nothing of ours: it starts in milliseconds and dies without loss.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys

MAX_LINKS = 20
MAX_NAMES = 5000
CONTROL_DEPTH = 5
FACTS = ("revision", "host", "proxy")
MAX_FACT = 1000
ROOTFS = {".singularity.d", "bin", "etc", "lib", "usr", "sbin", "opt", "environment"}
"""An image's directory has one of these, at least."""

SIF_MAGIC = b"SIF_MAGIC"
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)
ONE_IMAGE = (errno.ELOOP, errno.EACCES, errno.EPERM)


class OneImage(Exception):  # noqa: N818 - a finding
    """The image is there and cannot be run; the repository may be well."""


def resolve(base: str, repository: str, path: str) -> str:
    """Return the real path of an image, every link followed inside the repository.

    Links say /cvmfs/... wherever the repository is mounted. Raises OSError, OneImage.
    """
    top = f"{base}/{repository}"
    parts = path.split("/")
    done: list[str] = []
    links = 0
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                raise OneImage(f"{path} leads out of the repository")
            done.pop()
            continue
        here = "/".join([top, *done, part])
        if not stat.S_ISLNK(os.lstat(here).st_mode):
            done.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(here)
        if target.startswith("/"):
            for mount in (f"/cvmfs/{repository}/", f"{top}/"):
                if target.startswith(mount):
                    target = target[len(mount) :]
                    break
            else:
                raise OneImage(f"{path} leads out of the repository, to {target}")
            done = []
        parts = target.split("/") + parts
    return "/".join([top, *done])


def control(top: str) -> None:
    """Read a known object of the repository: its first file or directory that can be reached. Raises OSError."""
    path = top
    for _ in range(CONTROL_DEPTH):
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        if not entries and path == top:
            raise OSError(errno.ENODEV, "nothing is mounted there (the directory is empty)")
        # links lead elsewhere, which is not what is asked
        real = [entry for entry in entries if not entry.is_symlink()]
        if not real:
            return
        path = real[0].path
        try:
            if real[0].is_file():
                with open(path, "rb") as file:
                    file.read(1)
                return
        except PermissionError:
            return  # the repository answers


def similar(top: str, path: str) -> list[str]:
    """Return names that are there where the missing one was looked for."""
    parts = path.split("/")
    for depth in range(len(parts) - 1, -1, -1):
        above = "/".join(parts[:depth])
        try:
            names = os.listdir(f"{top}/{above}" if above else top)
        except OSError:
            continue
        prefix = f"{above}/" if above else ""
        return [prefix + name for name in sorted(names) if not name.startswith(".")][:MAX_NAMES]
    return []


def facts(top: str) -> dict[str, str]:
    """Return what the client says of the mounted revision and of where it gets newer ones; what it hides is missing.

    Source: the magic extended attributes of the CVMFS client. Other file systems (a plain copy, NFS) have none.
    """
    found = {}
    for name in FACTS:
        try:
            found[name] = os.getxattr(top, f"user.{name}")[:MAX_FACT].decode("utf-8", "replace").strip("\0 \n")
        except OSError:
            continue
    return found


def answer(base: str, repository: str, path: str) -> dict[str, object]:
    """Return what CVMFS says of an image; with an empty path, whether the repository is healthy."""
    top = f"{base}/{repository}"
    try:
        if path:
            found = _look(base, repository, path)
            if found:
                return found
        control(top)
    except OneImage as error:
        return {"state": "unwell", "image": True, "why": str(error)}
    except OSError as error:
        if error.errno in NOT_THERE:
            return {"state": "unwell", "why": "the repository is not mounted here"}
        return {"state": "unwell", "why": error.strerror or str(error)}
    return {"state": "absent", "similar": similar(top, path), **facts(top)} if path else {"state": "healthy"}


def _look(base: str, repository: str, path: str) -> dict[str, object] | None:
    """Return where an image is, None if it is not there. Raises OSError, and OneImage if it cannot be run."""
    try:
        real = resolve(base, repository, path)
        form = os.stat(real).st_mode
    except OSError as error:
        if error.errno in ONE_IMAGE:
            raise OneImage(f"{path}: {error.strerror}") from None
        if error.errno not in NOT_THERE:
            raise
        if _is_name(f"{base}/{repository}/{path}"):
            raise OneImage(f"the link {path} leads to nothing (an unfinished publication)") from None
        return None
    if stat.S_ISDIR(form):
        names = set(os.listdir(real))
        if not names:
            raise OneImage(f"{real} is an empty directory")
        if not names & ROOTFS:
            return None  # a directory of images
        return {"state": "located", "path": real, "sandbox": True}
    with open(real, "rb") as file:
        if SIF_MAGIC not in file.read(64):
            raise OneImage(f"{real} is neither an image directory nor a SIF")
    return {"state": "located", "path": real, "sandbox": False}


def _is_name(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError:
        return False
    return True


def main() -> None:
    """Answer requests until standard input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        reply = answer(request["base"], request["repository"], request["path"])
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
