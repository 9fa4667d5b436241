"""Leases where the manager does not see the starter: behind another pid namespace, and behind hidepid."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, Final

import pytest

from tests.contract.doubles import sif
from tests.contract.origin import Origin, Reply
from tests.pool.alone import Alone
from tests.pool.harness import poll
from tests.pool.processes import descendants

SIZE: Final = 60_000
CAP: Final = {"IMAGE_CACHE_MAX_BYTES": "250 KB"}
"""Room for two images of that size, and not for three."""

OWN_PIDS: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
HIDDEN: Final = ("unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")
WAYS: Final = pytest.mark.parametrize("below", [OWN_PIDS, HIDDEN], ids=["another pid namespace", "hidepid"])

Start = Callable[..., Alone]


@pytest.fixture
def origin() -> Iterator[Origin]:
    """Serve four images."""
    with Origin() as one:
        for name in "abcd":
            one.routes[f"/{name}.sif"] = Reply(sif(name, SIZE), headers={"ETag": f'"{name}"'})
        yield one


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a manager."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Alone(CAP, **options))


def leases(site: Alone) -> list[dict[str, Any]]:
    """Return the lease files."""
    found = []
    for name in site.names("leases"):
        with suppress(FileNotFoundError):  # it ended meanwhile
            found.append(json.loads((site.root / "leases" / name).read_text()))
    return found


def images(site: Alone) -> set[str]:
    """Return the names of the images in the cache."""
    return {one["name"].rpartition("/")[2].removesuffix(".sif") for one in site.ask("list")["entries"]}


@WAYS
def test_a_lease_follows_the_jobs_directory(start: Start, origin: Origin, below: tuple[str, ...]) -> None:
    """Its image stays under pressure while the directory is there, and goes when that is removed, as after a job."""
    site = start(below=below)
    job = site.start_job(f"{origin.url}/a.sif")
    assert job.status == 0, job.message
    (lease,) = leases(site)
    assert lease["directory"] == str(job.directory)
    assert lease["inode"] == job.directory.stat().st_ino
    assert not lease["bounded"]
    for name in "bcd":
        other = site.start_job(f"{origin.url}/{name}.sif")
        assert other.status == 0, other.message
        other.kill()
        shutil.rmtree(other.directory)
        poll(lambda: len(leases(site)) == 1, "the end of the other's lease")
    assert images(site) == {"a", "d"}
    job.kill()
    shutil.rmtree(job.directory)
    poll(lambda: not leases(site), "the end of the lease")


@WAYS
def test_leases_by_directory_are_taken_up_after_a_kill(start: Start, origin: Origin, below: tuple[str, ...]) -> None:
    """Except those whose directory went meanwhile."""
    site = start(below=below)
    stays, goes = (site.start_job(f"{origin.url}/{name}.sif") for name in "ab")
    assert [stays.status, goes.status] == [0, 0]
    site.stop()
    goes.kill()
    shutil.rmtree(goes.directory)
    site.start()
    assert [one["directory"] for one in leases(site)] == [str(stays.directory)]
    assert site.ask("status")["leases"] == 1


def test_behind_hidepid_a_starter_that_is_killed_gives_its_lease_up(start: Start, origin: Origin) -> None:
    """The kernel tells of its end, though /proc does not show it; its directory is there until HTCondor cleans up."""
    site = start(below=HIDDEN)
    job = site.start_job(f"{origin.url}/a.sif")
    assert job.status == 0, job.message
    assert [one["pid"] for one in leases(site)] == [job.process.pid]
    job.kill()
    poll(lambda: not leases(site), "the end of the lease")
    assert job.directory.exists()


@WAYS
def test_whoever_states_a_pid_that_is_not_the_directorys_gets_a_lease_with_an_end(
    start: Start, origin: Origin, below: tuple[str, ...]
) -> None:
    """It ends after a day; nothing tells of the job's end."""
    site = start(below=below)
    job = site.start_job(f"{origin.url}/a.sif", stated="1")
    assert job.status == 0, job.message
    assert all(one["bounded"] for one in leases(site))


def test_a_starter_in_a_namespace_below_ours_is_found_by_its_hook(start: Start, origin: Origin) -> None:
    """The number that it states means nothing to us, and may be another process's here; the kernel knows the hook."""
    site = start()
    job = site.start_job(f"{origin.url}/a.sif", below=OWN_PIDS)
    assert job.status == 0, job.message
    (lease,) = leases(site)
    starter, *_ = descendants(job.process.pid)  # its hook may not be gone yet
    assert lease["pid"] == starter
    assert "directory" not in lease
    job.kill()
    poll(lambda: not leases(site), "the end of the lease")
