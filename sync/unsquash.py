"""Make the sandbox of a SIF again: what a job sends back is one file, and its tree is as it was packed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from cache_manager import sif
from cache_manager.text import printable
from sync import readback
from sync.readback import ReadbackError
from sync.values import Converted

_BLOCK_BYTES: Final = 2**20
_TOO_FEW_RIGHTS: Final = 2
"""How unsquashfs ends when all is there but an attribute that this user may not set."""


class UnsquashError(RuntimeError):
    """The SIF is not what the job said, or cannot be unpacked; the text says why."""


def restore(image: Path, tree: Path, promised: Converted) -> None:
    """Unpack a SIF into the directory `tree`, made new, and hold both against what was promised of them.

    Raises UnsquashError and OSError.
    """
    size = image.stat().st_size
    if (_sha256(image), size) != (promised.sha256, promised.size_bytes):
        raise UnsquashError(f"the SIF that came back is another one ({size} of {promised.size_bytes} bytes)")
    _unpack(image, tree)
    try:
        found = readback.digest_of(tree)
    except ReadbackError as error:
        raise UnsquashError(str(error)) from None
    if found != promised.tree_digest:
        raise UnsquashError(f"the tree that came back is another one ({found[:12]}..., {promised.tree_digest[:12]}...)")


def _unpack(image: Path, tree: Path) -> None:
    program = shutil.which("unsquashfs", path=f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin")
    if program is None:
        raise UnsquashError("unsquashfs is not installed (squashfs-tools)")
    with image.open("rb") as file:
        head = file.read(sif.HEADER_BYTES)
        place = sif.table_of(head)
        file.seek(place.offset)
        part = sif.root_squashfs(file.read(place.size_bytes))
    if part is None:
        raise UnsquashError("the SIF that came back has no file system of its own")
    attributes = [] if os.geteuid() == 0 else ["-user-xattrs"]
    argv = [program, "-offset", str(part.offset), "-no-progress", "-quiet", *attributes, "-dest", str(tree), str(image)]
    done = subprocess.run(argv, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode not in (0, _TOO_FEW_RIGHTS):
        said = printable(done.stderr.decode(errors="replace").strip(), 300)
        raise UnsquashError(f"unsquashfs failed ({done.returncode}): {said}")


def _sha256(path: Path) -> str:
    summed = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            summed.update(block)
    return summed.hexdigest()
