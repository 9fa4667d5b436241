"""One publisher at a time: the lock in the state directory, and who holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cache_manager.text import human_time, printable
from sync import files


class Busy(Exception):  # noqa: N818 - a finding
    """Another publisher runs; the text says which."""


@contextmanager
def only_publisher(state: Path, doing: str, now: float) -> Iterator[None]:
    """Be the only publisher of a state directory while within. Raises Busy, OSError."""
    files.make_directories(state)
    lock = FileLock(state / "lock", mode=0o644)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(who(state, time.time())) from None
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now, "doing": doing}
        files.write_whole(state / "holder.json", json.dumps(holder).encode())
        yield
    finally:
        (state / "holder.json").unlink(missing_ok=True)
        lock.release()


def who(state: Path, now: float) -> str:
    """Return who holds the lock, in words."""
    try:
        holder = json.loads((state / "holder.json").read_bytes())
        pid, host, since, doing = (holder[one] for one in ("pid", "host", "since", "doing"))
        ran = human_time(now - float(since))
    except (OSError, ValueError, KeyError, TypeError):
        return f"another condor_image_sync holds {state}/lock"
    what = printable(f"condor_image_sync {doing} is running: pid {pid} on {host}, since {ran}", 300)
    return f"{what} (lock {state}/lock)"
