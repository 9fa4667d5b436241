"""An EP without squashfuse, where each job would unpack its SIF for itself: the cache does it once, for all."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.pool.demo import BARE_KNOBS
from tests.pool.harness import Job, Pool, poll, wait_for
from tests.pool.test_execution_point import lease_of, slot_attribute, waiting_job
from tests.pool.world import SIFS, VERSION, World, image_name

SQUASHFUSE: Final = (Path("/usr/bin/squashfuse"), Path("/usr/bin/squashfuse_ll"))
KNOBS: Final = BARE_KNOBS | {"IMAGE_CACHE_MAX_BYTES": "24 MB", "IMAGE_CACHE_MIN_AGE": "0"}
"""Two unpacked images and one that is being unpacked."""

PRESSED: Final = {"htc/press-1:1": "alma9", "htc/press-2:1": "cold", "htc/press-3:1": "web", "htc/press-4:1": "default"}


@pytest.fixture(scope="module")
def ep(world: World) -> Iterator[Pool]:
    """Return a pool on an EP on which nobody has installed squashfuse."""
    with ExitStack() as stack:
        for path in SQUASHFUSE:
            away = path.with_name(f"{path.name}.away")
            path.rename(away)
            stack.callback(away.rename, path)
        for name, sif in PRESSED.items():
            world.tree.publish(name, SIFS / f"{sif}.sif", VERSION)
        yield stack.enter_context(world.pool("ep-without-squashfuse", KNOBS))


def entries(pool: Pool) -> list[Path]:
    """Return the entries of the cache."""
    return list((pool.directory / "image_cache" / "entries").iterdir())


def run_in(pool: Pool, name: str, count: int = 1) -> list[Job]:
    """Run jobs in an image to their end."""
    jobs = pool.submit({"+SingularityImage": image_name(name)}, count=count)
    wait_for(jobs, "completed", 120)
    return jobs


def press(pool: Pool) -> None:
    """Bring in more images than there is room for."""
    for name in PRESSED:
        run_in(pool, name)


def test_the_slot_says_what_was_seen(ep: Pool) -> None:
    """HTCondor's own trial of a SIF would pass: the runtime unpacks it, and says so only in a line for people."""
    poll(lambda: slot_attribute(ep, "ImageCacheCanUseSIF") is False, "the trial in the slot ad")
    assert slot_attribute(ep, "ImageCacheCanUseSandbox") is True
    has_sif = ep.tool("condor_status", "-af", "HasSIF").stdout.split()
    assert set(has_sif) == {"true"}  # it can run it, or unpack it
    assert "temporary sandbox" in ep.tool("condor_image_cache", "doctor", check=False).stdout.replace("\n", " ")


def test_a_published_sif_runs_from_a_directory_and_the_next_job_finds_it(ep: Pool, world: World) -> None:
    """HTCondor starts it as a sandbox, and nothing is unpacked for the job."""
    first = run_in(ep, "htc/rocky:9")[0]
    second = run_in(ep, "htc/rocky:9")[0]
    assert first.stdout == second.stdout == "htc/rocky:9 SIF\n"
    assert "SIF fetched and unpacked from " in first.message()
    assert "cached directory, unpacked from the SIF" in second.message()
    assert ep.log("ImageCacheLog").count("unpacked htc/rocky:9: ") == 1
    (entry,) = entries(ep)
    assert entry.name.endswith(".sandbox")
    assert {path.owner() for path in (entry / "image").iterdir()} == {"joe"}
    assert os.listdir(ep.directory / "image_cache" / "staging") == []  # noqa: PTH208 - names
    assert world.origin.requests(world.object_path("htc/rocky:9"))


def test_ten_jobs_at_once_are_one_unpacking(ep: Pool, world: World) -> None:
    """One SIF comes, one directory is made, ten jobs run in it."""
    world.tree.publish("htc/ten:1", SIFS / "cold.sif", VERSION)
    jobs = run_in(ep, "htc/ten:1", 10)
    assert {job.stdout for job in jobs} == {"htc/cold:1 SIF\n"}
    assert ep.log("ImageCacheLog").count("unpacked htc/ten:1: ") == 1
    assert len(world.origin.requests(world.object_path("htc/ten:1"), "GET")) == 1


def test_under_pressure_the_image_of_a_running_job_stays(ep: Pool, world: World) -> None:
    """A directory that goes breaks the job that runs in it; the others go, and the cap holds."""
    job, end = waiting_job(ep, world, "end-unpack-1")
    lease = lease_of(ep, job)
    assert lease is not None
    (key,) = lease["keys"] if isinstance(lease["keys"], list) else []
    press(ep)
    assert key in [entry.name for entry in entries(ep)]
    assert ep.log("ImageCacheLog").count("evicted htc/press-") >= 2
    end.touch()
    job.wait()
    assert job.stdout == "htc/rocky:9 SIF\n" * 2


def test_a_starter_that_is_killed_gives_its_directory_up(ep: Pool, world: World) -> None:
    """Then room is needed, and it goes."""
    job, _ = waiting_job(ep, world, "end-unpack-2")
    lease = lease_of(ep, job)
    assert lease is not None
    (key,) = lease["keys"] if isinstance(lease["keys"], list) else []
    ep.tool("condor_hold", job.id)  # it does not start again
    poll(lambda: lease_of(ep, job) is None, "the end of the lease")
    again, _ = waiting_job(ep, world, "end-unpack-3")
    lease = lease_of(ep, again)
    assert lease is not None
    os.kill(int(str(lease["pid"])), signal.SIGKILL)
    ep.tool("condor_rm", job.id, again.id)
    poll(lambda: lease_of(ep, again) is None, "the end of the lease")
    press(ep)
    assert key not in [entry.name for entry in entries(ep)]


def test_a_sif_that_comes_with_the_job_goes_elsewhere(ep: Pool) -> None:
    """It is not ours to keep, and here it would be unpacked for each job."""
    lines = {"universe": "container", "container_image": "shipped.sif"}
    job = ep.submit(lines, inputs=[SIFS / "shipped.sif"], guard=1)[0]
    runs = poll(job.hook_runs, "the hook's answer", 60)
    assert runs[0].status == 310
    assert "cannot run SIF files" in runs[0].message
    ep.tool("condor_rm", job.id)
