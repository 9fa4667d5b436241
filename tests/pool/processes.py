"""Waiting for conditions, and running and ending processes as other users: what the pool and its origins stand on."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PATH = "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def poll(condition: Callable[[], T | None], what: str, timeout: float = 30, interval: float = 0.02) -> T:
    """Return what `condition` returns as soon as that is true; after `timeout` s raise TimeoutError saying `what`."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {what}")
        time.sleep(interval)


def environment_of(user: str | None, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the clean environment of a login of `user` (None: root), with `extra` on top."""
    name = user or "root"
    home = pwd.getpwnam(name).pw_dir
    base = {"PATH": PATH, "HOME": home, "USER": name, "LOGNAME": name, "LANG": "C.UTF-8", "SHELL": "/bin/bash"}
    return base | dict(extra or {})


def start_as(
    user: str | None,
    argv: Sequence[str | Path],
    *,
    output: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process of `user` (None: root) in a session of its own; its stdout and stderr go to `output`."""
    with output.open("ab") as sink:
        return subprocess.Popen(
            [str(argument) for argument in argv],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment_of(user, env),
            cwd=cwd or "/",
            start_new_session=True,
            user=user,
            group=_group(user),
            extra_groups=None if user is None else [],
        )


def run_as(  # noqa: PLR0913 - subprocess.run has more
    user: str | None,
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text_input: str = "",
    timeout: float = 60,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command as `user` (None: root) to its end, output captured; with `check`, raise when it fails."""
    done = subprocess.run(
        [str(argument) for argument in argv],
        input=text_input,
        capture_output=True,
        text=True,
        env=environment_of(user, env),
        cwd=cwd or "/",
        timeout=timeout,
        check=False,
        user=user,
        group=_group(user),
        extra_groups=None if user is None else [],
    )
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise RuntimeError(f"{' '.join(done.args)}: exit status {done.returncode}: {said}")
    return done


def _group(user: str | None) -> int | None:
    return None if user is None else pwd.getpwnam(user).pw_gid


def make_directory(path: Path, user: str | None, mode: int = 0o755) -> Path:
    """Make `path`, and its parents as root, and give it to `user` (None: root); return it."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return path


def descendants(pid: int) -> list[int]:
    """Return the pids of all living processes below `pid`, nearest first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, []))
    return found[1:]


def end(process: subprocess.Popen[bytes], patience: float, *, ask: signal.Signals | None = signal.SIGTERM) -> None:
    """End a process and all below it: ask (None: it was asked already), wait `patience` s, then kill what is left."""
    family = descendants(process.pid)
    if ask is not None and process.poll() is None:
        process.send_signal(ask)
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    if process.poll() is None:
        family = descendants(process.pid)
        process.kill()
        process.wait()
    kill(family)


def kill(pids: Iterable[int]) -> None:
    """Kill processes of ours, those that ended meanwhile excepted."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
