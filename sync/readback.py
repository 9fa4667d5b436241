"""A tree as it lies on the disk, read to compute its digest: is what arrived, or was published, what was made."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sync import model
from sync.model import Form, Node

_BLOCK_BYTES: Final = 2**20


class ReadbackError(ValueError):
    """There is something in the tree that no image has; the text says what."""


def tree_of(directory: Path, check: Callable[[], None] = lambda: None) -> Node:
    """Return the model of a directory, digests included. Raises ReadbackError, OSError, and what `check` raises."""
    top = os.fsencode(directory)
    root = _node(os.lstat(top), directory.name)
    ahead = [(top, root)]
    while ahead:
        path, node = ahead.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                check()
                found = entry.stat(follow_symlinks=False)
                child = node.children[entry.name] = _node(found, model.shown(entry.path))
                if child.is_directory:
                    ahead.append((entry.path, child))
                elif child.form is Form.SYMLINK:
                    child.target = os.readlink(entry.path)  # noqa: PTH115 - names are bytes
                else:
                    child.size = found.st_size
                    child.digest = _digest(entry.path, check)
    return root


def digest_of(directory: Path, check: Callable[[], None] = lambda: None) -> str:
    """Return the tree digest of a directory. Raises as `tree_of`."""
    return model.tree_digest(tree_of(directory, check))


def _node(found: os.stat_result, name: str) -> Node:
    forms = {stat.S_IFDIR: Form.DIRECTORY, stat.S_IFREG: Form.FILE, stat.S_IFLNK: Form.SYMLINK}
    form = forms.get(stat.S_IFMT(found.st_mode))
    if form is None:
        raise ReadbackError(f"{name}: neither file, directory nor symbolic link")
    return Node(form, stat.S_IMODE(found.st_mode), 0, found.st_mtime_ns)


def _digest(path: bytes, check: Callable[[], None]) -> bytes:
    summed = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while block := os.read(fd, _BLOCK_BYTES):
            check()
            summed.update(block)
    finally:
        os.close(fd)
    return summed.digest()
