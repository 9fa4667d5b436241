"""Run a program within limits: `limited_child.py MEMORY_BYTES CPUS NICE PROGRAM [ARGUMENT...]`. Run by its path, alone.

The program and whatever it starts end when it ends, and when standard input does: a manager that is killed leaves
nothing behind that goes on writing. The exit status is the program's, 128 and the signal if one ended it.

The memory is that of each process (RLIMIT_DATA: what it may write to), because a pilot has no control group.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36
IDLE_CLASS = 3 << 13
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}


def main(argv: list[str]) -> int:
    """Run the program to its end, or to that of standard input."""
    memory, cpus, nice, command = int(argv[1]), int(argv[2]), int(argv[3]), argv[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # who leaves the session is still below us
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid = os.fork()
    if pid == 0:
        start((memory, cpus, nice), command, libc)
    status = wait(pid, woken)
    end_family()
    return status


def start(limits: tuple[int, int, int], command: list[str], libc: ctypes.CDLL) -> None:
    """Become the program. Ends with 127 if it cannot be started."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        memory, cpus, nice = limits
        os.nice(nice)
        number = IOPRIO_SET.get(os.uname().machine)
        if number and nice:
            libc.syscall(number, 1, 0, IDLE_CLASS)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cpus:])
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execvp(command[0], command)  # noqa: S606 - what this is for
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.stderr.flush()
    finally:
        os._exit(127)


def wait(pid: int, woken: int) -> int:
    """Return the exit status of a child; 137 when standard input ended before it did."""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if 0 in ready and not os.read(0, 4096):
            return 128 + signal.SIGKILL
        if woken in ready:
            os.read(woken, 4096)
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 127
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if ended == 0:
                break


def end_family() -> None:
    """Kill everything below this process, until there is nothing."""
    while True:
        below = descendants(os.getpid())
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            if not below:
                return


def descendants(top: int) -> list[int]:
    """Return the pids of all processes below one."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    words = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if words[0] not in (b"Z", b"X"):
                children.setdefault(int(words[1]), []).append(int(name))
    found = []
    waiting = [top]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv))
