"""Who holds a lease, as the kernel tells."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_manager import processes
from cache_manager.lease import Holder
from cache_manager.processes import ANCESTORS, Peer
from tests.unit.benches import LIMIT_S, child

ME = os.getpid()
NOBODY = 2**22 + 1
"""More than any pid may be."""

# forks as often as told, each the child of the one before; the last says its pid and waits for its input to end
_DESCENDANTS = """
import os, sys
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        os._exit(0)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def descendant(generations: int) -> Iterator[int]:
    """Give the pid of a process so many generations below this one; 1 is a child."""
    argv = [sys.executable, "-IS", "-c", _DESCENDANTS, str(generations - 1)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.stdin.close()


def test_a_process_is_known_by_pid_and_start_time() -> None:
    """The pid alone is used again."""
    holder = processes.holder(ME)
    assert holder is not None
    assert holder == processes.holder(ME)
    assert processes.is_alive(holder)
    assert not processes.is_alive(Holder(ME, holder.start_ticks + 1))
    with child() as (other, _):
        assert other.start_ticks >= holder.start_ticks


@given(st.integers(-(2**70), 1) | st.integers(NOBODY, 2**70))
def test_a_pid_that_is_none_has_no_holder(pid: int) -> None:
    """The hook states a pid as text, whatever it likes."""
    assert processes.holder(pid) is None
    assert not processes.is_alive(Holder(pid, 0))


def test_a_process_that_ended_is_not_alive_even_while_its_parent_does_not_look() -> None:
    """A zombie runs nothing."""
    with child() as (holder, process):
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{process.pid}").exists()
        assert not processes.is_alive(holder)
        assert processes.holder(process.pid) is None
        process.wait()
        assert not processes.is_alive(holder)


@pytest.mark.parametrize("name", ["a b", ") Z 0 (", "((", "))) 1 2 3", "Z"])
def test_the_name_of_a_program_confuses_nobody(name: str) -> None:
    """It stands in brackets in the middle of the line, and may hold anything."""
    code = f"open('/proc/self/comm', 'w').write({name!r}); print('ready', flush=True); input()"
    argv = [sys.executable, "-IS", "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        before = processes.holder(process.pid)
        assert process.stdout.readline() == b"ready\n"
        assert Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n"
        assert processes.holder(process.pid) == before
        assert processes.holder_for(Peer(process.pid, 0), 0) == processes.holder(ME)
        process.kill()


@pytest.mark.parametrize("generations", range(1, ANCESTORS + 1))
def test_the_starter_that_the_hook_states_is_its_ancestor(generations: int) -> None:
    """Between them stand the launcher and the interpreter."""
    with descendant(generations) as pid:
        assert processes.holder_for(Peer(pid, 0), ME) == processes.holder(ME)


def test_without_a_statement_the_holder_is_the_peers_parent() -> None:
    """The hook runs as the starter's child."""
    with descendant(2) as pid:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert processes.holder_for(Peer(pid, 0), 0) == processes.holder(parent)
    with descendant(1) as pid:
        assert processes.holder_for(Peer(pid, 0), 0) == processes.holder(ME)


def test_the_hooks_launcher_is_no_holder(tmp_path: Path) -> None:
    """It ends with the hook: the lease would end before the job begins."""
    launcher = tmp_path / "prepare-job"
    launcher.write_text(f"#!/bin/sh\n{sys.executable} -IS -c 'import os; print(os.getpid(), flush=True); input()'\n:\n")
    launcher.chmod(0o755)
    with subprocess.Popen([launcher], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert processes.holder_for(Peer(int(process.stdout.readline()), 0), 0) == processes.holder(ME)


def test_a_process_that_is_no_ancestor_cannot_be_made_a_holder() -> None:
    """A user who states init, or another user's process, would keep an image for ever."""
    with child() as (stranger, _), descendant(1) as pid:
        for stated in (stranger.pid, 1, 0, -5, NOBODY, pid):
            assert processes.holder_for(Peer(pid, 0), stated) == processes.holder(ME)


def test_an_ancestor_too_far_above_is_no_starter() -> None:
    """The master is an ancestor too, and lives as long as the EP."""
    with descendant(ANCESTORS + 1) as pid:
        assert processes.holder_for(Peer(pid, 0), ME) not in {None, processes.holder(ME)}


def test_a_transfer_plug_in_holds_for_the_starter_of_its_directory(tmp_path: Path) -> None:
    """Its parent is no starter; and a directory that names a process which is no ancestor is not believed."""
    with descendant(2) as pid, child() as (stranger, _):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        for number, expected in ((ME, ME), (stranger.pid, parent)):
            scratch = f"{tmp_path}/dir_{number}/scratch"
            assert processes.holder_for(Peer(pid, 0), 0, scratch) == processes.holder(expected)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Return a job's directory, as HTCondor makes it."""
    directory = tmp_path / "dir_7"
    (directory / "scratch").mkdir(parents=True)
    return directory


def unseen(scratch: object, *, stated: int = 7, uid: int = 0) -> Holder:
    """Return the holder for a peer in another pid namespace: the kernel says 0 for it."""
    found = processes.holder_for(Peer(0, uid), stated, str(scratch))
    assert found is not None
    return found


@pytest.mark.parametrize("inside", ["", "/", "/scratch", "/scratch/sub"])
def test_a_starter_that_is_not_seen_lives_as_long_as_its_jobs_directory(job: Path, inside: str) -> None:
    """Another directory of the same name, of a starter whose pid was used again, is not its directory."""
    holder = unseen(f"{job}{inside}")
    assert (holder.directory, holder.inode, holder.bounded) == (str(job), job.stat().st_ino, False)
    assert holder == unseen(job / "scratch", stated=0)
    assert processes.is_alive(holder)
    kept = job.rename(job.with_name("kept"))
    assert not processes.is_alive(holder)
    job.mkdir()
    assert not processes.is_alive(holder)
    assert unseen(job).file_name != holder.file_name
    job.rmdir()
    kept.rename(job)
    assert processes.is_alive(holder)


def test_of_two_directories_the_inner_one_is_the_jobs(job: Path) -> None:
    """A pilot is a job itself."""
    inner = job / "pilot" / "execute" / "dir_8"
    inner.mkdir(parents=True)
    assert unseen(inner / "scratch", stated=8).directory == str(inner)


@pytest.mark.parametrize(
    ("scratch", "stated"),
    [("{job}", 8), ("{job}/../dir_9", 9), ("", 7), ("/dir_", 7), ("dir_7", 7), ("/\0/dir_7", 7), ("/\ud800/dir_7", 7)],
)
def test_without_a_directory_that_is_seen_a_lease_has_an_end(job: Path, scratch: str, stated: int) -> None:
    """Nothing tells when its job ends."""
    holder = unseen(scratch.format(job=job), stated=stated)
    assert (holder.inode, holder.bounded) == (0, True)
    assert processes.is_alive(holder)
    assert holder.file_name.endswith(".json")
    assert processes.holder_for(Peer(0, 0), 0, "/nowhere") is None


def test_a_directory_that_its_user_can_keep_gives_no_lease_without_end(job: Path) -> None:
    """A user may make a directory of that name anywhere."""
    user = 4711 if os.getuid() == 0 else os.getuid() + 1
    for mode, bounded in ((0o755, False), (0o1777, True)):
        job.parent.chmod(mode)
        assert unseen(job, uid=user).bounded is bounded, oct(mode)
        assert unseen(job, uid=user).inode == job.stat().st_ino


def test_a_peer_that_ended_has_no_holder() -> None:
    """Nobody waits for the answer any more."""
    with child() as (holder, process):
        process.kill()
        process.wait()
        assert processes.holder_for(Peer(holder.pid, 0), ME) is None


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    """A request states nothing about that."""
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        peer = Peer.of(one)
    assert (peer.pid, peer.uid) == (ME, os.getuid())


def test_a_watched_process_is_heard_of_when_it_ends() -> None:
    """The descriptor that is returned becomes readable then, and not before."""
    readers: dict[int, object] = {}
    with child() as (holder, process):
        descriptor = processes.watch(holder, lambda: None, readers.__setitem__)
        assert descriptor is not None
        assert list(readers) == [descriptor]
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(0) == []
        process.kill()
        assert poll.poll(LIMIT_S * 1000) == [(descriptor, select.POLLIN)]
        os.close(descriptor)


def test_what_cannot_be_watched_is_left_to_polling() -> None:
    """A process that is gone, and kernels without pidfd."""
    readers: dict[int, object] = {}
    with child() as (holder, process):
        process.kill()
        process.wait()
        assert processes.watch(holder, lambda: None, readers.__setitem__) is None
    assert readers == {}


def test_the_boot_is_the_kernels() -> None:
    """A lease of another boot has no holder."""
    assert processes.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
