"""Processes as HTCondor starts them, and the end of all that a test started."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from tests.contract.block import Answer
from tests.pool.processes import descendants, kill, poll

PATIENCE_S: Final = 20.0
CONDOR_MASK: Final = 0xFFFFFFFE7BFBFA07
"""SigBlk of a hook under HTCondor 25.14.1, as observed: SIGCHLD, SIGALRM, SIGTERM and nearly all others are blocked."""

_BLOCKED: Final = {one for one in signal.valid_signals() if CONDOR_MASK >> (one - 1) & 1}


@contextmanager
def signal_mask(*, blocked: bool) -> Iterator[None]:
    """Start processes with HTCondor's signal mask, or with a clean one: children inherit their parent's."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, _BLOCKED if blocked else ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def status_mask(pid: int, name: str) -> int:
    """Return a mask of signals (`SigBlk`, `SigIgn`) of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1], 16)


def command_line(pid: int) -> bytes:
    """Return the command line of a process; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_for_end(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status of a process as soon as it has one: Popen.wait looks every 50 ms."""
    if process.poll() is None:
        descriptor = os.pidfd_open(process.pid)
        try:
            poll = select.poll()  # select takes no descriptor above 1023
            poll.register(descriptor, select.POLLIN)
            poll.poll(PATIENCE_S * 1000)
        finally:
            os.close(descriptor)
    return process.wait(1)


def left_of(leaders: Iterable[int]) -> list[int]:
    """Return the pids of all that runs in the sessions of these processes."""
    wanted, found = set(leaders), []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - as light as can be
        with suppress(OSError):
            if os.getsid(int(name)) in wanted and command_line(int(name)):
                found.append(int(name))
    return found


def end(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """End processes that lead sessions, with all that is left in those, and with their children elsewhere."""
    running = [process for process in processes if process.poll() is None]
    below = [pid for process in running for pid in descendants(process.pid)]
    for process in running:
        process.kill()
        process.wait()
    kill({*below, *left_of(process.pid for process in processes)})
    for process in processes:
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class Hook:
    """A hook under way. It prints into files: what outlives it must not keep a test waiting."""

    def __init__(self, process: subprocess.Popen[bytes], stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.process = process
        self._began = time.monotonic()
        self._outputs = (stdout, stderr)

    @property
    def python(self) -> int:
        """The pid of the interpreter below the launcher, as soon as there is one."""

        def running() -> int:
            below = [pid for pid in descendants(self.process.pid) if b"prepare_job.py" in command_line(pid)]
            return below[0] if below else 0

        return poll(running, "the hook's interpreter", PATIENCE_S)

    def finish(self) -> Answer:
        """Wait for its end and return its answer, which has to be a valid block. A site runs hundreds of hooks."""
        stdout, stderr, status = self.raw()
        for output in self._outputs:
            output.close()
        return Answer.of(stdout, stderr, status, time.monotonic() - self._began)

    def raw(self) -> tuple[bytes, bytes, int]:
        """Wait for its end and return what it printed, and its exit status."""
        status = wait_for_end(self.process)
        printed = []
        for output in self._outputs:
            output.seek(0)
            printed.append(output.read())
        return printed[0], printed[1], status

    def left_behind(self) -> list[int]:
        """Return the pids of what it started and did not end."""
        return left_of([self.process.pid])


def feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Give a process its standard input; one that does not read it has its reasons."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(data)
    with suppress(BrokenPipeError):
        process.stdin.close()
