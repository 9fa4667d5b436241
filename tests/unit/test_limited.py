"""Programs within limits: real children, which take what they can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cache_manager import limited
from cache_manager.abilities import Ran
from cache_manager.limited import Limits
from cache_manager.status import HookStatus, StatusError
from tests.pool.processes import descendants, poll
from tests.unit.benches import LIMIT_S
from tests.unit.builders import CHECKOUT

LIMITS = Limits(memory_bytes=300_000_000, cpus=1, seconds=LIMIT_S)
ENVIRONMENT = {"PATH": os.environ["PATH"]}


def shell(script: str, limits: Limits = LIMITS, watch: Callable[[], None] = lambda: None) -> Ran:
    """Run a shell script."""
    return limited.run(["/bin/sh", "-c", script], limits, ENVIRONMENT, "/", watch)


def python(code: str) -> Ran:
    """Run Python code."""
    return limited.run([sys.executable, "-IS", "-c", code], LIMITS, ENVIRONMENT, "/", lambda: None)


@pytest.mark.parametrize(
    ("script", "status", "said"),
    [
        ("echo out; echo err >&2; exit 3", 3, "out\nerr\n"),
        ("kill -9 $$", 137, ""),
        ("exec >&- 2>&-; sleep 0.2; exit 4", 4, ""),
        ("cat", 0, ""),
        ("/does/not/exist", 127, "not found"),
    ],
    ids=["says something", "killed", "closes its output", "reads nothing", "calls nothing"],
)
def test_it_ends_as_the_program_ends(script: str, status: int, said: str) -> None:
    """With the last words of both outputs."""
    ran = shell(script)
    assert ran.status == status
    assert said in ran.said


def test_a_program_that_is_not_there_says_so() -> None:
    """As a shell would."""
    ran = limited.run(["/does/not/exist"], LIMITS, ENVIRONMENT, "/", lambda: None)
    assert (ran.status, ran.said) == (127, "/does/not/exist: No such file or directory\n")


def test_a_program_that_says_a_lot_is_heard_to_its_end() -> None:
    """It must not wait for somebody to listen, and only its last words are kept."""
    ran = shell("head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end")
    assert ran.status == 0
    assert ran.said.endswith("x\nend\n")
    assert len(ran.said) == limited.LAST_WORDS


def test_it_has_few_processors_low_priority_and_no_core_file() -> None:
    """The machine is the jobs'."""
    code = (
        "import os, resource; print(len(os.sched_getaffinity(0)), os.nice(0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    assert python(code).said == "1 19 (0, 0)\n"


@pytest.mark.parametrize(("size", "status"), [(100_000_000, 0), (400_000_000, 1)])
def test_it_gets_no_more_memory_than_that(size: int, status: int) -> None:
    """A child of the program neither."""
    ran = python(f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'bytearray({size})']))")
    assert ran.status == status
    assert ("MemoryError" in ran.said) == bool(status)


FAMILY = "(setsid sh -c 'echo $$ >{0}/grandchild; exec sleep 1000' &) ; echo $$ >{0}/child; exec sleep 1000"


def pids(tmp_path: Path) -> list[int]:
    """Return who runs, once both do."""
    paths = [tmp_path / "child", tmp_path / "grandchild"]
    poll(lambda: all(path.exists() and path.read_text().endswith("\n") for path in paths), "the family", LIMIT_S)
    return [int(path.read_text()) for path in paths]


def is_gone(pid: int) -> bool:
    """Whether a process runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def test_who_looks_after_it_can_end_it_with_all_that_it_started(tmp_path: Path) -> None:
    """Also what has left its session, and its parent."""
    seen: list[int] = []

    def watch() -> None:
        seen[:] = pids(tmp_path)
        raise StatusError(HookStatus.CACHE_FULL, "enough")

    with pytest.raises(StatusError, match="enough"):
        shell(FAMILY.format(tmp_path), watch=watch)
    assert all(is_gone(pid) for pid in seen)


def test_its_time_is_limited(tmp_path: Path) -> None:
    """What it started has no more."""
    ran = shell(FAMILY.format(tmp_path), Limits(300_000_000, 1, 1.0))
    assert ran.status is None
    assert all(is_gone(pid) for pid in pids(tmp_path))


def test_what_it_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    """Nothing goes on writing into a directory that was published."""
    script = FAMILY.format(tmp_path).replace("exec sleep 1000", "true").replace("true'", "exec sleep 1000'")
    ran = shell(f"{script}; while ! [ -s {tmp_path}/grandchild ]; do sleep 0.05; done")
    assert ran.status == 0
    assert all(is_gone(pid) for pid in pids(tmp_path))


def test_it_ends_when_the_manager_is_killed(tmp_path: Path) -> None:
    """A kill -9 of the manager leaves nothing that writes into its root."""
    code = (
        "import sys; from cache_manager import limited\n"
        "limited.run(['/bin/sh', '-c', sys.argv[1]], limited.Limits(300_000_000, 1, 60), {}, '/', lambda: None)"
    )
    manager = subprocess.Popen([sys.executable, "-c", code, FAMILY.format(tmp_path)], cwd=CHECKOUT)
    family = [*pids(tmp_path), *descendants(manager.pid)]
    assert len(family) >= 4
    manager.send_signal(signal.SIGKILL)
    manager.wait(LIMIT_S)
    poll(lambda: all(is_gone(pid) for pid in family), "the end of the family", LIMIT_S)
