"""The socket's file: made so that any user can connect, and known again."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def listener(path: Path) -> socket.socket:
    """Return a socket that any user can connect to."""
    path.unlink(missing_ok=True)
    with _in_directory(path.parent):
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o111)  # its mode from the beginning: a chmod could meet another file under this name
        try:
            listener.bind(path.name)
        finally:
            os.umask(mask)
    return listener


def identity(path: str) -> tuple[int, int] | None:
    """Return what tells one file under this name from another; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_listened_on(path: str) -> bool:
    """Whether somebody answers on a socket: another manager, which was told the same path."""
    try:
        with _in_directory(Path(path).parent), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.settimeout(0)
            one.connect(Path(path).name)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def _in_directory(directory: Path) -> Iterator[None]:
    """Stand in a directory for a moment: a socket's path may be longer than the kernel's 108 bytes."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(directory)
        yield
    finally:
        os.fchdir(here)
        os.close(here)
