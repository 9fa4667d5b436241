"""One publisher at a time: for a state directory, and for each target that it writes; and who holds the lock."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from cache_manager.text import human_time, printable
from sync import files

_IN_TARGET: Final = (".publisher.lock", ".publisher.json")
"""Names that no reader takes for an image. Two publishers with states of their own may have one target."""


class Busy(Exception):  # noqa: N818 - a finding
    """Another publisher runs; the text says which."""


@contextmanager
def only_publisher(state: Path, doing: str, now: float, targets: Sequence[Path] = ()) -> Iterator[None]:
    """Be the only publisher of a state directory, and of each target's, while within. Raises Busy, OSError."""
    with ExitStack() as held:
        files.make_directories(state)
        held.enter_context(_held(state / "lock", state / "holder.json", doing, now))
        for target in sorted({one.resolve() for one in targets}):
            files.make_directories(target)
            lock, holder = (target / one for one in _IN_TARGET)
            held.enter_context(_held(lock, holder, doing, now))
        yield


@contextmanager
def _held(path: Path, beside: Path, doing: str, now: float) -> Iterator[None]:
    lock = FileLock(path, mode=0o644)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(who(path, beside, time.time())) from None
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now, "doing": doing}
        files.write_whole(beside, json.dumps(holder).encode())
        yield
    finally:
        beside.unlink(missing_ok=True)
        lock.release()


def who(lock: Path, beside: Path, now: float) -> str:
    """Return who holds a lock, in words, by the record beside it."""
    try:
        holder = json.loads(beside.read_bytes())
        pid, host, since, doing = (holder[one] for one in ("pid", "host", "since", "doing"))
        ran = human_time(now - float(since))
    except (OSError, ValueError, KeyError, TypeError):
        return f"another condor_image_sync holds {lock}"
    what = printable(f"condor_image_sync {doing} is running: pid {pid} on {host}, since {ran}", 300)
    return f"{what} (lock {lock})"
