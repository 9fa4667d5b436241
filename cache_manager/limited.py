"""A program that may take long and much: run within limits, watched, and ended as a whole when it goes too far."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cache_manager.abilities import Ran

CHILD: Final = Path(__file__).with_name("limited_child.py")

LOOK_S: Final = 0.1
"""How often a program is looked at, at least; looks that take long are made more rarely."""

SHARE: Final = 5
"""A look takes no more than this part (1/5) of the time."""

LAST_WORDS: Final = 4096
END_S: Final = 30.0
"""How long killed processes may take to be gone: longer if they wait for a disk, and nobody waits with them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may take: memory of each of its processes, processors of all of them together, time.

    `nice` is how far it gives way to jobs; what somebody waits for on a busy machine should not have to.
    """

    memory_bytes: int
    cpus: int
    seconds: float
    nice: int = 19


def run(
    argv: Sequence[str], limits: Limits, environment: Mapping[str, str], cwd: str, watch: Callable[[], None]
) -> Ran:
    """Run a program to its end and return how that was, with its last words; status None when its time was over.

    `watch` is called again and again; what it raises ends the program, with all that it started, and is raised here.
    Raises OSError. They end too when this process does, however it ends.
    """
    child = subprocess.Popen(
        [sys.executable, "-IS", str(CHILD), str(limits.memory_bytes), str(limits.cpus), str(limits.nice), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd=cwd,
        start_new_session=True,
    )
    listener = _Listener(child)
    try:
        in_time = _attend(child, listener, time.monotonic() + limits.seconds, watch)
    finally:
        _end(child)
    return Ran(child.returncode if in_time else None, listener.text)


class _Listener:
    """Keeps the last words of a child."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._descriptor = child.stdout.fileno() if child.stdout else -1
        self._poll = select.poll()  # select() takes no descriptor beyond 1023, and there may be thousands
        self._poll.register(self._descriptor, select.POLLIN)
        self._tail = b""

    @property
    def text(self) -> str:
        return self._tail.decode(errors="replace")

    def listen(self, for_s: float) -> bool:
        """Wait for words; return whether there can be more."""
        if self._poll.poll(for_s * 1000):
            data = os.read(self._descriptor, 65536)
            self._tail = (self._tail + data)[-LAST_WORDS:]
            return bool(data)
        return True


def _attend(child: subprocess.Popen[bytes], listener: _Listener, deadline: float, watch: Callable[[], None]) -> bool:
    """Return whether the child ended by itself in time."""
    next_look, more = time.monotonic(), True
    while True:
        now = time.monotonic()
        if now >= deadline:
            return False
        if now >= next_look:
            watch()
            spent = time.monotonic() - now
            next_look = now + spent + max(LOOK_S, SHARE * spent)
        wait_s = max(0.0, min(next_look, deadline) - time.monotonic())
        if more:
            more = listener.listen(wait_s)
            continue
        with suppress(subprocess.TimeoutExpired):
            child.wait(wait_s)
            return True


def _end(child: subprocess.Popen[bytes]) -> None:
    """Have a child end with all that is below it, and wait for that."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(END_S)
    if child.returncode is not None and child.returncode < 0:  # it was killed itself, and could end nobody
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
